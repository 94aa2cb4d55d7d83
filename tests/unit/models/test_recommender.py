"""Laws of the one model class of teacher and student."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from slmrec_core.errors import ConfigError
from slmrec_core.losses import catalogue_next_item_loss
from slmrec_core.models.architecture import final_norm
from slmrec_core.models.backbone import Backbone, open_backbone
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel, table_scores
from slmrec_core.structures import HiddenStates, SequenceBatch
from tests.tiny import GPT2, QWEN2, jolted, row_of, some_batch, tiny_model, write_model_directory

DEPTHS = (0, 1, 2)


def read(model: RecommenderModel, batch: SequenceBatch, layers: tuple[int, ...] = ()) -> HiddenStates:
    with torch.no_grad():
        states: HiddenStates = model(batch.item_ids, batch.read_mask, layers)
    return states


def last_only(batch: SequenceBatch) -> SequenceBatch:
    """The same histories, each with a target at its last item alone."""
    ends = (batch.item_ids != 0).sum(dim=1) - 1
    is_end = torch.arange(batch.item_ids.shape[1]) == ends[:, None]
    return SequenceBatch(batch.user_index, batch.item_ids, batch.target_items * is_end)


def written_out(model: RecommenderModel, history: list[int], **options: bool) -> Any:
    """The decoder over one row, no padding, no mask: the template's tokens and the items one after the other."""
    items = [model.input_projection(model.item_table[item]) for item in history]
    tokens = [model.prompt_vectors.weight[index] for index in range(len(model.prompt.before + model.prompt.after))]
    before, after = tokens[: len(model.prompt.before)], tokens[len(model.prompt.before) :]
    with torch.no_grad():
        return model.decoder(inputs_embeds=torch.stack([*before, *items, *after])[None], **options)


def slow_user_vectors(model: RecommenderModel, history: list[int]) -> Tensor:
    """The user after each item, and after each token of a closing template."""
    states = written_out(model, history).last_hidden_state[0]
    with torch.no_grad():
        vectors: Tensor = model.output_projection(states[len(model.prompt.before) :])
    return vectors


@pytest.mark.parametrize("pooling", ["item", "response"])
def test_more_padding_changes_nothing(item_table: Tensor, pooling: str) -> None:
    model = jolted(tiny_model(item_table, pooling=pooling))
    batch = last_only(some_batch())
    wider = nn.functional.pad(batch.item_ids, (0, 4)), nn.functional.pad(batch.target_items, (0, 4))
    padded = SequenceBatch(batch.user_index, *wider)
    assert_close(read(model, padded).user_vectors, read(model, batch).user_vectors)


@pytest.mark.parametrize("pooling", ["item", "response"])
@pytest.mark.parametrize("template", ["question", "alpaca"])
def test_a_batch_equals_one_row_at_a_time_written_out_without_padding(
    item_table: Tensor, pooling: str, template: str
) -> None:
    # Fault 13 of the authors' code: padding sat inside the prompt and shifted rotary positions.
    model = jolted(tiny_model(item_table, pooling=pooling, template=template))
    batch = some_batch(4) if pooling == "item" else last_only(some_batch(4))
    expected = []
    for items, is_read in zip(batch.item_ids, batch.read_mask, strict=True):
        history = items[items != 0].tolist()
        slow = slow_user_vectors(model, history)
        # Response pooling reads the last token of the closing template, item pooling each item that has a target.
        expected.append(slow[-1:] if pooling == "response" else slow[: len(history)][is_read[: len(history)]])
    assert_close(read(model, batch).user_vectors, torch.cat(expected))


def test_response_pooling_reads_another_place_than_item_pooling(item_table: Tensor) -> None:
    batch = last_only(some_batch())
    item, response = (read(jolted(tiny_model(item_table, pooling=p)), batch).user_vectors for p in ("item", "response"))
    assert item.shape == response.shape
    assert not torch.allclose(item, response)


def test_templates_differ(item_table: Tensor) -> None:
    batch = some_batch()
    one, other = (read(tiny_model(item_table, template=t), batch).user_vectors for t in ("question", "alpaca"))
    assert not torch.allclose(one, other)


def test_changing_a_later_item_changes_no_earlier_read(item_table: Tensor) -> None:
    model = jolted(tiny_model(item_table))
    batch = some_batch(num_users=1)
    changed = batch.item_ids.clone()
    changed[0, 3] = changed[0, 3] % 12 + 1
    before = read(model, batch)
    after = read(model, SequenceBatch(batch.user_index, changed, batch.target_items))
    assert_close(after.user_vectors[:3], before.user_vectors[:3])
    assert not torch.allclose(after.user_vectors[3], before.user_vectors[3])


def test_reads_come_row_by_row_in_the_order_of_targets(item_table: Tensor) -> None:
    model = jolted(tiny_model(item_table))
    batch = some_batch()
    alone = [read(model, row_of(batch, r)) for r in range(len(batch.user_index))]
    together = read(model, batch).user_vectors
    assert_close(together, torch.cat([states.user_vectors for states in alone]))
    assert len(together) == len(batch.targets)


@pytest.mark.parametrize("num_layers", DEPTHS)
def test_padding_is_never_recommended_and_scores_are_inner_products(item_table: Tensor, num_layers: int) -> None:
    # Fault 16 of the authors' code: item 0 was both a product and the padding.
    model = tiny_model(item_table, num_layers=num_layers)
    vectors = read(model, some_batch()).user_vectors
    scores = model.score(vectors)
    assert scores.shape == (len(vectors), 13)
    assert torch.isneginf(scores[:, 0]).all()
    assert_close(scores[:, 1:], vectors @ item_table[1:].T)


def test_a_padding_row_that_is_not_zero_is_still_never_recommended() -> None:
    assert table_scores(torch.ones(1, 2), torch.full((3, 2), 100.0)).tolist() == [[float("-inf"), 200.0, 200.0]]


def test_not_a_number_is_not_hidden() -> None:
    # Fault of the authors' evaluation: NaN scores became a metric of -1.
    assert table_scores(torch.full((1, 2), torch.nan), torch.ones(3, 2))[:, 1:].isnan().all()


@pytest.mark.parametrize("config", [GPT2, QWEN2], ids=["gpt2", "qwen2"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_other_architectures_work(tmp_path: Path, item_table: Tensor, config: dict[str, object], tuning: str) -> None:
    write_model_directory(tmp_path, config)
    backbone = Backbone("x", open_backbone(str(tmp_path)).config, tmp_path)
    decoder_only = RecommenderConfig.model_validate({"num_layers": 2, "tuning": tuning})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slmrec_core.models.recommender.tokenize_prompt", lambda *_: Prompt((1, 2), (3,)))
        model = RecommenderModel.from_backbone(decoder_only, backbone, item_table)
    model(torch.tensor([[1, 2]]), torch.tensor([[True, True]])).user_vectors.sum().backward()
    trained = {name for name, parameter in model.decoder.named_parameters() if parameter.grad is not None}
    assert any("lora_B" in name for name in trained) == (tuning == "lora")
    if tuning == "lora":
        assert all(".mlp." in name and "lora_" in name for name in trained)


@pytest.mark.parametrize(
    "config",
    [
        {**QWEN2, "model_type": "mixtral"},
        {
            **QWEN2,
            "model_type": "qwen3_moe",
            "moe_intermediate_size": 8,
            "num_experts_per_tok": 2,
            "mlp_only_layers": [0],
        },
    ],
    ids=["no layer", "one layer"],
)
def test_lora_that_would_leave_a_layer_as_it_is_is_refused(item_table: Tensor, config: dict[str, object]) -> None:
    # A bug of ours: a mixture of experts was "fine-tuned" without a single trained weight in its decoder.
    backbone = Backbone("x", config, None)
    with pytest.raises(ConfigError, match=r"tuning: 'lora' adapts .* got [01] of 2 layers .* Set tuning=full"):
        RecommenderModel.from_backbone(RecommenderConfig(num_layers=2), backbone, item_table)
    RecommenderModel.from_backbone(RecommenderConfig(num_layers=2, tuning="full"), backbone, item_table)
    RecommenderModel.from_backbone(RecommenderConfig(num_layers=0), backbone, item_table)


@pytest.mark.parametrize("kind", ["gemma2", "bloom"])
def test_an_architecture_without_torchs_attention_is_trained_all_the_same(item_table: Tensor, kind: str) -> None:
    # A bug of ours: the first forward pass asked for a kernel that these do not have, and died.
    backbone = Backbone("x", {**QWEN2, "model_type": kind, "head_dim": 8}, None)
    model = RecommenderModel.from_backbone(RecommenderConfig(num_layers=1), backbone, item_table)
    for _ in range(2):
        model(torch.tensor([[1, 2]]), torch.tensor([[True, True]])).user_vectors.sum().backward()


def test_the_prompt_takes_the_vocabularys_own_scale(item_table: Tensor) -> None:
    # Gemma multiplies what it looks up by the square root of its width.
    config = {**QWEN2, "model_type": "gemma3_text", "head_dim": 8, "hidden_size": 16}
    backbone = Backbone("x", config, None)
    plain = tiny_model(item_table)
    model = RecommenderModel.from_backbone(RecommenderConfig(num_layers=1), backbone, item_table)
    assert plain.prompt_vectors.weight.std() < model.prompt_vectors.weight.std() < 0.1
    assert_close(float(model.prompt_vectors.weight.std()), 0.02 * 16**0.5, rtol=0.1, atol=0.0)


def test_lora_trains_the_mlp_updates_and_the_projections_alone(item_table: Tensor) -> None:
    model = tiny_model(item_table)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = {"input_projection.weight", "input_projection.bias", "output_projection.weight"}
    adapters = trained - own
    assert own < trained
    assert len(adapters) == 2 * 3 * 2
    assert all(".mlp." in name and ("lora_A" in name or "lora_B" in name) for name in adapters)


def test_full_trains_every_weight_but_the_item_table(item_table: Tensor) -> None:
    model = tiny_model(item_table, tuning="full")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert "item_table" not in dict(model.named_parameters())


def test_parameters_are_counted_by_hand(item_table: Tensor) -> None:
    # tiny: width 32, MLP 64, 4 heads of 8, 2 key-value heads, vocabulary 256; item table 13 × 6.
    attention = 2 * 32 * 32 + 2 * 32 * 16
    layer = attention + 3 * 32 * 64 + 2 * 32
    decoder = 2 * layer + 32
    lora = 2 * 3 * 16 * (32 + 64)
    projections = (6 * 32 + 32) + 32 * 6
    outside = 256 * 32 + 13 * 6
    assert tiny_model(item_table).parameter_counts() == {
        "params_trainable": lora + projections,
        "params_decoder": decoder + lora,
        "params_total": decoder + lora + projections + outside,
    }
    assert tiny_model(item_table).parameter_counts(depth=1) == {
        "params_trainable": lora // 2 + projections,
        "params_decoder": decoder - layer + lora // 2,
        "params_total": decoder - layer + lora // 2 + projections + outside,
    }
    assert tiny_model(item_table).parameter_counts(depth=2) == tiny_model(item_table).parameter_counts()
    assert tiny_model(item_table).parameter_counts(depth=0)["params_decoder"] == 32, "the final norm alone"
    full = tiny_model(item_table, tuning="full")
    template = full.prompt_vectors.weight.numel()
    assert full.parameter_counts() == {
        "params_trainable": decoder + projections + template,
        "params_decoder": decoder,
        "params_total": decoder + projections + outside,
    }


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_bfloat16_keeps_projections_and_scores_in_float32(item_table: Tensor, tuning: str) -> None:
    model = tiny_model(item_table, dtype=torch.bfloat16, tuning=tuning)
    states = read(model, some_batch(), (0, 1, 2))
    assert states.user_vectors.dtype == model.score(states.user_vectors).dtype == torch.float32
    assert states.layers[1].dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    frozen = [p.dtype for p in model.decoder.parameters() if not p.requires_grad]
    assert set(frozen) == ({torch.bfloat16} if tuning == "lora" else set())
    exact = read(tiny_model(item_table, tuning=tuning), some_batch()).user_vectors
    assert (states.user_vectors - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize("pooling", ["item", "response"])
def test_states_are_hugging_faces_at_the_read_positions_and_the_deepest_is_normed(
    item_table: Tensor, pooling: str
) -> None:
    model = jolted(tiny_model(item_table, num_layers=3, pooling=pooling))
    batch = last_only(some_batch())
    states = read(model, batch, (0, 1, 2, 3))
    recorded: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: recorded.append(o)) for layer in model.decoder.layers]  # type: ignore[union-attr]
    for row, history in enumerate(batch.item_ids):
        recorded.clear()
        output = written_out(model, [int(item) for item in history if item], output_hidden_states=True)
        # The last item, or the last token of the closing template: either way the last token of all.
        for layer in range(4):
            assert_close(states.layers[layer][row], output.hidden_states[layer][0, -1])
        for layer in (1, 2):
            assert_close(states.layers[layer][row], recorded[layer - 1][0, -1])
        assert_close(states.layers[3][row], final_norm(model.decoder)(recorded[2][0, -1]))
        assert_close(model.normed(recorded[2][0, -1:])[0], states.layers[3][row])
    for hook in hooks:
        hook.remove()
    assert_close(model.project(states.layers[3]), states.user_vectors)


def test_asking_for_states_changes_no_score(item_table: Tensor) -> None:
    model = jolted(tiny_model(item_table))
    without, with_states = read(model, some_batch()), read(model, some_batch(), (0, 1, 2))
    assert_close(without.user_vectors, with_states.user_vectors)
    assert without.layers == {}


def test_equal_seeds_give_equal_weights_and_others_do_not(item_table: Tensor) -> None:
    first, same, other = (tiny_model(item_table, seed=seed).state_dict() for seed in (0, 0, 1))
    assert_close(first, same, atol=0.0, rtol=0.0)
    assert not torch.equal(first["input_projection.weight"], other["input_projection.weight"])
    assert_close(first["decoder.norm.weight"], other["decoder.norm.weight"])


def test_fresh_lora_leaves_the_backbone_as_it_is(item_table: Tensor) -> None:
    lora, full = tiny_model(item_table), tiny_model(item_table, tuning="full")
    full.input_projection.load_state_dict(lora.input_projection.state_dict())
    full.output_projection.load_state_dict(lora.output_projection.state_dict())
    assert_close(read(lora, some_batch()).user_vectors, read(full, some_batch()).user_vectors)


@pytest.mark.parametrize(
    ("change", "is_seen_in"),
    [
        ({"num_layers": 1}, "eval"),
        ({"layer_choice": "every"}, "eval"),
        ({"pooling": "response"}, "eval"),
        ({"template": "alpaca"}, "eval"),
        ({"tuning": "full"}, "weights"),
        ({"lora_rank": 4}, "weights"),
        ({"lora_alpha": 64}, "eval"),
        ({"lora_dropout": 0.5}, "train"),
        ({"input_dropout": 0.5}, "train"),
        ({"weights": "random"}, "eval"),
        ({"item_vectors": "trained"}, "weights"),
        ({"backbone": "named"}, "config"),
    ],
    ids=str,
)
def test_every_setting_has_an_effect(item_table: Tensor, change: dict[str, object], is_seen_in: str) -> None:
    plain, changed = jolted(tiny_model(item_table)), jolted(tiny_model(item_table, **change))
    batch = last_only(some_batch())
    if is_seen_in == "weights":
        assert plain.parameter_counts() != changed.parameter_counts()
        return
    if is_seen_in == "config":
        # Which decoder it is, is resolved by whoever opens the backbone.
        assert plain.config.backbone != changed.config.backbone
        return
    if is_seen_in == "train":
        assert_close(read(plain, batch).user_vectors, read(changed, batch).user_vectors)
        plain.train()
        changed.train()
    torch.manual_seed(0)
    assert not torch.allclose(read(plain, batch).user_vectors, read(changed, batch).user_vectors)


def test_every_setting_is_in_the_list_above() -> None:
    marks = test_every_setting_has_an_effect.pytestmark  # type: ignore[attr-defined]
    moved = {name for case in marks[0].args[1] for name in case[0]}
    assert moved == set(RecommenderConfig.model_fields)


def test_random_weights_are_the_seeds_and_leave_the_projections_as_they_were(item_table: Tensor) -> None:
    pretrained, random, same, other = (
        tiny_model(item_table, seed, weights=weights)
        for seed, weights in ((0, "pretrained"), (0, "random"), (0, "random"), (1, "random"))
    )
    states = [dict(model.decoder.named_parameters()) for model in (pretrained, random, same, other)]
    name = next(name for name in states[0] if name.endswith("q_proj.weight"))
    assert torch.equal(states[1][name], states[2][name])
    assert not torch.allclose(states[1][name], states[0][name])
    assert not torch.allclose(states[1][name], states[3][name])
    assert torch.equal(random.input_projection.weight, pretrained.input_projection.weight)


def test_a_trained_table_starts_as_the_given_one_learns_and_counts_once(item_table: Tensor) -> None:
    frozen, trained = tiny_model(item_table), tiny_model(item_table, item_vectors="trained")
    assert torch.equal(trained.item_table, frozen.item_table)
    assert trained.parameter_counts()["params_total"] == frozen.parameter_counts()["params_total"]
    extra = trained.parameter_counts()["params_trainable"] - frozen.parameter_counts()["params_trainable"]
    assert extra == item_table.numel()
    batch = some_batch()
    losses = []
    optimizer = torch.optim.SGD([trained.item_table], lr=0.5)
    for _ in range(3):
        vectors = trained(batch.item_ids, batch.read_mask).user_vectors
        loss = catalogue_next_item_loss(vectors, trained.item_table, batch.targets)
        loss.backward()
        assert not trained.item_table.grad[0].any(), "padding is no item"
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
