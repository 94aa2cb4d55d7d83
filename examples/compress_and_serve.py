"""A trained model made smaller, saved, and asked: for whole histories, and for one user event by event.

    python examples/compress_and_serve.py MODEL --weights int4 --history 50 181 174
    python examples/compress_and_serve.py --small       # trains a small model first: seconds

MODEL is a directory that `save_pretrained` or a sweep wrote.
"""

import argparse
from pathlib import Path

import torch

import slmrec_core as slm


def main() -> None:
    """From a model directory to a smaller one, and to its answers."""
    options = read_options()
    folder = Path(options.model or "trained")
    if options.small:
        train_small(folder)
    model = slm.Recommender.from_pretrained(folder)
    history = options.history or list(model.item_ids[1:6])

    # The model itself stays as it is; what comes back is a copy.
    small = slm.compress(model, slm.CompressionConfig(weights=options.weights))
    small.save_pretrained(options.out)
    print(f"weights: {size(folder):,.0f} kB → {size(Path(options.out)):,.0f} kB as {options.weights}")

    # It is loaded, and answers, like any other.
    small = slm.Recommender.from_pretrained(options.out)
    before, after = (each.recommend([history], k=10).item_ids[0] for each in (model, small))
    print(f"the same among the best {len(before)}: {len({*before} & {*after})}")

    # A user who comes event by event: each request reads only what is new.
    session = small.session(history[:1])
    print(f"after {history[0]}: {', '.join(session.recommend(k=3).item_ids[0])}")
    for item in history[1:]:
        session.append(item)
        print(f"after {item}: {', '.join(session.recommend(k=3).item_ids[0])}")
    print(f"as for the whole history: {session.recommend(k=10).item_ids[0] == after}")

    # Some of the items alone, and a stranger.
    shelf = list(model.item_ids[-20:])
    print(f"from the shelf: {', '.join(small.recommend([history], k=3, allowed_items=shelf).item_ids[0])}")
    stranger = small.recommend([["no such item"]], k=3)
    assert stranger.by_popularity == [True]
    print(f"the most popular, for a stranger: {', '.join(stranger.item_ids[0])}")


def train_small(folder: Path) -> None:
    """A two-layer decoder of random weights, fine-tuned on generated data."""
    dataset = slm.SequenceDataset.from_interactions(slm.synthetic_interactions())
    training = slm.TrainingConfig(epochs=3, learning_rate=1.0e-2)
    evaluation, max_seq_len, seed = slm.EvaluationConfig(), 20, 0
    sasrec, _ = slm.train_sasrec(dataset, slm.SASRecConfig(), training, evaluation, max_seq_len, seed)
    slm.seed_torch(seed, "model")
    network = slm.RecommenderModel.from_backbone(
        slm.RecommenderConfig(num_layers=2), slm.open_backbone("tiny"), sasrec.item_table.detach()
    )
    slm.fit(
        slm.SingleProcessEngine(slm.Objective(network), training),
        slm.TrainingData(dataset, max_seq_len, training),
        slm.NoTeacher(),
        slm.Evaluator(dataset, max_seq_len, evaluation, torch.device("cpu")),
        seed,
    )
    slm.Recommender.of_dataset(network, dataset, max_seq_len).save_pretrained(folder)


def size(folder: Path) -> float:
    """Kilobytes of the weights in a model directory."""
    return (folder / "model.safetensors").stat().st_size / 1000


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compress a trained model and ask it.")
    parser.add_argument("model", nargs="?", help="a model directory")
    parser.add_argument("--weights", choices=["int8", "int8_dynamic", "int4"], default="int8", help="(default: int8)")
    parser.add_argument("--history", nargs="+", help="raw item ids, oldest first (default: some of the catalogue)")
    parser.add_argument("--out", default="compressed", help="directory of the smaller model (default: compressed)")
    parser.add_argument("--small", action="store_true", help="train a small model first, seconds")
    options = parser.parse_args()
    if (options.model is None) != options.small:
        parser.error("give a model directory, or --small and none")
    return options


if __name__ == "__main__":
    main()
