"""The MLflow store of a sweep: where it is, how it is opened, and the few calls that the mirror makes.

Everything goes through `MlflowClient` with an explicit URI; MLflow's global tracking URI and active run stay untouched.
"""

import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from slmrec_core.errors import ConfigError

logger = logging.getLogger(__name__)

SWEEP_TAG, SWEEP_ID_TAG, KIND_TAG, STAGE_TAG, TRIALS_TAG, CURVE_TAG = (
    f"slmrec.{name}" for name in ("sweep", "sweep_id", "kind", "stage", "trials", "curve")
)
_HTTP_TIMEOUT_S = "5"
_UPLOAD_TIMEOUT_S = "120"
_REJECTIONS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
_EXPERIMENTS_PER_PAGE = 500
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
_MAX_VALUE_LENGTH = 6000
_SECRET_QUERY = re.compile(r"([?&][^=&\s]*(?:password|passwd|pwd|token|secret|key)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)
_USER_INFO = re.compile(r"(://)[^/\s'\"]+@")


def masked(text: str) -> str:
    """The same text with the credentials of every URI in it replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))


def tracking_uri_of(storage: Path) -> str:
    """`MLFLOW_TRACKING_URI` if it is set, else a SQLite file in the storage directory.

    Raises:
        ConfigError: The variable names a directory, which MLflow gave up for databases.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if not named:
        return f"sqlite:///{storage.resolve() / 'mlflow.db'}"
    is_folder = "://" not in named.removeprefix("file://") and named != "databricks"
    if is_folder and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: MLflow no longer tracks into a folder, got {masked(named)!r}."
            " Name a server (http://…) or a database (sqlite:////absolute/path/mlflow.db), or unset it."
        )
    return named


def is_server(tracking_uri: str) -> bool:
    """A server decides by itself where artifacts go; a database leaves that to us."""
    return tracking_uri.startswith(("http://", "https://", "databricks"))


def is_one_file(tracking_uri: str) -> bool:
    """True = SQLite: always there, and broken by several processes that create it together."""
    return tracking_uri.startswith("sqlite")


def ui_command(tracking_uri: str) -> str:
    """The command that shows the store in a browser; for a server its address."""
    if is_server(tracking_uri):
        return masked(tracking_uri)
    # The environment of a virtual environment that was not activated is not on the path.
    program = "mlflow" if shutil.which("mlflow") else shlex.quote(str(Path(sys.executable).with_name("mlflow")))
    has_secret = masked(tracking_uri) != tracking_uri
    store = '"$MLFLOW_TRACKING_URI"' if has_secret else shlex.quote(tracking_uri)
    return f"{program} ui --backend-store-uri {store} --host 127.0.0.1"


def is_passing(error: Exception) -> bool:
    """A server or database that does not answer now may answer later; what it rejects, it rejects again."""
    if isinstance(error, MlflowException):
        return error.error_code not in _REJECTIONS
    return isinstance(error, RequestException | SQLAlchemyError)


def first_line(error: Exception) -> str:
    """What went wrong, short enough for a warning and without credentials."""
    return (masked(str(error)).splitlines() or [type(error).__name__])[0]


def configure_mlflow() -> None:
    """Short timeouts and quiet loggers for this process; a timeout that the user has set stays."""
    # With MLflow's defaults one call to an unreachable server blocks for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _HTTP_TIMEOUT_S)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Addresses that MLflow prints by itself hold the credentials of the URI.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def patient_uploads() -> Iterator[None]:
    """Lets a server take its time over a large file, which it acknowledges only when it has stored all of it."""
    before = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT")
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _UPLOAD_TIMEOUT_S
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        else:
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = before


@dataclass(frozen=True)
class SweepIdentity:
    """Which sweep a run belongs to."""

    sweep_id: str
    """Finds the runs: on a server that several people use, two may have called a sweep the same."""
    name: str
    """For people."""

    @property
    def tags(self) -> dict[str, str]:
        """Of every run of the sweep."""
        return {SWEEP_ID_TAG: self.sweep_id, SWEEP_TAG: self.name}

    @property
    def condition(self) -> str:
        """MLflow filter for its runs."""
        return f"tags.`{SWEEP_ID_TAG}` = '{self.sweep_id}'"


class TrackingStore:
    """One experiment in one MLflow store.

    Args:
        tracking_uri: Database or server.
        artifact_root: Folder for artifacts; a server uses its own instead.
        study: Name of the experiment.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path, study: str) -> None:
        configure_mlflow()
        self.tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._study = study

    @cached_property
    def client(self) -> MlflowClient:
        """Opened at first use: for a new database this creates its tables, which takes seconds."""
        return MlflowClient(self.tracking_uri)

    @cached_property
    def experiment_id(self) -> str:
        """The study's experiment, created if it is not there and restored if it was deleted."""
        found = self.client.get_experiment_by_name(self._study)
        if found is None:
            # MLflow's default lies below the working directory, which under `ray job submit` is a throw-away copy.
            location = None if is_server(self.tracking_uri) else (self._artifact_root / self._study).resolve().as_uri()
            return str(self.client.create_experiment(self._study, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            logger.warning(
                "MLflow: experiment %r was deleted; it is restored, because this sweep is part of it.", self._study
            )
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def runs(self, condition: str) -> list[Run]:
        """Every run of the experiment that was not deleted and fulfils an MLflow filter."""
        return list(self._search([self.experiment_id], condition))

    def runs_of_all_studies(self, condition: str) -> Iterator[Run]:
        """The same, over every experiment of the store."""
        token = None
        while True:
            page = self.client.search_experiments(max_results=_EXPERIMENTS_PER_PAGE, page_token=token)
            yield from self._search([experiment.experiment_id for experiment in page], condition)
            token = page.token
            if not token:
                return

    def _search(self, experiment_ids: list[str], condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                experiment_ids, condition, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def create_run(
        self, name: str, tags: Mapping[str, str], parent: str | None = None, start_ms: int | None = None
    ) -> Run:
        """A new run, RUNNING."""
        family = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        everything = {MLFLOW_RUN_NAME: name, **family, **{key: masked(value) for key, value in tags.items()}}
        return self.client.create_run(self.experiment_id, start_time=start_ms, tags=everything, run_name=name)

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """In batches of what MLflow takes."""
        for start in range(0, len(metrics), _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH], synchronous=True)

    def log_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Those that the run does not have: a parameter can be written once only."""
        missing = [
            Param(name, masked(value)[:_MAX_VALUE_LENGTH])
            for name, value in params.items()
            if name not in run.data.params
        ]
        for start in range(0, len(missing), _PARAMS_PER_BATCH):
            self.client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS_PER_BATCH], synchronous=True)

    def logged_values(self, run: Run, keys: Iterable[str] | None = None) -> dict[tuple[str, int], float]:
        """Last value by metric and step, of all metrics or of some."""
        wanted = set(run.data.metrics) & set(keys) if keys is not None else set(run.data.metrics)
        values: dict[tuple[str, int], float] = {}
        for key in wanted:
            history = self.client.get_metric_history(run.info.run_id, key)
            for metric in sorted(history, key=lambda metric: metric.timestamp):
                values[key, metric.step] = metric.value
        return values
