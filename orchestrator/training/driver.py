"""One trial: a Tune function that starts one Ray Train group of DeepSpeed workers and commits what they made."""

import shutil
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
import ray.tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.trainable.trainable_fn_utils import _in_tune_session

from orchestrator.storage.failures import note_failure, raise_noted
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.training.job import Job
from orchestrator.training.trainer import report_to_tune, trial_trainer
from slmrec_core.errors import TrialFailedError


class TrialStoppedError(Exception):
    """The scheduler ended the trial; it has not failed."""


def run_trial(config: dict[str, Any]) -> None:
    """The trainable: builds the stage of one job, unless it is there.

    It raises nothing: the message of a failure is kept in the sweep's folder, and Tune tries again only what was
    lost without a word.

    Args:
        config: `job`, as `Job.to_dict`.
    """
    job = Job.from_dict(config["job"])
    is_there = job.store.is_whole if job.point is None else job.store.is_done
    if is_there(job.stage.stage_id):
        # A search judges this point too.
        ray.tune.report(_last_report(job))
        return
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


def _last_report(job: Job) -> dict[str, Any]:
    """What the workers of a finished stage reported last."""
    rows = MetricsTail(job.store.root, job.stage.stage_id).read()
    metric = job.experiment["training"]["checkpoint_metric"]
    best = max(row.metrics[metric] for row in rows)
    return {**rows[-1].metrics, "epoch": rows[-1].step, "best_value": best}


def _train_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    # The trial's own process and Train's controller import this module too: only workers pay for torch's libraries.
    from orchestrator.training.worker import train_worker  # noqa: PLC0415

    return train_worker(config)
