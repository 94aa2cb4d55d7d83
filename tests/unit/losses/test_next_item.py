"""Laws of the next-item cross entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import DivergedError
from slmrec_core.losses import next_item_loss


def draw(num_targets: int, num_items: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = 5 * torch.randn(num_targets, num_items, generator=generator)
    return scores, torch.randint(num_items, (num_targets,), generator=generator)


sizes = st.tuples(st.integers(1, 6), st.integers(2, 9), st.integers(0, 1000))


def test_a_number_worked_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)], [math.log(2.0), 0.0]])
    # Probabilities of the targets: 3 / (1 + 3) and 1 / (2 + 1).
    expected = -(math.log(3 / 4) + math.log(1 / 3)) / 2
    assert_close(next_item_loss(scores, torch.tensor([1, 1])), torch.tensor(expected))


@given(sizes)
@settings(max_examples=15, deadline=None)
def test_it_equals_a_loop_over_plain_floats(size: tuple[int, int, int]) -> None:
    scores, targets = draw(*size)
    total = 0.0
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        total -= row[target] - math.log(sum(math.exp(score) for score in row))
    assert_close(next_item_loss(scores, targets).item(), total / len(targets), rtol=1e-5, atol=1e-5)


def test_constant_scores_cost_the_logarithm_of_the_catalogue() -> None:
    assert_close(next_item_loss(torch.zeros(3, 50), torch.tensor([0, 7, 49])), torch.tensor(math.log(50)))


def test_certainty_costs_nothing() -> None:
    assert next_item_loss(torch.tensor([[0.0, 1000.0]]), torch.tensor([1])).item() == 0


@given(sizes, st.integers(0, 1000), st.floats(-50, 50))
@settings(max_examples=15, deadline=None)
def test_order_of_items_order_of_targets_and_a_constant_change_nothing(
    size: tuple[int, int, int], seed: int, shift: float
) -> None:
    scores, targets = draw(*size)
    generator = torch.Generator().manual_seed(seed)
    items = torch.randperm(scores.shape[1], generator=generator)
    rows = torch.randperm(len(targets), generator=generator)
    moved = next_item_loss((scores + shift)[rows][:, items], items.argsort()[targets[rows]])
    assert_close(moved, next_item_loss(scores, targets), rtol=1e-4, atol=1e-4)


def test_a_column_at_minus_infinity_is_as_if_it_were_not_there() -> None:
    scores, targets = draw(4, 6, seed=0)
    padded = torch.cat([torch.full((4, 1), -math.inf), scores], dim=1).requires_grad_()
    loss = next_item_loss(padded, targets + 1)
    loss.backward()
    assert_close(loss, next_item_loss(scores, targets))
    assert padded.grad is not None
    assert padded.grad.isfinite().all()
    assert (padded.grad[:, 0] == 0).all()


def test_a_target_at_minus_infinity_costs_plus_infinity() -> None:
    assert next_item_loss(torch.tensor([[-math.inf, 0.0]]), torch.tensor([0])).item() == math.inf


def test_half_precision_scores_are_summed_in_float32() -> None:
    scores, targets = draw(8, 2000, seed=1)
    loss = next_item_loss(scores.bfloat16(), targets)
    assert loss.dtype == torch.float32
    assert_close(loss, next_item_loss(scores.bfloat16().float(), targets), rtol=0, atol=0)


def test_the_gradient_is_the_numerical_one() -> None:
    scores, targets = draw(3, 4, seed=2)
    wide = scores.double().requires_grad_()
    # The loss computes in float32, hence the wide step.
    assert torch.autograd.gradcheck(lambda x: next_item_loss(x, targets), wide, eps=1e-2, atol=1e-3)


def test_no_targets_give_zero_with_a_gradient() -> None:
    scores = torch.zeros(0, 5, requires_grad=True)
    loss = next_item_loss(scores, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_a_number_raises_and_counts_the_rows(bad: float) -> None:
    scores = torch.zeros(5, 3)
    scores[[1, 4], 2] = bad
    with pytest.raises(DivergedError, match=r"next_item_loss: .* got NaN for 2 of 5 values\."):
        next_item_loss(scores, torch.zeros(5, dtype=torch.int64))


def test_the_target_that_torch_would_skip_in_silence_is_an_error() -> None:
    with pytest.raises(IndexError):
        next_item_loss(torch.zeros(2, 3), torch.tensor([0, -100]))
