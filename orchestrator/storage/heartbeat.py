"""A file whose time shows that a process is still at work."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def beating(file: Path, every_s: float) -> Iterator[None]:
    """Renews the time of a file for the length of the block.

    Args:
        file: Is there. It may be renamed or removed with its folder; there is nothing left to keep alive then.
        every_s: Seconds between two beats.
    """
    stop = threading.Event()

    def beat() -> None:
        is_told = False
        while not stop.wait(every_s):
            try:
                os.utime(file)
            except FileNotFoundError:
                continue
            except OSError as error:
                # A mount that stumbles comes back; a thread that ended would not.
                if not is_told:
                    logger.warning("%s: the heartbeat cannot be written, got %s. It is tried again.", file, error)
                is_told = True

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
