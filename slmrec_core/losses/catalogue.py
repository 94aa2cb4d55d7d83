"""Losses over the whole catalogue from user vectors and item table, without the matrix of all scores.

A catalogue of 400,000 items and 1,000 targets has 400 million scores, and a plain loss holds them three times over.
Here they exist for some targets at a time, and gradients are taken in the forward pass.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

from slmrec_core.errors import TeacherStudentMismatchError
from slmrec_core.hardware import rows_per_chunk
from slmrec_core.losses.logit import require_temperature
from slmrec_core.losses.mean import mean_or_raise
from slmrec_core.losses.next_item import NEVER_A_TARGET

_FIRST_ITEM = 1
"""Row 0 of a table is padding, which no softmax counts."""


def catalogue_next_item_loss(
    user_vectors: Float[Tensor, "target item_dim"],
    item_table: Float[Tensor, "row item_dim"],
    targets: Int[Tensor, "target"],
) -> Float[Tensor, ""]:
    """`next_item_loss` of the inner products with every item, in nats per target; see there.

    Args:
        user_vectors: One row per target, float32; gradients flow.
        item_table: Item vectors, row 0 for padding, float32; gradients flow if it is trained.
        targets: Rows of the table, at least 1.

    Returns:
        Mean over targets, 0 without targets. A second backward pass through it raises RuntimeError.

    Raises:
        DivergedError: A vector holds NaN or infinity.
    """
    if not len(targets):
        return user_vectors.sum() * 0.0
    rows = rows_per_chunk(len(item_table))
    options = LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None) if rows < len(targets) else None
    # Whatever the training precision, scores are not rounded to it: they would tie.
    with torch.autocast(user_vectors.device.type, enabled=False):
        loss = linear_cross_entropy(
            user_vectors,
            item_table[_FIRST_ITEM:],
            targets.long() - _FIRST_ITEM,
            ignore_index=NEVER_A_TARGET,
            options=options,
        )
    return mean_or_raise(loss, "catalogue_next_item_loss")


def catalogue_logit_loss(
    student_vectors: Float[Tensor, "target item_dim"],
    teacher_vectors: Float[Tensor, "_ _"],
    item_table: Float[Tensor, "row item_dim"],
    temperature: float = 2.0,
) -> Float[Tensor, ""]:
    """`logit_loss` of the inner products of both with every item of one frozen table, in nats per target; see there.

    Args:
        student_vectors: One row per target, float32; gradients flow.
        teacher_vectors: The teacher's, of the same shape; no gradient flows.
        item_table: Item vectors, row 0 for padding, float32; no gradient flows.
        temperature: Above 0.

    Returns:
        Mean over targets, 0 without targets.

    Raises:
        ConfigError: `temperature` is not above 0.
        TeacherStudentMismatchError: The shapes differ.
        DivergedError: A vector holds NaN or infinity.
    """
    require_temperature(temperature, "catalogue_logit_loss")
    if student_vectors.shape != teacher_vectors.shape:
        raise TeacherStudentMismatchError(
            "catalogue_logit_loss: student and teacher vectors differ in shape [target, item_dim],"
            f" got student {list(student_vectors.shape)} and teacher {list(teacher_vectors.shape)}."
            " Read both at the same positions, and score them against one table."
        )
    items = item_table[_FIRST_ITEM:].detach()
    with torch.autocast(student_vectors.device.type, enabled=False):
        per_target: Tensor = _LogitGap.apply(student_vectors, teacher_vectors.detach(), items, temperature)  # type: ignore[no-untyped-call]
    return mean_or_raise(per_target, "catalogue_logit_loss")


class _LogitGap(torch.autograd.Function):
    """T²·KL(teacher ‖ student) of each target.

    With log-sum-exp Z and expected item vector E of a softmax over inner products at temperature T, the divergence is
    Eₜ·(t − s)/T − Zₜ + Zₛ, and its gradient (Eₛ − Eₜ)/T: two numbers and two vectors for each target.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, items: Tensor, temperature: float) -> Tensor:
        gaps, gradients = [], []
        for start in range(0, len(student), rows_per_chunk(len(items))):
            part = slice(start, start + rows_per_chunk(len(items)))
            ours, theirs = student[part] / temperature, teacher[part] / temperature
            our_sum, our_mean = _softmax(ours, items)
            their_sum, their_mean = _softmax(theirs, items)
            gaps.append((their_mean * (theirs - ours)).sum(dim=1) - their_sum + our_sum)
            gradients.append(our_mean - their_mean)
        ctx.save_for_backward(torch.cat(gradients) * temperature if gradients else torch.zeros_like(student))
        # Rounding can put a divergence of nothing a little below 0; NaN stays NaN.
        total = torch.cat(gaps).clamp_min(0.0) if gaps else student.new_zeros(0)
        return total * temperature**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None] * gradient, None, None, None


def _softmax(vectors: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each vector's scores, and the mean of the item vectors under their softmax."""
    scores = vectors @ items.T
    largest = scores.amax(dim=1, keepdim=True)
    # In place: every further pass over the scores costs as much as the product.
    weights = scores.sub_(largest).exp_()
    total = weights.sum(dim=1, keepdim=True)
    return (largest + total.log())[:, 0], (weights @ items) / total
