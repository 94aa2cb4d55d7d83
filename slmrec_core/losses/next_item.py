"""Next-item cross entropy over the whole catalogue."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from slmrec_core.losses.mean import mean_or_raise

# cross_entropy skips targets of -100 in silence unless told to skip another value; this one never occurs.
NEVER_A_TARGET = torch.iinfo(torch.int64).min


def next_item_loss(scores: Float[Tensor, "target item"], targets: Int[Tensor, "target"]) -> Float[Tensor, ""]:
    """Cross entropy of the softmax over all columns against the next item, in nats per target.

    SLMRec (arXiv:2405.17890), the term L_ce. Departs from the paper: the mean runs over every position that the
    caller passes, which is one per user in the authors' code.

    Args:
        scores: One row per target, any float type (computed in float32). A column at -inf is left out of the
            softmax; padding is known here in no other way.
        targets: Column index of the item that came next.

    Returns:
        Mean over targets; +inf where a target's own score is -inf, 0 without targets.

    Raises:
        DivergedError: A row holds NaN or +inf, or nothing but -inf.
    """
    per_target = cross_entropy(scores.float(), targets.long(), reduction="none", ignore_index=NEVER_A_TARGET)
    return mean_or_raise(per_target, "next_item_loss")
