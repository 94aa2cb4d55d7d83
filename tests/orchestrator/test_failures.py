"""Messages of failed stages, for people; and what a process elsewhere is told."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.storage.failures import describe, failure_file, note_failure, note_raised, raise_noted, read_failure
from orchestrator.storage.stages import Stage
from orchestrator.training.job import Job
from orchestrator.training.workers import WorkersConfig
from slmrec_core.errors import ConfigError, DivergedError, RunError


def test_our_own_message_is_kept_as_it_is_and_its_traceback_below(tmp_path: Path) -> None:
    file = failure_file(tmp_path, "sweep", "distill-1")
    assert read_failure(file) is None
    try:
        raise ConfigError("training: is wrong, got 3. Mend it.")
    except ConfigError as error:
        note_failure(file, error)
    assert read_failure(file) == "training: is wrong, got 3. Mend it."
    assert "Traceback" in file.read_text()
    assert file == tmp_path / "sweeps" / "sweep" / "failures" / "distill-1.txt"


def test_a_message_of_others_comes_with_its_type() -> None:
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(OSError(errno.ENOSPC, "No space left on device")).startswith("storage: the disk is full, got")


def test_what_a_worker_raised_on_purpose_reaches_the_driver(tmp_path: Path) -> None:
    raise_noted(tmp_path)
    note_raised(tmp_path, DivergedError("train/loss: is not a number, got nan. Lower the learning rate."))
    with pytest.raises(RunError, match="train/loss: is not a number"):
        raise_noted(tmp_path)


def test_a_job_survives_the_way_to_another_process(tmp_path: Path) -> None:
    job = Job(
        stage=Stage.of("distill", {"layers": [1, 2]}, {"data": "data-1"}),
        experiment={"seed": 1},
        storage=tmp_path,
        sweep="one",
        workers=WorkersConfig(num_workers=2, offload="optimizer"),
        threads=3,
        cpus=0.95,
        use_gpu=False,
        provenance={"host": "here"},
    )
    sent = json.loads(json.dumps(job.to_dict()))
    assert Job.from_dict(sent) == job
    assert job.failure_file == failure_file(tmp_path, "one", job.stage.stage_id)
    assert job.run_name == f"one--{job.stage.stage_id}"
    # Two trials of a search may draw the same point; they once shared their checkpoints.
    assert len({job.run_name, *(replace(job, point=point).run_name for point in (0, 1))}) == 3
    assert (job.store.root, job.runs_folder) == (tmp_path / "stages", tmp_path / "ray" / "one")


def test_steps_are_accumulated_until_the_global_batch_is_seen() -> None:
    assert WorkersConfig().accumulation_steps(64) == 1
    assert WorkersConfig(micro_batch_size=8).accumulation_steps(64) == 8
    assert WorkersConfig(micro_batch_size=10, num_workers=3).accumulation_steps(64) == 3
