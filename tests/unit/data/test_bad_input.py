"""What nobody would write by hand: broken, odd and hostile files give their events, or one short error, and no more."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmrec_core.data import FORMATS, SequenceDataset, load_interactions
from slmrec_core.errors import DataError
from tests.packing import COMPRESS

NAMES = ["user_id", "item_id", "rating", "timestamp"]
HEADER = "user_id,item_id,timestamp\n"
REVIEW = {"reviewerID": "A2CX7LUOHB2NDG", "asin": "B00004Z5M1", "overall": 5.0, "unixReviewTime": 1341100800}
LONG = 10_000_000
in_a_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parquet(table: dict[str, object]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(table), sink)
    return bytes(sink.getvalue())


def table(separator: str, typed: str = "") -> bytes:
    lines = [[name + typed for name in NAMES], *(["u", f"i{n}", "4.5", str(n)] for n in range(50))]
    return "".join(separator.join(line) + "\n" for line in lines).encode()


GOOD = {
    "csv": table(","),
    "tsv": table("\t"),
    "recbole": table("\t", ":token"),
    "json": "".join(json.dumps(REVIEW | {"unixReviewTime": n}) + "\n" for n in range(50)).encode(),
    "movielens": "".join(f"1::{n}::5::978300760\n" for n in range(50)).encode(),
    "pairs": "".join(f"1 {n}\n" for n in range(50)).encode(),
    "parquet": parquet({"user_id": ["u"] * 50, "item_id": list(range(50)), "timestamp": list(range(50))}),
}
BEGINNINGS = (
    b"", b"PAR1", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"{", b'{"user_id": "u"}\n', b"\xff\xfe", b"\xef\xbb\xbf",
    HEADER.encode(), b"user_id:token\titem_id:token\ttimestamp:float\n", b"1::2::3::978300760\n", b"1 2\n",
)  # fmt: skip


@in_a_folder
@given(
    beginning=st.sampled_from(BEGINNINGS),
    rest=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
    name=st.none() | st.sampled_from(FORMATS),
)
def test_any_bytes_are_events_or_one_error_with_the_files_name(
    tmp_path: Path, beginning: bytes, rest: bytes, name: str | None
) -> None:
    path = tmp_path / "any"
    path.write_bytes(beginning + rest)
    try:
        assert len(load_interactions(path, format=name)) > 0
    except DataError as error:
        message = str(error)
    else:
        return
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1


@in_a_folder
@given(form=st.sampled_from(list(GOOD)), compression=st.sampled_from(["gzip", "zstd"]), share=st.floats(0, 1))
def test_a_compressed_file_that_ends_too_early_is_one_error(
    tmp_path: Path, form: str, compression: str, share: float
) -> None:
    whole = COMPRESS[compression](GOOD[form])
    path = tmp_path / "cut"
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])

    with pytest.raises(DataError, match=f"^{path}"):
        load_interactions(path)
    path.write_bytes(whole)
    assert len(load_interactions(path)) == 50


@in_a_folder
@given(share=st.floats(0, 1))
def test_a_parquet_file_that_ends_too_early_is_one_error(tmp_path: Path, share: float) -> None:
    whole = GOOD["parquet"]
    path = tmp_path / "cut"
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])

    with pytest.raises(DataError, match=f"^{path}"):
        load_interactions(path)


@pytest.mark.parametrize(
    ("events", "content", "items", "titles"),
    [
        (
            "x.inter",
            "user_id:token\titem_id:token\ttimestamp:float\nu\t1\t2\n",
            "x.item.gz",
            "item_id:token\ttitle:a\n",
        ),
        ("ratings.dat", "1::2::5::978300760\n", "movies.dat.gz", "2::Two::Drama\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies.csv.gz", "movieId,title\n2,Two\n"),
        ("X_5.json", json.dumps(REVIEW), "meta_X.json.gz", json.dumps({"asin": "B00004Z5M1", "title": "A"})),
        ("X_5.json", json.dumps(REVIEW), "meta_X.json.gz", repr({"asin": "B00004Z5M1", "title": "A"})),
    ],
    ids=["recbole", "movies.dat", "movies.csv", "json", "literals"],
)
def test_titles_that_end_too_early_are_one_error_with_their_files_name(
    tmp_path: Path, events: str, content: str, items: str, titles: str
) -> None:
    (tmp_path / events).write_text(content)
    (tmp_path / items).write_bytes(gzip.compress(titles.encode() * 99)[:-6])

    with pytest.raises(DataError, match=rf"{items}.*: cannot be read, got"):
        load_interactions(tmp_path / events)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((HEADER + "u,i,1\n").encode("utf-16"), "line 1: not UTF-8 text, got byte 0xff"),
        ((HEADER + "u,i,1\n").encode("utf-16-le"), "line 1: binary content, got a zero byte"),
        ((HEADER + "é,i,1\n").encode() + "é,i,2\n".encode("latin-1"), "line 3: not UTF-8 text, got byte 0xe9"),
        ("1 é\r1 b\r".encode() + "1 é\r".encode("latin-1"), "line 3: not UTF-8 text, got byte 0xe9"),
        (json.dumps(REVIEW).encode() + b"\n" + '{"asin": "é"}'.encode("latin-1"), "line 2: must be one JSON object"),
        ((HEADER + "u,i,1\n").encode() + b"\xe2\x82", "line 3: not UTF-8 text, got byte 0xe2"),
    ],
    ids=["utf-16", "utf-16-le", "latin-1", "old-mac", "json", "cut-character"],
)
def test_text_of_another_or_of_two_encodings_is_told_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"^{path}, {message}"):
        load_interactions(path)


def test_an_encoding_is_told_wherever_a_block_ends(tmp_path: Path) -> None:
    # More than one block of good lines, with characters of two bytes that a block may cut.
    path = tmp_path / "log"
    path.write_bytes((HEADER + "é,é,1\n" * 300_000).encode() + b"\xff,i,1\n")

    with pytest.raises(DataError, match=f"^{path}, line 300002: not UTF-8 text, got byte 0xff"):
        load_interactions(path)


@pytest.mark.parametrize("suffix", ["parquet", "inter"])
def test_a_missing_column_is_named_in_every_form(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    without = b"user_id:token\titem:token\ttimestamp:float\nu\ti\t1\n"
    path.write_bytes(without if suffix == "inter" else parquet({"user_id": ["u"], "item": ["i"], "timestamp": [1]}))

    with pytest.raises(DataError, match=f"^{path}: no item column 'item_id', got columns 'user_id', 'item', 'timest"):
        load_interactions(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.inter"
    path.write_text("user_id:token\titem_id:token\titem_id:float\ttimestamp:float\nu\ti\t1\t2\n")

    with pytest.raises(DataError, match=f"^{path}, line 1: every column must have a name of its own, got 'item_id' tw"):
        load_interactions(path)


@pytest.mark.parametrize("content", [b"%s,%s,%d\n", b'{"user_id": "%s", "item_id": "%s", "timestamp": %d}\n'])
def test_times_before_1970_and_far_away_keep_their_order(tmp_path: Path, content: bytes) -> None:
    # Only the order counts, so that whatever is a number is a time.
    times = [2**63 - 1, -1, 0, -(2**63), 2**63 - 2, 1_700_000_000_000_000_000, 1_700_000_000_000_000_001]
    path = tmp_path / "log"
    lines = b"".join(content % (b"u", b"abcdefg"[n : n + 1], time) for n, time in enumerate(times))
    path.write_bytes(lines if lines.startswith(b"{") else HEADER.encode() + lines)
    frame = load_interactions(path)
    dataset = SequenceDataset.from_interactions(frame, 1, 1)

    assert frame["timestamp"].tolist() == times
    assert dataset.item_ids[dataset.events].tolist() == list("dbcfgea")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["9999-12-31", "0001-01-01"], [253_402_214_400, -62_135_596_800]),
        (["1969-12-31T23:59:59.5Z", "1600-02-29"], [-0.5, -11_670_998_400]),
        (["1e30", "-1e30"], [1e30, -1e30]),
    ],
    ids=["far", "before-1970", "exponents"],
)
def test_absurd_times_are_times(tmp_path: Path, times: list[str], expected: list[float]) -> None:
    # A bug of ours: dates beyond the reach of nanoseconds ended in an error of pandas.
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "".join(f"u,i,{time}\n" for time in times))

    assert load_interactions(path)["timestamp"].tolist() == expected


@pytest.mark.parametrize(
    "time", ["1e400", "-inf", "0x10", "1_000", "١٢", "10000-01-01", "2020-02-30", "1 000", "12:00"]
)
def test_what_is_no_time_is_told_by_line(tmp_path: Path, time: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}u,i,1\nu,i,{time}\n")

    with pytest.raises(DataError, match=f"^{path}, line 3: column 'timestamp' must hold a number or an ISO 8601 date"):
        load_interactions(path)


def long(template: str) -> str:
    """With ten million letters for `…`; made in the test, so that no more than one is there at a time."""
    return template.replace("…", "x" * LONG)


@pytest.mark.parametrize(
    "template",
    [
        "user_id,item_id,timestamp,title\nu,i,1,…\nu,j,2,y\n",
        'user_id,item_id,timestamp,title\nu,i,1,"…"\nu,j,2,y\n',
        "user_id\titem_id\ttimestamp\ttitle\nu\ti\t1\t…\nu\tj\t2\ty\n",
        '{"user_id": "u", "item_id": "i", "timestamp": 1, "text": "…"}\n'
        '{"user_id": "u", "item_id": "j", "timestamp": 2}\n',
    ],
    ids=["comma", "quoted", "tab", "json"],
)
def test_a_line_of_ten_million_characters_is_a_line(tmp_path: Path, template: str) -> None:
    path = tmp_path / "log"
    path.write_text(long(template))

    assert load_interactions(path)["item_id"].tolist() == ["i", "j"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_two_columns_of_one_name_are_told(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "log"
    path.write_text(mark.join(["who", "what", "when", "what"]) + "\n" + mark.join("uijt") + "\n")
    with pytest.raises(DataError, match="line 1: every column must have a name of its own, got 'what' twice"):
        load_interactions(path, user_column="who", item_column="what", timestamp_column="when")


def test_columns_without_a_name_are_nobody_s_business(tmp_path: Path) -> None:
    # As pandas writes an index.
    path = tmp_path / "log.csv"
    path.write_text(",user_id,item_id,timestamp,\n0,u,i,1,x\n1,u,j,2,y\n")
    assert load_interactions(path)["item_id"].tolist() == ["i", "j"]


def test_a_user_may_have_millions_of_items(tmp_path: Path) -> None:
    path = tmp_path / "lists.txt"
    path.write_text("1" + " 23" * (LONG // 3) + "\n2 5\n")

    assert len(load_interactions(path)) == LONG // 3 + 1


@pytest.mark.parametrize(
    "template",
    [
        "…",
        "user_id,item_id,timestamp\nu,i,…\n",
        "user_id,item_id,timestamp\nu,i,1,…\n",
        'user_id,item_id,timestamp\nu,"…,1\n',
        "…,item_id,timestamp\nu,i,1\n",
        "user_id:token\titem_id:token\t…:token\nu\ti\t1\n",
        "1 2\n…\n",
        "… 2 3\n… 2 3\n",
        "{…",
        '{"user_id": "u", "item_id": ["…"], "timestamp": 1}\n',
        '{"user_id": "u", "item_id": "i", "timestamp": 1}\n{"timestamp": 1…}\n',
    ],
    ids=["word", "time", "fields", "quoted", "header", "typed", "lone", "twice", "json", "field", "number"],
)
def test_an_error_is_short_however_long_the_line(tmp_path: Path, template: str) -> None:
    path = tmp_path / "log"
    path.write_text(long(template))

    with pytest.raises(DataError, match=f"^{path}") as caught:
        load_interactions(path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("events", "content", "items", "titles"),
    [
        (
            "x.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\t1\t2\n",
            "x.item", "item_id:token\ttitle:token_seq\n1\tOne\n1\tUno\n",
        ),
        ("ratings.dat", "9::1::5::978300760\n", "movies.dat", "1::One::Drama\n1::Uno::Drama\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n9,1,3,4\n", "movies.csv", "movieId,title\n1,One\n1,Uno\n"),
        ("X_5.json", json.dumps(REVIEW), "meta_X.json",
         '{"asin": "B00004Z5M1", "title": "One"}\n{"asin": "B00004Z5M1", "title": "Uno"}\n'),
        ("X_5.json", json.dumps(REVIEW), "meta_X.json",
         "{'asin': 'B00004Z5M1', 'title': 'One'}\n{'asin': 'B00004Z5M1', 'title': 'Uno'}\n"),
    ],
    ids=["recbole", "movies.dat", "movies.csv", "json", "literals"],
)  # fmt: skip
def test_of_an_item_that_is_listed_twice_the_first_title_counts(
    tmp_path: Path, events: str, content: str, items: str, titles: str
) -> None:
    (tmp_path / events).write_text(content)
    (tmp_path / items).write_text(titles)

    assert load_interactions(tmp_path / events)["title"].tolist() == ["One"]


# No control characters, which end a line or a cell in some form, nor what means "missing" everywhere.
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() not in ("", "nan", "NaN")
)
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "json-lines": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    "recbole": lambda frame, path: path.write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n"
        + "".join("\t".join(map(str, row)) + "\n" for row in frame.itertuples(index=False, name=None)),
        encoding="utf-8",
    ),
}


@settings(in_a_folder, max_examples=50)
@given(events=st.lists(st.tuples(ids, ids), min_size=3, max_size=9), form=st.sampled_from(list(WRITERS)))
def test_ids_with_spaces_quotes_and_letters_of_all_scripts_stay_as_they_are(
    tmp_path: Path, events: list[tuple[str, str]], form: str
) -> None:
    frame = pd.DataFrame([(*event, n) for n, event in enumerate(events)], columns=["user_id", "item_id", "timestamp"])
    path = tmp_path / "log"
    WRITERS[form](frame, path)
    found = load_interactions(path, format=form)

    assert list(found[["user_id", "item_id"]].itertuples(index=False, name=None)) == events
    # As they are, from the file to the catalogue on disk.
    whole = found.assign(user_id="u")
    SequenceDataset.from_interactions(whole, 1, 1).save(tmp_path / "saved")
    assert SequenceDataset.load(tmp_path / "saved").item_ids[1:].tolist() == sorted({item for _, item in events})


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (f"{HEADER[:-1]},rating\nu,i,1,5\nu,i,2,NaN\n".encode(), "line 3"),
        (b'{"user_id":"u","item_id":"i","timestamp":1,"rating":5}\n{"user_id":"u","rating":NaN}\n', "line 2"),
        (b'{"user_id":"u","item_id":"i","timestamp":1,"rating":5}\n'
         b'{"user_id":"u","item_id":"i","timestamp":1,"rating":null}\n', "line 2"),
        (b'{"user_id":"u","item_id":"i","timestamp":1,"rating":5}\n'
         b'{"user_id":"u","item_id":"i","timestamp":1}\n', "line 2"),
        (parquet(dict(zip(NAMES, (["u"] * 2, ["i"] * 2, [5.0, float("nan")], [1, 2]), strict=True))), "row 1"),
        (parquet(dict(zip(NAMES, (["u"] * 2, ["i"] * 2, [5, None], [1, 2]), strict=True))), "row 1"),
    ],
    ids=["table", "json", "json-null", "json-none", "parquet", "parquet-null"],
)  # fmt: skip
def test_a_rating_that_is_no_number_is_told_where_ratings_count(tmp_path: Path, content: bytes, where: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"^{path}, {where}: (column 'rating' must hold a number|column 'item_id')"):
        load_interactions(path, min_rating=1)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "rating", "name"])
@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"\xff"], ids=["list", "struct", "bytes"])
def test_a_cell_that_holds_no_single_value_is_told_by_row(tmp_path: Path, column: str, value: object) -> None:
    # Bugs of ours: lists became ids such as "['a']", and bytes that are no text ended in an error of Python.
    columns: dict[str, object] = {"user_id": ["u"], "item_id": ["i"], "rating": [5], "timestamp": [1], "name": ["I"]}
    path = tmp_path / "log"
    path.write_bytes(parquet(columns | {column: [value]}))

    with pytest.raises(DataError, match=f"^{path}, row 0: column '{column}' must hold text or a number, got"):
        load_interactions(path, title_column="name", min_rating=1)
    if column in ("user_id", "item_id", "timestamp"):
        frame = pd.DataFrame(columns | {column: pd.Series([value], dtype=object)})
        with pytest.raises(DataError, match=f"interactions, row 0: column '{column}' must hold text or a number"):
            SequenceDataset.from_interactions(frame)


def test_bytes_that_are_text_are_text(tmp_path: Path) -> None:
    # Columns of older writers of parquet do not say so.
    path = tmp_path / "log"
    path.write_bytes(parquet({"user_id": ["é".encode()], "item_id": [np.int64(7)], "timestamp": [1]}))

    assert load_interactions(path)[["user_id", "item_id"]].to_numpy().tolist() == [["é", "7"]]
