"""One user's next request after one more event: a session, against the same model reading the whole history again.

A student of four layers of SmolLM2-135M's shape in float32, its low-rank updates merged, 12,101 items, top 10 without
seen items. A user comes back ten times in a row, each time with one more event; then the same ten requests are answered
from the whole history, the newest one of the window of 50. All scores are compared.
"""

import statistics
import time

import numpy as np
import torch

from benchmarks.harness import Goal, Report, arguments
from benchmarks.shapes import BEAUTY_ITEMS, random_table, smollm2_shaped
from slmrec_core import Recommender

NUM_LAYERS = 4
MAX_SEQ_LEN = 50
SESSIONS = {"smallest": 1, "short": 8, "full": 50}
REQUESTS = 10
"""Of each session."""
HISTORIES = (26, 50)
"""Events at the last request."""


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    network = smollm2_shaped(NUM_LAYERS, random_table(), torch.float32).eval()
    model = Recommender(network, ["", *map(str, range(1, BEAUTY_ITEMS + 1))], MAX_SEQ_LEN).merge_lora()
    generator = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    ratio, gap = 1.0, 0.0
    for length in HISTORIES:
        seconds: dict[str, list[float]] = {"whole history": [], "session": []}
        for session_number in range(SESSIONS[options.size] + 1):
            events = generator.integers(1, BEAUTY_ITEMS + 1, length).tolist()
            session = model.session(events[:-REQUESTS])
            session.recommend()
            ours, plain = [], []
            for count in range(length - REQUESTS + 1, length + 1):
                started = time.perf_counter()
                session.append(events[count - 1])
                ours.append((session.recommend(), time.perf_counter() - started))
            for count in range(length - REQUESTS + 1, length + 1):
                started = time.perf_counter()
                plain.append((model.recommend([events[:count]]), time.perf_counter() - started))
            gap = max(
                gap, *(float(np.abs(a.scores - b.scores).max()) for (a, _), (b, _) in zip(ours, plain, strict=True))
            )
            if session_number:
                # The first one warms up.
                seconds["session"] += [taken for _, taken in ours]
                seconds["whole history"] += [taken for _, taken in plain]
        for name, values in seconds.items():
            p50, p99 = (1000 * float(value) for value in np.percentile(values, [50, 99]))
            rows.append(
                {"events": f"{length - REQUESTS + 1} to {length}", "reads": name, "p50, ms": p50, "p99, ms": p99}
            )
        ratio = statistics.median(seconds["session"]) / statistics.median(seconds["whole history"])
    goals = [
        Goal(f"p50 of the session over the whole history, to {MAX_SEQ_LEN} events", ratio, at_most=0.25),
        Goal("largest difference of a score", gap, at_most=1e-3),
    ]
    settings = {"layers": NUM_LAYERS, "precision": "fp32", "template": "question", "threads": torch.get_num_threads()}
    Report("session", options.size, REQUESTS * SESSIONS[options.size], settings, rows, goals).publish()


if __name__ == "__main__":
    main()
