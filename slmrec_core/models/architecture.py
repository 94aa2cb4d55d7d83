"""What is known of Hugging Face's architectures by name: how deep a model is, and where it keeps layers and final norm.

All else is tried on the model itself: whether attention is causal, whether rows may be packed, whether the last MLP may
be run where it is read. An architecture that is none of these gets the plain path, or an error that says what cannot be
done with it.
"""

import re
from typing import NamedTuple

from torch import nn

from slmrec_core.errors import ConfigError

_DEPTHS = ("num_hidden_layers", "n_layer")
_LAYER_NAME = re.compile(r"^(?P<head>(?:.*\.)?(?:layers|h|blocks)\.)(?P<index>\d+)\.(?P<tail>.+)$")
_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
_MLP = "mlp"
_USE = "Name a decoder: Llama, Qwen, Gemma, Mistral, GPT-2 and GPT-NeoX have been tried, see docs/backbones.md."


class LayerName(NamedTuple):
    """The name of a module or a parameter of a layer, in parts."""

    head: str
    """Up to the index, with its dot."""
    layer: int
    """From 0."""
    tail: str
    """What follows the index."""


def layer_name(name: str) -> LayerName | None:
    """A name's parts; None = it belongs to no layer: embeddings, final norm."""
    match = _LAYER_NAME.match(name)
    return None if match is None else LayerName(match["head"], int(match["index"]), match["tail"])


def depth_key(config: dict[str, object], name: str) -> str:
    """The setting of `config.json` that holds the number of layers.

    Args:
        config: The content of `config.json`.
        name: Of the backbone, for the errors.

    Raises:
        ConfigError: The model is no decoder of text, or says nowhere that we know how deep it is.
    """
    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise ConfigError(
            f"backbone {name}: must be a decoder, got a {kind!r} of an encoder and a decoder: it cannot be cut or"
            f" probed. {_USE}"
        )
    for key in _DEPTHS:
        if isinstance(config.get(key), int):
            return key
    if "text_config" in config:
        raise ConfigError(
            f"backbone {name}: must be a decoder of text alone, got a {kind!r} with a text_config: it cannot be cut or"
            " probed as it is. Save its text model in a directory of its own and name that."
        )
    raise ConfigError(
        f"backbone {name}: config.json must name its number of layers, one of {_DEPTHS}, got a {kind!r} with"
        f" neither: it cannot be cut or probed. {_USE}"
    )


def final_norm(decoder: nn.Module) -> nn.Module:
    """The norm after the last layer, whatever the architecture calls it.

    Raises:
        ConfigError: The architecture has none under a name that we know.
    """
    for name in _FINAL_NORMS:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise ConfigError(
        f"backbone: the final norm must be one of {_FINAL_NORMS}, got a {type(decoder).__name__} without:"
        f" it cannot be cut or probed. {_USE}"
    )


def mlps(decoder: nn.Module) -> dict[int, str]:
    """Full name of the MLP of each layer, by layer, for the layers that have one."""
    parts = ((name, layer_name(name)) for name, _ in decoder.named_modules())
    return {part.layer: name for name, part in parts if part is not None and part.tail == _MLP}


def num_positions(decoder: nn.Module) -> float:
    """Tokens of one history that a decoder can tell apart; infinite unless it looks positions up in a table, as GPT-2
    does.

    Args:
        decoder: Without its vocabulary.
    """
    has_table = any(isinstance(module, nn.Embedding) for module in decoder.modules())
    known = getattr(decoder.config, "max_position_embeddings", None) if has_table else None
    return float("inf") if known is None else float(known)
