"""What can fail by the user's mistake, done before Ray starts: data read and filtered, backbones fetched.

A wrong column or an unreachable hub is then answered in seconds, with exit code 2, and not by a failed trial.
"""

from pathlib import Path

from orchestrator.console import progress
from orchestrator.planning.plan import Plan
from orchestrator.provenance import provenance
from orchestrator.storage.stages import StageStore
from slmrec_core.models.backbone import open_backbone


def prepare(plan: Plan, storage: Path) -> None:
    """Builds the data stages of a plan and opens the backbones that it still needs.

    Raises:
        DataError: The data cannot be read, or nothing is left of them.
        ConfigError: A backbone cannot be read.
        DownloadError: Something could not be fetched.
    """
    # pandas and torch, for people who only ask for --help.
    from orchestrator.training.tasks import build_data  # noqa: PLC0415

    store = StageStore(storage / "stages")
    for stage in plan.of_kind("data"):
        if not store.is_done(stage.stage_id):
            with store.build(stage, provenance()) as folder:
                build_data(plan.experiments[stage.stage_id], folder)
            progress(f"{stage.stage_id} done")
    open_stages = [stage for stage in plan.of_kind("finetune", "distill") if not store.is_done(stage.stage_id)]
    for name in sorted({name for stage in open_stages for name in _backbones(plan, stage.stage_id)}):
        open_backbone(name)


def _backbones(plan: Plan, stage_id: str) -> set[str]:
    experiment = plan.experiments[stage_id]
    names = {str(experiment.student_model().backbone)}
    return names | {str(experiment.teacher_model().backbone)} if experiment.pairing() else names
