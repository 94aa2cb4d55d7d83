"""Laws of the direction and length gaps between student and teacher."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import DivergedError, TeacherStudentMismatchError
from slmrec_core.losses import feature_cosine_loss, feature_norm_loss, user_cosine

Loss = Callable[[Tensor, Tensor], Tensor]


def length_gap(student: Tensor, teacher: Tensor) -> Tensor:
    return feature_norm_loss(student, teacher, squared=False)


all_losses = pytest.mark.parametrize("loss", [feature_cosine_loss, feature_norm_loss, length_gap])
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_mean(student: Tensor, teacher: Tensor, value: Callable[[list[float], list[float]], float]) -> float:
    pairs = zip(student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), strict=True)
    values = [value(left, right) for left, right in pairs]
    return sum(values) / len(values)


def plain_cosine(left: list[float], right: list[float]) -> float:
    dot = sum(x * y for x, y in zip(left, right, strict=True))
    return dot / (math.hypot(*left) * math.hypot(*right))


def test_cosine_worked_by_hand() -> None:
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    teacher = torch.tensor([[[4.0, 3.0], [0.0, 2.0]]])
    # Cosines: (3 * 4 + 4 * 3) / (5 * 5) and 0.
    assert_close(feature_cosine_loss(student, teacher), torch.tensor(1 - (24 / 25 + 0) / 2))


def test_norm_worked_by_hand() -> None:
    student = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 4.0]], [[1.0, -1.0]]])
    # Squared gaps: 3^2 + 4^2 and 2^2.
    assert_close(feature_norm_loss(student, teacher), torch.tensor((25 + 4) / 2))
    assert_close(length_gap(student, teacher), torch.tensor((5 + 2) / 2))


@given(shapes, st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_gaps_equal_loops_over_plain_floats(shape: tuple[int, int, int], seed: int) -> None:
    student, teacher = draw(shape, seed), draw(shape, seed + 1)
    assert_close(
        feature_cosine_loss(student, teacher).item(), 1 - plain_mean(student, teacher, plain_cosine), rtol=0, atol=1e-5
    )
    assert_close(length_gap(student, teacher).item(), plain_mean(student, teacher, math.dist), rtol=1e-5, atol=1e-5)
    assert_close(
        feature_norm_loss(student, teacher).item(),
        plain_mean(student, teacher, lambda left, right: math.dist(left, right) ** 2),
        rtol=1e-5,
        atol=1e-5,
    )


@all_losses
def test_a_student_equal_to_its_teacher_has_no_gap_and_a_finite_gradient(loss: Loss) -> None:
    states = draw((3, 4, 8), seed=0)
    student = states.clone().requires_grad_()
    value = loss(student, states)
    value.backward()
    assert_close(value.item(), 0.0, rtol=0, atol=1e-6)
    assert student.grad is not None
    assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 0.0), (-3.0, 2.0)])
def test_cosine_is_zero_for_the_same_direction_and_two_for_the_opposite(factor: float, expected: float) -> None:
    states = draw((2, 3, 5), seed=1)
    assert_close(feature_cosine_loss(factor * states, states).item(), expected, rtol=0, atol=1e-6)


@given(shapes, st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_cosine_ignores_vector_length(shape: tuple[int, int, int], seed: int, left: float, right: float) -> None:
    student, teacher = draw(shape, seed), draw(shape, seed + 1)
    scaled = feature_cosine_loss(left * student, right * teacher)
    assert_close(scaled, feature_cosine_loss(student, teacher), rtol=0, atol=1e-5)


@given(shapes, st.integers(0, 1000), st.floats(1e-2, 1e2))
@settings(max_examples=15, deadline=None)
def test_norm_grows_with_the_square_of_the_scale_or_with_the_scale(
    shape: tuple[int, int, int], seed: int, scale: float
) -> None:
    student, teacher = draw(shape, seed), draw(shape, seed + 1)
    squared = feature_norm_loss(scale * student, scale * teacher)
    assert_close(squared, scale**2 * feature_norm_loss(student, teacher), rtol=1e-4, atol=0)
    assert_close(length_gap(scale * student, scale * teacher), scale * length_gap(student, teacher), rtol=1e-4, atol=0)


@all_losses
def test_order_of_targets_order_of_blocks_and_a_common_rotation_change_nothing(loss: Loss) -> None:
    student, teacher = draw((3, 4, 6), seed=2), draw((3, 4, 6), seed=3)
    rotation = torch.linalg.qr(draw((6, 6), seed=4)).Q
    blocks, rows = torch.tensor([2, 0, 1]), torch.tensor([1, 3, 0, 2])
    moved = loss((student @ rotation)[blocks][:, rows], (teacher @ rotation)[blocks][:, rows])
    assert_close(moved, loss(student, teacher), rtol=1e-5, atol=1e-5)


@all_losses
def test_student_and_teacher_can_be_swapped(loss: Loss) -> None:
    student, teacher = draw((2, 3, 4), seed=5), draw((2, 3, 4), seed=6)
    assert_close(loss(student, teacher), loss(teacher, student))


@all_losses
def test_the_gradient_is_the_numerical_one(loss: Loss) -> None:
    student, teacher = draw((2, 2, 3), seed=7).double().requires_grad_(), draw((2, 2, 3), seed=8).double()
    # The losses compute in float32, hence the wide step.
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student, eps=1e-2, atol=1e-2)


@all_losses
def test_a_zero_vector_gives_a_finite_loss_and_a_small_gradient(loss: Loss) -> None:
    student = torch.zeros(1, 2, 3, requires_grad=True)
    value = loss(student, draw((1, 2, 3), seed=9))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.abs().max() < 10


def test_a_zero_vector_has_cosine_zero() -> None:
    assert feature_cosine_loss(torch.zeros(1, 1, 3), torch.ones(1, 1, 3)).item() == 1


@all_losses
def test_half_precision_states_are_compared_in_float32(loss: Loss) -> None:
    student, teacher = draw((2, 3, 512), seed=10).bfloat16(), draw((2, 3, 512), seed=11).bfloat16()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert_close(value, loss(student.float(), teacher.float()), rtol=0, atol=0)


def test_float16_states_of_usual_size_do_not_overflow() -> None:
    states = torch.full((1, 1, 64), 600.0, dtype=torch.float16)
    assert_close(feature_norm_loss(states, -states), torch.tensor(64 * 1200.0**2))


@all_losses
def test_no_targets_give_zero_with_a_gradient(loss: Loss) -> None:
    student = torch.zeros(2, 0, 4, requires_grad=True)
    value = loss(student, torch.zeros(2, 0, 4))
    value.backward()
    assert value.item() == 0


@all_losses
def test_a_state_that_is_not_a_number_raises(loss: Loss) -> None:
    student = torch.ones(1, 3, 2)
    student[0, 1, 0] = math.nan
    with pytest.raises(DivergedError, match=r"got NaN for 1 of 3 values\."):
        loss(student, torch.ones(1, 3, 2))


@all_losses
@pytest.mark.parametrize("other", [(1, 3, 4), (2, 1, 4), (2, 3, 1)])
def test_shapes_that_would_broadcast_raise_and_name_the_remedy(loss: Loss, other: tuple[int, int, int]) -> None:
    with pytest.raises(TeacherStudentMismatchError) as error:
        loss(torch.ones(2, 3, 4), torch.ones(other))
    for part in ("student [2, 3, 4]", f"teacher {list(other)}", "project"):
        assert part in str(error.value)


def test_user_cosine_worked_by_hand() -> None:
    # Pairs: (1,0)-(0,2) has cosine 0, (1,0)-(3,4) has 3/5, (0,2)-(3,4) has 4/5.
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    assert_close(user_cosine(states), torch.tensor((0 + 3 / 5 + 4 / 5) / 3))


@given(st.integers(2, 9), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_user_cosine_equals_a_loop_over_pairs(num_rows: int, hidden: int, seed: int) -> None:
    states = draw((num_rows, hidden), seed)
    pairs = list(itertools.combinations(states.tolist(), 2))
    expected = sum(plain_cosine(left, right) for left, right in pairs) / len(pairs)
    assert_close(user_cosine(states).item(), expected, rtol=0, atol=1e-5)


def test_user_cosine_is_one_for_one_direction_and_zero_for_an_orthogonal_set() -> None:
    lengths = torch.arange(1.0, 1001.0)[:, None]
    assert_close(user_cosine(lengths * draw((1, 16), seed=12)).item(), 1.0, rtol=0, atol=1e-4)
    assert_close(user_cosine(torch.eye(20)).item(), 0.0, rtol=0, atol=1e-6)


def test_user_cosine_counts_a_zero_vector_as_orthogonal() -> None:
    assert_close(user_cosine(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])), torch.tensor((0 + 0 + 1) / 3))


def test_user_cosine_carries_no_gradient() -> None:
    assert not user_cosine(draw((4, 3), seed=13).requires_grad_()).requires_grad


@pytest.mark.parametrize("num_rows", [0, 1])
def test_user_cosine_without_a_pair_is_nan(num_rows: int) -> None:
    assert user_cosine(torch.ones(num_rows, 3)).isnan()
