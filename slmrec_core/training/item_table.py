"""SASRec, trained in this process: the baseline of every report and the frozen item table of every LLM."""

from collections.abc import Callable
from pathlib import Path

import torch

from slmrec_core.data import SequenceDataset
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import NoTeacher
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.seeding import seed_torch
from slmrec_core.training.checkpoint import load_checkpoint, save_checkpoint
from slmrec_core.training.config import EvaluationConfig, TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine
from slmrec_core.training.evaluation import Evaluator
from slmrec_core.training.loop import Progress, TrainingData, fit


def train_sasrec(
    dataset: SequenceDataset,
    network: SASRecConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    max_seq_len: int,
    seed: int,
    device: torch.device | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    checkpoints: Path | None = None,
) -> tuple[SASRec, Progress]:
    """Trains SASRec with full cross entropy and gives its best epoch by the checkpoint metric.

    Args:
        dataset: Users and items.
        network: What it is.
        training: How it is trained.
        evaluation: How `valid` is ranked after each epoch.
        max_seq_len: Longest history that it reads.
        seed: Of weights, order and dropout.
        device: Where; None = the CPU.
        on_epoch: Called after each epoch.
        checkpoints: Folder where training is kept after each epoch, and where it goes on if something is kept there;
            None = it begins anew, and nothing is kept.

    Raises:
        CheckpointError: What was kept is damaged, or of another network.
        DataError: No user has a training target.
        DivergedError: A loss is not finite.
    """
    device = device or torch.device("cpu")
    seed_torch(seed, "sasrec")
    model = SASRec(network, dataset.num_items, max_seq_len)
    engine = SingleProcessEngine(Objective(model), training, device)
    evaluator = Evaluator(dataset, max_seq_len, evaluation, device)
    data = TrainingData(dataset, max_seq_len, training)
    kept = None if checkpoints is None else load_checkpoint(checkpoints, engine)

    def after_epoch(progress: Progress) -> None:
        if checkpoints is not None:
            save_checkpoint(checkpoints, engine, progress)
        on_epoch(progress)

    progress = fit(engine, data, NoTeacher(), evaluator, seed, kept, after_epoch)
    return model, progress
