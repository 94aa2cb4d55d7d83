"""The Markov chain and turned neighbours against slow plain references, and on sets with and without an order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_core.data import synthetic_interactions
from slmrec_core.data.inspection import inspect_interactions
from slmrec_core.data.order_signal import markov_hit_rate, shuffled_within_users, turned_neighbours


def flat(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    users = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences])
    return users, np.array([item for items in sequences for item in items], dtype=np.int64)


def plain_hit_rate(sequences: list[list[int]]) -> float | None:
    counts = Counter(pair for items in sequences for pair in zip(items[:-2], items[1:-1], strict=True))
    asked = [(items[-2], items[-1]) for items in sequences if len(items) >= 3]
    ranks = [sum(n >= counts[pair] for (previous, _), n in counts.items() if previous == pair[0]) for pair in asked]
    hits = [counts[pair] > 0 and rank <= 10 for pair, rank in zip(asked, ranks, strict=True)]
    return sum(hits) / len(hits) if hits else None


@settings(deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=12), min_size=1, max_size=30),
    reach=st.sampled_from([1, 15]),
)
def test_the_hit_rate_is_that_of_a_plain_reference(sequences: list[list[int]], reach: int) -> None:
    # Few items, so that followers have different counts; or many, so that some have more than ten.
    sequences = [[item % (reach + 1) for item in items] for items in sequences]

    assert markov_hit_rate(*flat(sequences)) == pytest.approx(plain_hit_rate(sequences))


@pytest.mark.parametrize(("num_followers", "hit_rate"), [(9, 1 / 10), (10, 1 / 11)])
def test_ties_count_against_the_chain(num_followers: int, hit_rate: float) -> None:
    # Item 0 is followed by 9 or 10 items once each, then by a new one: only the user who asks for a known one can hit.
    sequences = [[0, 1 + n, 50 + n] for n in range(num_followers)]
    asked = [99, 0, 1]

    assert markov_hit_rate(*flat([*sequences, asked])) == hit_rate
    crowded = [[0, 20 + n, 70 + n] for n in range(2)]
    assert markov_hit_rate(*flat([*sequences, *crowded, asked])) == 0


@settings(deadline=None)
@given(sequences=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=20))
def test_turned_neighbours_are_those_of_a_plain_reference(sequences: list[list[int]]) -> None:
    steps = Counter(pair for items in sequences for pair in zip(items[:-1], items[1:], strict=True))
    pairs = {(a, b): (steps[a, b], steps[b, a]) for a in range(7) for b in range(a) if steps[a, b] + steps[b, a] > 1}

    assert turned_neighbours(*flat(sequences)) == (len(pairs), sum(min(both) > 0 for both in pairs.values()))
    assert turned_neighbours(*flat([sorted(items) for items in sequences]))[1] == 0


def test_the_order_of_a_shuffle_stays_within_users_and_is_the_same_every_time() -> None:
    users = np.repeat(np.arange(5), 20)
    places = shuffled_within_users(users)

    assert sorted(places) == list(range(100))
    np.testing.assert_array_equal(users[places], users)
    np.testing.assert_array_equal(places, shuffled_within_users(users))
    assert not np.array_equal(places, np.arange(100))


def test_a_ring_is_found_in_order_and_lost_by_a_shuffle() -> None:
    found = inspect_interactions(synthetic_interactions())

    # Four in five steps go on to the successor.
    assert found.markov_hit_rate is not None
    assert found.shuffled_hit_rate is not None
    assert 0.75 < found.markov_hit_rate < 0.9
    assert found.shuffled_hit_rate < found.markov_hit_rate / 2


def test_a_set_without_order_keeps_what_little_there_is() -> None:
    frame = synthetic_interactions(num_users=2_000, num_items=30, follow=0.0)
    found = inspect_interactions(frame)

    assert found.markov_hit_rate == pytest.approx(1 / 3, abs=0.05)
    assert found.shuffled_hit_rate == pytest.approx(1 / 3, abs=0.05)


def test_users_with_two_events_are_not_asked() -> None:
    assert markov_hit_rate(*flat([[0, 1], [1], [0, 1]])) is None
