"""Training progress on disk: what is saved is what is loaded, and damage is told."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.training.deepspeed_engine import DeepSpeedEngine
from slmrec_core.errors import CheckpointError
from slmrec_core.training.checkpoint import load_progress, save_progress
from slmrec_core.training.evaluation import Ranking
from slmrec_core.training.loop import EpochRecord, Progress

RECORDS = (EpochRecord(1, 1_000, {"train/loss": 2.5}), EpochRecord(2, 2_000, {"train/loss": 2.0, "valid/mrr": 0.1}))
# A transposed tensor: safetensors takes only what is contiguous.
STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3).T, "layer.bias": torch.ones(2, dtype=torch.bfloat16)}
RANKINGS = (
    Ranking("valid", "full", np.array([3, 1, 7]), np.array([9, 8, 9])),
    Ranking("valid", "sampled", np.array([2, 1, 1]), np.array([5, 5, 4])),
)


@pytest.mark.parametrize(
    "progress",
    [Progress(2, 7.5, RECORDS, 1, 0.25, STATE, RANKINGS), Progress(1, 0.5, RECORDS[:1])],
    ids=["trained", "never better"],
)
def test_progress_comes_back_as_it_was(tmp_path: Path, progress: Progress) -> None:
    save_progress(tmp_path, progress)
    found = load_progress(tmp_path)
    assert (found.epochs_done, found.seconds, found.records, found.best_epoch) == (
        progress.epochs_done,
        progress.seconds,
        progress.records,
        progress.best_epoch,
    )
    # −inf, before any epoch, is not JSON by the letter.
    assert found.best_value == progress.best_value or math.isinf(found.best_value)
    assert found.best_state.keys() == progress.best_state.keys()
    for name, tensor in progress.best_state.items():
        assert found.best_state[name].dtype == tensor.dtype
        assert torch.equal(found.best_state[name], tensor)
    assert len(found.best_rankings) == len(progress.best_rankings)
    for ours, theirs in zip(found.best_rankings, progress.best_rankings, strict=True):
        assert (ours.split, ours.protocol) == (theirs.split, theirs.protocol)
        np.testing.assert_array_equal([ours.ranks, ours.num_candidates], [theirs.ranks, theirs.num_candidates])


@pytest.mark.parametrize("file", ["progress.json", "best.safetensors", "rankings.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"records": [{"step": 1}]}', b"\xff\xfe" * 40])
def test_a_damaged_checkpoint_is_told_with_what_to_delete(tmp_path: Path, file: str, content: bytes | None) -> None:
    save_progress(tmp_path, Progress(2, 7.5, RECORDS, 1, 0.25, STATE))
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read, got .*Delete it; training then begins anew"):
        load_progress(tmp_path)


@pytest.mark.parametrize("answer", [(None, None), AssertionError(), FileNotFoundError(2, "No such file")])
def test_shards_that_are_not_there_are_an_error_and_not_a_fresh_start(tmp_path: Path, answer: object) -> None:
    class WithoutShards:
        """DeepSpeed's engine needs a process group; these are its three answers to a folder without shards."""

        def load_checkpoint(self, *arguments: object, **settings: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine._engine = WithoutShards()
    with pytest.raises(CheckpointError, match=r"must hold the shards of the engine, got .*Delete the trial's folder"):
        engine.load(tmp_path)
