"""Where the tokens of a batch stand in the decoder's input: one history in each row, or several behind one template.

Right-padded rows waste most of their tokens where histories differ in length, and each repeats the template. Packed
rows hold several histories one after another, cut to like width; the template stands once, at the head of row 0, and
every history attends to it. Positions are those that each history would have on its own, and no history sees another,
so both layouts give the same states.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_NARROWEST, _WIDEST = 64, 192
"""Tokens of a packed row: matrix products want few long rows, attention short ones."""
_ATTENTION_COST = 1.0 / 1600.0
"""What a token of width costs in attention, relative to the token's own matrix products; measured at width 576."""


@dataclass(frozen=True)
class Layout:
    """Rows and columns of a batch's tokens."""

    num_rows: int
    width: int
    """Tokens of a row."""
    template: int
    """Tokens before a history's first item."""
    row: Int[Tensor, "history"]
    first: Int[Tensor, "history"]
    """Column of each history's first item."""
    length: Int[Tensor, "history"]
    """Tokens of each history: its items and the closing template."""
    is_packed: bool
    """True = the template stands at the head of row 0 alone, and attention needs `attention_mask` and `positions`."""

    def slots(self, offset: Int[Tensor, "history token"]) -> Int[Tensor, "history token"]:
        """Where tokens stand in the flattened rows, by their offset from the history's first item."""
        return (self.row * self.width + self.first)[:, None] + offset

    def template_slots(self) -> Int[Tensor, "row token"]:
        """The same for the template: of row 0 alone if packed, else of every row."""
        rows = torch.arange(1 if self.is_packed else self.num_rows, device=self.row.device)
        return rows[:, None] * self.width + torch.arange(self.template, device=self.row.device)

    def positions(self) -> Int[Tensor, "row token"]:
        """The place of each token in its own history, the template counted; 0 where there is no token."""
        flat = torch.zeros(self.num_rows * self.width, dtype=torch.long, device=self.row.device)
        flat[: self.template] = torch.arange(self.template, device=self.row.device)
        slots, offset = self.history_tokens()
        flat[slots] = self.template + offset
        return flat.view(self.num_rows, self.width)

    def attention_mask(self, dtype: torch.dtype) -> Float[Tensor, "row 1 token key"]:
        """0 where a token attends, the lowest number elsewhere; the keys are the template's, then those of the row."""
        owner = torch.full((self.num_rows * self.width,), -1, device=self.row.device)
        owner[: self.template] = 0
        slots, _ = self.history_tokens()
        owner[slots] = torch.arange(1, len(self.row) + 1, device=owner.device).repeat_interleave(self.length)
        owner = owner.view(self.num_rows, self.width)
        column = torch.arange(self.width, device=owner.device)
        within = (owner[:, :, None] == owner[:, None, :]) & (column[:, None] >= column)
        # The template's own tokens stand in row 0 and attend to one another there.
        to_template = (owner > 0)[:, :, None].expand(-1, -1, self.template)
        attends: Bool[Tensor, "row token key"] = torch.cat([to_template, within], dim=2)
        mask = torch.zeros(attends.shape, dtype=dtype, device=owner.device)
        return mask.masked_fill_(~attends, torch.finfo(dtype).min)[:, None]

    def history_tokens(self) -> tuple[Int[Tensor, "token"], Int[Tensor, "token"]]:
        """Slot and offset of every token of every history, history by history."""
        offset = torch.arange(int(self.length.max()), device=self.row.device).expand(len(self.length), -1)
        is_token = offset < self.length[:, None]
        return self.slots(offset)[is_token], offset[is_token]


def padded_layout(length: Int[Tensor, "history"], template: int) -> Layout:
    """One history in each row, behind a template of its own; causal attention alone is right."""
    rows = torch.arange(len(length), device=length.device)
    first, width = torch.full_like(rows, template), template + int(length.max())
    return Layout(len(length), width, template, rows, first, length, is_packed=False)


def packed_layout(length: Int[Tensor, "history"], template: int) -> Layout:
    """Several histories in each row, in as many rows as cost least."""
    lengths = length.tolist()
    total = template + sum(lengths)
    fewest = min(-(-total // _WIDEST), len(lengths))
    most = min(-(-total // _NARROWEST), len(lengths))
    packings = [_packed(lengths, template, num_rows) for num_rows in range(fewest, most + 1)]
    num_rows, width, row, first = min(packings, key=lambda packing: _cost(*packing[:2]))
    place = torch.tensor([row, first], device=length.device)
    return Layout(num_rows, width, template, place[0], place[1], length, is_packed=True)


def _packed(lengths: Sequence[int], template: int, num_rows: int) -> tuple[int, int, list[int], list[int]]:
    """Rows, their width, and row and first column of each history: longest first, each into the emptiest row."""
    filled = [(template if row == 0 else 0, row) for row in range(num_rows)]
    heapq.heapify(filled)
    rows, firsts = [0] * len(lengths), [0] * len(lengths)
    for history in sorted(range(len(lengths)), key=lambda history: -lengths[history]):
        first, row = filled[0]
        rows[history], firsts[history] = row, first
        heapq.heapreplace(filled, (first + lengths[history], row))
    return num_rows, max(fill for fill, _ in filled), rows, firsts


def _cost(num_rows: int, width: int) -> float:
    return num_rows * width * (1.0 + width * _ATTENTION_COST)
