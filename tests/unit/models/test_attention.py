"""Packed rows against the plain path: every history alone, in a row of its own."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.models.attention import can_pack, set_attention
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from tests.tiny import GPT2, LLAMA, QWEN2, jolted, tiny_model

ITEM_IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 0, 0, 0, 0], [7, 8, 9, 0, 0], [2, 2, 0, 0, 0]])
LAYERS = (0, 1, 2)


def gradients(model: RecommenderModel, packed: bool, pooling: str) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """Gradients of every trained weight, and the states, in one of the two layouts."""
    model._can_pack, model._kernel = packed, None
    read_mask = ITEM_IDS != 0
    if pooling == "response":
        read_mask = read_mask & (read_mask.long().cumsum(1) == read_mask.sum(1, keepdim=True))
    output = model(ITEM_IDS, read_mask, LAYERS)
    loss = output.user_vectors.square().sum() + sum(state.float().sin().sum() for state in output.layers.values())
    model.zero_grad()
    loss.backward()
    assert model._packs is packed
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, output.layers


@pytest.mark.parametrize("pooling", ["item", "response"])
@pytest.mark.parametrize("template", ["question", "alpaca"])
def test_states_and_gradients_equal_the_plain_path(item_table: Tensor, pooling: str, template: str) -> None:
    model = jolted(tiny_model(item_table, pooling=pooling, template=template))
    plain, packed = gradients(model, False, pooling), gradients(model, True, pooling)
    assert plain[0].keys() == packed[0].keys()
    assert len(plain[0]) > 2
    for ours, theirs in zip(packed, plain, strict=True):
        for name in theirs:
            assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)  # type: ignore[index]


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        (LLAMA, True),
        (QWEN2, True),
        (GPT2, True),
        ({**LLAMA, "model_type": "gemma2", "head_dim": 8}, True),
        ({**LLAMA, "model_type": "mixtral", "num_local_experts": 4}, True),
        ({**LLAMA, "model_type": "mistral", "sliding_window": 20}, True),
        # Positions are slopes that Bloom works out from a mask of its own.
        ({**LLAMA, "model_type": "bloom", "n_head": 2, "n_layer": 6}, False),
        # Recurrent layers carry one history into the next.
        ({**LLAMA, "model_type": "jamba", "num_experts": 2, "mamba_d_state": 4}, False),
        ({**LLAMA, "model_type": "qwen3_next", "head_dim": 8}, False),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else str(value),
)
def test_only_architectures_that_give_the_same_states_are_packed(
    config: dict[str, object], packs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = empty_decoder(config)
    with caplog.at_level("INFO", "slmrec_core.models.attention"):
        assert can_pack(decoder, 16) is packs
    assert ("each history has a row of its own" in caplog.text) is not packs


@pytest.mark.parametrize("config", [LLAMA, GPT2, {**LLAMA, "model_type": "gemma2", "head_dim": 8}])
def test_every_kernel_of_an_architecture_gives_the_same_states(item_table: Tensor, config: dict[str, object]) -> None:
    decoder = empty_decoder({**config, "num_hidden_layers": 4})
    model = RecommenderModel(RecommenderConfig(), decoder, Prompt((1, 2, 3), ()), item_table).eval()
    found = []
    for kernel in ("eager",) if config.get("model_type") == "gemma2" else ("eager", "sdpa"):
        for packed in (False, True):
            model._packs = set_attention(model.decoder, kernel, packed=packed)
            # The kernel of this device, so that the model leaves it as it is.
            model._kernel = "sdpa"
            with torch.no_grad():
                found.append(model(ITEM_IDS, ITEM_IDS != 0).user_vectors)
            assert model._packs is packed
    for other in found[1:]:
        assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_flash_attention_takes_no_packed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = empty_decoder(LLAMA)
    monkeypatch.setattr(decoder, "set_attn_implementation", lambda kernel: None)
    assert not set_attention(decoder, "flash_attention_2", packed=True)


def test_a_row_that_a_sliding_window_would_cut_is_not_packed(item_table: Tensor) -> None:
    # The window counts the tokens of a row, whosever they are: each history fits it alone, but not all together.
    decoder = empty_decoder({**LLAMA, "model_type": "mistral", "num_hidden_layers": 4, "sliding_window": 12})
    model = RecommenderModel(RecommenderConfig(), decoder, Prompt((1, 2, 3), ()), item_table).eval()
    assert model._can_pack
    together = model(ITEM_IDS, ITEM_IDS != 0).user_vectors
    model._can_pack, model._kernel = False, None
    assert_close(model(ITEM_IDS, ITEM_IDS != 0).user_vectors, together)
