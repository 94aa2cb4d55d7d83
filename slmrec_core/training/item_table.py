"""SASRec, trained in this process: the baseline of every report and the frozen item table of every LLM."""

from collections.abc import Callable

import torch

from slmrec_core.data import SequenceDataset
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import NoTeacher
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.seeding import seed_torch
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
) -> tuple[SASRec, Progress]:
    """Trains SASRec with full cross entropy and gives its best epoch by the checkpoint metric.

    Raises:
        DataError: No user has a training target.
        DivergedError: A loss is not finite.
    """
    device = device or torch.device("cpu")
    seed_torch(seed, "sasrec")
    model = SASRec(network, dataset.num_items, max_seq_len)
    engine = SingleProcessEngine(Objective(model), training, device)
    evaluator = Evaluator(dataset, max_seq_len, evaluation, device)
    data = TrainingData(dataset, max_seq_len, training)
    progress = fit(engine, data, NoTeacher(), evaluator, seed, on_epoch=on_epoch)
    return model, progress
