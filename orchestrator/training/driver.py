"""One trial: a Tune function that has one Ray Train group of DeepSpeed workers, or one process, build a stage."""

import shutil
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
import ray.tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.trainable.trainable_fn_utils import _in_tune_session

from orchestrator.storage.failures import note_failure, raise_noted, read_failure
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.training.job import TRAINED_KINDS, Job
from orchestrator.training.single_process import start_task
from orchestrator.training.trainer import report_to_tune, trial_trainer
from slmrec_core.errors import TrialFailedError

_REPORT_EVERY_S = 15.0
"""Of a single process, which may take a second for an epoch."""


class TrialStoppedError(Exception):
    """The scheduler ended the trial; it has not failed."""


def run_trial(config: dict[str, Any]) -> None:
    """The trainable: builds the stages of its jobs, unless they are there.

    It raises nothing: the message of a failure is kept in the sweep's folder, and Tune tries again only what was
    lost without a word.

    Args:
        config: `jobs`, each as `Job.to_dict`: one, or several layers of one teacher's states.
    """
    jobs = [Job.from_dict(raw) for raw in config["jobs"]]
    is_there = jobs[0].store.is_whole if jobs[0].point is None else jobs[0].store.is_done
    if all(is_there(job.stage.stage_id) for job in jobs):
        # A search judges this point too.
        _report_last(jobs[0])
    elif _is_trained(jobs[0]):
        _run_workers(jobs[0])
    else:
        _run_process(jobs)


def _is_trained(job: Job) -> bool:
    """False = one process builds it; what a search has trained is not trained again, its test split is read."""
    was_searched = job.point is None and job.store.is_whole(job.stage.untested.stage_id)
    return job.stage.kind in TRAINED_KINDS and not was_searched


def _run_process(jobs: list[Job]) -> None:
    task, tail = start_task(jobs), MetricsTail(jobs[0].store.root, jobs[0].stage.stage_id)
    is_over = False
    while not is_over:
        is_over = bool(ray.wait([task], timeout=_REPORT_EVERY_S)[0])
        for row in tail.read()[-1:]:
            ray.tune.report({**row.metrics, "epoch": row.step})
    # Tune has a line of its own for a trial that reports nothing.
    ray.tune.report({"is_over": True})
    try:
        ray.get(task)
    except ray.exceptions.RayError as error:
        # Its message is in the sweep's folder, unless the process died without a word.
        for job in jobs:
            if read_failure(job.failure_file) is None:
                note_failure(job.failure_file, error)


def _run_workers(job: Job) -> None:
    try:
        with job.store.build(job.stage, job.provenance) as folder:
            train(job, folder)
    except TrialStoppedError:
        return
    except Exception as error:  # noqa: BLE001  # Written down with its traceback; the sweep reads and tells it.
        note_failure(job.failure_file, error)
        return
    shutil.rmtree(job.runs_folder / job.run_name, ignore_errors=True)


def train(job: Job, folder: Path) -> None:
    """Runs the group of workers to the end; after a lost worker, a new group goes on from the last checkpoint.

    Raises:
        TrialStoppedError: The scheduler ended the trial.
        TrialFailedError: Workers were lost more often than `workers.max_failures`.
        RunError: A worker raised it on purpose; the same numbers would fail again, so it is not tried again.
    """
    for attempt in range(job.workers.max_failures + 1):
        if not _in_tune_session():
            # The scheduler ended this trial, and with it the controller; there is nothing to try again.
            raise TrialStoppedError(job.stage.stage_id)
        try:
            # Train takes up the last checkpoint under the same name by itself.
            _trainer(job, folder).fit()
        except (TrainingFailedError, ray.exceptions.RayActorError) as error:
            raise_noted(folder)
            if attempt == job.workers.max_failures:
                raise TrialFailedError(
                    f"{job.stage.stage_id}: its workers were lost {attempt + 1} times, got {error}."
                    " Look into the logs of Ray, then resume the sweep."
                ) from error
        else:
            return


def _trainer(job: Job, folder: Path) -> TorchTrainer:
    return trial_trainer(
        _train_worker,
        train_loop_config={"job": job.to_dict(), "folder": str(folder)},
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.workers.num_workers,
            use_gpu=job.use_gpu,
            resources_per_worker={"CPU": job.cpus, **({"GPU": 1} if job.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=job.run_name,
            storage_path=str(job.runs_folder),
            callbacks=[report_to_tune()],
            # We try again ourselves: Train would also repeat what was raised on purpose.
            failure_config=ray.train.FailureConfig(max_failures=0),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )


def _report_last(job: Job) -> None:
    """What a finished stage reported last."""
    rows = MetricsTail(job.store.root, job.stage.stage_id).read()
    metric = job.experiment["training"]["checkpoint_metric"]
    values = [row.metrics[metric] for row in rows if metric in row.metrics]
    last = {**rows[-1].metrics, "epoch": rows[-1].step} if rows else {"epoch": 0}
    ray.tune.report({**last, "best_value": max(values)} if values else last)


def _train_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    # The trial's own process and Train's controller import this module too: only workers pay for torch's libraries.
    from orchestrator.training.worker import train_worker  # noqa: PLC0415

    return train_worker(config)
