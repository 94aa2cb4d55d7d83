"""Training: targets per second against the authors' procedure, and how much of the machine is used.

Four layers of SmolLM2-135M's shape, LoRA on the MLPs, Beauty's sequence lengths, a frozen 64-wide table of 12,101
items, full softmax, AdamW; both in the machine's fast precision on all cores. The authors' batch is 32 users as in
their scripts, one target each; ours 256 windows, the batch of the paper, and 32. Useful work is what real item tokens
need: 2 FLOP for each frozen weight forward and 2 backward, 6 for each trained one; template, padding, attention do not
count.
"""

import numpy as np
import torch

from benchmarks.authors_procedure import BATCH_SIZE, AuthorsModel, authors_model, training_batches, training_step
from benchmarks.harness import Goal, Report, arguments, interleaved
from benchmarks.shapes import DTYPE, PRECISION, SMOLLM2_135M, beauty_shaped, random_table, smollm2_shaped
from slmrec_core.data import SequenceDataset, epoch_batches
from slmrec_core.distillation import Objective
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.structures import SequenceBatch
from slmrec_core.training import SingleProcessEngine, TrainingConfig, TrainingData

NUM_LAYERS = 4
MAX_SEQ_LEN = 50
PEAK_SIDE = 2048
REPEATS = {"smallest": 1, "short": 5, "full": 9}
STEPS = {"smallest": 1, "short": 2, "full": 4}


def useful_flop_per_target(model: RecommenderModel) -> float:
    """Of one real item token, which is one target, forward and backward."""
    matrices = [p for n, p in model.named_parameters() if p.dim() > 1 and not n.startswith("prompt_vectors")]
    frozen = sum(p.numel() for p in matrices if not p.requires_grad) + model.item_table.numel()
    trained = sum(p.numel() for p in matrices if p.requires_grad)
    return 4.0 * frozen + 6.0 * trained


class OurTraining:
    """Steps of our engine over fixed batches."""

    def __init__(self, dataset: SequenceDataset, batch_size: int, steps: int, num_layers: int = NUM_LAYERS) -> None:
        config = TrainingConfig(batch_size=batch_size)
        data = TrainingData(dataset, MAX_SEQ_LEN, config)
        windows = epoch_batches(data.examples, batch_size, seed=0, epoch=0)[:steps]
        self.model = smollm2_shaped(num_layers, random_table())
        self.engine = SingleProcessEngine(Objective(self.model).train(), config)
        self.batches: list[SequenceBatch] = [data.batch(part) for part in windows]
        self.users = sum(len(part) for part in windows)
        self.targets = sum(len(batch.targets) for batch in self.batches)

    def run(self) -> None:
        """All batches once."""
        for batch in self.batches:
            terms = self.engine.forward(batch, None)
            self.engine.backward(self.engine.objective.total(terms))
            self.engine.step(learning_rate=1e-3)


class AuthorsTraining:
    """Steps of the authors' procedure over fixed batches."""

    def __init__(self, dataset: SequenceDataset, steps: int) -> None:
        self.model: AuthorsModel = authors_model(SMOLLM2_135M, NUM_LAYERS, random_table()).train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3)
        batches = training_batches(dataset, np.random.default_rng(0))
        self.batches = [next(batches) for _ in range(steps)]
        self.users = self.targets = sum(len(targets) for _, targets in self.batches)

    def run(self) -> None:
        """All batches once."""
        for item_ids, targets in self.batches:
            training_step(self.model, self.optimizer, item_ids, targets)


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    steps, repeats = STEPS[options.size], REPEATS[options.size]
    dataset = beauty_shaped(256 * steps)
    authors, paper_batch, small_batch = (
        AuthorsTraining(dataset, steps),
        OurTraining(dataset, 256, steps),
        OurTraining(dataset, BATCH_SIZE, steps),
    )
    square = torch.randn(PEAK_SIDE, PEAK_SIDE, dtype=DTYPE)
    seconds = interleaved(
        {
            "authors": authors.run,
            "ours, 256": paper_batch.run,
            "ours, 32": small_batch.run,
            "peak": lambda: [square @ square for _ in range(5)],
        },
        repeats,
    )
    peak = 5 * 2.0 * PEAK_SIDE**3 / seconds["peak"]
    flop = useful_flop_per_target(paper_batch.model)
    candidates: dict[str, AuthorsTraining | OurTraining] = {
        "authors": authors,
        "ours, 256": paper_batch,
        "ours, 32": small_batch,
    }
    rate = {name: candidate.targets / seconds[name] for name, candidate in candidates.items()}
    rows: list[dict[str, object]] = [
        {
            "procedure, batch": name,
            "targets/s": rate[name],
            "users/s": candidate.users / seconds[name],
            "useful FLOP, share of peak": rate[name] * flop / peak,
        }
        for name, candidate in candidates.items()
    ]
    goals = [
        Goal("targets/s, ours over the authors'", rate["ours, 256"] / rate["authors"], at_least=100.0),
        Goal("useful FLOP, share of the peak", rate["ours, 256"] * flop / peak, at_least=0.4),
    ]
    settings = {
        "layers": NUM_LAYERS,
        "backbone": "SmolLM2-135M's shape, random weights",
        "lengths": "Amazon Beauty 5-core",
        "precision": PRECISION,
        "threads": torch.get_num_threads(),
        "useful_flop_per_target": flop,
        "peak_gflops": peak / 1e9,
    }
    Report("training", options.size, repeats, settings, rows, goals).publish()


if __name__ == "__main__":
    main()
