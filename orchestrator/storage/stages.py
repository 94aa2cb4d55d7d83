"""The stage store: everything that was computed, once, under a name made from what defines its numbers.

A stage is built in `.building-<stage_id>-<uuid>/` and renamed into place as a whole, with a manifest of its files. If
the place is taken by then, the other builder won. A builder keeps a heartbeat; only what has none is ever removed.
"""

import contextlib
import hashlib
import json
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.heartbeat import beating
from slmrec_core.errors import CheckpointError

NUMBERS = 3
"""Counted up by whoever changes what equal settings compute, so that no store gives old numbers to new code."""
HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
MANIFEST = "manifest.json"
"""In every stage: what it is, where it was built, and its files."""
LEFT_OUT = "left_out"
"""Key of a manifest: files of the stage that were not kept with its row."""
_HEARTBEAT = ".heartbeat"


def stage_id(kind: str, settings: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """`<kind>-<hash>` of what defines the numbers: settings and the stages that are read.

    Equal arguments give equal ids on every machine; where and by how many workers a stage is built is not in it.
    """
    content = json.dumps({"numbers": NUMBERS, "kind": kind, "settings": settings, "inputs": inputs}, sort_keys=True)
    return f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Stage:
    """One thing to compute."""

    stage_id: str
    kind: str
    settings: dict[str, object]
    """What defines the numbers, for the manifest and for people."""
    inputs: dict[str, str]
    """Stages that are read, by role."""

    @property
    def untested(self) -> "Stage":
        """The same training with the test split left unread: a point of a search."""
        return Stage.of(self.kind, {**self.settings, "read_test": False}, self.inputs)

    @classmethod
    def of(cls, kind: str, settings: Mapping[str, object], inputs: Mapping[str, str]) -> "Stage":
        """The stage that these settings and inputs define."""
        return cls(stage_id(kind, settings, inputs), kind, dict(settings), dict(inputs))


class StageStore:
    """The folder `stages/` of a storage directory.

    Args:
        root: Seen by every node under this path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where a stage lies, or will."""
        return self.root / name

    def is_done(self, name: str) -> bool:
        """True = the stage's numbers are there."""
        return (self.root / name / MANIFEST).is_file()

    def is_whole(self, name: str) -> bool:
        """True = everything that the stage had when it was built is there, weights too: other stages can read it."""
        if not self.is_done(name):
            return False
        try:
            return not json.loads((self.root / name / MANIFEST).read_text()).get(LEFT_OUT)
        except ValueError:
            # A damaged manifest is told by `verify`, before anything of the stage is used.
            return True

    @contextlib.contextmanager
    def build(self, stage: Stage, provenance: Mapping[str, object]) -> Iterator[Path]:
        """A folder to fill; it becomes the stage when the block ends, and is removed when the block raises.

        Args:
            stage: What is built.
            provenance: Where and with what it is built; goes into the manifest, not into the hash.
        """
        folder = self.root / f".building-{stage.stage_id}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        (folder / _HEARTBEAT).touch()
        try:
            # Kept to the end: hashing what is large takes longer than a heartbeat may be missing.
            with beating(folder / _HEARTBEAT, HEARTBEAT_S):
                yield folder
                self._commit(stage, folder, provenance)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def verify(self, name: str) -> None:
        """Compares the sizes and hashes of a stage's files with its manifest, as is done before a stage is used again.

        Raises:
            CheckpointError: A file is missing or altered.
        """
        folder = self.root / name
        mend = f" Delete {folder}; the stage is made again."
        try:
            files = dict(json.loads((folder / MANIFEST).read_text())["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"stage {name}: its manifest cannot be read, got {error!r}.{mend}") from error
        for file, expected in files.items():
            path = folder / file
            found = described(path) if path.is_file() else None
            if found != expected:
                raise CheckpointError(
                    f"stage {name}: {file} must be as the manifest says, {expected}, got {found}.{mend}"
                )

    def remove_stale(self) -> list[str]:
        """Removes half-made stages whose builder is dead, and gives their names."""
        removed = []
        for folder in sorted(self.root.glob(".building-*")):
            if _age(folder) > STALE_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder.name)
        return removed

    def _commit(self, stage: Stage, folder: Path, provenance: Mapping[str, object]) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / _HEARTBEAT]
        files = {str(path.relative_to(folder)): described(path) for path in paths}
        manifest = {
            "stage_id": stage.stage_id,
            "kind": stage.kind,
            "settings": stage.settings,
            "inputs": stage.inputs,
            # The sweep's driver may be on another machine.
            "provenance": {**provenance, "host": platform.node()},
            "files": files,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))
        (folder / _HEARTBEAT).unlink(missing_ok=True)
        if self.is_done(stage.stage_id) and not self.is_whole(stage.stage_id):
            # A row without its weights makes room for the same row with them.
            shutil.rmtree(self.path(stage.stage_id))
        try:
            folder.rename(self.path(stage.stage_id))
        except OSError as error:
            # A folder can only be renamed onto an empty one: another builder won, and its content is the same.
            if self.is_done(stage.stage_id):
                return
            if not self.path(stage.stage_id).is_dir():
                raise
            raise CheckpointError(
                f"stage {stage.stage_id}: its folder must have a manifest, got {self.path(stage.stage_id)} without one."
                " Delete it and resume."
            ) from error


def _age(folder: Path) -> float:
    beat = folder / _HEARTBEAT
    try:
        return time.time() - (beat if beat.exists() else folder).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def described(path: Path) -> dict[str, object]:
    """Size and SHA-256 of a file, as manifests have them."""
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
