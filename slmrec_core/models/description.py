"""A network as JSON values, from which it is built again without its backbone; copies with fewer layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from slmrec_core.errors import ConfigError
from slmrec_core.models.decoder import cut_config, empty_decoder, place_of
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.models.sasrec import SASRec, SASRecConfig

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def describe(network: RecommenderModel | SASRec) -> dict[str, Any]:
    """All but the weights."""
    if isinstance(network, SASRec):
        return {"kind": "sasrec", "network": network.config.model_dump(mode="json")}
    decoder = network.decoder.config.to_dict()  # type: ignore[union-attr, operator]
    return {
        "kind": "llm",
        "network": network.config.model_dump(mode="json"),
        "decoder": {key: value for key, value in decoder.items() if _is_architecture(key)},
        "vocab_size": network.vocab_size,
        "prompt": {"before": network.prompt.before, "after": network.prompt.after},
        "compute_dtype": str(network.compute_dtype).removeprefix("torch."),
        "weight_format": network.weight_format,
    }


def rebuild(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> RecommenderModel | SASRec:
    """The network that was described, with random weights, of the shapes that a saved state has.

    Raises:
        ConfigError: It describes no network.
    """
    if described["kind"] == "sasrec":
        rows, _ = state["item_embedding.weight"].shape
        positions = state["position_embedding.weight"].shape[0]
        return SASRec(SASRecConfig.model_validate(described["network"]), rows - 1, positions)
    if described["kind"] != "llm":
        raise ConfigError(f"model: kind must be 'llm' or 'sasrec', got {described['kind']!r}.")
    prompt = described["prompt"]
    if not isinstance(prompt, dict):
        raise ConfigError(f"model: prompt must hold token ids before and after the items, got {prompt!r}.")
    # The vocabulary is not saved: only the template's rows of it are ever read, and these are in the state.
    # transformers would warn of special tokens outside it.
    no_vocabulary = {"vocab_size": 1, **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))}
    network = RecommenderModel(
        RecommenderConfig.model_validate(described["network"]),
        empty_decoder({**described["decoder"], **no_vocabulary}),
        Prompt(tuple(prompt["before"]), tuple(prompt["after"])),
        state["item_table"],
        _DTYPES[described["compute_dtype"]],
    )
    network.vocab_size = int(described["vocab_size"])
    if not any("lora_" in name for name in state):
        network.merge_lora()
    network.quantize(described["weight_format"])
    return network


def with_layers(network: RecommenderModel, layers: Sequence[int]) -> RecommenderModel:
    """A copy with some layers of the decoder, in eval mode; nothing else differs.

    Args:
        network: Not quantised.
        layers: Indices from 0, ascending.
    """
    described = describe(network)
    described["decoder"] = cut_config(described["decoder"], [*layers], network.num_layers)
    described["network"] = described["network"] | {"num_layers": len(layers)}
    placed = {place_of(name, [*layers]): tensor for name, tensor in network.state_dict().items()}
    state = {name: tensor for name, tensor in placed.items() if name is not None}
    copy = rebuild(described, state)
    assert isinstance(copy, RecommenderModel)
    copy.load_state_dict(state)
    return copy.to(network.item_table.device).eval()


def _is_architecture(key: str) -> bool:
    return not key.startswith("_") and key not in ("dtype", "torch_dtype", "transformers_version", "architectures")
