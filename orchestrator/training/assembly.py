"""From stages on disk to the objects that are trained: item table, networks, objective, teacher."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from orchestrator.training.job import Job
from slmrec_core.data import SequenceDataset
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import (
    USER_VECTORS,
    LiveTeacher,
    NoTeacher,
    StoredLayer,
    StoredTeacher,
    Teacher,
    mean_squared_norms,
)
from slmrec_core.errors import TeacherStudentMismatchError
from slmrec_core.experiment import ExperimentConfig
from slmrec_core.hardware import fast_precision
from slmrec_core.models.backbone import open_backbone
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.models.sasrec import SASRec
from slmrec_core.recommender import Recommender
from slmrec_core.seeding import seed_torch
from slmrec_core.training.loop import TrainingData

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Inputs:
    """Stages that a stage reads, by role, as folders."""

    folders: Mapping[str, Path]

    def dataset(self) -> SequenceDataset:
        """The `data` stage."""
        return SequenceDataset.load(self.folders["data"])

    def item_table(self) -> Float[Tensor, "row item_dim"]:
        """The vectors of the `item_table` stage, SASRec's."""
        network = Recommender.from_pretrained(self.folders["item_table"] / "model").network
        assert isinstance(network, SASRec)
        return network.item_table.detach()

    def teacher(self) -> RecommenderModel:
        """The trained model of the `teacher` stage."""
        network = Recommender.from_pretrained(self.folders["teacher"] / "model").network
        assert isinstance(network, RecommenderModel)
        return network

    def trained(self) -> Recommender:
        """What the `trained` stage left."""
        return Recommender.from_pretrained(self.folders["trained"] / "model")

    def teacher_seconds(self) -> float | None:
        """Wall time of the stages of the teacher: its training, and the one pass in which all states were stored."""
        roles = [role for role in self.folders if role == "teacher" or role.startswith("states_")]
        seconds = {r: float(json.loads((self.folders[r] / "result.json").read_text())["seconds"]) for r in roles}
        passes = [value for role, value in seconds.items() if role != "teacher"]
        return seconds.get("teacher", 0.0) + max(passes, default=0.0) if roles else None

    def states(self) -> dict[int | str, StoredLayer]:
        """All `states_<layer>` stages."""
        found: dict[int | str, StoredLayer] = {}
        for role, folder in self.folders.items():
            if role.startswith("states_"):
                name = role.removeprefix("states_")
                found[int(name) if name.isdigit() else name] = StoredLayer.open(folder)
        return found


def experiment_of(job: Job) -> ExperimentConfig:
    """A job's experiment, checked again."""
    return ExperimentConfig.model_validate(job.experiment)


def inputs_of(job: Job) -> Inputs:
    """The stages that a job reads."""
    return Inputs({role: job.store.path(name) for role, name in job.stage.inputs.items()})


def build_student(experiment: ExperimentConfig, inputs: Inputs) -> RecommenderModel:
    """The student before training; its weights depend on the experiment's seed alone.

    Raises:
        TeacherStudentMismatchError: The student cannot start from this teacher.
    """
    seed_torch(experiment.seed, "student")
    student = _network(experiment.student_model(), experiment, inputs.item_table())
    if experiment.method == "distill" and experiment.student.init == "teacher":
        start_from_teacher(student, inputs.teacher())
    return student


def build_objective(experiment: ExperimentConfig, inputs: Inputs, device: torch.device) -> tuple[Objective, Teacher]:
    """What is trained, and the frozen teacher beside it, both on `device`.

    Raises:
        TeacherStudentMismatchError: The student cannot start from this teacher.
    """
    distillation, pairing = experiment.objective, experiment.pairing()
    student = build_student(experiment, inputs)
    # With stored states the teacher itself is never loaded.
    teacher = inputs.teacher().to(device) if pairing is not None and distillation.runs_teacher else None
    online = None
    if experiment.trains_teacher:
        seed_torch(experiment.seed, "online-teacher")
        online = _network(experiment.teacher_model(), experiment, inputs.item_table()).to(device)
    reference, states = online or teacher, inputs.states()
    data = TrainingData(inputs.dataset(), experiment.max_seq_len, experiment.training)
    seed_torch(experiment.seed, "heads")
    objective = Objective(
        student,
        distillation,
        pairing,
        teacher_norms=_teacher_norms(experiment, states, reference, data, device),
        teacher_width=_teacher_width(states, reference),
        online_teacher=online,
    ).to(device)
    return objective, _teacher(experiment, teacher, states, data)


def start_from_teacher(student: RecommenderModel, teacher: RecommenderModel) -> None:
    """`student.init: teacher`: the teacher's first layers, adapters and projections.

    Raises:
        TeacherStudentMismatchError: A tensor of the student has no twin of its shape in the teacher.
    """
    theirs = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        if name not in theirs or theirs[name].shape != tensor.shape:
            got = tuple(theirs[name].shape) if name in theirs else None
            raise TeacherStudentMismatchError(
                f"student.init: the teacher must have {name} of shape {tuple(tensor.shape)}, got {got}."
                " Use student.init=base, or the same backbone and tuning for both."
            )
        tensor.copy_(theirs[name])


def _network(
    config: RecommenderConfig, experiment: ExperimentConfig, item_table: Float[Tensor, "row item_dim"]
) -> RecommenderModel:
    backbone = open_backbone(str(config.backbone))
    precision = experiment.training.precision
    dtype = _DTYPES[fast_precision() if precision == "auto" else precision]
    return RecommenderModel.from_backbone(config, backbone, item_table, dtype)


def _teacher_width(states: dict[int | str, StoredLayer], reference: RecommenderModel | None) -> int | None:
    """The teacher's hidden size; None = no term aligns states."""
    widths = [store.values.shape[1] for name, store in states.items() if isinstance(name, int)]
    return widths[0] if widths else None if reference is None else reference.hidden_size


def _teacher_norms(
    experiment: ExperimentConfig,
    states: dict[int | str, StoredLayer],
    reference: RecommenderModel | None,
    data: TrainingData,
    device: torch.device,
) -> list[float]:
    """Mean squared norms that `norm_scale: teacher` divides by: stored with the states, else taken in one pass."""
    distillation, pairing = experiment.objective, experiment.pairing()
    if pairing is None or distillation.norm_weight == 0 or distillation.norm_scale == "none":
        return []
    if set(pairing.teacher_layers) <= states.keys():
        return [states[layer].mean_squared_norm for layer in pairing.teacher_layers]
    assert reference is not None
    batches = (data.batch(windows).to(device) for windows in data.in_order(experiment.evaluation.batch_size))
    return mean_squared_norms(reference, pairing.teacher_layers, distillation.align_at, batches)


def _teacher(
    experiment: ExperimentConfig,
    network: RecommenderModel | None,
    states: dict[int | str, StoredLayer],
    data: TrainingData,
) -> Teacher:
    distillation, pairing = experiment.objective, experiment.pairing()
    if pairing is None or distillation.mode == "online" or not distillation.needs_teacher:
        return NoTeacher()
    if network is not None:
        return LiveTeacher(network, pairing.teacher_layers if distillation.aligns else (), distillation.align_at)
    layers = {name: store for name, store in states.items() if isinstance(name, int)}
    return StoredTeacher(layers, states.get(USER_VECTORS), data.targets_per_window, distillation.teacher_users)
