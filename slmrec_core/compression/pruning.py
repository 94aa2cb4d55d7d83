"""Smallest weights set to zero (magnitude pruning, arXiv:1506.02626)."""

from torch import nn
from torch.nn.utils import prune

from slmrec_core.compression.config import Pruning
from slmrec_core.errors import ConfigError


def prune_linear(decoder: nn.Module, pruning: Pruning, sparsity: float = 0.5) -> None:
    """Sets weights of every linear map to zero, in place; each map by itself.

    Args:
        decoder: Without low-rank updates.
        pruning: `unstructured`, `2:4` or `none`.
        sparsity: Share of zeros with `unstructured`.

    Raises:
        ConfigError: The decoder has no linear maps, or with `2:4` the inputs of one are no multiple of four.
    """
    if pruning == "none":
        return
    maps = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    uneven = sorted({module.in_features for module in maps.values() if module.in_features % 4})
    if not maps or (pruning == "2:4" and uneven):
        got = f"maps with {uneven[0]} inputs" if maps else f"a {type(decoder).__name__} without nn.Linear"
        raise ConfigError(
            f"compression.pruning: {pruning!r} takes linear maps"
            f"{', of inputs that are a multiple of 4' if pruning == '2:4' else ''}, got {got}."
            " Use compression.pruning=none."
        )
    if pruning == "unstructured":
        for module in maps.values():
            prune.remove(prune.l1_unstructured(module, "weight", sparsity), "weight")  # type: ignore[no-untyped-call]
        return
    # Slow to import, and only this needs it.
    from torchao.sparsity import apply_fake_sparsity  # noqa: PLC0415

    apply_fake_sparsity(decoder, filter_fn=lambda module, name: isinstance(module, nn.Linear))
