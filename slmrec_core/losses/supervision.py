"""Next-item loss on the intermediate blocks of the student."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from slmrec_core.errors import ConfigError


def supervision_loss(head_losses: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Mean of the next-item losses of the heads on the inner blocks, in nats per target.

    SLMRec (arXiv:2405.17890), the term L_ms: 1/(B-1) times the sum over blocks 1 ... B-1. Departs from the paper:
    nowhere; a student of one block has no inner block, and its caller leaves the term out.

    Args:
        head_losses: Next-item loss of each head.

    Returns:
        Mean over heads and targets.

    Raises:
        ConfigError: There is no head.
    """
    if not head_losses:
        raise ConfigError(
            "supervision_loss: there must be at least one supervision head, got 0."
            " Use two blocks or more, or leave the term out."
        )
    return torch.stack(list(head_losses)).mean()
