"""Compressed files: every reader takes them, and what was cut or damaged is one error."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from slmrec_core.data import DataConfig, load_interactions, source_fingerprint
from slmrec_core.errors import DataError
from tests.packing import zstd

Compress = Callable[[bytes], bytes]
by_both = pytest.mark.parametrize(
    ("compress", "suffix"), [(gzip.compress, ".gz"), (zstd, ".zst")], ids=["gzip", "zstd"]
)

REVIEWS = "".join(f'{{"reviewerID": "u{n * n}", "asin": "a", "unixReviewTime": {n}}}\n' for n in range(20_000))


@by_both
@pytest.mark.parametrize(
    "content",
    [
        "user_id,item_id,timestamp\nu1,a,30\nu2,b,10\n",
        REVIEWS,
        "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\n",
        "1::1193::5::978300760\n",
        "1 2 3\n2 3\n",
    ],
    ids=["table", "json", "recbole", "movielens", "lists"],
)
def test_a_compressed_file_is_read_like_the_plain_one(
    tmp_path: Path, compress: Compress, suffix: str, content: str
) -> None:
    (tmp_path / "plain").write_text(content)
    # Known by what it begins with, whatever it is called.
    (tmp_path / "packed").write_bytes(compress(content.encode()))

    pd.testing.assert_frame_equal(load_interactions(tmp_path / "packed"), load_interactions(tmp_path / "plain"))


@by_both
def test_parts_that_were_compressed_apart_follow_one_another(tmp_path: Path, compress: Compress, suffix: str) -> None:
    half = len(REVIEWS) // 2
    (tmp_path / "packed").write_bytes(compress(REVIEWS[:half].encode()) + compress(REVIEWS[half:].encode()))

    assert len(load_interactions(tmp_path / "packed")) == 20_000


@by_both
@pytest.mark.parametrize("name", ["x.inter", "ratings.dat"])
@pytest.mark.parametrize("is_item_file_compressed", [False, True])
def test_titles_lie_beside_a_compressed_file_as_well(
    tmp_path: Path, compress: Compress, suffix: str, name: str, is_item_file_compressed: bool
) -> None:
    recbole = (
        "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n",
        "item_id:token\ttitle:token\n2\tTwo\n",
        "x.item",
    )
    movielens = "1::2::5::978300760\n", "2::Two::Drama\n", "movies.dat"
    events, items, item_name = recbole if name == "x.inter" else movielens
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(compress(events.encode()))
    without = source_fingerprint(DataConfig(path=str(path)))
    if is_item_file_compressed:
        (tmp_path / f"{item_name}{suffix}").write_bytes(compress(items.encode()))
    else:
        (tmp_path / item_name).write_text(items)

    assert load_interactions(path)["title"].tolist() == ["Two"]
    assert source_fingerprint(DataConfig(path=str(path))) != without


@by_both
@pytest.mark.parametrize("content", [REVIEWS, "user_id,item_id,timestamp\nu1,a,30\n"], ids=["json", "table"])
@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "garbage"])
def test_a_file_that_was_cut_or_goes_on_with_garbage_is_one_error(
    tmp_path: Path, compress: Compress, suffix: str, content: str, is_cut: bool
) -> None:
    whole = compress(content.encode())
    path = tmp_path / f"log{suffix}"
    path.write_bytes(whole[: -len(whole) // 3] if is_cut else whole + b"garbage")

    with pytest.raises(DataError, match="log.*: cannot be read, got"):
        load_interactions(path)
