"""One stage and its run in MLflow: what was read from disk, what was delivered, and how the run ends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run

from orchestrator.planning.trial import Trial
from orchestrator.report.results import COST_COLUMNS
from orchestrator.storage.metrics_tail import MetricRow, MetricsTail
from orchestrator.tracking.store import KIND_TAG, STAGE_TAG, TRIALS_TAG, SweepIdentity, TrackingStore


@dataclass
class TrackedStage:
    """Mirrors one stage into one run, which all trials that share the stage have in common."""

    store: TrackingStore
    stages: Path
    sweep: SweepIdentity
    trials: list[Trial]
    parent_id: str = ""
    """Run of the sweep; known from the first contact on."""
    run: Run | None = None
    """None = nothing to show yet."""
    is_ended: bool = False
    """The run has the status that it keeps."""
    reports: Path | None = None
    """See `MetricsTail`."""
    _tail: MetricsTail = field(init=False)
    _pending: list[MetricRow] = field(default_factory=list, init=False)
    _delivered: set[tuple[str, int]] = field(default_factory=set, init=False)
    _is_prepared: bool = field(default=False, init=False)
    _last_ms: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._tail = MetricsTail(self.stages, self.stage_id, self.reports)

    @property
    def stage_id(self) -> str:
        """Of all its trials."""
        return self.trials[0].stage_id

    @property
    def is_open(self) -> bool:
        """The run is RUNNING, as far as this process knows."""
        return self.run is not None and not self.is_ended

    @property
    def is_finished(self) -> bool:
        """The stage itself is done."""
        return self._tail.is_finished

    def find(self, run: Run) -> None:
        """Takes over the run that an earlier process made."""
        self.run = run
        # Written after everything else, so that nothing is missing in a finished run.
        self.is_ended = run.info.status == "FINISHED"
        if not self.is_ended:
            self._delivered = set(self.store.logged_values(run))

    def mirror(self) -> None:
        """Delivers what is new on disk; ends the run when the stage is finished."""
        if self.is_ended:
            return
        # Asked before reading: a result that appears in between must not hide rows that are not read yet.
        is_finished = self._tail.is_finished
        self._pending += self._tail.read()
        if not self._pending and not is_finished:
            return
        run_id = self._open(self._pending[0].timestamp_ms if self._pending else None)
        self._send(run_id, [m for row in self._pending for m in _metrics(row.metrics, row.timestamp_ms, row.step)])
        self._last_ms = max([row.timestamp_ms for row in self._pending] + [self._last_ms or 0]) or None
        self._pending = []
        if is_finished:
            self._send(run_id, self._result_metrics())
            self.end("FINISHED")

    def end(self, status: str) -> None:
        """Gives the run the status that it keeps; one that never showed anything gets a run first, if it failed."""
        if self.is_ended or (self.run is None and status != "FAILED"):
            return
        run_id = self._open(None) if self.run is None else self.run.info.run_id
        self.store.client.set_terminated(run_id, status, self._last_ms if status == "FINISHED" else None)
        self.is_ended = True

    def _open(self, start_ms: int | None) -> str:
        if self.run is None:
            ids = ",".join(sorted(trial.trial_id for trial in self.trials))
            tags = {**self.sweep.tags, KIND_TAG: "trial", STAGE_TAG: self.stage_id, TRIALS_TAG: ids}
            self.run = self.store.create_run(self.trials[0].trial_id, tags, self.parent_id, start_ms)
        run_id = str(self.run.info.run_id)
        if not self._is_prepared:
            if self.run.info.status != "RUNNING":
                self.store.client.update_run(run_id, status="RUNNING")
            self.store.log_params(self.run, _params(self.trials[0]))
            self._is_prepared = True
        return run_id

    def _send(self, run_id: str, metrics: list[Metric]) -> None:
        # The first value of a step counts: a builder that took over reports the steps before it again.
        new: dict[tuple[str, int], Metric] = {}
        for metric in metrics:
            if (metric.key, metric.step) not in self._delivered:
                new.setdefault((metric.key, metric.step), metric)
        self.store.log_metrics(run_id, list(new.values()))
        self._delivered |= new.keys()

    def _result_metrics(self) -> list[Metric]:
        path = self.stages / self.stage_id / "result.json"
        result: dict[str, Any] = json.loads(path.read_text())
        at = self._last_ms or path.stat().st_mtime_ns // 1_000_000
        costs = {name: float(result[name]) for name in COST_COLUMNS if result.get(name) is not None}
        metrics = _metrics(costs, at, step=0)
        if "layers" in result:
            # The layer takes the place of the epoch: the chart of a probe is depth against quality.
            return metrics + [m for n, found in result["layers"].items() for m in _metrics(found, at, int(n))]
        return metrics + _metrics(result["metrics"], at, int(result.get("best_epoch") or 0))


def _metrics(values: Mapping[str, float], timestamp_ms: int, step: int) -> list[Metric]:
    return [Metric(name, float(value), timestamp_ms, step) for name, value in values.items()]


def _params(trial: Trial) -> dict[str, str]:
    own = {name: getattr(trial, name) for name in ("method", "num_layers", "teacher_layers", "num_blocks", "seed")}
    return {name: _text(value) for name, value in {**trial.settings, **own}.items() if value is not None}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
