"""Engine shards and training progress as a Ray Train checkpoint, and back."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import ray.train
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmrec_core.errors import CheckpointError
from slmrec_core.training.engine import TrainingEngine
from slmrec_core.training.evaluation import Ranking
from slmrec_core.training.loop import EpochRecord, Progress

_PROGRESS = "progress.json"
_BEST = "best.safetensors"
_RANKINGS = "rankings.safetensors"


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


def save_progress(folder: Path, progress: Progress) -> None:
    """Progress as JSON and safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in progress.best_state.items()}, folder / _BEST)
    ranks = {r.protocol: torch.from_numpy(np.stack([r.ranks, r.num_candidates])) for r in progress.best_rankings}
    save_file(ranks, folder / _RANKINGS)
    content = {
        "epochs_done": progress.epochs_done,
        "seconds": progress.seconds,
        "best_epoch": progress.best_epoch,
        "best_value": progress.best_value,
        "records": [asdict(record) for record in progress.records],
    }
    (folder / _PROGRESS).write_text(json.dumps(content))


def load_progress(folder: Path) -> Progress:
    """What `save_progress` wrote.

    Raises:
        CheckpointError: It is not there, or damaged.
    """
    try:
        content = json.loads((folder / _PROGRESS).read_text())
        records = tuple(EpochRecord(**record) for record in content.pop("records"))
        rankings = _rankings(load_file(folder / _RANKINGS))
        return Progress(**content, records=records, best_state=load_file(folder / _BEST), best_rankings=rankings)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {folder}: cannot be read, got {error!r}. Delete the trial's folder under ray/ and resume."
        ) from error


def _rankings(ranks: dict[str, Tensor]) -> tuple[Ranking, ...]:
    # In the order of the protocols, which a mapping on disk does not keep: "full" before "sampled".
    return tuple(Ranking("valid", name, *ranks[name].numpy()) for name in ("full", "sampled") if name in ranks)
