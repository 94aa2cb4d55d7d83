"""Every exception this project raises.

SLMRecError
├── UserError (ValueError)            what the caller must mend before anything can run; the command line exits 2
│   ├── ConfigError                   a setting that cannot be
│   ├── DataError                     a file or table that cannot be read or used
│   ├── DownloadError                 a file that could not be fetched whole
│   └── TeacherStudentMismatchError   two models that cannot be aligned
└── RunError (RuntimeError)           a run that failed; the command line exits 1
    ├── CheckpointError               a stage, checkpoint or model directory that is damaged
    ├── DivergedError                 a loss or score that is not a number
    └── TrialFailedError              a trial of a sweep that ended with an error

Each takes one positional message, so that it survives pickling between processes. The message has one form:
`<where>: <what is wrong>, got <value>. <How to mend it.>`
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SLMRecError(Exception):
    """Base of everything raised on purpose."""


class UserError(SLMRecError, ValueError):
    """What the caller must mend before anything can run; the command line exits 2."""


class ConfigError(UserError):
    """A setting that cannot be."""


class DataError(UserError):
    """A file or table that cannot be read or used."""


class TeacherStudentMismatchError(UserError):
    """Two models that cannot be aligned."""


class RunError(SLMRecError, RuntimeError):
    """A run that failed; the command line exits 1."""


class CheckpointError(RunError):
    """A stage, checkpoint or model directory that is damaged."""


class DownloadError(UserError):
    """A file that could not be fetched whole."""


class DivergedError(RunError):
    """A loss or score that is not a number."""


class TrialFailedError(RunError):
    """A trial of a sweep that ended with an error."""


_LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """A value as a message has it: its `repr`, cut where it is long, for a cell may have millions of characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?` for the known name closest to `name`, or the sorted list of all known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
