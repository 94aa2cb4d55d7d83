"""Training as it stands after an epoch: engine and progress in a folder, from which it goes on as if never stopped."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import get_args
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmrec_core.errors import CheckpointError
from slmrec_core.training.config import RankingProtocol
from slmrec_core.training.engine import TrainingEngine
from slmrec_core.training.evaluation import Ranking
from slmrec_core.training.loop import EpochRecord, Progress

_PROGRESS = "progress.json"
_BEST = "best.safetensors"
_RANKINGS = "rankings.safetensors"
_EPOCH = "epoch-"
_MEND = "Delete it; training then begins anew."


def save_checkpoint(folder: Path, engine: TrainingEngine, progress: Progress) -> None:
    """Keeps the last epoch in a folder, whole or not at all; the one before it goes when the new one is there.

    Args:
        folder: Of this training alone; made if it is not there.
        engine: Of one process.
        progress: After the epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writing = folder / f".writing-{uuid4().hex[:8]}"
    writing.mkdir()
    engine.save(writing)
    save_progress(writing, progress)
    writing.rename(folder / f"{_EPOCH}{progress.epochs_done}")
    for old in folder.iterdir():
        if old.name != f"{_EPOCH}{progress.epochs_done}":
            shutil.rmtree(old)


def load_checkpoint(folder: Path, engine: TrainingEngine) -> Progress | None:
    """Puts the engine back to where `save_checkpoint` found it; None = nothing was kept.

    Raises:
        CheckpointError: What was kept is damaged, or of another model.
    """
    kept = [path for path in folder.glob(f"{_EPOCH}*") if path.name.removeprefix(_EPOCH).isdigit()]
    if not kept:
        return None
    # Two, where it was stopped before the older one went.
    newest = max(kept, key=lambda path: int(path.name.removeprefix(_EPOCH)))
    try:
        engine.load(newest)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, UnpicklingError) as error:
        raise CheckpointError(f"checkpoint {newest}: cannot be read, got {error!r}. {_MEND}") from error
    return load_progress(newest)


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
        raise CheckpointError(f"checkpoint {folder}: cannot be read, got {error!r}. {_MEND}") from error


def _rankings(ranks: dict[str, Tensor]) -> tuple[Ranking, ...]:
    # In the order of the protocols, which a mapping on disk does not keep: "full" before the others.
    return tuple(Ranking("valid", name, *ranks[name].numpy()) for name in get_args(RankingProtocol) if name in ranks)
