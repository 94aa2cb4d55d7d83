"""Messages of what failed, on disk: a person wants the sentence, not the traceback of a process elsewhere."""

import errno
import json
import logging
import traceback
from pathlib import Path

from slmrec_core.errors import RunError, SLMRecError

logger = logging.getLogger(__name__)
_RAISED = "error.json"


def failure_file(storage: Path, sweep: str, stage_id: str) -> Path:
    """Where a failed stage's message is kept, until it succeeds: the message, an empty line, the traceback."""
    return storage / "sweeps" / sweep / "failures" / f"{stage_id}.txt"


def note_failure(file: Path, error: Exception) -> None:
    """Keeps the message and the traceback of a failed stage."""
    file.parent.mkdir(parents=True, exist_ok=True)
    message = describe(error)
    file.write_text(f"{message}\n\n{''.join(traceback.format_exception(error))}")


def describe(error: BaseException) -> str:
    """One sentence for people: our own messages as they are, a full disk by name, others with their type."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"storage: the disk is full, got {error}. Free some space and resume; finished stages are kept."
    return str(error) if isinstance(error, SLMRecError) else f"{type(error).__name__}: {error}"


def read_failure(file: Path) -> str | None:
    """The message alone; None = there is none."""
    return file.read_text().partition("\n\n")[0] if file.is_file() else None


def note_raised(folder: Path, error: Exception) -> None:
    """Notes in a stage's folder what a worker raised: the same would happen again."""
    text = json.dumps({"message": describe(error)})
    try:
        (folder / _RAISED).write_text(text)
    except OSError as refused:
        # On a full disk not even this can be written; what was raised first says so too.
        logger.warning("%s: could not be noted, got %s.", describe(error), refused)


def raise_noted(folder: Path) -> None:
    """Raises what a worker of this stage raised on purpose, if one did.

    Raises:
        RunError: With the worker's message.
    """
    if (file := folder / _RAISED).is_file():
        raise RunError(json.loads(file.read_text())["message"])
