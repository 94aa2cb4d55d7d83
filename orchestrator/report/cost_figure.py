"""Ranking quality against what a compressed model costs, with the front of those that no other beats in both."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from orchestrator.report.curves import CurvePoint, compressed_rows, row_groups
from orchestrator.report.figure_style import BASELINE, GRID, INK, MUTED, plain, styles_of

_METRIC = "test/ndcg_at_10"
_CAPTION_WIDTH = 150
_COSTS = {
    "model_bytes": ("weights on disk, MiB", 2**20, False),
    "users_per_second": ("users ranked per second", 1.0, True),
}
"""Column of the result table: what the axis says, its unit, and whether more is better."""


def draw_costs(
    points: Sequence[CurvePoint], frame: pd.DataFrame, folder: Path, title: str, caption: str = ""
) -> list[Path]:
    """Draws test NDCG@10 of compressed models against their size and against their speed.

    Args:
        points: From `curves.curves`.
        frame: From `results.collect`.
        folder: Made if it is not there.
        title: One line.
        caption: Data set, seeds, users.

    Returns:
        The figure; nothing where fewer than two compressed models were measured.
    """
    if _METRIC not in frame:
        return []
    measured = frame[frame["row"].isin(compressed_rows(frame)) & frame[_METRIC].notna()]
    table = pd.DataFrame(
        {"row": row, "layers": layers, **{cost: group[cost].astype(float).mean() for cost in _COSTS}}
        for row, layers, group in row_groups(measured)
    )
    if len(table) < 2:
        return []
    known = {(point.row, point.num_layers): point for point in points if point.metric == _METRIC}
    drawn = [known[row, layers] for row, layers in zip(table["row"], table["layers"], strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(13, 5.8), dpi=160, facecolor="white")
        FigureCanvasAgg(figure)
        marks = _Marks(drawn)
        panels = [figure.add_axes((place, 0.12, 0.37, 0.68)) for place in (0.065, 0.475)]
        for panel, cost in zip(panels, _COSTS, strict=True):
            _panel(panel, drawn, table[cost].to_numpy(), cost, marks)
        panels[0].set_ylabel("test NDCG@10", labelpad=6)
        marks.name(figure.add_axes((0.865, 0.12, 0.13, 0.68)))
        figure.text(0.06, 0.935, title, fontsize=15, fontweight="bold", parse_math=False)
        text = fill(f"{caption} The line joins the models that no other beats in both.".strip(), _CAPTION_WIDTH)
        figure.text(0.06, 0.91, text, fontsize=10, color=MUTED, va="top", linespacing=1.4, parse_math=False)
        path = folder / "quality_cost.png"
        figure.savefig(path, metadata={"Software": None})
    return [path]


def pareto_front(quality: Sequence[float], cost: Sequence[float]) -> list[int]:
    """Those that no other equals or beats in both and beats in one: higher quality, lower cost; cheapest first."""
    order = sorted(range(len(quality)), key=lambda index: (cost[index], -quality[index]))
    front: list[int] = []
    for index in order:
        is_twin = bool(front) and (quality[index], cost[index]) == (quality[front[-1]], cost[front[-1]])
        if not front or quality[index] > quality[front[-1]] or is_twin:
            front.append(index)
    return front


def _panel(axes: Axes, points: Sequence[CurvePoint], costs: np.ndarray, cost: str, style: "_Marks") -> None:
    label, unit, more_is_better = _COSTS[cost]
    x, y = costs / unit, [point.mean for point in points]
    front = pareto_front(y, [-value if more_is_better else value for value in x])
    axes.plot(x[front], [y[index] for index in front], color=BASELINE, linewidth=1.6, zorder=1)
    for index, point in enumerate(points):
        color, marker = style.of(point)
        if point.low is not None and point.high is not None:
            axes.vlines(x[index], point.low, point.high, color=color, alpha=0.3, linewidth=2)
        axes.scatter(x[index], y[index], s=60, color=color, marker=marker, edgecolor="white", linewidth=0.8, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08, y=0.08)
    axes.grid(color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(BASELINE)
    axes.tick_params(which="both", length=0, colors=MUTED, labelsize=9)
    axes.set_xlabel(f"{label} ({'right' if more_is_better else 'left'} is better)", labelpad=6)


class _Marks:
    """A colour for each trained model, a marker for each way to make it smaller: `<model>_<way>` is a row's name."""

    def __init__(self, points: Sequence[CurvePoint]) -> None:
        names = [_parts(point) for point in points]
        self._colors = {n: style.color for n, style in styles_of(sorted({model for model, _ in names})).items()}
        ways = list(dict.fromkeys(way for _, way in names))
        self._markers = dict(zip(ways, cycle("osD^vXP<>h"), strict=False))

    def of(self, point: CurvePoint) -> tuple[str, str]:
        """Colour and marker."""
        model, way = _parts(point)
        return self._colors[model], self._markers[way]

    def name(self, axes: Axes) -> None:
        """Two columns of names beside the panels."""
        axes.axis("off")
        handles = [Line2D([], [], color=c, marker="o", ls="", label=plain(name)) for name, c in self._colors.items()]
        handles += [Line2D([], [], color="none", label=" ")]
        handles += [Line2D([], [], color=MUTED, marker=m, ls="", label=plain(way)) for way, m in self._markers.items()]
        axes.legend(handles=handles, loc="center left", frameon=False, fontsize=9, labelspacing=0.7)


def _parts(point: CurvePoint) -> tuple[str, str]:
    model, _, way = point.row.partition("_")
    return model, way or "as it is"
