"""Gaps in direction and in length between hidden states of a student and its teacher."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from slmrec_core.errors import TeacherStudentMismatchError
from slmrec_core.losses.mean import mean_or_raise


def feature_cosine_loss(
    student: Float[Tensor, "block batch hidden"], teacher: Float[Tensor, "_ _ _"]
) -> Float[Tensor, ""]:
    """1 - mean cosine between aligned states: 0 = same direction, 1 = orthogonal, 2 = opposite.

    SLMRec (arXiv:2405.17890), the term 1 - D_cos. Departs from the paper: the mean runs over every target that the
    caller passes, where the paper has one pooled position per user.

    Args:
        student: States at the end of each block, any float type (computed in float32); gradients flow.
        teacher: States of the same shape; gradients flow here too unless the caller detached them.

    Returns:
        Mean over block and batch. A zero vector has cosine 0 with everything, and a finite gradient.

    Raises:
        TeacherStudentMismatchError: The shapes differ.
        DivergedError: A state is NaN or infinite.
    """
    _require_same_shape(student, teacher, "feature_cosine_loss")
    student, teacher = student.float(), teacher.float()
    # Lengths divide the products, not the states: half the passes over the states, and of their gradients.
    cosine = (student * teacher).sum(dim=-1) / (_lengths(student) * _lengths(teacher))[..., 0]
    return mean_or_raise(1 - cosine, "feature_cosine_loss")


def feature_norm_loss(
    student: Float[Tensor, "block batch hidden"], teacher: Float[Tensor, "_ _ _"], squared: bool = True
) -> Float[Tensor, ""]:
    """Mean squared length of the difference between aligned states, summed over `hidden`, not averaged.

    SLMRec (arXiv:2405.17890), the term D_norm. Departs from the paper: the mean runs over every target that the
    caller passes, where the paper has one pooled position per user; `squared=False` is ours.

    Args:
        student: States at the end of each block, any float type (computed in float32); gradients flow.
        teacher: States of the same shape; gradients flow here too unless the caller detached them.
        squared: False = the length itself, whose gradient does not grow with the gap (and is 0 where there is none).

    Returns:
        Mean over block and batch, in the (squared) scale of the states.

    Raises:
        TeacherStudentMismatchError: The shapes differ.
        DivergedError: A state is NaN, or both are infinite.
    """
    _require_same_shape(student, teacher, "feature_norm_loss")
    gap = student.float() - teacher.float()
    # vector_norm has gradient 0 at 0; the square root of the sum of squares would have NaN there.
    per_target = gap.square().sum(dim=-1) if squared else vector_norm(gap, dim=-1)
    return mean_or_raise(per_target, "feature_norm_loss")


def user_cosine(states: Float[Tensor, "batch hidden"]) -> Float[Tensor, ""]:
    """Mean cosine between the states of different rows, to be logged: near 1, the states tell no user from another.

    Not in the paper. Where this is near 1 a small `feature_cosine_loss` proves nothing, because a constant state
    would reach it.

    Args:
        states: One state per user, any float type (computed in float32); no gradient flows.

    Returns:
        Exact mean over all pairs in O(batch * hidden); NaN for fewer than two rows, which have no pair.
    """
    num_rows = len(states)
    if num_rows < 2:
        return states.new_tensor(math.nan).float()
    directions = _directions(states.detach())
    # |sum u|^2 is the sum over all ordered pairs, each row with itself included; those are the |u|^2.
    pair_sum = directions.sum(dim=0).square().sum() - directions.square().sum()
    return pair_sum / (num_rows * (num_rows - 1))


def _directions(states: Float[Tensor, "*targets hidden"]) -> Float[Tensor, "*targets hidden"]:
    """Unit vectors in float32; a zero vector stays zero."""
    states = states.float()
    return states / _lengths(states)


def _lengths(states: Float[Tensor, "*targets hidden"]) -> Float[Tensor, "*targets 1"]:
    """Lengths to divide by; 1 for a zero vector."""
    length: Tensor = vector_norm(states, dim=-1, keepdim=True)
    # Dividing by a clamped length instead would give a zero vector a gradient of 1 / epsilon.
    return length.masked_fill(length == 0, 1)


def _require_same_shape(student: Tensor, teacher: Tensor, where: str) -> None:
    if student.shape != teacher.shape:
        raise TeacherStudentMismatchError(
            f"{where}: student and teacher states differ in shape [block, batch, hidden],"
            f" got student {list(student.shape)} and teacher {list(teacher.shape)}."
            " Align as many layers of each at the same positions; where the widths differ, project the student's"
            " states to the teacher's width first."
        )
