"""Ray Tune over what a sweep builds, in the order of what it reads, and over what a search draws, with early stops.

Nothing of Tune's is restored: what was finished is in the stage store, what a search knows in the sweep's folder.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray.tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.build_queue import BuildQueue
from orchestrator.resources import DRIVER_CPUS
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.failures import note_failure, read_failure
from orchestrator.training.driver import run_trial
from orchestrator.training.job import Job
from slmrec_core.errors import TrialFailedError

OnResult = Callable[[Job, dict[str, Any]], None]
"""Called with a trial's job, the first if it has several, and what it reported."""
OnEnd = Callable[[Job], None]
"""Called with the job of a trial that is finished, stopped or failed, the first if it has several."""


class PointSource(Protocol):
    """Where the trials of a search come from."""

    space: SearchSpace

    @property
    def num_left(self) -> int:
        """Points that are still to be trained, drawn or not."""

    def draw(self) -> Job:
        """The job of the next point."""

    def note(self, job: Job, result: dict[str, Any]) -> None:
        """Told of every report."""

    def end(self, job: Job) -> None:
        """Told of every end."""


class Watcher(ray.tune.Callback):  # type: ignore[misc]  # ray ships no types here
    """Passes on what happens to trials; notes the error of one whose process was lost, since nobody else can."""

    def __init__(self, on_result: OnResult, on_end: OnEnd) -> None:
        self._on_result, self._on_end = on_result, on_end

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._on_result(_jobs(trial)[0], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._on_end(_jobs(trial)[0])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for job in _jobs(trial):
            if not read_failure(job.failure_file):
                note_failure(
                    job.failure_file,
                    TrialFailedError(
                        f"{job.stage.stage_id}: the process that steers its trial was lost, got {trial.get_error()}."
                        " Look into the logs of Ray, then resume the sweep."
                    ),
                )
        self._on_end(_jobs(trial)[0])

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that never comes; ours hold on to what cannot be pickled."""
        return {}


class _Asked(Searcher):  # type: ignore[misc]  # ray ships no types here
    """Asks for the jobs of the next trial whenever there is room for one: none for now is None, none at all is []."""

    def __init__(self, ask: Callable[[], Sequence[Job] | None]) -> None:
        super().__init__()
        self._ask = ask

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        jobs = self._ask()
        if jobs is None:
            return None
        return {"jobs": [job.to_dict() for job in jobs]} if jobs else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Whoever gives the jobs is told by `Watcher`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see the module."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: see `Watcher`."""
        return {}


def tune_builds(
    queue: BuildQueue,
    template: Job,
    concurrent: int,
    on_result: OnResult,
    on_built: Callable[[list[str]], None] = lambda built: None,
) -> None:
    """Runs every build as a trial, as soon as it lacks nothing; a failed one stops those that read it and no others.

    Args:
        queue: Gives the builds, and holds the messages of those that failed.
        template: A job like theirs, for storage and workers.
        concurrent: Trials at a time.
        on_result: Called with what a trial reports.
        on_built: Called with the stages of a build that is over.
    """

    def ask() -> Sequence[Job] | None:
        if not queue.num_waiting:
            return []
        build = queue.next()
        return None if build is None else build.jobs

    ray.tune.Tuner(
        ray.tune.with_resources(run_trial, {"cpu": DRIVER_CPUS}),
        tune_config=ray.tune.TuneConfig(
            num_samples=queue.num_waiting,
            max_concurrent_trials=concurrent,
            search_alg=_Asked(ask),
            # The process that steers a trial then steers the next. Not in a search: a trial that is stopped early
            # still waits in it for its workers.
            reuse_actors=True,
            trial_name_creator=_label,
            trial_dirname_creator=_folder_name,
        ),
        run_config=_run_config(template, "build", Watcher(on_result, lambda job: on_built(queue.end(job)))),
    ).fit()


def tune_points(points: PointSource, template: Job, concurrent: int) -> None:
    """Runs points as trials, each drawn when there is room for it; ASHA stops some early.

    Args:
        points: Gives them, and is told what becomes of them.
        template: A job like theirs, for storage and epochs.
        concurrent: Trials at a time.
    """
    ray.tune.Tuner(
        ray.tune.with_resources(run_trial, {"cpu": DRIVER_CPUS}),
        tune_config=ray.tune.TuneConfig(
            num_samples=points.num_left,
            max_concurrent_trials=concurrent,
            search_alg=_Asked(lambda: [points.draw()]),
            scheduler=_scheduler(points.space, int(template.experiment["training"]["epochs"])),
            trial_name_creator=_label,
            trial_dirname_creator=_folder_name,
        ),
        run_config=_run_config(template, "search", Watcher(points.note, points.end)),
    ).fit()


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


def _run_config(job: Job, kind: str, watcher: Watcher) -> ray.tune.RunConfig:
    return ray.tune.RunConfig(
        # Each start has a name of its own: Tune would take up what lies under an old one.
        name=f"{kind}-{uuid.uuid4().hex[:8]}",
        storage_path=str(job.runs_folder),
        verbose=0,
        callbacks=[watcher],
        # `run_trial` raises nothing: what fails here is a process or a node that was lost.
        failure_config=ray.tune.FailureConfig(max_failures=job.workers.max_failures),
    )


def _jobs(trial: Any) -> list[Job]:
    return [Job.from_dict(raw) for raw in trial.config["jobs"]]


def _label(trial: Any) -> str:
    return str(trial.config["jobs"][0]["stage"]["stage_id"])


def _folder_name(trial: Any) -> str:
    return f"{_label(trial)}-{trial.trial_id}"
