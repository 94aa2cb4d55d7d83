"""Laws of the gap between score distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import ConfigError, DivergedError, TeacherStudentMismatchError
from slmrec_core.losses import logit_loss

sizes = st.tuples(st.integers(1, 5), st.integers(2, 8))
temperatures = st.floats(0.5, 8.0)


def draw(size: tuple[int, int], seed: int) -> Tensor:
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float], temperature: float) -> list[float]:
    weights = [math.exp(score / temperature) for score in row]
    return [weight / sum(weights) for weight in weights]


def test_a_number_worked_by_hand() -> None:
    student = torch.zeros(1, 2)
    teacher = torch.tensor([[0.0, 2 * math.log(3.0)]])
    # At T = 2 the teacher says 1/4 and 3/4, the student 1/2 and 1/2; T^2 = 4.
    expected = 4 * (1 / 4 * math.log(1 / 2) + 3 / 4 * math.log(3 / 2))
    assert_close(logit_loss(student, teacher), torch.tensor(expected))


@given(sizes, st.integers(0, 1000), temperatures)
@settings(max_examples=15, deadline=None)
def test_it_equals_a_loop_over_plain_floats_and_is_never_negative(
    size: tuple[int, int], seed: int, temperature: float
) -> None:
    student, teacher = draw(size, seed), draw(size, seed + 1)
    total = 0.0
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(softmax(student_row, temperature), softmax(teacher_row, temperature), strict=True)
        total += sum(p * math.log(p / q) for q, p in pairs)
    loss = logit_loss(student, teacher, temperature).item()
    assert_close(loss, temperature**2 * total / size[0], rtol=1e-4, atol=1e-5 * temperature**2)
    assert loss >= -1e-5 * temperature**2


def test_a_student_equal_to_its_teacher_has_no_gap_and_no_gradient() -> None:
    scores = draw((4, 6), seed=0)
    student = scores.clone().requires_grad_()
    loss = logit_loss(student, scores)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert_close(student.grad, torch.zeros_like(scores), rtol=0, atol=1e-6)


@given(sizes, st.integers(0, 1000), temperatures)
@settings(max_examples=15, deadline=None)
def test_scores_scaled_with_the_temperature_give_its_square(
    size: tuple[int, int], seed: int, temperature: float
) -> None:
    student, teacher = draw(size, seed), draw(size, seed + 1)
    scaled = logit_loss(temperature * student, temperature * teacher, temperature)
    assert_close(scaled, temperature**2 * logit_loss(student, teacher, 1.0), rtol=1e-3, atol=1e-4)


def test_a_high_temperature_gives_half_the_variance_of_the_score_gap() -> None:
    student, teacher = draw((3, 5), seed=1), draw((3, 5), seed=2)
    expected = (student - teacher).var(dim=1, unbiased=False).mean() / 2
    assert_close(logit_loss(student, teacher, 100.0), expected, rtol=0.1, atol=0)


def test_order_of_items_order_of_targets_and_a_constant_per_row_change_nothing() -> None:
    student, teacher = draw((4, 6), seed=3), draw((4, 6), seed=4)
    items, rows = torch.tensor([5, 2, 0, 1, 4, 3]), torch.tensor([2, 0, 3, 1])
    moved = logit_loss((student + 7)[rows][:, items], (teacher - 3)[rows][:, items])
    assert_close(moved, logit_loss(student, teacher), rtol=1e-4, atol=1e-5)


def test_the_gap_depends_on_who_teaches() -> None:
    sure, even = torch.tensor([[6.0, 0.0, 0.0]]), torch.zeros(1, 3)
    assert logit_loss(even, sure).item() != pytest.approx(logit_loss(sure, even).item(), rel=0.1)


def test_columns_at_minus_infinity_in_both_are_as_if_they_were_not_there() -> None:
    student, teacher = draw((3, 5), seed=5), draw((3, 5), seed=6)
    column = torch.full((3, 1), -math.inf)
    padded_student = torch.cat([column, student], dim=1).requires_grad_()
    padded_teacher = torch.cat([column, teacher], dim=1).requires_grad_()
    loss = logit_loss(padded_student, padded_teacher)
    loss.backward()
    assert_close(loss, logit_loss(student, teacher))
    for scores in (padded_student, padded_teacher):
        assert scores.grad is not None
        assert scores.grad.isfinite().all()
        assert (scores.grad[:, 0] == 0).all()


def test_what_the_student_rules_out_alone_costs_plus_infinity() -> None:
    assert logit_loss(torch.tensor([[-math.inf, 0.0]]), torch.zeros(1, 2)).item() == math.inf


def test_what_the_teacher_rules_out_alone_is_finite() -> None:
    # The teacher is certain; the student gives that item 1/2.
    loss = logit_loss(torch.zeros(1, 2), torch.tensor([[-math.inf, 0.0]]), 1.0)
    assert_close(loss, torch.tensor(math.log(2)))


def test_half_precision_scores_are_compared_in_float32() -> None:
    student, teacher = draw((4, 500), seed=7).bfloat16(), draw((4, 500), seed=8).bfloat16()
    loss = logit_loss(student, teacher)
    assert loss.dtype == torch.float32
    assert_close(loss, logit_loss(student.float(), teacher.float()), rtol=0, atol=0)


def test_the_gradient_is_the_numerical_one() -> None:
    student, teacher = draw((2, 4), seed=9).double().requires_grad_(), draw((2, 4), seed=10).double().requires_grad_()
    # The loss computes in float32, hence the wide step.
    assert torch.autograd.gradcheck(logit_loss, (student, teacher), eps=1e-2, atol=1e-3)


def test_no_targets_give_zero() -> None:
    assert logit_loss(torch.zeros(0, 4), torch.zeros(0, 4)).item() == 0


@pytest.mark.parametrize("spoil_teacher", [False, True])
def test_a_score_that_is_not_a_number_raises(spoil_teacher: bool) -> None:
    good, bad = torch.zeros(3, 2), torch.zeros(3, 2)
    bad[1, 0] = math.nan
    pair = (good, bad) if spoil_teacher else (bad, good)
    with pytest.raises(DivergedError, match=r"logit_loss: .* got NaN for 1 of 3 values\."):
        logit_loss(*pair)


def test_catalogues_of_different_size_raise() -> None:
    with pytest.raises(TeacherStudentMismatchError, match=r"student \[2, 5\] and teacher \[2, 6\]"):
        logit_loss(torch.zeros(2, 5), torch.zeros(2, 6))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_zero_raises(temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"got {temperature!r}"):
        logit_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)
