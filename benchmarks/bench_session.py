"""One user's next request after one more event: a session, against the same model reading the whole history again.

A student of four layers of SmolLM2-135M's shape in float32, its low-rank updates merged, 12,101 items, top 10 without
seen items. The user has 49 events, one short of the window of 50; each request comes after one more, and then the
session starts over. Both answer every request; their scores are compared.
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
REQUESTS = {"smallest": 3, "short": 60, "full": 400}
HISTORIES = (25, 49)
"""Events before the request."""


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
        for request in range(REQUESTS[options.size] + 1):
            events = generator.integers(1, BEAUTY_ITEMS + 1, length + 1).tolist()
            session = model.session(events[:-1])
            session.recommend()
            started = time.perf_counter()
            session.append(events[-1])
            ours = session.recommend()
            between = time.perf_counter()
            plain = model.recommend([events])
            ended = time.perf_counter()
            gap = max(gap, float(np.abs(ours.scores - plain.scores).max()))
            if request:
                # The first one warms up.
                seconds["session"].append(between - started)
                seconds["whole history"].append(ended - between)
        for name, values in seconds.items():
            p50, p99 = (1000 * float(value) for value in np.percentile(values, [50, 99]))
            rows.append({"events": length + 1, "reads": name, "p50, ms": p50, "p99, ms": p99})
        ratio = statistics.median(seconds["session"]) / statistics.median(seconds["whole history"])
    goals = [
        Goal(f"p50 of the session over the whole history, {MAX_SEQ_LEN} events", ratio, at_most=0.25),
        Goal("largest difference of a score", gap, at_most=1e-3),
    ]
    settings = {"layers": NUM_LAYERS, "precision": "fp32", "template": "question", "threads": torch.get_num_threads()}
    Report("session", options.size, REQUESTS[options.size], settings, rows, goals).publish()


if __name__ == "__main__":
    main()
