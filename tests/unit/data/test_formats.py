"""Formats by name: each reads what is found without one, and no file is read as what it is not."""

import json
from pathlib import Path

import pandas as pd
import pytest

from slmrec_core.data import FORMATS, DataConfig, load_interactions
from slmrec_core.data.__main__ import main
from slmrec_core.errors import ConfigError, DataError
from slmrec_core.experiment import resolve

NAMES = ["user_id", "item_id", "rating", "timestamp"]
EVENTS = [("196", "242", "3", "881250949"), ("186", "302", "4", "891717742"), ("196", "377", "1", "978887116")]
OF_2014 = [(f"A2CX7LUOHB2N{user}G", f"B0000{item}5M1"[:10], *others) for user, item, *others in EVENTS]


def lines(separator: str, rows: list[tuple[str, ...]]) -> bytes:
    return "".join(separator.join(row) + "\n" for row in rows).encode()


FILES = {
    "csv": lines(",", [tuple(NAMES), *EVENTS]),
    "tsv": lines("\t", [tuple(NAMES), *EVENTS]),
    "json-lines": "".join(json.dumps(dict(zip(NAMES, event, strict=True))) + "\n" for event in EVENTS).encode(),
    "recbole": lines("\t", [tuple(f"{name}:token" for name in NAMES), *EVENTS]),
    "movielens": lines("::", EVENTS),
    "amazon-2014": lines(",", OF_2014),
    "amazon-2018": lines(",", [(item, user, *others) for user, item, *others in OF_2014]),
    "pairs": lines(" ", [event[:2] for event in EVENTS]),
    "lists": b"196 242 377\n186 302\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    pd.DataFrame(EVENTS, columns=NAMES).to_parquet(tmp_path / "parquet")
    return tmp_path


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_by_name_reads_what_is_found_without_it(folder: Path, name: str) -> None:
    found = load_interactions(folder / name)

    assert len(found) == 3
    pd.testing.assert_frame_equal(load_interactions(folder / name, format=name), found)
    assert load_interactions(folder / name, format=name).attrs == found.attrs


@pytest.mark.parametrize("name", FORMATS)
def test_another_files_format_gives_events_or_one_error_with_its_name(folder: Path, name: str) -> None:
    refused = []
    for path in sorted(folder.iterdir()):
        try:
            assert list(load_interactions(path, format=name))[:3] == ["user_id", "item_id", "timestamp"]
        except DataError as error:
            refused.append(str(error).startswith(str(path)))
    assert all(refused)
    # To these two, whatever has spaces or TABs is text.
    assert len(refused) >= (5 if name in ("pairs", "lists") else 7)


def test_what_cannot_be_told_is_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("u1,a,5.0,1365811200\n")
    with pytest.raises(DataError, match="cannot tell users from items.*Set data.format to amazon-2014 or amazon-2018"):
        load_interactions(path)

    for name, pair in (("amazon-2014", ["u1", "a"]), ("amazon-2018", ["a", "u1"])):
        assert load_interactions(path, format=name)[["user_id", "item_id"]].to_numpy().tolist() == [pair]


def test_what_looks_like_another_format_is_read_by_name(tmp_path: Path) -> None:
    # Three items, the last of them with a number as large as a time, look like a rating.
    path = tmp_path / "seq.txt"
    path.write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")

    assert load_interactions(path)["item_id"].tolist() == ["242", "302"]
    lists = ["242", "3", "881250949", "302", "3", "891717742"]
    assert load_interactions(path, format="lists")["item_id"].tolist() == lists
    # Times of another unit are not known for times.
    path.write_text("196::242::3::9\n")
    assert load_interactions(path, format="movielens")["timestamp"].tolist() == [9]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recbole", "user_id\titem_id\nu\ti\n", "line 1: RecBole's header must be fields such as 'user_id:token'"),
        ("movielens", "userId,movieId,rating,timestamp\n1,2,3,4\n", "line 1: a log of ratings must be user, item"),
        ("amazon-2014", "user,item,rating\nu,i,5\n", "line 1: a log of ratings must be user, item, rating and time"),
        ("pairs", "1 2\n\n3 4 5\n", "line 3: a pair must be `user item`, got '3 4 5'"),
        ("lists", "1 2\n3 4\n1 5\n", "line 3: one user per line was expected, got user '1' again"),
        ("csv", "1,2,3\n", "no user column 'user_id', got columns '1', '2', '3'"),
        ("parquet", "user_id,item_id\n", "damaged parquet file"),
        ("json-lines", "user_id,item_id\n", "line 1: must be one JSON object"),
    ],
)
def test_a_file_of_another_format_is_refused_by_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)

    with pytest.raises(DataError, match=f"{path}.*{message}"):
        load_interactions(path, format=name)


@pytest.mark.parametrize(
    ("wrong", "near"), [("movie-lens", "movielens"), ("json", "json-lines"), ("amazon2014", "ama")]
)
def test_an_unknown_format_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, near: str
) -> None:
    told = f"data.format: unknown, got '{wrong}'. (Did you mean '{near}|Known: )"
    with pytest.raises(ConfigError, match=told):
        load_interactions(tmp_path / "nowhere", format=wrong)
    with pytest.raises(ConfigError, match=told):
        DataConfig(path="nowhere", format=wrong)
    with pytest.raises(ConfigError, match=told):
        resolve({"data.path": "nowhere", "data.format": wrong})
    assert main(["inspect", "nowhere", "--format", wrong]) == 2
    assert capsys.readouterr().err.startswith(f"data.format: unknown, got '{wrong}'.")


def test_a_named_set_has_its_own_format() -> None:
    with pytest.raises(ConfigError, match="data.format: a named set has its own, got 'csv' for 'synthetic'"):
        load_interactions("synthetic", format="csv")
    with pytest.raises(ConfigError, match="data.format: a named set has its own"):
        DataConfig(format="recbole")


def test_inspect_takes_the_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder / "pairs"), "--format", "lists"]) == 2
    assert "one user per line was expected, got user '196' again" in capsys.readouterr().err
    assert main(["inspect", str(folder / "pairs"), "--format", "pairs"]) == 0
    assert "read as          text, one `user item` pair per line\n" in capsys.readouterr().out
