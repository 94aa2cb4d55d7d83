"""Stages that one process builds, as Ray tasks: item table, teacher states, probe, compressed and tested models."""

from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.storage.failures import note_failure
from orchestrator.training.job import Job


def start_task(jobs: list[Job]) -> ray.ObjectRef:
    """Starts a process that builds one stage, or several layers of one teacher's states, with a worker's share."""
    options = {
        "num_cpus": jobs[0].cpus,
        "num_gpus": int(jobs[0].use_gpu),
        "max_retries": 2,
        # Not within the little that the trial has, which starts it.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=None),
    }
    return _build_group.options(**options).remote([job.to_dict() for job in jobs])


# A process for each call, so that its peak of memory is the call's own.
@ray.remote(max_calls=1)  # type: ignore[untyped-decorator]  # ray ships no types here
def _build_group(raw: list[dict[str, Any]]) -> None:
    jobs = [Job.from_dict(job) for job in raw]
    try:
        _build(jobs)
    except Exception as error:
        # Written down and raised again: Ray keeps a traceback, a person wants the sentence.
        for job in jobs:
            note_failure(job.failure_file, error)
        raise


def _build(jobs: list[Job], folders: tuple[Path, ...] = ()) -> None:
    if len(folders) < len(jobs):
        job = jobs[len(folders)]
        with job.store.build(job.stage, job.provenance) as folder:
            _build(jobs, (*folders, folder))
        return
    # Only the task's own process pays for torch's libraries.
    from orchestrator.training import tasks  # noqa: PLC0415

    kind = jobs[0].stage.kind
    if kind == "states":
        tasks.build_states(jobs, folders)
    else:
        builders = {"sasrec": tasks.build_sasrec, "probe": tasks.build_probe, "compress": tasks.build_compressed}
        builders.get(kind, tasks.build_tested)(jobs[0], folders[0])
