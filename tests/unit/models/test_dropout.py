"""Laws of dropout, with `nn.Dropout` as the plain path."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slmrec_core.models.dropout import Dropout


@given(p=st.floats(0.0, 0.9), shape=st.lists(st.integers(0, 7), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_entries_are_kept_and_scaled_or_zero(p: float, shape: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    inputs = torch.randn(shape, dtype=torch.float64).requires_grad_()
    output = Dropout(p)(inputs)
    kept = output != 0
    rounded = round(p * 65536) / 65536
    assert_close(output[kept], inputs[kept] / (1 - rounded))
    output.sum().backward()
    # The gradient passes where the value passed, scaled alike.
    assert_close(inputs.grad, kept.to(torch.float64) / (1 - rounded))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_as_many_entries_fall_as_asked_at_every_place_of_the_64_bits(p: float) -> None:
    torch.manual_seed(0)
    dropped = (Dropout(p)(torch.ones(4 * 250_000)) == 0).float().view(-1, 4)
    # Four standard errors, for each of the four entries that share a random number.
    error = 4 * (p * (1 - p) / len(dropped)) ** 0.5
    assert_close(dropped.mean(dim=0), torch.full((4,), p), atol=error, rtol=0.0)
    # Entries of one number fall independently of one another.
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 4 / len(dropped) ** 0.5


def test_evaluation_and_probability_zero_change_nothing() -> None:
    inputs = torch.randn(3, 5)
    assert Dropout(0.4).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs


def test_equal_seeds_give_equal_masks() -> None:
    inputs = torch.ones(7, 3)
    torch.manual_seed(5)
    first = Dropout(0.5)(inputs)
    torch.manual_seed(5)
    assert_close(Dropout(0.5)(inputs), first)
    assert (Dropout(0.5)(inputs) != first).any()


def test_bfloat16_stays_bfloat16() -> None:
    assert Dropout(0.5)(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
