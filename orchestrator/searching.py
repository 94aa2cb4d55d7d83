"""A search over settings: drawn points are judged on `valid`; the chosen one is then a row like any other."""

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.planning.plan import Plan, add_row, experiment_of
from orchestrator.planning.trial import Trial
from orchestrator.report.results import Ending
from orchestrator.space.axes import is_sampled
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.failures import failure_file, read_failure
from orchestrator.training.driver import run_trial
from orchestrator.training.job import Job
from orchestrator.tuning import OnResult, SearchTrial, search


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found."""

    trials: list[Trial]
    """One per drawn point."""
    endings: dict[str, Ending]
    """By trial id, for those without a finished stage."""
    failures: dict[str, str]
    """Messages by stage id."""
    chosen: dict[str, Any] | None
    """Settings of the best point; None = no trial reported."""


def run_search(plan: Plan, space: SearchSpace, template: Job, concurrent: int, on_result: OnResult) -> SearchOutcome:
    """Draws, trains and judges points, all with the first seed.

    Args:
        plan: Whose shared stages are built.
        space: What is searched.
        template: A job of this sweep; stage and experiment are replaced for each point.
        concurrent: Trials at a time.
        on_result: Told of every report.
    """
    group = space.sampled_group()
    assert group is not None
    sampled = {name: value for name, value in group.items() if is_sampled(value)}
    first = {name: next(iter(value.values()))[0] for name, value in sampled.items()}
    experiment = experiment_of(space, {**group, **first}, space.seeds[0])
    epochs = experiment.training.epochs
    # Points are planned in processes with another working directory, where a relative path means another file.
    paths = {"backbone": experiment.backbone}
    paths |= {f"{name}.backbone": getattr(experiment, name).backbone for name in ("teacher", "student")}
    own = {name: value for name, value in group.items() if space.base.get(name) != value}
    base = {**space.base, "data.path": experiment.data.path}
    pinned = space.model_copy(update={"base": base, "params": [own | paths]})
    context = {"space": pinned.model_dump(mode="json"), "template": template.to_dict()}
    found = search(space, template, run_point, context, sampled, concurrent, epochs, on_result)
    trials: list[Trial] = []
    endings: dict[str, Ending] = {}
    failures: dict[str, str] = {}
    for result in found:
        trial = _trial_of(space, result.point)[0]
        trials.append(trial)
        if template.store.is_done(trial.stage_id):
            continue
        message = read_failure(failure_file(template.storage, template.sweep, trial.stage_id)) or result.error
        if message:
            failures[trial.stage_id] = f"{trial.trial_id}: {message}"
        endings[trial.trial_id] = ("failed" if message else "stopped", result.metrics)
    sound = [result for result, trial in zip(found, trials, strict=True) if trial.stage_id not in failures]
    return SearchOutcome(trials, endings, failures, _chosen(sound, group))


def run_point(config: dict[str, Any]) -> None:
    """The trainable: one drawn point as a trial.

    Args:
        config: `point`, the drawn settings; `context`, the space and a template of the job.
    """
    space = SearchSpace.model_validate(config["context"]["space"])
    trial, plan = _trial_of(space, config["point"])
    template = Job.from_dict(config["context"]["template"])
    stage = plan.stages[trial.stage_id]
    experiment = plan.experiments[trial.stage_id].model_dump(mode="json")
    run_trial({"job": replace(template, stage=stage, experiment=experiment).to_dict()})


def _trial_of(space: SearchSpace, point: dict[str, Any]) -> tuple[Trial, Plan]:
    group = space.sampled_group()
    assert group is not None
    plan = Plan()
    return add_row(plan, space, {**group, **point, "row": "search"}, space.seeds[0], read_test=False), plan


def _chosen(found: list[SearchTrial], group: dict[str, Any]) -> dict[str, Any] | None:
    judged = [result for result in found if result.best_value is not None]
    if not judged:
        return None
    best = max(judged, key=lambda result: result.best_value or 0.0)
    return {**group, **best.point}
