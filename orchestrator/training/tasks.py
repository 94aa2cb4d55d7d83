"""Stages that one process builds: data (in the driver), item table, teacher states, probe, compressed models (in Ray
tasks)."""

import gc
import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from orchestrator.storage.payload import (
    METRICS,
    Cost,
    append_record,
    write_ranks,
    write_records,
    write_result,
    write_trained,
)
from orchestrator.training.assembly import experiment_of, inputs_of
from orchestrator.training.job import Job
from orchestrator.training.worker import quiet_libraries
from slmrec_core.compression import compress
from slmrec_core.data import SequenceDataset, load_interactions
from slmrec_core.distillation.teacher import USER_VECTORS, LiveTeacher, write_states
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.hardware import peak_memory_bytes, reset_peak_memory
from slmrec_core.model_files import WEIGHTS
from slmrec_core.recommender import Recommender
from slmrec_core.training.evaluation import Evaluator, Split
from slmrec_core.training.item_table import train_sasrec
from slmrec_core.training.loop import Progress, TrainingData
from slmrec_core.training.probe import LayerProbe

logger = logging.getLogger(__name__)


def task_device(job: Job) -> torch.device:
    """CUDA where Ray gave the task a GPU, else the CPU with its share of threads."""
    quiet_libraries()
    torch.set_num_threads(job.threads)
    return torch.device("cuda" if job.use_gpu and torch.cuda.is_available() else "cpu")


def build_data(experiment: ExperimentConfig, folder: Path) -> None:
    """Reads, filters, orders and splits the interactions.

    Raises:
        DataError: They cannot be read, or nothing is left of them.
    """
    config = experiment.data
    interactions = load_interactions(
        config.path,
        format=config.format,
        user_column=config.user_column,
        item_column=config.item_column,
        timestamp_column=config.timestamp_column,
        title_column=config.title_column,
        rating_column=config.rating_column,
        min_rating=config.min_rating,
    )
    dataset = SequenceDataset.from_interactions(
        interactions,
        config.min_user,
        config.min_item,
        experiment.min_events,
        ties=config.ties,
        k_core=config.k_core,
        repeats=config.repeats,
        time_split=config.time_split,
    )
    dataset.save(folder)


def build_sasrec(job: Job, folder: Path) -> None:
    """Trains SASRec: the item table, and a row of its own."""
    device = task_device(job)
    experiment, dataset = experiment_of(job), inputs_of(job).dataset()

    def on_epoch(progress: Progress) -> None:
        if (folder / METRICS).exists():
            append_record(folder, progress.records[-1])
        else:
            # An earlier try, whose folder is gone, may have trained the first epochs.
            write_records(folder, progress.records)

    model, progress = train_sasrec(
        dataset,
        experiment.item_table.network,
        experiment.item_table.training,
        experiment.evaluation,
        experiment.max_seq_len,
        experiment.seed,
        device,
        on_epoch,
        job.runs_folder / job.stage.stage_id,
    )
    evaluator = Evaluator(dataset, experiment.max_seq_len, experiment.evaluation, device)
    reading = time.monotonic()
    (test,) = evaluator.rank_split(model, "test")
    speed = len(test[0].ranks) / (time.monotonic() - reading)
    # Of the epochs, whichever try trained them.
    cost = Cost(progress.seconds + time.monotonic() - reading, speed, peak_memory_bytes(device))
    write_trained(folder, experiment, dataset, model, progress, [*progress.best_rankings, *test], cost, device)


def build_tested(job: Job, folder: Path) -> None:
    """The row of a model that a search has trained: all that the search left, and the test split, read now."""
    started, device = time.monotonic(), task_device(job)
    experiment, dataset = experiment_of(job), inputs_of(job).dataset()
    trained = job.store.path(job.stage.untested.stage_id)
    recommender = Recommender.from_pretrained(trained / "model")
    evaluator = Evaluator(dataset, experiment.max_seq_len, experiment.evaluation, device)
    reading = time.monotonic()
    (test,) = evaluator.rank_split(recommender.network.to(device), "test")
    result = json.loads((trained / "result.json").read_text())
    result["metrics"] |= {name: value for ranking in test for name, value in ranking.metrics().items()}
    result["users_per_second"] = len(test[0].ranks) / (time.monotonic() - reading)
    result["seconds"] += time.monotonic() - started
    recommender.metadata["metrics"] = result["metrics"]
    recommender.save_pretrained(folder / "model")
    shutil.copyfile(trained / "metrics.jsonl", folder / "metrics.jsonl")
    write_ranks(folder, [pd.read_parquet(trained / "ranks.parquet"), *(ranking.frame(dataset) for ranking in test)])
    write_result(folder, result, device)


def build_states(jobs: Sequence[Job], folders: Sequence[Path]) -> None:
    """Stores several layers of one teacher over one data set, in one pass."""
    started, first = time.monotonic(), jobs[0]
    device, experiment, inputs = task_device(first), experiment_of(first), inputs_of(first)
    dataset: SequenceDataset = inputs.dataset()
    by_layer: dict[int | str, Path] = {}
    for job, folder in zip(jobs, folders, strict=True):
        layer = job.stage.settings["layer"]
        by_layer[layer if layer == USER_VECTORS else int(str(layer))] = folder
    layers = [layer for layer in by_layer if isinstance(layer, int)]
    teacher = LiveTeacher(inputs.teacher().to(device), layers, experiment.distillation.align_at)
    data = TrainingData(dataset, experiment.max_seq_len, experiment.training)
    batches = data.in_order(experiment.evaluation.batch_size)
    write_states(teacher, lambda: (data.batch(users).to(device) for users in batches), by_layer)
    for folder in folders:
        # Of the pass, which several layers share.
        write_result(folder, {"seconds": time.monotonic() - started, "status": "finished"}, device)


def build_probe(job: Job, folder: Path) -> None:
    """Reads the trained teacher at every layer, in one forward pass per split."""
    started, device = time.monotonic(), task_device(job)
    experiment, dataset = experiment_of(job), inputs_of(job).dataset()
    teacher = inputs_of(job).teacher().to(device)
    evaluator = Evaluator(dataset, experiment.max_seq_len, experiment.evaluation, device)
    splits: tuple[Split, ...] = ("valid", "test")
    probes = {split: LayerProbe(teacher, experiment.probe.read) for split in splits}
    rankings_of = [evaluator.rank_split(teacher, split, probe) for split, probe in probes.items()]
    changes = {f"{split}/state_change": probe.state_changes() for split, probe in probes.items()}
    layers: dict[str, dict[str, float]] = {}
    frames = []
    for layer, by_split in enumerate(zip(*rankings_of, strict=True)):
        rankings = [ranking for one_split in by_split for ranking in one_split]
        metrics = {name: value for ranking in rankings for name, value in ranking.metrics().items()}
        if layer > 0:
            metrics |= {name: by_layer[layer - 1] for name, by_layer in changes.items()}
        layers[str(layer)] = metrics | teacher.parameter_counts(layer)
        frames += [ranking.frame(dataset).assign(layer=layer) for ranking in rankings]
    write_ranks(folder, frames)
    result: dict[str, Any] = {
        "method": "probe",
        "num_layers": teacher.num_layers,
        "layers": layers,
        "seconds": time.monotonic() - started,
        "teacher_seconds": inputs_of(job).teacher_seconds(),
        "peak_memory_bytes": peak_memory_bytes(device),
        "status": "finished",
    }
    write_result(folder, result, device)


def build_compressed(job: Job, folder: Path) -> None:
    """Makes a trained model smaller, and ranks both splits with what was saved, as whoever serves it would."""
    started, device = time.monotonic(), task_device(job)
    experiment, dataset = experiment_of(job), inputs_of(job).dataset()
    trained = inputs_of(job).trained()
    users = range(dataset.num_users) if experiment.compression.keep_layers else ()
    histories = [dataset.item_ids[dataset.history(user, "train")].tolist() for user in users]
    compress(trained, experiment.compression, histories).save_pretrained(folder / "model")
    # What was needed to make it is not what it needs.
    del trained, histories
    gc.collect()
    reset_peak_memory(device)
    recommender = Recommender.from_pretrained(folder / "model")
    network = recommender.network.to(device)
    evaluator = Evaluator(dataset, experiment.max_seq_len, experiment.evaluation, device)
    (valid,) = evaluator.rank_split(network, "valid")
    reading = time.monotonic()
    (test,) = evaluator.rank_split(network, "test")
    speed = len(test[0].ranks) / (time.monotonic() - reading)
    rankings = [*valid, *test]
    metrics = {name: value for ranking in rankings for name, value in ranking.metrics().items()}
    recommender.metadata["metrics"] = metrics
    recommender.save_pretrained(folder / "model")
    write_ranks(folder, [ranking.frame(dataset) for ranking in rankings])
    result: dict[str, Any] = {
        "method": experiment.method,
        "num_layers": experiment.num_layers,
        "metrics": metrics,
        **network.parameter_counts(),
        "users_per_second": speed,
        "seconds": time.monotonic() - started,
        "peak_memory_bytes": peak_memory_bytes(device),
        "model_bytes": (folder / "model" / WEIGHTS).stat().st_size,
        "status": "finished",
    }
    write_result(folder, result, device)
