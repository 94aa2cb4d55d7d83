"""What a sweep will do: its rows, the stages behind them, and in which order the stages can be built.

    data ─► item table (SASRec) ─► finetune (teachers among them) ─► teacher states ─► distill, probe ─► compress

A stage's hash covers what defines its numbers and the stages that it reads, so equal work has equal names: the model
fine-tuned at the teacher's depth *is* the teacher, and cross entropy alone at depth 4 is trained once for all studies.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from orchestrator.planning.backbones import check_depths, model_settings, with_fixed_sources
from orchestrator.planning.trial import Trial
from orchestrator.space.search_space import ROW_KEY, SearchSpace
from orchestrator.storage.stages import Stage, StageStore
from orchestrator.training.workers import WORKERS_PREFIX, WorkersConfig
from slmrec_core.data import NAMED_SETS, DataConfig, source_fingerprint
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE
from slmrec_core.distillation.teacher import USER_VECTORS
from slmrec_core.errors import ConfigError, nearest_name
from slmrec_core.experiment import ExperimentConfig, StudentConfig, dotted, resolve
from slmrec_core.frozen_config import first_faults

_YOUNGER_SETTINGS: dict[str, object] = {
    "format": None,
    "split": "leave_one_out",
    "split_quantiles": [0.8, 0.9],
    "split_times": None,
    "network.block": "masked",
}
"""Settings of data and SASRec that are younger than stages in people's stores, by the value under which all is as it
was before: with it they are left out of the hash, so that those stages are found."""


@dataclass
class Plan:
    """Rows of the result table, and every stage behind them."""

    trials: list[Trial] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    """By id, each after the stages that it reads."""
    experiments: dict[str, ExperimentConfig] = field(default_factory=dict)
    """What each stage is built from, by id; only what defines its numbers is in its hash."""
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    search: dict[str, Any] = field(default_factory=dict)
    """From what points are drawn, and how; empty = every row is known."""
    sources: dict[DataConfig, str] = field(default_factory=dict)
    """Content hashes of the data: a file is read once, not for every row, and not again while a sweep runs."""

    def like(self) -> "Plan":
        """An empty plan for more rows of the same sweep."""
        return Plan(workers=self.workers, sources=self.sources)

    def of_kind(self, *kinds: str) -> list[Stage]:
        """Stages of some kinds, in order."""
        return [stage for stage in self.stages.values() if stage.kind in kinds]

    def source(self, config: DataConfig) -> str:
        """Content hash of the data."""
        if config not in self.sources:
            self.sources[config] = source_fingerprint(config)
        return self.sources[config]

    def add(self, stage: Stage, experiment: ExperimentConfig) -> str:
        """Takes a stage in, if it is new, and gives its id."""
        self.stages.setdefault(stage.stage_id, stage)
        self.experiments.setdefault(stage.stage_id, experiment)
        return stage.stage_id


def make_plan(space: SearchSpace) -> Plan:
    """The rows that a space fixes beforehand, over all seeds.

    Raises:
        ConfigError: Rows cannot be; the message has all their faults and names the settings.
        DataError: The data do not exist.
    """
    plan = Plan(workers=workers_of(space))
    faults: list[str] = []
    for settings in space.fixed_groups():
        for seed in space.seeds:
            try:
                add_row(plan, space, settings, seed)
            except ConfigError as error:
                faults.append(str(error))
    faults += _comparison_faults(plan, space)
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return plan


def add_row(plan: Plan, space: SearchSpace, settings: dict[str, Any], seed: int, read_test: bool = True) -> Trial:
    """Plans one row for one seed: its stages, and those that it reads with rows of their own.

    Args:
        plan: Grows.
        space: Whose budget and checkpoint rule hold.
        settings: Dotted names; `row` and `workers.*` among them.
        seed: Of item table, teacher and student.
        read_test: False = a trial of a search, whose test split stays closed.
    """
    row_experiment = experiment_of(space, settings, seed).simplified()
    stages = StagePlanner(plan, row_experiment.uncompressed())
    experiment = stages.experiment
    row = str(settings.get(ROW_KEY) or experiment.method)
    if experiment.method != "sasrec":
        table = stages.item_table()
        _add_trial(plan, table, "sasrec", plan.experiments[table])
    if experiment.needs_teacher_stage:
        teacher = stages.teacher()
        _add_trial(plan, teacher, "teacher", plan.experiments[teacher])
    if row_experiment.compressed:
        return _add_trial(plan, stages.compressed(row_experiment), row, row_experiment)
    return _add_trial(plan, stages.own(read_test and space.select.read_test), row, experiment)


def experiment_of(space: SearchSpace, settings: dict[str, Any], seed: int) -> ExperimentConfig:
    """One row's resolved experiment."""
    own = {n: v for n, v in settings.items() if n != ROW_KEY and not n.startswith(WORKERS_PREFIX)}
    experiment = resolve({**own, "seed": seed})
    if space.budget.max_epochs is not None:
        epochs = min(experiment.training.epochs, space.budget.max_epochs)
        training = experiment.training.model_copy(update={"epochs": epochs})
        experiment = experiment.model_copy(update={"training": training})
    check_depths(experiment)
    return with_fixed_sources(experiment, NAMED_SETS)


def workers_of(space: SearchSpace) -> WorkersConfig:
    """The workers' settings: the same for all rows of a sweep."""
    named = {n.removeprefix(WORKERS_PREFIX): v for n, v in space.base.items() if n.startswith(WORKERS_PREFIX)}
    try:
        return WorkersConfig.model_validate(named)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{WORKERS_PREFIX}{line}" for line in first_faults(error).splitlines())) from error


class StagePlanner:
    """Stages of one experiment, each added to the plan together with what it reads."""

    def __init__(self, plan: Plan, experiment: ExperimentConfig) -> None:
        self._plan = plan
        self.experiment = experiment

    def data(self) -> str:
        """The filtered, ordered, split interactions."""
        config = self.experiment.data
        settings = {**dotted(config), "source": self._plan.source(config), "min_events": self.experiment.min_events}
        # Content counts, not where it lies.
        del settings["path"]
        return self._add("data", _without_younger(settings), {})

    def item_table(self) -> str:
        """SASRec."""
        table = self._shared(method="sasrec")
        settings = {
            "item_table": _without_younger(dotted(table.experiment.item_table)),
            "max_seq_len": table.experiment.max_seq_len,
            "evaluation": _evaluation(table.experiment),
            "seed": table.experiment.seed,
        }
        return table._add("sasrec", settings, {"data": self.data()})

    def teacher(self) -> str:
        """The model fine-tuned at the teacher's depth."""
        as_student, training = StudentConfig(**self.experiment.teacher.model_dump()), self.experiment.training
        if (rate := self.experiment.teacher_learning_rate) is not None:
            training = training.model_copy(update={"learning_rate": rate})
        alone = {"method": "finetune", "student": as_student, "distillation": CROSS_ENTROPY_ALONE}
        return self._shared(**alone, training=training, teacher_learning_rate=None).own()

    def states(self, layer: int | str) -> str:
        """The teacher after one layer at every training position."""
        settings = {"layer": layer, "align_at": self.experiment.distillation.align_at}
        return self._add("states", settings, {"data": self.data(), "teacher": self.teacher()})

    def own(self, read_test: bool = True) -> str:
        """The stage that holds the row's numbers."""
        method = self.experiment.method
        if method == "sasrec":
            return self.item_table()
        if method == "probe":
            settings = {"probe": dotted(self.experiment.probe), "evaluation": _evaluation(self.experiment)}
            return self._add("probe", settings, {"data": self.data(), "teacher": self.teacher()})
        settings = self._trained() | ({} if read_test else {"read_test": False})
        inputs = {"data": self.data(), "item_table": self.item_table()}
        if method == "distill":
            settings |= self._distillation()
            inputs |= self._teacher_inputs()
        return self._add(method, settings, inputs)

    def compressed(self, experiment: ExperimentConfig) -> str:
        """This experiment's model made smaller, as `experiment` says, which is like it in all else."""
        settings = {"compression": dotted(experiment.compression), "evaluation": _evaluation(experiment)}
        return self._plan.add(Stage.of("compress", settings, {"data": self.data(), "trained": self.own()}), experiment)

    def _distillation(self) -> dict[str, Any]:
        experiment, pairing = self.experiment, self.experiment.pairing()
        assert pairing is not None
        # Supervision heads alone ask for no teacher, however deep it is.
        taught = pairing.teacher_layers if experiment.distillation.aligns else None
        blocks = {"num_blocks": pairing.num_blocks, "teacher_layers": taught}
        return {
            "distillation": dotted(experiment.distillation) | blocks,
            "init": experiment.student.init,
            "online_teacher": model_settings(experiment.teacher_model()) if experiment.trains_teacher else None,
        }

    def _teacher_inputs(self) -> dict[str, str]:
        experiment, pairing = self.experiment, self.experiment.pairing()
        assert pairing is not None
        config = experiment.distillation
        inputs = {"teacher": self.teacher()} if experiment.needs_teacher_stage else {}
        if config.mode == "offline" and config.teacher_states == "stored":
            layers: list[int | str] = [*pairing.teacher_layers] if config.aligns else []
            names = [*layers, *([USER_VECTORS] if config.logit_weight > 0 else [])]
            inputs |= {f"states_{name}": self.states(name) for name in names}
        return inputs

    def _trained(self) -> dict[str, Any]:
        experiment = self.experiment
        return {
            "model": model_settings(experiment.student_model()),
            "training": dotted(experiment.training),
            "evaluation": _evaluation(experiment),
            "max_seq_len": experiment.max_seq_len,
            "seed": experiment.seed,
        }

    def _shared(self, **changes: object) -> "StagePlanner":
        """The planner of a stage that others read: of the same seed, unless one teacher serves all."""
        seed = 0 if self.experiment.shared_teacher else self.experiment.seed
        return StagePlanner(self._plan, self.experiment.model_copy(update={**changes, "seed": seed}))

    def _add(self, kind: str, settings: dict[str, Any], inputs: dict[str, str]) -> str:
        # Tuples become lists as they would on disk, so that a plan read back has the same hashes.
        return self._plan.add(Stage.of(kind, json.loads(json.dumps(settings)), inputs), self.experiment)


def _without_younger(settings: dict[str, object]) -> dict[str, object]:
    return {n: value for n, value in settings.items() if n not in _YOUNGER_SETTINGS or value != _YOUNGER_SETTINGS[n]}


def _evaluation(experiment: ExperimentConfig) -> dict[str, object]:
    """Evaluation settings that decide numbers: the size of a batch does not."""
    settings = dotted(experiment.evaluation)
    del settings["batch_size"]
    return settings


def _add_trial(plan: Plan, stage_id: str, row: str, experiment: ExperimentConfig) -> Trial:
    method = experiment.method
    pairing = experiment.pairing()
    layers = experiment.num_layers
    trial = Trial(
        trial_id=f"{row}-{layers}-seed{experiment.seed}-{stage_id.rpartition('-')[2][:8]}",
        row=row,
        method=method,
        stage_id=stage_id,
        num_layers=layers,
        teacher_layers=experiment.teacher.num_layers
        if experiment.needs_teacher_stage or experiment.trains_teacher
        else None,
        num_blocks=pairing.num_blocks if pairing else None,
        seed=experiment.seed,
        settings=experiment.used_settings(),
        shared_teacher=experiment.shared_teacher,
    )
    if all(known.trial_id != trial.trial_id for known in plan.trials):
        plan.trials.append(trial)
    return trial


def _comparison_faults(plan: Plan, space: SearchSpace) -> list[str]:
    """Sides of the listed tests that are no rows of the space."""
    known = {
        f"{trial.row}-{layers}"
        for trial in plan.trials
        for layers in (range(trial.num_layers + 1) if trial.method == "probe" else [trial.num_layers])
    }
    sides = [side for name in space.compare for side in name.split(" vs ")]
    return [
        f"compare: must name rows of this space with their layers, got {side!r}. {nearest_name(side, known)}"
        for side in sides
        if side not in known
    ]


def wanted(plan: Plan, store: StageStore) -> set[str]:
    """Stages to build: rows that are not done, what a search will read, and whatever these read that is not whole.

    What only finished rows have read is not built again, should it be gone.
    """
    read = {name for stage in plan.stages.values() for name in stage.inputs.values()}
    open_stages = {trial.stage_id for trial in plan.trials} | (plan.stages.keys() - read)
    waiting = [name for name in open_stages if not store.is_done(name)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [source for source in plan.stages[name].inputs.values() if not store.is_whole(source)]
    return found


def waves(plan: Plan) -> Iterator[list[Stage]]:
    """Stages that can be built side by side, wave after wave."""
    for kinds in (("data",), ("sasrec",), ("finetune",), ("states",), ("distill", "probe"), ("compress",)):
        if stages := plan.of_kind(*kinds):
            yield stages
