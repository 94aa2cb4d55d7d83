"""Titles of products from the metadata of each release, and every line that is no metadata."""

import gzip
import json
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmrec_core.data import DataConfig, load_interactions, source_fingerprint
from slmrec_core.data.amazon_metadata import product_titles
from slmrec_core.errors import DataError

REVIEW = {"reviewerID": "A2CX7LUOHB2NDG", "asin": "B00004Z5M1", "overall": 5.0, "unixReviewTime": 1341100800}
RATING = "A2CX7LUOHB2NDG,B00004Z5M1,5.0,1341100800\n"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
products = st.dictionaries(st.from_regex(r"B00[0-9A-Z]{7}", fullmatch=True), st.none() | texts, min_size=1, max_size=9)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(titles=products, release=st.sampled_from([2014, 2018, 2023]), is_zipped=st.booleans(), other=texts)
def test_the_metadata_of_every_release_give_title_by_product(
    tmp_path: Path, titles: dict[str, str | None], release: int, is_zipped: bool, other: str
) -> None:
    lines = []
    for product, title in titles.items():
        fields = {"description": other, "parent_asin" if release == 2023 else "asin": product}
        fields |= {} if title is None else {"title": title}
        lines.append(repr(fields) if release == 2014 else json.dumps(fields))
    content = ("\n".join(lines) + "\n\n").encode()
    path = tmp_path / "meta.file"
    path.write_bytes(gzip.compress(content) if is_zipped else content)

    assert product_titles(path).to_dict() == {product: title or "" for product, title in titles.items()}


@pytest.mark.parametrize(
    ("events", "content", "metadata"),
    [
        ("reviews_Beauty_5.json.gz", json.dumps(REVIEW), "meta_Beauty.json.gz"),
        ("Gift_Cards.json", json.dumps(REVIEW), "meta_Gift_Cards.json"),
        ("Gift_Cards_5.json.gz", json.dumps(REVIEW), "meta_Gift_Cards.json.gz"),
        ("ratings_Beauty.csv", RATING, "meta_Beauty.json.gz"),
        ("All_Beauty.csv.gz", f"user_id,parent_asin,rating,timestamp\n{RATING}", "meta_All_Beauty.jsonl"),
        ("All_Beauty.test.csv", f"user_id,parent_asin,rating,timestamp\n{RATING}", "meta_All_Beauty.jsonl.gz"),
    ],
)
def test_titles_are_taken_from_the_metadata_beside_the_events(
    tmp_path: Path, events: str, content: str, metadata: str
) -> None:
    for name, text in ((events, content), (metadata, str({"asin": "B00004Z5M1", "title": "A thing"}))):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = load_interactions(tmp_path / events)
    seen = {source_fingerprint(DataConfig(path=str(tmp_path / events)))}

    assert found["title"].tolist() == ["A thing"]
    (tmp_path / metadata).unlink()
    assert "title" not in load_interactions(tmp_path / events)
    assert source_fingerprint(DataConfig(path=str(tmp_path / events))) not in seen


def test_titles_of_a_set_without_any_of_the_products_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    (tmp_path / "meta_log.json").write_text("{'asin': 'B00004Z5M1', 'title': 'A thing'}\n")

    assert "title" not in load_interactions(tmp_path / "log.csv")


def test_escapes_that_python_does_not_know_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("{'asin': 'B00004Z5M1', 'title': 'C:\\games'}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert product_titles(path).tolist() == ["C:\\games"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'asin': __import__('os').getcwd()}", "must be one product as JSON or as a Python literal with 'asin'"),
        ("{'title': 'A thing'}", "must be one product .*got .{'title'"),
        ("['asin']", "must be one product"),
        ("{'asin': 'B00004Z5M1'", "must be one product"),
        ("(" * 5_000, "must be one product"),
        ("{1: " * 5_000, "must be one product"),
        ("rubbish", "must be one product .*got 'rubbish'"),
        ("5", "must be one product .*got '5'"),
    ],
    ids=["code", "no-id", "list", "cut", "deep", "deep-dicts", "rubbish", "number"],
)
def test_a_wrong_line_is_one_error_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(f"{{'asin': 'B00004Z5M1'}}\n\n{line}\n")

    with pytest.raises(DataError, match=f"meta.json, line 3: {message}"):
        product_titles(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "meta.json: no product, got 0 lines"),
        (b"[" * 100_000, "line 1: must be one product"),
        (b"5\n", "line 1: must be one product"),
        (b'{"title": "A thing"}\n', "line 1: Amazon's metadata must have a field 'parent_asin' or 'asin', got 'title'"),
        (b'{"asin": "B00004Z5M1"}\nrubbish\n', "line 2: must be one JSON object"),
        (gzip.compress(b"{'asin': 'B00004Z5M1'}\n" * 9)[:-9], "cannot be read, got"),
    ],
    ids=["empty", "deep", "number", "no-id", "json", "cut"],
)
def test_a_file_that_is_no_metadata_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "meta.json").write_bytes(content)

    with pytest.raises(DataError, match=message):
        product_titles(tmp_path / "meta.json")
