"""One small distillation on any engine; imported by Ray's workers, so it lies beside its test and not in it."""

from typing import Any

import torch

from orchestrator.training.workers import WorkersConfig
from slmrec_core.data import SequenceDataset, synthetic_interactions
from slmrec_core.distillation.blocks import pair_blocks
from slmrec_core.distillation.config import DistillationConfig
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import LiveTeacher, mean_squared_norms
from slmrec_core.models.backbone import open_backbone
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.training.config import EvaluationConfig, TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine, TrainingEngine
from slmrec_core.training.evaluation import Evaluator
from slmrec_core.training.loop import TrainingData, fit

MAX_SEQ_LEN = 12


def training(precision: str) -> TrainingConfig:
    return TrainingConfig(epochs=2, batch_size=50, learning_rate=3.0e-3, warmup_steps=1, precision=precision)  # type: ignore[arg-type]


def build(precision: str) -> tuple[Objective, LiveTeacher, SequenceDataset]:
    """The same weights in every process: a student of two layers and a frozen teacher of four."""
    dataset = SequenceDataset.from_interactions(synthetic_interactions(num_users=75, num_items=30))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    torch.manual_seed(0)
    table = torch.randn(dataset.num_items + 1, 8)
    backbone = open_backbone("tiny")
    # Dropout draws differ between one worker and two; everything else must not.
    student = RecommenderModel.from_backbone(RecommenderConfig(num_layers=2, lora_dropout=0.0), backbone, table, dtype)
    teacher = RecommenderModel.from_backbone(RecommenderConfig(num_layers=4, lora_dropout=0.0), backbone, table, dtype)
    pairing = pair_blocks(2, 4, None)
    data = TrainingData(dataset, MAX_SEQ_LEN, training(precision))
    batches = (data.batch(windows) for windows in data.in_order(64))
    # Taken beforehand, as every trial does: norms of each micro-batch would differ between one worker and two.
    norms = mean_squared_norms(teacher, pairing.teacher_layers, "hidden_states", batches)
    objective = Objective(student, DistillationConfig(), pairing, norms, teacher_width=teacher.hidden_size)
    return objective, LiveTeacher(teacher, pairing.teacher_layers, "hidden_states"), dataset


def run(engine: TrainingEngine, teacher: LiveTeacher, dataset: SequenceDataset, precision: str) -> dict[str, Any]:
    """Trains two epochs; metrics by epoch without clocks, and the trained weights."""
    config = training(precision)
    evaluator = Evaluator(
        dataset, MAX_SEQ_LEN, EvaluationConfig(), engine.device, engine.rank, engine.world_size, engine.all_reduce
    )
    progress = fit(engine, TrainingData(dataset, MAX_SEQ_LEN, config), teacher, evaluator, seed=0)
    epochs = [{k: v for k, v in r.metrics.items() if k != "train/seconds"} for r in progress.records]
    return {"epochs": epochs, "weights": {k: v.numpy() for k, v in engine.trainable_state().items()}}


def run_plain(precision: str = "fp32") -> dict[str, Any]:
    """The reference: plain torch, one process."""
    objective, teacher, dataset = build(precision)
    return run(SingleProcessEngine(objective, training(precision)), teacher, dataset, precision)


def run_on_workers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What each Ray Train worker does: one run after another in the same process group."""
    from orchestrator.training.deepspeed_engine import DeepSpeedEngine  # noqa: PLC0415  # deepspeed on workers alone

    results = []
    for case in config["cases"]:
        workers = WorkersConfig(num_workers=config["num_workers"], **case["workers"])
        objective, teacher, dataset = build(case["precision"])
        engine = DeepSpeedEngine(objective, training(case["precision"]), workers, torch.device("cpu"))
        results.append(run(engine, teacher, dataset, case["precision"]))
        engine.barrier()
    return results
