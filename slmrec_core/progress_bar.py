"""Bars over long work, for people at a terminal; `SLMREC_QUIET=1` turns them off."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger(__name__)

QUIET = "SLMREC_QUIET"
_SHORT_S = 1.0
Item = TypeVar("Item")


def bar(items: Iterable[Item], what: str, total: int, shown: bool = True) -> Iterable[Item]:
    """The same items; a bar on standard error counts them, if that is a terminal and they take more than a second.

    Args:
        items: Any.
        what: They are, at the left of the bar.
        total: How many.
        shown: False = another process shows it.
    """
    return tqdm(items, what, total, leave=False, delay=_SHORT_S, disable=_off(shown))


@contextmanager
def bar_over_file(file: io.BufferedIOBase, what: str, size: int) -> Iterator[io.BufferedIOBase]:
    """The rest of a file; a bar counts the bytes that are read from it, as `bar` counts items.

    Args:
        file: Open for reading.
        what: It is, at the left of the bar.
        size: Its bytes.
    """
    counting = tqdm(None, what, size, leave=False, delay=_SHORT_S, disable=_off(True), unit="B", unit_scale=True)
    with counting as shown:
        yield io.BufferedReader(_Counted(file, shown.update))


@contextmanager
def unshown_bars() -> Iterator[None]:
    """Keeps what other libraries write on standard error, their bars above all, from where ours would not be.

    What was kept back is logged, level DEBUG.
    """
    if sys.stderr.isatty() and not _off(True):
        yield
        return
    kept = io.StringIO()
    try:
        with redirect_stderr(kept):
            yield
    finally:
        if text := kept.getvalue().strip():
            logger.debug("Not shown on standard error: %s", text)


class _Counted(io.RawIOBase):
    """Tells how many bytes were read."""

    def __init__(self, file: io.BufferedIOBase, tell: Callable[[int], object]) -> None:
        self._file, self._tell = file, tell

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._file.readinto(buffer)
        self._tell(count)
        return count


def _off(shown: bool) -> bool | None:
    """For tqdm, whose None is: off unless standard error is a terminal."""
    return True if not shown or os.environ.get(QUIET) == "1" else None
