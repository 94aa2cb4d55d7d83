"""What both drawings of a curve share: colours, markers, ticks and labels.

Colours are Okabe and Ito's, which remain distinct with any kind of colour blindness; every row also has its own marker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from orchestrator.report.curves import CurvePoint

Lines = Mapping[str, Sequence[CurvePoint]]
"""Points of one metric by row, each from shallow to deep."""

METRIC_LABELS = {"ndcg_at_10": "NDCG@10", "hit_rate_at_10": "HR@10"}

INK, MUTED, BASELINE, GRID = "#1f2933", "#66717d", "#b8c0c8", "#e4e7eb"


@dataclass(frozen=True)
class Style:
    """How a row is drawn, everywhere."""

    color: str
    marker: str
    """In matplotlib's words; empty = the line alone."""
    symbol: str
    """The same in plotly's words."""
    dash: str = "solid"


_STYLES = {
    "distill": Style("#d55e00", "o", "circle"),
    "finetune": Style("#0072b2", "s", "square"),
    "probe": Style("#009e73", "^", "triangle-up"),
    "sasrec": Style(MUTED, "", "circle", dash="dash"),
    "teacher": Style("#3a2a78", "D", "diamond"),
}
_OTHERS = (
    Style("#cc79a7", "v", "triangle-down"),
    Style("#e69f00", "P", "cross"),
    Style("#56b4e9", "X", "x"),
    Style("#8c564b", "h", "hexagon"),
)


def styles_of(rows: Sequence[str]) -> dict[str, Style]:
    """The usual style of the usual rows; others take the remaining colours in turn."""
    others = cycle(_OTHERS)
    return {row: _STYLES.get(row) or next(others) for row in rows}


def axis_label(lines: Lines) -> str:
    """For instance `test NDCG@10`."""
    split, name = next(iter(lines.values()))[0].metric.split("/")
    return f"{split} {METRIC_LABELS[name]}"


def ticks(depths: list[int]) -> list[int]:
    """Every depth that was run, thinned where labels would touch; the deepest always stays."""
    kept = [depths[-1]]
    for depth in reversed(depths[:-1]):
        if kept[-1] - depth >= (depths[-1] - depths[0]) / 20:
            kept.append(depth)
    return kept[::-1]


def band(points: Sequence[CurvePoint]) -> tuple[list[int], list[float], list[float]]:
    """Depths, lower and upper ends of those points that have an interval."""
    known = [(p.num_layers, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    return [x for x, _, _ in known], [low for _, low, _ in known], [high for _, _, high in known]


def plain(name: str) -> str:
    """A name that a user chose, as text: its dollar signs are no formulas."""
    return name.replace("$", r"\$")
