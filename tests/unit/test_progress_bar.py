"""Bars are for people: nothing is written where nobody looks."""

import io
import sys
from functools import partial
from pathlib import Path

import pyarrow
import pytest

from slmrec_core import progress_bar
from slmrec_core.data import load_interactions, synthetic_interactions
from slmrec_core.progress_bar import bar, bar_over_file, unshown_bars


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


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.csv.zst", "log.json", "log.json.gz"])
def test_who_reads_a_large_file_sees_how_far(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = synthetic_interactions()
    text = log.to_json(orient="records", lines=True) if ".json" in name else log.to_csv(index=False)
    # The name tells how it is packed.
    with pyarrow.output_stream(str(tmp_path / name)) as stream:
        stream.write(text.encode())
    shown = terminal(monkeypatch)
    assert len(load_interactions(tmp_path / name)) == len(log)
    assert f"{name}:   0%" in shown.getvalue()
    monkeypatch.setenv("SLMREC_QUIET", "1")
    before = shown.getvalue()
    assert len(load_interactions(tmp_path / name)) == len(log)
    assert shown.getvalue() == before


def test_a_bar_over_a_file_counts_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    monkeypatch.setattr(progress_bar, "tqdm", partial(progress_bar.tqdm, mininterval=0.0))
    with bar_over_file(io.BytesIO(bytes(3_000)), "log", 4_000) as file:
        assert file.read(1_000) + file.read() == bytes(3_000)
    assert "75%" in shown.getvalue()


def test_bars_of_others_are_shown_where_ours_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown = terminal(monkeypatch)
    for quiet, told in (("0", True), ("1", False)):
        monkeypatch.setenv("SLMREC_QUIET", quiet)
        with unshown_bars():
            sys.stderr.write("a bar")
        assert ("a bar" in shown.getvalue()) == told
        shown.truncate(0)
    monkeypatch.setenv("SLMREC_QUIET", "0")
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    with caplog.at_level("DEBUG", logger=progress_bar.__name__), unshown_bars():
        sys.stderr.write("a bar")
    assert plain.getvalue() == ""
    assert "a bar" in caplog.text


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
