"""Laws of compression: what stays is exactly what was, and the rest is what its definition says."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torchao.utils import should_reduce_range

from slmrec_core.compression import CompressionConfig, block_influence, compress, prune_linear
from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.models.decoder import final_norm
from slmrec_core.models.quantization import quantize_linear
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.recommender import Recommender
from tests.tiny import GPT2, jolted, tiny_model, write_config, write_model_directory

CATALOGUE = ["", *(f"item-{index}" for index in range(1, 13))]
HISTORIES = [["item-3", "item-5"], ["item-1"], [f"item-{index}" for index in (2, 4, 6, 8, 10, 12, 1)]]


def recommender(item_table: Tensor, num_layers: int = 4, **settings: object) -> Recommender:
    model = jolted(tiny_model(item_table, num_layers=num_layers, **settings))  # type: ignore[arg-type]
    return Recommender(model, CATALOGUE, 5, {"seed": 3})


def scores(model: Recommender) -> np.ndarray:
    # Of all items, in the catalogue's order.
    vectors = torch.from_numpy(model.embed_users(HISTORIES))
    return model.network.score(vectors)[:, 1:].detach().numpy()


def matrices(model: Recommender) -> list[Tensor]:
    return [m.weight for m in model.network.decoder.modules() if isinstance(m, nn.Linear)]  # type: ignore[union-attr]


def test_the_defaults_merge_the_updates_and_change_nothing_else(item_table: Tensor) -> None:
    before = recommender(item_table)
    expected = scores(before)
    after = compress(before, CompressionConfig())
    np.testing.assert_allclose(scores(after), expected, atol=1e-5)
    assert not [name for name, _ in after.network.named_parameters() if "lora" in name]
    # The model that was given is as it was.
    assert [name for name, _ in before.network.named_parameters() if "lora" in name]
    assert np.array_equal(scores(before), expected)


@pytest.mark.parametrize("weights", ["int8", "int8_dynamic", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_weights_are_within_half_a_step_of_what_they_were(
    item_table: Tensor, weights: str, dtype: torch.dtype
) -> None:
    plain = compress(recommender(item_table, dtype=dtype), CompressionConfig())
    rounded = compress(recommender(item_table, dtype=dtype), CompressionConfig.model_validate({"weights": weights}))
    for exact, stored in zip(matrices(plain), matrices(rounded), strict=True):
        near = stored.dequantize().float()  # type: ignore[operator]
        # By hand: a step is the largest weight of a scale's group over the largest code of its sign.
        group, codes = (32, 7.5) if weights == "int4" else (exact.shape[1], 127.5)
        if weights == "int8_dynamic" and should_reduce_range(torch.device("cpu")):
            # Without VNNI a CPU adds products of eight bits in sixteen: a bit less and none of them overflows.
            codes = 63.5
        grouped = exact.detach().float().unflatten(1, (-1, group))
        step = grouped.abs().amax(dim=2, keepdim=True) / codes
        # bfloat16 stores the scale and the product with eight bits of its own.
        slack = 1.02 if dtype == torch.float32 else 1.2
        assert ((near.unflatten(1, (-1, group)) - grouped).abs() <= slack * step / 2 + 1e-2 * grouped.abs()).all()
        assert not torch.equal(near, exact.detach().float())


@pytest.mark.parametrize("weights", ["int8", "int8_dynamic", "int4"])
def test_rounded_models_answer_nearly_as_before(item_table: Tensor, weights: str) -> None:
    before = recommender(item_table)
    after = compress(before, CompressionConfig.model_validate({"weights": weights}))
    gap = np.abs(scores(after) - scores(before)).max() / np.abs(scores(before)).max()
    assert 0 < gap < (0.25 if weights == "int4" else 0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": "int8"},
        {"weights": "int8_dynamic"},
        {"weights": "int4"},
        {"pruning": "unstructured", "sparsity": 0.7},
        {"pruning": "2:4", "weights": "int8"},
        {"keep_layers": 2, "weights": "int4"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compressed_model_is_saved_and_loaded_and_serves_like_any_other(
    item_table: Tensor, tmp_path: Path, settings: dict[str, object], dtype: torch.dtype
) -> None:
    after = compress(recommender(item_table, dtype=dtype), CompressionConfig.model_validate(settings), HISTORIES)
    after.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert np.array_equal(scores(again), scores(after))
    assert again.metadata == after.metadata
    assert again.metadata["compression"] == CompressionConfig.model_validate(settings).model_dump()
    assert again.network.parameter_counts() == after.network.parameter_counts()
    session = again.session()
    for item in HISTORIES[0]:
        session.append(item)
    one, other = session.recommend(k=3), again.recommend(HISTORIES[:1], k=3)
    # Inputs that are rounded for each position make no difference between a session and a whole history.
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3 if dtype == torch.float32 else 0.1)


def test_four_bits_take_half_a_byte_in_the_file(item_table: Tensor, tmp_path: Path) -> None:
    sizes = {}
    for weights in ("float", "int8", "int4"):
        config = CompressionConfig.model_validate({"weights": weights})
        compress(recommender(item_table), config).save_pretrained(tmp_path / weights)
        sizes[weights] = sum(t.nbytes for t in load_file(tmp_path / weights / "model.safetensors").values())
    merged = matrices(recommender(item_table).merge_lora())
    num_weights, outputs = sum(matrix.numel() for matrix in merged), sum(len(matrix) for matrix in merged)
    # float32: 4 bytes; int8: 1 and 5 for each output; int4: 1/2 and 5 for every 32.
    assert sizes["float"] - sizes["int8"] == 3 * num_weights - 5 * outputs
    assert sizes["float"] - sizes["int4"] == (3.5 - 5 / 32) * num_weights


@given(
    weights=st.lists(st.integers(-30, 30), min_size=24, max_size=24),
    pruning=st.sampled_from(["unstructured", "2:4"]),
    sparsity=st.sampled_from([0.25, 0.5, 0.75]),
)
@settings(deadline=None, max_examples=40)
def test_pruning_keeps_the_largest_weights_as_they_are(weights: list[int], pruning: str, sparsity: float) -> None:
    network = nn.Sequential(nn.Linear(8, 3, bias=False))
    before = torch.tensor(weights, dtype=torch.float32).view(3, 8)
    network[0].weight = nn.Parameter(before.clone())
    prune_linear(network, pruning, sparsity)  # type: ignore[arg-type]
    after = network[0].weight.detach()
    assert torch.equal(after[after != 0], before[after != 0])
    # The slow way: sort each group, of all weights or of every four inputs of an output.
    groups, zeros = (before.view(1, -1), round(sparsity * 24)) if pruning == "unstructured" else (before.view(-1, 4), 2)
    kept = groups.abs().sort(dim=1).values[:, zeros:]
    found = after.view(groups.shape).abs().sort(dim=1).values
    assert torch.equal(found[:, zeros:], kept)
    assert (found[:, :zeros] == 0).all()


def _slow_influence(network: RecommenderModel, histories: Sequence[Sequence[int]]) -> list[float]:
    turned = np.zeros(network.num_layers)
    for history in histories:
        ids = torch.tensor([history[-5:]])
        read = torch.arange(ids.shape[1])[None] == ids.shape[1] - 1
        with final_norm(network.decoder).register_forward_hook(lambda norm, inputs, output: inputs[0]):
            states = network(ids, read, tuple(range(network.num_layers + 1))).layers
        for layer in range(network.num_layers):
            one, other = states[layer][0], states[layer + 1][0]
            turned[layer] += 1 - float(one @ other / one.norm() / other.norm())
    return list(turned / len(histories))


@torch.no_grad()
def test_influence_is_the_mean_turn_of_a_user_and_decides_which_layers_stay(item_table: Tensor) -> None:
    before = recommender(item_table)
    network = before.network
    assert isinstance(network, RecommenderModel)
    columns = [before.catalogue.known(history, "it")[0] for history in HISTORIES]
    influence = block_influence(network, columns, 5)
    np.testing.assert_allclose(influence, _slow_influence(network, columns), atol=1e-5)
    two = sorted(np.argsort(influence)[-2:].tolist())
    after = compress(before, CompressionConfig(keep_layers=2), HISTORIES).network
    assert isinstance(after, RecommenderModel)
    merged = compress(before, CompressionConfig()).network
    for new, old in enumerate(two):
        for name, tensor in after.decoder.get_submodule(f"layers.{new}").state_dict().items():
            assert torch.equal(tensor, merged.decoder.get_submodule(f"layers.{old}").state_dict()[name])


def test_the_first_layers_are_a_shallower_model_with_the_same_weights(item_table: Tensor) -> None:
    after = compress(recommender(item_table), CompressionConfig(keep_layers=2, keep="first"))
    other = recommender(item_table).merge_lora()
    theirs = other.network.state_dict()
    assert after.network.config.num_layers == 2  # type: ignore[union-attr]
    for name, tensor in after.network.state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_what_cannot_be_compressed_says_so(item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sasrec = Recommender(SASRec(SASRecConfig(item_dim=8), 12, 5), CATALOGUE, 5)
    with pytest.raises(ConfigError, match="takes a language model with weights in floating point, got SASRec"):
        compress(sasrec, CompressionConfig())
    whole = recommender(item_table)
    with pytest.raises(ConfigError, match=r"must be at most the model's 4 layers, got 5"):
        compress(whole, CompressionConfig(keep_layers=5))
    with pytest.raises(DataError, match="'influence' reads histories, got none with an item"):
        compress(whole, CompressionConfig(keep_layers=2), [["unheard of"]])
    rounded = compress(whole, CompressionConfig(weights="int8"))
    with pytest.raises(ConfigError, match="got one of int8 weights"):
        compress(rounded, CompressionConfig())
    bare = recommender(item_table, num_layers=0)
    for config in (CompressionConfig(weights="int8"), CompressionConfig(pruning="2:4")):
        with pytest.raises(ConfigError, match="got a LlamaModel without"):
            compress(bare, config)
    with pytest.raises(ConfigError, match="multiple of 32, got 6"):
        quantize_linear(nn.Sequential(nn.Linear(6, 2)), "int4")
    with pytest.raises(ConfigError, match="got maps with 6 inputs"):
        prune_linear(nn.Sequential(nn.Linear(6, 2)), "2:4")
    rounded.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    write_config(tmp_path, {**config, "weight_format": "int4"})
    with pytest.raises(CheckpointError, match="cannot be read"):
        Recommender.from_pretrained(tmp_path)


def test_gpt2_says_that_its_maps_are_no_linear_ones(
    item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slmrec_core.models.backbone import Backbone  # noqa: PLC0415

    write_model_directory(tmp_path / "gpt2", GPT2)
    directory = Backbone("gpt2", GPT2, tmp_path / "gpt2")
    monkeypatch.setattr("tests.tiny.open_backbone", lambda name: directory)
    with pytest.raises(ConfigError, match="got a GPT2Model without"):
        compress(recommender(item_table, num_layers=2), CompressionConfig(weights="int8"))
