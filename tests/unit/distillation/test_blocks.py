"""Laws of the pairing of student and teacher layers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmrec_core.distillation.blocks import BlockPairing, pair_blocks
from slmrec_core.errors import ConfigError


def test_thirty_layers_on_four_blocks_as_the_design_works_them_out() -> None:
    # 7.5, 15, 22.5 and 30, halves rounded up.
    assert pair_blocks(4, 30, 4) == BlockPairing((1, 2, 3, 4), (8, 15, 23, 30))


def test_the_papers_depths() -> None:
    assert pair_blocks(4, 8, 4) == BlockPairing((1, 2, 3, 4), (2, 4, 6, 8))
    assert pair_blocks(8, 32, 4) == BlockPairing((2, 4, 6, 8), (8, 16, 24, 32))
    assert pair_blocks(8, 4, 4).teacher_layers == (1, 2, 3, 4)


def test_heads_sit_at_the_ends_of_inner_blocks_where_the_alignment_is() -> None:
    # Fault 8 of the authors' code: heads at floor((N+1)/B)·k, alignment at floor(N/B)·k, which differ for N = 3, B = 2.
    pairing = pair_blocks(7, 14, 1)
    assert (pairing.student_layers, pairing.supervised_layers) == ((7,), ())
    assert pair_blocks(6, 12, 3).supervised_layers == (2, 4)


def test_without_a_number_blocks_are_four_or_the_depth() -> None:
    assert [pair_blocks(n, 8, None).num_blocks for n in (1, 2, 3, 4, 8)] == [1, 2, 3, 4, 4]


def test_a_number_that_does_not_divide_lists_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"student\.num_layers=6, got 4\. Use one of \[1, 2, 3, 6\]"):
        pair_blocks(6, 12, 4)
    with pytest.raises(ConfigError, match=r"got 4\. Use one of \[1, 5\]"):
        pair_blocks(5, 12, None)


def test_given_teacher_layers_take_the_place_of_the_computed_ones() -> None:
    assert pair_blocks(4, 8, 2, (3, 8)) == BlockPairing((2, 4), (3, 8))


@pytest.mark.parametrize("layers", [(3,), (3, 9), (5, 3), (3, 3), (0, 8), (1, 2, 3)])
def test_teacher_layers_that_do_not_fit_are_refused_with_those_that_would(layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"2 ascending layers of 1 … 8.*\[4, 8\]"):
        pair_blocks(4, 8, 2, layers)


def test_more_blocks_than_teacher_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower distillation.num_blocks"):
        pair_blocks(4, 2, 4)


def test_a_student_without_layers_cannot_be_distilled() -> None:
    with pytest.raises(ConfigError, match=r"got 0\. Use method finetune"):
        pair_blocks(0, 8, None)


@given(blocks=st.integers(1, 12), per_block=st.integers(1, 6), data=st.data())
def test_blocks_are_equal_ascend_and_end_with_both_models(blocks: int, per_block: int, data: st.DataObject) -> None:
    teacher_depth = data.draw(st.integers(blocks, 96))
    pairing = pair_blocks(blocks * per_block, teacher_depth, blocks)
    assert pairing.num_blocks == blocks
    assert pairing.student_layers == tuple(range(per_block, blocks * per_block + 1, per_block))
    assert pairing.teacher_layers[-1] == teacher_depth
    assert list(pairing.teacher_layers) == sorted(set(pairing.teacher_layers))
    for k, layer in enumerate(pairing.teacher_layers, start=1):
        assert abs(layer - k * teacher_depth / blocks) <= 0.5
    if teacher_depth % blocks == 0:
        assert pairing.teacher_layers == tuple(k * teacher_depth // blocks for k in range(1, blocks + 1))
