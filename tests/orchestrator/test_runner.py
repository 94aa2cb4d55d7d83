"""A sweep up to the moment when it joins a cluster, which is not there."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.planning.plan import make_plan
from orchestrator.resources import Allocation
from orchestrator.runner import Sweep, _dataset, _dataset_facts, run_sweep, slow_precision
from orchestrator.storage.sweep_folder import SweepFolder
from slmrec_core.errors import ConfigError, DataError
from tests.orchestrator.small_spaces import space_of

EVENTS = "user,item,timestamp\n" + "".join(f"{u},{i},{u + i}\n" for u in range(6) for i in range(6))


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ("ray", "ray.tune", "ray.train", "ray.data")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def sweep_of(storage: Path, name: str = "mine", **base: object) -> Sweep:
    space = space_of({"method": "finetune"}, base=base)
    for folder in ("stages", "sweeps"):
        (storage / folder).mkdir(parents=True, exist_ok=True)
    command = f"sweep.py smoke --name {name} --resume"
    return Sweep("smoke", space, make_plan(space), storage, SweepFolder(storage, name), command)


def joins_nothing(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match="RAY_ADDRESS: must be <host>:<port>"):
        run_sweep(sweep)


def statuses(storage: Path) -> dict[str, str]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run.info.status for run in client.search_runs(experiments)}


def test_a_sweep_notes_its_stages_and_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = sweep_of(tmp_path)
    joins_nothing(sweep)
    plan = json.loads((sweep.folder.path / "plan.json").read_text())
    (data,), (table,), (model,) = ([s.stage_id for s in sweep.plan.of_kind(k)] for k in ("data", "sasrec", "finetune"))
    assert plan["stages"] == {data: {}, table: {"data": data}, model: {"data": data, "item_table": table}}
    assert sweep.folder.state == "failed"
    assert statuses(tmp_path) == {"mine": "FAILED"}

    sweep.folder.set_state("running")
    joins_nothing(sweep_of(tmp_path, "other"))
    found = "Found sweep mine unfinished; go on with:\n  sweep.py smoke --name mine --resume\n"
    assert found in capsys.readouterr().out


def test_a_resume_that_fails_before_it_starts_ends_what_kill_9_left_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # It was said that runs could not be marked, of a mirror that was never started.
    events = tmp_path / "events.csv"
    events.write_text(EVENTS)
    storage = tmp_path / "storage"
    columns = {"data.path": str(events), "data.user_column": "user", "data.item_column": "item"}
    sweep = sweep_of(storage, **columns)
    joins_nothing(sweep)
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    client.update_run(run.info.run_id, status="RUNNING")
    sweep.folder.set_state("running")
    (stage,) = sweep.plan.of_kind("data")
    os.rename(storage / "stages" / stage.stage_id, tmp_path / "lost")
    events.unlink()
    with pytest.raises(DataError):
        run_sweep(sweep)
    assert sweep.folder.state == "failed"
    assert statuses(storage) == {"mine": "FAILED"}
    assert "could not be marked" not in caplog.text


def test_a_mistake_in_the_data_leaves_no_sweep_behind(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text(EVENTS)
    sweep = sweep_of(tmp_path / "storage", **{"data.path": str(events), "data.user_column": "customer"})
    with pytest.raises(DataError, match="customer"):
        run_sweep(sweep)
    assert not sweep.folder.exists
    assert not (tmp_path / "storage" / "mlflow.db").exists()


def test_the_source_of_the_data_is_what_was_read(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text(EVENTS)
    columns = {"data.path": str(events), "data.user_column": "user", "data.item_column": "item"}
    sweep = sweep_of(tmp_path / "storage", **columns)
    joins_nothing(sweep)
    facts = _dataset_facts(sweep, _dataset(sweep))
    assert (facts.name, facts.source, facts.num_events) == ("events", str(events), 36)


def test_bf16_where_nothing_computes_it_is_not_silent() -> None:
    cpus, gpus = Allocation(2, 1, 0.95, use_gpu=False), Allocation(1, 1, 0.95, use_gpu=True)
    plans = {name: make_plan(space_of({"method": "finetune", "training.precision": name})) for name in ("fp32", "bf16")}
    rows = {name: list(plan.experiments.values()) for name, plan in plans.items()}
    assert "--set training.precision=fp32" in str(slow_precision(rows["bf16"], cpus, "fp32"))
    assert slow_precision(rows["bf16"], cpus, "bf16") is None
    assert slow_precision(rows["bf16"], gpus, "fp32") is None
    assert slow_precision(rows["fp32"], cpus, "fp32") is None
    assert slow_precision([], cpus, "fp32") is None, "what is there already takes no time"
