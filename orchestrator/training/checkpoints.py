"""Engine shards and training progress as a checkpoint of Ray Train, and back."""

import tempfile
from pathlib import Path

import ray.train

from slmrec_core.training.checkpoint import load_progress, save_progress
from slmrec_core.training.engine import TrainingEngine
from slmrec_core.training.loop import Progress


def report_epoch(engine: TrainingEngine, progress: Progress) -> None:
    """Checkpoints the epoch and reports its metrics; a barrier, so every worker calls it.

    Every worker gives its own folder: Ray merges them, and ZeRO shards have a file for each rank.
    """
    metrics = {**progress.records[-1].metrics, "epoch": progress.epochs_done, "best_value": progress.best_value}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine.save(folder)
        if engine.rank == 0:
            save_progress(folder, progress)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))


def resume(engine: TrainingEngine) -> Progress:
    """Takes up the last checkpoint of this run, if there is one, else starts anew."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as name:
        engine.load(Path(name))
        return load_progress(Path(name))
