"""Builds the stages of a plan, wave after wave: single processes as Ray tasks, trained LLMs as Tune trials."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from orchestrator.console import progress
from orchestrator.planning.plan import Plan, wanted, waves
from orchestrator.planning.trial import Trial
from orchestrator.provenance import provenance
from orchestrator.resources import Allocation
from orchestrator.storage.failures import note_failure, read_failure
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.storage.stages import Stage, StageStore
from orchestrator.training.job import Job
from orchestrator.tuning import tune_jobs
from slmrec_core.experiment import ExperimentConfig

_SAY_EVERY_S = 15.0
_CHECK_EVERY_S = 1.0
"""`ray job stop` kills three seconds after its signal."""
_TASK_KINDS = ("sasrec", "probe", "compress")
_TRAINED_KINDS = ("finetune", "distill")


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds what a plan needs and the store lacks.

    Args:
        storage: The storage directory.
        sweep: Name of the sweep.
        allocation: What the cluster gives to a trial.
        check: Called again and again while tasks run; what it raises ends the building.
    """

    storage: Path
    sweep: str
    allocation: Allocation
    check: Callable[[], None] = lambda: None

    def build(self, plan: Plan) -> dict[str, str]:
        """Builds all stages in order; gives the message of every stage that failed or lacked an input, by id."""
        failures: dict[str, str] = {}
        todo = wanted(plan, StageStore(self.storage / "stages"))
        for wave in waves(plan):
            ready = []
            for stage in (stage for stage in wave if stage.stage_id in todo):
                if lost := [name for name in stage.inputs.values() if name in failures]:
                    failures[stage.stage_id] = f"{stage.stage_id}: its input {lost[0]} failed: {failures[lost[0]]}"
                else:
                    ready.append(stage)
            if ready:
                failures |= self._build_wave(plan, ready)
        return failures

    def job(self, plan: Plan, stage: Stage) -> Job:
        """A stage with its share of the cluster: always the same, so that the numbers do not depend on the others."""
        share = self.allocation
        return Job(
            stage=stage,
            experiment=plan.experiments[stage.stage_id].model_dump(mode="json"),
            storage=self.storage,
            sweep=self.sweep,
            workers=plan.workers,
            threads=share.threads,
            cpus=share.cpus_per_worker,
            use_gpu=share.use_gpu,
            provenance={
                **provenance(),
                "workers": plan.workers.model_dump(mode="json"),
                "threads": share.threads,
                "device": "cuda" if share.use_gpu else "cpu",
            },
        )

    def _build_wave(self, plan: Plan, stages: Sequence[Stage]) -> dict[str, str]:
        kinds = {stage.kind for stage in stages}
        progress(f"{' and '.join(sorted(kinds))}: {len(stages)} to build")
        store = StageStore(self.storage / "stages")
        # What a search has trained is not trained again: its test split is read.
        chosen = [stage for stage in stages if stage.kind in _TRAINED_KINDS and store.is_whole(stage.untested.stage_id)]
        # The longest first: a deep model that starts last would leave the other cores idle.
        trained = sorted(
            (stage for stage in stages if stage.kind in _TRAINED_KINDS and stage not in chosen),
            key=lambda stage: plan.experiments[stage.stage_id].layers_trained,
            reverse=True,
        )
        single = [*(stage for stage in stages if stage.kind in _TASK_KINDS), *chosen]
        states = [stage for stage in stages if stage.kind == "states"]
        self._run_tasks(plan, [[stage] for stage in single] + _by_teacher(states))
        if trained:
            jobs = [self.job(plan, stage) for stage in trained]
            names = labels(plan)
            for job in jobs:
                job.failure_file.unlink(missing_ok=True)
                say_absent_terms(names[job.stage.stage_id], plan.experiments[job.stage.stage_id])
            tune_jobs(
                jobs, self.allocation.concurrent_trials, lambda job, said: say_epoch(names[job.stage.stage_id], said)
            )
        return self._failures(plan, stages)

    def _run_tasks(self, plan: Plan, groups: Sequence[Sequence[Stage]]) -> None:
        running = {}
        for group in groups:
            jobs = [self.job(plan, stage) for stage in group]
            for job in jobs:
                job.failure_file.unlink(missing_ok=True)
            options = {"num_cpus": jobs[0].cpus, "num_gpus": int(jobs[0].use_gpu), "max_retries": 2}
            running[_build_group.options(**options).remote([job.to_dict() for job in jobs])] = group
        names, tails = labels(plan), [MetricsTail(self.storage / "stages", s.stage_id) for g in groups for s in g]
        said = time.monotonic()
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=_CHECK_EVERY_S)
            # What a signal's handler raises is lost in `ray.wait`.
            self.check()
            if done or time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                for tail in tails:
                    for row in tail.read()[-1:]:
                        say_epoch(names[tail.stage_id], {"epoch": row.step, **row.metrics})
            if not done:
                continue
            group = running.pop(done[0])
            try:
                ray.get(done[0])
            except ray.exceptions.RayError as error:
                # Its message is in the sweep's folder, unless the process died without a word.
                for stage in group:
                    job = self.job(plan, stage)
                    if read_failure(job.failure_file) is None:
                        note_failure(job.failure_file, error)
            else:
                for stage in group:
                    progress(f"  {names[stage.stage_id]} done")

    def _failures(self, plan: Plan, stages: Sequence[Stage]) -> dict[str, str]:
        found = {}
        for stage in stages:
            job = self.job(plan, stage)
            if not job.store.is_whole(stage.stage_id):
                message = read_failure(job.failure_file)
                found[stage.stage_id] = message or f"{stage.stage_id}: it was not built, and nothing says why."
        return found


def say_absent_terms(name: str, experiment: ExperimentConfig) -> None:
    """Says which terms of a student's objective are off, and why: the authors' were off in silence."""
    if (pairing := experiment.pairing()) is not None:
        for term, reason in experiment.objective.absent_terms(pairing.num_blocks).items():
            progress(f"  {name}  train/loss_{term} is 0: {reason}")


def labels(plan: Plan) -> dict[str, str]:
    """Names of stages for people: `finetune-4-seed0`, and the settings in which rows of that name differ; those behind
    no row keep their id."""
    names = {stage_id: stage_id for stage_id in plan.stages}
    alike: dict[tuple[str, int, int], list[Trial]] = {}
    for trial in plan.trials:
        alike.setdefault((trial.row, trial.num_layers, trial.seed), []).append(trial)
    for trial in reversed(plan.trials):
        others = [other.settings for other in alike[trial.row, trial.num_layers, trial.seed]]
        own = [
            f"{name}={value}"
            for name, value in trial.settings.items()
            if any(other.get(name) != value for other in others)
        ]
        names[trial.stage_id] = " ".join([f"{trial.row}-{trial.num_layers}-seed{trial.seed}", *own])
    return names


def say_epoch(name: str, result: dict[str, Any]) -> None:
    """One line per trial and epoch."""
    if "train/loss" in result:
        progress(
            f"  {name}  epoch {result['epoch']}  loss {result['train/loss']:.4f}"
            f"  valid NDCG@10 {result['valid/ndcg_at_10']:.4f}"
        )


def _by_teacher(states: Sequence[Stage]) -> list[list[Stage]]:
    """Layers of one teacher are read in one pass."""
    groups: dict[tuple[str, object], list[Stage]] = {}
    for stage in states:
        groups.setdefault((stage.inputs["teacher"], stage.settings["align_at"]), []).append(stage)
    return list(groups.values())


# A process for each call, so that its peak of memory is the call's own.
@ray.remote(max_calls=1)  # type: ignore[untyped-decorator]  # ray ships no types here
def _build_group(raw: list[dict[str, Any]]) -> None:
    """Builds one stage, or several layers of one teacher's states."""
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
