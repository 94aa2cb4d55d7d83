"""Stages as trials leave them on disk, without anything having been trained."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator.planning.trial import Method, Trial
from slmrec_core.metrics import ranking_metrics

START_MS = 1_763_000_000_000


def make_trial(
    method: Method,
    num_layers: int,
    seed: int = 0,
    row: str | None = None,
    stage: str | None = None,
    **settings: object,
) -> Trial:
    row = row or method
    variant = "".join(f"{value}" for value in settings.values()).replace(".", "")
    distils = method == "distill"
    return Trial(
        trial_id=f"{row}-{num_layers}-seed{seed}-{variant or 'a'}",
        row=row,
        method=method,
        stage_id=stage or f"{method}-{num_layers}{seed}{variant}",
        num_layers=num_layers,
        teacher_layers=8 if distils else None,
        num_blocks=min(4, num_layers) if distils else None,
        seed=seed,
        settings={"training.lr": 1.0e-3, "student.num_layers": num_layers, **settings},
    )


def ranks_of(quality: float, seed: int, num_users: int = 60) -> np.ndarray:
    """Ranks that get better with quality, different for each seed."""
    draws = np.random.default_rng(seed).exponential(1 / quality, size=num_users)
    return 1 + draws.astype(np.int64)


def append_rows(folder: Path, steps: Sequence[int], offset_ms: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        for step in steps:
            metrics = {"train/loss": 5.0 / (step + 1), "valid/ndcg_at_10": 0.1 + 0.01 * step}
            at = START_MS + 1000 * step + offset_ms
            file.write(json.dumps({"step": step, "timestamp_ms": at, "metrics": metrics}) + "\n")


def write_stage(stages: Path, trial: Trial, quality: float = 0.1, steps: Sequence[int] = range(3)) -> Path:
    """A finished stage whose result.json and ranks.parquet agree."""
    folder = stages / trial.stage_id
    append_rows(folder, steps)
    layers = range(trial.num_layers + 1) if trial.method == "probe" else [None]
    metrics: dict[int | None, Mapping[str, float]] = {}
    tables = []
    for layer in layers:
        grown = quality * (1 + (layer or 0))
        protocols: Sequence[str] = trial.settings.get("evaluation.protocols", ["full"])  # type: ignore[assignment]
        places = [(split, protocol) for protocol in protocols for split in ("valid", "test")]
        ranks = {place: ranks_of(grown, 100 * trial.seed + index) for index, place in enumerate(places)}
        named = {s if p == "full" else f"{s}_{p}": ranks[s, p] for s, p in places}
        metrics[layer] = {k: v for name, values in named.items() for k, v in ranking_metrics(values, name).items()}
        for (split, protocol), values in ranks.items():
            users = np.arange(len(values))
            table = pd.DataFrame({"user_id": users, "split": split, "protocol": protocol, "target_item": 1 + users})
            table = table.assign(rank=values, num_candidates=1000)
            tables.append(table if layer is None else table.assign(layer=layer))
    # Shuffled: the order of users in a file means nothing.
    pd.concat(tables).sample(frac=1, random_state=trial.seed).to_parquet(folder / "ranks.parquet")
    result = {
        "method": trial.method,
        "num_layers": trial.num_layers,
        "params_trainable": 1_000,
        "params_decoder": 1_000_000 * trial.num_layers,
        "params_total": 1_000_000 * trial.num_layers + 500_000,
        "users_per_second": 1234.5,
        "train_users_per_second": 345.6,
        "seconds": 12.5,
        "hardware": "A CPU, AVX2",
        "best_epoch": max(steps),
        "status": "finished",
    }
    layered = {str(n): {**m, "params_decoder": 1_000_000 * (n or 0)} for n, m in metrics.items()}
    found = {"metrics": metrics[None]} if None in metrics else {"layers": layered}
    (folder / "result.json").write_text(json.dumps({**result, **found}))
    return folder
