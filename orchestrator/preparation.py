"""What can fail before Ray starts is done there: finished stages checked, data read and filtered, backbones fetched.

A wrong column or an unreachable hub is then answered in seconds, with exit code 2, and not by a failed trial.
"""

from pathlib import Path

from orchestrator.console import progress
from orchestrator.planning.plan import Plan, wanted
from orchestrator.provenance import provenance
from orchestrator.storage.stages import StageStore
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.models.backbone import open_backbone
from slmrec_core.models.decoder import chosen_layers
from slmrec_core.models.recommender import RecommenderConfig


def prepare(plan: Plan, storage: Path) -> None:
    """Checks the finished stages of a plan, builds its data stages and opens the backbones that it still needs.

    Raises:
        CheckpointError: A finished stage is not what its manifest says.
        DataError: The data cannot be read, or nothing is left of them.
        ConfigError: A backbone cannot be read, or has fewer layers than a model asks for.
        DownloadError: Something could not be fetched.
    """
    # pandas and torch, for people who only ask for --help.
    from orchestrator.training.tasks import build_data  # noqa: PLC0415

    store = StageStore(storage / "stages")
    if finished := [name for name in plan.stages if store.is_done(name)]:
        progress(f"Checking {len(finished)} finished stage(s)")
        for name in finished:
            store.verify(name)
    for stage in plan.of_kind("data"):
        if not store.is_done(stage.stage_id):
            with store.build(stage, provenance()) as folder:
                build_data(plan.experiments[stage.stage_id], folder)
            progress(f"{stage.stage_id} done")
    todo = wanted(plan, store)
    open_stages = [stage for stage in plan.of_kind("finetune", "distill") if stage.stage_id in todo]
    models = [model for stage in open_stages for model in _models(plan.experiments[stage.stage_id])]
    for name in sorted({str(model.backbone) for model in models}):
        backbone = open_backbone(name)
        for model in models:
            if model.backbone == name:
                # A hub's or a GGUF file's depth is known only now.
                chosen_layers(backbone.num_layers, model.num_layers, model.layer_choice)


def _models(experiment: ExperimentConfig) -> list[RecommenderConfig]:
    """The networks that a trained stage starts from its backbone."""
    return [experiment.student_model(), *([experiment.teacher_model()] if experiment.trains_teacher else [])]
