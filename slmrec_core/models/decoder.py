"""A decoder cut to some of its layers before its weights are read."""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from slmrec_core.errors import CheckpointError, ConfigError, SLMRecError
from slmrec_core.models.architecture import depth_key, final_norm, layer_name
from slmrec_core.models.backbone import Backbone
from slmrec_core.models.quantization import import_torchao

LayerChoice = Literal["first", "every"]

_BUILD_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What transformers raises for a configuration that makes no sense."""
_TRIED_POSITIONS = 4
_CAUSAL_TOLERANCE = 1.0e-4
"""Relative; rounding differs by less even where a mixture sends other tokens through an expert."""
_PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def chosen_layers(total: int, num_layers: int, choice: LayerChoice) -> list[int]:
    """Indices of the layers that are kept.

    `first`: 0 … num_layers − 1, the paper's cut. `every`: evenly spaced, the last one always among them.

    Raises:
        ConfigError: The backbone has fewer layers than are asked for.
    """
    if num_layers > total:
        raise ConfigError(f"num_layers: the backbone has {total} layers, got {num_layers}. Ask for {total} or fewer.")
    if choice == "first":
        return list(range(num_layers))
    return [(k + 1) * total // num_layers - 1 for k in range(num_layers)]


def load_decoder(
    backbone: Backbone,
    num_layers: int,
    choice: LayerChoice = "first",
    weights: Literal["pretrained", "random"] = "pretrained",
) -> nn.Module:
    """The decoder in float32, with the backbone's weights in the layers that are kept.

    Only the chosen layers are read from disk, so a four-layer student of a 7B model never holds the others.

    Args:
        backbone: Where it comes from.
        num_layers: How many are kept.
        choice: Which.
        weights: `random` = none are read; they are as the architecture initialises them, from torch's generator as it
            stands, which is left as it was.

    Raises:
        ConfigError: Too many layers, an architecture whose final norm we cannot find, quantised weights, or attention
            that looks ahead.
        CheckpointError: The files are damaged, or lack a tensor that the architecture needs.
    """
    total = backbone.num_layers
    layers = chosen_layers(total, num_layers, choice)
    config = full_config(backbone.config)
    with torch.random.fork_rng(devices=[]):
        decoder = empty_decoder(cut_config(config, layers, total))
        # `tiny` means the same weights everywhere, whatever the experiment's seed.
        torch.manual_seed(0)
        whole = empty_decoder(config) if backbone.directory is None and weights == "pretrained" else None
    if weights == "random":
        return decoder
    if whole is not None:
        placed = {place_of(name, layers): tensor for name, tensor in whole.state_dict().items()}
        decoder.load_state_dict({name: tensor for name, tensor in placed.items() if name is not None})
    elif backbone.directory is not None:
        try:
            _read_weights(decoder, backbone.directory, layers)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, SLMRecError):
                raise
            raise CheckpointError(
                f"backbone {backbone.directory}: its weights cannot be read, got {error!r}. Fetch the model again."
            ) from error
    _require_causal(decoder, backbone.name)
    return decoder


def full_config(config: dict[str, object]) -> dict[str, object]:
    """A configuration with every default of its architecture written out.

    Some architectures work out each layer's kind from its index: that must happen before layers are cut.

    Raises:
        ConfigError: transformers does not know the architecture, or refuses a value.
    """
    return _built_config(config).to_dict()  # type: ignore[no-any-return, attr-defined]


def empty_decoder(config: dict[str, object]) -> nn.Module:
    """A decoder of a configuration, with random weights, in float32.

    Raises:
        ConfigError: transformers cannot build the architecture, or we do not find its final norm.
    """
    # transformers and PEFT would import it as well, loudly.
    import_torchao()
    # Slow to import, and processes that only read settings never get here.
    from transformers import AutoModel  # noqa: PLC0415

    built = _built_config(config)
    try:
        decoder: nn.Module = AutoModel.from_config(built, dtype=torch.float32, trust_remote_code=False)
    except _BUILD_FAULTS as error:
        raise ConfigError(
            f"backbone: transformers must be able to build a {config.get('model_type')!r} of these settings,"
            f" got {error!r}. Name another model, or mend its config.json."
        ) from error
    final_norm(decoder)
    return decoder


def cut_config(config: dict[str, object], layers: list[int], total: int) -> dict[str, object]:
    """The configuration of the kept layers; lists with an entry per layer (attention kinds) are cut with them."""
    dropped = ("auto_map", "quantization_config", "transformers_version", "architectures", "dtype", "torch_dtype")
    cut = {
        key: [value[i] for i in layers] if isinstance(value, list) and len(value) == total and total > 1 else value
        for key, value in config.items()
        if key not in dropped
    }
    cut[depth_key(config, str(config.get("model_type")))] = len(layers)
    return cut


def _built_config(config: dict[str, object]) -> object:
    # Slow to import, and processes that only read settings never get here.
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        return AutoConfig.for_model(**config)
    except (*_BUILD_FAULTS, StrictDataclassError) as error:
        raise ConfigError(
            f"backbone: config.json must describe a model that transformers knows, got model_type"
            f" {config.get('model_type')!r}: {error}. Name another model, or mend its config.json."
        ) from error


@torch.no_grad()
def _require_causal(decoder: nn.Module, name: str) -> None:
    """Two inputs that differ in their last position alone must agree before it, or a target would be read, not guessed.

    Tried rather than looked up: each architecture has its own switch for attention in both directions.
    """
    width = decoder.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    one = torch.randn(1, _TRIED_POSITIONS, width, generator=torch.Generator().manual_seed(0))
    other = torch.cat([one[:, :-1], one[:, :1]], dim=1)
    was_training = decoder.training
    decoder.eval()
    try:
        states = decoder(inputs_embeds=torch.cat([one, other]), use_cache=False).last_hidden_state[:, :-1]
    except _BUILD_FAULTS as error:
        raise ConfigError(
            f"backbone {name}: must read vectors in place of tokens, got {error!r} from a {type(decoder).__name__}."
            " Name a decoder-only model."
        ) from error
    decoder.train(was_training)
    gap = float((states[0] - states[1]).abs().max() / states.abs().max().clamp_min(1e-9))
    if gap > _CAUSAL_TOLERANCE:
        raise ConfigError(
            f"backbone {name}: attention must be causal, got a {type(decoder).__name__} in which a later item changes"
            f" earlier states by {gap:.1e} of their size. Name a decoder, not an encoder or embedding model."
        )


def _read_weights(decoder: nn.Module, directory: Path, layers: list[int]) -> None:
    wanted = decoder.state_dict()
    prefix = f"{getattr(decoder, 'base_model_prefix', '')}."
    found: dict[str, torch.Tensor] = {}
    for file in _weight_files(directory):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # safe_open is no mapping
                name = place_of(key.removeprefix(prefix), layers)
                if name in wanted:
                    found[name] = _plain(tensors.get_tensor(key), key, directory)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise CheckpointError(
            f"backbone {directory}: tensors of a {type(decoder).__name__} are missing, got {len(found)} of"
            f" {len(wanted)}, without {missing[:3]}. Its files do not fit its config.json, or they hold the experts of"
            " a mixture one by one: such a model cannot be cut, name a dense one."
        )
    decoder.load_state_dict(found)


def _plain(tensor: torch.Tensor, key: str, directory: Path) -> torch.Tensor:
    """A stored tensor in float32; the codes of a quantised one are numbers, too, and would pass for weights."""
    if tensor.dtype not in _PLAIN_DTYPES:
        raise ConfigError(
            f"backbone {directory}: weights must be plain floating point, got {tensor.dtype} in {key!r}."
            " Name the unquantised model, or its GGUF file."
        )
    return tensor.to(torch.float32)


def place_of(name: str, layers: list[int]) -> str | None:
    """Where a tensor of the whole decoder stands in the cut one; None = its layer is not kept."""
    part = layer_name(name)
    if part is None:
        return name
    return f"{part.head}{layers.index(part.layer)}.{part.tail}" if part.layer in layers else None


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        return [directory / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"backbone: the directory must hold *.safetensors, got {directory}.")
    return files
