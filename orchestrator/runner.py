"""A sweep from its plan to its table: stages, search, results, figures, MLflow."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.builders import Builder
from orchestrator.cluster import check_storage_is_shared, connected
from orchestrator.console import complain, progress, say
from orchestrator.interruption import Interruption
from orchestrator.planning.agreement import agreed_settings
from orchestrator.planning.plan import Plan, add_row, wanted
from orchestrator.planning.trial import Trial
from orchestrator.preparation import prepare
from orchestrator.provenance import provenance
from orchestrator.report.cost_figure import draw_costs
from orchestrator.report.curves import curves, paired_comparisons
from orchestrator.report.difference_figure import draw_differences
from orchestrator.report.figures import draw
from orchestrator.report.results import Ending, best_student, collect, format_table, write_results
from orchestrator.resources import Allocation, allocate
from orchestrator.searching import REPORTS_FOLDER, run_search
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.stages import StageStore
from orchestrator.storage.sweep_folder import SweepFolder, sweeps
from orchestrator.tracking.mirror import (
    DatasetFacts,
    MlflowMirror,
    RunStatus,
    SweepIdentity,
    SweepReport,
    TrackingStore,
    tracking_uri_of,
    ui_command,
)
from slmrec_core.data import SequenceDataset
from slmrec_core.errors import TrialFailedError
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.hardware import fast_precision

EXIT_DONE, EXIT_FAILED = 0, 1


@dataclass(frozen=True)
class Sweep:
    """What is run, where, under which name."""

    space_name: str
    space: SearchSpace
    plan: Plan
    storage: Path
    folder: SweepFolder
    resume_command: str


def run_sweep(sweep: Sweep) -> int:
    """Runs a sweep, or what is left of it, and gives the exit code.

    Raises:
        ConfigError: Workers do not fit the cluster, or it is being run already.
    """
    # First, so that a tracking URI that cannot be leaves nothing behind.
    store = TrackingStore(tracking_uri_of(sweep.storage), sweep.storage / "mlartifacts", sweep.space.study)
    interruption = Interruption()
    mirror: MlflowMirror | None = None
    with ExitStack() as stack:
        stack.enter_context(sweep.folder.held())
        stack.enter_context(interruption.listening())
        try:
            others = [other for other in sweeps(sweep.storage) if other.name != sweep.folder.name]
            _say_what_was_found(sweep, others)
            is_new = not sweep.folder.exists
            if is_new:
                # A mistake in the data or a backbone leaves no sweep behind.
                prepare(sweep.plan, sweep.storage)
                _start(sweep)
            mirror = _mirror(sweep, store)
            mirror.close_stale_runs(other.sweep_id for other in others if not other.is_alive)
            mirror.start()
            if not is_new:
                sweep.folder.update(resume_command=sweep.resume_command, stages=_stages(sweep.plan))
                sweep.folder.set_state("running")
                # After its runs were found: those that kill -9 left open are ended even if this fails.
                prepare(sweep.plan, sweep.storage)
            return _run(sweep, mirror, interruption, stack)
        except BaseException as error:
            number, was_started = interruption.notice(error), sweep.folder.exists
            if number is not None:
                # First of all: `ray job stop` kills three seconds after its signal.
                say(
                    f"Interrupted. Finished stages are kept; go on with:\n  {sweep.resume_command}"
                    if was_started
                    else "Interrupted before anything was started. Start it again with the same command."
                )
            if was_started:
                _end(sweep, mirror, "failed" if number is None else "killed")
            if number is None:
                raise
            return 128 + number


def _start(sweep: Sweep) -> None:
    plan = {
        "study": sweep.space.study,
        "settings": agreed_settings(sweep.plan, sweep.space),
        "stages": _stages(sweep.plan),
        "resume_command": sweep.resume_command,
    }
    sweep.folder.start(sweep.space_name, plan)


def _stages(plan: Plan) -> dict[str, dict[str, str]]:
    """For people and for whoever clears up: every stage of the sweep, and those that it reads by their role."""
    return {stage.stage_id: stage.inputs for stage in plan.stages.values()}


def _end(sweep: Sweep, mirror: MlflowMirror | None, state: Literal["killed", "failed"]) -> None:
    sweep.folder.set_state(state)
    if mirror is not None:
        mirror.mark("KILLED" if state == "killed" else "FAILED")


def _run(sweep: Sweep, mirror: MlflowMirror, interruption: Interruption, stack: ExitStack) -> int:
    started = time.time()
    nodes = stack.enter_context(connected())
    # Ray takes the signals when it starts.
    stack.enter_context(interruption.listening())
    check_storage_is_shared(sweep.storage, nodes)
    allocation = allocate(sweep.plan.workers, nodes)
    progress(f"Sweep {sweep.folder.name}: {allocation.describe()}")
    plan, space = sweep.plan, sweep.space
    to_build = [plan.experiments[name] for name in wanted(plan, StageStore(sweep.storage / "stages"))]
    if warning := slow_precision(to_build, allocation, fast_precision()):
        complain(warning)
    builder = Builder(sweep.storage, sweep.folder.name, allocation)
    endings: dict[str, Ending] = {}
    mirror.add(plan.trials)
    failures = builder.build(plan)
    interruption.check()
    if space.sampled_group() is not None and failures:
        complain("search: not started, because a stage before it failed; see below.")
    elif space.sampled_group() is not None:
        outcome = run_search(plan, space, builder, sweep.folder.path, lambda trial: mirror.add([trial]))
        interruption.check()
        endings |= outcome.endings
        failures |= outcome.failures
        if outcome.chosen is None:
            failures["search"] = "search: no trial reported a metric, so nothing could be chosen."
        else:
            for seed in space.seeds:
                add_row(plan, space, outcome.chosen, seed)
            sweep.folder.update(stages=_stages(plan))
            mirror.add(plan.trials)
            failures |= builder.build(plan)
            interruption.check()
        plan.trials += outcome.trials
    endings = with_failures(endings, plan.trials, failures)
    _report(sweep, mirror, endings, "FAILED" if failures else "FINISHED", time.time() - started)
    sweep.folder.set_state("failed" if failures else "finished")
    if not failures:
        # Checkpoints of trials that were stopped early, and what Tune notes for itself.
        shutil.rmtree(sweep.storage / "ray" / sweep.folder.name, ignore_errors=True)
        return EXIT_DONE
    for message in dict.fromkeys(failures.values()):
        complain(message)
    complain(f"Some runs failed. Finished stages are kept; try again with:\n  {sweep.resume_command}")
    return EXIT_FAILED


def slow_precision(to_build: Sequence[ExperimentConfig], allocation: Allocation, fast: str) -> str | None:
    """What to say of rows that name bf16 where nothing computes it; None = nothing.

    Args:
        to_build: Experiments of the stages that are not there yet.
        allocation: CPUs or GPUs.
        fast: What this machine computes fast, `hardware.fast_precision`.
    """
    names_it = any(experiment.training.precision == "bf16" for experiment in to_build)
    if allocation.use_gpu or fast == "bf16" or not names_it:
        return None
    return (
        "training.precision: bf16 on a CPU without a unit for it took 70 times as long as fp32, got rows that name it."
        " With --set training.precision=fp32 other rows are trained, alike in all else."
    )


def with_failures(
    endings: Mapping[str, Ending], trials: Sequence[Trial], failures: Mapping[str, str]
) -> dict[str, Ending]:
    """How trials ended, those of failed stages among them; a point of a search keeps what it last reported."""
    failed: dict[str, Ending] = {trial.trial_id: ("failed", {}) for trial in trials if trial.stage_id in failures}
    return failed | dict(endings)


def _mirror(sweep: Sweep, store: TrackingStore) -> MlflowMirror:
    """MLflow's copy of the sweep, which follows the files once it is started."""
    identity = SweepIdentity(sweep.folder.sweep_id, sweep.folder.name)
    return MlflowMirror(
        store,
        identity,
        sweep.storage / "stages",
        tags=provenance(),
        resume_command=sweep.resume_command,
        reports=sweep.folder.path / REPORTS_FOLDER,
    )


def _report(sweep: Sweep, mirror: MlflowMirror, endings: dict[str, Ending], status: RunStatus, seconds: float) -> None:
    stages, folder = sweep.storage / "stages", sweep.folder.path
    metric = sweep.space.select.metric
    frame = collect(sweep.plan.trials, stages, endings, sweep.space.select.read_test)
    points = curves(frame, stages, metric)
    dataset = _dataset(sweep)
    facts: dict[str, Any] = {
        "sweep": sweep.folder.name,
        "sweep_id": sweep.folder.sweep_id,
        "study": sweep.space.study,
        "space": sweep.space_name,
        "wall_seconds": seconds,
        **provenance(),
        "data": _describe(dataset),
    }
    tests = paired_comparisons(frame, stages, select_metric=metric, listed=sweep.space.compare)
    results, summary = write_results(frame, points, folder, facts, tests, metric)
    caption = _caption(dataset, len(sweep.space.seeds))
    title = f"{sweep.space.study}: {_data_name(sweep)}"
    draw(points, frame, folder / "figures", title, caption)
    draw_differences(tests, folder / "figures", title, caption)
    draw_costs(points, frame, folder / "figures", title, caption)
    progress("Writing curves, figures and the best student to MLflow")
    mirror.finish(
        SweepReport(
            status=status,
            points=points,
            files=(results, summary),
            figures=folder / "figures",
            dataset=_dataset_facts(sweep, dataset),
            best_model=best_student(frame, stages, metric),
            registered_model=sweep.space.select.registered_model,
            endings=endings,
        )
    )
    say(f"\n{format_table(frame, metric)}\n{caption}")
    ui = ui_command(tracking_uri_of(sweep.storage))
    say(f"\nResults  {results}\nFigures  {folder / 'figures'}\nMLflow   {ui}")


def _say_what_was_found(sweep: Sweep, others: Sequence[SweepFolder]) -> None:
    """What an earlier start left behind: after kill -9 nobody else says it."""
    store = StageStore(sweep.storage / "stages")
    for other in others:
        if other.state == "killed":
            say(f"Found sweep {other.name} unfinished; go on with:\n  {other.resume_command}")
    removed = store.remove_stale()
    if removed:
        say(f"Removed {len(removed)} half-made stage(s) whose builder is dead: {', '.join(removed)}")
    if sweep.folder.exists:
        done = sum(store.is_done(name) for name in sweep.plan.stages)
        say(f"Resuming {sweep.folder.name}: {done} of {len(sweep.plan.stages)} stages are done.")


def _dataset(sweep: Sweep) -> SequenceDataset:
    stages = sweep.plan.of_kind("data")
    for stage in stages:
        folder = sweep.storage / "stages" / stage.stage_id
        if folder.is_dir():
            return SequenceDataset.load(folder)
    raise TrialFailedError(f"data: no stage was built, got {[s.stage_id for s in stages]}. See the messages above.")


def _describe(dataset: SequenceDataset) -> dict[str, object]:
    return {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "events": dataset.num_events,
        "dropped_users": dataset.dropped_users,
        "repeat_share": dataset.repeat_share,
        "has_timestamps": dataset.has_timestamps,
        "fingerprint": dataset.fingerprint,
    }


def _dataset_facts(sweep: Sweep, dataset: SequenceDataset) -> DatasetFacts:
    return DatasetFacts(
        name=_data_name(sweep),
        fingerprint=dataset.fingerprint,
        source=_data_path(sweep),
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_events=dataset.num_events,
    )


def _data_path(sweep: Sweep) -> str:
    return next(iter(sweep.plan.experiments.values())).data.path


def _data_name(sweep: Sweep) -> str:
    return Path(_data_path(sweep)).stem


def _caption(dataset: SequenceDataset, num_seeds: int) -> str:
    """How far the numbers can be trusted."""
    # Per-user NDCG@10 has a standard deviation near 0.2 on sets like ours; a difference of two runs √2 times that,
    # and 1.645 standard errors are what chance exceeds one time in ten. More seeds do not make more users.
    num_users = len(dataset.evaluated_users("test"))
    least = 1.645 * 2.0**0.5 * 0.2 / num_users**0.5
    seeds = "one seed: a demonstration" if num_seeds == 1 else f"{num_seeds} seeds"
    return f"{num_users:,} users, {seeds}; differences under {least:.3f} NDCG@10 mean nothing."
