"""Recommendations for many users: parquet in, parquet out, by Ray Data on all CPUs or GPUs of the cluster.

What was written is noted by user, in the output folder: the same command goes on where an earlier one was stopped, and
no user is written twice.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import ray
from pyarrow import parquet
from ray.data.checkpoint import CheckpointConfig

from orchestrator.cluster import check_storage_is_shared, connected
from orchestrator.console import progress, say
from slmrec_core.errors import CheckpointError, ConfigError, DataError

COLUMNS = ("user_id", "history")
_NOTE = "_scoring.json"
"""Readers of parquet folders pass over names with an underscore."""
_DONE_USERS = ".done_users"
THREADS = 2
"""Of a worker on CPUs."""
_BATCH = 1024
"""Users of one call: large enough that packing loses nothing, small enough that a stop costs seconds."""


@dataclass(frozen=True)
class Scoring:
    """What is asked for; a folder that was begun with anything else is not gone on with."""

    model: str
    """Directory of a saved recommender, which every node sees."""
    model_sha256: str
    """Of its weights."""
    histories: str
    """Parquet file, or a folder of them."""
    num_users: int
    k: int
    exclude_seen: bool


def run_scoring(model: Path, histories: Path, out: Path, k: int, exclude_seen: bool) -> int:
    """Scores all users; gives the exit code.

    Args:
        model: As `Recommender.save_pretrained` wrote it.
        histories: Parquet with the columns `user_id` (each once) and `history` (raw item ids, oldest first).
        out: Folder of parquet files with `user_id`, `item_ids`, `scores`, `unknown_items`, `by_popularity`; made if it
            is not there.
        k: Items for each user.
        exclude_seen: Leave the items of the history out.

    Raises:
        ConfigError, DataError: There is no such model, the histories cannot be read, or `out` holds something else.
    """
    asked = _asked(model, histories, k, exclude_seen)
    note = out / _NOTE
    found = _read_note(note, out)
    if found is not None and found["asked"] != asdict(asked):
        begun = found["asked"]
        changed = [name for name, value in asdict(asked).items() if begun.get(name) != value]
        raise ConfigError(
            f"OUT: {out} was begun with {', '.join(f'{name} {begun.get(name)}' for name in changed)}, got"
            f" {', '.join(str(getattr(asked, name)) for name in changed)}. Give another folder."
        )
    if found is not None and found["finished"]:
        say(f"All {asked.num_users:,} users are scored already: {out}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    _write_note(note, asked, finished=False)
    with connected(forks=False) as nodes:
        check_storage_is_shared(out, nodes)
        gpus = int(sum(node.gpus for node in nodes))
        size = gpus or max(1, int(sum(node.cpus for node in nodes)) // THREADS)
        progress(f"Scoring {asked.num_users:,} users on {size} {'GPU' if gpus else 'CPU'} worker(s)")
        _run(asked, out, size, use_gpu=gpus > 0)
    written = sum(parquet.ParquetFile(file).metadata.num_rows for file in out.glob("*.parquet"))
    if written != asked.num_users:
        raise DataError(f"HISTORIES: {asked.num_users} users were read, and {written} written. Were they changed?")
    _write_note(note, asked, finished=True)
    shutil.rmtree(out / _DONE_USERS, ignore_errors=True)
    say(f"Written  {out}  ({written:,} users)")
    return 0


class Scorer:
    """A worker: loads the model once, then answers batch after batch as `Recommender.recommend` does.

    Args:
        scoring: What is asked for.
        threads: Of torch.
        use_gpu: CUDA.
    """

    def __init__(self, scoring: Scoring, threads: int, use_gpu: bool) -> None:
        # Only workers pay for torch's libraries.
        import torch  # noqa: PLC0415

        from slmrec_core.recommender import Recommender  # noqa: PLC0415

        torch.set_num_threads(threads)
        self._scoring = scoring
        self._recommender = Recommender.from_pretrained(scoring.model).merge_lora()
        self._recommender.network.to("cuda" if use_gpu else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Columns of `OUT` for the users of a batch."""
        found = self._recommender.recommend(batch["history"].to_pylist(), self._scoring.k, self._scoring.exclude_seen)
        # Fewer than k where the catalogue has no more.
        scores = [row[: len(items)] for row, items in zip(found.scores, found.item_ids, strict=True)]
        return pa.table(
            {
                "user_id": batch["user_id"],
                "item_ids": pa.array(found.item_ids, pa.list_(pa.string())),
                "scores": pa.array([np.asarray(row, dtype=np.float32) for row in scores], pa.list_(pa.float32())),
                "unknown_items": pa.array(found.unknown_items, pa.list_(pa.string())),
                "by_popularity": pa.array(found.by_popularity, pa.bool_()),
            }
        )


def _run(scoring: Scoring, out: Path, num_workers: int, use_gpu: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Ray Data notes each written block in two steps, and leaves out what is noted when it is started again.
    context.checkpoint_config = CheckpointConfig(
        id_column="user_id",
        checkpoint_path=str(out / _DONE_USERS),
        # By us, after it is noted that all is done: a stop in between would write everybody twice.
        delete_checkpoint_on_success=False,
    )
    # Ray Data's own checkpoint filter holds a CPU as long as it runs. Nothing else asks for one, or a machine of two
    # would wait for itself; workers' threads are what fills it.
    rows = ray.data.read_parquet(scoring.histories, columns=list(COLUMNS), num_cpus=0, concurrency=num_workers)
    scored = rows.map_batches(
        Scorer,
        fn_constructor_args=(scoring, 1 if use_gpu else THREADS, use_gpu),
        batch_size=_BATCH,
        batch_format="pyarrow",
        num_cpus=0,
        num_gpus=1 if use_gpu else 0,
        compute=ray.data.ActorPoolStrategy(size=num_workers),
    )
    scored.write_parquet(str(out), ray_remote_args={"num_cpus": 0}, concurrency=num_workers)


def _asked(model: Path, histories: Path, k: int, exclude_seen: bool) -> Scoring:
    from slmrec_core.model_files import weights_sha256  # noqa: PLC0415  # torch, for who made a mistake below

    if k < 1:
        raise ConfigError(f"-k: must be at least 1, got {k}. The usual value is 10.")
    if not histories.exists():
        raise DataError(f"HISTORIES: there is no such file or folder, got {str(histories)!r}. Mind the spelling.")
    try:
        source = pads.dataset(histories, format="parquet")
        schema = source.schema
        missing = [name for name in COLUMNS if name not in schema.names]
        if missing or not pa.types.is_list(schema.field("history").type):
            got = ", ".join(f"{field.name}: {field.type}" for field in schema)
            raise DataError(
                f"HISTORIES: {histories} must have the columns user_id and history (a list of raw item ids), got"
                f" {got}. Group the events by user, oldest first."
            )
        users = source.to_table(columns=["user_id"])["user_id"]
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"HISTORIES: {histories} must be parquet, got {str(error).splitlines()[0]}.") from error
    twice = len(users) - len(users.unique())
    if twice or users.null_count or not len(users):
        got = f"{twice} twice" if twice else f"{users.null_count} without" if users.null_count else "none"
        raise DataError(f"HISTORIES: {histories} must hold each user_id once, got {got}. One row for each user.")
    try:
        return Scoring(str(model), weights_sha256(model), str(histories), len(users), k, exclude_seen)
    except CheckpointError as error:
        # Named on the command line: a mistake, not a run that failed.
        raise ConfigError(f"MODEL: {error}") from error


def _read_note(note: Path, out: Path) -> Mapping[str, Any] | None:
    if not note.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"OUT: must be a new or empty folder, or one that score.py began, got {str(out)!r}.")
        return None
    try:
        found = json.loads(note.read_text())
        return {"asked": dict(found["asked"]), "finished": bool(found["finished"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"OUT: {note} cannot be read, got {error!r}. Give another folder.") from error


def _write_note(note: Path, asked: Scoring, finished: bool) -> None:
    fresh = note.with_name(f".{note.name}-{uuid4().hex[:8]}")
    fresh.write_text(json.dumps({"asked": asdict(asked), "finished": finished}, indent=2) + "\n")
    os.replace(fresh, note)
