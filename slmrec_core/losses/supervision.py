"""Next-item loss on the intermediate blocks of the student."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slmrec_core.errors import ConfigError
from slmrec_core.losses.next_item import next_item_loss


def supervision_loss(
    head_scores: Sequence[Float[Tensor, "target item"]], targets: Int[Tensor, "target"]
) -> Float[Tensor, ""]:
    """Mean of `next_item_loss` over the heads on the inner blocks, in nats per target.

    SLMRec (arXiv:2405.17890), the term L_ms: 1/(B-1) times the sum over blocks 1 ... B-1. Departs from the paper:
    nowhere; a student of one block has no inner block, and its caller leaves the term out.

    Args:
        head_scores: Scores of each head, one row per target; see `next_item_loss`.
        targets: Column index of the item that came next, the same for every head.

    Returns:
        Mean over heads and targets.

    Raises:
        ConfigError: There is no head.
        DivergedError: A row holds NaN or +inf, or nothing but -inf.
    """
    if not head_scores:
        raise ConfigError(
            "supervision_loss: there must be at least one supervision head, got 0."
            " Use two blocks or more, or leave the term out."
        )
    return torch.stack([next_item_loss(scores, targets) for scores in head_scores]).mean()
