"""The folder of one sweep: its plan, whether it is finished, and whether anyone is still at it."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from slmrec_core.errors import ConfigError

State = Literal["running", "finished", "failed", "killed"]
_NAME = re.compile(r"^[A-Za-z0-9._-]+$")
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
        if not _NAME.match(name) or name.startswith("."):
            raise ConfigError(f"--name: must be letters, digits, '.', '_' and '-', got {name!r}. E.g. depth-1.")
        self.name = name
        self.path = storage / "sweeps" / name

    @property
    def exists(self) -> bool:
        """True = a sweep of this name was started."""
        return (self.path / "plan.json").is_file()

    @property
    def state(self) -> State:
        """How it ended; `killed` too for a sweep that says it is running but has no heartbeat."""
        state: State = self._read("state.json")["state"]
        return "killed" if state == "running" and not self.is_alive else state

    @property
    def is_alive(self) -> bool:
        """True = a process is at it now, here or on another node."""
        try:
            return time.time() - (self.path / ".heartbeat").stat().st_mtime < _DEAD_AFTER_S
        except FileNotFoundError:
            return False

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
        beat = self.path / ".heartbeat"
        self.path.mkdir(parents=True, exist_ok=True)
        beat.touch()
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(_HEARTBEAT_S):
                os.utime(beat)

        threading.Thread(target=keep, daemon=True, name="sweep-heartbeat").start()
        try:
            yield
        finally:
            stop.set()
            beat.unlink(missing_ok=True)

    def _read(self, file: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / file).read_text())
        except FileNotFoundError as error:
            raise ConfigError(f"--name: no sweep of this name is in {self.path.parent}, got {self.name!r}.") from error
        return content


def sweeps(storage: Path) -> list[SweepFolder]:
    """All sweeps of a storage directory, newest first."""
    folders = [SweepFolder(storage, path.parent.name) for path in (storage / "sweeps").glob("*/plan.json")]
    return sorted(folders, key=lambda sweep: sweep.created, reverse=True)


def write_json(path: Path, content: object) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True))
    temporary.replace(path)
