"""JSON lines against a plain reader, and every way in which a line can be wrong."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmrec_core.data import json_lines as module
from slmrec_core.data import load_interactions
from slmrec_core.errors import DataError

GOOD = '{"reviewerID": "u1", "asin": "a", "overall": 5.0, "unixReviewTime": 30, "reviewText": "fine"}'


def plain_reader(path: Path) -> list[tuple[str, str, int]]:
    """What any notebook does."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8-sig")
    events = [json.loads(line) for line in text.split("\n") if line.strip()]
    return [(event["reviewerID"], event["asin"], event["unixReviewTime"]) for event in events]


def rows(frame: pd.DataFrame) -> list[tuple[str, str, int]]:
    return list(frame[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None))


# Anything but surrogates alone, which are no text, and ids that mean "missing" everywhere.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = texts.filter(lambda text: text.strip() not in ("", "nan", "NaN"))
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
others = st.fixed_dictionaries({}, optional=dict.fromkeys(("style", "image", "vote", "reviewText", "é"), values))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.tuples(ids, ids, st.integers(-(2**63), 2**63 - 1), others), min_size=1, max_size=12),
    is_ascii=st.booleans(),
    is_zipped=st.booleans(),
    above=st.sampled_from(["", "\ufeff", "\n \n", "\ufeff\n"]),
    end=st.sampled_from(["\n", "\r\n"]),
    below=st.sampled_from(["", "\n", "\r\n \n\n"]),
    block_bytes=st.integers(1, 300),
    data=st.data(),
)
def test_every_file_is_read_as_the_plain_reader_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, str, int, dict[str, object]]],
    is_ascii: bool, is_zipped: bool, above: str, end: str, below: str, block_bytes: int, data: st.DataObject,
) -> None:  # fmt: skip
    lines = []
    for user, item, time, other in events:
        fields = data.draw(st.permutations([("reviewerID", user), ("asin", item), ("unixReviewTime", time)]))
        lines.append(json.dumps({**dict(fields[:2]), **other, **dict(fields[2:])}, ensure_ascii=is_ascii))
    content = (above + end.join(lines) + below).encode()
    path = tmp_path / "reviews.file"
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)

    frame = load_interactions(path)

    assert rows(frame) == plain_reader(path)
    assert frame.dtypes.astype(str).to_dict() == {"user_id": "str", "item_id": "str", "timestamp": "int64"}
    assert frame.attrs["has_timestamps"] is True


def test_numbers_dates_and_titles_are_read_as_in_tables(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"uid": 7, "iid": 1.0, "when": "1970-01-02", "name": "One"}\n'
        '{"uid": 8, "iid": 2, "when": "1970-01-01T00:00:01Z"}\n'
        '{"uid": 9, "iid": 2, "when": "1970-01-03", "name": null}\n'
    )
    names = {"user_column": "uid", "item_column": "iid", "timestamp_column": "when", "title_column": "name"}

    frame = load_interactions(path, **names)
    assert rows(frame) == [("7", "1", 86_400), ("8", "2", 1), ("9", "2", 172_800)]
    assert frame["title"].tolist() == ["One", "", ""]

    frame = load_interactions(path, **{**names, "timestamp_column": None, "title_column": None})
    assert frame["timestamp"].tolist() == [0, 0, 0]
    assert frame.attrs["has_timestamps"] is False


def test_events_that_come_twice_are_kept_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")

    assert rows(load_interactions(path)) == [("u1", "a", 30)] * 2


@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD[:-10], "must be one JSON object .* got '.\"reviewerID"),
        (GOOD.replace('"', "'"), "must be one JSON object .*Missing a name"),
        ("and so on", "must be one JSON object .* got 'and so on'"),
        (GOOD + ",", "must be one JSON object"),
        (GOOD + " " + GOOD, r"must be one JSON object .*\(2 objects\)"),
        (GOOD.replace(", ", ",\n", 1), "must be one JSON object"),
        ("", r"must be one JSON object .* got '' \(no object\)"),
        ("[1]", r"must be one JSON object .* got '\[1\]'"),
        (GOOD.replace('"asin": "a", ', ""), "column 'asin' must hold an id, got nan"),
        (GOOD.replace('"a"', "null"), "column 'asin' must hold an id, got nan"),
        (GOOD.replace('"a"', '" "'), "column 'asin' must hold an id, got ' '"),
        (GOOD.replace('"a"', "5"), r"must be one JSON object .* same kind .*\(/asin\)"),
        (GOOD.replace('"a"', '["a"]'), r"same kind .*\(/asin\)"),
        (GOOD.replace("30", "30.5"), "same kind .*int64, couldn't parse:30.5"),
        (GOOD.replace("30", '"30"'), r"same kind .*\(/unixReviewTime\)"),
        (GOOD.replace("30", "null"), "column 'unixReviewTime' must hold a number or an ISO 8601 date"),
        (GOOD.replace("30", "9" * 20), "same kind .*couldn't parse"),
        (GOOD.replace('"asin"', '"asin": "b", "asin"'), "specified twice"),
        (GOOD.encode().replace(b'"a"', b'"\xff"'), "must be one JSON object .*UTF8"),
        (GOOD.replace('"a"', '"\\ud800"'), "surrogate"),
    ],
    ids=str,
)
def test_a_wrong_line_is_one_error_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str | bytes, message: str, block_bytes: int
) -> None:
    wrong = line.encode() if isinstance(line, str) else line
    good = GOOD.encode()
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "reviews.json.gz"
    # Blank lines above count; so do the lines of earlier blocks.
    path.write_bytes(gzip.compress(b"\n" + b"\n".join([good, good, wrong, good, good]) + b"\n"))

    with pytest.raises(DataError, match=f"reviews.json.gz, line 4: .*{message}"):
        load_interactions(path)


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_a_null_is_no_object_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    # Arrow takes it for an object without fields, or where it begins a block, crashes.
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "reviews.json"
    path.write_text(f"{GOOD}\nnull\n{GOOD}\n")

    with pytest.raises(DataError, match=r"reviews.json, line 2: .*(no object|column 'reviewerID' must hold an id)"):
        load_interactions(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be one JSON object"),
        (GOOD[:-1], "must be one JSON object"),
        ("{}", "no user column 'user_id', got columns ."),
        (GOOD.replace("unixReviewTime", "time"), "no timestamp column 'timestamp', .* or set it to null"),
        (GOOD.replace('"a"', "null"), "field 'asin' must hold text or a number, got None"),
        (GOOD.replace('"a"', "true"), "field 'asin' must hold text or a number, got True"),
        (GOOD.replace("30", '{"s": 30}'), "field 'unixReviewTime' must hold text or a number, got {'s': 30}"),
    ],
    ids=str,
)
def test_a_wrong_first_line_is_one_error_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "reviews.json"
    path.write_text(f"\n\n{line}\n{GOOD}\n")

    with pytest.raises(DataError, match=f"reviews.json, line 3: {message}"):
        load_interactions(path)


def test_a_file_that_was_cut_or_damaged_tells_how_far_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 10_000)
    whole = gzip.compress("".join(GOOD.replace("u1", f"u{n * n}") + "\n" for n in range(20_000)).encode())
    path = tmp_path / "reviews.json.gz"
    for content, reason in [
        (whole[: len(whole) // 2], "ended before the end"),
        (whole[:-4], "ended before the end"),
        (whole + b"garbage", "ended before the end"),
        (whole[:-8] + bytes(4) + whole[-4:], "CRC check failed"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"line \d{{4,5}} or below: cannot be read, got .*{reason}"):
            load_interactions(path)


def test_members_of_a_gzip_file_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(f"{GOOD}\n{GOOD[:20]}".encode()) + gzip.compress(f"{GOOD[20:]}\n".encode()))

    assert rows(load_interactions(path)) == [("u1", "a", 30)] * 2
