"""What is known of architectures by name, and what is said of those that cannot be cut."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmrec_core.errors import CheckpointError, ConfigError
from slmrec_core.models.architecture import layer_name, mlps
from slmrec_core.models.backbone import Backbone, open_backbone
from slmrec_core.models.decoder import empty_decoder, load_decoder
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.recommender import Recommender
from tests.tiny import GPT2, LLAMA, write_model_directory


def test_names_are_taken_apart_at_the_layers_index() -> None:
    assert layer_name("model.layers.12.mlp.up_proj.weight") == ("model.layers.", 12, "mlp.up_proj.weight")
    assert layer_name("h.0.attn.c_attn.bias") == ("h.", 0, "attn.c_attn.bias")
    assert layer_name("norm.weight") is None
    assert layer_name("layers.3") is None, "the layer itself is no part of it"


def test_mlps_are_found_by_layer() -> None:
    assert mlps(empty_decoder({**GPT2, "n_layer": 2})) == {0: "h.0.mlp", 1: "h.1.mlp"}
    jamba = empty_decoder({**LLAMA, "model_type": "jamba", "num_experts": 2, "mamba_d_state": 4})
    assert mlps(jamba) == {}, "it calls them otherwise"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "t5", "num_layers": 2}, "must be a decoder, got a 't5' of an encoder and a decoder"),
        ({"model_type": "bart"}, "must be a decoder, got a 'bart' of an encoder and a decoder"),
        ({"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2}, "got a MambaModel without"),
        ({"model_type": "rwkv", "hidden_size": 16, "num_hidden_layers": 2}, "got a RwkvModel without"),
        ({"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2}, "got a BertModel without"),
        ({"model_type": "opt", "hidden_size": 16, "num_attention_heads": 2}, "got a OPTModel without"),
        ({"model_type": "gpt_neo", "num_layers": 24}, "number of layers.* got a 'gpt_neo'"),
        ({"model_type": "gemma3"}, "a decoder of text alone, got a 'gemma3' with a text_config"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_what_cannot_be_cut_is_refused_in_one_message(settings: dict[str, object], reason: str) -> None:
    # As transformers itself writes config.json.
    config = json.loads(transformers.AutoConfig.for_model(**settings).to_json_string())
    if settings["model_type"] != "gemma3":
        config["vocab_size"] = 64
    with pytest.raises(ConfigError, match=rf"{reason}.*it cannot be cut or probed.* (Name|Save) ") as raised:
        load_decoder(Backbone("x", config, None), 2)
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


def test_experts_that_are_stored_one_by_one_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_model_directory(tmp_path, {**LLAMA, "model_type": "mixtral", "num_local_experts": 2})
    load_decoder(open_backbone(str(tmp_path)), 1)
    tensors = load_file(tmp_path / "model.safetensors")
    # The names that Mixtral's own files have.
    renamed = {name.replace(".mlp.experts.", ".block_sparse_moe.experts.0."): value for name, value in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="experts of a mixture one by one: such a model cannot be cut"):
        load_decoder(open_backbone(str(tmp_path)), 1)


def test_a_history_beyond_learned_positions_is_refused_and_rotary_ones_have_no_end(item_table: Tensor) -> None:
    # A bug of ours: an index error out of transformers, and on a GPU the end of the process.
    config, ids = RecommenderConfig(num_layers=1), torch.arange(1, 7)[None]
    model = RecommenderModel.from_backbone(config, Backbone("x", {**GPT2, "n_positions": 66}, None), item_table).eval()
    room = 66 - len(model.prompt.before)
    assert room == 5
    model(ids[:, :room], ids[:, :room] == room)
    message = r"a GPT2Model with 66 positions has room for 5 items .* got a history of 67 tokens. Lower max_seq_len"
    with pytest.raises(ConfigError, match=message):
        model(ids, ids == room + 1)
    session = Recommender(model, ["", *(f"i{n}" for n in range(1, 13))], 50).session([f"i{n}" for n in range(1, 6)])
    session.recommend()
    session.append("i6")
    with pytest.raises(ConfigError, match=message):
        session.recommend()
    rotary = Backbone("x", {**LLAMA, "max_position_embeddings": 66}, None)
    RecommenderModel.from_backbone(config, rotary, item_table)(ids, ids == room + 1)
