"""SIGINT and SIGTERM, so that a sweep can say how to go on before it ends."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user, or `ray job stop`, ended the sweep; not an `Exception`, so that nothing catches it by accident.

    Ray's own waits let nothing through but a KeyboardInterrupt: anything else comes out as an `Exception`, upon which
    Tune gives its trials ten seconds to end, while `ray job stop` gives three.
    """


class Interruption:
    """Knows whether a signal has come.

    The handler raises `Interrupted` in the main thread, but what comes out of Ray may be another exception, or none at
    all: whoever catches something calls `notice`, whoever has waited calls `check`.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles both signals for the length of the block; after the first, further ones are ignored."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._take(number)
            raise Interrupted

        earlier = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            # The process is about to end: another signal would only cut short how it does.
            if self.signal_number is None:
                for number, handler in earlier.items():
                    signal.signal(number, handler)

    def notice(self, error: BaseException) -> int | None:
        """The signal behind what was caught, whoever handled it; None = there was none.

        Ray puts a handler of its own in the place of ours while it starts: on SIGTERM it raises SystemExit(15).
        """
        if self.signal_number is None:
            if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
                self._take(signal.SIGTERM)
            elif isinstance(error, KeyboardInterrupt):
                self._take(signal.SIGINT)
        return self.signal_number

    def _take(self, number: int) -> None:
        for name in SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        self.signal_number = number

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come that something swallowed."""
        if self.signal_number is not None:
            raise Interrupted


@contextmanager
def handed_on(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Hands both signals on to a sweep that this process waits for, so that neither outlives the other.

    Ctrl-C reaches a sweep of the same terminal by itself as well, `kill` does not; it takes the first and no other.
    """
    earlier = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
