"""Rows of a study as the repository keeps them: a stage with all of its numbers and without its weights.

A kept row has the layout of a stage, so whatever reads stages reads it: the table, the curves, the paired tests. Put
back into a store, it is a stage that is done but not whole: nobody trains it again unless its weights are needed.

SASRec is kept whole, with its 3 MB: every row of its seed reads its item table. Without it, whoever runs one row again
would train SASRec for an hour first, and on another machine get another table.
"""

import json
import shutil
from uuid import uuid4

import pandas as pd

from orchestrator.report.rank_reader import RANK_COLUMNS
from orchestrator.storage.stages import LEFT_OUT, MANIFEST, StageStore, described

_RANKS = "ranks.parquet"
_KEPT = ("result.json", "metrics.jsonl")
_KEPT_WHOLE = "sasrec"
"""Kind of stage."""


def keep_row(stages: StageStore, stage_id: str, rows: StageStore) -> None:
    """Copies the numbers of a finished stage, and SASRec's weights, unless they are kept already.

    Raises:
        CheckpointError: A file of the stage is missing or altered.
    """
    if rows.is_done(stage_id) or not stages.is_done(stage_id):
        return
    stages.verify(stage_id)
    source = stages.path(stage_id)
    folder = rows.root / f".keeping-{stage_id}-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        manifest = json.loads((source / MANIFEST).read_text())
        is_whole = manifest["kind"] == _KEPT_WHOLE
        for name in manifest["files"] if is_whole else _KEPT:
            if (source / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        ranks = pd.read_parquet(source / _RANKS)
        small = ranks[[*RANK_COLUMNS, *(["layer"] if "layer" in ranks else [])]].astype({"rank": "int32"})
        # With all ranks of a user together names take no room, and a probe's file is half as large.
        small = small.sort_values("user_id", kind="stable")
        small.to_parquet(folder / _RANKS, index=False, compression="zstd", compression_level=19)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        kept = {str(path.relative_to(folder)): described(path) for path in paths}
        manifest |= {"files": kept, LEFT_OUT: sorted(manifest["files"].keys() - kept.keys())}
        # What a machine is called is nobody's business; result.json says what it is.
        manifest["provenance"].pop("host", None)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        folder.rename(rows.path(stage_id))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_back(rows: StageStore, stage_id: str, stages: StageStore) -> None:
    """Puts a kept row into a store that has not got the stage.

    Raises:
        CheckpointError: A file of the row is missing or altered.
    """
    if stages.is_done(stage_id) or not rows.is_done(stage_id):
        return
    rows.verify(stage_id)
    stages.root.mkdir(parents=True, exist_ok=True)
    folder = stages.root / f".building-{stage_id}-{uuid4().hex[:8]}"
    shutil.copytree(rows.path(stage_id), folder)
    folder.rename(stages.path(stage_id))
