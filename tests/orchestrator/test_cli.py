"""The command line up to the moment when Ray would start: mistakes, names, resuming, dry runs."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.planning.agreement import agreed_settings
from orchestrator.storage.sweep_folder import SweepFolder, sweeps

ROOT = Path(__file__).parents[2]


class FakeRunner(types.ModuleType):
    """Stands where Ray would be started; notes what would have been run."""

    def __init__(self) -> None:
        super().__init__("orchestrator.runner")
        self.started: list[types.SimpleNamespace] = []

    def Sweep(self, name: str, space: object, plan: object, storage: Path, folder: object, command: str) -> object:  # noqa: N802, PLR0913
        return types.SimpleNamespace(name=name, space=space, plan=plan, storage=storage, folder=folder, command=command)

    def run_sweep(self, sweep: types.SimpleNamespace) -> int:
        """As the real one begins: a plan on disk, then a state."""
        self.started.append(sweep)
        if not sweep.folder.exists:
            settings = agreed_settings(sweep.plan, sweep.space)
            sweep.folder.start(sweep.name, {"settings": settings, "resume_command": sweep.command})
        sweep.folder.set_state("killed")
        return 0


@pytest.fixture(autouse=True)
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRunner]:
    fake = FakeRunner()
    monkeypatch.setitem(sys.modules, "orchestrator.runner", fake)
    monkeypatch.setenv("SLMREC_STORAGE", str(tmp_path / "storage"))
    level = logging.getLogger("slmrec_core").level
    yield fake
    logging.getLogger("slmrec_core").setLevel(level)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with the user's mistake."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


SMALL = ["smoke", "--set", "student.num_layers=2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smok"], "search space: there is no such file or name, got 'smok'. Did you mean 'smoke'?"),
        (["smoke", "--set", "student.num_layer=2"], "Did you mean 'student.num_layers'?"),
        (["smoke", "--set", "student.num_layers=two"], "student.num_layers: input should be a valid integer"),
        (["smoke", "--set", "workers.num_workers=0"], "workers.num_workers: input should be greater than 0, got 0"),
        (["smoke", "--set", "data.path=missing.csv"], "data.path: no such file and no named data set"),
        (["smoke", "--set", "student.num_layers=9"], "student.num_layers: backbone tiny has 8 layers, got 9"),
        (["smoke", "--set", "distillation.num_blocks=3"], "must divide student.num_layers=2, got 3. Use one of [1, 2]"),
        (["smoke", "--set", "backbone=tini"], "Did you mean 'tiny'?"),
        (["smoke", "--set", "select.metric=test/ndcg_at_10"], "select.metric: must start with valid/"),
        (["smoke", "--storage", "s3://bucket/runs"], "got the URI 's3://bucket/runs'. Mount it."),
        (["smoke", "--name", "a b"], "--name: must be letters, digits"),
        (["smoke", "--name", "a" * 300], "at most 100, the first not '.', got 'aaa"),
        (["smoke", "--resume"], "--resume: no unfinished sweep of 'smoke' is in"),
        (["smoke", "--resume", "--name", "none"], "--name: no sweep of this name is in"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else " ".join(value)[:60],
)
def test_a_mistake_ends_with_2_and_one_clear_message(
    capsys: pytest.CaptureFixture[str], runner: FakeRunner, arguments: list[str], said: str
) -> None:
    assert said in fails(capsys, *arguments)
    assert runner.started == []


def test_a_resume_of_nothing_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ([], ["--name", "none"]):
        fails(capsys, "smoke", "--resume", "--storage", str(tmp_path / "new"), *name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["--unknown"], ["smoke", "--set"], ["smoke", "depth"]])
def test_an_option_that_does_not_exist_ends_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: sweep.py" in capsys.readouterr().err


@pytest.mark.parametrize("in_the_way", ["storage", "storage/stages"])
def test_a_file_in_the_place_of_the_storage_directory_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, in_the_way: str
) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file")
    told = fails(capsys, *SMALL)
    assert "--storage: must be a directory that can be written, got" in told
    assert str(tmp_path / in_the_way) in told


def test_the_storage_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir(mode=0o755)
    assert main(SMALL) == 0
    assert (tmp_path / "storage").stat().st_mode & 0o777 == 0o700


def test_a_probe_of_another_process_is_not_in_the_way(tmp_path: Path) -> None:
    # Two starts at a time removed each other's `.writable`, and one was told that the folder cannot be written.
    (tmp_path / "storage" / ".writable").mkdir(parents=True)
    assert main(SMALL) == 0
    assert sorted(os.listdir(tmp_path / "storage")) == [".writable", "stages", "sweeps"]


def test_a_folder_that_is_everybodys_keeps_its_mode(tmp_path: Path) -> None:
    # `--storage /tmp` once took /tmp away from everybody else.
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert main([*SMALL, "--storage", str(shared)]) == 0
    assert shared.stat().st_mode & 0o7777 == 0o1777


def test_a_sweep_is_named_after_its_space_and_the_time(runner: FakeRunner, tmp_path: Path) -> None:
    assert main(SMALL) == 0
    (sweep,) = runner.started
    assert sweep.storage == tmp_path / "storage"
    assert sweep.folder.name.startswith("smoke-2")
    assert len(sweep.folder.name) == len("smoke-20260101T000000")


def test_an_existing_name_is_taken_only_to_resume(capsys: pytest.CaptureFixture[str], runner: FakeRunner) -> None:
    named = [*SMALL, "--name", "mine"]
    assert main(named) == 0
    assert "--name: a sweep of this name exists, got 'mine'. Add --resume" in fails(capsys, *named)
    assert main([*named, "--resume"]) == 0
    assert [sweep.folder.name for sweep in runner.started] == ["mine", "mine"]


def test_without_a_name_the_newest_unfinished_sweep_of_the_space_is_resumed(runner: FakeRunner, tmp_path: Path) -> None:
    for name in ("oldest", "newer", "newest"):
        assert main([*SMALL, "--name", name]) == 0
    assert main(["smoke", "--name", "another", "--set", "seeds=2"]) == 0
    storage = tmp_path / "storage"
    for age, name in enumerate(("another", "newest", "newer", "oldest")):
        plan = storage / "sweeps" / name / "plan.json"
        space = {"space": "depth"} if name == "another" else {}
        plan.write_text(json.dumps(json.loads(plan.read_text()) | {"created": 1000 - age} | space))
    SweepFolder(storage, "newest").set_state("finished")
    assert main([*SMALL, "--resume"]) == 0
    assert runner.started[-1].folder.name == "newer"


def test_changed_settings_are_listed_on_resume(capsys: pytest.CaptureFixture[str], runner: FakeRunner) -> None:
    assert main([*SMALL, "--name", "mine"]) == 0
    changed = ["--set", "training.epochs=3", "--set", "distillation.cosine_weight=0.5"]
    told = fails(capsys, *SMALL, *changed, "--name", "mine", "--resume")
    assert "--resume: settings must be those of sweep mine, got changes:" in told
    assert "training.epochs: 2 → 3" in told
    assert "distillation.cosine_weight: 1.0 → 0.5" in told
    assert "student.num_layers" not in told
    assert len(runner.started) == 1


def test_a_sweep_that_is_older_than_a_setting_is_resumed(
    capsys: pytest.CaptureFixture[str], runner: FakeRunner, tmp_path: Path
) -> None:
    assert main([*SMALL, "--name", "mine"]) == 0
    plan = tmp_path / "storage" / "sweeps" / "mine" / "plan.json"
    content = json.loads(plan.read_text())
    for settings in content["settings"].values():
        settings.pop("data.format", None)
    plan.write_text(json.dumps(content))
    assert main([*SMALL, "--name", "mine", "--resume"]) == 0
    # Where it changes a stage, it is a change.
    for settings in content["settings"].values():
        settings.pop("data.min_user", None)
    plan.write_text(json.dumps(content))
    told = fails(capsys, *SMALL, "--set", "data.min_user=4", "--name", "mine", "--resume")
    assert "data.min_user: nothing → 4" in told


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("workers.num_workers=2", "workers.num_workers: 1 → 2"),
        ("workers.zero_stage=3", "workers.zero_stage: 2 → 3"),
        ("workers.offload=optimizer", "workers.offload: none → optimizer"),
        ("workers.micro_batch_size=4", "workers.micro_batch_size: None → 4"),
        ("workers.use_gpu=false", "workers.use_gpu: None → False"),
        ("select.metric=valid/mrr", "select.metric: valid/ndcg_at_10 → valid/mrr"),
        ("data.path=ml-100k", "data.path: synthetic → ml-100k"),
    ],
)
def test_a_setting_that_is_in_no_hash_is_listed_too(
    capsys: pytest.CaptureFixture[str], setting: str, change: str
) -> None:
    assert main([*SMALL, "--name", "mine"]) == 0
    assert change in fails(capsys, *SMALL, "--name", "mine", "--resume", "--set", setting)


def test_another_study_is_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    space = tmp_path / "smoke.yaml"
    space.write_text((ROOT / "search_spaces" / "smoke.yaml").read_text())
    assert main([str(space), "--name", "mine"]) == 0
    space.write_text(space.read_text().replace("study: smoke", "study: other"))
    assert "  study: smoke → other\n" in fails(capsys, str(space), "--name", "mine", "--resume")


@pytest.mark.parametrize("setting", ["max_concurrent_trials=1", "cpus_per_worker=0.5", "max_failures=0"])
def test_what_depends_on_the_cluster_may_change_on_resume(runner: FakeRunner, setting: str) -> None:
    assert main([*SMALL, "--name", "mine"]) == 0
    assert main([*SMALL, "--name", "mine", "--resume", "--set", f"workers.{setting}"]) == 0
    assert len(runner.started) == 2


def test_the_content_of_data_may_not_change_on_resume_but_their_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, copy = tmp_path / "events.csv", tmp_path / "copy of events.csv"
    data.write_text("user_id,item_id,timestamp\n1,1,1\n")
    shutil.copy(data, copy)
    assert main([*SMALL, "--set", f"data.path={data}", "--name", "mine"]) == 0
    assert main([*SMALL, "--set", f"data.path={copy}", "--name", "mine", "--resume"]) == 0
    data.write_text("user_id,item_id,timestamp\n1,2,1\n")
    told = fails(capsys, *SMALL, "--set", f"data.path={data}", "--name", "mine", "--resume")
    assert "got changes:\n  the content of data.path: " in told
    assert "trial" not in told


def test_a_search_may_not_draw_from_something_else_on_resume(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n1,1,1\n")
    monkeypatch.chdir(tmp_path)
    search = ["loss_weights", "--set", "backbone=tiny", "--name", "mine"]
    assert main([*search, "--set", "data.path=events.csv"]) == 0
    resumed = [*search, "--set", f"data.path={tmp_path}/events.csv", "--resume"]
    assert main(resumed) == 0
    assert "budget: {" in fails(capsys, *resumed, "--set", "budget.num_trials=3")


def test_the_resume_command_works_from_any_directory(
    runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own space.yaml").write_text((ROOT / "search_spaces" / "smoke.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert main(["own space.yaml", "--set", "seeds=[0, 1]", "--storage", "here", "--name", "mine"]) == 0
    command = runner.started[0].command
    for part in (f"'{tmp_path}/own space.yaml'", "--set 'seeds=[0, 1]'", f"--storage {tmp_path}/here", "--name mine"):
        assert part in command
    assert command.startswith(f"{sys.executable} {ROOT / 'orchestrator' / 'sweep.py'} ")
    assert command.endswith(" --resume")
    monkeypatch.chdir("/")
    assert main(shlex.split(command)[2:]) == 0


def test_a_relative_data_path_is_made_absolute(
    runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n1,1,1\n")
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--set", "data.path=events.csv"]) == 0
    paths = {experiment.data.path for experiment in runner.started[0].plan.experiments.values()}
    assert paths == {str(tmp_path / "events.csv")}


def test_a_dry_run_prints_what_is_done_and_what_is_not_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], runner: FakeRunner, tmp_path: Path
) -> None:
    assert main([*SMALL, "--dry-run"]) == 0
    first = capsys.readouterr().out
    assert not (tmp_path / "storage").exists()
    assert first.count("to run") == 9
    assert "done" not in first
    for part in ("distill-2-seed0-", "probe-4-seed0-", "worker(s) each"):
        assert part in first
    stage = next(line.split()[-1] for line in first.splitlines() if "to run  data-" in line)
    (tmp_path / "storage" / "stages" / stage).mkdir(parents=True)
    (tmp_path / "storage" / "stages" / stage / "manifest.json").touch()
    assert main([*SMALL, "--dry-run"]) == 0
    assert f"done    {stage}" in capsys.readouterr().out
    assert runner.started == []
    assert sweeps(tmp_path / "storage") == []


def test_a_dry_run_of_a_search_says_how_many_points_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "data.path=synthetic", "--set", "backbone=tiny", "--set", "budget.num_trials=5"]
    assert main(["loss_weights", *small, "--dry-run"]) == 0
    assert "and 5 points drawn by optuna" in capsys.readouterr().out


def test_a_dry_run_for_a_larger_cluster_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--set", "workers.cpus_per_worker=4096", "--dry-run"]) == 0
    assert "they do not fit. workers: a trial needs 1 worker(s) of 4096 CPU" in capsys.readouterr().out


def test_a_dry_run_shows_the_gpus_of_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert main([*SMALL, "--dry-run"]) == 0
    assert "2 at a time, 1 worker(s) each, 3.95 CPU and 1 GPU per worker" in capsys.readouterr().out


def test_a_dry_run_imports_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    source = (
        "import sys; from orchestrator.cli import main; code = main(sys.argv[1:]);"
        "print(code, *[name for name in ('ray', 'mlflow', 'deepspeed') if name in sys.modules])"
    )
    space = ["loss_weights", "--set", "data.path=synthetic", "--set", "backbone=tiny"]
    arguments = [*space, "--storage", str(tmp_path / "storage"), "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []
