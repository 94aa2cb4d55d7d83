"""The picture of paired differences."""

import struct
from pathlib import Path

import pytest

from orchestrator.report.curves import Comparison
from orchestrator.report.difference_figure import draw_differences
from slmrec_core.metrics import Verdict


def compared(
    verdict: Verdict = "equal", difference: float = 0.001, name: str = "distill-4 vs finetune-8"
) -> Comparison:
    return Comparison(
        name=name,
        num_seeds=2,
        difference=difference,
        by_seed=(difference - 0.0004, difference + 0.0004),
        low=difference - 0.001,
        high=difference + 0.001,
        p_value=0.2,
        p_value_holm=0.4,
        verdict=verdict,
    )


def picture(folder: Path, *tests: Comparison, title: str = "Which?") -> bytes:
    (path,) = draw_differences(tests, folder, title, "2 seeds.")
    return path.read_bytes()


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_every_test_takes_a_line(tmp_path: Path) -> None:
    (one, two, three) = (size(picture(tmp_path, *[compared()] * count)) for count in (1, 2, 3))
    assert one[0] == two[0] == three[0]
    assert two[1] - one[1] == pytest.approx(three[1] - two[1], abs=1)
    assert two[1] > one[1]


def test_long_names_widen_the_picture(tmp_path: Path) -> None:
    usual, longer = (
        size(picture(tmp_path, compared(name=name)))[0] for name in ("a-4 vs b-4", "a" * 100 + "-4 vs b-4")
    )
    assert longer > usual


def test_the_same_tests_give_the_same_picture_and_others_another(tmp_path: Path) -> None:
    first = picture(tmp_path, compared())
    assert picture(tmp_path, compared()) == first
    for other in (compared("undecided"), compared(difference=0.0011), compared(name="distill-2 vs finetune-8")):
        assert picture(tmp_path, other) != first


@pytest.mark.parametrize("verdict", ["better", "worse", "equal", "undecided"])
@pytest.mark.parametrize("difference", [0.0, 1e-7, -0.3])
def test_any_difference_can_be_drawn(tmp_path: Path, verdict: Verdict, difference: float) -> None:
    picture(tmp_path, compared(verdict, difference))


def test_names_of_a_user_are_no_formulas(tmp_path: Path) -> None:
    picture(tmp_path, compared(name=r"$a_{-4 vs $\frac{-8"), title=r"cost $\frac{")


def test_nothing_compared_draws_nothing(tmp_path: Path) -> None:
    assert draw_differences([], tmp_path / "figures", "t") == []
    assert not (tmp_path / "figures").exists()
