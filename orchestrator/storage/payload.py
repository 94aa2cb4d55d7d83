"""What a finished stage holds: result.json, metrics.jsonl, model/ and ranks.parquet."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from slmrec_core.data import SequenceDataset
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.hardware import hardware_name
from slmrec_core.model_files import WEIGHTS
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec
from slmrec_core.recommender import Recommender
from slmrec_core.training.evaluation import Ranking
from slmrec_core.training.loop import EpochRecord, Progress

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    seconds: float
    """Wall time."""
    inference_users_per_second: float | None
    """None = the test split was not read."""
    peak_memory_bytes: int
    """Of the process that writes the payload."""
    teacher_seconds: float | None = None
    """Wall time of the teacher's own stages, training and states; None = no stage of a teacher is read."""


def write_records(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Writes metrics.jsonl anew: after a resume it must hold what the checkpoint knows, no more."""
    text = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    (folder / METRICS).write_text(text)


def append_record(folder: Path, record: EpochRecord) -> None:
    """Adds a line to metrics.jsonl."""
    with (folder / METRICS).open("a") as stream:
        stream.write(json.dumps(asdict(record)) + "\n")


def write_trained(
    folder: Path,
    experiment: ExperimentConfig,
    dataset: SequenceDataset,
    network: RecommenderModel | SASRec,
    progress: Progress,
    rankings: Sequence[Ranking],
    cost: Cost,
    device: torch.device,
) -> dict[str, Any]:
    """The payload of a row that was trained on `device`; gives the content of result.json."""
    metrics = {name: value for ranking in rankings for name, value in ranking.metrics().items()}
    seconds, passes = (sum(r.metrics[name] for r in progress.records) for name in ("train/seconds", "train/passes"))
    result = {
        "method": experiment.method,
        "num_layers": 0 if isinstance(network, SASRec) else network.num_layers,
        "metrics": metrics,
        **network.parameter_counts(),
        "users_per_second": cost.inference_users_per_second,
        "train_users_per_second": dataset.num_users * passes / seconds,
        "seconds_per_pass": seconds / passes,
        "seconds": cost.seconds,
        "teacher_seconds": cost.teacher_seconds,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epochs_done,
        "repeat_share": dataset.repeat_share,
        "status": "finished",
    }
    write_records(folder, progress.records)
    write_ranks(folder, [ranking.frame(dataset) for ranking in rankings])
    # A model is passed on; where somebody's log lay is not.
    data = experiment.data.model_copy(update={"path": Path(experiment.data.path).name})
    metadata: dict[str, object] = {
        "settings": experiment.model_copy(update={"data": data}).model_dump(mode="json"),
        "data_fingerprint": dataset.fingerprint,
        "metrics": metrics,
    }
    Recommender.of_dataset(network, dataset, experiment.max_seq_len, metadata).save_pretrained(folder / "model")
    result["model_bytes"] = (folder / "model" / WEIGHTS).stat().st_size
    write_result(folder, result, device)
    return result


def write_ranks(folder: Path, frames: Sequence[pd.DataFrame]) -> None:
    """ranks.parquet: what every interval and paired test is computed from."""
    pd.concat(frames, ignore_index=True).to_parquet(folder / "ranks.parquet", index=False)


def write_result(folder: Path, result: dict[str, Any], device: torch.device) -> None:
    """result.json, with the name of the hardware, unless `result` has it from where it was measured."""
    named = {"hardware": hardware_name(device), **result}
    (folder / "result.json").write_text(json.dumps(named, indent=2, sort_keys=True))
