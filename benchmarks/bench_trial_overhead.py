"""The fixed cost of a Tune trial, and a sweep of eight trials against its training time.

A trial has next to no training inside when its model is `tiny` with one layer, and its data are a handful of users for
one epoch. All of it is counted as fixed cost: processes, imports, placement, DeepSpeed's start, checkpoint, ranking,
payload. One trial runs at a time, with one worker, through Tune and Train on a cluster that is started here, and the
cost is the time from one trial's report to the next one's; what a sweep needs once is not in it. The candidates:

- plain Ray: a `TorchTrainer` in a Tune function with the defaults of both; Ray's own Python starts each process.
- ours: `tune_builds`. Processes are forked with their libraries imported, Train's controller runs in the trial's own
  process, and that process is kept for the next trial.

Each has a cluster of its own, since how processes start is decided when Ray is joined; the clusters take turns.
`RAY_ENVIRONMENT`, with its shorter polls, holds for both.

The second part is a sweep of eight real trials as `sweep.py` runs it: on two cores two at a time, one thread each. Its
wall time must be at most 1.15 x (training of the eight + 8 x the cost of a trial). Training is what the trials report
as their seconds, less what an empty trial reports, since that is in its cost already; it is taken while two share the
machine. The bound is that of one trial after another. Two at a time can at best take half of it, so the wall time over
half of it is given too: how far the sweep is from two cores in full use.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from benchmarks.harness import Goal, Report, Size, arguments
from orchestrator import cluster
from orchestrator.build_queue import Build, BuildQueue
from orchestrator.builders import Builder
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.preparation import prepare
from orchestrator.ray_environment import RAY_ENVIRONMENT
from orchestrator.resources import DRIVER_CPUS, allocate
from orchestrator.space.search_space import load_search_space
from orchestrator.storage.failures import read_failure
from orchestrator.storage.stages import StageStore
from orchestrator.training.job import Job
from orchestrator.tuning import OnResult, Watcher, tune_builds
from slmrec_core.errors import TrialFailedError

SPACE = """# What does a trial cost that trains nothing?
# Seconds.
study: overhead
base:
  data.path: {data}
  backbone: tiny
  max_seq_len: {length}
  item_table.training.epochs: 1
  training.epochs: {epochs}
  training.precision: fp32
params:
  - method: finetune
    student.num_layers: 1
    training.learning_rate: {{grid: {rates}}}
"""
USERS, HISTORY, ITEMS = 40, 8, 12
"""Of an empty trial."""
REAL_TRIALS = 8
REAL_EPOCHS: dict[Size, int] = {"smallest": 0, "short": 10, "full": 40}
"""Of each real trial, over the generated data of `smoke`; 0 = the second part is left out."""
REPEATS: dict[Size, int] = {"smallest": 1, "short": 1, "full": 5}
TRIALS = 2
"""In each turn: the time from the first one's report to the second one's is one cost."""


def sweep_of(folder: Path, num_trials: int, data: str, length: int, epochs: int) -> Plan:
    """Trials that differ in their learning rate, with data and backbone prepared."""
    rates = [round(1e-3 * (1 + number / 1000), 6) for number in range(num_trials)]
    space = folder / "space.yaml"
    space.write_text(SPACE.format(data=data, length=length, epochs=epochs, rates=rates))
    plan = make_plan(load_search_space(str(space), []))
    (folder / "stages").mkdir(exist_ok=True)
    prepare(plan, folder)
    return plan


def few_users(folder: Path) -> str:
    """A data file without which there would be nothing to start from; every user has seen most items."""
    lines = [f"{user} {' '.join(str((user + 5 * k) % ITEMS) for k in range(HISTORY))}" for user in range(USERS)]
    path = folder / "few.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@contextlib.contextmanager
def builder_of(folder: Path, plan: Plan, forks: bool) -> Iterator[Builder]:
    """A cluster with the item table built, so that only trials are left."""
    with cluster.connected(forks) as nodes:
        builder = Builder(folder, "bench", allocate(plan.workers, nodes))
        tables = plan.of_kind("sasrec")
        shared = dataclasses.replace(plan, stages={s.stage_id: s for s in [*plan.of_kind("data"), *tables]}, trials=[])
        if failures := builder.build(shared):
            raise TrialFailedError("\n".join(failures.values()))
        yield builder


def plain_trial(config: dict[str, Any]) -> None:
    """A trial as Ray's guide has it."""
    job = Job.from_dict(config["jobs"][0])
    with job.store.build(job.stage, job.provenance) as folder:
        TorchTrainer(
            plain_worker,
            train_loop_config={"job": job.to_dict(), "folder": str(folder)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": job.cpus}),
            run_config=ray.train.RunConfig(
                name=job.run_name,
                storage_path=str(job.runs_folder),
                callbacks=[TuneReportCallback()],
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        ).fit()


def plain_worker(config: dict[str, Any]) -> None:
    """The same as in a trial of ours."""
    # Only the worker pays for torch's libraries, as in a trial of ours.
    from orchestrator.training.worker import train_worker  # noqa: PLC0415

    train_worker(config)


def our_trials(jobs: Sequence[Job], concurrent: int, on_result: OnResult) -> None:
    """Jobs that read nothing of each other, as a sweep runs them."""
    tune_builds(BuildQueue([Build([job]) for job in jobs]), jobs[0], concurrent, on_result)


def plain_trials(jobs: Sequence[Job], concurrent: int, on_result: OnResult) -> None:
    """The same with Tune's and Train's defaults."""
    ray.tune.Tuner(
        ray.tune.with_resources(plain_trial, {"cpu": DRIVER_CPUS}),
        param_space={"jobs": ray.tune.grid_search([[job.to_dict()] for job in jobs])},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=ray.tune.RunConfig(
            name=f"plain-{jobs[0].stage.stage_id}",
            storage_path=str(jobs[0].runs_folder),
            verbose=0,
            callbacks=[Watcher(on_result, lambda job: None)],
        ),
    ).fit()


def cost(builder: Builder, plan: Plan, forks: bool) -> tuple[float, float]:
    """Seconds from one trial's report to the next one's, and seconds that the second reports of itself."""
    store = StageStore(builder.storage / "stages")
    jobs = [builder.job(plan, stage) for stage in plan.of_kind("finetune") if not store.is_done(stage.stage_id)]
    reports: list[float] = []
    run = our_trials if forks else plain_trials
    run(jobs[:TRIALS], 1, lambda job, result: reports.append(time.perf_counter()))
    check(jobs[:TRIALS])
    return (reports[-1] - reports[0]) / (TRIALS - 1), seconds_of(jobs[TRIALS - 1])


def check(jobs: Sequence[Job]) -> None:
    """Every trial must have been trained.

    Raises:
        TrialFailedError: One was not; a benchmark of failures would be a fast one.
    """
    for job in jobs:
        if not job.store.is_done(job.stage.stage_id):
            raise TrialFailedError(f"{job.stage.stage_id}: {read_failure(job.failure_file)}")


def seconds_of(job: Job) -> float:
    """What a trial says that it took, once its worker was there."""
    return float(json.loads((job.store.path(job.stage.stage_id) / "result.json").read_text())["seconds"])


def real_sweep(folder: Path, epochs: int) -> tuple[float, list[float]]:
    """Wall seconds of eight real trials, and what each says that it took."""
    plan = sweep_of(folder, REAL_TRIALS, "synthetic", 20, epochs)
    with builder_of(folder, plan, forks=True) as builder:
        jobs = [builder.job(plan, stage) for stage in plan.of_kind("finetune")]
        started = time.perf_counter()
        our_trials(jobs, builder.allocation.concurrent_trials, lambda job, result: None)
        wall = time.perf_counter() - started
    check(jobs)
    return wall, [seconds_of(job) for job in jobs]


def main() -> None:
    """Runs the benchmark in the size that the command line names."""
    size: Size = arguments(__doc__).size
    os.environ.update(RAY_ENVIRONMENT)
    os.environ.pop("RAY_ADDRESS", None)
    repeats = REPEATS[size]
    with tempfile.TemporaryDirectory(prefix="slmrec-bench-") as name:
        # Ray leaves a token at home, which would turn authentication on in clusters that are started later.
        os.environ["HOME"] = name
        empty, real = Path(name) / "empty", Path(name) / "real"
        empty.mkdir()
        real.mkdir()
        plan = sweep_of(empty, 2 * TRIALS * repeats, few_users(empty), 10, 1)
        costs: dict[bool, list[float]] = {False: [], True: []}
        inside: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(repeats):
            for forks in costs:
                with builder_of(empty, plan, forks) as builder:
                    seconds, own = cost(builder, plan, forks)
                costs[forks].append(seconds)
                inside[forks].append(own)
        plain, ours = (statistics.median(costs[forks]) for forks in (False, True))
        rows = [
            {"what": "plain Ray: a trial without training", "seconds": plain},
            {"what": "ours: a trial without training", "seconds": ours},
            {"what": "plain Ray: of it, in the worker's own code", "seconds": statistics.median(inside[False])},
            {"what": "ours: of it, in the worker's own code", "seconds": statistics.median(inside[True])},
        ]
        goals = [Goal("seconds of a trial without training", ours, at_most=8.0)]
        if epochs := REAL_EPOCHS[size]:
            wall, reported = real_sweep(real, epochs)
            # What an empty trial reports of itself is in its cost already.
            training = sum(reported) - REAL_TRIALS * statistics.median(inside[True])
            bound = training + REAL_TRIALS * ours
            rows += [
                {"what": "ours: a sweep of 8 real trials, two at a time", "seconds": wall},
                {"what": "sum of their training", "seconds": training},
                {"what": "that and 8 x the cost of a trial", "seconds": bound},
                {"what": "half of it: two cores in full use", "seconds": bound / 2},
            ]
            goals.append(Goal("sweep / (training + 8 x cost)", wall / bound, at_most=1.15))
    Report(
        subject="fixed cost of a Tune trial",
        size=size,
        repeats=repeats,
        settings={
            "workers": 1,
            "backbone": "tiny",
            "users": USERS,
            "times": {"plain": costs[False], "ours": costs[True]},
        },
        rows=rows,
        goals=goals,
    ).publish()


if __name__ == "__main__":
    main()
