"""The mirror in MLflow, against real SQLite stores and servers that do not answer."""

import json
import logging
import re
import shutil
import socket
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.planning.trial import Trial
from orchestrator.report.curves import CurvePoint
from orchestrator.report.results import Ending
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.tracking import pyfunc
from orchestrator.tracking.mirror import (
    DatasetFacts,
    MlflowMirror,
    SweepIdentity,
    SweepReport,
    TrackingStore,
    masked,
    tracking_uri_of,
    ui_command,
)
from slmrec_core.errors import ConfigError
from tests.orchestrator.fake_stages import START_MS, append_rows, make_trial, write_stage

TRIAL = make_trial("finetune", 4)
DONE = SweepReport(status="FINISHED")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to create, once for all tests."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    TrackingStore(f"sqlite:///{path}", path.parent, "none").client.search_experiments()
    return path


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "stages").mkdir()
    return tmp_path


def mirror_of(
    storage: Path, *trials: Trial, sweep: str = "depth-1", uri: str | None = None, study: str = "depth", **more: Any
) -> MlflowMirror:
    """Of a sweep whose id is `id-<name>`."""
    store = TrackingStore(uri or tracking_uri_of(storage), storage / "mlartifacts", study)
    return MlflowMirror(
        store, SweepIdentity(f"id-{sweep}", sweep), storage / "stages", trials or (TRIAL,), poll_s=0.05, **more
    )


def finished(
    storage: Path, *trials: Trial, report: SweepReport = DONE, sweep: str = "depth-1", **more: Any
) -> list[str]:
    mirror = mirror_of(storage, *trials, sweep=sweep, **more)
    mirror.start()
    return mirror.finish(report)


def runs(storage: Path, kind: str | None = None, sweep: str = "depth-1", study: str = "depth") -> list[Run]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`slmrec.sweep` = '{sweep}'")
    return [run for run in found if kind in (None, run.data.tags["slmrec.kind"])]


def only(storage: Path, kind: str) -> Run:
    (run,) = runs(storage, kind)
    return run


def history(storage: Path, run: Run, key: str) -> list[tuple[int, float, int]]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    return sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key))


def everything(storage: Path) -> dict[tuple[str, str], list[tuple[int, float, int]]]:
    return {(r.info.run_id, key): history(storage, r, key) for r in runs(storage) for key in r.data.metrics}


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# What a sweep leaves in MLflow


def test_a_stage_becomes_a_child_run(storage: Path) -> None:
    write_stage(storage / "stages", TRIAL)
    assert finished(storage, tags={"slmrec.commit": "abc"}) == []
    parent, child = only(storage, "sweep"), only(storage, "trial")
    assert parent.info.run_name == "depth-1"
    assert parent.data.tags["slmrec.commit"] == "abc"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["slmrec.stage"] == TRIAL.stage_id
    assert child.data.params["method"] == "finetune"
    assert child.data.params["training.lr"] == "0.001"
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    rows = [(step, 5.0 / (step + 1), START_MS + 1000 * step) for step in range(3)]
    assert history(storage, child, "train/loss") == rows
    assert history(storage, child, "test/ndcg_at_10")[0][0] == 2, "test belongs to the best epoch"
    assert child.data.metrics["params_total"] == 4_500_000
    assert (child.info.start_time, child.info.end_time) == (START_MS, START_MS + 2000)


def test_a_point_that_was_stopped_early_is_a_killed_run_with_its_epochs(storage: Path) -> None:
    # It leaves no stage; its run once was empty, or missing.
    append_rows(storage / "reports" / TRIAL.stage_id, [1, 2])
    report = SweepReport(status="FINISHED", endings={TRIAL.trial_id: ("stopped", {})})
    for _ in range(2):
        assert finished(storage, report=report, reports=storage / "reports") == []
        run = only(storage, "trial")
        assert run.info.status == "KILLED"
        assert [step for step, _, _ in history(storage, run, "train/loss")] == [1, 2]


def test_a_shared_stage_is_one_run_with_both_trials(storage: Path) -> None:
    teacher = replace(TRIAL, trial_id="teacher-4-seed0", row="teacher")
    write_stage(storage / "stages", TRIAL)
    finished(storage, TRIAL, teacher)
    assert only(storage, "trial").data.tags["slmrec.trials"] == f"{TRIAL.trial_id},teacher-4-seed0"


def test_a_probe_is_a_curve_of_its_own(storage: Path) -> None:
    probe = make_trial("probe", 3)
    write_stage(storage / "stages", probe)
    finished(storage, probe)
    assert [step for step, _, _ in history(storage, only(storage, "trial"), "test/ndcg_at_10")] == [0, 1, 2, 3]


def test_many_settings_and_long_ones_are_logged(storage: Path) -> None:
    settings = {f"group.setting_{n}": n for n in range(150)} | {"data.long": "x" * 9000, "data.list": [1, 2]}
    trial = make_trial("finetune", 4, stage="finetune-x", **settings)
    write_stage(storage / "stages", trial)
    assert finished(storage, trial) == []
    params = only(storage, "trial").data.params
    assert params["group.setting_149"] == "149"
    assert len(params["data.long"]) == 6000
    assert params["data.list"] == "[1, 2]"


def test_rows_appear_while_the_stage_is_built(storage: Path) -> None:
    building = storage / "stages" / f".building-{TRIAL.stage_id}-a"
    append_rows(building, [0])
    mirror = mirror_of(storage)
    mirror.start()
    eventually(lambda: runs(storage, "trial"))
    append_rows(building, [1])
    eventually(lambda: len(history(storage, only(storage, "trial"), "train/loss")) == 2)
    assert only(storage, "trial").info.status == "RUNNING"
    mirror.mark("KILLED")


def test_a_second_builder_does_not_repeat_the_steps_of_the_first(storage: Path) -> None:
    stages = storage / "stages"
    append_rows(stages / f".building-{TRIAL.stage_id}-a", [0, 1])
    mirror = mirror_of(storage)
    mirror.start()
    eventually(lambda: runs(storage, "trial") and len(history(storage, only(storage, "trial"), "train/loss")) == 2)
    shutil.rmtree(stages / f".building-{TRIAL.stage_id}-a")
    append_rows(stages / f".building-{TRIAL.stage_id}-b", [0, 1, 2], offset_ms=77)
    eventually(lambda: len(history(storage, only(storage, "trial"), "train/loss")) == 3)
    assert [at for _, _, at in history(storage, only(storage, "trial"), "train/loss")] == [
        START_MS,
        START_MS + 1000,
        START_MS + 2077,
    ]
    assert mirror.mark("KILLED")


def points(several: bool = True) -> list[CurvePoint]:
    spread = {"sd": 0.01, "low": 0.05, "high": 0.2} if several else dict.fromkeys(("sd", "low", "high"))
    return [
        CurvePoint(row=row, metric=metric, num_layers=depth, mean=0.1 + depth / 100, num_seeds=1 + several, **spread)
        for row in ("distill", "finetune", "a row: 50 %")
        for metric in ("test/ndcg_at_10", "valid/mrr")
        for depth in (8, 1, 4)
    ]


def test_the_step_of_a_curve_is_the_number_of_layers(storage: Path) -> None:
    write_stage(storage / "stages", TRIAL)
    finished(storage, report=SweepReport("FINISHED", points=points()))
    parent = only(storage, "sweep")
    expected = [(1, 0.11), (4, 0.14), (8, 0.18)]
    for key in ("finetune/test_ndcg_at_10", "distill/valid_mrr", "a row_ 50 _/test_ndcg_at_10"):
        assert [(step, value) for step, value, _ in history(storage, parent, key)] == expected
    assert {f"finetune/test_ndcg_at_10{end}" for end in ("_sd", "_low", "_high")} <= parent.data.metrics.keys()
    overlays = {run.data.tags["slmrec.curve"]: run for run in runs(storage, "curve")}
    assert overlays["finetune"].info.run_name == "curve/finetune"
    for run in overlays.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        assert {"test_ndcg_at_10", "test_ndcg_at_10_low", "valid_mrr"} <= run.data.metrics.keys()
        assert [(step, value) for step, value, _ in history(storage, run, "test_ndcg_at_10")] == expected


def test_one_seed_has_no_spread(storage: Path) -> None:
    finished(storage, report=SweepReport("FINISHED", points=points(several=False)))
    assert not [key for key in only(storage, "sweep").data.metrics if key.endswith(("_sd", "_low", "_high"))]


def test_files_and_data_set_belong_to_the_sweep(storage: Path) -> None:
    (storage / "figures").mkdir()
    (storage / "figures" / "depth.html").write_text("<p>figure</p>")
    (storage / "results.csv").write_text("trial_id\n")
    facts = DatasetFacts("beauty", "f" * 64, "https://user:secret@example.org/beauty.gz", 22_363, 12_101, 198_502)
    report = SweepReport("FINISHED", files=[storage / "results.csv"], figures=storage / "figures", dataset=facts)
    assert finished(storage, report=report) == []
    assert finished(storage, report=report) == []
    parent = only(storage, "sweep")
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} == {"figures", "results.csv"}
    assert parent.info.artifact_uri.startswith((storage / "mlartifacts").as_uri())
    (entry,) = parent.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("beauty", "f" * 36)
    assert json.loads(entry.dataset.source) == {"uri": "https://***@example.org/beauty.gz"}
    assert json.loads(entry.dataset.profile)["num_users"] == 22_363
    assert parent.data.tags["slmrec.data_fingerprint"] == "f" * 64


# Resuming and replaying


def test_replaying_changes_nothing(storage: Path) -> None:
    write_stage(storage / "stages", TRIAL)
    write_stage(storage / "stages", make_trial("probe", 3))
    report = SweepReport("FINISHED", points=points())
    trials = (TRIAL, make_trial("probe", 3))
    finished(storage, *trials, report=report)
    before = everything(storage)
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    # As if the process had died just before it ended the run.
    client.update_run(runs(storage, "trial")[0].info.run_id, status="RUNNING")
    finished(storage, *trials, report=report)
    assert everything(storage) == before
    assert all(run.info.status == "FINISHED" for run in runs(storage))


def test_a_resumed_sweep_finds_its_runs(storage: Path) -> None:
    building = storage / "stages" / f".building-{TRIAL.stage_id}-a"
    append_rows(building, [0, 1])
    first = mirror_of(storage)
    first.start()
    eventually(lambda: runs(storage, "trial"))
    assert first.mark("KILLED")
    parent, child = only(storage, "sweep"), only(storage, "trial")
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
    shutil.rmtree(building)
    write_stage(storage / "stages", TRIAL)
    finished(storage)
    assert only(storage, "sweep").info.run_id == parent.info.run_id
    assert only(storage, "trial").info.run_id == child.info.run_id
    assert only(storage, "trial").info.status == "FINISHED"
    assert [step for step, _, _ in history(storage, child, "train/loss")] == [0, 1, 2]


def test_a_trial_that_a_search_came_up_with_later_is_mirrored(storage: Path) -> None:
    late = make_trial("distill", 4)
    mirror = mirror_of(storage)
    mirror.start()
    write_stage(storage / "stages", late)
    mirror.add([late])
    assert mirror.finish(DONE) == []
    assert only(storage, "trial").data.tags["slmrec.stage"] == late.stage_id


# How runs end


def test_runs_end_as_their_trials_did(storage: Path) -> None:
    done, failed, stopped, early = (make_trial("finetune", depth) for depth in (1, 2, 4, 8))
    write_stage(storage / "stages", done)
    for trial in (failed, stopped):
        append_rows(storage / "stages" / f".building-{trial.stage_id}-a", [0])
    endings: dict[str, Ending] = {
        failed.trial_id: ("failed", {}),
        stopped.trial_id: ("stopped", {}),
        early.trial_id: ("failed", {}),
    }
    finished(storage, done, failed, stopped, early, report=SweepReport("FAILED", endings=endings))
    status = {run.data.tags["slmrec.stage"]: run.info.status for run in runs(storage, "trial")}
    assert [status[t.stage_id] for t in (done, failed, stopped, early)] == ["FINISHED", "FAILED", "KILLED", "FAILED"]
    assert only(storage, "sweep").info.status == "FAILED"


def test_marking_is_fast(storage: Path) -> None:
    trials = [make_trial("finetune", depth) for depth in range(1, 5)]
    for trial in trials:
        append_rows(storage / "stages" / f".building-{trial.stage_id}-a", range(20))
    mirror = mirror_of(storage, *trials)
    mirror.start()
    start = time.monotonic()
    assert mirror.mark("KILLED")
    assert time.monotonic() - start < 2.0
    assert {run.info.status for run in runs(storage)} == {"KILLED"}


def test_runs_of_dead_sweeps_are_closed_in_every_study_and_others_left_alone(storage: Path) -> None:
    # After kill -9 they once stayed RUNNING until a sweep of the same study came.
    studies = {"dead": "depth", "dead-too": "another study", "alive": "depth"}
    for name, study in studies.items():
        append_rows(storage / "stages" / f".building-{TRIAL.stage_id}-a", [0])
        mirror = mirror_of(storage, sweep=name, study=study)
        mirror.start()
        # The thread ends as with kill -9: without a word to the store.
        mirror._stop.set()
        mirror._thread.join()
    strangers = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    stranger = strangers.create_run(strangers.create_experiment("not ours"))
    mirror = mirror_of(storage)
    mirror.close_stale_runs(["id-dead", "id-dead-too", "id-depth-1"])
    mirror.start()
    status = {name: {r.info.status for r in runs(storage, sweep=name, study=study)} for name, study in studies.items()}
    assert status == {"dead": {"KILLED"}, "dead-too": {"KILLED"}, "alive": {"RUNNING"}}
    assert {run.info.status for run in runs(storage)} == {"RUNNING"}
    assert strangers.get_run(stranger.info.run_id).info.status == "RUNNING"
    assert mirror.mark("KILLED")


def test_two_sweeps_of_one_name_in_one_store_have_a_run_each(storage: Path) -> None:
    # Of two users with a storage directory each, on one server.
    store = TrackingStore(tracking_uri_of(storage), storage / "mlartifacts", "depth")
    report = SweepReport("FINISHED", points=points())
    write_stage(storage / "stages", TRIAL)
    for user in ("ada", "bob"):
        mirror = MlflowMirror(store, SweepIdentity(user, "depth-1"), storage / "stages", [TRIAL], poll_s=0.05)
        mirror.start()
        assert mirror.finish(report) == []
    parents = runs(storage, "sweep")
    assert {run.data.tags["slmrec.sweep_id"] for run in parents} == {"ada", "bob"}
    for kind, count in (("trial", 1), ("curve", 3)):
        owners = [run.data.tags["slmrec.sweep_id"] for run in runs(storage, kind)]
        assert sorted(owners) == ["ada"] * count + ["bob"] * count
    family = {(run.data.tags["mlflow.parentRunId"], run.data.tags["slmrec.sweep_id"]) for run in runs(storage, "trial")}
    assert family == {(run.info.run_id, run.data.tags["slmrec.sweep_id"]) for run in parents}


def test_a_mirror_that_was_never_started_has_nothing_to_mark(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert mirror_of(storage).mark("FAILED")
    assert caplog.text == ""


def test_a_deleted_experiment_is_restored(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    finished(storage)
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    client.delete_experiment(only(storage, "sweep").info.experiment_id)
    assert finished(storage, sweep="depth-2") == []
    assert "was deleted; it is restored" in caplog.text


def test_what_is_rejected_does_not_stop_the_rest(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = make_trial("finetune", 8)
    append_rows(storage / "stages" / f".building-{TRIAL.stage_id}-a", [0])
    mirror = mirror_of(storage, TRIAL, other)
    mirror.start()
    eventually(lambda: runs(storage, "trial"))
    MlflowClient(f"sqlite:///{storage / 'mlflow.db'}").delete_run(only(storage, "trial").info.run_id)
    append_rows(storage / "stages" / f".building-{TRIAL.stage_id}-a", [1])
    write_stage(storage / "stages", other)
    missing = mirror.finish(DONE)
    assert [line.split(":")[0] for line in missing][0] == f"run of {TRIAL.stage_id}"
    assert only(storage, "trial").data.tags["slmrec.stage"] == other.stage_id
    assert only(storage, "sweep").info.status == "FINISHED"
    assert "not everything was delivered" in caplog.text


# Servers that do not answer


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("kind", ["closed_port", "silent_port"])
def test_an_unreachable_server_never_blocks(
    storage: Path, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    write_stage(storage / "stages", TRIAL)
    uri = f"http://me:secret@127.0.0.1:{request.getfixturevalue(kind)}"
    start = time.monotonic()
    mirror = mirror_of(storage, uri=uri, resume_command="sweep.py --resume --name depth-1")
    mirror.start()
    assert time.monotonic() - start < 0.5, "the sweep begins at once"
    missing = mirror.finish(DONE, timeout_s=1.5)
    assert time.monotonic() - start < 3.5
    mirror._thread.join()
    assert len(missing) == 1
    assert "sweep.py --resume --name depth-1 delivers it" in caplog.text
    assert caplog.text.count("cannot be written") == 1, "one warning for one outage"
    assert "secret" not in caplog.text + str(missing)


def test_a_database_on_another_machine_is_not_waited_for(
    storage: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its driver need not be installed here: opening it is what takes minutes.
    def connect(_: TrackingStore) -> MlflowClient:
        with socket.create_connection(("127.0.0.1", silent_port)) as connection:
            connection.settimeout(3)
            connection.recv(1)
        raise AssertionError

    monkeypatch.setattr(TrackingStore, "client", property(connect))
    mirror = mirror_of(storage, uri=f"postgresql://me:secret@127.0.0.1:{silent_port}/mlflow")
    start = time.monotonic()
    mirror.start()
    assert time.monotonic() - start < 0.5
    assert not mirror.mark("KILLED", timeout_s=0.1)
    mirror._thread.join()


def test_marking_does_not_wait_for_a_server_that_is_silent(storage: Path, silent_port: int) -> None:
    mirror = mirror_of(storage, uri=f"http://127.0.0.1:{silent_port}")
    mirror.start()
    start = time.monotonic()
    assert not mirror.mark("KILLED", timeout_s=0.5)
    assert time.monotonic() - start < 1.5
    mirror._thread.join()


def test_what_was_missed_is_delivered_when_the_store_answers_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    away = threading.Event()
    away.set()
    create, log = MlflowClient.create_run, MlflowClient.log_batch

    def create_or_time_out(self: MlflowClient, *args: Any, **kwargs: Any) -> Run:
        run = create(self, *args, **kwargs)
        if away.is_set():
            # The worst case: carried out, and never answered.
            raise mlflow.MlflowException("read timed out")
        return run

    def log_or_time_out(self: MlflowClient, *args: Any, **kwargs: Any) -> object:
        if away.is_set():
            raise mlflow.MlflowException("read timed out")
        return log(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", create_or_time_out)
    monkeypatch.setattr(MlflowClient, "log_batch", log_or_time_out)
    write_stage(storage / "stages", TRIAL)
    mirror = mirror_of(storage)
    mirror.start()
    eventually(lambda: runs(storage, "trial"))
    away.clear()
    assert mirror.finish(DONE) == []
    assert len(history(storage, only(storage, "trial"), "train/loss")) == 3
    assert only(storage, "sweep").info.status == "FINISHED"
    assert caplog.text.count("cannot be written") == 1
    assert "answers again" in caplog.text


def test_a_server_that_sends_nonsense_is_a_server_that_is_away(storage: Path) -> None:
    class Nonsense(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802  # The base class finds it by this name.
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>bad gateway</html>")

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = mirror_of(storage, uri=f"http://127.0.0.1:{server.server_port}")
        mirror.start()
        missing = mirror.finish(DONE, timeout_s=0.5)
        server.shutdown()
    assert len(missing) == 1


# Files that are being written


def test_a_line_that_is_still_written_waits(tmp_path: Path) -> None:
    folder = tmp_path / ".building-finetune-1-a"
    append_rows(folder, [0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "timest')
    tail = MetricsTail(tmp_path, "finetune-1")
    assert [row.step for row in tail.read()] == [0]
    assert tail.read() == []
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('amp_ms": 5, "metrics": {"train/loss": NaN}}\n')
    assert [row.step for row in tail.read()] == [1]


def test_a_torn_line_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / ".building-finetune-1-a"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 0, "time{"step": 1}\n[]\n')
    append_rows(folder, [2])
    assert [row.step for row in MetricsTail(tmp_path, "finetune-1").read()] == [2]
    assert caplog.text.count("is not a row of metrics") == 2


def test_what_a_stopped_trial_reported_is_read_whole_though_its_builder_was_killed_before_the_last_line(
    tmp_path: Path,
) -> None:
    stages, reports = tmp_path / "stages", tmp_path / "reports"
    append_rows(stages / ".building-finetune-1-a", [0, 1])
    tail = MetricsTail(stages, "finetune-1", reports)
    assert [row.step for row in tail.read()] == [0, 1]
    append_rows(reports / "finetune-1", [0, 1, 2])
    assert [row.step for row in tail.read()] == [0, 1, 2]
    shutil.rmtree(stages / ".building-finetune-1-a")
    assert tail.read() == []
    append_rows(stages / "finetune-1", [0, 1, 2, 3])
    assert [row.step for row in tail.read()] == [0, 1, 2, 3], "a finished stage has it all"


def test_stages_whose_name_begins_alike_are_not_mixed_up(tmp_path: Path) -> None:
    append_rows(tmp_path / ".building-finetune-12-a", [0])
    assert MetricsTail(tmp_path, "finetune-1").read() == []
    assert not MetricsTail(tmp_path, "finetune-1").is_finished


# Where the store is


def test_the_store_lies_in_the_storage_directory_unless_a_variable_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri_of(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking_uri_of(tmp_path) == "http://tracker:5000"


@pytest.mark.parametrize("folder", ["./mlruns", "file:///data/mlruns", "/data/mlruns"])
def test_a_folder_as_a_store_is_refused(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder)
    with pytest.raises(ConfigError, match="MLflow no longer tracks into a folder"):
        tracking_uri_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://tracker:5000/x", "http://tracker:5000/x"),
        ("https://me:se@cret@tracker/x", "https://***@tracker/x"),
        ("postgresql+psycopg2://token@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("mssql://db/x?user=me&password=secret&x=1", "mssql://db/x?user=me&password=***&x=1"),
        ("failed: 'http://me:secret@a/b' and https://you:other@c", "failed: 'http://***@a/b' and https://***@c"),
        ("sqlite:////data/me@home/mlflow.db", "sqlite:////data/me@home/mlflow.db"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_the_command_for_the_browser_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/bin/mlflow")
    command = "mlflow ui --backend-store-uri 'sqlite:////my runs/mlflow.db' --host 127.0.0.1"
    assert ui_command("sqlite:////my runs/mlflow.db") == command
    assert ui_command("https://me:secret@tracker") == "https://***@tracker"
    assert (
        ui_command("mysql://me:secret@db/x") == 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI" --host 127.0.0.1'
    )
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert ui_command("sqlite:////x.db").startswith(f"{Path(sys.executable).parent}/mlflow ui ")


# The best student


class FakeRecommender:
    """Recommends the history backwards."""

    @classmethod
    def from_pretrained(cls, folder: str) -> "FakeRecommender":
        assert (Path(folder) / "model.safetensors").is_file()
        return cls()

    def recommend(self, histories: list[list[str]], k: int, exclude_seen: bool) -> object:
        assert exclude_seen
        items = [history[::-1][:k] for history in histories]
        told = {"unknown_items": [[] for _ in histories], "by_popularity": [False for _ in histories]}
        return type("Found", (), {"item_ids": items, "scores": [[1.0] * k for _ in histories], **told})()


def fake_model(storage: Path) -> Path:
    folder = write_stage(storage / "stages", TRIAL) / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "items.json").write_text(json.dumps({"item_ids": ["a", "b", "c"]}))
    return folder


def test_the_best_student_is_logged_as_code_and_answers(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model(storage)
    report = SweepReport("FINISHED", best_model=model)
    assert finished(storage, report=report) == []
    assert finished(storage, report=report) == [], "a second delivery does not log it again"
    parent = only(storage, "sweep")
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (logged,) = client.search_logged_models([parent.info.experiment_id])
    assert parent.data.tags["slmrec.model"] == logged.model_id
    assert parent.data.tags["slmrec.model_stage"] == TRIAL.stage_id
    assert logged.status == "READY"
    assert [output.model_id for output in parent.outputs.model_outputs] == [logged.model_id]

    folder = Path(logged.artifact_location.removeprefix("file://"))
    requirements = (folder / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert not [name for name in ("ray", "deepspeed", "+cpu") if name in requirements]
    assert (folder / "code" / "slmrec_core" / "recommender.py").is_file()
    assert not list(folder.rglob("*.pkl")), "nothing is pickled"

    monkeypatch.setattr("slmrec_core.recommender.Recommender", FakeRecommender)
    # MLflow puts the logged code in front of it.
    monkeypatch.setattr(sys, "path", list(sys.path))
    served = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    frame = pd.DataFrame({"history": [["a", "b", "c"], ["d"]]})
    assert served.predict(frame)["item_ids"].tolist() == [["c", "b", "a"], ["d"]]
    assert served.predict(frame, params={"top_k": 1})["scores"].tolist() == [[1.0], [1.0]]
    assert served.predict(served.input_example)["item_ids"].tolist() == [["b", "a"]]
    assert set(served.metadata.get_output_schema().input_names()) == set(served.predict(frame))


def test_the_best_student_becomes_champion_of_the_registered_model_when_asked(storage: Path) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    model = fake_model(storage)
    assert finished(storage, report=SweepReport("FINISHED", best_model=model)) == []
    assert not client.search_registered_models(), "nobody asked"
    report = SweepReport("FINISHED", best_model=model, registered_model="movies")
    assert finished(storage, report=report) == []
    assert finished(storage, report=report) == [], "a second delivery does not register it again"
    (version,) = client.search_model_versions("name='movies'")
    assert client.get_model_version_by_alias("movies", "champion").version == version.version
    assert version.tags == {"slmrec.stage": TRIAL.stage_id}
    logged = client.get_logged_model(only(storage, "sweep").data.tags["slmrec.model"])
    assert version.source == logged.artifact_location


def test_the_logged_model_names_all_that_the_library_needs() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    assert set(pyfunc._MODEL_REQUIREMENTS) == needed | {"mlflow"}


def test_a_student_that_is_not_there_is_reported(storage: Path) -> None:
    missing = finished(storage, report=SweepReport("FINISHED", best_model=storage / "stages" / "gone" / "model"))
    assert len(missing) == 1
    assert missing[0].startswith("the best student: ")
    assert only(storage, "sweep").info.status == "FINISHED"


def test_a_model_that_cannot_be_packed_is_reported(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model(storage)
    monkeypatch.setattr(pyfunc, "_MODEL_REQUIREMENTS", ("no-such-package",))
    (missing,) = finished(storage, report=SweepReport("FINISHED", best_model=model))
    assert "no-such-package" in missing
