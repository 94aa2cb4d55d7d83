"""Laws of the baseline that supplies the item table."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.structures import SequenceBatch
from tests.tiny import row_of, some_batch

CONFIG = SASRecConfig(item_dim=8, num_heads=2, dropout=0.0)


def network(config: SASRecConfig = CONFIG, seed: int = 0) -> SASRec:
    torch.manual_seed(seed)
    return SASRec(config, num_items=12, max_seq_len=9).eval()


PADDED = SASRecConfig(item_dim=8, num_heads=2, dropout=0.0, block="padded")
both_blocks = pytest.mark.parametrize("config", [CONFIG, PADDED], ids=["masked", "padded"])


def vectors(model: SASRec, batch: SequenceBatch) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(batch.item_ids, batch.read_mask).user_vectors
    return found


@both_blocks
def test_padding_changes_nothing(config: SASRecConfig) -> None:
    # Fault 22 of the authors' code: the padding mask practically never fired, and padded steps attended as real.
    batch, model = some_batch(), network(config)
    wider = nn.functional.pad(batch.item_ids, (0, 4)), nn.functional.pad(batch.target_items, (0, 4))
    assert_close(vectors(model, SequenceBatch(batch.user_index, *wider)), vectors(model, batch))


@both_blocks
def test_a_row_alone_equals_the_row_in_a_batch(config: SASRecConfig) -> None:
    batch, model = some_batch(), network(config)
    rows = [vectors(model, row_of(batch, r)) for r in range(3)]
    assert_close(torch.cat(rows), vectors(model, batch))


@both_blocks
def test_changing_a_later_item_changes_no_earlier_read(config: SASRecConfig) -> None:
    batch, model = some_batch(num_users=1), network(config)
    changed = batch.item_ids.clone()
    changed[0, 3] = changed[0, 3] % 12 + 1
    before, after = vectors(model, batch), vectors(model, SequenceBatch(batch.user_index, changed, batch.target_items))
    assert_close(after[:3], before[:3])
    assert not torch.allclose(after[3], before[3])


def test_a_padded_block_is_the_published_one_step_by_step() -> None:
    """A slow plain reference: each row by itself, filled up in front with zero vectors, torch's own attention."""
    batch, model = some_batch(), network(PADDED)
    with torch.no_grad():
        # Biases begin at 0, and then an empty place adds nothing but its share of the attention.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.item_embedding.weight[0].zero_()
    found = []
    for items in batch.item_ids:
        history = items[items != 0]
        num_empty = 9 - len(history)
        with torch.no_grad():
            states = model.item_embedding(history) * 8**0.5 + model.position_embedding.weight[: len(history)].flip(0)
            states = torch.cat([torch.zeros(num_empty, 8), states])
            for block in model.blocks:
                attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
                maps = (block.query, block.key, block.value)
                attention.in_proj_weight.copy_(torch.cat([one.weight for one in maps]))
                attention.in_proj_bias.copy_(torch.cat([one.bias for one in maps]))
                attention.out_proj.load_state_dict(block.output.state_dict())
                later = torch.ones(9, 9, dtype=torch.bool).triu(1)
                seen, _ = attention(*(s[None] for s in (block.query_norm(states), states, states)), attn_mask=later)
                normed = block.feed_forward_norm(states + seen[0])
                states = normed + block.feed_forward(normed)
                states[:num_empty] = 0.0
            found.append(model.final_norm(states[num_empty:]))
    is_read = [read[: int((items != 0).sum())] for items, read in zip(batch.item_ids, batch.read_mask, strict=True)]
    expected = torch.cat([states[read] for states, read in zip(found, is_read, strict=True)])
    assert_close(vectors(model, batch), expected)


def test_biases_of_padded_blocks_begin_at_nothing() -> None:
    is_zero = {not module.bias.any() for module in network(PADDED).modules() if isinstance(module, nn.Linear)}
    assert is_zero == {True}
    assert any(module.bias.any() for module in network().modules() if isinstance(module, nn.Linear))


def test_positions_are_counted_from_the_end() -> None:
    model = network()
    read_mask = torch.tensor([[False, True]])
    with torch.no_grad():
        before = model(torch.tensor([[3, 5]]), read_mask).user_vectors
        # Position 0 belongs to the newest item, 1 to the one before it; no other is looked up.
        model.position_embedding.weight[2:] += 1.0
        assert_close(model(torch.tensor([[3, 5]]), read_mask).user_vectors, before)
        model.position_embedding.weight[0] += torch.randn(8)
        assert not torch.allclose(model(torch.tensor([[3, 5]]), read_mask).user_vectors, before)


def test_padding_is_never_recommended_and_its_vector_stays_zero() -> None:
    model = network()
    batch = some_batch()
    scores = model.score(model(batch.item_ids, batch.read_mask).user_vectors)
    assert torch.isneginf(scores[:, 0]).all()
    nn.functional.cross_entropy(scores, batch.targets).backward()
    assert model.item_embedding.weight.grad is not None
    assert not model.item_embedding.weight.grad[0].any()
    assert not model.item_table[0].any()


def test_parameters_are_counted_by_hand() -> None:
    block = 2 * 2 * 8 + 6 * (8 * 8 + 8)
    table, positions, norm = 13 * 8, 9 * 8, 2 * 8
    total = 2 * block + table + positions + norm
    expected = {"params_trainable": total, "params_decoder": 2 * block, "params_total": total}
    assert network().parameter_counts() == expected


def test_layers_are_refused_because_there_is_nothing_to_align() -> None:
    with pytest.raises(ValueError, match=r"got layers \(1,\)"):
        network()(torch.tensor([[1]]), torch.tensor([[True]]), (1,))


CHANGES: list[dict[str, object]] = [
    {"item_dim": 16},
    {"num_layers": 1},
    {"num_heads": 1},
    {"dropout": 0.5},
    {"block": "padded"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_has_an_effect(change: dict[str, object]) -> None:
    plain, changed = network(), network(CONFIG.model_copy(update=change))
    if "dropout" in change:
        plain.train()
        changed.train()
    one, other = vectors(plain, some_batch()), vectors(changed, some_batch())
    assert one.shape != other.shape or not torch.allclose(one, other)


def test_every_setting_is_in_the_list_above() -> None:
    marks = test_every_setting_has_an_effect.pytestmark  # type: ignore[attr-defined]
    assert {name for case in marks[0].args[1] for name in case} == set(SASRecConfig.model_fields)
