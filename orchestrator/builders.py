"""Builds the stages of a plan as trials of Ray Tune, each as soon as what it reads is there."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.build_queue import Build, BuildQueue
from orchestrator.console import progress
from orchestrator.planning.plan import Plan, wanted, waves
from orchestrator.planning.trial import Trial
from orchestrator.provenance import provenance
from orchestrator.resources import Allocation
from orchestrator.storage.stages import Stage, StageStore
from orchestrator.training.job import TRAINED_KINDS, Job
from orchestrator.tuning import tune_builds
from slmrec_core.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds what a plan needs and the store lacks.

    Args:
        storage: The storage directory.
        sweep: Name of the sweep.
        allocation: What the cluster gives to a trial.
    """

    storage: Path
    sweep: str
    allocation: Allocation

    def build(self, plan: Plan) -> dict[str, str]:
        """Builds all stages, each as soon as what it reads is there; gives the message of every stage that failed or
        lacked an input, by id."""
        builds = [Build([self.job(plan, stage) for stage in stages]) for stages in self._groups(plan)]
        queue = BuildQueue(builds)
        if builds:
            names = labels(plan)
            tune_builds(
                queue,
                builds[0].jobs[0],
                self.allocation.concurrent_trials,
                lambda job, said: say_epoch(names[job.stage.stage_id], said),
                lambda built: say_built([names[name] for name in built]),
            )
        return queue.failures

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

    def _groups(self, plan: Plan) -> list[list[Stage]]:
        """What is to be built, in the order in which it is wanted; stages that are built in one go are together."""
        todo, names = wanted(plan, StageStore(self.storage / "stages")), labels(plan)
        groups: list[list[Stage]] = []
        for wave in waves(plan):
            stages = [stage for stage in wave if stage.stage_id in todo]
            if not stages:
                continue
            progress(f"{' and '.join(sorted({stage.kind for stage in stages}))}: {len(stages)} to build")
            for stage in stages:
                if stage.kind in TRAINED_KINDS:
                    say_absent_terms(names[stage.stage_id], plan.experiments[stage.stage_id])
            groups += _in_one_go(plan, stages)
        return groups


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


def say_built(names: Sequence[str]) -> None:
    """One line per stage."""
    for name in names:
        progress(f"  {name} done")


def _in_one_go(plan: Plan, stages: Sequence[Stage]) -> list[list[Stage]]:
    """Layers of one teacher are read in one pass; all else is built one by one, the longest first: a deep model that
    starts last would leave the other cores idle."""
    groups: dict[tuple[object, ...], list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: plan.experiments[stage.stage_id].layers_trained, reverse=True):
        key = (stage.inputs["teacher"], stage.settings["align_at"]) if stage.kind == "states" else (stage.stage_id,)
        groups.setdefault(key, []).append(stage)
    return list(groups.values())
