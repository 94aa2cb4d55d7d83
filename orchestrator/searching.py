"""A search over settings: drawn points are judged on `valid`; the chosen one is then a row like any other.

What is known of every point stands in `search.json` of the sweep's folder. A search that is started again goes on from
there: what ended is not trained again, what was left open or failed is, and only the rest of the budget is drawn.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.builders import Builder, say_epoch
from orchestrator.console import progress
from orchestrator.drawing import Sampler
from orchestrator.planning.plan import Plan, add_row
from orchestrator.planning.trial import Trial
from orchestrator.report.results import Ending
from orchestrator.space.axes import extremes
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.failures import read_failure
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.storage.payload import append_record
from orchestrator.storage.sweep_folder import write_json
from orchestrator.training.job import Job
from orchestrator.tuning import tune_points
from slmrec_core.errors import CheckpointError
from slmrec_core.training.loop import EpochRecord

REPORTS_FOLDER = "search"
"""In the sweep's folder: what each point reported, by stage, as a stage has it in its `metrics.jsonl`."""

OnTrial = Callable[[Trial], None]
"""Called with every drawn point, as a row."""


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found."""

    trials: list[Trial]
    """One per drawn point; equal points are one."""
    endings: dict[str, Ending]
    """By trial id, for those without a finished stage."""
    failures: dict[str, str]
    """Messages by stage id."""
    chosen: dict[str, Any] | None
    """Settings of the best point; None = no trial reported."""


@dataclass
class Point:
    """What is known of one drawn point."""

    settings: dict[str, Any]
    """Drawn, by dotted name."""
    ending: Literal["finished", "stopped", "failed"] | None = None
    """None = it is not over."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Last reported."""
    best_value: float | None = None
    """Best epoch's value of the selection metric; None = it never reported."""
    error: str | None = None
    """Why it failed."""


class Search:
    """The points of one search, drawn, waiting and ended; see `orchestrator.tuning.PointSource`.

    Args:
        plan: Whose shared stages are built.
        space: What is searched.
        builder: Makes the jobs, for the cluster as it is now.
        folder: Of the sweep.
        on_trial: Told of every point that is known from before or drawn.

    Raises:
        CheckpointError: `search.json` is damaged.
    """

    def __init__(self, plan: Plan, space: SearchSpace, builder: Builder, folder: Path, on_trial: OnTrial) -> None:
        self.space = space
        self._plan, self._builder, self._on_trial = plan, builder, on_trial
        self._file, self._reports = folder / "search.json", folder / REPORTS_FOLDER
        self._points = _read(self._file)
        self._trials: list[Trial] = []
        self._jobs: list[Job] = []
        self._sampler = Sampler(space, num_known=len(self._points))
        for point in self._points:
            self._take_in(point)
        self._waiting = [job for job in self._jobs if not self._is_over(job)]
        for point, job in zip(self._points, self._jobs, strict=True):
            if job not in self._waiting and point.best_value is not None:
                self._sampler.learn(point.settings, point.best_value)

    @property
    def num_left(self) -> int:
        """Points that are still to be trained, drawn or not."""
        return len(self._waiting) + self.space.budget.num_trials - len(self._points)

    def draw(self) -> Job:
        """The next point: one that was drawn before and is not over, else a new one."""
        if not self._waiting:
            point = Point(self._sampler.draw())
            self._take_in(point)
            self._points.append(point)
            self._waiting.append(self._jobs[-1])
        job = self._waiting.pop(0)
        job.failure_file.unlink(missing_ok=True)
        point = self._point(job)
        point.ending, point.error = None, None
        self._write()
        return job

    def note(self, job: Job, result: dict[str, Any]) -> None:
        """Keeps what a point reported; its own folder is gone as soon as it is stopped."""
        say_epoch(f"search-{job.point}", result)
        if "best_value" not in result:
            return
        point = self._point(job)
        point.metrics = {k: float(v) for k, v in result.items() if isinstance(v, int | float) and "/" in k}
        point.best_value = float(result["best_value"])
        self._keep(job, EpochRecord(int(result["epoch"]), int(1000 * time.time()), point.metrics))
        self._write()

    def end(self, job: Job) -> None:
        """Notes how a point ended, and tells the sampler what it was worth."""
        point = self._point(job)
        point.error = read_failure(job.failure_file)
        if job.store.is_done(job.stage.stage_id):
            point.ending = "finished"
        else:
            point.ending = "stopped" if point.error is None else "failed"
        if point.ending != "failed" and point.best_value is not None:
            self._sampler.learn(point.settings, point.best_value)
        self._write()

    def outcome(self) -> SearchOutcome:
        """What is known, with the best point of those that did not fail."""
        endings: dict[str, Ending] = {}
        failures: dict[str, str] = {}
        for point, trial, job in zip(self._points, self._trials, self._jobs, strict=True):
            if job.store.is_done(job.stage.stage_id):
                continue
            endings[trial.trial_id] = (point.ending or "missing", point.metrics)
            if point.ending == "failed":
                failures[trial.stage_id] = f"{trial.trial_id}: {point.error or 'it failed, and nothing says why.'}"
        trials = {trial.trial_id: trial for trial in self._trials}
        return SearchOutcome(list(trials.values()), endings, failures, self._chosen())

    def _keep(self, job: Job, record: EpochRecord) -> None:
        """Adds a record to what the point reported, after those that an earlier start was killed before it heard of."""
        stage_id = job.stage.stage_id
        folder = self._reports / stage_id
        folder.mkdir(parents=True, exist_ok=True)
        kept = {row.step for row in MetricsTail(self._reports, stage_id).read()}
        # A builder that goes on from a checkpoint writes all epochs of it before its first report.
        for row in MetricsTail(job.store.root, stage_id).read():
            if row.step < record.step and row.step not in kept:
                append_record(folder, EpochRecord(row.step, row.timestamp_ms, row.metrics))
        append_record(folder, record)

    def _chosen(self) -> dict[str, Any] | None:
        judged = [point for point in self._points if point.ending != "failed" and point.best_value is not None]
        if not judged:
            return None
        best = max(judged, key=lambda point: point.best_value or 0.0)
        return {**(self.space.sampled_group() or {}), **best.settings}

    def _take_in(self, point: Point) -> None:
        trial, job = planned_point(self._plan, self.space, self._builder, point.settings)
        self._trials.append(trial)
        self._jobs.append(replace(job, point=len(self._jobs)))
        self._on_trial(trial)

    def _is_over(self, job: Job) -> bool:
        ending = self._point(job).ending
        # A stage that was deleted since is trained again, as everywhere.
        return ending == "stopped" or (ending == "finished" and job.store.is_done(job.stage.stage_id))

    def _point(self, job: Job) -> Point:
        assert job.point is not None
        return self._points[job.point]

    def _write(self) -> None:
        write_json(self._file, {"points": [asdict(point) for point in self._points]})


def run_search(plan: Plan, space: SearchSpace, builder: Builder, folder: Path, on_trial: OnTrial) -> SearchOutcome:
    """Draws, trains and judges points, all with the first seed; goes on where an earlier start of it ended.

    Args:
        plan: Whose shared stages are built.
        space: What is searched.
        builder: Of the sweep.
        folder: Of the sweep; `search.json` in it holds what is known.
        on_trial: Told of every point as soon as it is known.
    """
    search = Search(plan, space, builder, folder, on_trial)
    progress(f"search: {search.num_left} of {space.budget.num_trials} points to train")
    if search.num_left > 0:
        first = {name: extremes(axis)[0] for name, axis in space.sampled_axes().items()}
        _, template = planned_point(plan, space, builder, first)
        tune_points(search, template, builder.allocation.concurrent_trials)
    return search.outcome()


def planned_point(plan: Plan, space: SearchSpace, builder: Builder, point: dict[str, Any]) -> tuple[Trial, Job]:
    """A drawn point as a row and as a job; neither needs the data or a backbone where it is trained."""
    own = plan.like()
    settings = {**(space.sampled_group() or {}), **point, "row": "search"}
    trial = add_row(own, space, settings, space.seeds[0], read_test=False)
    return trial, builder.job(own, own.stages[trial.stage_id])


def _read(file: Path) -> list[Point]:
    try:
        return [Point(**point) for point in json.loads(file.read_text())["points"]] if file.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"search: {file} must hold the points that were drawn, got {error!r}. Delete it; points are drawn anew."
        ) from error
