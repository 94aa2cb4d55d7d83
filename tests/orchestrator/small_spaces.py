"""Search spaces on generated data and the random backbone, so that nothing is downloaded."""

from typing import Any

from orchestrator.planning.plan import Plan, make_plan
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.stages import Stage

BASE: dict[str, Any] = {"data.path": "synthetic", "backbone": "tiny", "teacher.num_layers": 8, "student.num_layers": 4}


def space_of(*groups: dict[str, Any], base: dict[str, Any] | None = None, **keys: Any) -> SearchSpace:
    """A space of some groups; `base` is laid over ours."""
    return SearchSpace.model_validate({"study": "test", "base": BASE | (base or {}), "params": list(groups), **keys})


def plan_of(*groups: dict[str, Any], base: dict[str, Any] | None = None, **keys: Any) -> Plan:
    """The plan of a space of some groups."""
    return make_plan(space_of(*groups, base=base, **keys))


def stage_ids(plan: Plan, kind: str) -> set[str]:
    """Names of all stages of a kind."""
    return {stage.stage_id for stage in plan.of_kind(kind)}


def only(plan: Plan, kind: str) -> Stage:
    """The one stage of a kind."""
    (stage,) = plan.of_kind(kind)
    return stage
