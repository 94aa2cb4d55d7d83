"""Laws of ranking a split."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from slmrec_core.data import (
    EvaluationSplit,
    GlobalTimeSplit,
    SequenceDataset,
    evaluation_batch,
    synthetic_interactions,
)
from slmrec_core.errors import ConfigError, DivergedError
from slmrec_core.models.recommender import table_scores
from slmrec_core.structures import HiddenStates, SequenceBatch
from slmrec_core.training import evaluation
from slmrec_core.training.config import EvaluationConfig
from slmrec_core.training.evaluation import Evaluator, Ranking, own_head
from slmrec_core.training.probe import LayerProbe
from tests.tiny import jolted, tiny_model

CPU = torch.device("cpu")
LENGTH = 6


class Drawn(nn.Module):
    """Scores that depend on the user's last item alone, in whole numbers so that there are ties."""

    def __init__(self, num_items: int = 12, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = scale * torch.randint(0, 5, (num_items + 1, num_items + 1), generator=generator).float()

    def forward(self, item_ids: Tensor, read_mask: Tensor) -> HiddenStates:
        return HiddenStates({}, self.table[item_ids[read_mask]])

    def score(self, user_vectors: Tensor) -> Tensor:
        return table_scores(user_vectors, torch.eye(user_vectors.shape[1]))


def evaluator(dataset: SequenceDataset, **settings: object) -> Evaluator:
    return Evaluator(dataset, LENGTH, EvaluationConfig.model_validate(settings), CPU)


def slow_ranks(dataset: SequenceDataset, model: Drawn, split: str, mask_seen: bool) -> list[int]:
    ranks = []
    for user in range(dataset.num_users):
        events = dataset.events[dataset.offsets[user] : dataset.offsets[user + 1]].tolist()
        history, target = (events[:-1], events[-1]) if split == "test" else (events[:-2], events[-2])
        scores = model.table[history[-1]].tolist()
        rivals = [item for item in range(1, 13) if item != target and not (mask_seen and item in history)]
        ranks.append(1 + sum(scores[item] >= scores[target] for item in rivals))
    return ranks


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("mask_seen", [True, False])
@pytest.mark.parametrize("chunk", [2, 100])
def test_full_ranking_equals_a_slow_one_written_from_the_definition(
    tiny_dataset: SequenceDataset, monkeypatch: pytest.MonkeyPatch, split: str, mask_seen: bool, chunk: int
) -> None:
    monkeypatch.setattr(evaluation, "rows_per_chunk", lambda columns: chunk)
    # The test history holds the valid item; a target that the user had before is not masked.
    model = Drawn()
    ((ranking,),) = evaluator(tiny_dataset, mask_seen=mask_seen, batch_size=7).rank_split(model, split)  # type: ignore[arg-type]
    assert ranking.ranks.tolist() == slow_ranks(tiny_dataset, model, split, mask_seen)
    assert (ranking.ranks <= ranking.num_candidates).all()
    if not mask_seen:
        assert set(ranking.num_candidates.tolist()) == {12}


def test_masking_matters_and_a_repeat_can_hit(tiny_dataset: SequenceDataset) -> None:
    repeats = [t in tiny_dataset.history(u, "test") for u, t in enumerate(tiny_dataset.targets("test"))]
    assert any(repeats)

    class Sure(Drawn):
        def score(self, user_vectors: Tensor) -> Tensor:
            scores = torch.zeros(len(user_vectors), 13)
            scores[torch.arange(len(scores)), torch.from_numpy(tiny_dataset.targets("test")).long()] = 1.0
            scores[:, 0] = float("-inf")
            return scores

    ((ranking,),) = evaluator(tiny_dataset, batch_size=100).rank_split(Sure(), "test")
    assert set(ranking.ranks.tolist()) == {1}


def test_constant_scores_rank_last_among_the_candidates(tiny_dataset: SequenceDataset) -> None:
    both = evaluator(tiny_dataset, protocols=("full", "sampled"), num_negatives=4).rank_split(Drawn(scale=0.0), "test")
    for ranking in both[0]:
        assert ranking.ranks.tolist() == ranking.num_candidates.tolist()


def test_scores_that_are_no_numbers_raise(tiny_dataset: SequenceDataset) -> None:
    # Fault of the authors' code: NaN became -1 in every metric.
    with pytest.raises(DivergedError, match="NaN"):
        evaluator(tiny_dataset).rank_split(Drawn(scale=float("nan")), "valid")


def test_only_the_newest_items_are_read_but_all_older_ones_are_masked(tiny_dataset: SequenceDataset) -> None:
    widths: list[int] = []

    class Watching(Drawn):
        def forward(self, item_ids: Tensor, read_mask: Tensor) -> HiddenStates:
            widths.append(item_ids.shape[1])
            return super().forward(item_ids, read_mask)

    ((ranking,),) = evaluator(tiny_dataset).rank_split(Watching(), "test")
    assert max(widths) == LENGTH
    for user, target in enumerate(tiny_dataset.targets("test").tolist()):
        seen = set(tiny_dataset.history(user, "test").tolist())
        assert ranking.num_candidates[user] == 12 - len(seen - {target})


def test_sampled_candidates_are_the_same_at_every_call_and_for_every_model(tiny_dataset: SequenceDataset) -> None:
    # Fault 21 of the authors' code: negatives were drawn anew at every pass.
    settings = {"protocols": ("full", "sampled"), "num_negatives": 3}
    torch.manual_seed(0)
    first = evaluator(tiny_dataset, **settings)
    candidates = first._candidates("test")
    rankings = [first.rank_split(Drawn(), "test")[0][1] for _ in range(2)]
    torch.manual_seed(1)
    other = evaluator(replace(tiny_dataset), **settings)
    assert np.array_equal(other._candidates("test"), candidates)
    rankings.append(other.rank_split(Drawn(), "test")[0][1])
    assert len({tuple(ranking.ranks.tolist()) for ranking in rankings}) == 1
    assert not np.array_equal(first._candidates("valid")[:, 1:], candidates[:, 1:])


def test_sampled_ranks_equal_slow_ones_among_the_candidates(tiny_dataset: SequenceDataset) -> None:
    asked = evaluator(tiny_dataset, protocols=("full", "sampled"), num_negatives=3)
    model = Drawn()
    (_, sampled), = asked.rank_split(model, "test")  # fmt: skip
    for user, (target, *negatives) in enumerate(asked._candidates("test").tolist()):
        scores = model.table[int(tiny_dataset.history(user, "test")[-1])]
        real = [item for item in negatives if item]
        assert sampled.ranks[user] == 1 + sum(bool(scores[item] >= scores[target]) for item in real)
        assert sampled.num_candidates[user] == 1 + len(real)
        assert not set(real) & set(tiny_dataset.history(user, "test").tolist())


@pytest.mark.parametrize("mask_seen", [True, False])
def test_unmasked_ranks_count_the_items_of_the_history_too(tiny_dataset: SequenceDataset, mask_seen: bool) -> None:
    model = Drawn()
    asked = evaluator(tiny_dataset, protocols=("full", "unmasked"), mask_seen=mask_seen)
    full, unmasked = asked.rank_split(model, "test")[0]
    for user, target in enumerate(tiny_dataset.targets("test").tolist()):
        scores = model.table[int(tiny_dataset.history(user, "test")[-1])]
        assert unmasked.ranks[user] == 1 + sum(bool(scores[i] >= scores[target]) for i in range(1, 13) if i != target)
    assert set(unmasked.num_candidates.tolist()) == {12}
    assert (full.ranks <= unmasked.ranks).all()
    assert (full.ranks < unmasked.ranks).any() == mask_seen
    assert "test_unmasked/ndcg_at_10" in unmasked.metrics()


def test_fewer_unseen_items_than_negatives_are_counted(tiny_dataset: SequenceDataset) -> None:
    (_, sampled), = evaluator(tiny_dataset, protocols=("full", "sampled")).rank_split(Drawn(), "test")  # fmt: skip
    expected = [1 + 12 - len(set(tiny_dataset.events[a:b].tolist())) for a, b in
                zip(tiny_dataset.offsets[:-1], tiny_dataset.offsets[1:], strict=True)]  # fmt: skip
    assert sampled.num_candidates.tolist() == expected


@pytest.mark.parametrize("world_size", [2, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_several_workers_add_up_to_one(tiny_dataset: SequenceDataset, world_size: int, batch_size: int) -> None:
    alone = evaluator(tiny_dataset, protocols=("full", "sampled"), num_negatives=3)
    parts: list[Tensor] = []
    passes: list[int] = []

    class Counting(Drawn):
        def forward(self, item_ids: Tensor, read_mask: Tensor) -> HiddenStates:
            passes[-1] += 1
            return super().forward(item_ids, read_mask)

    for rank in range(world_size):
        passes.append(0)
        config = alone.config.model_copy(update={"batch_size": batch_size})
        collect = lambda values: (parts.append(values), values)[1]  # noqa: E731
        Evaluator(tiny_dataset, LENGTH, config, CPU, rank, world_size, collect).rank_split(Counting(), "test")
    expected = torch.tensor(np.stack([ranking.ranks for ranking in alone.rank_split(Drawn(), "test")[0]]))
    assert_close(torch.stack(parts).sum(dim=0)[0], expected)
    # ZeRO-3 gathers weights in every pass, so all workers must make as many.
    assert len(set(passes)) == 1


def test_the_sample_that_epochs_are_chosen_by_is_fixed_and_never_larger_than_the_data(
    tiny_dataset: SequenceDataset,
) -> None:
    first, again = (evaluator(tiny_dataset, selection_users=5).selection for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.tolist() == again.tolist() == sorted(set(first.tolist()))
    assert len(first) == 5
    for size in (None, tiny_dataset.num_users, 10**6):
        assert evaluator(tiny_dataset, selection_users=size).selection is None
    (ranking,) = evaluator(tiny_dataset).rank_selection(Drawn())
    assert len(ranking.ranks) == tiny_dataset.num_users


@pytest.mark.parametrize("split", ["valid", "test"])
def test_only_users_with_a_target_are_ranked(split: EvaluationSplit) -> None:
    frame = synthetic_interactions(num_users=24, num_items=12)
    dataset = SequenceDataset.from_interactions(frame, 1, 1, time_split=GlobalTimeSplit((0.6, 0.8)))
    asked = dataset.evaluated_users(split).tolist()
    assert 0 < len(asked) < 24
    model = Drawn()
    full, sampled = evaluator(dataset, batch_size=7, protocols=("full", "sampled"), num_negatives=3).rank_split(
        model, split
    )[0]
    for user, rank in zip(asked, full.ranks, strict=True):
        history, target = dataset.history(user, split).tolist(), int(dataset.targets(split)[user])
        scores = model.table[history[-1]].tolist()
        rivals = set(range(1, 13)) - {target} - set(history)
        assert rank == 1 + sum(scores[item] >= scores[target] for item in rivals)
    for ranking in (full, sampled):
        assert (ranking.ranks <= ranking.num_candidates).all()
        table = ranking.frame(dataset)
        assert table["user_id"].tolist() == dataset.user_ids[asked].tolist()
        assert (table["target_item"] != "").all()
    some = evaluator(dataset, selection_users=3)
    assert some.selection is not None
    assert set(some.selection) <= set(dataset.evaluated_users("valid"))
    assert len(some.rank_selection(model)[0].ranks) == 3


def test_evaluation_leaves_the_models_mode_and_no_gradient(tiny_dataset: SequenceDataset, item_table: Tensor) -> None:
    model = tiny_model(item_table, input_dropout=0.5).train()
    twice = [evaluator(tiny_dataset).rank_split(model, "valid")[0][0].ranks.tolist() for _ in range(2)]
    assert twice[0] == twice[1]
    assert model.training


def test_metric_names_and_the_frame_are_the_contracts(tiny_dataset: SequenceDataset) -> None:
    full, sampled = evaluator(tiny_dataset, protocols=("full", "sampled")).rank_split(Drawn(), "test")[0]
    assert {"test/ndcg_at_10", "test/hit_rate_at_1", "test/mrr"} <= set(full.metrics())
    assert {"test_sampled/ndcg_at_10", "test_sampled/mrr"} <= set(sampled.metrics())
    frame = full.frame(tiny_dataset)
    assert list(frame) == ["user_id", "split", "protocol", "target_item", "rank", "num_candidates"]
    assert frame["target_item"][0] == tiny_dataset.item_ids[tiny_dataset.targets("test")[0]]
    assert len(frame) == tiny_dataset.num_users


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        ({"mask_seen": False}, True),
        ({"protocols": ("full", "sampled")}, True),
        ({"protocols": ("full", "sampled"), "num_negatives": 2}, True),
        ({"batch_size": 5}, False),
        # What is sampled after an epoch changes nothing about a split as a whole.
        ({"selection_users": 4}, False),
    ],
    ids=str,
)
def test_every_setting_has_the_effect_that_it_says(
    tiny_dataset: SequenceDataset, change: dict[str, object], is_seen: bool
) -> None:
    base = {"protocols": ("full", "sampled")} if "num_negatives" in change else {}
    tables = []
    for settings in (base, change):
        rankings: list[Ranking] = evaluator(tiny_dataset, **settings).rank_split(Drawn(), "test")[0]
        tables.append([(r.protocol, r.ranks.tolist(), r.num_candidates.tolist()) for r in rankings])
    assert (tables[0] != tables[1]) == is_seen


def test_every_setting_is_in_the_list_above() -> None:
    marks = test_every_setting_has_the_effect_that_it_says.pytestmark  # type: ignore[attr-defined]
    assert {name for case in marks[0].args[1] for name in case[0]} == set(EvaluationConfig.model_fields)


def test_protocols_have_one_order_however_they_are_written() -> None:
    first, other = (
        EvaluationConfig(protocols=p) for p in (("unmasked", "full", "sampled"), ("full", "sampled", "unmasked"))
    )
    assert first == other
    assert first.protocols == ("full", "sampled", "unmasked")


@pytest.mark.parametrize("protocols", [(), ("sampled",), ("full", "full")])
def test_full_ranking_is_always_among_the_protocols(protocols: tuple[str, ...]) -> None:
    # A bug of ours: without it, training failed at the end of its first epoch for want of the checkpoint metric.
    with pytest.raises(ConfigError, match="must name 'full' and none twice"):
        EvaluationConfig(protocols=protocols)


def batch_of(dataset: SequenceDataset) -> SequenceBatch:
    return evaluation_batch(dataset, np.arange(5), "valid", LENGTH)


@pytest.mark.parametrize("read", ["normed", "raw"])
def test_the_probes_deepest_readout_is_the_models_own_head(
    tiny_dataset: SequenceDataset, item_table: Tensor, read: str
) -> None:
    model = jolted(tiny_model(item_table, num_layers=3))
    batch = batch_of(tiny_dataset)
    with torch.no_grad():
        probed = LayerProbe(model, read)(batch)  # type: ignore[arg-type]
        (own,) = own_head(model)(batch)
    assert len(probed) == 4
    assert_close(probed[-1], own)


def test_probing_layer_n_equals_a_cut_model_with_the_same_weights(
    tiny_dataset: SequenceDataset, item_table: Tensor
) -> None:
    model = jolted(tiny_model(item_table, num_layers=3, tuning="full"))
    batch = batch_of(tiny_dataset)
    with torch.no_grad():
        probed = LayerProbe(model)(batch)
        for depth in (0, 1, 2):
            cut = tiny_model(item_table, num_layers=depth, tuning="full")
            cut.load_state_dict({name: model.state_dict()[name] for name in cut.state_dict()})
            (alone,) = own_head(cut)(batch)
            assert_close(probed[depth], alone)


def test_reading_raw_differs_inside_and_is_the_authors_way(tiny_dataset: SequenceDataset, item_table: Tensor) -> None:
    # Fault of the authors' probe: inner states were read without the final norm that the head was trained behind.
    model = jolted(tiny_model(item_table, num_layers=3, tuning="full"))
    batch = batch_of(tiny_dataset)
    with torch.no_grad():
        normed, raw = LayerProbe(model, "normed")(batch), LayerProbe(model, "raw")(batch)
    for depth in (0, 1, 2):
        assert not torch.allclose(normed[depth][:, 1:], raw[depth][:, 1:])
    assert_close(normed[3], raw[3])


def test_a_layer_that_adds_nothing_leaves_the_state_and_another_turns_it(
    tiny_dataset: SequenceDataset, item_table: Tensor
) -> None:
    model = jolted(tiny_model(item_table, num_layers=3, tuning="full"))
    with torch.no_grad():
        for name, parameter in model.decoder.layers[1].named_parameters():
            if name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
                parameter.zero_()
    probe = LayerProbe(model)
    with torch.no_grad():
        evaluator(tiny_dataset, batch_size=3).rank_split(model, "valid", probe)
    first, second, third = probe.state_changes()
    assert second == pytest.approx(0.0, abs=1e-6)
    assert min(first, third) > 1e-4
    # From the definition, user by user; the last layer's output is what the final norm gets.
    total, leaving = 0.0, list[Tensor]()
    model.decoder.norm.register_forward_pre_hook(lambda norm, inputs: leaving.append(inputs[0][0, -1]))
    for user in range(tiny_dataset.num_users):
        batch = evaluation_batch(tiny_dataset, np.array([user]), "valid", LENGTH)
        with torch.no_grad():
            entering = model(batch.item_ids, batch.read_mask, (2,)).layers[2][0]
        left = leaving[-1]
        total += 1.0 - float(torch.dot(entering, left) / (entering.norm() * left.norm()))
    assert third == pytest.approx(total / tiny_dataset.num_users, rel=1e-4)


def test_a_probe_ranks_every_layer_in_one_pass(tiny_dataset: SequenceDataset, item_table: Tensor) -> None:
    model = jolted(tiny_model(item_table, num_layers=3))
    rankings = evaluator(tiny_dataset).rank_split(model, "valid", LayerProbe(model))
    assert [len(by_protocol) for by_protocol in rankings] == [1] * 4
    ((own,),) = evaluator(tiny_dataset).rank_split(model, "valid")
    assert rankings[3][0].ranks.tolist() == own.ranks.tolist()
