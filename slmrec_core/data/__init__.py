"""Interaction logs: read, filter, order, split, and cut into batches."""

from slmrec_core.data.batches import (
    TargetMode,
    WindowMode,
    epoch_batches,
    evaluation_batch,
    num_training_targets,
    seen_items,
    training_batch,
    training_windows,
)
from slmrec_core.data.dataset import SequenceDataset
from slmrec_core.data.inspection import Inspection, inspect_interactions
from slmrec_core.data.interactions import NAMED_SETS, DataConfig, load_interactions, source_fingerprint
from slmrec_core.data.negatives import num_candidates, sampled_candidates
from slmrec_core.data.readers import FORMATS
from slmrec_core.data.splits import EvaluationSplit, GlobalTimeSplit, Split
from slmrec_core.data.synthetic import synthetic_interactions

__all__ = [
    "FORMATS",
    "NAMED_SETS",
    "DataConfig",
    "EvaluationSplit",
    "GlobalTimeSplit",
    "Inspection",
    "SequenceDataset",
    "Split",
    "TargetMode",
    "WindowMode",
    "epoch_batches",
    "evaluation_batch",
    "inspect_interactions",
    "load_interactions",
    "num_candidates",
    "num_training_targets",
    "sampled_candidates",
    "seen_items",
    "source_fingerprint",
    "synthetic_interactions",
    "training_batch",
    "training_windows",
]
