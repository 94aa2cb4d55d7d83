"""What the drawn points of a search read in common, planned before any of them is known."""

import itertools
import math
from typing import Any

from orchestrator.planning.plan import Plan, add_row
from orchestrator.space.axes import extremes
from orchestrator.space.search_space import SearchSpace
from slmrec_core.errors import ConfigError

_MAX_COMBINATIONS = 256


def plan_shared_stages(plan: Plan, space: SearchSpace) -> None:
    """Plans what drawn points will read: item table, teacher and states for every combination of choices.

    Args:
        plan: Grows; notes what is searched, so that a resumed sweep can be compared.
        space: With one group of distributions.

    Raises:
        ConfigError: A point that can be drawn cannot be, a range decides what the points share, or the choices have
            too many combinations to plan each.
    """
    group = space.sampled_group()
    assert group is not None
    plan.search = {**space.model_dump(mode="json", include={"search", "budget", "select"}), "params": group}
    axes = space.sampled_axes()
    choices = [extremes(value) if "choice" in value else extremes(value)[:1] for value in axes.values()]
    if (combinations := math.prod(map(len, choices))) > _MAX_COMBINATIONS:
        raise ConfigError(
            f"params: choices must have at most {_MAX_COMBINATIONS} combinations, each of which is planned beforehand,"
            f" got {combinations}. Write ranges, e.g. {{uniform: [a, b]}}, or fewer values."
        )
    scratch = plan.like()
    for values in itertools.product(*choices):
        _add_point(scratch, space, group, dict(zip(axes, values, strict=True)))
    _check_ranges(scratch, space, group, axes)
    _check_metric(scratch, space)
    shared = _read_by_others(scratch)
    for stage in scratch.stages.values():
        if stage.stage_id in shared:
            plan.add(stage, scratch.experiments[stage.stage_id])
    known = {trial.trial_id for trial in plan.trials}
    plan.trials += [t for t in scratch.trials if t.stage_id in shared and t.trial_id not in known]


def _add_point(plan: Plan, space: SearchSpace, group: dict[str, Any], point: dict[str, Any]) -> None:
    add_row(plan, space, {**group, **point}, space.seeds[0], read_test=False)


def _check_ranges(scratch: Plan, space: SearchSpace, group: dict[str, Any], axes: dict[str, Any]) -> None:
    """Tries the far end of every range: it must be a setting that can be, and need nothing new."""
    first = {name: extremes(value)[0] for name, value in axes.items()}
    for name, value in axes.items():
        if "choice" in value:
            continue
        known = _read_by_others(scratch)
        trial = scratch.like()
        _add_point(trial, space, group, {**first, name: extremes(value)[-1]})
        if not _read_by_others(trial) <= known:
            raise ConfigError(
                f"params: {name} decides what all drawn points read, so its values must be known beforehand, got"
                f" {value}. Write {{choice: [...]}}."
            )


def _check_metric(scratch: Plan, space: SearchSpace) -> None:
    """What a point is worth is the value of its best epoch, so both must be chosen by one metric."""
    kept = {str(experiment.training.checkpoint_metric) for experiment in scratch.experiments.values()}
    if kept != {space.select.metric}:
        raise ConfigError(
            f"select.metric: must be the training.checkpoint_metric of drawn points, {', '.join(sorted(kept))},"
            f" got {space.select.metric!r}. Set both to the same metric."
        )


def _read_by_others(plan: Plan) -> set[str]:
    return {name for stage in plan.stages.values() for name in stage.inputs.values()}
