"""A generated file of Amazon reviews: the fields, lengths and skew of the release of 2018, without a download.

Lines stand item after item, as in the real files. A review is a log-normal number of words drawn by Zipf's law, about
400 characters on average, so that gzip shortens the file about threefold. Users have one event and more with a long
tail, so that the k-core has work to do.
"""

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

_LINES_PER_BLOCK = 20_000
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
_SECONDS_PER_DAY = 86_400
_FIRST_DAY, _LAST_DAY = 12_700, 17_800
"""October 2004 to September 2018; reviews have a day, not a second."""
_ID_LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)


def write_reviews(path: Path, num_events: int, workers: int, seed: int = 0) -> int:
    """Writes `num_events` lines as one gzip member of level 6; returns the bytes before compression."""
    checksum, size = 0, 0
    pending: deque[Future[bytes]] = deque()
    # Renamed when whole, so that a run cut short leaves no file that looks like one.
    partial = path.with_suffix(".partial")
    with ThreadPoolExecutor(workers) as pool, partial.open("wb") as file:
        file.write(_GZIP_HEADER)
        for text in _blocks(num_events, np.random.default_rng(seed)):
            checksum, size = zlib.crc32(text, checksum), size + len(text)
            pending.append(pool.submit(_compressed, text))
            if len(pending) > 2 * workers:
                file.write(pending.popleft().result())
        for block in pending:
            file.write(block.result())
        file.write(zlib.compressobj(wbits=-zlib.MAX_WBITS).flush() + struct.pack("<LL", checksum, size % 2**32))
    partial.rename(path)
    return size


def _compressed(text: bytes) -> bytes:
    """Part of a deflate stream that others can follow."""
    stream = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    return stream.compress(text) + stream.flush(zlib.Z_FULL_FLUSH)


def _blocks(num_events: int, generator: np.random.Generator) -> Iterator[bytes]:
    users, items = _who_and_what(num_events, generator)
    user_ids, item_ids = _ids("A", 13, users.max() + 1, generator), _ids("B0", 8, items.max() + 1, generator)
    days = generator.integers(_FIRST_DAY, _LAST_DAY, num_events)
    ratings = generator.choice(5, num_events, p=[0.08, 0.05, 0.08, 0.17, 0.62]) + 1
    words = _vocabulary(20_000, generator)
    # Drawing from a long sample costs an index; drawing by Zipf's law each time would cost a search.
    frequent = generator.choice(len(words), 2**20, p=_zipf(len(words), 1.05))
    for start in range(0, num_events, _LINES_PER_BLOCK):
        rows = slice(start, start + _LINES_PER_BLOCK)
        lengths = np.ceil(generator.lognormal(3.75, 1.0, len(users[rows]))).astype(np.int64)
        ends = np.cumsum(lengths).tolist()
        drawn = words[frequent[generator.integers(len(frequent), size=ends[-1])]].tolist()
        starts = [0, *ends[:-1]]
        columns = zip(
            user_ids[users[rows]].tolist(), item_ids[items[rows]].tolist(), days[rows].tolist(),
            ratings[rows].tolist(), starts, ends, strict=True,
        )  # fmt: skip
        dates = np.datetime_as_string(days[rows].astype("datetime64[D]")).tolist()
        yield "".join(
            f'{{"overall": {rating}.0, "verified": {"true" if end % 5 else "false"}, "reviewTime":'
            f' "{date[5:7]} {date[8:]}, {date[:4]}", "reviewerID": "{user}", "asin": "{item}", "style": {{"Format:":'
            f' " {drawn[first]}"}}, "reviewerName": "{drawn[first]} {user[1:4]}", "reviewText":'
            f' "{" ".join(drawn[first:end])}", "summary": "{" ".join(drawn[first : min(first + 4, end)])}",'
            f' "unixReviewTime": {day * _SECONDS_PER_DAY}}}\n'
            for (user, item, day, rating, first, end), date in zip(columns, dates, strict=True)
        ).encode()


def _who_and_what(num_events: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """User and item of each event, item after item."""
    lengths = np.ceil(generator.lognormal(1.2, 1.2, num_events)).astype(np.int64)
    users = np.repeat(np.arange(num_events), lengths)[:num_events]
    num_items = max(num_events // 30, 1)
    items = generator.choice(num_items, num_events, p=_zipf(num_items, 0.8))
    order = np.argsort(items, kind="stable")
    return generator.permutation(users)[order], items[order]


def _zipf(size: int, exponent: float) -> np.ndarray:
    weights: np.ndarray = np.arange(1, size + 1) ** -exponent
    weights /= weights.sum()
    return weights


def _ids(prefix: str, length: int, size: int, generator: np.random.Generator) -> np.ndarray:
    letters = _ID_LETTERS[generator.integers(len(_ID_LETTERS), size=(size, length))]
    return np.char.add(prefix, letters.view(f"S{length}")[:, 0].astype(str)).astype(object)


def _vocabulary(size: int, generator: np.random.Generator) -> np.ndarray:
    """Words of 1 to 12 letters, some with a comma, a full stop, an escaped mark or line break."""
    lengths = np.clip(generator.poisson(4.5, size), 1, 12)
    ends = generator.choice(["", ",", ".", "!", '\\"', "\\n"], size, p=[0.85, 0.06, 0.06, 0.01, 0.01, 0.01])
    letters = "".join(generator.choice(list("etaoinshrdlcumwfgypbvkjxqz"), lengths.sum(), p=_zipf(26, 0.6)))
    starts = np.cumsum(lengths) - lengths
    return np.array(
        [letters[at : at + length] + end for at, length, end in zip(starts, lengths, ends, strict=True)], dtype=object
    )
