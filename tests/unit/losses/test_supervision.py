"""Laws of the loss on intermediate blocks."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import ConfigError
from slmrec_core.losses import next_item_loss, supervision_loss

TARGETS = torch.tensor([1, 0, 3])


def draw(seed: int) -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def test_a_number_worked_by_hand() -> None:
    even = torch.zeros(1, 2)
    sure = torch.tensor([[0.0, math.log(3.0)]])
    # The target has probability 1/2 at one head and 3/4 at the other.
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert_close(
        supervision_loss([next_item_loss(head, torch.tensor([1])) for head in (even, sure)]), torch.tensor(expected)
    )


def test_it_is_the_mean_of_the_heads() -> None:
    heads = [draw(seed) for seed in range(3)]
    expected = sum(next_item_loss(head, TARGETS).item() for head in heads) / 3
    assert_close(supervision_loss([next_item_loss(head, TARGETS) for head in heads]), torch.tensor(expected))


def test_one_head_is_the_next_item_loss() -> None:
    assert_close(supervision_loss([next_item_loss(draw(0), TARGETS)]), next_item_loss(draw(0), TARGETS))


def test_order_and_repetition_of_heads_change_nothing() -> None:
    first, second = (next_item_loss(draw(seed), TARGETS) for seed in (0, 1))
    assert_close(supervision_loss([second, first, second, first]), supervision_loss((first, second)))


def test_every_head_gets_a_gradient() -> None:
    heads = [draw(seed).requires_grad_() for seed in range(2)]
    supervision_loss([next_item_loss(head, TARGETS) for head in heads]).backward()
    for head in heads:
        alone = head.detach().clone().requires_grad_()
        next_item_loss(alone, TARGETS).backward()
        assert head.grad is not None
        assert alone.grad is not None
        assert_close(head.grad, alone.grad / 2)


def test_no_head_raises_and_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"supervision_loss: .* got 0\. Use two blocks or more, or leave"):
        supervision_loss([])
