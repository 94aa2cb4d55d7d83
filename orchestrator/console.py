"""What a person sees in the terminal: plain lines, flushed, fit for a log file as well."""

import os
import sys
import time

from slmrec_core.progress_bar import QUIET

_started = time.monotonic()


def say(text: str) -> None:
    """A line on standard output."""
    print(text, flush=True)


def progress(text: str) -> None:
    """A line with the time since the start; left out where `SLMREC_QUIET=1`."""
    if os.environ.get(QUIET) == "1":
        return
    minutes, seconds = divmod(int(time.monotonic() - _started), 60)
    print(f"[{minutes:3d}:{seconds:02d}] {text}", flush=True)


def complain(text: str) -> None:
    """A message on standard error."""
    print(text, file=sys.stderr, flush=True)
