"""What the sweep's own run in MLflow gets at the end: curves, figures, tables, the data set and the best student.

Each part is safe to deliver twice, so an interrupted delivery simply starts over.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ColSpec, Schema

from orchestrator.report.curves import CurvePoint
from orchestrator.report.results import Ending
from orchestrator.tracking.pyfunc import save_pyfunc
from orchestrator.tracking.store import CURVE_TAG, KIND_TAG, SweepIdentity, TrackingStore, masked, patient_uploads
from slmrec_core.errors import CheckpointError

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

_MODEL_TAG = "slmrec.model"
_MODEL_STAGE_TAG = "slmrec.model_stage"
_REGISTERED_TAG = "slmrec.registered_model"
CHAMPION = "champion"
"""Alias of a registered model's newest best student: `models:/<name>@champion`."""


@dataclass(frozen=True)
class DatasetFacts:
    """The data set of the sweep, by what identifies it."""

    name: str
    fingerprint: str
    """Hash of the content, as the data stage has it."""
    source: str
    """Path or name that was read."""
    num_users: int
    num_items: int
    num_events: int


@dataclass(frozen=True)
class SweepReport:
    """Everything that the sweep's own run gets when the sweep ends."""

    status: RunStatus
    points: Sequence[CurvePoint] = ()
    files: Sequence[Path] = ()
    """results.csv and summary.json."""
    figures: Path | None = None
    """Folder."""
    dataset: DatasetFacts | None = None
    best_model: Path | None = None
    """Model folder inside a stage; None = there is none to log."""
    registered_model: str | None = None
    """Name of the registered model whose new champion it is; None = it is not registered."""
    endings: Mapping[str, Ending] = field(default_factory=dict)
    """By trial id, how those without a finished stage ended."""


@dataclass
class ReportWriter:
    """Delivers a report to the run of the sweep."""

    store: TrackingStore
    parent: Run
    sweep: SweepIdentity
    report: SweepReport

    def parts(self) -> dict[str, Callable[[], None]]:
        """What is to be delivered, by the name under which it is missed."""
        return {
            "the curves": self._log_parent_curves,
            "the runs of single curves": self._log_curve_runs,
            "the data set": self._log_dataset,
            "tables and figures": self._log_files,
            "the best student": self._log_model,
            "the registered model": self._register_model,
        }

    def _log_parent_curves(self) -> None:
        named = {name: [p for p in self.report.points if p.row == name] for name in sorted(_rows(self.report))}
        metrics = [m for row, points in named.items() for m in _curve_metrics(points, prefix=f"{_metric_name(row)}/")]
        self._log_new(self.parent, metrics)

    def _log_curve_runs(self) -> None:
        runs = self.store.runs(f"{self.sweep.condition} and tags.`{KIND_TAG}` = 'curve'")
        known = {run.data.tags[CURVE_TAG]: run for run in runs}
        for row in sorted(_rows(self.report)):
            tags = {**self.sweep.tags, KIND_TAG: "curve", CURVE_TAG: row}
            run = known.get(row) or self.store.create_run(f"curve/{row}", tags, self.parent.info.run_id)
            self._log_new(run, list(_curve_metrics([p for p in self.report.points if p.row == row])))
            self.store.client.set_terminated(run.info.run_id, "FINISHED")

    def _log_new(self, run: Run, metrics: Sequence[Metric]) -> None:
        """Leaves out what the run has already: curves carry no stored timestamp that would make them the same point."""
        fresh = self.store.client.get_run(run.info.run_id)
        known = self.store.logged_values(fresh, {metric.key for metric in metrics})
        self.store.log_metrics(run.info.run_id, [m for m in metrics if known.get((m.key, m.step)) != m.value])

    def _log_dataset(self) -> None:
        facts = self.report.dataset
        if facts is None:
            return
        columns = Schema([ColSpec("string", "user_id"), ColSpec("string", "item_id"), ColSpec("double", "timestamp")])
        counts = {"num_users": facts.num_users, "num_items": facts.num_items, "num_events": facts.num_events}
        entity = Dataset(
            name=facts.name,
            # MLflow's column ends after 36 characters; the tag below has all of it.
            digest=facts.fingerprint[:36],
            source_type="local",
            source=json.dumps({"uri": masked(facts.source)}),
            schema=json.dumps({"mlflow_colspec": columns.to_dict()}),
            profile=json.dumps(counts),
        )
        run_id = self.parent.info.run_id
        context = InputTag("mlflow.data.context", "training")
        self.store.client.log_inputs(run_id, datasets=[DatasetInput(entity, [context])])
        self.store.client.set_tag(run_id, "slmrec.data_fingerprint", facts.fingerprint)

    def _log_files(self) -> None:
        run_id = self.parent.info.run_id
        with patient_uploads():
            for path in self.report.files:
                self.store.client.log_artifact(run_id, str(path))
            if self.report.figures is not None and self.report.figures.is_dir():
                self.store.client.log_artifacts(run_id, str(self.report.figures), "figures")

    def _log_model(self) -> None:
        folder = self.report.best_model
        if folder is None:
            return
        if not folder.is_dir():
            raise CheckpointError(f"model {folder}: is not there, got no folder. Delete the stage and resume.")
        run_id, stage = self.parent.info.run_id, folder.parent.name
        if self.store.client.get_run(run_id).data.tags.get(_MODEL_STAGE_TAG) == stage:
            return
        with patient_uploads():
            self.store.client.set_tag(run_id, _MODEL_TAG, self._upload_model(folder, stage))
        # Last, because this is what a second delivery looks at.
        self.store.client.set_tag(run_id, _MODEL_STAGE_TAG, stage)

    def _register_model(self) -> None:
        name, folder, client = self.report.registered_model, self.report.best_model, self.store.client
        tags = client.get_run(self.parent.info.run_id).data.tags
        if name is None or folder is None or _MODEL_TAG not in tags:
            return
        stage, model = folder.parent.name, tags[_MODEL_TAG]
        if tags.get(_REGISTERED_TAG) == f"{name}:{stage}":
            return
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not models:/<id>, which MLflow would look up under its global tracking URI.
        source, run_id = client.get_logged_model(model).artifact_location, self.parent.info.run_id
        version = client.create_model_version(name, source, run_id, tags={"slmrec.stage": stage}, model_id=model)
        client.set_registered_model_alias(name, CHAMPION, version.version)
        client.set_tag(self.parent.info.run_id, _REGISTERED_TAG, f"{name}:{stage}")

    def _upload_model(self, folder: Path, stage: str) -> str:
        # `mlflow.pyfunc.log_model` does the same, but needs the global tracking URI and an active run.
        client, run_id = self.store.client, self.parent.info.run_id
        logged = client.create_logged_model(
            self.store.experiment_id,
            name="student",
            source_run_id=run_id,
            tags={"slmrec.stage": stage},
            model_type="pyfunc",
        )
        with tempfile.TemporaryDirectory() as temporary:
            save_pyfunc(folder, Path(temporary) / "model", Model(run_id=run_id, model_id=logged.model_id))
            client.log_model_artifacts(logged.model_id, str(Path(temporary) / "model"))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return str(logged.model_id)


def _rows(report: SweepReport) -> set[str]:
    return {point.row for point in report.points}


def _curve_metrics(points: Sequence[CurvePoint], prefix: str = "") -> Iterator[Metric]:
    """Step = number of layers, so that MLflow's own chart is depth against quality."""
    now = int(time.time() * 1000)
    for point in points:
        key = prefix + point.metric.replace("/", "_")
        values = {"": point.mean, "_sd": point.sd, "_low": point.low, "_high": point.high}
        for suffix, value in values.items():
            if value is not None:
                yield Metric(key + suffix, value, now, point.num_layers)


def _metric_name(row: str) -> str:
    """A row may be called anything; MLflow takes letters, digits, and a few signs."""
    return re.sub(r"[^\w\-. ]", "_", row)
