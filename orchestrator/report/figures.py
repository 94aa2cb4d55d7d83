"""Depth against ranking quality, as a PNG for a paper and as an HTML page that answers to the mouse.

Both are drawn from the same `CurvePoint`s.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orchestrator.report.curves import CurvePoint, compressed_rows
from orchestrator.report.figure_page import save_page
from orchestrator.report.figure_style import (
    BASELINE,
    GRID,
    INK,
    METRIC_LABELS,
    MUTED,
    Lines,
    Style,
    axis_label,
    band,
    styles_of,
    ticks,
)

CURVE = "depth_ndcg_at_10.png"
"""Name of the PNG."""

_MIN_LABEL_GAP = 0.052
"""Between two names beside their lines, as a share of the axis height."""
_CAPTION_WIDTH = 112
"""Characters that fit into one line under the title."""


def draw(
    points: Sequence[CurvePoint],
    frame: pd.DataFrame,
    folder: Path,
    title: str,
    caption: str = "",
    interactive: bool = True,
) -> list[Path]:
    """Draws depth against NDCG@10 (PNG) and against NDCG@10 and HR@10 (HTML, which needs no network).

    The test split is drawn; a search whose test split stayed closed is drawn on valid, and the axis says so.

    Args:
        points: From `curves.curves`.
        frame: From `results.collect`; gives sizes and speeds to the page's tooltips.
        folder: Made if it is not there.
        title: One line.
        caption: Data set, seeds, users, and how large a difference must be to mean anything.
        interactive: False = the PNG alone; the HTML page takes 5 MB.

    Returns:
        Paths of the figures; none when nothing was measured, or compressed models alone.
    """
    others = compressed_rows(frame)
    drawn = {name: _lines([p for p in points if p.row not in others], name) for name in METRIC_LABELS}
    if not drawn["ndcg_at_10"]:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    png, page = folder / CURVE, folder / "depth.html"
    _save_png(drawn["ndcg_at_10"], png, title, caption)
    if not interactive:
        return [png]
    save_page(drawn, frame, page, title, caption)
    return [png, page]


def _lines(points: Sequence[CurvePoint], name: str) -> Lines:
    """Points of one metric by row, each from shallow to deep."""
    for split in ("test", "valid"):
        chosen = [point for point in points if point.metric == f"{split}/{name}"]
        if chosen:
            rows = sorted({point.row for point in chosen})
            return {row: sorted((p for p in chosen if p.row == row), key=lambda p: p.num_layers) for row in rows}
    return {}


def _save_png(lines: Lines, path: Path, title: str, caption: str) -> None:
    # Not pyplot: its figures are global, and it would choose a window system by itself.
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 11, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(9, 5.4), dpi=180, facecolor="white")
        FigureCanvasAgg(figure)
        names = max(map(len, lines))
        axes = figure.add_axes((0.085, 0.125, 0.87 - max(0.115, 0.0125 * names), 0.69))
        styles = styles_of(list(lines))
        for row, row_points in lines.items():
            _draw_line(axes, row_points, styles[row])
        _dress(axes, lines)
        _name_lines(axes, lines, styles)
        # Names that a user chose may hold dollar signs: they are not formulas.
        figure.text(0.085, 0.925, title, fontsize=15, fontweight="bold", parse_math=False)
        wrapped = fill(caption, _CAPTION_WIDTH)
        figure.text(0.085, 0.9, wrapped, fontsize=10, color=MUTED, va="top", linespacing=1.4, parse_math=False)
        figure.savefig(path, metadata={"Software": None})


def _draw_line(axes: Axes, points: Sequence[CurvePoint], style: Style) -> None:
    depths, means = [p.num_layers for p in points], [p.mean for p in points]
    x, low, high = band(points)
    if len(x) > 1:
        axes.fill_between(x, low, high, color=style.color, alpha=0.13, linewidth=0)
    elif x:
        axes.vlines(x, low, high, color=style.color, alpha=0.4, linewidth=2)
    axes.plot(
        depths,
        means,
        color=style.color,
        linewidth=1.6 if style.dash == "dash" else 2.2,
        linestyle=(0, (5, 3)) if style.dash == "dash" else "-",
        marker=style.marker,
        markersize=7.5,
        markeredgecolor="white",
        markeredgewidth=1.4,
        solid_capstyle="round",
        zorder=3,
        clip_on=False,
    )


def _dress(axes: Axes, lines: Lines) -> None:
    depths = sorted({p.num_layers for points in lines.values() for p in points})
    axes.set_xticks(ticks(depths))
    margin = 0.03 * (depths[-1] - depths[0]) or 0.5
    axes.set_xlim(depths[0] - margin, depths[-1] + margin)
    axes.margins(y=0.1)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(BASELINE)
    axes.tick_params(length=0, colors=MUTED, labelsize=10)
    axes.set_xlabel("decoder layers", labelpad=8)
    axes.set_ylabel(axis_label(lines), labelpad=8)


def _name_lines(axes: Axes, lines: Lines, styles: dict[str, Style]) -> None:
    """Names at the right edge, at the height of each line's last point, moved apart where they would overlap."""
    (_, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wanted = sorted((points[-1].mean - bottom) / (top - bottom) for points in lines.values())
    rows = sorted(lines, key=lambda row: lines[row][-1].mean)
    for row, height, target in zip(rows, _spread(wanted), wanted, strict=True):
        style, last = styles[row], lines[row][-1]
        # A row that was not run at every depth ends early; the dots lead the eye to its name.
        axes.plot([last.num_layers, right], [last.mean] * 2, color=style.color, lw=1, ls=":", alpha=0.6, zorder=1)
        axes.annotate(
            row,
            xy=(1.0, target),
            xytext=(1.035, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=style.color,
            fontsize=11,
            fontweight="bold",
            va="center",
            annotation_clip=False,
            parse_math=False,
        )
        axes.plot(
            [1.005, 1.028],
            [target, height],
            transform=axes.transAxes,
            color=style.color,
            lw=1,
            alpha=0.5,
            clip_on=False,
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """Ascending heights at least `_MIN_LABEL_GAP` apart, each group centred on where its members want to be."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _edges(groups[-2])[1] + _MIN_LABEL_GAP > _edges(groups[-1])[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_edges(group)[0] + index * _MIN_LABEL_GAP for group in groups for index in range(len(group))]


def _edges(group: Sequence[float]) -> tuple[float, float]:
    centre, half = sum(group) / len(group), _MIN_LABEL_GAP * (len(group) - 1) / 2
    return centre - half, centre + half
