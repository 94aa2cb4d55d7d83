"""Inference: users per second that get the ten best items of the whole catalogue.

Thirty layers by the authors' procedure, thirty and four layers by `Recommender.recommend`, and SASRec, all over test
histories of Beauty's lengths and 12,101 items. The authors' side ends in the ten highest scores; ours also leaves out
seen items and turns raw ids into columns and back. LLMs in the machine's fast precision, SASRec in float32, all cores.
"""

import numpy as np
import torch

from benchmarks.authors_procedure import authors_model, left_padded
from benchmarks.harness import Goal, Report, arguments, interleaved
from benchmarks.shapes import BEAUTY_ITEMS, PRECISION, SMOLLM2_135M, beauty_shaped, random_table, smollm2_shaped
from slmrec_core import Recommender, RecommenderModel, SASRec, SASRecConfig

MAX_SEQ_LEN = 50
K = 10
AUTHORS_USERS = {"smallest": 2, "short": 32, "full": 64}
OUR_USERS = {"smallest": 8, "short": 256, "full": 1024}
REPEATS = {"smallest": 1, "short": 5, "full": 7}
DEEP = {"smallest": 2, "short": 30, "full": 30}
"""Layers of the teacher; the smallest form only shows that everything runs."""


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    size, deep = options.size, DEEP[options.size]
    dataset, table = beauty_shaped(OUR_USERS[size]), random_table()
    histories = [dataset.history(user, "test").astype(str).tolist() for user in range(dataset.num_users)]
    items = ["", *map(str, range(1, BEAUTY_ITEMS + 1))]
    authors = authors_model(SMOLLM2_135M, deep, table).eval()
    users = np.arange(AUTHORS_USERS[size])
    padded = left_padded(dataset, users, dataset.history_ends("test"))

    def authors_top() -> None:
        with torch.no_grad():
            for start in range(0, len(padded), 32):
                authors(padded[start : start + 32]).float().topk(K)

    networks: dict[str, RecommenderModel | SASRec] = {
        f"ours, {deep} layers": smollm2_shaped(deep, table),
        "ours, 4 layers": smollm2_shaped(4, table),
        "SASRec": SASRec(SASRecConfig(), BEAUTY_ITEMS, MAX_SEQ_LEN),
    }
    models = {name: Recommender(network, items, MAX_SEQ_LEN) for name, network in networks.items()}
    runs = {name: lambda model=model: model.recommend(histories, k=K) for name, model in models.items()}
    name_of_authors = f"authors, {deep} layers"
    seconds = interleaved({name_of_authors: authors_top, **runs}, REPEATS[size])
    rate = {name: (len(users) if name == name_of_authors else len(histories)) / s for name, s in seconds.items()}
    rows: list[dict[str, object]] = [
        {"model": name, "users/s": value, "over the authors'": value / rate[name_of_authors]}
        for name, value in rate.items()
    ]
    goals = [
        Goal("4 layers ours over the authors' deep", rate["ours, 4 layers"] / rate[name_of_authors], at_least=80.0),
        Goal("4 layers ours over ours deep", rate["ours, 4 layers"] / rate[f"ours, {deep} layers"], at_least=6.5),
    ]
    settings = {
        "lengths": "Amazon Beauty 5-core",
        "items": BEAUTY_ITEMS,
        "k": K,
        "precision": f"{PRECISION}, SASRec fp32",
        "threads": torch.get_num_threads(),
        "sasrec_over_4_layers": rate["SASRec"] / rate["ours, 4 layers"],
    }
    Report("inference", size, REPEATS[size], settings, rows, goals).publish()


if __name__ == "__main__":
    main()
