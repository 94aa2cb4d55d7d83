"""What a plan must know of a backbone before anything is downloaded: which weights it is, and how deep."""

import functools
from pathlib import Path
from typing import Any

from slmrec_core.errors import ConfigError
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.models.backbone import SMOLLM2, TINY, backbone_identity, open_backbone, pinned_backbone
from slmrec_core.models.recommender import RecommenderConfig

PATH_SETTINGS = ("data.path", "backbone", "teacher.backbone", "student.backbone")
"""Settings that may name a file or a directory."""
_SMOLLM2_LAYERS = 30
"""Of the alias, whose bytes never change: its weights need not be fetched to know."""


@functools.cache
def identity(backbone: str) -> str:
    """A backbone's identity; files are hashed and hubs asked once per process."""
    return backbone_identity(backbone)


@functools.cache
def pinned(backbone: str) -> str:
    """A hub id by its commit, aliases as they are; hubs are asked once per process."""
    return pinned_backbone(backbone)


@functools.cache
def known_depth(backbone: str) -> int | None:
    """Decoder layers of a backbone; None = known only after a download or a conversion."""
    if backbone == SMOLLM2:
        return _SMOLLM2_LAYERS
    if backbone == TINY or Path(backbone).expanduser().is_dir():
        return open_backbone(backbone).num_layers
    return None


def check_depths(experiment: ExperimentConfig) -> None:
    """Refuses models that are deeper than their backbone, before a cluster is started for them.

    Raises:
        ConfigError: Names the setting and the depth there is.
    """
    models = {
        "student": experiment.student_model() if experiment.method in ("finetune", "distill") else None,
        "teacher": experiment.teacher_model() if experiment.needs_teacher_stage or experiment.trains_teacher else None,
    }
    for name, model in models.items():
        depth = None if model is None else known_depth(str(model.backbone))
        if model is not None and depth is not None and model.num_layers > depth:
            raise ConfigError(
                f"{name}.num_layers: backbone {model.backbone} has {depth} layers, got {model.num_layers}."
                f" Use {depth} or fewer."
            )


def model_settings(model: RecommenderConfig) -> dict[str, Any]:
    """A network's settings for a hash: its weights named by content, and without what its tuning ignores."""
    settings = {**model.model_dump(mode="json"), "backbone": identity(str(model.backbone))}
    if model.tuning == "full":
        for name in ("lora_rank", "lora_alpha", "lora_dropout"):
            del settings[name]
    return settings


def with_fixed_sources(experiment: ExperimentConfig, named_sets: tuple[str, ...]) -> ExperimentConfig:
    """The experiment with files by absolute path and hub models by commit.

    Workers run elsewhere, where a relative path means another file, and later, when a branch may mean other weights.
    """

    def fixed(backbone: str) -> str:
        if _is_local(backbone):
            return _absolute(backbone)
        # SASRec reads no backbone, so a hub that is out of reach must not stop it.
        return backbone if experiment.method == "sasrec" else pinned(backbone)

    path = experiment.data.path
    changes: dict[str, object] = {"backbone": fixed(experiment.backbone)}
    if path not in named_sets and Path(path).expanduser().is_file():
        changes["data"] = experiment.data.model_copy(update={"path": _absolute(path)})
    for name in ("teacher", "student"):
        model = getattr(experiment, name)
        if model.backbone is not None:
            changes[name] = model.model_copy(update={"backbone": fixed(model.backbone)})
    return experiment.model_copy(update=changes)


def _is_local(backbone: str) -> bool:
    return backbone not in (TINY, SMOLLM2) and Path(backbone).expanduser().exists()


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
