"""The decoder's attention: transformers' own kernels, alone or over packed rows that share one template.

A packed kernel is the plain one with the template's keys and values, which stand at the head of row 0, put before those
of every row. Whether an architecture gives the same states that way is tried, not looked up.
"""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from slmrec_core.models.layout import Layout, packed_layout, padded_layout

logger = logging.getLogger(__name__)

_PACKED = "packed_"
_PACKED_KERNELS = ("eager", "sdpa")
_TEMPLATE, _LENGTHS = 2, (3, 1, 4)
"""A small batch that shows whether packed rows change anything."""
_TOLERANCE = 5.0e-5
"""Of what a history changes in its tokens' states. Rounding was 4e-6 of it at most in thirty layers of a trained model;
wrong positions were 5e-4 and a leak between histories 1e-3 in the mildest case, layers with fresh random weights."""
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an architecture raises that cannot run packed rows."""


@runtime_checkable
class DecoderCache(Protocol):
    """Keys and values of the tokens that a decoder has read; transformers' own."""

    def get_seq_length(self) -> int:
        """How many they are."""
        ...

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets as many of the newest tokens as the number is below 0."""
        ...


def set_attention(decoder: nn.Module, kernel: str, packed: bool = False) -> bool:
    """Sets the attention kernel, or the next plainer one where the architecture lacks it.

    Args:
        decoder: Whose kernel is set.
        kernel: `eager`, `sdpa` or `flash_attention_2`.
        packed: Wanted for packed rows.

    Returns:
        True = it takes packed rows. FlashAttention does not, because it takes no mask of ours.
    """
    for candidate in dict.fromkeys((kernel, "sdpa", "eager")):
        try:
            decoder.set_attn_implementation(candidate)  # type: ignore[operator]
        except (ValueError, ImportError):
            continue
        if packed and candidate in _PACKED_KERNELS:
            _register_packed_kernels()
            decoder.set_attn_implementation(f"{_PACKED}{candidate}")  # type: ignore[operator]
            return True
        break
    return False


def decoder_inputs(layout: Layout, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the decoder must be told of a layout beside the vectors; nothing where causal attention alone is right."""
    if not layout.is_packed:
        return {}
    return {"attention_mask": layout.attention_mask(dtype), "position_ids": layout.positions()}


@torch.no_grad()
def can_pack(decoder: nn.Module, width: int) -> bool:
    """True = packed rows give the states that each history has on its own; the log says it where they do not.

    They do not where layers are recurrent, or where an architecture works out positions by itself.

    Args:
        decoder: With its weights, in float32 on the CPU.
        width: Its hidden size.
    """
    length, random = torch.tensor(_LENGTHS), torch.Generator().manual_seed(0)
    template = torch.randn(_TEMPLATE, width, generator=random)
    tokens = torch.randn(sum(_LENGTHS), width, generator=random)

    def states(layout: Layout) -> Tensor:
        slots, _ = layout.history_tokens()
        inputs = torch.zeros(layout.num_rows * layout.width, width)
        inputs[layout.template_slots()] = template[: layout.template]
        inputs[slots] = tokens
        inputs = inputs.view(layout.num_rows, layout.width, width)
        set_attention(decoder, "eager", packed=layout.is_packed)
        output = decoder(inputs_embeds=inputs, use_cache=False, **decoder_inputs(layout, torch.float32))
        return output.last_hidden_state.flatten(0, 1)[slots]  # type: ignore[no-any-return]

    was_training = decoder.training
    decoder.eval()
    try:
        plain = states(padded_layout(length, _TEMPLATE))
        packed = states(packed_layout(length, _TEMPLATE))
        alone = states(padded_layout(torch.ones(len(tokens), dtype=torch.long), 0))
        gap, effect = float((plain - packed).abs().max()), float((plain - alone).abs().max())
    except _FAULTS as error:
        logger.info("%s takes no packed rows (%r): each history has a row of its own.", type(decoder).__name__, error)
        return False
    finally:
        decoder.train(was_training)
    packs = gap <= _TOLERANCE * effect
    if not packs:
        logger.info(
            "%s has other states in packed rows (gap %.1e of %.1e): each history has a row of its own.",
            type(decoder).__name__,
            gap,
            effect,
        )
    return packs


def longest_packed_row(decoder: nn.Module) -> float:
    """Keys that a packed row may have: a sliding window counts those of other histories too."""
    window = getattr(decoder.config, "sliding_window", None)
    return float("inf") if window is None else float(window)


def new_cache(decoder: nn.Module) -> DecoderCache:
    """An empty cache of keys and values, of the kind that the decoder's layers need."""
    # Slow to import, and processes that only read settings never get here.
    from transformers import DynamicCache  # noqa: PLC0415

    return DynamicCache(config=decoder.config)  # type: ignore[no-any-return]


@functools.cache
def _register_packed_kernels() -> None:
    # Slow to import, and processes that only read settings never get here.
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS  # noqa: PLC0415
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: PLC0415

    def own_eager(module: nn.Module, *states: Tensor | None, **options: Any) -> Any:
        # Each architecture has its own, with whatever is special about it.
        return sys.modules[type(module).__module__].eager_attention_forward(module, *states, **options)

    for kernel, attention in (("eager", own_eager), ("sdpa", ALL_ATTENTION_FUNCTIONS["sdpa"])):
        AttentionInterface.register(f"{_PACKED}{kernel}", _behind_one_template(attention))
        AttentionMaskInterface.register(f"{_PACKED}{kernel}", ALL_MASK_ATTENTION_FUNCTIONS[kernel])


def _behind_one_template(attention: Callable[..., Any]) -> Callable[..., Any]:
    def packed(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Any:
        # The mask has a column for each token of the template beside those of the row.
        template = 0 if attention_mask is None else attention_mask.shape[-1] - key.shape[-2]
        if template:
            key, value = (torch.cat([s[:1, :, :template].expand(len(s), -1, -1, -1), s], dim=2) for s in (key, value))
        return attention(module, query, key, value, attention_mask, **options)

    return packed
