"""Paired differences, one line for each test: what the eye should compare where depth is not the question."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.curves import Comparison
from orchestrator.report.figure_style import BASELINE, GRID, INK, MUTED, plain
from slmrec_core.metrics import EQUAL_MARGIN, Verdict

DIFFERENCES = "differences.png"
"""Name of the figure."""

_COLORS: dict[Verdict, str] = {"better": "#0072b2", "worse": "#d55e00", "equal": INK, "undecided": MUTED}
"""Okabe and Ito's, as in the other figures."""
_LINE_INCHES, _PLOT_INCHES, _VERDICT_INCHES = 0.46, 5.4, 1.0
_WIDTH_INCHES = 9.0
"""At least; long names widen the picture."""
_EDGE_INCHES, _TOP_INCHES, _BOTTOM_INCHES = 0.3, 1.1, 0.8
_CHARACTER_INCHES = 0.1
"""Width of a name's characters, a little more than they take on average."""
_POINTS_PER_INCH = 72
_SEED_HEIGHT = 0.2
"""Of the marks of single seeds, as a share of a line."""
_CAPTION_WIDTH = 112


def draw_differences(tests: Sequence[Comparison], folder: Path, title: str, caption: str = "") -> list[Path]:
    """Draws every paired test of a sweep: difference in test NDCG@10, its 95 % interval, each seed, and the verdict.

    Args:
        tests: From `curves.paired_comparisons`, drawn from top to bottom.
        folder: Made if it is not there.
        title: One line.
        caption: What the differences are of.

    Returns:
        The figure; nothing where nothing was compared.
    """
    if not tests:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    height = _TOP_INCHES + _BOTTOM_INCHES + _LINE_INCHES * len(tests)
    names = _EDGE_INCHES + _CHARACTER_INCHES * _longest(tests)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        width = max(_WIDTH_INCHES, names + _PLOT_INCHES + _VERDICT_INCHES)
        figure = Figure(figsize=(width, height), dpi=180, facecolor="white")
        FigureCanvasAgg(figure)
        left, right = names / width, _VERDICT_INCHES / width
        bottom, lines = _BOTTOM_INCHES / height, _LINE_INCHES * len(tests) / height
        axes = figure.add_axes((left, bottom, 1 - left - right, lines))
        _dress(axes, tests)
        for place, test in enumerate(tests):
            _draw_line(axes, place, test)
        edge = _EDGE_INCHES / width
        figure.text(edge, 1 - 0.42 / height, title, fontsize=15, fontweight="bold", parse_math=False)
        told = "Dots are means, lines 95 % intervals, ticks single seeds; differences within the band do not matter."
        text = fill(f"{caption} {told}".strip(), _CAPTION_WIDTH)
        figure.text(
            edge, 1 - 0.55 / height, text, fontsize=10, color=MUTED, va="top", linespacing=1.4, parse_math=False
        )
        path = folder / DIFFERENCES
        figure.savefig(path, metadata={"Software": None})
    return [path]


def _draw_line(axes: Axes, place: int, test: Comparison) -> None:
    color = _COLORS[test.verdict]
    axes.hlines(place, test.low, test.high, color=color, linewidth=2.2, zorder=2)
    axes.vlines(test.by_seed, place - _SEED_HEIGHT, place + _SEED_HEIGHT, color=color, alpha=0.55, linewidth=1.2)
    # What nothing can be said of stays empty.
    filling = "white" if test.verdict == "undecided" else color
    axes.scatter(test.difference, place, s=62, facecolor=filling, edgecolor=color, linewidth=1.6, zorder=3)
    axes.annotate(
        test.verdict,
        xy=(1.02, place),
        xycoords=("axes fraction", "data"),
        color=color,
        fontweight="bold",
        va="center",
        annotation_clip=False,
    )


def _dress(axes: Axes, tests: Sequence[Comparison]) -> None:
    axes.axvspan(-EQUAL_MARGIN, EQUAL_MARGIN, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0, color=BASELINE, linewidth=1.2, zorder=1)
    reach = max(abs(end) for test in tests for end in (test.low, test.high, *test.by_seed, EQUAL_MARGIN)) * 1.08
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(tests) - 0.5, -0.5)
    axes.set_yticks(range(len(tests)), [plain(test.name) for test in tests], ha="left")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(BASELINE)
    axes.tick_params(length=0, colors=MUTED, labelsize=10)
    # Names begin where the title does.
    axes.tick_params(axis="y", labelcolor=INK, pad=_POINTS_PER_INCH * _CHARACTER_INCHES * _longest(tests))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if abs(value) > EQUAL_MARGIN * 1e-6 else "0")
    axes.set_xlabel("difference in test NDCG@10: right of 0 the first is better", labelpad=8)


def _longest(tests: Sequence[Comparison]) -> int:
    return max(len(test.name) for test in tests)
