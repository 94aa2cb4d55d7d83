"""The folder of one sweep: its plan, whether it is finished, and whether anyone is still at it."""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from slmrec_core.errors import CheckpointError, ConfigError

State = Literal["running", "finished", "failed", "killed"]
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_HEARTBEAT = ".heartbeat"
_HEARTBEAT_S = 5.0
_DEAD_AFTER_S = 30.0


class SweepFolder:
    """`sweeps/<name>/` of a storage directory.

    Args:
        storage: The storage directory.
        name: Letters, digits, dots, underscores and hyphens.

    Raises:
        ConfigError: Another kind of name.
    """

    def __init__(self, storage: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--name: must be letters, digits, '.', '_' and '-', the first not '.', got {name!r}. E.g. depth-1."
            )
        self.name = name
        self.path = storage / "sweeps" / name

    @property
    def exists(self) -> bool:
        """True = a sweep of this name was started."""
        return (self.path / "plan.json").is_file()

    @property
    def state(self) -> State:
        """How it ended; `killed` too for a sweep that says it is running but has no heartbeat."""
        # plan.json is written first, so a process may have been killed between the two.
        state: State = self._read("state.json")["state"] if (self.path / "state.json").is_file() else "running"
        return "killed" if state == "running" and not self.is_alive else state

    @property
    def is_alive(self) -> bool:
        """True = a process is at it now, here or on another node."""
        beat = self.path / _HEARTBEAT
        try:
            is_fresh = time.time() - beat.stat().st_mtime < _DEAD_AFTER_S
            owner, _, pid = beat.read_text().rpartition(" ")
        except FileNotFoundError:
            return False
        # After kill -9 on this machine nobody has to wait until the heartbeat is old.
        return is_fresh and not (owner == _this_machine() and pid.isdigit() and not _runs(int(pid)))

    @property
    def space(self) -> str:
        """Name of the search space."""
        return str(self._read("plan.json")["space"])

    @property
    def created(self) -> float:
        """UNIX time of its first start."""
        return float(self._read("plan.json")["created"])

    def planned_settings(self) -> dict[str, Any]:
        """Settings by trial, as they were when the sweep was started."""
        settings: dict[str, Any] = self._read("plan.json")["settings"]
        return settings

    def start(self, space: str, plan: dict[str, Any]) -> None:
        """Writes the plan of a new sweep."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "plan.json", {"space": space, "created": time.time(), **plan})
        self.set_state("running")

    def set_state(self, state: State) -> None:
        """Notes how it stands."""
        write_json(self.path / "state.json", {"state": state, "time": time.time()})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the heartbeat for the length of the block.

        Raises:
            ConfigError: Another process is at this sweep.
        """
        if self.is_alive:
            raise ConfigError(
                f"--name: sweep {self.name} is being run by another process, got a heartbeat in {self.path}."
                " Wait for it, or give another --name."
            )
        beat = self.path / _HEARTBEAT
        self.path.mkdir(parents=True, exist_ok=True)
        beat.write_text(f"{_this_machine()} {os.getpid()}")
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(_HEARTBEAT_S):
                # A sweep whose folder was deleted under it has other messages to give than this one.
                with suppress(FileNotFoundError):
                    os.utime(beat)

        thread = threading.Thread(target=keep, daemon=True, name="sweep-heartbeat")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            beat.unlink(missing_ok=True)

    def _read(self, file: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / file).read_text())
        except FileNotFoundError as error:
            raise ConfigError(
                f"--name: no sweep of this name is in {self.path.parent}, got {self.name!r}. Leave out --resume, or"
                " give another --storage."
            ) from error
        except ValueError as error:
            raise CheckpointError(
                f"sweep {self.name}: {self.path / file} must be JSON, got {error}. Delete {self.path}; finished stages"
                " are kept elsewhere."
            ) from error
        return content


def sweeps(storage: Path) -> list[SweepFolder]:
    """All sweeps of a storage directory, newest first."""
    names = [path.parent.name for path in (storage / "sweeps").glob("*/plan.json")]
    # What has another kind of name is not ours.
    folders = [SweepFolder(storage, name) for name in names if _NAME.fullmatch(name)]
    return sorted(folders, key=lambda sweep: sweep.created, reverse=True)


def write_json(path: Path, content: object) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True))
    temporary.replace(path)


def _this_machine() -> str:
    """Host and process namespace: containers may share a host's name, and the same number is another process there."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "-"
    return f"{platform.node()} {namespace}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Killed, but its parent has not asked for it: a zombie still has its number.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
