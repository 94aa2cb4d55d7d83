"""From stages on disk to the objects that are trained: item table, networks, objective, teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from orchestrator.job import Job
from slmrec_core.data import SequenceDataset
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import (
    USER_VECTORS,
    LiveTeacher,
    NoTeacher,
    StoredLayer,
    StoredTeacher,
    Teacher,
)
from slmrec_core.errors import TeacherStudentMismatchError
from slmrec_core.experiment import ExperimentConfig
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


def build_objective(experiment: ExperimentConfig, inputs: Inputs, device: torch.device) -> tuple[Objective, Teacher]:
    """What is trained, and the teacher beside it, both on `device`.

    Weights depend on the experiment's seed alone.

    Raises:
        TeacherStudentMismatchError: The student cannot start from this teacher.
    """
    item_table = inputs.item_table()
    distillation, pairing = experiment.objective, experiment.pairing()
    seed_torch(experiment.seed, "student")
    student = _network(experiment.student_model(), experiment, item_table, device)
    teacher_network = inputs.teacher() if experiment.needs_teacher_stage else None
    if experiment.method == "distill" and experiment.student.init == "teacher":
        assert teacher_network is not None
        start_from_teacher(student, teacher_network)
    online = None
    if experiment.method == "distill" and distillation.mode == "online":
        seed_torch(experiment.seed, "online-teacher")
        online = _network(experiment.teacher_model(), experiment, item_table, device)
    states = inputs.states()
    reference = online or teacher_network
    seed_torch(experiment.seed, "heads")
    objective = Objective(
        student,
        distillation,
        pairing,
        teacher_norms=[states[t].mean_squared_norm for t in pairing.teacher_layers if t in states] if pairing else (),
        teacher_width=reference.hidden_size if reference is not None else None,
        online_teacher=online,
        teacher_table=reference.item_table if reference is not None and distillation.logit_weight > 0 else None,
    ).to(device)
    return objective, _teacher(experiment, inputs, teacher_network, states, device)


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
    config: RecommenderConfig,
    experiment: ExperimentConfig,
    item_table: Float[Tensor, "row item_dim"],
    device: torch.device,
) -> RecommenderModel:
    backbone = open_backbone(str(config.backbone))
    dtype = _DTYPES[experiment.training.precision]
    return RecommenderModel.from_backbone(config, backbone, item_table, dtype, attention_kernel(device, dtype))


def attention_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """FlashAttention on CUDA where its package is there and the precision allows, else torch's own attention."""
    # Local, because transformers is slow to import and only this asks it.
    from transformers.utils import is_flash_attn_2_available  # noqa: PLC0415

    fits = device.type == "cuda" and dtype != torch.float32
    return "flash_attention_2" if fits and is_flash_attn_2_available() else "sdpa"


def _teacher(
    experiment: ExperimentConfig,
    inputs: Inputs,
    network: RecommenderModel | None,
    states: dict[int | str, StoredLayer],
    device: torch.device,
) -> Teacher:
    distillation, pairing = experiment.distillation, experiment.pairing()
    if pairing is None or distillation.mode == "online" or not distillation.needs_teacher:
        return NoTeacher()
    if distillation.teacher_states == "recompute":
        assert network is not None
        layers = pairing.teacher_layers if distillation.aligns else ()
        return LiveTeacher(network.to(device), layers, distillation.align_at)
    layers_stored = {name: store for name, store in states.items() if isinstance(name, int)}
    data = TrainingData(inputs.dataset(), experiment.max_seq_len, experiment.training)
    return StoredTeacher(layers_stored, states.get(USER_VECTORS), data.targets_per_window)
