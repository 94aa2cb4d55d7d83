"""Laws of where a batch's tokens stand."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slmrec_core.models.layout import Layout, packed_layout, padded_layout

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=40).filter(any)
TEMPLATES = st.integers(1, 70)


def used_slots(layout: Layout) -> Tensor:
    return torch.cat([layout.template_slots().flatten(), layout.history_tokens()[0]])


def test_by_hand() -> None:
    # 2 tokens of template and 4 + 1 + 3 of histories fit into one row of 10; the longest history comes first.
    layout = packed_layout(torch.tensor([4, 1, 3]), 2)
    assert (layout.num_rows, layout.width) == (1, 10)
    assert layout.first.tolist() == [2, 9, 6]
    assert layout.positions().tolist() == [[0, 1, 2, 3, 4, 5, 2, 3, 4, 2]]
    mask = layout.attention_mask(torch.float32)[0, 0]
    # The third history's second token: the template's two keys, none of the row's but its own first and itself.
    assert (mask[7] == 0).nonzero().flatten().tolist() == [0, 1, 2 + 6, 2 + 7]
    # The template's second token: no shared key, its own two in the row.
    assert (mask[1] == 0).nonzero().flatten().tolist() == [2, 3]


def test_padded_rows_each_have_their_template() -> None:
    layout = padded_layout(torch.tensor([4, 1]), 2)
    assert (layout.num_rows, layout.width) == (2, 6)
    assert layout.template_slots().tolist() == [[0, 1], [6, 7]]
    assert layout.history_tokens()[0].tolist() == [2, 3, 4, 5, 8]


@given(lengths=LENGTHS, template=TEMPLATES)
def test_every_token_has_a_slot_of_its_own(lengths: list[int], template: int) -> None:
    for layout in (padded_layout(torch.tensor(lengths), template), packed_layout(torch.tensor(lengths), template)):
        slots = used_slots(layout)
        copies = 1 if layout.is_packed else len(lengths)
        assert len(slots) == copies * template + sum(lengths)
        assert slots.unique().numel() == slots.numel()
        assert 0 <= int(slots.min()) <= int(slots.max()) < layout.num_rows * layout.width


@given(lengths=LENGTHS, template=TEMPLATES)
def test_a_token_attends_to_the_template_and_to_its_own_history_up_to_itself(lengths: list[int], template: int) -> None:
    layout = packed_layout(torch.tensor(lengths), template)
    attends = layout.attention_mask(torch.float32)[:, 0] == 0
    for history, length in enumerate(lengths):
        row, first = int(layout.row[history]), int(layout.first[history])
        for step in range(length):
            keys = attends[row, first + step].nonzero().flatten().tolist()
            own = range(template + first, template + first + step + 1)
            assert keys == [*range(template), *own]
    # What holds no token attends to something, or its softmax would be 0 / 0.
    assert bool(attends.any(dim=2).all())


@given(lengths=st.lists(st.integers(1, 50), min_size=8, max_size=64))
def test_packed_rows_are_never_more_work_than_padded_ones(lengths: list[int]) -> None:
    padded, packed = padded_layout(torch.tensor(lengths), 11), packed_layout(torch.tensor(lengths), 11)
    assert packed.num_rows * packed.width <= padded.num_rows * padded.width
    # Rows differ by less than a history, so no row is mostly empty.
    assert packed.num_rows * packed.width < 11 + sum(lengths) + packed.num_rows * max(lengths)
