"""Measures against counts by hand and a slow plain reference, and the sign of a set that was sorted by item."""

import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmrec_core.data import load_interactions, synthetic_interactions
from slmrec_core.data.__main__ import main
from slmrec_core.data.inspection import inspect_interactions

events = st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=40)


def table(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return frame.assign(item_id=frame["item_id"].astype(str))


def test_the_measures_of_a_small_set_are_those_counted_by_hand() -> None:
    rows = [("u", 1, 5), ("u", 2, 5), ("u", 1, 6), ("u", 1, 6), ("v", 3, 5)]
    found = inspect_interactions(table(rows).assign(title=["One", "", "One", "One", ""]))

    assert (found.num_users, found.num_items, found.num_events) == (2, 3, 5)
    assert found.density == 3 / (2 * 3)
    assert found.length_quantiles == {0.0: 1, 0.1: 1, 0.25: 1, 0.5: 1, 0.75: 4, 0.9: 4, 0.99: 4, 1.0: 4}
    assert (found.first_time, found.last_time) == (5, 6)
    assert found.tied_share == 4 / 5
    assert (found.num_repeats, found.num_duplicates) == (2, 1)
    assert (found.num_comparable, found.num_ascending, found.expected_ascending) == (0, 0, 0)
    assert found.num_titled == 1


@given(rows=events)
def test_the_measures_are_those_of_a_plain_reference(rows: list[tuple[str, int, int]]) -> None:
    found = inspect_interactions(table(rows))
    of_user = {user: sorted((row for row in rows if row[0] == user), key=lambda row: row[2]) for user, _, _ in rows}
    at = Counter((user, time) for user, _, time in rows)
    pairs = {(user, item) for user, item, _ in rows}
    items_of = [[item for _, item, _ in own] for own in of_user.values()]
    comparable = [items for items in items_of if len(set(items)) >= 5]
    ascending = [
        sum(items == sorted(items, key=key) for items in comparable)
        for key in (int, str)  # type: ignore[call-overload]
    ]

    assert found.density == pytest.approx(len(pairs) / (len(of_user) * len({item for _, item in pairs})))
    assert found.tied_share == pytest.approx(sum(at[user, time] > 1 for user, _, time in rows) / len(rows))
    assert found.num_repeats == len(rows) - len(pairs)
    assert found.num_duplicates == len(rows) - len(set(rows))
    assert (found.num_comparable, found.num_ascending) == (len(comparable), max(ascending))
    assert found.expected_ascending == pytest.approx(sum(1 / math.factorial(len(set(items))) for items in comparable))


@pytest.mark.parametrize("ids", [range(8), range(95, 103), "abcdefgh"], ids=["digits", "numbers", "text"])
def test_a_set_that_was_sorted_by_item_is_warned_of(tmp_path: Path, ids: list[object]) -> None:
    # The trap: copies of Amazon's sets under IDGenRec have every user's items in the order of their ids.
    path = tmp_path / "sorted.txt"
    path.write_text("".join(f"u{n} " + " ".join(str(item) for item in ids[n % 3 :]) + "\n" for n in range(9)))
    found = inspect_interactions(load_interactions(path))

    assert found.num_ascending == found.num_comparable == 9
    assert found.is_sorted_by_item
    assert list(found.lines())[-1].startswith("warning: items stand in one order for all users")


def test_ids_that_were_given_after_the_sorting_do_not_hide_it() -> None:
    frame = synthetic_interactions(num_users=500, num_items=30, follow=0.0)
    frame = frame.sort_values("item_id").drop_duplicates(["user_id", "item_id"])
    names = {item: str(n) for n, item in enumerate(frame["item_id"].sample(frac=1, random_state=0).unique())}
    found = inspect_interactions(frame.assign(item_id=frame["item_id"].map(names), timestamp=0))

    assert found.ascending_share < 0.1
    assert (found.num_neighbours > 100, found.num_turned) == (True, 0)
    assert found.is_sorted_by_item


@pytest.mark.parametrize("length", [2, 3, 4])
def test_short_histories_that_ascend_by_chance_are_no_sign(length: int) -> None:
    found = inspect_interactions(table([(f"u{n}", item, item) for n in range(9) for item in range(length)]))

    assert not found.is_sorted_by_item
    assert not [line for line in found.lines() if line.startswith("warning")]


def test_a_set_in_the_order_of_time_is_not_warned_of() -> None:
    found = inspect_interactions(synthetic_interactions())

    assert found.num_comparable == found.num_users == 200
    assert found.num_ascending == 0
    assert not found.is_sorted_by_item


def test_positions_are_no_times(tmp_path: Path) -> None:
    (tmp_path / "seq.txt").write_text("u a b a\nv b\n")
    found = inspect_interactions(load_interactions(tmp_path / "seq.txt"))

    assert (found.first_time, found.last_time, found.tied_share, found.num_duplicates) == (None, None, None, None)
    assert found.num_repeats == 1
    assert found.form == "text, one user per line"
    assert found.num_titled is None


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("user_id,item_id,timestamp\nu,a,1\n", "text separated by commas, columns user_id, item_id, timestamp"),
        ('{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\n', "JSON lines, columns reviewerID, asin, unixRev"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\n", "RecBole, one event per line, columns user_id, "),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta\tb\n", "RecBole, one user per line"),
        ("1 2\n1 3\n", "text, one `user item` pair per line"),
    ],
)
def test_it_says_as_what_a_file_was_read(tmp_path: Path, content: str, form: str) -> None:
    (tmp_path / "file").write_text(content)

    assert inspect_interactions(load_interactions(tmp_path / "file")).form.startswith(form)


def test_the_command_writes_one_line_a_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,what\n" + "".join(f"u,{item}\n" for item in "badcbe"))

    assert main(["inspect", str(path), "--user-column=who", "--item-column=what", "--timestamp-column=null"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "read as          text separated by commas, columns who, what",
        "users            1",
        "items            5",
        "events           6",
        "density          100.0000% of all pairs of user and item",
        "events per user  min 6, 10% 6, 25% 6, 50% 6, 75% 6, 90% 6, 99% 6, max 6",
        "timestamps       none: the order in the file is the order in time",
        "repeats          16.7% of events, of an item that the user had before",
        "ascending items  0.0% of the 1 users with 5 or more items (chance: 0.8%)",
        "turned items     0.0% of the 0 pairs that are neighbours twice or more come in both orders",
        "next item        a Markov chain has 0.0% of the last items among its first 10, 0.0% with each user's order"
        " shuffled",
        "titles           none",
    ]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((1_500_000_000, 1_510_865_356), "1500000000 to 1510865356 (2017-07-14 to 2017-11-16, as seconds)"),
        ((1_500_000_000_000, 1_510_865_356_000), "(2017-07-14 to 2017-11-16, as milliseconds)"),
        ((1_500_000_000, 1_510_865_356_000), "1500000000 to 1510865356000\n"),
        ((1, 1_510_865_356), "1 to 1510865356\n"),
    ],
    ids=["seconds", "milliseconds", "both", "neither"],
)
def test_times_are_read_as_dates_where_one_unit_fits_both_ends(times: tuple[int, int], said: str) -> None:
    rows = [("u", f"i{index}", time) for index, time in enumerate(times)]
    text = "\n".join(inspect_interactions(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])).lines())
    assert said in text
    told = "warning: the first time reads as seconds, the last one as milliseconds." in text
    assert told == (times == (1_500_000_000, 1_510_865_356_000))


def test_the_command_has_these_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["inspect", "--help"])

    assert sorted(set(re.findall(r"--[a-z-]+", capsys.readouterr().out))) == [
        "--format",
        "--help",
        "--item-column",
        "--min-rating",
        "--rating-column",
        "--timestamp-column",
        "--title-column",
        "--user-column",
    ]


def test_a_file_that_cannot_be_read_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,item_id,timestamp\nu,i,1\n")

    assert main(["inspect", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}, line 1: no user column 'user_id'") or err.startswith(f"{path}: no user column")
    assert "--user-column in inspect" in err
    assert len(err.splitlines()) == 1
