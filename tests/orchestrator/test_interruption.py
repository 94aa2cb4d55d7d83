"""SIGINT and SIGTERM, whichever handler they reach."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from orchestrator.interruption import Interrupted, Interruption


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_and_the_next_ones_do_nothing(number: signal.Signals) -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted) as caught, interruption.listening():
        os.kill(os.getpid(), number)
    assert interruption.notice(caught.value) == number
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_signal_the_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_while_ray_starts_counts_as_the_signal() -> None:
    # Ray's own handler was taken for a failure: no resume command, runs FAILED instead of KILLED.
    interruption = Interruption()

    def start_ray() -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught, interruption.listening():
        start_ray()
    assert interruption.notice(caught.value) == signal.SIGTERM
    with pytest.raises(Interrupted):
        interruption.check()
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit(None), RuntimeError("15")])
def test_other_endings_are_no_signal(error: BaseException) -> None:
    assert Interruption().notice(error) is None
