"""The folder of one sweep: its plan, whether it is finished, and whether anyone is still at it."""

import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from orchestrator.storage.heartbeat import beating
from slmrec_core.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

State = Literal["running", "finished", "failed", "killed"]
_MAX_NAME = 100
"""Ray and MLflow make longer names of it, and a file's ends after 255 characters."""
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{_MAX_NAME - 1}}}")
_PLAN = ("id", "space", "created", "settings", "resume_command")
"""Keys that plan.json must have."""
_HEARTBEAT = ".heartbeat-"
"""And a number: whoever takes up the sweep of a dead process makes the next one."""
_HEARTBEAT_S = 5.0
_DEAD_AFTER_S = 30.0


class SweepFolder:
    """`sweeps/<name>/` of a storage directory.

    Args:
        storage: The storage directory.
        name: At most 100 letters, digits, dots, underscores and hyphens.

    Raises:
        ConfigError: Another kind of name.
    """

    def __init__(self, storage: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--name: must be letters, digits, '.', '_' and '-', at most {_MAX_NAME}, the first not '.',"
                f" got {name!r}. E.g. depth-1."
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
        state: State = self._read("state.json", "state")["state"] if (self.path / "state.json").is_file() else "running"
        return "killed" if state == "running" and not self.is_alive else state

    @property
    def is_alive(self) -> bool:
        """True = a process is at it now, here or on another node."""
        beat = self._last_beat()
        return beat is not None and _is_beating(beat)

    @property
    def sweep_id(self) -> str:
        """Its own for ever and everywhere: other storage directories may have a sweep of the same name."""
        return str(self._plan()["id"])

    @property
    def space(self) -> str:
        """Name of the search space."""
        return str(self._plan()["space"])

    @property
    def created(self) -> float:
        """UNIX time of its first start."""
        return float(self._plan()["created"])

    @property
    def resume_command(self) -> str:
        """For a shell."""
        return str(self._plan()["resume_command"])

    def planned_settings(self) -> dict[str, Any]:
        """Settings by trial, as they were when the sweep was started."""
        settings: dict[str, Any] = self._plan()["settings"]
        return settings

    def start(self, space: str, plan: dict[str, Any]) -> None:
        """Writes the plan of a new sweep.

        Args:
            space: Name of the search space.
            plan: `settings`, `resume_command`, and whatever else people may look for.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        own = {"id": uuid.uuid4().hex, "space": space, "created": time.time()}
        write_json(self.path / "plan.json", {**plan, **own})
        self.set_state("running")

    def update(self, **changes: object) -> None:
        """Writes the plan again, with what has changed in it."""
        write_json(self.path / "plan.json", self._plan() | changes)

    def set_state(self, state: State) -> None:
        """Notes how it stands."""
        write_json(self.path / "state.json", {"state": state, "time": time.time()})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the heartbeat for the length of the block.

        Raises:
            ConfigError: Another process is at this sweep.
        """
        beat = self._claim()
        try:
            with beating(beat, _HEARTBEAT_S):
                yield
        finally:
            beat.unlink(missing_ok=True)
            # A sweep that was refused before it started leaves nothing.
            with suppress(OSError):
                self.path.rmdir()

    def _claim(self) -> Path:
        """A heartbeat of ours, after those of the dead; of several processes that try at a time one gets it."""
        self.path.mkdir(parents=True, exist_ok=True)
        last = self._last_beat()
        if last is None or not _is_beating(last):
            beat = self.path / f"{_HEARTBEAT}{1 if last is None else _number(last) + 1}"
            with suppress(FileExistsError):
                # Only one can create a file, on network file systems too, where locks may do nothing.
                with beat.open("x") as file:
                    file.write(f"{_this_machine()} {os.getpid()}")
                if self._last_beat() == beat:
                    for dead in self._beats()[:-1]:
                        dead.unlink(missing_ok=True)
                    return beat
                # Others have come and gone since we looked, and one is there.
                beat.unlink(missing_ok=True)
        raise ConfigError(
            f"--name: sweep {self.name} is being run by another process, got a heartbeat in {self.path}."
            " Wait for it, or give another --name."
        )

    def _beats(self) -> list[Path]:
        numbered = (p for p in self.path.glob(f"{_HEARTBEAT}*") if p.name.removeprefix(_HEARTBEAT).isdigit())
        return sorted(numbered, key=_number)

    def _last_beat(self) -> Path | None:
        return next(reversed(self._beats()), None)

    def _plan(self) -> dict[str, Any]:
        return self._read("plan.json", *_PLAN)

    def _read(self, file: str, *keys: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / file).read_text())
            if not (isinstance(content, dict) and set(keys) <= content.keys()):
                raise ValueError(f"{json.dumps(content)[:60]} …")
        except FileNotFoundError as error:
            raise ConfigError(
                f"--name: no sweep of this name is in {self.path.parent}, got {self.name!r}. Leave out --resume, or"
                " give another --storage."
            ) from error
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"sweep {self.name}: {self.path / file} must be JSON with {', '.join(keys)}, got {error}."
                f" Delete {self.path}; finished stages are kept elsewhere."
            ) from error
        return content


def sweeps(storage: Path) -> list[SweepFolder]:
    """All sweeps of a storage directory, newest first; what cannot be read is told and left out."""
    found: list[tuple[float, SweepFolder]] = []
    for path in (storage / "sweeps").glob("*/plan.json"):
        # What has another kind of name is not ours.
        if _NAME.fullmatch(path.parent.name):
            folder = SweepFolder(storage, path.parent.name)
            try:
                _ = folder.state
                found.append((folder.created, folder))
            except (CheckpointError, ValueError, OSError) as error:
                logger.warning("Left out: %s", error)
    return [folder for _, folder in sorted(found, key=lambda pair: pair[0], reverse=True)]


def write_json(path: Path, content: object) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True))
    temporary.replace(path)


def _number(beat: Path) -> int:
    return int(beat.name.removeprefix(_HEARTBEAT))


def _is_beating(beat: Path) -> bool:
    try:
        is_fresh = time.time() - beat.stat().st_mtime < _DEAD_AFTER_S
        owner, _, pid = beat.read_text().rpartition(" ")
    except FileNotFoundError:
        return False
    # After kill -9 on this machine nobody has to wait until the heartbeat is old.
    return is_fresh and not (owner == _this_machine() and pid.isdigit() and not _runs(int(pid)))


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
