"""What each Ray Train worker does, from the stages on disk to a finished payload; it tracks nothing."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from orchestrator.storage.failures import note_raised
from orchestrator.storage.payload import Cost, append_record, write_records, write_trained
from orchestrator.training.assembly import build_objective, build_student, experiment_of, inputs_of
from orchestrator.training.checkpoints import report_epoch, resume
from orchestrator.training.deepspeed_engine import DeepSpeedEngine
from orchestrator.training.job import Job
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import Teacher
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.hardware import peak_memory_bytes
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.training.evaluation import Evaluator, Ranking
from slmrec_core.training.loop import Progress, TrainingData, fit, term_gradient_norms

logger = logging.getLogger(__name__)


def train_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    """Trains one stage on this worker's share; rank 0 writes the payload and returns the content of result.json.

    Args:
        config: `job`, as `Job.to_dict`, and `folder`, where the stage is being built.

    Raises:
        Exception: E.g. a loss that is not finite, a full disk. It is also noted in the folder, so that the trial is
            not tried again as if a worker had been lost.
    """
    job, folder = Job.from_dict(config["job"]), Path(config["folder"])
    try:
        return _train(job, folder)
    except Exception as error:
        if not _is_lost_peer(error):
            note_raised(folder, error)
        raise


def _is_lost_peer(error: Exception) -> bool:
    """True = what a collective raises when another worker died: to be tried again from the checkpoint."""
    words = ("gloo", "nccl", "connection", "peer", "timed out")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _train(job: Job, folder: Path) -> dict[str, Any] | None:
    started = time.monotonic()
    quiet_libraries()
    torch.set_num_threads(job.threads)
    experiment, inputs, device = experiment_of(job), inputs_of(job), ray.train.torch.get_device()
    dataset = inputs.dataset()
    objective, teacher = build_objective(experiment, inputs, device)
    data = TrainingData(dataset, experiment.max_seq_len, experiment.training)
    norms = _gradient_norms(objective, teacher, data, device)
    engine = DeepSpeedEngine(objective, experiment.training, job.workers, device)
    evaluator = Evaluator(
        dataset,
        experiment.max_seq_len,
        experiment.evaluation,
        device,
        engine.rank,
        engine.world_size,
        engine.all_reduce,
    )
    progress = resume(engine)
    # What an earlier, lost worker spent on the epochs that are kept counts too.
    started -= progress.seconds
    if engine.rank == 0:
        write_records(folder, progress.records)

    absent = _absent_terms(experiment)

    def on_epoch(progress: Progress) -> None:
        progress.records[-1].metrics.update(absent)
        if progress.epochs_done == 1:
            # Measured before the first step; they travel with the first epoch.
            progress.records[0].metrics.update(norms)
        report_epoch(engine, progress)
        if engine.rank == 0:
            append_record(folder, progress.records[-1])

    progress = fit(engine, data, teacher, evaluator, experiment.seed, progress, on_epoch)
    rankings, users_per_second = _final_rankings(engine, evaluator, progress, job)
    result = None
    if engine.rank == 0:
        seconds, memory = time.monotonic() - started, peak_memory_bytes(device)
        cost = Cost(seconds, users_per_second, memory, inputs.teacher_seconds())
        student = _whole_student(job, progress)
        result = write_trained(folder, experiment, dataset, student, progress, rankings, cost, device)
    engine.barrier()
    return result


def _absent_terms(experiment: ExperimentConfig) -> dict[str, float]:
    """Terms of a student's objective that are off, logged as the 0 that they are."""
    pairing = experiment.pairing()
    names = experiment.objective.absent_terms(pairing.num_blocks) if pairing is not None else {}
    return {f"train/loss_{name}": 0.0 for name in names}


def _gradient_norms(
    objective: Objective, teacher: Teacher, data: TrainingData, device: torch.device
) -> dict[str, float]:
    """Each term's gradient norm at step 0, over the first windows; before ZeRO takes the weights apart."""
    batch = data.batch(data.examples[:16]).to(device)
    return term_gradient_norms(objective, batch, teacher.signal(batch))


def _final_rankings(
    engine: DeepSpeedEngine, evaluator: Evaluator, progress: Progress, job: Job
) -> tuple[list[Ranking], float | None]:
    """The best epoch's rankings, and users ranked per second; the test split is read here, once, unless in a search."""
    if not job.stage.settings.get("read_test", True):
        return [*progress.best_rankings], None
    started = time.monotonic()
    (test,) = evaluator.rank_split(engine.objective.student, "test")
    return [*progress.best_rankings, *test], len(test[0].ranks) / (time.monotonic() - started)


def _whole_student(job: Job, progress: Progress) -> RecommenderModel:
    """The student with its best weights, built anew: under ZeRO-3 no worker holds all of it."""
    student = build_student(experiment_of(job), inputs_of(job))
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(progress.best_state[f"student.{name}"])
    return student


def quiet_libraries() -> None:
    """Keeps what libraries say about themselves off the terminal; their errors still show."""
    for name in ("DeepSpeed", "transformers", "peft", "torch.distributed", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|deepspeed|transformers|peft|ray)\b.*")
