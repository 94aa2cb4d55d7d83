"""The generated catalogue is learnable to the degree it claims."""

import numpy as np
import pandas as pd
import pytest

from slmrec_core.data import SequenceDataset, load_interactions, synthetic_interactions


def transition_counts(dataset: SequenceDataset) -> np.ndarray:
    counts = np.zeros((dataset.num_items + 1, dataset.num_items + 1), dtype=int)
    for user in range(dataset.num_users):
        items = dataset.events[dataset.offsets[user] : dataset.offsets[user + 1]]
        np.add.at(counts, (items[:-1], items[1:]), 1)
    return counts


def test_the_named_set_survives_the_default_filter_whole() -> None:
    interactions = load_interactions("synthetic")
    dataset = SequenceDataset.from_interactions(interactions)

    assert (dataset.num_users, dataset.num_items, dataset.num_events) == (200, 60, len(interactions))
    assert dataset.has_timestamps
    assert dataset.titles is not None


@pytest.mark.parametrize("follow", [0.0, 0.5, 0.8])
def test_the_most_frequent_successor_is_right_as_often_as_promised(follow: float) -> None:
    interactions = synthetic_interactions(num_users=3_000, num_items=20, follow=follow, seed=3)
    counts = transition_counts(SequenceDataset.from_interactions(interactions))

    assert counts.max(axis=1).sum() / counts.sum() == pytest.approx(follow + (1 - follow) / 20, abs=0.01)


def test_without_noise_all_users_walk_one_ring() -> None:
    counts = transition_counts(SequenceDataset.from_interactions(synthetic_interactions(follow=1.0)))

    assert ((counts[1:] > 0).sum(axis=1) == 1).all()


def test_a_seed_fixes_everything_and_another_changes_it() -> None:
    pd.testing.assert_frame_equal(synthetic_interactions(seed=1), synthetic_interactions(seed=1))

    assert not synthetic_interactions(seed=1).equals(synthetic_interactions(seed=2))


def test_rows_are_not_sorted_by_time() -> None:
    assert not synthetic_interactions()["timestamp"].is_monotonic_increasing
