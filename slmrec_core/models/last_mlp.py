"""The MLP of the last layer, run only where its output is read.

Nothing looks at the deepest state of any other position, and an MLP is most of a layer: where one position of each
history is read, as in ranking, four layers lose most of a quarter of their work.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from slmrec_core.models.architecture import mlps

logger = logging.getLogger(__name__)

_TRIED_POSITIONS = 3
_TOLERANCE = 1.0e-5
"""Relative; a product over fewer rows may sum in another order."""


@torch.no_grad()
def last_mlp(decoder: nn.Module, num_layers: int, width: int) -> str | None:
    """Full name of the last layer's MLP, if it treats each position by itself; tried, and the log says if it does not.

    Args:
        decoder: With its weights, in float32 on the CPU.
        num_layers: Its layers.
        width: Its hidden size.
    """
    name = mlps(decoder).get(num_layers - 1)
    if name is None:
        return None
    mlp = decoder.get_submodule(name)
    states = torch.randn(1, _TRIED_POSITIONS, width, generator=torch.Generator().manual_seed(0))
    was_training = mlp.training
    mlp.eval()
    try:
        whole, alone = mlp(states), mlp(states[:, 1:2])
    except TypeError:
        # It asks for more than states; what else it gets would have to be cut as well.
        whole = alone = None
    finally:
        mlp.train(was_training)
    if isinstance(whole, Tensor) and isinstance(alone, Tensor) and whole.shape == states.shape:
        gap = (whole[:, 1:2] - alone).abs().max()
        if gap <= _TOLERANCE * whole.abs().max():
            return name
    logger.info("%s: the last MLP is run at every position, for it is no function of one.", type(decoder).__name__)
    return None


@contextmanager
def only_at(mlp: nn.Module, read: Int[Tensor, "target"]) -> Iterator[None]:
    """Inside the block `mlp` is run at some of the flattened positions, and gives 0 at all others."""

    def gathered(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states, *others = inputs
        shapes.append(states.shape)
        return states.flatten(0, 1)[read][None], *others

    def scattered(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        rows, tokens, width = shapes.pop()
        return output.new_zeros(rows * tokens, width).index_copy(0, read, output[0]).view(rows, tokens, width)

    shapes: list[torch.Size] = []
    with mlp.register_forward_pre_hook(gathered), mlp.register_forward_hook(scattered):
        yield
