"""SIGINT and SIGTERM, so that a sweep can say how to go on before it ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The user, or `ray job stop`, ended the sweep; not an `Exception`, so that nothing catches it by accident."""


class Interruption:
    """Knows whether a signal has come.

    The handler raises `Interrupted` in the main thread, but where Ray waits in its own code that may come out as
    another exception, or not at all: whoever catches something asks `signal_number`.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles both signals for the length of the block; after the first, further ones are ignored."""

        def handle(number: int, frame: FrameType | None) -> None:
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, signal.SIG_IGN)
            self.signal_number = number
            raise Interrupted

        earlier = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come that something swallowed."""
        if self.signal_number is not None:
            raise Interrupted
