"""Bars are for people: nothing is written where nobody looks."""

import io
import sys

import pytest

from slmrec_core import progress_bar
from slmrec_core.progress_bar import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: pytest puts its own streams back between a fixture and its test."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(progress_bar, "_SHORT_S", 0.0)
    monkeypatch.delenv("SLMREC_QUIET", raising=False)
    return shown


def test_a_terminal_sees_what_is_done_and_the_items_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    assert list(bar(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert "letters" in shown.getvalue()
    assert "0/3" in shown.getvalue()


def test_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    assert list(bar("abc", "letters", 3, shown=False)) == ["a", "b", "c"]
    monkeypatch.setenv("SLMREC_QUIET", "1")
    assert list(bar("abc", "letters", 3)) == ["a", "b", "c"]
    monkeypatch.delenv("SLMREC_QUIET")
    assert shown.getvalue() == ""
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    assert list(bar("abc", "letters", 3)) == ["a", "b", "c"]
    assert plain.getvalue() == ""
