"""Depth: what the layers of the LLM cost, in training and in ranking, against all thirty of them.

SmolLM2-135M's shape, LoRA on the MLPs, Beauty's sequence lengths, a frozen 64-wide table of 12,101 items, full softmax,
AdamW, 256 windows a batch, as in the study; ranking is the ten best of all items for test histories. The paper has 6.6
times in training and 8.0 in inference for 4 of 32 layers of LLaMA-7B. All depths take turns in one run.

    python -m benchmarks.bench_depth | tail -n 1 > docs/study/cost.json     # what docs/study.md quotes
"""

from functools import partial

import torch

from benchmarks.bench_training import MAX_SEQ_LEN, OurTraining
from benchmarks.harness import Report, arguments, interleaved
from benchmarks.shapes import BEAUTY_ITEMS, PRECISION, beauty_shaped, random_table, smollm2_shaped
from slmrec_core import Recommender

K = 10
DEPTHS = {"smallest": (0, 2), "short": (0, 4, 30), "full": (0, 1, 2, 4, 8, 30)}
STEPS = {"smallest": 1, "short": 1, "full": 2}
USERS = {"smallest": 8, "short": 256, "full": 1024}
REPEATS = {"smallest": 1, "short": 3, "full": 7}


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    size, depths = options.size, DEPTHS[options.size]
    training = {depth: OurTraining(beauty_shaped(256 * STEPS[size]), 256, STEPS[size], depth) for depth in depths}
    dataset = beauty_shaped(USERS[size])
    histories = [dataset.history(user, "test").astype(str).tolist() for user in range(dataset.num_users)]
    items = ["", *map(str, range(1, BEAUTY_ITEMS + 1))]
    table = random_table()
    ranking = {depth: Recommender(smollm2_shaped(depth, table), items, MAX_SEQ_LEN) for depth in depths}

    def rank_all(depth: int) -> None:
        ranking[depth].recommend(histories, k=K)

    seconds = interleaved(
        {f"training {depth}": training[depth].run for depth in depths}
        | {f"ranking {depth}": partial(rank_all, depth) for depth in depths},
        REPEATS[size],
    )
    train = {depth: seconds[f"training {depth}"] for depth in depths}
    rank = {depth: seconds[f"ranking {depth}"] for depth in depths}
    whole = depths[-1]
    rows: list[dict[str, object]] = [
        {
            "layers": depth,
            "decoder, M": training[depth].model.parameter_counts()["params_decoder"] / 1e6,
            "targets/s": training[depth].targets / train[depth],
            "training, times": train[whole] / train[depth],
            "users/s": len(histories) / rank[depth],
            "ranking, times": rank[whole] / rank[depth],
        }
        for depth in depths
    ]
    settings = {
        "backbone": "SmolLM2-135M's shape, random weights",
        "lengths": "Amazon Beauty 5-core",
        "items": BEAUTY_ITEMS,
        "k": K,
        "precision": PRECISION,
        "threads": torch.get_num_threads(),
    }
    Report("depth", size, REPEATS[size], settings, rows, []).publish()


if __name__ == "__main__":
    main()
