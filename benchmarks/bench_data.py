"""From a gzipped file of Amazon reviews to filtered, ordered, numbered sequences: events/s and peak memory.

Alternative: what notebooks of the field do, the SLMRec authors' among them: `json.loads` of each line into a list, a
DataFrame, value_counts and isin until the 5-core stands, sort by time, groupby and list. Ours: `load_interactions` and
`SequenceDataset.from_interactions`. Both must end with the same users, items and sequences.

Each run is a fresh process that has imported everything and read a small file first. Its peak is the kernel's mark of
resident memory (VmHWM, reset before the run), less what was resident at the reset.
"""

import gzip
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.amazon_reviews import write_reviews
from benchmarks.harness import Goal, Report, Size, arguments
from slmrec_core.data import SequenceDataset, load_interactions
from slmrec_core.downloads import cache_dir

_MIN_EVENTS = 5
_SIZES: dict[Size, tuple[int, int, int]] = {
    "smallest": (5_000, 1, 0),
    "short": (200_000, 3, 0),
    "full": (1_000_000, 5, 11_300_000),
}
"""Events, repeats, and events of the file that only ours reads, 0 = none: that of Clothing's 5-core of 2018."""
_WARM_UP_EVENTS = 2_000


@dataclass(frozen=True)
class Run:
    """What one process measured."""

    seconds: float
    added_bytes: int
    """Peak above what imports hold."""
    peak_bytes: int
    """Peak of the whole process."""
    num_users: int
    num_items: int
    num_kept: int
    fingerprint: str
    """Of users, items and sequences."""


def alternative(path: Path) -> SequenceDataset:
    """Lines to dicts to a DataFrame; filters and lists by pandas."""
    with gzip.open(path, "rb") as lines:
        reviews = [json.loads(line) for line in lines]
    frame = pd.DataFrame(reviews)[["reviewerID", "asin", "unixReviewTime"]]
    del reviews
    while True:
        num_events = len(frame)
        for column in ("reviewerID", "asin"):
            counts = frame[column].value_counts()
            frame = frame[frame[column].isin(counts[counts >= _MIN_EVENTS].index)]
        if len(frame) == num_events:
            break
    frame = frame.sort_values("unixReviewTime", kind="stable")
    items = sorted(frame["asin"].unique())
    frame["item"] = frame["asin"].map({item: number for number, item in enumerate(items, start=1)})
    sequences = frame.groupby("reviewerID")["item"].agg(list)
    # In our form, so that both can be compared by their fingerprint.
    return SequenceDataset(
        user_ids=sequences.index.to_numpy(dtype=object),
        item_ids=np.array(["", *items], dtype=object),
        titles=None,
        events=np.concatenate(sequences.to_list()).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(sequences.map(len))]).astype(np.int64),
    )


def ours(path: Path) -> SequenceDataset:
    """What a user calls."""
    return SequenceDataset.from_interactions(load_interactions(path), _MIN_EVENTS, _MIN_EVENTS)


CANDIDATES: dict[str, Callable[[Path], SequenceDataset]] = {"alternative": alternative, "ours": ours}


def measure(name: str, path: Path, warm_up: Path) -> Run:
    """One run, to be called in a process of its own."""
    read = CANDIDATES[name]
    read(warm_up)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    held = _status_bytes("VmRSS")
    started = time.perf_counter()
    dataset = read(path)
    seconds = time.perf_counter() - started
    peak = _status_bytes("VmHWM")
    return Run(
        seconds, peak - held, peak, dataset.num_users, dataset.num_items, dataset.num_events, dataset.fingerprint
    )


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _in_fresh_process(name: str, path: Path, warm_up: Path) -> Run:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, name, path, warm_up).result()


def _generated(num_events: int) -> Path:
    path = cache_dir() / "benchmarks" / f"reviews-1-{num_events}.json.gz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_reviews(path, num_events, workers=len(os.sched_getaffinity(0)))
    return path


def _row(name: str, num_events: int, runs: list[Run]) -> dict[str, object]:
    seconds = statistics.median(run.seconds for run in runs)
    return {
        "candidate": name,
        "events": num_events,
        "seconds": seconds,
        "events/s": num_events / seconds,
        "added MiB": statistics.median(run.added_bytes for run in runs) / 2**20,
        "peak GiB": max(run.peak_bytes for run in runs) / 2**30,
        "users": runs[0].num_users,
        "items": runs[0].num_items,
        "kept": runs[0].num_kept,
    }


def main() -> None:
    """Measures and publishes."""
    size: Size = arguments(__doc__).size
    num_events, repeats, num_large = _SIZES[size]
    path, warm_up = _generated(num_events), _generated(_WARM_UP_EVENTS)
    runs: dict[str, list[Run]] = {name: [] for name in CANDIDATES}
    for _ in range(repeats):
        for name in CANDIDATES:
            runs[name].append(_in_fresh_process(name, path, warm_up))
    if len({run.fingerprint for of_one in runs.values() for run in of_one}) > 1:
        raise SystemExit("bench_data: both must end with the same sequences, got different fingerprints.")
    rows = [_row(name, num_events, of_one) for name, of_one in runs.items()]
    settings: dict[str, object] = {"min_user": _MIN_EVENTS, "min_item": _MIN_EVENTS, "gzip_bytes": path.stat().st_size}
    report = Report("data: reviews to sequences", size, repeats, settings, rows)
    plain, fast = ({key: float(str(row[key])) for key in ("seconds", "added MiB")} for row in rows)
    report.goals.append(Goal("events/s of ours / alternative", plain["seconds"] / fast["seconds"], at_least=8))
    report.goals.append(Goal("peak memory of ours / alternative", fast["added MiB"] / plain["added MiB"], at_most=0.2))
    if num_large:
        large = _in_fresh_process("ours", _generated(num_large), warm_up)
        rows.append(_row("ours", num_large, [large]))
        report.goals.append(Goal("GiB at the peak of the large file", large.peak_bytes / 2**30, at_most=4))
    report.publish()


if __name__ == "__main__":
    main()
