"""Figures: what they contain, and that they need no network."""

import struct
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.report.curves import CurvePoint
from orchestrator.report.figure_style import styles_of, ticks
from orchestrator.report.figures import _MIN_LABEL_GAP, _spread, draw

FRAME = pd.DataFrame(
    {"row": ["finetune"], "num_layers": [4], "params_total": [41_200_000], "users_per_second": [1523.0]}
)


def line(row: str, values: dict[int, float], split: str = "test", several: bool = True) -> list[CurvePoint]:
    return [
        CurvePoint(
            row=row,
            metric=f"{split}/{name}",
            num_layers=depth,
            mean=value,
            sd=0.001 if several else None,
            low=value - 0.002 if several else None,
            high=value + 0.002 if several else None,
            num_seeds=3 if several else 1,
        )
        for name in ("ndcg_at_10", "hit_rate_at_10", "mrr")
        for depth, value in values.items()
    ]


def test_both_figures_are_written(tmp_path: Path) -> None:
    points = [*line("finetune", {1: 0.08, 4: 0.1, 8: 0.11}), *line("sasrec", {1: 0.1, 4: 0.1, 8: 0.1})]
    png, page = draw(points, FRAME, tmp_path / "figures", "How deep?", "3 seeds")
    header = png.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (1620, 972)
    text = page.read_text()
    assert "<script src=" not in text, "the page would be empty without a network"
    assert "41.2 M parameters" in text
    assert "test HR@10" in text


def test_the_same_points_give_the_same_picture(tmp_path: Path) -> None:
    points = line("distill", {1: 0.08, 4: 0.1})
    first, second = (draw(points, FRAME, tmp_path / name, "t")[0].read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("values", [{4: 0.1}, {0: 0.1, 30: 0.1}, {n: 0.01 * n for n in range(31)}])
def test_any_number_of_points_can_be_drawn(tmp_path: Path, values: dict[int, float], several: bool) -> None:
    assert len(draw(line("probe", values, several=several), FRAME, tmp_path, "t", "c")) == 2


def test_names_of_a_user_are_neither_formulas_nor_markup(tmp_path: Path) -> None:
    points = line("distill $a_{ <b>", {1: 0.08, 4: 0.1})
    _, page = draw(points, FRAME, tmp_path, r"cost $\frac{ <script>alert(1)</script>", "$x_{")
    assert "<script>alert" not in page.read_text()


def test_without_test_metrics_the_axis_says_valid(tmp_path: Path) -> None:
    _, page = draw(line("distill", {1: 0.08, 4: 0.1}, split="valid"), FRAME, tmp_path, "t")
    text = page.read_text()
    assert "valid NDCG@10" in text
    assert "test NDCG@10" not in text


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    assert draw([], FRAME, tmp_path / "figures", "t") == []
    assert not (tmp_path / "figures").exists()


def test_rows_keep_apart_in_colour_and_marker() -> None:
    styles = styles_of(["distill", "finetune", "probe", "sasrec", "teacher", "one", "two", "three", "four"])
    assert len({style.color for style in styles.values()}) == 9
    assert len({style.marker for style in styles.values()}) == 9
    assert styles["sasrec"].dash == "dash"


def test_the_deepest_tick_stays() -> None:
    assert ticks([1, 2, 4, 8]) == [1, 2, 4, 8]
    assert ticks(list(range(31)))[-1] == 30
    assert len(ticks(list(range(31)))) <= 21


def test_names_do_not_overlap() -> None:
    heights = _spread([0.5, 0.5, 0.51, 0.9])
    gaps = [b - a for a, b in zip(heights, heights[1:], strict=False)]
    assert min(gaps) >= _MIN_LABEL_GAP - 1e-9
    assert heights[3] == pytest.approx(0.9)
    assert sum(heights[:3]) == pytest.approx(1.51)
