"""Events are left out by rating in every form that has ratings; elsewhere the setting is refused, not ignored."""

import json
from pathlib import Path

import pandas as pd
import pytest

from slmrec_core.data import load_interactions
from slmrec_core.data.__main__ import main
from slmrec_core.errors import DataError

# Whole stars first: a reader that takes the first line's kind for all would refuse the half ones.
EVENTS = [("A2CX7LUOHB2NDG", "B00004Z5M1", 5, 30), ("A2NWSAGRHCP8N5", "B00004Z5M1", 3.5, 10),
          ("A2CX7LUOHB2NDG", "0132793040", 4, 1_341_100_800), ("A2NWSAGRHCP8N5", "0132793040", 1, 40)]  # fmt: skip
LATER = [(user, item, rating, time + 1_000_000_000) for user, item, rating, time in EVENTS]
NUMBERED = [(str(len(user)), str(int(item[-1])), rating, time) for user, item, rating, time in LATER]


def log(events: list[tuple[str, str, float, int]], separator: str, header: str = "") -> str:
    return header + "".join(separator.join(map(str, event)) + "\n" for event in events)


def reviews(events: list[tuple[str, str, float, int]]) -> str:
    names = ("reviewerID", "asin", "overall", "unixReviewTime")
    return "".join(json.dumps(dict(zip(names, event, strict=True))) + "\n" for event in events)


def kept(events: list[tuple[str, str, float, int]], min_rating: float) -> list[tuple[str, str, int]]:
    return [(user, item, time) for user, item, rating, time in events if rating >= min_rating]


@pytest.mark.parametrize("min_rating", [0, 3.5, 4, 5])
@pytest.mark.parametrize(
    ("events", "content"),
    [
        (EVENTS, log(EVENTS, ",", "user_id,item_id,rating,timestamp\n")),
        (EVENTS, log(EVENTS, "\t", "reviewerID\tasin\toverall\tunixReviewTime\n")),
        (EVENTS, log(EVENTS, "\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n")),
        (EVENTS, reviews(EVENTS)),
        (LATER, log(LATER, ",")),
        (NUMBERED, log(NUMBERED, "::")),
        (NUMBERED, log(NUMBERED, "\t")),
    ],
    ids=["comma", "tab", "recbole", "json", "amazon", "movielens-1m", "movielens-100k"],
)
def test_events_with_a_lower_rating_are_left_out(
    tmp_path: Path, events: list[tuple[str, str, float, int]], content: str, min_rating: float
) -> None:
    (tmp_path / "log").write_text(content)
    frame = load_interactions(tmp_path / "log", min_rating=min_rating)

    assert list(frame.itertuples(index=False, name=None)) == kept(events, min_rating)
    assert list(frame.columns) == ["user_id", "item_id", "timestamp"]
    assert frame.index.tolist() == list(range(len(frame)))
    assert frame.attrs["has_timestamps"] is True


def test_the_column_of_ratings_may_have_another_name(tmp_path: Path) -> None:
    table = pd.DataFrame(EVENTS, columns=["user_id", "item_id", "stars", "timestamp"])
    table.to_parquet(tmp_path / "log.parquet")

    frame = load_interactions(tmp_path / "log.parquet", rating_column="stars", min_rating=4)
    assert list(frame.itertuples(index=False, name=None)) == kept(EVENTS, 4)
    with pytest.raises(DataError, match="no rating column 'rating'.*--set data.rating_column=NAME.*min_rating out"):
        load_interactions(tmp_path / "log.parquet", min_rating=4)
    # Not asked for, not needed.
    assert len(load_interactions(tmp_path / "log.parquet")) == 4


@pytest.mark.parametrize(
    "content",
    [
        "1 2 3\n2 3\n",
        "1 2\n1 3\n",
        "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta\tb\n",
        "user_id,parent_asin,rating,timestamp,history\nu,b,5.0,1,a\n",
    ],
    ids=["lists", "pairs", "recbole-lists", "histories"],
)
def test_a_form_without_ratings_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "log").write_text(content)
    with pytest.raises(DataError, match=r"log: events of this form have no ratings, got min_rating=4.*Leave"):
        load_interactions(tmp_path / "log", min_rating=4)


def test_the_generated_catalogue_has_no_ratings() -> None:
    with pytest.raises(DataError, match="synthetic: events of this form have no ratings"):
        load_interactions("synthetic", min_rating=1)


@pytest.mark.parametrize(
    ("rating", "message"),
    [
        ("", "line 2: column 'rating' must hold a number, got ''"),
        ("good", "line 2: column 'rating' must hold a number, got 'good'"),
        ("inf", "line 2: column 'rating' must hold a number, got 'inf'"),
        ("3", "no event has a rating of 4 or more, got 3.0 as the highest"),
    ],
)
def test_ratings_that_cannot_be_compared_are_one_error(tmp_path: Path, rating: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,rating,timestamp\nu,a,{rating},1\n")

    with pytest.raises(DataError, match=f"log.csv.*{message}"):
        load_interactions(path, min_rating=4)


def test_inspect_counts_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text(log(EVENTS, ",", "user_id,item_id,stars,timestamp\n"))

    assert main(["inspect", str(path), "--rating-column=stars", "--min-rating=4"]) == 0
    assert "events           2\n" in capsys.readouterr().out
