"""Laws of cutting a decoder before its weights are read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from slmrec_core.errors import CheckpointError, ConfigError
from slmrec_core.models import decoder as decoder_module
from slmrec_core.models.architecture import final_norm
from slmrec_core.models.attention import set_attention
from slmrec_core.models.backbone import Backbone, open_backbone
from slmrec_core.models.decoder import (
    chosen_layers,
    cut_config,
    empty_decoder,
    load_decoder,
)
from slmrec_core.models.lora import mlp_projections
from tests.tiny import GPT2, LLAMA, QWEN2, write_model_directory

INPUTS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))


def run(decoder: torch.nn.Module, inputs: torch.Tensor = INPUTS) -> Any:
    with torch.no_grad():
        return decoder.eval()(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)


def test_first_keeps_the_shallow_layers_and_every_ends_with_the_last() -> None:
    assert chosen_layers(30, 4, "first") == [0, 1, 2, 3]
    assert chosen_layers(30, 3, "every") == [9, 19, 29]
    # 1·8/3, 2·8/3 and 8, rounded down, from 1.
    assert chosen_layers(8, 3, "every") == [2 - 1, 5 - 1, 8 - 1]
    assert chosen_layers(8, 0, "every") == chosen_layers(8, 0, "first") == []


@given(total=st.integers(1, 80), data=st.data())
def test_chosen_layers_ascend_and_are_as_many_as_asked(total: int, data: st.DataObject) -> None:
    num_layers = data.draw(st.integers(1, total))
    every = chosen_layers(total, num_layers, "every")
    assert len(every) == num_layers
    assert every == sorted(set(every))
    assert every[-1] == total - 1
    assert chosen_layers(total, total, "every") == chosen_layers(total, total, "first")


def test_too_many_layers_raise_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="has 8 layers, got 9"):
        load_decoder(open_backbone("tiny"), 9)


@pytest.mark.parametrize("config", [LLAMA, QWEN2, GPT2], ids=["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_cut_decoder_gives_the_whole_ones_state_at_that_depth(
    tmp_path: Path, config: dict[str, object], num_layers: int
) -> None:
    whole = write_model_directory(tmp_path, config)
    cut = load_decoder(open_backbone(str(tmp_path)), num_layers)
    expected = run(whole).hidden_states[num_layers]
    assert_close(run(cut).last_hidden_state, final_norm(whole)(expected))
    for depth in range(num_layers):
        assert_close(run(cut).hidden_states[depth], run(whole).hidden_states[depth])


def test_every_kth_layer_carries_the_weights_of_its_place_in_the_whole(tmp_path: Path) -> None:
    whole = write_model_directory(tmp_path, LLAMA).state_dict()
    cut = load_decoder(open_backbone(str(tmp_path)), 3, "every").state_dict()
    for position, source in enumerate([1, 3, 5]):
        name = "layers.{}.mlp.down_proj.weight"
        assert_close(cut[name.format(position)], whole[name.format(source)])
    assert_close(cut["norm.weight"], whole["norm.weight"])


@pytest.mark.parametrize(("choice", "read"), [("first", {0, 1}), ("every", {2, 5})])
def test_only_the_chosen_layers_are_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Any, read: set[int]
) -> None:
    write_model_directory(tmp_path, LLAMA)
    names: list[str] = []

    class RecordingFile:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._file = safe_open(*args, **options)

        def __enter__(self) -> "RecordingFile":
            return self

        def __exit__(self, *error: object) -> None:
            return

        def keys(self) -> list[str]:
            return list(self._file.keys())

        def get_tensor(self, name: str) -> torch.Tensor:
            names.append(name)
            tensor: torch.Tensor = self._file.get_tensor(name)
            return tensor

    monkeypatch.setattr(decoder_module, "safe_open", RecordingFile)
    load_decoder(open_backbone(str(tmp_path)), 2, choice)
    assert {int(name.split(".")[2]) for name in names if ".layers." in name} == read
    assert "model.norm.weight" in names


def test_a_sharded_directory_equals_a_single_file(tmp_path: Path) -> None:
    write_model_directory(tmp_path / "one", LLAMA)
    write_model_directory(tmp_path / "many", LLAMA, shards=3)
    one, many = (load_decoder(open_backbone(str(tmp_path / name)), 4) for name in ("one", "many"))
    assert_close(one.state_dict(), many.state_dict())


def test_truncation_is_not_undone(tmp_path: Path) -> None:
    # Fault 10 of the authors' code: after the cut, the network was overwritten by a fresh one with all 32 layers.
    write_model_directory(tmp_path, LLAMA)
    assert len(load_decoder(open_backbone(str(tmp_path)), 2).layers) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_no_layers_leave_the_final_norm(tmp_path: Path, config: dict[str, object]) -> None:
    whole = write_model_directory(tmp_path, config)
    cut = load_decoder(open_backbone(str(tmp_path)), 0)
    assert_close(run(cut).last_hidden_state, final_norm(whole)(run(whole).hidden_states[0]))


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    load_decoder(open_backbone(str(tmp_path)), 1)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load_decoder(open_backbone(str(tmp_path)), 2)


def test_tensors_of_another_shape_are_damage(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "intermediate_size": 20}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_decoder(open_backbone(str(tmp_path)), 2)


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.float8_e4m3fn], ids=str)
def test_codes_of_quantised_tensors_are_never_taken_for_weights(tmp_path: Path, stored: torch.dtype) -> None:
    write_model_directory(tmp_path, LLAMA)
    name, tensors = "model.layers.1.mlp.up_proj.weight", load_file(tmp_path / "model.safetensors")
    save_file({**tensors, name: tensors[name].to(stored)}, tmp_path / "model.safetensors")
    load_decoder(open_backbone(str(tmp_path)), 1)
    with pytest.raises(ConfigError, match=rf"must be plain floating point, got {stored} in '{name}'"):
        load_decoder(open_backbone(str(tmp_path)), 2)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_plain_weights_of_any_width_are_read(tmp_path: Path, stored: torch.dtype) -> None:
    write_model_directory(tmp_path, LLAMA)
    name, tensors = "model.layers.0.mlp.up_proj.weight", load_file(tmp_path / "model.safetensors")
    save_file({**tensors, name: tensors[name].to(stored)}, tmp_path / "model.safetensors")
    decoder = load_decoder(open_backbone(str(tmp_path)), 1)
    assert_close(decoder.state_dict()[name.removeprefix("model.")], tensors[name].to(stored).to(torch.float32))


def test_damaged_weights_are_damage(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="Fetch the model again"):
        load_decoder(open_backbone(str(tmp_path)), 2)


def test_a_shard_that_is_not_there_is_damage(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA, shards=2)
    (tmp_path / "model-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Fetch the model again"):
        load_decoder(open_backbone(str(tmp_path)), 2)


def test_tiny_is_the_same_whatever_the_seed_and_leaves_it_alone() -> None:
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        states.append(load_decoder(open_backbone("tiny"), 2).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before)
    assert_close(states[0], states[1], atol=0.0, rtol=0.0)


def test_tiny_is_cut_as_any_other_decoder() -> None:
    # A bug of ours: every cut of it had weights of its own, so that first and every k-th layers were the same ones.
    whole = load_decoder(open_backbone("tiny"), 8).state_dict()
    for choice, sources in (("first", (0, 1)), ("every", (3, 7))):
        cut = load_decoder(open_backbone("tiny"), 2, choice).state_dict()  # type: ignore[arg-type]
        for position, source in enumerate(sources):
            assert_close(cut[f"layers.{position}.mlp.up_proj.weight"], whole[f"layers.{source}.mlp.up_proj.weight"])


def test_lists_with_an_entry_per_layer_are_cut_and_code_is_dropped() -> None:
    kinds = ["full", "sliding", "full", "sliding"]
    config: dict[str, object] = {"num_hidden_layers": 4, "layer_types": kinds, "eos_token_id": [1, 2], "auto_map": {}}
    cut = cut_config(config, [1, 3], total=4)
    assert cut == {"num_hidden_layers": 2, "layer_types": ["sliding", "sliding"], "eos_token_id": [1, 2]}


def test_layer_kinds_that_follow_from_the_index_are_those_of_the_layers_kept() -> None:
    # A bug of ours: Gemma works a layer's kind out from its index, and the cut decoder counted its layers anew.
    gemma = {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "sliding_window_pattern": 3}
    cut = load_decoder(Backbone("x", gemma, None), 2, "every")
    # Of six layers, every third attends to everything: the third and the last are kept.
    assert cut.config.layer_types == ["full_attention", "full_attention"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "frobnicator"},
        {**LLAMA, "hidden_size": "wide"},
        {**LLAMA, "hidden_act": "frobnicate"},
        {**LLAMA, "vocab_size": 4, "pad_token_id": 9},
    ],
    ids=["kind", "type", "value", "pair"],
)
def test_what_cannot_be_built_is_a_config_error(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"got .*|{config['model_type']}.*Name another model"):
        empty_decoder(config)


@pytest.mark.parametrize(("kind", "kernel"), [("llama", "sdpa"), ("gemma2", "eager"), ("bloom", "eager")])
def test_an_architecture_without_a_kernel_gets_the_next_plainer_one(kind: str, kernel: str) -> None:
    decoder = empty_decoder({**LLAMA, "model_type": kind, **({"head_dim": 8} if kind == "gemma2" else {})})
    for asked in ("sdpa", "flash_attention_2"):
        set_attention(decoder, asked)
        assert decoder.config._attn_implementation == kernel  # type: ignore[union-attr]
    set_attention(decoder, "eager")
    assert decoder.config._attn_implementation == "eager"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "config",
    [
        {**LLAMA, "is_causal": False},
        {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "use_bidirectional_attention": True},
    ],
    ids=["is_causal", "use_bidirectional_attention"],
)
def test_attention_that_looks_ahead_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    # A bug of ours: an embedding model saw the item that it was asked to predict.
    write_model_directory(tmp_path, config)
    for backbone in (open_backbone(str(tmp_path)), Backbone("x", config, None)):
        with pytest.raises(ConfigError, match="attention must be causal, got a .* in which a later item changes"):
            load_decoder(backbone, 2)
        load_decoder(backbone, 0)


def test_trying_the_attention_draws_no_random_numbers_and_keeps_the_mode() -> None:
    state = torch.random.get_rng_state()
    assert load_decoder(Backbone("x", {**GPT2, "attn_pdrop": 0.5}, None), 2).training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_decoder_without_a_final_norm_that_we_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="got a Linear without"):
        final_norm(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("config", "per_layer"), [(LLAMA, {"gate_proj", "up_proj", "down_proj"}), (GPT2, {"c_fc", "c_proj"})]
)
def test_mlp_projections_are_all_of_the_mlps_and_nothing_else(config: dict[str, object], per_layer: set[str]) -> None:
    backbone = Backbone("x", config, None)
    names = mlp_projections(load_decoder(backbone, 2), 2)
    assert len(names) == 2 * len(per_layer)
    assert {name.rsplit(".", 1)[1] for name in names} == per_layer
    assert all(".mlp." in name for name in names)
