"""A cut at two moments: by hand, against a slow plain reference, and the law that nothing trained comes later."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmrec_core.data import (
    DataConfig,
    EvaluationSplit,
    GlobalTimeSplit,
    SequenceDataset,
    evaluation_batch,
    num_candidates,
    num_training_targets,
    sampled_candidates,
    seen_items,
    training_batch,
    training_windows,
)
from slmrec_core.data.splits import leave_one_out
from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.structures import PAD_ITEM

Event = tuple[str, str, int]
SPLITS: tuple[EvaluationSplit, ...] = ("valid", "test")


def table(events: list[Event]) -> pd.DataFrame:
    return pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])


def split_at(events: list[Event], first: int, second: int) -> SequenceDataset:
    return SequenceDataset.from_interactions(table(events), 1, 1, time_split=GlobalTimeSplit(times=(first, second)))


# Train before 10, valid from 10 to 19, test from 20 on.
HAND = [
    ("both", "a", 1), ("both", "b", 2), ("both", "c", 12), ("both", "d", 13), ("both", "e", 25), ("both", "f", 29),
    ("early", "a", 1), ("early", "b", 2), ("early", "c", 3),
    ("late", "d", 20), ("late", "e", 21), ("late", "f", 21),
    ("middle", "a", 9), ("middle", "b", 10), ("middle", "c", 19),
    ("new", "c", 10), ("new", "d", 20), ("new", "e", 20),
]  # fmt: skip


@pytest.fixture
def dataset() -> SequenceDataset:
    return split_at(HAND, 10, 20)


def names(dataset: SequenceDataset, items: np.ndarray) -> str:
    return "".join(dataset.item_ids[items])


def test_the_last_event_of_each_part_is_predicted_from_all_before_it(dataset: SequenceDataset) -> None:
    users = dataset.user_ids.tolist()
    assert users == ["both", "early", "late", "middle", "new"]
    train = {user: names(dataset, dataset.history(row, "train")) for row, user in enumerate(users)}
    assert train == {"both": "ab", "early": "abc", "late": "", "middle": "a", "new": ""}
    asked = {
        split: {
            users[row]: (names(dataset, dataset.history(row, split)), names(dataset, dataset.targets(split)[[row]]))
            for row in dataset.evaluated_users(split).tolist()
        }
        for split in SPLITS
    }
    # `new` has an event in valid, but none before it.
    assert asked["valid"] == {"both": ("abc", "d"), "middle": ("ab", "c")}
    assert asked["test"] == {"both": ("abcde", "f"), "late": ("de", "f"), "new": ("cd", "e")}
    assert dataset.targets("valid")[1] == PAD_ITEM
    assert dict(zip(dataset.item_ids, dataset.train_counts.tolist(), strict=True)) == {
        "": 0, "a": 3, "b": 2, "c": 1, "d": 0, "e": 0, "f": 0,
    }  # fmt: skip


events = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefg"), st.integers(0, 9)), min_size=1, max_size=60
)
moments = st.tuples(st.integers(1, 8), st.integers(1, 8)).filter(lambda pair: pair[0] < pair[1])


def plain_split(log: list[Event], first: int, second: int) -> dict[str, dict[str, tuple[list[str], str]]]:
    """By user and part: what is read, and the target."""
    found: dict[str, dict[str, tuple[list[str], str]]] = {"valid": {}, "test": {}}
    for user in sorted({event[0] for event in log}):
        own = sorted((event for event in log if event[0] == user), key=lambda event: event[2])
        if len(own) < 3:
            continue
        for split, start, end in (("valid", first, second), ("test", second, 99)):
            places = [place for place, event in enumerate(own) if start <= event[2] < end]
            if places and places[-1] > 0:
                items = [item for _, item, _ in own]
                found[split][user] = (items[: places[-1]], items[places[-1]])
    return found


@given(log=events, cut=moments, max_seq_len=st.integers(1, 8))
def test_batches_and_masks_equal_a_plain_reference(log: list[Event], cut: tuple[int, int], max_seq_len: int) -> None:
    expected = plain_split(log, *cut)
    try:
        dataset = split_at(log, *cut)
    except DataError as error:
        told = str(error)
        dataset = None
    if dataset is None:
        assert "must leave users to every part" in told or "nothing is left" in told
        return
    assert min(map(len, expected.values())) > 0
    for split in SPLITS:
        users = dataset.evaluated_users(split)
        batch = evaluation_batch(dataset, users, split, max_seq_len)
        assert dataset.user_ids[users].tolist() == list(expected[split])
        for row, (history, target) in enumerate(expected[split].values()):
            window = history[-max_seq_len:]
            assert dataset.item_ids[batch.item_ids[row].numpy()].tolist()[: len(window)] == window
            assert dataset.item_ids[int(batch.target_items[row, len(window) - 1])] == target
        assert len(batch.targets) == len(users)
        rows, columns = seen_items(dataset, users, split)
        masked = [
            (row, item) for row, (history, target) in enumerate(expected[split].values())
            for item in sorted(set(history) - {target})
        ]  # fmt: skip
        assert list(zip(rows.tolist(), dataset.item_ids[columns].tolist(), strict=True)) == masked


@given(log=events, cut=moments, max_seq_len=st.integers(1, 4))
def test_nothing_that_is_trained_on_comes_after_the_first_moment(
    log: list[Event], cut: tuple[int, int], max_seq_len: int
) -> None:
    # Items are called by their time, so that every batch tells when its events were.
    dated = [(user, f"{time}", time) for user, _, time in log]
    try:
        dataset = split_at(dated, *cut)
    except DataError:
        return
    users, skipped = training_windows(dataset, max_seq_len, "all")
    batch = training_batch(dataset, users, max_seq_len, "all", skipped)
    trained = [
        int(time) for time in dataset.item_ids[np.concatenate([batch.item_ids, batch.target_items])].flat if time
    ]

    assert max(trained) < cut[0]
    kept = {user for user, _, _ in dated if sum(event[0] == user for event in dated) >= 3}
    before = [sum(event[0] == user and event[2] < cut[0] for event in dated) for user in sorted(kept)]
    assert len(batch.targets) == sum(max(count - 1, 0) for count in before)
    assert int(dataset.train_counts.sum()) == sum(before)
    assert num_training_targets(dataset, 99, "all").tolist() == [max(count - 1, 0) for count in before]
    for split, (start, end) in zip(SPLITS, (cut, (cut[1], 99)), strict=True):
        targets = dataset.item_ids[dataset.targets(split)[dataset.evaluated_users(split)]]
        assert all(start <= int(time) < end for time in targets)


def test_shares_are_those_of_the_events_that_the_filter_kept() -> None:
    # Ten events of u and v; z is filtered away and must not move the moments.
    log = [(user, "i", time) for time in range(0, 100, 10) for user in "uv"] + [("z", "i", 5), ("z", "i", 6)]
    dataset = SequenceDataset.from_interactions(table(log), 3, 1, time_split=GlobalTimeSplit((0.5, 0.8)))

    assert dataset.user_ids.tolist() == ["u", "v"]
    assert dataset.history_lengths("train").tolist() == [5, 5]
    # Valid begins at 50 and test at 80: the last of each part are those of 70 and 90.
    assert dataset.history_lengths("valid").tolist() == [7, 7]
    assert dataset.history_lengths("test").tolist() == [9, 9]


def test_events_at_one_time_stay_on_one_side() -> None:
    log = [("u", item, time) for item, time in zip("abcdef", (1, 1, 2, 2, 2, 3), strict=True)]
    dataset = SequenceDataset.from_interactions(table(log), 1, 1, time_split=GlobalTimeSplit((0.5, 0.9)))

    assert dataset.history_lengths("train").tolist() == [2]


def test_large_times_are_compared_as_they_are() -> None:
    # Neighbouring nanoseconds are equal as floats.
    start = 1_700_000_000_000_000_000
    log = [("u", item, start + n) for n, item in enumerate("abcdef")]
    dataset = split_at(log, start + 3, start + 5)
    by_share = SequenceDataset.from_interactions(table(log), 1, 1, time_split=GlobalTimeSplit((0.5, 0.9)))

    assert [dataset.history_lengths(split).tolist() for split in ("train", "valid", "test")] == [[3], [4], [5]]
    assert by_share.fingerprint == dataset.fingerprint


@given(lengths=st.lists(st.integers(3, 20), min_size=1, max_size=5))
def test_leave_one_out_is_unchanged_by_the_other_split(lengths: list[int]) -> None:
    log = [(f"u{user}", f"i{n}", n) for user, length in enumerate(lengths) for n in range(length)]
    dataset = SequenceDataset.from_interactions(table(log), 1, 1)
    ends = np.cumsum(lengths)

    assert dataset.cuts is None
    assert dataset.history_ends("train").tolist() == dataset.history_ends("valid").tolist() == (ends - 2).tolist()
    assert dataset.history_ends("test").tolist() == (ends - 1).tolist()
    assert [dataset.evaluated_users(split).tolist() for split in SPLITS] == [list(range(len(lengths)))] * 2
    assert leave_one_out(np.array(lengths)).tolist() == [[n - 2, n - 2, n - 1] for n in lengths]


def test_sampled_candidates_of_those_who_are_asked_begin_with_their_target(dataset: SequenceDataset) -> None:
    for split in SPLITS:
        candidates, asked = sampled_candidates(dataset, split, 3, seed=0), dataset.evaluated_users(split)
        assert candidates[asked, 0].tolist() == dataset.targets(split)[asked].tolist()
        for row in asked:
            own = set(dataset.events[dataset.offsets[row] : dataset.offsets[row + 1]].tolist())
            assert num_candidates(candidates)[row] == 1 + min(3, dataset.num_items - len(own))
            assert not own & set(candidates[row, 1 : num_candidates(candidates)[row]].tolist())


def test_the_split_is_kept_on_disk_and_is_part_of_the_fingerprint(dataset: SequenceDataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "cut")
    loaded = SequenceDataset.load(tmp_path / "cut")
    assert dataset.cuts is not None
    np.testing.assert_array_equal(dataset.cuts, loaded.cuts, strict=True)
    per_user = SequenceDataset.from_interactions(table(HAND), 1, 1)
    others = (per_user, split_at(HAND, 9, 20), split_at(HAND, 10, 21))

    assert len({loaded.fingerprint, *(other.fingerprint for other in others)}) == 4
    per_user.save(tmp_path / "per_user")
    assert SequenceDataset.load(tmp_path / "per_user").cuts is None
    # Of one set the users, of the other the fingerprint.
    header = (tmp_path / "per_user" / "dataset.json").read_text()
    (tmp_path / "cut" / "dataset.json").write_text(header)
    with pytest.raises(CheckpointError):
        SequenceDataset.load(tmp_path / "cut")


@pytest.mark.parametrize(
    "cuts", [[[1, 1, 3]], [[4, 1, 2]], [[1, 3, 2]], [[-1, 1, 2]], [[1, 1, 2]] * 2, [[1, 1]]], ids=str
)
def test_histories_that_are_none_of_the_users_are_refused(cuts: list[list[int]]) -> None:
    ids = np.array(["u"], dtype=object), np.array(["", "a"], dtype=object)
    events, offsets = np.array([1, 1, 1], dtype=np.int32), np.array([0, 3])
    SequenceDataset(*ids, None, events, offsets, cuts=np.array([[3, 2, 2]], dtype=np.int32))

    with pytest.raises(Exception, match=r"contradict one another, got histories|cuts"):
        SequenceDataset(*ids, None, events, offsets, cuts=np.array(cuts, dtype=np.int32))


def test_a_set_without_times_has_no_moment_to_be_cut_at() -> None:
    frame = table(HAND)
    frame.attrs["has_timestamps"] = False

    with pytest.raises(DataError, match="data.split: a split at a point in time needs timestamps, got events without"):
        SequenceDataset.from_interactions(frame, 1, 1, time_split=GlobalTimeSplit())


@pytest.mark.parametrize(
    ("times", "empty"),
    [((0, 20), "train"), ((10, 99), "test"), ((4, 9), "valid"), ((98, 99), "valid and test"), ((-2, -1), "train and")],
    ids=str,
)
def test_a_part_without_users_is_named_with_the_moments(times: tuple[int, int], empty: str) -> None:
    told = rf"a split at {times[0]} and {times[1]} must .*got none for {empty}.* \(times from 1 to 29\)"
    with pytest.raises(DataError, match=told):
        split_at(HAND, *times)


@pytest.mark.parametrize("quantiles", [(0.0, 0.5), (0.5, 0.5), (0.9, 0.8), (0.5, 1.0)])
def test_shares_ascend_between_0_and_1(quantiles: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="data.split_quantiles: must be two shares between 0 and 1 that ascend, got"):
        GlobalTimeSplit(quantiles)
    with pytest.raises(ConfigError, match="data.split_quantiles: must be two shares"):
        DataConfig(split="global_time", split_quantiles=quantiles)


def test_moments_ascend() -> None:
    with pytest.raises(ConfigError, match=r"data.split_times: must be two moments that ascend, got \[5, 5\]"):
        GlobalTimeSplit(times=(5, 5))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"split_quantiles": (0.7, 0.9)}, r"data.split_quantiles: belongs to data.split=global_time, got \(0.7, 0.9\)"),
        ({"split_times": (1, 2)}, r"data.split_times: belongs to data.split=global_time, got \(1, 2\) with leave_one"),
        (
            {"split": "global_time", "split_times": (1, 2), "split_quantiles": (0.7, 0.9)},
            "data.split_times: stands in place of data.split_quantiles",
        ),
        ({"split": "random"}, "split"),
    ],
    ids=str,
)
def test_a_setting_that_would_be_ignored_is_an_error(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DataConfig(**settings)


def test_settings_become_the_split() -> None:
    assert DataConfig().time_split is None
    assert DataConfig(split="global_time").time_split == GlobalTimeSplit((0.8, 0.9), None)
    cut = DataConfig(split="global_time", split_times=(1_700_000_000_000_000_001, 1_700_000_000_000_000_002)).time_split
    assert cut is not None
    assert cut.times == (1_700_000_000_000_000_001, 1_700_000_000_000_000_002)
