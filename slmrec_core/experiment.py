"""One trained model, completely described: the library's settings together, and every rule across them."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from slmrec_core.compression.config import CompressionConfig
from slmrec_core.data import DataConfig
from slmrec_core.distillation.blocks import BlockPairing, pair_blocks
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE, DistillationConfig
from slmrec_core.errors import ConfigError, nearest_name
from slmrec_core.frozen_config import FrozenConfig, first_faults
from slmrec_core.models.backbone import SMOLLM2
from slmrec_core.models.recommender import RecommenderConfig
from slmrec_core.models.sasrec import SASRecConfig
from slmrec_core.training.config import EvaluationConfig, TrainingConfig

_NUM_STUDENT_TERMS = 5

Method = Literal["sasrec", "finetune", "distill", "probe"]


class StudentConfig(RecommenderConfig):
    """The model that is fine-tuned or distilled."""

    init: Literal["base", "teacher"] = "base"
    """`base`: the LLM's own first layers (the paper). `teacher`: the trained teacher's first layers and adapters;
    distillation alone."""


class ItemTableConfig(FrozenConfig):
    """SASRec, and how it is trained: it supplies the frozen item table and is a baseline of its own."""

    network: SASRecConfig = SASRecConfig()
    """What the network is."""
    training: TrainingConfig = TrainingConfig(
        epochs=120,
        patience=10,
        batch_size=64,
        learning_rate=2.0e-3,
        weight_decay=0.0,
        warmup_steps=0,
        schedule="constant",
        adam_beta2=0.98,
        precision="fp32",
        gradient_clipping=None,
        windows="all",
    )
    """How it is trained."""


class ProbeConfig(FrozenConfig):
    """How a trained teacher is read at every layer."""

    read: Literal["normed", "raw"] = "normed"
    """Inner states through the final norm, or `raw` (the authors' code)."""


class ExperimentConfig(FrozenConfig):
    """Everything that decides the numbers of one trained model, and nothing else."""

    method: Method = "distill"
    """`sasrec`, `finetune` (first n layers, cross entropy), `distill` (student), `probe` (teacher at every layer)."""
    seed: NonNegativeInt = 0
    """End to end: item table, teacher and student of one row share it; the split and the negatives do not use it."""
    shared_teacher: bool = False
    """True = item table and teacher of seed 0 serve every seed: for exploration, its rows are marked."""
    backbone: str = SMOLLM2
    """LLM of teacher and student: alias, local directory, GGUF file or hub id, maybe with `@revision`."""
    max_seq_len: PositiveInt = 50
    """Longest history that a model reads; the newest items are kept."""
    data: DataConfig = DataConfig()
    """Which interactions, and how they are filtered."""
    item_table: ItemTableConfig = ItemTableConfig()
    """SASRec."""
    teacher: RecommenderConfig = RecommenderConfig(num_layers=8)
    """The deep model."""
    teacher_learning_rate: PositiveFloat | None = None
    """Of the teacher's own training, which is like `training` in all else; None = `training.learning_rate`. Depths
    differ in the rate that is best for them."""
    student: StudentConfig = StudentConfig()
    """The shallow model."""
    distillation: DistillationConfig = DistillationConfig()
    """Terms of the objective."""
    training: TrainingConfig = TrainingConfig()
    """Optimisation of teacher and student."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How items are ranked."""
    probe: ProbeConfig = ProbeConfig()
    """How layers are read."""
    compressed: bool = False
    """True = the row is the trained model after `compression`; the training itself is shared with the row without."""
    compression: CompressionConfig = CompressionConfig()
    """What a compressed row keeps."""

    @model_validator(mode="after")
    def _check(self) -> "ExperimentConfig":
        if self.training.targets == "all" and "response" in (self.teacher.pooling, self.student.pooling):
            raise ConfigError(
                "training.targets: must be 'last' with response pooling, which reads one position per user, got 'all'."
                " Set training.targets=last, or student.pooling=item and teacher.pooling=item."
            )
        if self.item_table.network.item_dim % self.item_table.network.num_heads:
            raise ConfigError(
                f"item_table.network.num_heads: must divide item_dim={self.item_table.network.item_dim},"
                f" got {self.item_table.network.num_heads}. Use a divisor of item_dim."
            )
        for name, training in (("training", self.training), ("item_table.training", self.item_table.training)):
            if training.windows == "all" and training.targets == "last":
                raise ConfigError(f"{name}.windows: must be 'last' with one target per user, got 'all'.")
        stored = self.distillation.teacher_states == "stored" and self.distillation.mode == "offline"
        if self.method == "distill" and self.distillation.teacher_users == "another" and not stored:
            raise ConfigError(
                "distillation.teacher_users: 'another' reads stored teacher states, got"
                f" mode {self.distillation.mode!r} and teacher_states {self.distillation.teacher_states!r}."
                " Set distillation.mode=offline and distillation.teacher_states=stored."
            )
        if self.method == "distill" and self.training.windows == "all" and stored and self.distillation.needs_teacher:
            raise ConfigError(
                "training.windows: stored teacher states hold each user's last window, got 'all'."
                " Set distillation.teacher_states=recompute, or training.windows=last."
            )
        if self.item_table.training.targets != self.training.targets and self.training.targets == "all":
            raise ConfigError(
                "item_table.training.targets: must be 'all' when training.targets is, got 'last'."
                " Set item_table.training.targets=all, or training.targets=last."
            )
        if self.item_table.training.precision != "fp32":
            raise ConfigError(
                f"item_table.training.precision: SASRec trains in 'fp32', got {self.item_table.training.precision!r}."
                " Leave it out; training.precision is that of teacher and student."
            )
        if self.trains_teacher and self.teacher_learning_rate is not None:
            raise ConfigError(
                "teacher_learning_rate: an online teacher is trained in its student's steps, got"
                f" {self.teacher_learning_rate}. Leave it out, or set distillation.mode=offline."
            )
        tables = [self.teacher.item_vectors, self.student.item_vectors]
        if self.method == "distill" and self.distillation.logit_weight > 0 and "trained" in tables:
            raise ConfigError(
                "distillation.logit_weight: teacher and student must score one frozen table, got teacher.item_vectors"
                f" {tables[0]!r} and student.item_vectors {tables[1]!r}. Set the weight to 0, or freeze both."
            )
        self._check_start()
        self._check_compression()
        pairing = self.pairing()
        if pairing is not None:
            absent = self.distillation.absent_terms(pairing.num_blocks)
            if len(absent) == _NUM_STUDENT_TERMS:
                raise ConfigError(
                    f"distillation: the student needs at least one term, got none ({'; '.join(absent.values())})."
                    " Set distillation.next_item_weight=1.0."
                )
        return self

    def _check_start(self) -> None:
        """A student that starts from its teacher must be a shallower copy of it."""
        if self.method != "distill" or self.student.init == "base":
            return
        teacher, student = self.teacher_model(), self.student_model()
        # Adapters act through alpha / rank, so another alpha would be another model with the same weights.
        adapters = ("lora_rank", "lora_alpha") if teacher.tuning == "lora" else ()
        same = ("backbone", "layer_choice", "pooling", "template", "tuning", "item_vectors", *adapters)
        other = [name for name in same if getattr(teacher, name) != getattr(student, name)]
        if other or student.num_layers > teacher.num_layers or student.layer_choice != "first":
            raise ConfigError(
                "student.init: to start from the teacher's first layers, the student must be like it and no deeper,"
                f" got num_layers {student.num_layers} of {teacher.num_layers}, layer_choice {student.layer_choice!r},"
                f" other settings: {other or 'none'}. Use student.init=base, or make them alike."
            )

    def _check_compression(self) -> None:
        if self.compressed and self.method not in ("finetune", "distill"):
            raise ConfigError(
                f"compressed: takes a model of method finetune or distill, got {self.method!r}. Leave it out."
            )
        kept = self.compression.keep_layers
        if self.compressed and kept is not None and kept > self.student.num_layers:
            raise ConfigError(
                f"compression.keep_layers: must be at most student.num_layers={self.student.num_layers}, got {kept}."
            )

    @property
    def objective(self) -> DistillationConfig:
        """The terms that are trained: cross entropy alone unless the student is distilled."""
        return self.distillation if self.method == "distill" else CROSS_ENTROPY_ALONE

    @property
    def num_layers(self) -> int:
        """Decoder layers of the row's model; 0 for SASRec, which has none of the LLM's."""
        trained = {"sasrec": 0, "probe": self.teacher.num_layers}.get(self.method, self.student.num_layers)
        return (self.compression.keep_layers or trained) if self.compressed else trained

    @property
    def layers_trained(self) -> int:
        """Decoder layers in the training step: what a trial's duration grows with."""
        return self.student.num_layers + (self.teacher.num_layers if self.trains_teacher else 0)

    @property
    def trains_teacher(self) -> bool:
        """True = online distillation: the teacher is trained beside its student."""
        return self.method == "distill" and self.distillation.mode == "online"

    @property
    def min_events(self) -> int:
        """Events below which a user cannot be split: train, valid and test need one each, a `last` target two.

        Where the k-core leaves no user with so few, both kinds of targets are trained on one data set.
        """
        needed = 4 if self.training.targets == "last" else 3
        left = self.data.min_user if self.data.k_core == "iterated" else 0
        return 3 if left >= needed else needed

    def teacher_model(self) -> RecommenderConfig:
        """The teacher with its backbone filled in."""
        return _with_backbone(self.teacher, self.backbone)

    def student_model(self) -> RecommenderConfig:
        """The student with its backbone filled in, and without what only says how it starts."""
        plain = RecommenderConfig(**self.student.model_dump(exclude={"init"}))
        return _with_backbone(plain, self.backbone)

    def pairing(self) -> BlockPairing | None:
        """Blocks of a distilled student; None for the other methods.

        Raises:
            ConfigError: Depths and blocks do not fit.
        """
        if self.method != "distill":
            return None
        config = self.distillation
        return pair_blocks(self.student.num_layers, self.teacher.num_layers, config.num_blocks, config.teacher_layers)

    @property
    def needs_teacher_stage(self) -> bool:
        """True = a trained teacher is read: by a probe, by offline terms, or as the student's start."""
        if self.method == "probe":
            return True
        offline = self.distillation.mode == "offline" and self.distillation.needs_teacher
        return self.method == "distill" and (offline or self.student.init == "teacher")

    def used_settings(self) -> dict[str, object]:
        """The settings that this row's numbers depend on, by dotted name; what its method never reads is left out."""
        used = {"method", "seed", "shared_teacher", "max_seq_len", "data", "item_table", "evaluation"}
        used |= {
            "sasrec": set(),
            "finetune": {"backbone", "training", "student"},
            "distill": {"backbone", "training", "student", "distillation"},
            "probe": {"backbone", "training", "probe"},
        }[self.method]
        if self.needs_teacher_stage or self.trains_teacher:
            used |= {"teacher", "teacher_learning_rate"}
        if self.compressed:
            used |= {"compressed", "compression"}
        starts_alike = {"student.init"} if self.method == "finetune" else set()
        return {n: value for n, value in dotted(self).items() if n.split(".")[0] in used and n not in starts_alike}

    def uncompressed(self) -> "ExperimentConfig":
        """The training behind a compressed row."""
        return self.model_copy(update={"compressed": False, "compression": CompressionConfig()})

    def simplified(self) -> "ExperimentConfig":
        """The same training under its simplest name.

        Distillation without any term but cross entropy is fine-tuning, and fine-tuning has no other term, whatever
        the weights in `distillation` say.
        """
        config, pairing = self.distillation, self.pairing()
        if self.method == "finetune":
            return self.model_copy(update={"distillation": CROSS_ENTROPY_ALONE})
        if self.method != "distill" or pairing is None or self.student.init == "teacher" or config.mode == "online":
            return self
        supervised = config.supervision_weight > 0 and pairing.num_blocks > 1
        if config.needs_teacher or supervised or config.next_item_weight != 1.0:
            return self
        return self.model_copy(update={"method": "finetune", "distillation": CROSS_ENTROPY_ALONE})


def resolve(settings: dict[str, object]) -> ExperimentConfig:
    """The experiment described by dotted settings over the defaults.

    Args:
        settings: E.g. `{"student.num_layers": 2, "data.path": "ml-100k"}`.

    Raises:
        ConfigError: A name that does not exist (with the nearest that does), or a value that cannot be.
    """
    nested: dict[str, object] = {}
    known = dotted_defaults()
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"settings: there is no such key, got {name!r}. {nearest_name(name, known)}")
        level = nested
        *parents, leaf = name.split(".")
        for parent in parents:
            level = level.setdefault(parent, {})  # type: ignore[assignment]
        level[leaf] = value
    try:
        # Sections are merged over the defaults of *this* class: `teacher` is deeper than a plain recommender.
        return ExperimentConfig.model_validate(_merged(ExperimentConfig().model_dump(), nested))
    except ValidationError as error:
        raise ConfigError(first_faults(error)) from error


def dotted(config: FrozenConfig) -> dict[str, object]:
    """All settings under dotted names, as JSON values."""
    return _flat(config.model_dump(mode="json"))


def dotted_defaults() -> dict[str, object]:
    """Every setting that exists, with its default."""
    return dotted(ExperimentConfig())


def _with_backbone(config: RecommenderConfig, backbone: str) -> RecommenderConfig:
    return config if config.backbone is not None else config.model_copy(update={"backbone": backbone})


def _flat(nested: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _merged(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for name, value in over.items():
        below = base.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
