"""Filtering, ordering, splitting and storing, against slow plain references."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from slmrec_core.data import SequenceDataset, synthetic_interactions
from slmrec_core.errors import CheckpointError, ConfigError, DataError

Event = tuple[str, str, int]

EVENTS = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefg"), st.integers(0, 5)), min_size=1, max_size=60
)


def table(events: list[Event]) -> pd.DataFrame:
    return pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])


def walk(user: str, items: str, times: list[int] | None = None) -> list[Event]:
    return [(user, item, time) for item, time in zip(items, times or range(len(items)), strict=True)]


def unfiltered(events: list[Event]) -> SequenceDataset:
    return SequenceDataset.from_interactions(table(events), min_user=1, min_item=1)


def sequences(dataset: SequenceDataset) -> dict[str, list[str]]:
    ends = zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    items = [dataset.item_ids[dataset.events[start:end]].tolist() for start, end in ends]
    return dict(zip(dataset.user_ids.tolist(), items, strict=True))


def plain_sequences(events: list[Event], min_user: int, min_item: int) -> dict[str, list[str]]:
    while True:
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        kept = [event for event in events if users[event[0]] >= min_user and items[event[1]] >= min_item]
        if kept == events:
            break
        events = kept
    found: dict[str, list[str]] = {}
    for user, item, _ in sorted(events, key=lambda event: event[2]):
        found.setdefault(user, []).append(item)
    return {user: items for user, items in sorted(found.items()) if len(items) >= 3}


@settings(deadline=None, max_examples=40)
@given(events=EVENTS, min_user=st.integers(1, 4), min_item=st.integers(1, 4))
def test_filter_and_order_equal_the_plain_reference(events: list[Event], min_user: int, min_item: int) -> None:
    expected = plain_sequences(events, min_user, min_item)
    if not expected:
        with pytest.raises(DataError, match="nothing is left"):
            SequenceDataset.from_interactions(table(events), min_user, min_item)
        return
    dataset = SequenceDataset.from_interactions(table(events), min_user, min_item)

    assert expected == sequences(dataset)
    assert dataset.num_items == len({item for items in expected.values() for item in items})
    assert dataset.num_repeats == sum(len(items) - len(set(items)) for items in expected.values())


@settings(deadline=None, max_examples=40)
@given(events=EVENTS, data=st.data())
def test_how_the_rows_of_different_users_interleave_changes_nothing(events: list[Event], data: st.DataObject) -> None:
    events = events + walk("u", "abc")
    queues = {user: [event for event in events if event[0] == user] for user in sorted({event[0] for event in events})}
    turns = data.draw(st.permutations([event[0] for event in events]))
    interleaved = [queues[user].pop(0) for user in turns]

    assert unfiltered(events).fingerprint == unfiltered(interleaved).fingerprint


@settings(deadline=None, max_examples=40)
@given(events=EVENTS)
def test_item_zero_is_never_real(events: list[Event]) -> None:
    dataset = unfiltered(events + walk("u", "abc"))

    assert dataset.events.min() == 1
    assert dataset.events.max() == dataset.num_items
    assert dataset.item_ids[0] == ""


def test_the_core_is_found_by_repeating() -> None:
    # Item z has one event. Without it user w has two, and without w item c has one, so all of them go.
    events = walk("u", "abab") + walk("v", "babac") + walk("w", "azc")
    dataset = SequenceDataset.from_interactions(table(events), min_user=3, min_item=2)

    assert sequences(dataset) == {"u": list("abab"), "v": list("baba")}


@settings(deadline=None, max_examples=40)
@given(events=EVENTS, min_user=st.integers(1, 4), min_item=st.integers(1, 4))
def test_a_single_pass_counts_users_and_then_the_items_of_those_kept(
    events: list[Event], min_user: int, min_item: int
) -> None:
    events = events + walk("long", "abcabcabcabc")
    kept = [event for event in events if Counter(user for user, *_ in events)[event[0]] >= min_user]
    kept = [event for event in kept if Counter(item for _, item, _ in kept)[event[1]] >= min_item]
    kept = [event for event in kept if Counter(user for user, *_ in kept)[event[0]] >= 3]

    found = SequenceDataset.from_interactions(table(events), min_user, min_item, k_core="once")
    assert sequences(found) == sequences(unfiltered(kept))


def test_a_single_pass_may_leave_users_below_their_limit() -> None:
    # Item z goes after the users were counted, and w, who had five events with it, is not counted again.
    events = walk("u", "abab") + walk("v", "babac") + walk("w", "azcab")
    found = SequenceDataset.from_interactions(table(events), min_user=5, min_item=2, k_core="once")

    assert sequences(found) == {"v": list("babac"), "w": list("acab")}


@settings(deadline=None, max_examples=40)
@given(events=EVENTS)
def test_of_repeats_the_first_in_time_is_kept_and_counted(events: list[Event]) -> None:
    events = events + walk("long", "abcabcabc")
    kept: list[Event] = []
    for event in sorted(events, key=lambda event: event[2]):
        if not [other for other in kept if other[:2] == event[:2]]:
            kept.append(event)
    found = SequenceDataset.from_interactions(table(events), min_user=3, min_item=1, repeats="first")

    assert found.num_repeats == 0
    assert sequences(found) == plain_sequences(kept, min_user=3, min_item=1)


def test_titles_stay_with_their_items_without_repeats() -> None:
    events = table(walk("u", "aabbc") + walk("v", "cbaab")).assign(title=lambda frame: frame["item_id"].str.upper())
    found = SequenceDataset.from_interactions(events, min_user=1, min_item=1, repeats="first")

    assert found.titles is not None
    assert [title.lower() for title in found.titles] == found.item_ids.tolist()


def test_equal_times_keep_the_order_of_the_rows() -> None:
    assert sequences(unfiltered(walk("u", "dbcaeb", [7, 7, 7, 7, 3, 7]))) == {"u": list("edbcab")}


def test_shuffled_ties_move_nothing_across_times_and_are_the_same_every_time() -> None:
    times = [1] * 6 + [2] + [3] * 6
    events = [("u", f"i{item:02d}", time) for item, time in enumerate(times)]
    first, again = (SequenceDataset.from_interactions(table(events), 1, 1, ties="shuffled") for _ in range(2))
    plain = SequenceDataset.from_interactions(table(events), 1, 1)
    assert first.events.tolist() == again.events.tolist()
    assert first.events.tolist() != plain.events.tolist()
    for part in (slice(0, 6), slice(6, 7), slice(7, 13)):
        assert sorted(first.events[part].tolist()) == plain.events[part].tolist()


@pytest.mark.parametrize("scale", [1, 2**40, 2**62, 0.1, -(2**62)])
def test_times_are_ordered_whatever_their_size(scale: float) -> None:
    # Small ones are sorted by one key with the user in it, large ones and fractions by two.
    frame = table([*walk("v", "abcd", [1, 0, 1, -1]), *walk("u", "bcab", [0, -2, 0, 1])])
    frame["timestamp"] = [scale * time for time in frame["timestamp"]]
    up = {"u": ["c", "b", "a", "b"], "v": ["d", "b", "a", "c"]}
    down = {"u": ["b", "b", "a", "c"], "v": ["a", "c", "b", "d"]}

    assert sequences(SequenceDataset.from_interactions(frame, 1, 1)) == (up if scale > 0 else down)


def test_ids_follow_the_sorted_raw_ids() -> None:
    dataset = unfiltered(walk("10", "cab") + walk("9", "bca"))

    assert dataset.user_ids.tolist() == ["10", "9"]
    assert dataset.item_ids.tolist() == ["", "a", "b", "c"]
    assert dataset.events.tolist() == [3, 1, 2, 2, 3, 1]
    assert dataset.offsets.tolist() == [0, 3, 6]


def test_splits_leave_the_last_two_out() -> None:
    dataset = unfiltered(walk("u", "abcde") + walk("v", "eda"))

    assert dataset.history(0, "train").tolist() == [1, 2, 3]
    assert dataset.history(0, "valid").tolist() == [1, 2, 3]
    assert dataset.history(0, "test").tolist() == [1, 2, 3, 4]
    assert dataset.targets("valid").tolist() == [4, 4]
    assert dataset.targets("test").tolist() == [5, 1]
    assert dataset.history_lengths("train").tolist() == [3, 1]
    assert dataset.history_lengths("test").tolist() == [4, 2]


def test_train_has_no_single_target_and_unknown_splits_are_refused() -> None:
    dataset = unfiltered(walk("u", "abc"))

    # Where shapes and types are checked at every call, the checker speaks first.
    with pytest.raises((ConfigError, TypeCheckError), match="'train'"):
        dataset.targets("train")  # type: ignore[arg-type]
    with pytest.raises((ConfigError, TypeCheckError), match="'validation'"):
        dataset.history(0, "validation")  # type: ignore[arg-type]


def test_training_counts_leave_out_what_is_held_out() -> None:
    dataset = unfiltered([*walk("u", "abcab"), *walk("v", "aabc")])
    # Training events: a b c of u, a a of v.
    assert dict(zip(dataset.item_ids.tolist(), dataset.train_counts.tolist(), strict=True)) == {
        "": 0, "a": 3, "b": 1, "c": 1,
    }  # fmt: skip


def test_short_users_are_dropped_and_counted() -> None:
    events = walk("u", "abc") + walk("v", "ab") + walk("w", "c")

    assert (unfiltered(events).dropped_users, unfiltered(events).num_users) == (2, 1)


def test_fewer_than_three_events_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="at least 3 events per user, got 2"):
        SequenceDataset.from_interactions(table(walk("u", "abc")), 1, 1, min_events=2)


def test_nothing_left_tells_the_counts_and_the_thresholds() -> None:
    with pytest.raises(DataError) as caught:
        SequenceDataset.from_interactions(table(walk("u", "abc") + walk("v", "ab")), min_user=2, min_item=2)

    assert "2 users, 3 items, 5 events" in str(caught.value)
    assert "min_user=2, min_item=2 (2 users, 2 items, 4 events) and min_events=3" in str(caught.value)


def test_repeats_are_events_of_an_item_the_user_had_before() -> None:
    dataset = unfiltered(walk("u", "aabab") + walk("v", "abc"))

    assert dataset.num_repeats == 3
    assert dataset.repeat_share == 3 / 8


def test_titles_stand_at_the_items_index_and_the_first_one_wins() -> None:
    frame = table(walk("u", "cabc")).assign(title=["C", "A", None, "another C"])
    dataset = SequenceDataset.from_interactions(frame, 1, 1)

    assert dataset.titles is not None
    assert dataset.titles.tolist() == ["", "A", "", "C"]


def test_the_callers_table_is_not_changed() -> None:
    frame = table([("u", "a", 3), ("u", "b", 2), ("u", "c", 1)])
    before = frame.copy()
    SequenceDataset.from_interactions(frame, 1, 1)

    pd.testing.assert_frame_equal(before, frame)


def test_numbers_as_ids_become_text() -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [10, 9, 8], "timestamp": [1, 2, 3]})

    assert sequences(SequenceDataset.from_interactions(frame, 1, 1)) == {"1": ["10", "9", "8"]}


@pytest.mark.parametrize("dtype", [object, "str", "category"])
def test_the_callers_ids_may_be_of_any_kind_of_text(dtype: object) -> None:
    whole = table([*walk("u", "bacd"), *walk("z", "bb")]).astype({"user_id": dtype, "item_id": dtype})
    # Categories that no row has any more are not users or items.
    dataset = SequenceDataset.from_interactions(whole[whole["item_id"] != "d"], 1, 1)

    assert sequences(dataset) == {"u": ["b", "a", "c"]}
    assert dataset.item_ids.tolist() == ["", "a", "b", "c"]
    assert {type(name) for name in (*dataset.user_ids, *dataset.item_ids)} == {str}


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_a_missing_value_or_column_in_the_callers_table_is_named(column: str) -> None:
    frame = table(walk("u", "abc")).astype(object)
    with pytest.raises(DataError, match=f"no {column.removesuffix('_id')} column '{column}'"):
        SequenceDataset.from_interactions(frame.drop(columns=column))

    frame.loc[1, column] = None
    with pytest.raises(DataError, match=f"interactions, row 1: column '{column}'"):
        SequenceDataset.from_interactions(frame)


def test_arrays_that_contradict_one_another_are_refused() -> None:
    ids = np.array(["u"], dtype=object), np.array(["", "a"], dtype=object)
    offsets = np.array([0, 3])

    with pytest.raises(DataError, match="items 0 to 1 of 1"):
        SequenceDataset(*ids, None, np.array([0, 1, 1], dtype=np.int32), offsets)
    with pytest.raises(DataError, match="offsets from"):
        SequenceDataset(*ids, None, np.array([1, 1], dtype=np.int32), offsets)


@pytest.fixture
def odd_dataset() -> SequenceDataset:
    frame = table([("Ann Lee", 'say "x"', 1), ("Ann Lee", "日本, 語", 2), ("Ann Lee", "tab\there", 3)])
    frame["title"] = ["", "naïve", "line\nbreak"]
    frame.attrs["has_timestamps"] = False
    return SequenceDataset.from_interactions(frame, 1, 1)


def test_saving_and_loading_keeps_everything(odd_dataset: SequenceDataset, tmp_path: Path) -> None:
    odd_dataset.save(tmp_path / "new" / "data")
    loaded = SequenceDataset.load(tmp_path / "new" / "data")

    for name in ("user_ids", "item_ids", "titles", "events", "offsets"):
        np.testing.assert_array_equal(getattr(odd_dataset, name), getattr(loaded, name), strict=True)
    assert (loaded.has_timestamps, loaded.dropped_users) == (False, 0)
    assert loaded.fingerprint == odd_dataset.fingerprint


def test_a_data_set_without_titles_stays_without(tmp_path: Path) -> None:
    unfiltered(walk("u", "abc")).save(tmp_path)

    assert SequenceDataset.load(tmp_path).titles is None


@pytest.mark.parametrize("name", ["dataset.json", "users.parquet", "items.parquet", "events.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "edited"])
def test_a_damaged_directory_is_refused(odd_dataset: SequenceDataset, tmp_path: Path, name: str, damage: str) -> None:
    odd_dataset.save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    if damage == "edited":
        path.write_bytes(content.replace(b'"format": 1', b'"format": 9') if name.endswith("json") else content + b"x")

    with pytest.raises(CheckpointError, match="build it again|Build the data set again"):
        SequenceDataset.load(tmp_path)


@pytest.mark.parametrize("edit", [{"fingerprint": "0"}, {"dropped_users": "many"}, {"sha256": {}}, {"sha256": 3}])
def test_an_edited_header_is_refused(odd_dataset: SequenceDataset, tmp_path: Path, edit: dict[str, object]) -> None:
    odd_dataset.save(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))

    with pytest.raises(CheckpointError):
        SequenceDataset.load(tmp_path)


def test_the_fingerprint_sees_ids_and_order() -> None:
    variants = [walk("u", "abc"), walk("v", "abc"), walk("u", "abd"), walk("u", "acb"), walk("u", "abcc")]

    assert len({unfiltered(events).fingerprint for events in variants}) == len(variants)
    assert unfiltered(variants[0]).fingerprint == unfiltered(walk("u", "abc", [5, 6, 9])).fingerprint


def test_a_large_log_is_processed_in_whole_arrays() -> None:
    dataset = SequenceDataset.from_interactions(synthetic_interactions(num_users=2_000, num_items=500))

    assert dataset.num_users == 2_000
