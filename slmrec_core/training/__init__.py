"""Training over an engine, and full-catalogue ranking of a split."""

from slmrec_core.training.checkpoint import load_checkpoint, save_checkpoint
from slmrec_core.training.config import EvaluationConfig, TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine, TrainingEngine, build_optimizer, share_of_batch
from slmrec_core.training.evaluation import Evaluator, Ranking, own_head
from slmrec_core.training.item_table import train_sasrec
from slmrec_core.training.loop import (
    EpochRecord,
    Progress,
    TrainingData,
    fit,
    learning_rate,
    term_gradient_norms,
    train_epoch,
)
from slmrec_core.training.probe import LayerProbe

__all__ = [
    "EpochRecord",
    "EvaluationConfig",
    "Evaluator",
    "LayerProbe",
    "Progress",
    "Ranking",
    "SingleProcessEngine",
    "TrainingConfig",
    "TrainingData",
    "TrainingEngine",
    "build_optimizer",
    "fit",
    "learning_rate",
    "load_checkpoint",
    "own_head",
    "save_checkpoint",
    "share_of_batch",
    "term_gradient_norms",
    "train_epoch",
    "train_sasrec",
]
