"""What every benchmark shares: its size, interleaved repeats, a table for people and a JSON line for programs.

A machine swings by a factor of three within minutes, so absolute seconds mean little: the alternative and ours take
turns in one process run, and a figure is the ratio of their medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import torch

from orchestrator.console import say
from orchestrator.provenance import provenance
from slmrec_core.hardware import hardware_name

Size = Literal["smallest", "short", "full"]
"""`smallest`: seconds, for a test; `short`: what `make bench` runs; `full`: what README.md reports."""


@dataclass(frozen=True)
class Goal:
    """A figure that a subject must reach."""

    name: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_reached(self) -> bool:
        """True = the figure is within its bound."""
        return (self.at_least is None or self.measured >= self.at_least) and (
            self.at_most is None or self.measured <= self.at_most
        )

    def describe(self) -> str:
        """For people: the figure, its bound, and whether it holds."""
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        return f"{self.name}: {self.measured:.4g} (must be {bound}: {'reached' if self.is_reached else 'NOT reached'})"


@dataclass
class Report:
    """What one run of a benchmark found."""

    subject: str
    size: Size
    repeats: int
    settings: dict[str, object] = field(default_factory=dict)
    """What was measured: shapes, data, threads."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """One for each candidate, all with the same columns."""
    goals: list[Goal] = field(default_factory=list)

    def publish(self) -> None:
        """Prints the table, the goals and, as the last line, all of it as JSON."""
        say(f"{self.subject} ({self.size}, medians of {self.repeats})")
        say(_table(self.rows))
        for goal in self.goals:
            say(goal.describe())
        say(json.dumps(self.to_dict()))

    def to_dict(self) -> dict[str, object]:
        """As JSON values, with date, host and versions."""
        return {
            "benchmark": self.subject,
            "size": self.size,
            "repeats": self.repeats,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": self.settings,
            "rows": self.rows,
            "goals": [
                {
                    "name": goal.name,
                    "measured": goal.measured,
                    "at_least": goal.at_least,
                    "at_most": goal.at_most,
                    "reached": goal.is_reached,
                }
                for goal in self.goals
            ],
            "cores": len(os.sched_getaffinity(0)),
            "cpu": hardware_name(torch.device("cpu")),
            **provenance(),
        }


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of every benchmark: `--size`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=("smallest", "short", "full"), default="full")
    return parser.parse_args()


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int, warmups: int = 1) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, so that a busy minute hits all of them.

    Args:
        candidates: What is timed, by name.
        repeats: Timed turns.
        warmups: Turns before them that are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmups + repeats):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if turn >= warmups:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _table(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
