"""Quality against cost: the front is what its definition says, and the picture is drawn from what was measured."""

from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.cost_figure import draw_costs, pareto_front
from orchestrator.report.curves import CurvePoint
from orchestrator.report.figures import draw

FEW = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(FEW, FEW), min_size=1, max_size=12))
def test_the_front_is_all_that_no_other_beats(models: list[tuple[float, float]]) -> None:
    quality, cost = zip(*models, strict=True)
    front = pareto_front(quality, cost)
    # The slow way, from the definition.
    beaten = [
        any(q >= quality[i] and c <= cost[i] and (q, c) != (quality[i], cost[i]) for q, c in models)
        for i in range(len(models))
    ]
    assert sorted(front) == [index for index, is_beaten in enumerate(beaten) if not is_beaten]
    assert [cost[index] for index in front] == sorted(cost[index] for index in front)


ROWS = {"teacher_float": (8, 50.0e6, 0.11), "teacher_int8": (8, 25.0e6, 0.11), "finetuned_int4": (4, 8.0e6, 0.09)}


def points(several: bool = True) -> list[CurvePoint]:
    low, high = (0.01, 0.2) if several else (None, None)
    return [
        CurvePoint(row, "test/ndcg_at_10", layers, quality, None, low, high, 3 if several else 1)
        for row, (layers, _, quality) in ROWS.items()
    ]


def frame(compressed: bool = True) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": list(ROWS),
            "num_layers": [layers for layers, _, _ in ROWS.values()],
            "compressed": compressed,
            "model_bytes": [size for _, size, _ in ROWS.values()],
            "users_per_second": [100.0, 90.0, 200.0],
            "test/ndcg_at_10": [quality for _, _, quality in ROWS.values()],
        }
    )


def test_compressed_models_are_drawn_by_cost_and_not_by_depth(tmp_path: Path) -> None:
    for several in (True, False):
        (png,) = draw_costs(points(several), frame(), tmp_path / str(several), "compression $x_{", "3 seeds")
        assert png.read_bytes().startswith(b"\x89PNG")
    assert draw(points(), frame(), tmp_path / "depth", "t") == []
    one, other = (draw_costs(points(), frame(), tmp_path / name, "t")[0].read_bytes() for name in "ab")
    assert one == other


def test_without_compressed_models_nothing_is_drawn(tmp_path: Path) -> None:
    for table in (frame(compressed=False), frame().drop(columns="compressed"), frame()[:1]):
        assert draw_costs(points(), table, tmp_path / "figures", "t") == []
    assert draw_costs(points(), frame().drop(columns="test/ndcg_at_10"), tmp_path / "figures", "t") == []
    assert not (tmp_path / "figures").exists()
