"""Every file format, and every way in which a file can be wrong."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slmrec_core.data import DataConfig, load_interactions, source_fingerprint
from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.interactions import ML_100K
from slmrec_core.errors import ConfigError, DataError

EVENTS = [("u1", "a", 30), ("u2", "b", 10), ("u1", "c", 20)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(frame: pd.DataFrame) -> list[tuple[str, str, int]]:
    return list(frame[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("separator", [",", "\t", ";", " "], ids=["comma", "tab", "semicolon", "space"])
def test_a_table_with_named_columns_is_read_whatever_its_separator(tmp_path: Path, separator: str) -> None:
    lines = [("user_id", "item_id", "rating", "timestamp"), *((u, i, "5", str(t)) for u, i, t in EVENTS)]
    path = write(tmp_path / "log.txt", "\n".join(separator.join(line) for line in lines) + "\n\n")

    frame = load_interactions(path)

    assert rows(frame) == EVENTS
    assert list(frame.columns) == ["user_id", "item_id", "timestamp"]
    assert frame["timestamp"].dtype == "int64"
    assert frame.attrs["has_timestamps"] is True


def test_a_gzipped_table_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv.gz", gzip.compress(b"user_id,item_id,timestamp\nu1,a,30\nu2,b,10\nu1,c,20\n"))

    assert rows(load_interactions(path)) == EVENTS


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    text = "\ufeffuser_id,item_id,timestamp\r\nu1,a,30\r\nu2,b,10\r\nu1,c,20\r\n"

    assert rows(load_interactions(write(tmp_path / "log.csv", text))) == EVENTS


def test_parquet_is_read_with_numbers_as_ids_and_dates_as_seconds(tmp_path: Path) -> None:
    times = pd.to_datetime(["1970-01-01T00:00:30Z", "1970-01-01T00:00:10Z"])
    raw = pd.DataFrame({"uid": [7, 8], "item_id": [1, 2], "timestamp": times, "name": ["x", None]})
    raw.to_parquet(tmp_path / "log.parquet")

    frame = load_interactions(tmp_path / "log.parquet", user_column="uid", title_column="name")

    assert rows(frame) == [("7", "1", 30), ("8", "2", 10)]
    assert frame["title"].tolist() == ["x", ""]


def test_a_column_that_was_an_index_is_read_from_parquet(tmp_path: Path) -> None:
    raw = pd.DataFrame(EVENTS, columns=["user_id", "item_id", "timestamp"]).set_index("user_id")
    raw.to_parquet(tmp_path / "log.parquet")

    assert rows(load_interactions(tmp_path / "log.parquet")) == EVENTS


def test_whole_numbers_as_ids_are_written_without_a_point(tmp_path: Path) -> None:
    raw = pd.DataFrame({"user_id": [1.0, 2.0], "item_id": [1.0, 2.5], "timestamp": [3, 4]})
    raw.to_parquet(tmp_path / "log.parquet")

    assert rows(load_interactions(tmp_path / "log.parquet")) == [("1", "1.0", 3), ("2", "2.5", 4)]


@pytest.mark.parametrize("dtype", ["uint64", "int64", "UInt64"])
def test_nanoseconds_keep_their_order_whatever_integer_holds_them(tmp_path: Path, dtype: str) -> None:
    # A bug of ours: unsigned numbers became floats, in which neighbouring nanoseconds are equal.
    times = [1_700_000_000_000_000_001, 1_700_000_000_000_000_000]
    raw = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": pd.Series(times, dtype=dtype)})
    raw.to_parquet(tmp_path / "log.parquet")
    frame = load_interactions(tmp_path / "log.parquet")

    assert frame["timestamp"].tolist() == times
    assert frame["timestamp"].dtype == "int64"


def test_times_beyond_signed_integers_are_floats() -> None:
    raw = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": np.array([2**63], dtype=np.uint64)})

    assert standard_interactions(raw, ColumnNames(), RowNames("x"))["timestamp"].tolist() == [2.0**63]


def test_a_recbole_user_whose_list_is_empty_has_the_last_item_alone(tmp_path: Path) -> None:
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    frame = load_interactions(write(tmp_path / "g.inter", header + "0\t\t7\n1\t6\t5\n"))

    assert rows(frame) == [("0", "7", 0), ("1", "6", 0), ("1", "5", 1)]


def test_recbole_events_take_titles_from_the_item_file_beside_them(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    write(tmp_path / "x.inter", header + "u1\ta\t3\t30\nu2\tb\t4\t10\nu1\tc\t5\t20\n")
    write(tmp_path / "x.item", 'item_id:token\tmovie_title:token_seq\tyear:token\na\tSay "A\t1\nc\tC\t2\n')

    frame = load_interactions(tmp_path / "x.inter")

    assert rows(frame) == EVENTS
    assert frame["title"].tolist() == ['Say "A', "", "C"]


def test_recbole_lists_end_with_their_target_and_have_no_times(tmp_path: Path) -> None:
    write(tmp_path / "g.test.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\n0\t5 6\t7\n1\t6\t5\n")
    write(tmp_path / "g.item", "item_id:token\ttitle:token_seq\n5\tfive\n6\tsix\n7\tseven\n")

    frame = load_interactions(tmp_path / "g.test.inter")

    assert rows(frame) == [("0", "5", 0), ("0", "6", 1), ("0", "7", 2), ("1", "6", 0), ("1", "5", 1)]
    assert frame["title"].tolist() == ["five", "six", "seven", "six", "five"]
    assert frame.attrs["has_timestamps"] is False


def test_one_user_per_line_is_read_in_the_order_of_the_line(tmp_path: Path) -> None:
    frame = load_interactions(write(tmp_path / "seq.txt", "1 10 11 12 \n2 11\n"))

    assert rows(frame) == [("1", "10", 0), ("1", "11", 1), ("1", "12", 2), ("2", "11", 0)]
    assert frame.attrs["has_timestamps"] is False


@pytest.mark.parametrize("separator", ["\t", " ", " \t"], ids=["tab", "space", "both"])
def test_text_without_names_is_separated_by_spaces_or_tabs(tmp_path: Path, separator: str) -> None:
    pairs = write(tmp_path / "pairs.txt", separator.join(("1", "10\n2", "10\n1", "11\n")))
    assert rows(load_interactions(pairs)) == [("1", "10", 0), ("2", "10", 0), ("1", "11", 1)]
    lists = write(tmp_path / "lists.txt", f"1{separator}10 11 12\n2{separator}11\n")
    assert rows(load_interactions(lists)) == [("1", "10", 0), ("1", "11", 1), ("1", "12", 2), ("2", "11", 0)]


def test_columns_may_be_called_by_numbers(tmp_path: Path) -> None:
    # As a table without names gets them when pandas writes it.
    path = write(tmp_path / "log.csv", "0,1,2\nu1,a,30\nu2,b,10\nu1,c,20\n")

    assert rows(load_interactions(path, user_column="0", item_column="1", timestamp_column="2")) == EVENTS


@pytest.mark.parametrize("top", ["\n", " \n\n", "# a log\n", "#\n\n# of ours\n"])
def test_blank_lines_and_comments_above_are_skipped_and_counted(tmp_path: Path, top: str) -> None:
    text = f"{top}user_id,item_id,timestamp\nu1,a,30\nu2,b,10\nu1,c,20\n \t\n"
    assert rows(load_interactions(write(tmp_path / "log.csv", text))) == EVENTS
    line = top.count("\n") + 3
    with pytest.raises(DataError, match=f"line {line}: column 'item_id' must hold an id"):
        load_interactions(write(tmp_path / "log.csv", text.replace("b", "")))
    with pytest.raises(DataError, match=f"line {line}: a quoted cell"):
        load_interactions(write(tmp_path / "log.csv", text.replace("b", '"b')))
    assert rows(load_interactions(write(tmp_path / "pairs.txt", f"{top}1 10\n1 11\n  "))) == [
        ("1", "10", 0),
        ("1", "11", 1),
    ]


def test_an_empty_last_cell_is_no_blank_line(tmp_path: Path) -> None:
    path = write(tmp_path / "log.tsv", "user_id\titem_id\ttimestamp\ttitle\nu1\ta\t30\tx\nu2\tb\t10\t\n\n")
    frame = load_interactions(path, title_column="title")

    assert rows(frame) == EVENTS[:2]
    assert frame["title"].tolist() == ["x", ""]


def test_pairs_are_read_with_positions_as_times_even_where_users_interleave(tmp_path: Path) -> None:
    frame = load_interactions(write(tmp_path / "pairs.txt", "1 10\n2 10\n1 11\n1 10\n"))

    assert rows(frame) == [("1", "10", 0), ("2", "10", 0), ("1", "11", 1), ("1", "10", 2)]
    assert frame.attrs["has_timestamps"] is False


def test_a_log_without_header_is_refused_not_read_as_lists(tmp_path: Path) -> None:
    # The trap: `user item rating time` looks like a user with three items.
    path = write(tmp_path / "u.data", "196 242 3 881250949\n186 302 3 891717742\n196 377 1 878887116\n")

    with pytest.raises(DataError, match=r"u.data, line 3: one user per line was expected, got user '196' again"):
        load_interactions(path)


def test_without_a_timestamp_column_the_order_of_rows_is_the_time(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id\nu1,a\nu2,b\nu1,c\n")

    frame = load_interactions(path, timestamp_column=None)

    assert rows(frame) == [("u1", "a", 0), ("u2", "b", 0), ("u1", "c", 1)]
    assert frame.attrs["has_timestamps"] is False


@pytest.mark.parametrize(
    ("times", "expected", "dtype"),
    [
        (["1.5", "2"], [1.5, 2.0], "float64"),
        (["1970-01-02", "1970-01-03"], [86_400, 172_800], "int64"),
        (["1970-01-01T01:00:00+01:00", "1970-01-01 00:00:01"], [0, 1], "int64"),
        (["1970-01-01T00:00:00.25", "1970-01-01T00:00:01"], [0.25, 1.0], "float64"),
        (["1547589356557", "1"], [1547589356557, 1], "int64"),
    ],
    ids=["floats", "dates", "zones", "fractions", "milliseconds"],
)
def test_times_are_numbers_or_iso_dates(tmp_path: Path, times: list[str], expected: list[float], dtype: str) -> None:
    lines = [f"u,i,{time}" for time in times]
    frame = load_interactions(write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *lines])))

    assert frame["timestamp"].tolist() == expected
    assert frame["timestamp"].dtype == dtype


def test_ids_keep_leading_zeros_quotes_spaces_and_words_that_look_missing(tmp_path: Path) -> None:
    text = 'user_id,item_id,timestamp\n007,NA,1\n"O""Brien, x",Æ é,2\n'
    frame = load_interactions(write(tmp_path / "log.csv", text))

    assert rows(frame) == [("007", "NA", 1), ('O"Brien, x', "Æ é", 2)]


@pytest.mark.parametrize("title", ['"Best of', 'Best of"', '"Best" of', '""', '"a""', 'the 7" single'])
@pytest.mark.parametrize("closer", ["plain", 'of 2"'])
def test_no_quotation_mark_in_a_tab_file_swallows_an_event(tmp_path: Path, title: str, closer: str) -> None:
    # A bug of ours: a title that began with a lone mark took all lines up to the next mark into one cell.
    lines = ["user_id\titem_id\ttimestamp\ttitle", f"u1\ta\t30\t{title}", "u2\tb\t10\tx", f"u1\tc\t20\t{closer}"]

    assert rows(load_interactions(write(tmp_path / "log.tsv", "\n".join(lines)))) == EVENTS


def test_quoted_cells_of_a_tab_file_are_unquoted(tmp_path: Path) -> None:
    text = '"user_id"\t"item_id"\t"timestamp"\t"title"\n"u1"\t"a"\t30\t"Say ""A"""\n'
    frame = load_interactions(write(tmp_path / "log.tsv", text), title_column="title")

    assert rows(frame) == EVENTS[:1]
    assert frame["title"].tolist() == ['Say "A"']


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("cell", ['"Best of', '"two\nlines"', '"a""'])
def test_a_quoted_cell_that_does_not_end_on_its_line_is_refused_by_line(
    tmp_path: Path, separator: str, cell: str
) -> None:
    lines = [("user_id", "item_id", "timestamp", "title"), ("u1", "a", "30", '"x, ""y"" ; z"'), ("u2", "b", "10", cell)]
    lines += [("u1", "c", "20", 'of 2"')]
    path = write(tmp_path / "log.csv", "\n".join(separator.join(line) for line in lines))

    with pytest.raises(
        DataError, match=r"log.csv, line 3: a quoted cell must end on its line, got .*Double a quotation"
    ):
        load_interactions(path)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_line_ends_of_every_system_are_line_ends(tmp_path: Path, end: str) -> None:
    lines = ["user_id,item_id,timestamp", "u1,a,30", "u2,b,10", "u1,c,20", ""]

    assert rows(load_interactions(write(tmp_path / "log.csv", end.join(lines)))) == EVENTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty, got 0 bytes"),
        ("\n \n", "the file is empty"),
        ("user_id,item_id,timestamp\n", "no interactions, got 0 rows"),
        (b"user_id,item_id,timestamp\nu,i,1\nu,\xff,2\n", "line 3: not UTF-8 text, got byte 0xff"),
        (b"user_id,item_id\x00,timestamp\nu,i,1\n", "line 1: binary content"),
        (b"PAR1 and then nothing", "damaged parquet file"),
        (b"\x1f\x8b\x08 not gzip", "cannot be read"),
        ('[{"user_id": 1}]\n', "line 1: JSON must be one object per line, from the first line on, got '"),
        ('# a log\n{"user_id": 1}\n', "line 2: JSON must be one object per line, from the first line on"),
        ('{"user": 1}\n', "line 1: no user column 'user_id', got columns 'user'"),
        ("user_id,item_id,timestamp\nu,i,1\nu,,2\n", "line 3: column 'item_id' must hold an id, got ''"),
        ("user_id,item_id,timestamp\nnan,i,1\n", "line 2: column 'user_id' must hold an id, got 'nan'"),
        ("user_id,item_id,timestamp\nu,i,1\n\nu,i,2\n", "line 3: column 'user_id' must hold an id"),
        ("user_id,item_id,timestamp\nu,i,\nu,i,nan\n", r"line 2: column 'timestamp' .* got '' \(2 such rows\)"),
        ("user_id,item_id,timestamp\nu,i,1\nu,i,inf\n", "line 3: column 'timestamp' .* got 'inf'"),
        ("user_id,item_id,timestamp\nu,i,1\nu,i,soon\n", "line 3: column 'timestamp' .* got 'soon'"),
        ("user_id,item_id,timestamp\nu,i,2020-01-01\nu,i,06 17\n", "line 3: column 'timestamp' .* got '06 17'"),
        (
            "user_id,item_id,timestamp\nu,i,1\nu,i,1,2\n",
            "line 3: more fields separated by ',' than the first line has, got 'u,i,1,2'",
        ),
        ("user_id,item_id,timestamp\nu,i,1,2\nu,i,1,2\n", "line 2: more fields separated by ','"),
        ("1 2 3\n4\n", "line 2: a user without items, got '4'"),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\n0\t1 2\t3\n1\t1\t\n", "line 3: column 'item_id' must"),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\n0\t1 2\t3\n1\t1\n", "line 3: column 'item_id' must"),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\n\t1 2\t3\n", "line 2: column 'user_id' must"),
        ("# nothing\n# at all\n", "no line holds interactions, got 2 lines of comments"),
        ("1,10,5\n1,11,6\n", "line 1: the columns have no names, got '1,10,5'. Put .*'user_id,item_id,timestamp'"),
        ('"1";"10"\n', "line 1: the columns have no names"),
        ("uid iid\n1 10\n1 11\n", "line 1: column names where a user .* got 'uid iid'. Give data.user_column"),
        ("reviewer asin\n1 10\n1 11\n", "line 1: column names where a user and items were expected"),
        ("user item\na b\na c\n", "line 1: column names where a user and items were expected"),
        ("user_id:token item_id:token\na b\n", "line 1: column names .* separate a typed header by TABs"),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\n0\t1\t2\n0\t1 2\t3\n", "line 3: one user per line"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_with_its_name(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = write(tmp_path / "broken.file", content)

    with pytest.raises(DataError, match=message) as caught:
        load_interactions(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("item", ["asin", "parent_asin"])
def test_amazons_names_are_found_where_the_default_ones_are_not(tmp_path: Path, item: str) -> None:
    events = [
        {"asin": "variant", "reviewerID": user, item: product, "unixReviewTime": t} for user, product, t in EVENTS
    ]
    table = pd.DataFrame(events)
    table.to_csv(tmp_path / "log.csv", index=False)
    table.to_parquet(tmp_path / "log.parquet")
    table.to_json(tmp_path / "log.json", orient="records", lines=True)
    for suffix in ("csv", "parquet", "json"):
        assert rows(load_interactions(tmp_path / f"log.{suffix}")) == EVENTS

    table.assign(user_id="u", item_id="i", timestamp=0).to_csv(tmp_path / "both.csv", index=False)
    assert rows(load_interactions(tmp_path / "both.csv")) == [("u", "i", 0)] * 3
    with pytest.raises(DataError, match="no user column 'reviewer', .* Did you mean 'reviewerID'"):
        load_interactions(tmp_path / "log.csv", user_column="reviewer")


def test_a_missing_column_is_named_with_those_there_are_and_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "userid,item_id,timestamp\nu,i,1\n")

    with pytest.raises(DataError) as caught:
        load_interactions(path)

    assert "no user column 'user_id', got columns 'userid', 'item_id', 'timestamp'" in str(caught.value)
    assert "Did you mean 'userid'?" in str(caught.value)
    assert "--set data.user_column=NAME" in str(caught.value)


def test_a_missing_time_column_may_also_be_declared_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "log.tsv", "user_id\titem_id\ttime\nu\ti\t1\n")

    with pytest.raises(DataError, match="--set data.timestamp_column=NAME.*, or set it to null"):
        load_interactions(path)

    assert rows(load_interactions(path, timestamp_column="time")) == [("u", "i", 1)]


def test_a_wanted_title_column_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "x.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\n")
    with pytest.raises(DataError, match="no .item file beside it"):
        load_interactions(path, title_column="name")

    write(tmp_path / "x.item", "item_id:token\ttitle:token_seq\ni\tI\n")
    with pytest.raises(DataError, match="no title column 'name'"):
        load_interactions(path, title_column="name")


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(DataError, match="got 'ml100k'. Did you mean 'ml-100k'. Named sets are ml-100k, synthetic"):
        load_interactions("ml100k")


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a directory, not a file"):
        load_interactions(tmp_path)


def test_the_fingerprint_of_a_file_is_its_own_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,i,1\n")

    assert source_fingerprint(DataConfig(path=str(path))) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_fingerprint_covers_the_titles(tmp_path: Path) -> None:
    path = write(tmp_path / "x.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\n")
    config = DataConfig(path=str(path))
    seen = {source_fingerprint(config)}
    for title in ("one", "two"):
        write(tmp_path / "x.item", f"item_id:token\ttitle:token_seq\ni\t{title}\n")
        seen.add(source_fingerprint(config))

    assert len(seen) == 3


def test_named_sets_have_fingerprints_without_a_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLMREC_CACHE", str(tmp_path))
    prints = {source_fingerprint(DataConfig(path=name)) for name in ("ml-100k", "synthetic")}

    assert len(prints) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_has_no_fingerprint() -> None:
    with pytest.raises(DataError, match="no such file"):
        source_fingerprint(DataConfig(path="nowhere.csv"))


@pytest.mark.parametrize(
    "changes",
    [{"user_column": "item_id"}, {"item_column": "timestamp"}, {"timestamp_column": "user_id"}],
    ids=str,
)
def test_user_item_and_time_are_three_columns(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="data: user, item and timestamp must be three columns, got"):
        DataConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="data: user, item and timestamp must be three columns, got"):
        load_interactions("nowhere.csv", **changes)  # type: ignore[arg-type]
    assert DataConfig(timestamp_column=None, title_column="item_id").timestamp_column is None


def test_settings_refuse_a_misspelt_key_and_a_threshold_of_zero() -> None:
    with pytest.raises(ConfigError, match="DataConfig.user_colum: extra inputs are not permitted, got 'x'"):
        DataConfig(user_colum="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="DataConfig.min_user: input should be greater than 0, got 0"):
        DataConfig(min_user=0)


def test_the_terms_of_movielens_are_told() -> None:
    assert ML_100K.notice is not None
    assert all(word in ML_100K.notice for word in ("research", "redistributed", "Harper", "2015"))
