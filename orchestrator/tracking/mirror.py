"""The sweep driver's mirror in MLflow: what lies on disk is the truth, MLflow shows it.

One background thread is the only writer. It follows the files that stages write, with the timestamps found there, so
that replaying them changes nothing: a run that was killed, a server that was away, a second process with `--resume`
all end in the same store. Neither the sweep nor its end waits for a server that does not answer.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mlflow.entities import Run

from orchestrator.planning.trial import Trial
from orchestrator.tracking.report import DatasetFacts, ReportWriter, RunStatus, SweepReport
from orchestrator.tracking.runs import SweepRuns
from orchestrator.tracking.stage import TrackedStage
from orchestrator.tracking.store import (
    SweepIdentity,
    TrackingStore,
    first_line,
    is_one_file,
    is_passing,
    masked,
    tracking_uri_of,
    ui_command,
)

__all__ = [
    "DatasetFacts",
    "MlflowMirror",
    "RunStatus",
    "SweepIdentity",
    "SweepReport",
    "TrackingStore",
    "masked",
    "tracking_uri_of",
    "ui_command",
]

logger = logging.getLogger(__name__)

POLL_S = 2.0
_MAX_PAUSE_S = 60.0
"""Between two attempts while a server does not answer."""
_MAX_PATIENCE_S = 600.0
"""How long the end of a sweep waits for a server that does answer: the best student may be gigabytes."""


class MlflowMirror:
    """Shows one sweep in MLflow: a parent run with the curves, a child run for every stage that holds a row.

    Args:
        store: Where, and under which study.
        sweep: Finds the runs of a sweep that is resumed; its name is that of the parent run.
        stages: Folder of the stages.
        trials: Known so far; see `add`.
        tags: Versions, commit, host: what is true of the whole sweep and not a setting.
        resume_command: Told to the user when something could not be delivered.
        poll_s: Seconds between two looks at the files.
        reports: Folder of what trials of a search reported, for those that were stopped: they leave no stage.
    """

    def __init__(
        self,
        store: TrackingStore,
        sweep: SweepIdentity,
        stages: Path,
        trials: Iterable[Trial] = (),
        tags: Mapping[str, str] | None = None,
        resume_command: str = "the same command with --resume",
        poll_s: float = POLL_S,
        reports: Path | None = None,
    ) -> None:
        self._store, self._sweep, self._stages_folder, self._reports = store, sweep, stages, reports
        self._resume_command, self._poll_s = resume_command, poll_s
        self._stages: dict[str, TrackedStage] = {}
        self._lock = threading.Lock()
        self._wake, self._stop, self._done = threading.Event(), threading.Event(), threading.Event()
        self._tried = threading.Event()
        self._runs = SweepRuns(store, sweep, dict(tags or {}))
        self._failure: str | None = None
        self._report: SweepReport | None = None
        self._delivered: set[str] = set()
        self._given_up: dict[str, str] = {}
        self._final_status: RunStatus | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self.add(trials)

    def add(self, trials: Iterable[Trial]) -> None:
        """Trials that a search has come up with since."""
        with self._lock:
            for trial in trials:
                stage = self._stages.get(trial.stage_id)
                if stage is None:
                    new = TrackedStage(self._store, self._stages_folder, self._sweep, [trial], reports=self._reports)
                    self._stages[trial.stage_id] = new
                elif trial not in stage.trials:
                    stage.trials.append(trial)

    def close_stale_runs(self, sweeps: Iterable[str]) -> None:
        """Marks what is RUNNING of sweeps that are known to be dead as KILLED, at the next contact.

        Args:
            sweeps: Their ids.
        """
        self._runs.stale |= set(sweeps) - {self._sweep.sweep_id}

    def start(self) -> None:
        """Makes or finds the runs and begins to follow the files; what is not on this machine is not waited for."""
        self._thread.start()
        if is_one_file(self._store.tracking_uri):
            # Before anything else opens it: several processes that create one database together break it.
            self._tried.wait()

    def finish(self, report: SweepReport, timeout_s: float = 30.0) -> list[str]:
        """Delivers what is left and ends every run.

        Args:
            report: What the parent run gets.
            timeout_s: Longest wait for a store that does not answer. One that does is given ten minutes.

        Returns:
            What could not be delivered, one line each; it has been logged as a warning as well.
        """
        self._report = report
        self._wait(timeout_s)
        missing = [f"{name}: {reason}" for name, reason in self._given_up.items()]
        if not self._done.is_set():
            missing.append(f"runs of {self._sweep.name}: {self._failure or 'no answer in time'}")
        if missing:
            logger.warning(
                "MLflow at %s: not everything was delivered (%s). The results on disk are complete; %s delivers it.",
                masked(self._store.tracking_uri),
                "; ".join(missing),
                self._resume_command,
            )
        return missing

    def mark(self, status: RunStatus, timeout_s: float = 2.0) -> bool:
        """Ends every open run with `status` and stops; for a sweep that must leave now.

        Call it outside the signal handler itself, for instance where the exception that the handler raised is caught.

        Returns:
            The store has taken it within `timeout_s`. If not, the next sweep can close the runs; this has been logged.
        """
        if self._thread.ident is None:
            # Never started, so it has no run.
            return True
        self._final_status = status
        self._wait(timeout_s, max_s=timeout_s)
        if not self._done.is_set():
            logger.warning(
                "MLflow at %s: runs could not be marked %s in time. The next sweep of this storage does it.",
                masked(self._store.tracking_uri),
                status,
            )
        return self._done.is_set()

    def _wait(self, timeout_s: float, max_s: float = _MAX_PATIENCE_S) -> None:
        start = time.monotonic()
        self._wake.set()
        while not self._done.wait(0.05) and self._thread.is_alive():
            waited = time.monotonic() - start
            is_answering = self._runs.is_current and self._failure is None
            if waited > max_s or (waited > timeout_s and not is_answering):
                self._stop.set()
                break

    def _work(self) -> None:
        pause = self._poll_s
        while not (self._done.is_set() or self._stop.is_set()):
            is_ending = self._report is not None or self._final_status is not None
            longest = self._poll_s if is_ending else _MAX_PAUSE_S
            pause = self._poll_s if self._attempt() else min(2 * pause, longest)
            self._tried.set()
            if not self._done.is_set():
                self._wake.wait(pause)
                self._wake.clear()

    def _attempt(self) -> bool:
        where = masked(self._store.tracking_uri)
        try:
            self._contact()
        # Whatever happens to tracking must not end the sweep, and MLflow lets errors of its libraries through.
        except Exception as error:  # noqa: BLE001
            # A request that timed out may have been carried out: look before anything is made again.
            self._runs.is_current = False
            if self._failure is None:
                logger.warning(
                    "MLflow at %s: cannot be written, got %s. The sweep goes on; what is missed is delivered later.",
                    where,
                    first_line(error),
                )
            self._failure = first_line(error)
            return False
        if self._failure is not None:
            logger.warning("MLflow at %s: answers again; what was missed has been delivered.", where)
            self._failure = None
        return True

    def _contact(self) -> None:
        """One pass: everything that is known and not delivered yet."""
        # Taken before the files are read: what the report is about is then in what was read.
        report = self._report
        parent = self._runs.connect()
        self._runs.close_stale()
        with self._lock:
            stages = list(self._stages.values())
        for stage in stages:
            if self._final_status is not None:
                break
            self._runs.adopt(stage)
            self._try(f"run of {stage.stage_id}", stage.mirror)
        if self._final_status is not None:
            self._end(parent, stages, self._final_status)
        elif report is not None:
            self._deliver(parent, stages, report)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Gives up what fails for good, so that it does not stand in the way of the rest."""
        if name in self._given_up:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  # Reported here, and once more by `finish`.
            if is_passing(error):
                raise
            self._given_up[name] = first_line(error)
            logger.warning("MLflow: %s is not delivered, got %s.", name, first_line(error))

    def _deliver(self, parent: Run, stages: Sequence[TrackedStage], report: SweepReport) -> None:
        for stage in stages:
            self._try(f"end of {stage.stage_id}", partial(stage.end, _status_of(stage, report)))
        for name, part in ReportWriter(self._store, parent, self._sweep, report).parts().items():
            if name not in self._delivered:
                self._try(name, part)
                self._delivered.add(name)
        self._try("end of the sweep", partial(self._store.client.set_terminated, parent.info.run_id, report.status))
        self._done.set()

    def _end(self, parent: Run, stages: Sequence[TrackedStage], status: RunStatus) -> None:
        for stage in stages:
            if stage.is_open:
                self._try(f"end of {stage.stage_id}", partial(stage.end, status))
        self._try("end of the sweep", partial(self._store.client.set_terminated, parent.info.run_id, status))
        self._done.set()


def _status_of(stage: TrackedStage, report: SweepReport) -> RunStatus:
    if stage.is_finished:
        return "FINISHED"
    endings = {report.endings[trial.trial_id][0] for trial in stage.trials if trial.trial_id in report.endings}
    return "FAILED" if "failed" in endings else "KILLED"
