"""The last layer's MLP where it is read, against the plain path where it is run everywhere."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.last_mlp import last_mlp, only_at
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from tests.tiny import GPT2, LLAMA, QWEN2, jolted, some_batch, tiny_model

BLOOM = {"model_type": "bloom", "vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_hidden_layers": 2, "num_local_experts": 2, "num_experts_per_tok": 1}


def model_of(config: dict[str, object], item_table: Tensor) -> RecommenderModel:
    torch.manual_seed(0)
    settings = RecommenderConfig(num_layers=2, tuning="full")
    cut = {**config, "n_layer" if "n_layer" in config else "num_hidden_layers": 2}
    return jolted(RecommenderModel(settings, empty_decoder(cut), Prompt((1, 2), ()), item_table)).eval()


@pytest.mark.parametrize("config", [LLAMA, QWEN2, GPT2, MIXTRAL], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_states_and_gradients_equal_the_plain_path(
    item_table: Tensor, config: dict[str, object], layers: tuple[int, ...]
) -> None:
    model, batch = model_of(config, item_table), some_batch(num_users=4, seq=8)
    last = batch.read_mask & (batch.read_mask.cumsum(dim=1) == batch.read_mask.sum(dim=1, keepdim=True))
    found = []
    name = model._last_mlp
    assert name is not None
    for used in (name, None):
        model._last_mlp = used
        model.zero_grad()
        states = model(batch.item_ids, last, layers)
        (states.user_vectors.square().sum() + sum(s.sum() for s in states.layers.values())).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((states.user_vectors.detach(), states.layers, gradients))
    assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_mlp_is_run_at_as_many_positions_as_are_read(item_table: Tensor) -> None:
    model, batch = tiny_model(item_table), some_batch(num_users=4, seq=8)
    sizes: list[int] = []
    first, last = (model.decoder.layers[layer].mlp for layer in (0, 1))
    first.act_fn.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[:-1].numel()))
    last.act_fn.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[:-1].numel()))
    few = torch.zeros_like(batch.read_mask)
    few[0, 2] = True
    with torch.no_grad():
        model(batch.item_ids, few)
        model(batch.item_ids, batch.read_mask)
    assert sizes[1] == 1 < sizes[0]
    assert sizes[3] == batch.read_mask.sum() < sizes[2]
    assert not last._forward_pre_hooks, "the hooks are gone after the pass"


@pytest.mark.parametrize("config", [BLOOM], ids=lambda config: config["model_type"])
def test_an_mlp_that_asks_for_more_than_states_is_left_alone(config: dict[str, object]) -> None:
    assert last_mlp(empty_decoder(config), 2, 16) is None


def test_an_mlp_that_looks_at_its_neighbours_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    decoder = empty_decoder({**LLAMA, "num_hidden_layers": 2})

    class Shifted(torch.nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            return states + states.roll(1, dims=1)

    decoder.layers[1].mlp = Shifted()
    with caplog.at_level("INFO"):
        assert last_mlp(decoder, 2, 16) is None
    assert "run at every position" in caplog.text


def test_without_layers_there_is_no_mlp() -> None:
    assert last_mlp(empty_decoder({**LLAMA, "num_hidden_layers": 0}), 0, 16) is None


def test_only_at_gives_zero_elsewhere() -> None:
    layer, states = torch.nn.Linear(3, 3), torch.randn(2, 4, 3)
    read = torch.tensor([5, 2])
    with only_at(layer, read):
        found = layer(states).flatten(0, 1)
    assert_close(found[read], layer(states).flatten(0, 1)[read])
    assert not found[[0, 1, 3, 4, 6, 7]].any()
    assert layer(states).any()
