"""Distillation from stored teacher states: an epoch against a fine-tuning epoch of the same student.

A student of four layers of SmolLM2-135M's shape, four blocks, Beauty's sequence lengths, 12,101 items, 256 windows per
batch, in the machine's fast precision. The states of four teacher layers and the teacher's user vectors lie on disk, as
the `states` stages keep them, and are read memory-mapped. Cosine and norm are compared with cross entropy alone; all
terms (cosine, norm, three supervision heads) with cross entropy and the same heads, and so is what comes with the logit
term, which the paper has not: two more softmaxes over the catalogue, the student's and the teacher's.
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.harness import Goal, Report, arguments, interleaved
from benchmarks.shapes import ITEM_DIM, PRECISION, SMOLLM2_135M, beauty_shaped, random_table, smollm2_shaped
from slmrec_core.data import SequenceDataset, epoch_batches
from slmrec_core.distillation import (
    USER_VECTORS,
    DistillationConfig,
    Objective,
    StoredLayer,
    StoredTeacher,
    pair_blocks,
)
from slmrec_core.training import SingleProcessEngine, TrainingConfig, TrainingData

NUM_LAYERS, TEACHER_LAYERS = 4, 30
MAX_SEQ_LEN, BATCH_SIZE = 50, 256
STEPS = {"smallest": 1, "short": 2, "full": 16}
"""Batches that are run: an epoch of Beauty has 87, all alike."""
REPEATS = {"smallest": 1, "short": 5, "full": 5}
NO_ALIGNMENT = {"cosine_weight": 0.0, "norm_weight": 0.0}
OBJECTIVES = {
    "cross entropy": {**NO_ALIGNMENT, "supervision_weight": 0.0},
    "+ cosine + norm": {"supervision_weight": 0.0},
    "cross entropy + heads": NO_ALIGNMENT,
    "all terms of the paper": {},
    "all terms and logit": {"logit_weight": 1.0},
}


class Epoch:
    """One pass over some batches under one objective."""

    def __init__(self, data: TrainingData, steps: int, folder: Path, terms: dict[str, float]) -> None:
        config = DistillationConfig.model_validate(terms)
        pairing = pair_blocks(NUM_LAYERS, TEACHER_LAYERS, None)
        stores = {layer: StoredLayer.open(folder / str(layer)) for layer in pairing.teacher_layers if config.aligns}
        table = random_table()
        objective = Objective(
            smollm2_shaped(NUM_LAYERS, table),
            config,
            pairing,
            teacher_norms=[store.mean_squared_norm for store in stores.values()],
        )
        vectors = StoredLayer.open(folder / USER_VECTORS) if config.logit_weight > 0 else None
        self.teacher = StoredTeacher(stores, vectors, data.targets_per_window)
        self.engine = SingleProcessEngine(objective.train(), data.config)
        self.data = data
        self.windows = epoch_batches(data.examples, BATCH_SIZE, seed=0, epoch=0)[:steps]

    def run(self) -> None:
        """All batches once, read, trained on and stepped."""
        for windows in self.windows:
            batch = self.data.batch(windows)
            terms = self.engine.forward(batch, self.teacher.signal(batch))
            self.engine.backward(self.engine.objective.total(terms))
            self.engine.step(learning_rate=1e-3)


def store_states(dataset: SequenceDataset, data: TrainingData, folder: Path) -> None:
    """Random states and user vectors of every target, in the form of the `states` stages."""
    hidden = int(str(SMOLLM2_135M["hidden_size"]))
    layers = pair_blocks(NUM_LAYERS, TEACHER_LAYERS, None).teacher_layers
    for name, width in [*((str(layer), hidden) for layer in layers), (USER_VECTORS, ITEM_DIM)]:
        (folder / name).mkdir()
        values = torch.randn(int(data.targets_per_window.sum()), width).to(torch.bfloat16)
        save_file({"states": values}, folder / name / "states.safetensors")
        (folder / name / "states.json").write_text(json.dumps({"mean_squared_norm": float(width), "layer": name}))


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    steps = STEPS[options.size]
    dataset = beauty_shaped(BATCH_SIZE * steps)
    data = TrainingData(dataset, MAX_SEQ_LEN, TrainingConfig(batch_size=BATCH_SIZE))
    with tempfile.TemporaryDirectory() as name:
        store_states(dataset, data, Path(name))
        epochs = {terms: Epoch(data, steps, Path(name), weights) for terms, weights in OBJECTIVES.items()}
        seconds = interleaved({terms: epoch.run for terms, epoch in epochs.items()}, REPEATS[options.size])
    baselines = {
        "+ cosine + norm": "cross entropy",
        "all terms of the paper": "cross entropy + heads",
        "all terms and logit": "cross entropy + heads",
    }
    over = {terms: baselines.get(terms, terms) for terms in seconds}
    rows: list[dict[str, object]] = [
        {"objective": terms, "seconds": s, "over": over[terms], "ratio": s / seconds[over[terms]]}
        for terms, s in seconds.items()
    ]
    goals = [
        Goal(f"{terms} over {baseline}", seconds[terms] / seconds[baseline], at_most=1.15)
        for terms, baseline in baselines.items()
    ]
    settings: dict[str, object] = {
        "layers": NUM_LAYERS,
        "blocks": NUM_LAYERS,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "precision": PRECISION,
        "threads": torch.get_num_threads(),
    }
    Report("distillation", options.size, REPEATS[options.size], settings, rows, goals).publish()


if __name__ == "__main__":
    main()
