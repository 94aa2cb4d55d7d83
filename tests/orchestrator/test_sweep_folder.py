"""The folder of a sweep: how it stands, who is at it, and how it is called."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.storage import sweep_folder
from orchestrator.storage.sweep_folder import SweepFolder, sweeps, write_json
from slmrec_core.errors import CheckpointError, ConfigError


def started(storage: Path, name: str = "one", space: str = "smoke") -> SweepFolder:
    folder = SweepFolder(storage, name)
    folder.start(space, {"settings": {"trial": {"seed": 0}}, "resume_command": "go on", "stages": {}})
    return folder


def kill_holder(folder: SweepFolder) -> None:
    """A process takes the sweep and is killed with signal 9."""
    source = (
        "import os, sys, pathlib; from orchestrator.storage.sweep_folder import SweepFolder\n"
        "with SweepFolder(pathlib.Path(sys.argv[1]), sys.argv[2]).held(): os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", source, str(folder.path.parents[1]), folder.name]
    assert subprocess.run(command, cwd=root, check=False).returncode == -9


def test_a_new_sweep_knows_its_space_and_its_plan(tmp_path: Path) -> None:
    assert not SweepFolder(tmp_path, "one").exists
    folder = started(tmp_path)
    assert folder.exists
    assert folder.space == "smoke"
    assert folder.planned_settings() == {"trial": {"seed": 0}}
    assert abs(folder.created - time.time()) < 60
    assert folder.resume_command == "go on"


def test_a_sweep_that_was_refused_before_it_started_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), SweepFolder(tmp_path, "one").held():
        raise ConfigError("data.path: no such file, got 'x'. Name another.")
    assert list((tmp_path / "sweeps").iterdir()) == []
    with started(tmp_path).held():
        pass
    assert SweepFolder(tmp_path, "one").exists


def test_a_sweep_keeps_its_id_and_no_other_has_it(tmp_path: Path) -> None:
    folder = started(tmp_path / "a")
    mine = folder.sweep_id
    folder.update(stages={"data-1": {}})
    assert SweepFolder(tmp_path / "a", "one").sweep_id == mine != started(tmp_path / "b").sweep_id
    written = json.loads((folder.path / "plan.json").read_text())
    assert (written["stages"], written["settings"]) == ({"data-1": {}}, {"trial": {"seed": 0}})


def test_a_sweep_that_says_it_runs_but_has_no_heartbeat_was_killed(tmp_path: Path) -> None:
    folder = started(tmp_path)
    assert (folder.state, folder.is_alive) == ("killed", False)
    with folder.held():
        assert (folder.state, folder.is_alive) == ("running", True)
    assert folder.state == "killed"
    for state in ("finished", "failed", "killed"):
        folder.set_state(state)  # type: ignore[arg-type]
        assert folder.state == state


def test_a_sweep_killed_before_it_noted_its_state_was_killed(tmp_path: Path) -> None:
    # It once made every other sweep of the storage directory fail with "no sweep of this name".
    folder = started(tmp_path)
    (folder.path / "state.json").unlink()
    assert folder.state == "killed"


def test_an_old_heartbeat_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = started(tmp_path)
    with folder.held():
        os.utime(folder.path / ".heartbeat-1", (time.time() - 31, time.time() - 31))
        assert folder.state == "killed"
    monkeypatch.setattr(sweep_folder, "_HEARTBEAT_S", 0.02)
    with folder.held():
        os.utime(folder.path / ".heartbeat-1", (time.time() - 31, time.time() - 31))
        time.sleep(0.3)
        assert folder.state == "running", "the heart beats on"


def test_after_kill_9_on_this_machine_nobody_has_to_wait(tmp_path: Path) -> None:
    folder = started(tmp_path)
    kill_holder(folder)
    assert (folder.path / ".heartbeat-1").exists()
    assert folder.state == "killed"
    with folder.held():
        assert folder.state == "running"
        assert [path.name for path in folder.path.glob(".heartbeat*")] == [".heartbeat-2"]
    assert list(folder.path.glob(".heartbeat*")) == []


def test_of_several_that_take_up_a_dead_sweep_at_a_time_one_gets_it(tmp_path: Path) -> None:
    # Each looked, found nobody, and wrote its own heartbeat over the others'.
    folder = started(tmp_path)
    kill_holder(folder)
    ready, leave = threading.Barrier(8), threading.Event()
    got: list[bool] = []

    def take() -> None:
        own = SweepFolder(tmp_path, "one")
        ready.wait()
        try:
            with own.held():
                got.append(True)
                leave.wait()
        except ConfigError:
            got.append(False)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(got) < 8:
        time.sleep(0.01)
    leave.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_heart_beats_on_when_the_mount_stumbles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # One ESTALE ended the thread, and half a minute later the sweep counted as dead.
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(sweep_folder, "_HEARTBEAT_S", 0.02)
    folder = started(tmp_path)
    real, failed = os.utime, []

    def stumble(path: Path, *times: object) -> None:
        if len(failed) < 3:
            failed.append(path)
            raise OSError(116, "Stale file handle")
        real(path, *times)  # type: ignore[arg-type]

    with folder.held():
        real(folder.path / ".heartbeat-1", (time.time() - 31, time.time() - 31))
        monkeypatch.setattr("os.utime", stumble)
        time.sleep(0.5)
        assert folder.state == "running"
    assert caplog.text.count("the heartbeat cannot be written, got [Errno 116] Stale file handle") == 1


def test_a_heartbeat_of_another_machine_counts_until_it_is_old(tmp_path: Path) -> None:
    folder = started(tmp_path)
    (folder.path / ".heartbeat-1").write_text("elsewhere pid:[1] 999999999")
    assert folder.state == "running"


def test_a_sweep_cannot_be_held_twice(tmp_path: Path) -> None:
    folder = started(tmp_path)
    with folder.held():
        with pytest.raises(ConfigError, match="sweep one is being run by another process"), folder.held():
            pass
        assert folder.is_alive, "the refused one must not end the heartbeat of the other"
    with folder.held():
        pass


def test_a_folder_that_was_deleted_meanwhile_does_not_hide_the_real_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_folder, "_HEARTBEAT_S", 0.02)
    folder = started(tmp_path)

    def lose_the_folder() -> None:
        with folder.held():
            (folder.path / ".heartbeat-1").unlink()
            time.sleep(0.1)
            raise RuntimeError("the real one")

    with pytest.raises(RuntimeError, match="the real one"):
        lose_the_folder()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "../up", "ä", "line\n", "x" * 101])
def test_names_that_are_no_plain_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name: must be letters, digits"):
        SweepFolder(tmp_path, name)


def test_plain_names_are_taken(tmp_path: Path) -> None:
    for name in ("a", "depth-1", "A_b.c", "20260101T000000", "x" * 100):
        assert SweepFolder(tmp_path, name).path == tmp_path / "sweeps" / name


def test_a_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no sweep of this name is in .*, got 'none'"):
        SweepFolder(tmp_path, "none").planned_settings()


def test_sweeps_come_newest_first_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    assert sweeps(tmp_path) == []
    for age, name in enumerate(("new", "old", "oldest")):
        folder = started(tmp_path, name)
        folder.update(created=1000 - age)
    for name in (".trash", "copy of old"):
        (tmp_path / "sweeps" / name).mkdir()
        (tmp_path / "sweeps" / name / "plan.json").write_text("{}")
    (tmp_path / "sweeps" / "empty").mkdir()
    assert [sweep.name for sweep in sweeps(tmp_path)] == ["new", "old", "oldest"]


@pytest.mark.parametrize("content", ["{", "[]", '{"space": "smoke"}', b"\xff"])
def test_a_damaged_plan_is_told_with_its_path_and_hides_no_other(
    tmp_path: Path, content: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    # One of them once ended every sweep of the storage directory.
    folder = started(tmp_path)
    started(tmp_path, "sound")
    (folder.path / "plan.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=r"sweep one: .*plan.json must be JSON with id, space, created"):
        folder.planned_settings()
    assert [sweep.name for sweep in sweeps(tmp_path)] == ["sound"]
    assert "Left out: sweep one: " in caplog.text


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}'
    assert os.listdir(tmp_path) == ["a.json"]
