"""Sweeps through real Ray, DeepSpeed and MLflow, as a user runs them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.report.results import COST_COLUMNS
from orchestrator.space.search_space import SPACES_FOLDER
from tests.integration.conftest import ROOT

pytestmark = pytest.mark.ray

Sweep = Callable[..., subprocess.CompletedProcess[str]]


def runs(storage: Path, study: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"the sweep ended without {pattern!r}:\n{''.join(lines)}")


def table(storage: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(storage / "sweeps" / name / "results.csv")


def train_workers(home: str) -> list[psutil.Process]:
    """Processes of Ray Train in our own cluster; others on this machine are none of our business."""
    found = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])]
    return [process for process in found if process.environ().get("HOME") == home]


def without_clocks(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in COST_COLUMNS if not name.startswith("params")])


def assert_mlflow_shows_every_epoch(storage: Path, searched: pd.DataFrame) -> None:
    """Every drawn point is a run with all epochs that it was trained for, also those that were stopped."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    found = {run.data.tags.get("slmrec.stage"): run for run in runs(storage, "small")}
    for _, row in searched.iterrows():
        run = found[row["stage_id"]]
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[row["status"]]
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in history] == [*range(1, len(history) + 1)]
        assert len(history) == 4 if row["status"] == "finished" else 1 <= len(history) <= 4
        best = client.get_metric_history(run.info.run_id, "valid/ndcg_at_10")
        assert row["valid/ndcg_at_10"] in [pytest.approx(point.value) for point in best]


def points(storage: Path) -> list[dict[str, float]]:
    """Settings of every point that a search has drawn."""
    found = json.loads((storage / "sweeps" / "x" / "search.json").read_text())["points"]
    return [point["settings"] for point in found]


class TestSmoke:
    @pytest.fixture(scope="class")
    def storage(self, cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
        storage = tmp_path_factory.mktemp("smoke")
        command = [sys.executable, str(ROOT / "orchestrator/sweep.py"), "smoke", "--storage", storage, "--name", "one"]
        done = subprocess.run(
            list(map(str, command)), cwd=storage, env=cluster, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (storage / "said.txt").write_text(done.stdout)
        assert "Traceback" not in done.stderr
        return storage

    def test_the_table_has_every_row_and_the_contracts_columns(self, storage: Path) -> None:
        frame = table(storage, "one")

        lead = ["trial_id", "row", "method", "num_layers", "teacher_layers", "num_blocks", "seed"]
        assert list(frame.columns[:7]) == lead
        assert frame.groupby("row").size().to_dict() == {
            "distill": 2, "finetune": 3, "online": 1, "probe": 5, "sasrec": 1, "teacher": 1,
        }  # fmt: skip
        assert frame["status"].eq("finished").all()
        measured = ["valid/ndcg_at_10", "test/ndcg_at_10", "test/hit_rate_at_1", "test/mrr", "test_sampled/mrr"]
        assert frame[measured].notna().all(axis=None)
        assert (frame["test_sampled/mrr"] >= frame["test/mrr"]).all(), "fewer candidates, better ranks"

    def test_the_last_layer_of_the_probe_is_the_teacher(self, storage: Path) -> None:
        frame = table(storage, "one").set_index(["row", "num_layers"])

        assert frame.loc[("probe", 4), "test/ndcg_at_10"] == pytest.approx(frame.loc[("teacher", 4), "test/ndcg_at_10"])
        for name in ("params_trainable", "params_decoder", "params_total"):
            depths = [int(frame.loc[("probe", n), name]) for n in range(5)]
            assert depths == sorted(set(depths))
            assert depths[4] == frame.loc[("teacher", 4), name]
            assert depths[2] == frame.loc[("finetune", 2), name]

    def test_the_curves_in_mlflow_are_the_tables_with_step_as_depth(self, storage: Path) -> None:
        (parent,) = [run for run in runs(storage, "smoke") if run.info.run_name == "one"]
        client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
        frame = table(storage, "one")
        for row in ("finetune", "distill", "probe"):
            history = client.get_metric_history(parent.info.run_id, f"{row}/test_ndcg_at_10")

            expected = frame[frame["row"] == row].set_index("num_layers")["test/ndcg_at_10"].to_dict()
            assert {point.step: point.value for point in history} == pytest.approx(expected)

    def test_every_run_is_finished_and_has_its_parent(self, storage: Path) -> None:
        found = runs(storage, "smoke")
        (parent,) = [run for run in found if run.info.run_name == "one"]

        assert {run.info.status for run in found} == {"FINISHED"}
        others = [run for run in found if run is not parent]
        assert {run.data.tags["mlflow.parentRunId"] for run in others} == {parent.info.run_id}
        trained = [run for run in others if "slmrec.stage" in run.data.tags]
        assert len({run.data.tags["slmrec.stage"] for run in trained}) == len(trained) == 8

    def test_ranks_on_disk_give_the_metrics_of_the_table(self, storage: Path) -> None:
        for _, row in table(storage, "one").query("method != 'probe'").iterrows():
            ranks = pd.read_parquet(storage / "stages" / row["stage_id"] / "ranks.parquet")
            test = ranks[(ranks["split"] == "test") & (ranks["protocol"] == "full")]["rank"]

            assert (test <= 10).mean() == pytest.approx(row["test/hit_rate_at_10"])
            assert (1.0 / test).mean() == pytest.approx(row["test/mrr"])

    def test_distillation_is_logged_by_term_and_moves(self, storage: Path) -> None:
        stage = table(storage, "one").query("row == 'distill' and num_layers == 2")["stage_id"].iloc[0]
        lines = [json.loads(x) for x in (storage / "stages" / stage / "metrics.jsonl").read_text().splitlines()]
        first, last = lines[0]["metrics"], lines[-1]["metrics"]

        assert last["train/loss_cosine"] < first["train/loss_cosine"]
        for name in ("next_item", "cosine", "norm", "supervision"):
            assert f"train/loss_{name}" in first
            assert first[f"train/gradient_norm_{name}"] > 0
        weighted = first["train/loss_next_item"] + 1.0 * first["train/loss_cosine"]
        weighted += 0.1 * first["train/loss_norm"] + 0.1 * first["train/loss_supervision"]
        assert first["train/loss"] == pytest.approx(weighted, rel=1e-4)

    def test_an_online_student_has_its_teacher_beside_it(self, storage: Path) -> None:
        stage = table(storage, "one").query("row == 'online'")["stage_id"].iloc[0]
        lines = [json.loads(x) for x in (storage / "stages" / stage / "metrics.jsonl").read_text().splitlines()]

        for name in ("train/loss_teacher_next_item", "train/loss_cosine", "teacher_valid/ndcg_at_10"):
            assert lines[0]["metrics"][name] > 0
        assert not json.loads((storage / "stages" / stage / "manifest.json").read_text())["inputs"].get("teacher")

    def test_a_person_sees_the_table_and_where_to_look(self, storage: Path) -> None:
        said = (storage / "said.txt").read_text()

        assert str(storage / "sweeps/one/results.csv") in said
        assert f"mlflow ui --backend-store-uri sqlite:///{storage}/mlflow.db" in said
        assert "one seed" in said
        assert "WARNING" not in said

    def test_a_second_sweep_trains_nothing_again(self, storage: Path, sweep: Sweep) -> None:
        before = {path.name: path.stat().st_mtime for path in (storage / "stages").iterdir()}
        done = sweep("smoke", "--storage", storage, "--name", "two")

        assert done.returncode == 0, done.stderr
        assert {path.name: path.stat().st_mtime for path in (storage / "stages").iterdir()} == before
        pd.testing.assert_frame_equal(table(storage, "one"), table(storage, "two"))

    def test_trained_models_are_made_smaller_without_training_and_the_best_is_registered(
        self, storage: Path, sweep: Sweep, tmp_path: Path
    ) -> None:
        smoke = yaml.safe_load((SPACES_FOLDER / "smoke.yaml").read_text())
        small = {"method": "finetune", "student.num_layers": 2, "compressed": True}
        rows = [{**small, "row": weights, "compression.weights": weights} for weights in ("float", "int8")]
        space = smoke | {"params": rows, "compare": ["int8-2 vs float-2"], "select": {"registered_model": "smoke"}}
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(space))
        before = {path.name for path in (storage / "stages").iterdir()}
        done = sweep(tmp_path / "small.yaml", "--storage", storage, "--name", "small", "--quiet")

        assert done.returncode == 0, done.stderr
        assert "compress: 2 to build" not in done.stdout, "it was to be quiet"
        made = {path.name for path in (storage / "stages").iterdir()} - before
        frame = table(storage, "small").set_index("row")
        assert made == set(frame.loc[["float", "int8"], "stage_id"])
        assert frame.loc["int8", "model_bytes"] < 0.7 * frame.loc["float", "model_bytes"]
        trained = table(storage, "one").set_index(["row", "num_layers"]).loc[("finetune", 2)]
        # Merged updates round otherwise; nobody's rank moves by more than a tie.
        assert frame.loc["float", "test/mrr"] == pytest.approx(trained["test/mrr"], rel=1e-2)
        assert (storage / "sweeps" / "small" / "figures" / "quality_cost.png").is_file()
        client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
        stage = client.get_model_version_by_alias("smoke", "champion").tags["slmrec.stage"]
        assert stage in made

    def test_a_row_that_was_chosen_on_valid_is_not_trained_again(
        self, storage: Path, sweep: Sweep, tmp_path: Path
    ) -> None:
        smoke = yaml.safe_load((SPACES_FOLDER / "smoke.yaml").read_text())
        space = smoke | {"params": [{"method": "finetune", "student.num_layers": 2}]}
        (tmp_path / "closed.yaml").write_text(yaml.safe_dump(space | {"select": {"read_test": False}}))
        (tmp_path / "open.yaml").write_text(yaml.safe_dump(space))
        first = table(storage, "one")
        own = first[(first["row"] == "finetune") & (first["num_layers"] == 2)]
        stage = storage / "stages" / own["stage_id"].item()
        before = pd.read_parquet(stage / "ranks.parquet")
        shutil.move(stage, tmp_path / "aside")

        assert sweep(tmp_path / "closed.yaml", "--storage", storage, "--name", "closed").returncode == 0
        assert not [name for name in table(storage, "closed") if name.startswith("test")]
        done = sweep(tmp_path / "open.yaml", "--storage", storage, "--name", "open")

        assert done.returncode == 0, done.stderr
        assert "epoch 1 " not in done.stdout
        again = table(storage, "open")
        again = again[again["stage_id"] == stage.name]
        for name in ("valid/ndcg_at_10", "test/ndcg_at_10", "test/mrr", "best_epoch"):
            assert again[name].item() == pytest.approx(own[name].item(), abs=1e-12)
        pd.testing.assert_frame_equal(pd.read_parquet(stage / "ranks.parquet"), before)
        # The class's other tests compare whole tables, seconds among them.
        shutil.rmtree(stage)
        shutil.move(tmp_path / "aside", stage)

    @pytest.mark.parametrize("working_dir", [False, True], ids=["installed", "working-dir"])
    def test_ray_job_submit_does_the_same(self, storage: Path, cluster: dict[str, str], working_dir: bool) -> None:
        name = f"job-{working_dir}"
        job = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster["DASHBOARD"]]
        job += ["--working-dir", "."] if working_dir else []
        job += ["--", sys.executable, "orchestrator/sweep.py", "smoke", "--storage", str(storage), "--name", name]
        environment = {key: value for key, value in cluster.items() if key != "RAY_ADDRESS"}
        done = subprocess.run(job, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

        assert done.returncode == 0, done.stdout + done.stderr
        pd.testing.assert_frame_equal(table(storage, "one"), table(storage, name))


def test_a_killed_worker_is_replaced_and_nothing_changes(
    sweep: Sweep,
    start_sweep: Callable[..., subprocess.Popen[str]],
    small_space: Callable[..., Path],
    cluster: dict[str, str],
    tmp_path: Path,
) -> None:
    space = small_space(epochs=30)
    undisturbed, disturbed = tmp_path / "a", tmp_path / "b"
    process = start_sweep(space, "--storage", disturbed, "--name", "x")
    wait_for_line(process, r"finetune-\S+ +epoch 2 ")
    (victim,) = train_workers(cluster["HOME"])
    victim.kill()
    said, _ = process.communicate(timeout=300)
    done = sweep(space, "--storage", undisturbed, "--name", "x")

    assert process.returncode == 0, said
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(without_clocks(table(undisturbed, "x")), without_clocks(table(disturbed, "x")))


def test_after_kill_nine_the_next_start_says_so_and_resume_goes_on(
    sweep: Sweep, start_sweep: Callable[..., subprocess.Popen[str]], small_space: Callable[..., Path], tmp_path: Path
) -> None:
    space = small_space(epochs=30)
    process = start_sweep(space, "--storage", tmp_path / "s", "--name", "lost")
    wait_for_line(process, r"finetune-\S+ +epoch 2 ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    for heartbeat in (tmp_path / "s").rglob(".heartbeat"):
        # As if a minute had gone by: nobody is at it any more.
        os.utime(heartbeat, (time.time() - 120, time.time() - 120))
    other = sweep(space, "--storage", tmp_path / "s", "--name", "other", "--set", "training.epochs=1")
    resumed = sweep(space, "--storage", tmp_path / "s", "--resume")

    assert "Found sweep lost unfinished" in other.stdout, other.stdout + other.stderr
    assert f"sweep.py {space} --storage {tmp_path / 's'} --name lost --resume" in other.stdout
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Resuming lost" in resumed.stdout
    assert table(tmp_path / "s", "lost")["status"].eq("finished").all()
    (parent,) = [run for run in runs(tmp_path / "s", "small") if run.info.run_name == "lost"]
    assert parent.info.status == "FINISHED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_whose_item_table_is_being_trained_hears_a_signal_at_once(
    start_sweep: Callable[..., subprocess.Popen[str]],
    small_space: Callable[..., Path],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    long = ("--set", "item_table.training.epochs=100000", "--set", "item_table.training.patience=100000")
    process = start_sweep(small_space(epochs=1), "--storage", tmp_path / "s", "--name", "x", *long)
    wait_for_line(process, r"sasrec-\S+ +epoch \d")
    # Once the line is out, the sweep waits in Ray's own code for the next, which is 15 s away.
    time.sleep(1)
    process.send_signal(number)
    deadline = time.monotonic() + 3
    wait_for_line(process, "--name x --resume")

    # `ray job stop` kills after three seconds.
    assert time.monotonic() < deadline
    assert process.wait(timeout=60) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_prints_how_to_go_on_and_marks_its_runs_killed(
    start_sweep: Callable[..., subprocess.Popen[str]],
    small_space: Callable[..., Path],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    process = start_sweep(small_space(epochs=50), "--storage", tmp_path / "s", "--name", "x")
    wait_for_line(process, r"finetune-\S+ +epoch 1 ")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + number, said
    assert "--name x --resume" in said
    assert "Traceback" not in said
    assert {run.info.status for run in runs(tmp_path / "s", "small")} <= {"KILLED", "FINISHED"}
    assert "KILLED" in {run.info.status for run in runs(tmp_path / "s", "small")}


def test_a_stopped_job_is_submitted_again_by_the_command_that_it_prints(
    cluster: dict[str, str], small_space: Callable[..., Path], tmp_path: Path
) -> None:
    environment = {**cluster, "RAY_ADDRESS": cluster["DASHBOARD"]}
    # Keys that we set ourselves: Ray once refused to merge them.
    variables = json.dumps({"env_vars": {"SLMREC_CACHE": cluster["SLMREC_CACHE"], "PYTHONPATH": str(tmp_path)}})
    job = ["ray", "job", "submit", "--submission-id", "stopped", "--working-dir", ".", "--runtime-env-json", variables]
    job += ["--", "python", "orchestrator/sweep.py", str(small_space(epochs=50)), "--name", "x"]
    job += ["--storage", str(tmp_path / "s")]
    process = subprocess.Popen(
        job, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_line(process, r"finetune-\S+ +epoch 1 ")
    subprocess.run(["ray", "job", "stop", "stopped"], env=environment, capture_output=True, timeout=120, check=True)
    said, _ = process.communicate(timeout=120)

    (command,) = [line for line in said.splitlines() if line.endswith("--resume")]
    assert "_ray_pkg" not in command
    words = [variables if word == "<as before>" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Resuming x" in done.stdout
    assert table(tmp_path / "s", "x")["status"].eq("finished").all()


def test_a_loss_that_is_not_finite_fails_the_trial_with_one_message(
    sweep: Sweep, small_space: Callable[..., Path], tmp_path: Path
) -> None:
    params = """  - method: distill
    student.num_layers: 2
    distillation.cosine_weight: 1.0e+300"""
    done = sweep(small_space(params), "--storage", tmp_path / "s", "--name", "x")

    assert done.returncode == 1
    assert "the loss must be finite, got inf in epoch 1, step 1" in done.stderr
    assert "Lower training.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "s/stages").glob("sasrec-*"))) == 1
    statuses = {run.info.run_name.split("-")[0]: run.info.status for run in runs(tmp_path / "s", "small")}
    assert statuses["distill"] == statuses["x"] == "FAILED"
    assert statuses["sasrec"] == statuses["teacher"] == "FINISHED", "what was finished stays"


def test_a_tracking_server_that_is_down_does_not_stop_a_sweep(
    sweep: Sweep, small_space: Callable[..., Path], tmp_path: Path
) -> None:
    done = sweep(
        small_space(), "--storage", tmp_path / "s", "--name", "x", MLFLOW_TRACKING_URI="http://me:secret@127.0.0.1:9"
    )

    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "--resume" in done.stderr
    assert table(tmp_path / "s", "x")["status"].eq("finished").all()
    delivered = sweep(small_space(), "--storage", tmp_path / "s", "--name", "x", "--resume")
    assert delivered.returncode == 0, delivered.stderr
    assert {run.info.status for run in runs(tmp_path / "s", "small")} == {"FINISHED"}


def test_a_search_with_early_stops_goes_on_after_kill_nine_ends_and_gives_everything_back(
    sweep: Sweep,
    start_sweep: Callable[..., subprocess.Popen[str]],
    cluster: dict[str, str],
    small_space: Callable[..., Path],
    tmp_path: Path,
) -> None:
    params = """  - method: distill
    student.num_layers: 2
    distillation.cosine_weight: {loguniform: [1.0e-2, 10.0]}"""
    more = """
search: {algorithm: optuna, scheduler: asha}
budget: {num_trials: 4, max_epochs: 4, grace_epochs: 1}
"""
    arguments = (small_space(params, epochs=4, more=more), "--storage", tmp_path / "s", "--name", "x")
    process = start_sweep(*arguments)
    wait_for_line(process, r"search-\d+ +epoch 1 ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    drawn = points(tmp_path / "s")
    done = sweep(*arguments, "--resume")

    assert done.returncode == 0, done.stdout + done.stderr
    assert points(tmp_path / "s")[: len(drawn)] == drawn, "what was drawn before is not drawn anew"
    frame = table(tmp_path / "s", "x")
    searched = frame[frame["row"] == "search"]
    assert len(searched) == 4
    assert "stopped" in set(searched["status"])
    assert searched["test/ndcg_at_10"].isna().all(), "the test split stays closed in a search"
    assert frame[frame["row"] == "distill"]["test/ndcg_at_10"].notna().all()
    assert_mlflow_shows_every_epoch(tmp_path / "s", searched)
    again = sweep(*arguments, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "search: 0 of 4 points to train" in again.stderr + again.stdout
    pd.testing.assert_frame_equal(table(tmp_path / "s", "x"), frame)
    assert_mlflow_shows_every_epoch(tmp_path / "s", searched)
    code = "import ray,time; ray.init(log_to_driver=False)\nfor _ in range(60):\n time.sleep(1)\n"
    code += " if ray.available_resources().get('CPU') == ray.cluster_resources()['CPU']: print('free'); break"
    free = subprocess.run([sys.executable, "-c", code], env=cluster, capture_output=True, text=True, timeout=120)
    assert "free" in free.stdout, free.stdout + free.stderr
