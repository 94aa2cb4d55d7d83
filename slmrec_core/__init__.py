"""SLMRec (arXiv:2405.17890): sequential recommendation with the first layers of a language model, distilled.

    import slmrec_core as slm

Data, models, losses, metrics, distillation and training in plain torch; nothing here imports ray, mlflow or deepspeed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmrec_core import compression, data, distillation, errors, losses, metrics, models, training
    from slmrec_core.compression import CompressionConfig, block_influence, compress, prune_linear
    from slmrec_core.data import DataConfig, SequenceDataset, load_interactions, synthetic_interactions
    from slmrec_core.distillation import (
        BlockPairing,
        DistillationConfig,
        LiveTeacher,
        NoTeacher,
        Objective,
        StoredLayer,
        StoredTeacher,
        pair_blocks,
        write_states,
    )
    from slmrec_core.experiment import ExperimentConfig, resolve
    from slmrec_core.faiss_index import item_index
    from slmrec_core.models import RecommenderConfig, RecommenderModel, SASRec, SASRecConfig, open_backbone
    from slmrec_core.recommender import Recommendations, Recommender
    from slmrec_core.seeding import derive_seed, seed_torch
    from slmrec_core.session import Session
    from slmrec_core.structures import PAD_ITEM, DistillationLosses, HiddenStates, SequenceBatch, TeacherSignal
    from slmrec_core.training import (
        EvaluationConfig,
        Evaluator,
        LayerProbe,
        Progress,
        Ranking,
        SingleProcessEngine,
        TrainingConfig,
        TrainingData,
        TrainingEngine,
        fit,
        own_head,
        train_sasrec,
    )

__all__ = [
    "PAD_ITEM",
    "BlockPairing",
    "CompressionConfig",
    "DataConfig",
    "DistillationConfig",
    "DistillationLosses",
    "EvaluationConfig",
    "Evaluator",
    "ExperimentConfig",
    "HiddenStates",
    "LayerProbe",
    "LiveTeacher",
    "NoTeacher",
    "Objective",
    "Progress",
    "Ranking",
    "Recommendations",
    "Recommender",
    "RecommenderConfig",
    "RecommenderModel",
    "SASRec",
    "SASRecConfig",
    "SequenceBatch",
    "SequenceDataset",
    "Session",
    "SingleProcessEngine",
    "StoredLayer",
    "StoredTeacher",
    "TeacherSignal",
    "TrainingConfig",
    "TrainingData",
    "TrainingEngine",
    "block_influence",
    "compress",
    "compression",
    "data",
    "derive_seed",
    "distillation",
    "errors",
    "fit",
    "item_index",
    "load_interactions",
    "losses",
    "metrics",
    "models",
    "open_backbone",
    "own_head",
    "pair_blocks",
    "prune_linear",
    "resolve",
    "seed_torch",
    "synthetic_interactions",
    "train_sasrec",
    "training",
    "write_states",
]

_SUBPACKAGES = ("compression", "data", "distillation", "errors", "losses", "metrics", "models", "training")
_DEFINED_IN = {
    "CompressionConfig": "slmrec_core.compression",
    "block_influence": "slmrec_core.compression",
    "compress": "slmrec_core.compression",
    "prune_linear": "slmrec_core.compression",
    "DataConfig": "slmrec_core.data",
    "SequenceDataset": "slmrec_core.data",
    "load_interactions": "slmrec_core.data",
    "synthetic_interactions": "slmrec_core.data",
    "BlockPairing": "slmrec_core.distillation",
    "DistillationConfig": "slmrec_core.distillation",
    "LiveTeacher": "slmrec_core.distillation",
    "NoTeacher": "slmrec_core.distillation",
    "Objective": "slmrec_core.distillation",
    "StoredLayer": "slmrec_core.distillation",
    "StoredTeacher": "slmrec_core.distillation",
    "pair_blocks": "slmrec_core.distillation",
    "write_states": "slmrec_core.distillation",
    "ExperimentConfig": "slmrec_core.experiment",
    "resolve": "slmrec_core.experiment",
    "item_index": "slmrec_core.faiss_index",
    "RecommenderConfig": "slmrec_core.models",
    "RecommenderModel": "slmrec_core.models",
    "SASRec": "slmrec_core.models",
    "SASRecConfig": "slmrec_core.models",
    "open_backbone": "slmrec_core.models",
    "Recommendations": "slmrec_core.recommender",
    "Recommender": "slmrec_core.recommender",
    "Session": "slmrec_core.session",
    "derive_seed": "slmrec_core.seeding",
    "seed_torch": "slmrec_core.seeding",
    "PAD_ITEM": "slmrec_core.structures",
    "DistillationLosses": "slmrec_core.structures",
    "HiddenStates": "slmrec_core.structures",
    "SequenceBatch": "slmrec_core.structures",
    "TeacherSignal": "slmrec_core.structures",
    "EvaluationConfig": "slmrec_core.training",
    "Evaluator": "slmrec_core.training",
    "LayerProbe": "slmrec_core.training",
    "Progress": "slmrec_core.training",
    "Ranking": "slmrec_core.training",
    "SingleProcessEngine": "slmrec_core.training",
    "TrainingConfig": "slmrec_core.training",
    "TrainingData": "slmrec_core.training",
    "TrainingEngine": "slmrec_core.training",
    "fit": "slmrec_core.training",
    "own_head": "slmrec_core.training",
    "train_sasrec": "slmrec_core.training",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for.

    torch and transformers take seconds to import; processes that only steer others must not pay for them.
    """
    if name in _SUBPACKAGES:
        return import_module(f"slmrec_core.{name}")
    if name in _DEFINED_IN:
        return getattr(import_module(_DEFINED_IN[name]), name)
    raise AttributeError(f"module 'slmrec_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
