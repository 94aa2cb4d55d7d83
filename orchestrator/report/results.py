"""The result table of a sweep: one row per trial and seed, as a file, as JSON and on the terminal.

Everything here is read back from finished stages, so a resumed sweep writes the same table as an uninterrupted one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pandas as pd

from orchestrator.planning.trial import Trial
from orchestrator.report.curves import SELECT_METRIC, Comparison, CurvePoint, best_settings, row_groups
from slmrec_core.errors import CheckpointError
from slmrec_core.training.config import OTHER_PROTOCOLS

Status = Literal["finished", "failed", "stopped", "missing"]
Ending = tuple[Status, Mapping[str, float]]
"""How a trial without a finished stage ended, and the last metrics that it reported."""

LEAD_COLUMNS = ("trial_id", "row", "method", "num_layers", "teacher_layers", "num_blocks", "seed")
COST_COLUMNS = (
    "params_trainable",
    "params_decoder",
    "params_total",
    "users_per_second",
    "train_users_per_second",
    "seconds_per_pass",
    "seconds",
    "teacher_seconds",
    "peak_memory_bytes",
    "model_bytes",
)
_COUNTS = (
    "num_layers",
    "teacher_layers",
    "num_blocks",
    "seed",
    "best_epoch",
    *COST_COLUMNS[:3],
    "peak_memory_bytes",
    "model_bytes",
)
_SPLITS = tuple(
    f"{split}{suffix}" for split in ("valid", "test") for suffix in ("", *(f"_{name}" for name in OTHER_PROTOCOLS))
)
_MAX_TABLE_WIDTH = 110
_TABLE_METRICS = {
    "valid ndcg@10": "valid/ndcg_at_10",
    "test ndcg@10": "test/ndcg_at_10",
    "test hr@10": "test/hit_rate_at_10",
    "test mrr": "test/mrr",
}


def collect(
    trials: Sequence[Trial], stages: Path, endings: Mapping[str, Ending] | None = None, read_test: bool = True
) -> pd.DataFrame:
    """One row per trial and seed; a probe has one per layer that it read.

    Args:
        trials: The plan.
        stages: Folder of the finished stages.
        endings: By trial id, for trials without a finished stage; one that is not there either is `missing`.
        read_test: False = leave the test split out, also of a stage that has it as a row of another study.

    Returns:
        `LEAD_COLUMNS`, the settings under dotted names, stage_id, shared_teacher, metrics, costs, the hardware that
        costs were measured on, best_epoch, status.
        Absent values are NA.

    Raises:
        CheckpointError: A finished stage's result.json is missing or damaged.
    """
    rows = [row for trial in trials for row in _trial_rows(trial, stages, (endings or {}).get(trial.trial_id))]
    settings = sorted({name for trial in trials for name in trial.settings} - {*LEAD_COLUMNS, "shared_teacher"})
    splits = [split for split in _SPLITS if read_test or not split.startswith("test")]
    metrics = sorted({name for row in rows for name in row if name.split("/")[0] in splits}, key=_metric_order)
    tail = ("hardware", "best_epoch", "status")
    columns = [*LEAD_COLUMNS, *settings, "stage_id", "shared_teacher", *metrics, *COST_COLUMNS, *tail]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_COUNTS, "Int64"))


def best_student(frame: pd.DataFrame, stages: Path, select_metric: str = SELECT_METRIC) -> Path | None:
    """Model folder of the distilled trial that is best on `valid`; without distillation, of the best fine-tuned one."""
    for method in ("distill", "finetune"):
        rows = frame[(frame["method"] == method) & (frame["status"] == "finished")]
        if select_metric in rows and rows[select_metric].notna().any():
            best = rows.nlargest(1, select_metric)["stage_id"].iloc[0]
            model = stages / str(best) / "model"
            # A row that was kept without its weights has none.
            return model if model.is_dir() else None
    return None


def write_results(
    frame: pd.DataFrame,
    points: Sequence[CurvePoint],
    folder: Path,
    facts: Mapping[str, object],
    comparisons: Sequence[Comparison] = (),
    select_metric: str = SELECT_METRIC,
) -> tuple[Path, Path]:
    """Writes results.csv and summary.json, each whole or not at all.

    Args:
        frame: From `collect`.
        points: From `curves.curves`.
        folder: The sweep's own; made if it is not there.
        facts: What else a reader needs to repeat the sweep: versions, commit, host, wall time.
        comparisons: From `curves.paired_comparisons`.
        select_metric: What the settings were chosen by.

    Returns:
        The two paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        **facts,
        "select_metric": select_metric,
        "seeds": sorted({int(seed) for seed in frame["seed"]}),
        "notes": best_settings(frame, select_metric).notes,
        "curves": [asdict(point) for point in points],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        # Through pandas, because JSON has no NaN: absent values become null.
        "table": json.loads(frame.to_json(orient="records", double_precision=15)),
    }
    return (
        replace_file(folder / "results.csv", frame.to_csv(index=False, lineterminator="\n")),
        replace_file(
            folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        ),
    )


def format_table(frame: pd.DataFrame, select_metric: str = SELECT_METRIC) -> str:
    """The table as aligned text: mean over seeds, ± their standard deviation, one line per row and depth.

    Below it stand the choices among settings and the trials that have no result.
    """
    selection = best_settings(frame, select_metric)
    header = ["row", "layers", "seeds", *_TABLE_METRICS, "params M", "users/s"]
    lines = [header]
    for row, num_layers, group in row_groups(selection.frame):
        metrics = [_mean_and_sd(group, name) for name in _TABLE_METRICS.values()]
        params, speed = group["params_total"].astype("Float64").mean(), group["users_per_second"].mean()
        lines.append(
            [
                row + ("*" if group["shared_teacher"].any() else ""),
                str(num_layers),
                str(group["seed"].nunique()),
                *metrics,
                "-" if pd.isna(params) else f"{params / 1e6:.1f}",
                "-" if pd.isna(speed) else f"{speed:,.0f}",
            ]
        )
    unfinished = frame[frame["status"] != "finished"]
    missing = [f"{trial}: no result ({status})." for trial, status in unfinished[["trial_id", "status"]].to_numpy()]
    shared = ["* The seeds share one teacher, so they are not independent from end to end."]
    marks = shared if selection.frame["shared_teacher"].any() else []
    return "\n".join([*_aligned(lines), *marks, *selection.notes, *missing])


def _trial_rows(trial: Trial, stages: Path, ending: Ending | None) -> list[dict[str, object]]:
    lead = {name: getattr(trial, name) for name in LEAD_COLUMNS}
    settings = {name: _plain(value) for name, value in trial.settings.items() if name not in LEAD_COLUMNS}
    base = {**settings, **lead, "stage_id": trial.stage_id, "shared_teacher": trial.shared_teacher}
    if not (stages / trial.stage_id).is_dir():
        status, metrics = ending or ("missing", {})
        return [{**base, **_split_metrics(metrics), "status": status}]
    result = _read_result(stages / trial.stage_id)
    base |= {name: result.get(name) for name in (*COST_COLUMNS, "hardware", "best_epoch", "status")}
    layers = result.get("layers")
    if layers is None:
        return [{**base, **_split_metrics(result["metrics"])}]
    costs = {n: {k: v for k, v in found.items() if k in COST_COLUMNS} for n, found in layers.items()}
    return [{**base, **costs[n], **_split_metrics(layers[n]), "num_layers": int(n)} for n in sorted(layers, key=int)]


def _read_result(stage: Path) -> dict[str, Any]:
    try:
        result = json.loads((stage / "result.json").read_text())
        if not isinstance(result, dict) or not ({"metrics", "layers"} & result.keys()):
            raise ValueError("neither metrics nor layers in it")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"stage {stage.name}: result.json cannot be read, got {error}."
            " Delete the stage and resume: it is built again."
        ) from error
    return result


def _split_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.split("/")[0] in _SPLITS}


def _metric_order(name: str) -> tuple[int, str]:
    return _SPLITS.index(name.split("/")[0]), name


def _plain(value: object) -> object:
    """A list in a cell would be written as Python; as JSON any program can read it."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _mean_and_sd(group: pd.DataFrame, metric: str) -> str:
    values = group[metric].dropna() if metric in group else pd.Series(dtype=float)
    if values.empty:
        return "-"
    return f"{values.mean():.4f}" + (f"±{values.std(ddof=1):.4f}" if len(values) > 1 else "")


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    # A row's name is the only cell without a natural limit.
    widths[0] = min(widths[0], _MAX_TABLE_WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    texts = []
    for first, *rest in lines:
        name = first if len(first) <= widths[0] else first[: widths[0] - 1] + "…"
        cells = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        texts.append("  ".join(cells))
    return texts


def replace_file(path: Path, text: str) -> Path:
    """Writes beside the target and renames, so that a reader never sees half a file; gives the path."""
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
