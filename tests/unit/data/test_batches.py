"""Windows, targets, masks and candidates, on numbers worked by hand and against plain loops."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_core.data import (
    EvaluationSplit,
    SequenceDataset,
    TargetMode,
    epoch_batches,
    evaluation_batch,
    num_candidates,
    num_training_targets,
    sampled_candidates,
    seen_items,
    training_batch,
)
from slmrec_core.errors import ConfigError
from slmrec_core.structures import PAD_ITEM

WALKS = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=12), min_size=1, max_size=5)
SPLITS = st.sampled_from(["valid", "test"])


def dataset_of(*walks: list[int]) -> SequenceDataset:
    """User k walks `walks[k]`; every item up to the largest has a place, whether anyone walks it or not."""
    num_items = max(max(walk) for walk in walks)
    return SequenceDataset(
        user_ids=np.array([f"u{user}" for user in range(len(walks))], dtype=object),
        item_ids=np.array(["", *(f"i{item}" for item in range(1, num_items + 1))], dtype=object),
        titles=None,
        events=np.concatenate(walks).astype(np.int32),
        offsets=np.cumsum([0, *map(len, walks)]).astype(np.int64),
    )


def everyone(dataset: SequenceDataset) -> np.ndarray:
    return np.arange(dataset.num_users)


@pytest.fixture
def dataset() -> SequenceDataset:
    return dataset_of([1, 2, 3, 4, 5, 6, 7], [3, 1, 2, 4], [5, 6, 7])


def test_training_pairs_each_item_with_the_next_of_the_training_part(dataset: SequenceDataset) -> None:
    batch = training_batch(dataset, everyone(dataset), max_seq_len=10, targets="all")

    assert batch.user_index.tolist() == [0, 1, 2]
    assert batch.item_ids.tolist() == [[1, 2, 3, 4], [3, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.target_items.tolist() == [[2, 3, 4, 5], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_short_window_keeps_the_latest_pairs(dataset: SequenceDataset) -> None:
    batch = training_batch(dataset, np.array([1, 0]), max_seq_len=2, targets="all")

    assert batch.user_index.tolist() == [1, 0]
    assert batch.item_ids.tolist() == [[3, 0], [3, 4]]
    assert batch.target_items.tolist() == [[1, 0], [4, 5]]


def test_last_targets_only_the_final_position(dataset: SequenceDataset) -> None:
    batch = training_batch(dataset, everyone(dataset), max_seq_len=3, targets="last")

    assert batch.item_ids.tolist() == [[2, 3, 4], [3, 0, 0], [0, 0, 0]]
    assert batch.target_items.tolist() == [[0, 0, 5], [1, 0, 0], [0, 0, 0]]


def test_a_user_without_a_pair_is_a_row_of_padding(dataset: SequenceDataset) -> None:
    batch = training_batch(dataset, np.array([2]), max_seq_len=3, targets="all")

    assert batch.item_ids.tolist() == [[PAD_ITEM]]
    assert batch.targets.tolist() == []


def test_evaluation_reads_the_history_and_targets_its_end(dataset: SequenceDataset) -> None:
    valid = evaluation_batch(dataset, everyone(dataset), "valid", max_seq_len=3)
    test = evaluation_batch(dataset, everyone(dataset), "test", max_seq_len=3)

    assert valid.item_ids.tolist() == [[3, 4, 5], [3, 1, 0], [5, 0, 0]]
    assert valid.target_items.tolist() == [[0, 0, 6], [0, 2, 0], [6, 0, 0]]
    assert test.item_ids.tolist() == [[4, 5, 6], [3, 1, 2], [5, 6, 0]]
    assert test.target_items.tolist() == [[0, 0, 7], [0, 0, 4], [0, 7, 0]]


@settings(deadline=None)
@given(walks=WALKS, max_seq_len=st.integers(1, 8), mode=st.sampled_from(["all", "last"]))
def test_training_equals_a_plain_loop(walks: list[list[int]], max_seq_len: int, mode: TargetMode) -> None:
    dataset = dataset_of(*walks)
    batch = training_batch(dataset, everyone(dataset), max_seq_len, mode)
    for row, walk in enumerate(walks):
        train = walk[:-2]
        pairs = list(zip(train[:-1], train[1:], strict=True))[-max_seq_len:]
        targets = [target for _, target in pairs] if mode == "all" else [0] * (len(pairs) - 1) + train[-1:]
        padding = [PAD_ITEM] * (batch.item_ids.shape[1] - len(pairs))

        assert batch.item_ids[row].tolist() == [item for item, _ in pairs] + padding
        assert batch.target_items[row].tolist() == (targets if pairs else []) + padding
    counts = num_training_targets(dataset, max_seq_len, mode)

    assert counts.tolist() == batch.read_mask.sum(dim=1).tolist()
    assert not (batch.read_mask & (batch.item_ids == PAD_ITEM)).any(), "a target after padding"


@settings(deadline=None)
@given(walks=WALKS, max_seq_len=st.integers(1, 8), split=SPLITS)
def test_evaluation_equals_a_plain_loop(walks: list[list[int]], max_seq_len: int, split: EvaluationSplit) -> None:
    dataset = dataset_of(*walks)
    batch = evaluation_batch(dataset, everyone(dataset), split, max_seq_len)
    for row, walk in enumerate(walks):
        *history, target = walk if split == "test" else walk[:-1]
        window = history[-max_seq_len:]

        assert [item for item in batch.item_ids[row].tolist() if item != PAD_ITEM] == window
        assert batch.item_ids[row, : len(window)].tolist() == window
        assert batch.target_items[row].nonzero().flatten().tolist() == [len(window) - 1]
        assert int(batch.target_items[row, len(window) - 1]) == target


@settings(deadline=None)
@given(walks=WALKS, split=SPLITS)
def test_seen_items_are_the_whole_history_but_the_target(walks: list[list[int]], split: EvaluationSplit) -> None:
    dataset = dataset_of(*walks)
    users = everyone(dataset)[::-1]
    rows, columns = seen_items(dataset, users, split)
    expected = []
    for row, user in enumerate(users):
        *history, target = walks[user] if split == "test" else walks[user][:-1]
        expected += [(row, item) for item in sorted(set(history) - {target})]

    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_a_repeat_of_the_target_is_not_masked() -> None:
    rows, columns = seen_items(dataset_of([4, 2, 4, 3, 4]), np.array([0]), "test")

    assert (rows.tolist(), columns.tolist()) == ([0, 0], [2, 3])


def test_an_empty_batch_is_empty(dataset: SequenceDataset) -> None:
    nobody = np.empty(0, dtype=np.int64)

    assert training_batch(dataset, nobody, 5, "all").item_ids.shape == (0, 1)
    assert evaluation_batch(dataset, nobody, "test", 5).targets.tolist() == []
    assert seen_items(dataset, nobody, "test")[0].tolist() == []


def test_the_order_of_users_moves_rows_and_nothing_else(dataset: SequenceDataset) -> None:
    forward = training_batch(dataset, np.array([0, 1, 2]), 4, "all")
    backward = training_batch(dataset, np.array([2, 1, 0]), 4, "all")

    assert forward.item_ids.flip(0).equal(backward.item_ids)
    assert forward.target_items.flip(0).equal(backward.target_items)


def test_a_window_of_zero_is_refused(dataset: SequenceDataset) -> None:
    with pytest.raises(ConfigError, match="max_seq_len: must be at least 1, got 0"):
        training_batch(dataset, everyone(dataset), 0, "all")
    with pytest.raises(ConfigError, match="max_seq_len: must be at least 1, got 0"):
        num_training_targets(dataset, 0, "all")
    with pytest.raises(ConfigError, match="batch_size: must be at least 1, got 0"):
        epoch_batches(everyone(dataset), 0, seed=0, epoch=0)


@given(num_users=st.integers(0, 40), batch_size=st.integers(1, 12), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_user_once(num_users: int, batch_size: int, epoch: int) -> None:
    users = np.arange(100, 100 + num_users)
    batches = epoch_batches(users, batch_size, seed=1, epoch=epoch)

    assert sorted(user for batch in batches for user in batch.tolist()) == users.tolist()
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_seed_and_epoch_fix_the_order() -> None:
    users = np.arange(50)
    orders = {
        (seed, epoch): np.concatenate(epoch_batches(users, 8, seed, epoch)).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }

    assert len({tuple(order) for order in orders.values()}) == 4
    assert orders[0, 1] == np.concatenate(epoch_batches(users, 8, 0, 1)).tolist()
    assert users.tolist() == list(range(50)), "the caller's array was shuffled in place"


@settings(deadline=None)
@given(walks=WALKS, split=SPLITS, num_negatives=st.integers(0, 12), seed=st.integers(0, 5))
def test_candidates_are_the_target_and_distinct_untouched_items(
    walks: list[list[int]], split: EvaluationSplit, num_negatives: int, seed: int
) -> None:
    dataset = dataset_of(*walks)
    candidates = sampled_candidates(dataset, split, num_negatives, seed=seed)

    assert candidates.shape == (len(walks), 1 + num_negatives)
    assert candidates[:, 0].tolist() == dataset.targets(split).tolist()
    for walk, row, count in zip(walks, candidates.tolist(), num_candidates(candidates), strict=True):
        untouched = set(range(1, dataset.num_items + 1)) - set(walk)
        negatives = row[1:count]

        assert count == 1 + min(num_negatives, len(untouched))
        assert len(set(negatives)) == len(negatives)
        assert set(negatives) <= untouched
        assert set(row[count:]) <= {PAD_ITEM}


def test_every_untouched_item_is_drawn_equally_often() -> None:
    draws = [sampled_candidates(dataset_of([2, 5, 9]), "test", 2, seed=seed)[0, 1:] for seed in range(3_000)]
    items, counts = np.unique(np.concatenate(draws), return_counts=True)

    # Six untouched items, two drawn each time; the standard deviation of a count is about 26.
    assert items.tolist() == [1, 3, 4, 6, 7, 8]
    assert counts == pytest.approx(3_000 * 2 / 6, abs=5 * 26)


def test_candidates_depend_on_seed_and_split_alone() -> None:
    dataset = dataset_of([1, 2, 3], [200, 4, 5])
    first = sampled_candidates(dataset, "test", 50, seed=7)

    np.testing.assert_array_equal(first, sampled_candidates(dataset, "test", 50, seed=7))
    assert (first != sampled_candidates(dataset, "test", 50, seed=8)).any()
    assert (first[:, 1:] != sampled_candidates(dataset, "valid", 50, seed=7)[:, 1:]).any()


def test_the_papers_protocol_has_one_positive_and_999_negatives() -> None:
    candidates = sampled_candidates(dataset_of([1, 2, 1_500]), "test", seed=0)

    assert num_candidates(candidates).tolist() == [1_000]


def test_ids_survive_from_the_table_to_the_batch() -> None:
    frame = pd.DataFrame({"user_id": ["u"] * 4, "item_id": list("dcba"), "timestamp": [1, 2, 3, 4]})
    dataset = SequenceDataset.from_interactions(frame, 1, 1)
    batch = evaluation_batch(dataset, np.array([0]), "test", 50)

    assert dataset.item_ids[batch.item_ids[0].numpy()].tolist() == ["d", "c", "b"]
    assert dataset.item_ids[batch.targets.numpy()].tolist() == ["a"]
