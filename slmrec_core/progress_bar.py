"""Bars over long work, for people at a terminal; `SLMREC_QUIET=1` turns them off."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

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
    hidden = not shown or os.environ.get(QUIET) == "1"
    # None = off unless standard error is a terminal.
    return tqdm(items, what, total, leave=False, delay=_SHORT_S, disable=True if hidden else None)
