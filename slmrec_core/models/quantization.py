"""Linear maps of a decoder with weights of 8 or 4 bits, by torchao, and such weights as plain tensors for a file."""

import logging
from typing import Any, Literal

import torch
from jaxtyping import Int8, UInt8
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from slmrec_core.errors import ConfigError

WeightFormat = Literal["float", "int8", "int8_dynamic", "int4"]

# Torch's stubs do not know it.
_INT4: torch.dtype = torch.int4  # type: ignore[attr-defined]
_GROUP = 32
"""Weights of 4 bits that share a scale, as in GGUF."""


def quantize_linear(decoder: nn.Module, weights: WeightFormat) -> None:
    """Rounds the weights of every linear map, in place; for inference.

    Args:
        decoder: Without low-rank updates.
        weights: `int8`: 8 bits with a scale for each output, multiplied in floating point. `int8_dynamic`: inputs are
            rounded to 8 bits as well, at each call and with a scale for each position, and multiplied as integers.
            `int4`: 4 bits with a scale for each 32 weights, multiplied in floating point.

    Raises:
        ConfigError: The decoder has no linear maps, or theirs cannot be cut into groups of 32.
    """
    maps = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    if not maps:
        raise ConfigError(
            f"compression.weights: {weights!r} rounds the weights of nn.Linear, got a {type(decoder).__name__} without."
            " Use compression.weights=float."
        )
    uneven = sorted({module.in_features for module in maps.values() if module.in_features % _GROUP})
    if weights == "int4" and uneven:
        raise ConfigError(
            f"compression.weights: 'int4' takes maps whose inputs are a multiple of {_GROUP}, got {uneven[0]}."
            " Use compression.weights=int8."
        )
    quantize, config = _torchao(weights)
    with torch.no_grad():
        quantize(decoder, config, filter_fn=lambda module, name: isinstance(module, nn.Linear))


def import_torchao() -> None:
    """Imports torchao, all of it that transformers would, without its complaints of CUDA kernels that it cannot load;
    none of them is used here."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # Slow to import, and processes that only read settings never get here.
        import torchao.prototype.safetensors.safetensors_support  # noqa: F401, PLC0415
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network; a quantised weight is taken apart, `<weight>.<part>`, with 4-bit values two in a byte."""
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if not is_traceable_wrapper_subclass(tensor):
            state[name] = tensor.detach()
            continue
        for part in _parts(tensor):
            value = getattr(tensor, part)
            state[f"{name}.{part}"] = _packed(value) if _is_packed(tensor, part) else value
    return state


@torch.no_grad()
def load_plain_state(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Takes over what `plain_state` gave of a network of the same shape and weight format.

    Raises:
        KeyError: A part of a quantised weight is missing.
        RuntimeError: Other names or shapes than the network's.
    """
    rest = dict(state)
    quantized = {name: t for name, t in network.state_dict().items() if is_traceable_wrapper_subclass(t)}
    for name, tensor in quantized.items():
        for part in _parts(tensor):
            own, stored = getattr(tensor, part), rest.pop(f"{name}.{part}")
            value = _unpacked(stored) if _is_packed(tensor, part) else stored
            if value.shape != own.shape:
                raise RuntimeError(f"{name}.{part} must have the shape {tuple(own.shape)}, got {tuple(value.shape)}")
            own.copy_(value)
    found = network.load_state_dict(rest, strict=False)
    if found.unexpected_keys or set(found.missing_keys) != quantized.keys():
        missing = sorted(set(found.missing_keys) - quantized.keys())
        raise RuntimeError(f"tensors are missing or unknown: {missing[:3]}, {found.unexpected_keys[:3]}")


def _torchao(weights: WeightFormat) -> tuple[Any, Any]:
    """`quantize_`, and its configuration."""
    import_torchao()
    # Slow to import.
    from torchao.quantization import (  # noqa: PLC0415
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup  # noqa: PLC0415
    from torchao.utils import should_reduce_range  # noqa: PLC0415

    # Torch's compiler is left as the user set it.
    if weights == "int8":
        return quantize_, Int8WeightOnlyConfig(set_inductor_config=False)
    if weights == "int4":
        return quantize_, IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=PerGroup(_GROUP))
    narrow = should_reduce_range(torch.device("cpu"))
    return quantize_, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=narrow)


def _parts(tensor: Any) -> list[str]:
    """Names of the plain tensors inside a wrapper."""
    parts, _ = tensor.__tensor_flatten__()
    return list(parts)


def _is_packed(tensor: Any, part: str) -> bool:
    """True = 4-bit values, which torchao holds one in a byte."""
    return part == "qdata" and getattr(tensor, "target_dtype", None) is _INT4


def _packed(values: Int8[Tensor, "out in"]) -> UInt8[Tensor, "out half"]:
    """Values of −8 … 7, two in a byte, the first in the lower half."""
    codes = values.view(torch.uint8) & 0xF
    return codes[:, ::2] | codes[:, 1::2] << 4


def _unpacked(codes: UInt8[Tensor, "out half"]) -> Int8[Tensor, "out in"]:
    values = torch.stack([codes & 0xF, codes >> 4], dim=-1).flatten(1).view(torch.int8)
    # Two's complement of four bits.
    return (values ^ 8) - 8
