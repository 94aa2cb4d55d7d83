"""What a resumed sweep must have in common with what was started, and how a difference is told."""

import json
from pathlib import Path
from typing import Any

from orchestrator.planning.backbones import PATH_SETTINGS
from orchestrator.planning.plan import Plan
from orchestrator.planning.trial import Trial
from orchestrator.space.search_space import SearchSpace
from orchestrator.training.workers import WORKERS_PREFIX

_OF_THE_CLUSTER = {"cpus_per_worker", "max_concurrent_trials", "max_failures"}
"""Settings of workers that may be others on a resume. The rest decides by how many workers, and how, a checkpoint can
be taken up."""
_STAGE = "stage"
Settings = dict[str, dict[str, Any]]


def agreed_settings(plan: Plan, space: SearchSpace) -> Settings:
    """Resolved settings by trial, and under `sweep` those that are the same for all, as they would be read from disk.

    Files count by content, never by path: under `ray job submit --working-dir` every submission has another copy.
    """
    workers = plan.workers.model_dump(mode="json", exclude=_OF_THE_CLUSTER)
    networks = [stage.settings["model"] for stage in plan.of_kind("finetune", "distill")]
    sweep = {
        "study": space.study,
        "select.metric": space.select.metric,
        "the content of data.path": _listed(stage.settings["source"] for stage in plan.of_kind("data")),
        "the content of backbone": _listed(model["backbone"] for model in networks if isinstance(model, dict)),
        **{f"{WORKERS_PREFIX}{name}": value for name, value in workers.items()},
    }
    settings: Settings = {"sweep": sweep, **{trial.trial_id: _of(trial) for trial in plan.trials}}
    if plan.search:
        drawn = {name: value for name, value in plan.search["params"].items() if name not in PATH_SETTINGS}
        settings["search"] = {**plan.search, "params": drawn}
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def differences(before: Settings, now: Settings) -> list[str]:
    """What differs, setting by setting; trials that only one of them has come where no setting is the reason.

    A setting that is younger than the sweep is no difference where the trial's stage is what it was.
    """
    now = {name: _without_younger(of, before.get(name, {})) for name, of in now.items()}
    if before == now:
        return []
    changes = []
    for name in sorted({key for settings in [*before.values(), *now.values()] for key in settings} - {_STAGE}):
        old, new = (_listed(s[name] for s in side.values() if name in s) for side in (before, now))
        if old != new:
            changes.append(f"{name}: {old or 'nothing'} → {new or 'nothing'}")
    return changes or [f"trial {trial}" for trial in sorted(before.keys() ^ now.keys())] or ["the code's numbers"]


def _without_younger(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    if _STAGE not in now or now[_STAGE] != before.get(_STAGE):
        return now
    return {name: value for name, value in now.items() if name in before}


def _of(trial: Trial) -> dict[str, Any]:
    # A plan has every file that it found by its absolute path.
    files = {name for name in PATH_SETTINGS if Path(str(trial.settings.get(name))).is_absolute()}
    return {_STAGE: trial.stage_id, **trial.settings, **dict.fromkeys(files, "a file")}


def _listed(values: Any) -> str:
    return ", ".join(sorted({str(value) for value in values}))
