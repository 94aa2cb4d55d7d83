"""Ray Tune over the trials of a sweep: all of a grid, or what a sampler draws, with or without early stops."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from orchestrator.resources import DRIVER_CPUS
from orchestrator.space.search_space import SearchSpace
from orchestrator.training.driver import run_trial
from orchestrator.training.job import Job

OnResult = Callable[[str, dict[str, Any]], None]
"""Called with a trial's name and what it reported."""


@dataclass(frozen=True)
class SearchTrial:
    """What became of one drawn point."""

    point: dict[str, Any]
    """Drawn settings by dotted name."""
    metrics: dict[str, float]
    """Last reported."""
    best_value: float | None
    """Best epoch's value of the selection metric; None = it never reported."""
    error: str | None
    """Why its process was lost; what it raised itself is in the sweep's folder."""


class _Reporter(ray.tune.Callback):  # type: ignore[misc]  # ray ships no types here
    """Passes results on to the terminal."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._on_result(_label(trial), result)


def tune_jobs(jobs: Sequence[Job], concurrent: int, on_result: OnResult) -> None:
    """Runs every job as a trial; a failed one does not stop the others, its message is kept by `run_trial`."""
    first = jobs[0]
    ray.tune.Tuner(
        ray.tune.with_resources(run_trial, {"cpu": DRIVER_CPUS}),
        param_space={"job": ray.tune.grid_search([job.to_dict() for job in jobs])},
        tune_config=ray.tune.TuneConfig(
            max_concurrent_trials=concurrent, trial_name_creator=_label, trial_dirname_creator=_folder_name
        ),
        # Nothing of this run is restored: what was finished is in the stage store. So its name is its own.
        run_config=_run_config(first, f"tune-{uuid.uuid4().hex[:8]}", on_result),
    ).fit()


def search(
    space: SearchSpace,
    template: Job,
    trainable: Callable[[dict[str, Any]], None],
    context: dict[str, Any],
    sampled: dict[str, Any],
    concurrent: int,
    max_epochs: int,
    on_result: OnResult,
) -> list[SearchTrial]:
    """Draws points until the budget is used up; goes on where an interrupted search of this sweep stopped.

    Args:
        space: Algorithm, scheduler, budget.
        template: A job of the sweep, for storage and names.
        trainable: Trains one drawn point; gets it as `point`, and `context` as it is.
        context: Plain data.
        sampled: `{sampler: arguments}` by dotted name.
        concurrent: Trials at a time.
        max_epochs: Of one trial.
        on_result: Told of every report.
    """
    folder = template.runs_folder / "search"
    sized = ray.tune.with_resources(trainable, {"cpu": DRIVER_CPUS})
    if ray.tune.Tuner.can_restore(str(folder)):
        tuner = ray.tune.Tuner.restore(str(folder), trainable=sized, resume_errored=True)
    else:
        tuner = ray.tune.Tuner(
            sized,
            param_space={
                "point": {name: _domain(value) for name, value in sampled.items()},
                "context": context,
            },
            tune_config=ray.tune.TuneConfig(
                num_samples=space.budget.num_trials,
                max_concurrent_trials=concurrent,
                search_alg=_search_algorithm(space, concurrent),
                scheduler=_scheduler(space, max_epochs),
                trial_name_creator=_label,
                trial_dirname_creator=_folder_name,
            ),
            run_config=_run_config(template, folder.name, on_result),
        )
    return [_search_trial(result) for result in tuner.fit()]


def _search_algorithm(space: SearchSpace, concurrent: int) -> SearchAlgorithm | Searcher:
    if space.search.algorithm == "random":
        from ray.tune.search.basic_variant import BasicVariantGenerator  # noqa: PLC0415  # beside its rival

        return BasicVariantGenerator(max_concurrent=concurrent, random_state=space.search.seed)
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415  # imports Optuna, which only this needs

    return OptunaSearch(metric=space.select.metric, mode=space.select.mode, seed=space.search.seed)


def _scheduler(space: SearchSpace, max_epochs: int) -> TrialScheduler | None:
    if space.search.scheduler == "none":
        return None
    return ASHAScheduler(
        time_attr="epoch",
        metric=space.select.metric,
        mode=space.select.mode,
        max_t=max_epochs,
        # A trial that reaches the end must still rank, save and commit.
        stop_last_trials=False,
        grace_period=min(space.budget.grace_epochs, max_epochs),
    )


def _domain(value: dict[str, list[Any]]) -> Any:
    ((sampler, arguments),) = value.items()
    if sampler == "choice":
        return ray.tune.choice(arguments)
    return getattr(ray.tune, sampler)(*arguments)


def _search_trial(result: Any) -> SearchTrial:
    metrics = {k: v for k, v in (result.metrics or {}).items() if isinstance(v, int | float) and "/" in k}
    reported = result.metrics or {}
    return SearchTrial(
        point=dict(result.config["point"]),
        metrics=metrics,
        best_value=reported.get("best_value"),
        error=None if result.error is None else str(result.error),
    )


def _run_config(job: Job, name: str, on_result: OnResult) -> ray.tune.RunConfig:
    return ray.tune.RunConfig(
        name=name,
        storage_path=str(job.runs_folder),
        verbose=0,
        callbacks=[_Reporter(on_result)],
        # `run_trial` raises nothing: what fails here is a process or a node that was lost.
        failure_config=ray.tune.FailureConfig(max_failures=job.workers.max_failures),
    )


def _label(trial: Any) -> str:
    job = trial.config.get("job")
    return str(job["stage"]["stage_id"]) if job else f"search-{trial.trial_id}"


def _folder_name(trial: Any) -> str:
    return f"{_label(trial)}-{trial.trial_id}"
