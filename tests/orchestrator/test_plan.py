"""What a sweep will do: rows, the stages behind them, and which setting changes which stage."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.builders import labels
from orchestrator.planning.plan import Plan, add_row, experiment_of, make_plan, waves
from orchestrator.planning.shared_stages import plan_shared_stages
from orchestrator.storage.stages import Stage, stage_id
from slmrec_core.data import DataConfig, source_fingerprint, synthetic_interactions
from slmrec_core.errors import ConfigError, DataError
from tests.orchestrator.small_spaces import only, plan_of, space_of, stage_ids

SASREC, PROBE = {"method": "sasrec"}, {"method": "probe"}
FINETUNE: dict[str, Any] = {"method": "finetune"}
DISTILL: dict[str, Any] = {"method": "distill"}
WEIGHTS = [f"distillation.{term}_weight" for term in ("cosine", "norm", "supervision", "logit")]
CROSS_ENTROPY = dict.fromkeys(WEIGHTS, 0.0)
ALL = (SASREC, FINETUNE, DISTILL, PROBE)
DEEP = {"distillation.teacher_states": "recompute"}


def ids_by_role(**changes: Any) -> dict[str, set[str]]:
    """Stages of a plan with all methods; the teacher apart from the student fine-tuned at its own depth."""
    plan = plan_of(*ALL, base=changes)
    teacher = only(plan, "probe").inputs["teacher"]
    found = {kind: stage_ids(plan, kind) for kind in ("data", "sasrec", "states", "distill", "probe")}
    return found | {"teacher": {teacher}, "finetune": stage_ids(plan, "finetune") - {teacher}}


BELOW_DATA = {"data", "sasrec", "teacher", "finetune", "states", "distill", "probe"}
BELOW_TABLE = BELOW_DATA - {"data"}
BELOW_TEACHER = {"teacher", "states", "distill", "probe"}
TRAINED = {"teacher", "finetune", "states", "distill", "probe"}
SELF = {"finetune", "distill"}
MOVED: list[tuple[str, Any, set[str]]] = [
    ("data.min_user", 6, BELOW_DATA),
    ("data.min_item", 6, BELOW_DATA),
    ("data.ties", "shuffled", BELOW_DATA),
    ("data.min_rating", 3.0, BELOW_DATA),
    ("data.k_core", "once", BELOW_DATA),
    ("data.repeats", "first", BELOW_DATA),
    ("data.split", "global_time", BELOW_DATA),
    ("seed", 1, BELOW_TABLE),
    ("max_seq_len", 20, BELOW_TABLE),
    ("item_table.network.item_dim", 32, BELOW_TABLE),
    ("item_table.network.block", "padded", BELOW_TABLE),
    ("item_table.training.epochs", 3, BELOW_TABLE),
    ("item_table.training.learning_rate", 0.01, BELOW_TABLE),
    ("evaluation.mask_seen", False, BELOW_TABLE),
    ("evaluation.protocols", ["full", "unmasked"], BELOW_TABLE),
    ("evaluation.num_negatives", 99, BELOW_TABLE),
    ("evaluation.selection_users", 9, BELOW_TABLE),
    ("teacher.num_layers", 6, BELOW_TEACHER),
    ("teacher.lora_rank", 8, BELOW_TEACHER),
    ("teacher_learning_rate", 1.0e-4, BELOW_TEACHER),
    ("training.epochs", 3, TRAINED),
    ("training.batch_size", 48, TRAINED),
    ("training.precision", "fp16", TRAINED),
    ("student.num_layers", 2, SELF | {"states"}),
    ("student.lora_alpha", 8, SELF),
    ("student.layer_choice", "every", SELF),
    ("student.weights", "random", SELF),
    ("student.item_vectors", "trained", SELF),
    ("student.init", "teacher", {"distill"}),
    ("distillation.num_blocks", 2, {"distill", "states"}),
    ("distillation.teacher_layers", [1, 2, 3, 4], {"distill", "states"}),
    ("distillation.align_at", "normed", {"distill", "states"}),
    ("distillation.mode", "online", {"distill", "states"}),
    ("distillation.teacher_states", "recompute", {"distill", "states"}),
    ("distillation.cosine_weight", 0.5, {"distill"}),
    ("distillation.norm_weight", 0.5, {"distill"}),
    ("distillation.supervision_weight", 0.5, {"distill"}),
    ("distillation.next_item_weight", 0.5, {"distill"}),
    ("distillation.logit_weight", 0.5, {"distill", "states"}),
    ("distillation.norm_scale", "none", {"distill"}),
    ("distillation.teacher_users", "another", {"distill"}),
    ("distillation.block_reduction", "sum", {"distill"}),
    ("probe.read", "raw", {"probe"}),
    ("evaluation.batch_size", 7, set()),
    ("workers.num_workers", 2, set()),
    ("workers.zero_stage", 0, set()),
    ("workers.offload", "optimizer", set()),
    ("workers.micro_batch_size", 4, set()),
    ("workers.cpus_per_worker", 0.5, set()),
]


@pytest.fixture(scope="module")
def usual() -> dict[str, set[str]]:
    return ids_by_role()


def test_equal_settings_have_equal_hashes(usual: dict[str, set[str]]) -> None:
    assert ids_by_role() == usual
    # Written out, the default is the same setting.
    assert ids_by_role(**{"distillation.num_blocks": 4, "training.epochs": 2, "distillation.cosine_weight": 1}) == usual


@pytest.mark.parametrize(("name", "value", "moved"), MOVED, ids=[name for name, _, _ in MOVED])
def test_a_setting_moves_the_stages_that_depend_on_it_and_no_others(
    usual: dict[str, set[str]], name: str, value: Any, moved: set[str]
) -> None:
    found = ids_by_role(**{name: value}) if name != "seed" else seed_one()
    assert {role for role in usual if found[role] != usual[role]} == moved


@pytest.mark.parametrize(("name", "moved"), [(name, moved) for name, _, moved in MOVED if "." in name])
def test_a_row_shows_the_settings_that_its_stage_depends_on_and_no_others(name: str, moved: set[str]) -> None:
    rows = {trial.row: trial for trial in plan_of(*ALL).trials}
    shown = {row for row in ("sasrec", "finetune", "distill", "probe") if name in rows[row].settings}
    # Says how much is computed at a time, not what.
    shown = set() if name == "evaluation.batch_size" else shown
    assert shown == moved - {"data", "teacher", "states"}


@pytest.mark.parametrize("base", [FINETUNE, DISTILL])
def test_compressed_rows_share_one_training_with_the_row_without(base: dict[str, Any]) -> None:
    small = base | {"compressed": True}
    rounded, pruned = ({"row": w, "compression.weights": w} for w in ("int8", "int4")), {"compression.pruning": "2:4"}
    plan = plan_of(base, small, *({**small, **row} for row in rounded), {**small, "row": "zeros", **pruned})
    trained = only(plan, str(base["method"])).stage_id if base is DISTILL else plan.trials[1].stage_id
    compressed = plan.of_kind("compress")
    assert len(compressed) == 4
    assert {stage.inputs["trained"] for stage in compressed} == {trained}
    assert list(waves(plan))[-1] == compressed
    # The training itself does not know of it.
    assert plan.experiments[trained] == plan_of(base).experiments[trained]
    assert set(plan_of(base).stages) < set(plan.stages)
    shown = {trial.row: trial.settings for trial in plan.trials}
    assert shown["int4"]["compression.weights"] == "int4"
    assert "compressed" not in plan_of(base).trials[-1].settings


def test_a_compressed_row_has_the_layers_that_it_keeps() -> None:
    kept = {"compressed": True, "compression.keep_layers": 2, "student.num_layers": 4}
    assert plan_of(FINETUNE | kept).trials[-1].num_layers == 2
    assert plan_of(FINETUNE | kept | {"compressed": False}).trials[-1].num_layers == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PROBE | {"compressed": True}, "takes a model of method finetune or distill, got 'probe'"),
        (FINETUNE | {"compressed": True, "compression.keep_layers": 9}, "at most student.num_layers=4, got 9"),
    ],
)
def test_what_cannot_be_compressed_is_refused_before_anything_runs(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(row)


def test_a_student_without_a_teacher_does_not_depend_on_its_depth() -> None:
    supervised = DISTILL | {name: 0.0 for name in WEIGHTS if "supervision" not in name}
    plans = [plan_of(supervised, base={"teacher.num_layers": depth}) for depth in (6, 8)]
    assert stage_ids(plans[0], "distill") == stage_ids(plans[1], "distill")
    assert not [name for name in plans[0].trials[-1].settings if name.startswith("teacher.")]


def seed_one() -> dict[str, set[str]]:
    plan = plan_of(*ALL, seeds=[1])
    teacher = only(plan, "probe").inputs["teacher"]
    found = {kind: stage_ids(plan, kind) for kind in ("data", "sasrec", "states", "distill", "probe")}
    return found | {"teacher": {teacher}, "finetune": stage_ids(plan, "finetune") - {teacher}}


def test_lora_settings_mean_nothing_to_a_model_that_is_trained_in_full() -> None:
    full = {"student.tuning": "full"}
    assert stage_ids(plan_of(FINETUNE, base=full), "finetune") == stage_ids(
        plan_of(FINETUNE, base=full | {"student.lora_rank": 4}), "finetune"
    )


def test_content_counts_and_not_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, copy = tmp_path / "a" / "events.csv", tmp_path / "b" / "others.csv"
    for path in (file, copy):
        path.parent.mkdir()
    synthetic_interactions(num_users=6, num_items=6).to_csv(file, index=False)
    shutil.copy(file, copy)
    plans = [plan_of(FINETUNE, base={"data.path": str(path)}) for path in (file, copy)]
    assert list(plans[0].stages) == list(plans[1].stages)
    monkeypatch.chdir(file.parent)
    relative = plan_of(FINETUNE, base={"data.path": "events.csv"})
    assert list(relative.stages) == list(plans[0].stages)
    assert relative.trials == plans[0].trials, "workers run elsewhere: the path is made absolute"
    file.write_text(file.read_text() + "0,1,99999999\n")
    assert list(plan_of(FINETUNE, base={"data.path": str(file)}).stages) != list(plans[0].stages)


def test_the_format_of_the_data_counts_where_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    synthetic_interactions(num_users=6, num_items=6).to_csv(file, index=False)
    found, named = (plan_of(FINETUNE, base={"data.path": str(file), "data.format": name}) for name in (None, "csv"))
    assert stage_ids(found, "data") != stage_ids(named, "data")


def test_the_moments_of_a_split_count_where_they_are_not_the_usual_ones() -> None:
    in_time = {"data.split": "global_time"}
    others = ({}, {"data.split_quantiles": [0.7, 0.9]}, {"data.split_times": [1_700_500_000, 1_701_000_000]})
    found = [stage_ids(plan_of(FINETUNE, base=in_time | other), "data") for other in others]
    assert len(set.union(*found)) == 3
    assert stage_ids(plan_of(FINETUNE, base=in_time | {"data.split_quantiles": [0.8, 0.9]}), "data") == found[0]


def test_rows_that_were_kept_before_a_setting_came_are_found() -> None:
    # All settings of the data as they were when the first rows were kept.
    settings = {
        "user_column": "user_id", "item_column": "item_id", "timestamp_column": "timestamp", "title_column": None,
        "rating_column": "rating", "min_rating": None, "ties": "input", "min_user": 5, "min_item": 5,
        "k_core": "iterated", "repeats": "keep", "source": source_fingerprint(DataConfig(path="synthetic")),
        "min_events": 3,
    }  # fmt: skip
    assert stage_ids(plan_of(FINETUNE), "data") == {stage_id("data", settings, {})}


def test_a_named_set_is_not_hidden_by_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library looks the name up first; the plan once read the file's path into the settings.
    (tmp_path / "synthetic").write_text("not events")
    monkeypatch.chdir(tmp_path)
    assert experiment_of(space_of(SASREC), {"data.path": "synthetic"}, 0).data.path == "synthetic"


def test_a_hub_model_is_pinned_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # A bug of ours: the hash held the commit, the workers' settings did not, and each of them asked the hub again.
    commit, asked = "0" * 40, list[str]()

    class Info:
        sha = commit

    def model_info(self: object, name: str, revision: str | None, timeout: float) -> Info:
        asked.append(name)
        return Info()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    base = {"backbone": "owner/planned", "teacher.backbone": "owner/planned-teacher"}
    plan = plan_of(DISTILL, FINETUNE, base=base)
    for stage in plan.of_kind("finetune", "distill"):
        backbones = {stage.settings["model"]["backbone"], plan.experiments[stage.stage_id].student_model().backbone}
        assert backbones in (
            {f"hub:owner/{name}@{commit}", f"owner/{name}@{commit}"} for name in ("planned", "planned-teacher")
        )
    assert sorted(asked) == ["owner/planned", "owner/planned-teacher"]
    asked.clear()
    plan_of(SASREC, base={"backbone": "owner/unasked"})
    assert asked == []


def test_a_local_backbone_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 9}')
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    found = experiment_of(space_of(FINETUNE), {"backbone": "model", "teacher.backbone": "./model"}, 0)
    assert found.backbone == found.teacher.backbone == str(tmp_path / "model")
    with pytest.raises(ConfigError, match="model has 9 layers, got 10. Use 9 or fewer"):
        experiment_of(space_of(FINETUNE), {**FINETUNE, "backbone": "model", "student.num_layers": 10}, 0)


def test_the_model_fine_tuned_at_the_teachers_depth_is_the_teacher() -> None:
    plan = plan_of(FINETUNE | {"student.num_layers": 8}, PROBE)
    shared = only(plan, "finetune")
    assert [trial.row for trial in plan.trials if trial.stage_id == shared.stage_id] == ["finetune", "teacher"]


def test_cross_entropy_alone_is_fine_tuning_however_it_is_written() -> None:
    finetuned = stage_ids(plan_of(FINETUNE), "finetune")
    distilled = plan_of(DISTILL | CROSS_ENTROPY)
    assert stage_ids(distilled, "finetune") == finetuned
    assert distilled.of_kind("distill", "states") == []
    # One block has no inner one to supervise.
    single = CROSS_ENTROPY | {"distillation.supervision_weight": 0.1, "distillation.num_blocks": 1}
    assert stage_ids(plan_of(DISTILL | single), "finetune") == finetuned
    # Weights of terms that fine-tuning does not have change nothing.
    assert stage_ids(plan_of(FINETUNE | {"distillation.cosine_weight": 3.0}), "finetune") == finetuned


def test_only_the_states_that_students_align_to_are_planned() -> None:
    plan = plan_of(DISTILL | {"student.num_layers": {"grid": [4, 2, 1]}})
    assert [stage.settings["layer"] for stage in plan.of_kind("states")] == [2, 4, 6, 8]
    assert plan_of(DISTILL, base=DEEP).of_kind("states") == []


def test_a_student_that_asks_nothing_of_a_teacher_has_none() -> None:
    plan = plan_of(DISTILL | CROSS_ENTROPY | {"distillation.supervision_weight": 0.1})
    assert [stage.kind for stage in plan.stages.values()] == ["data", "sasrec", "distill"]
    assert [trial.teacher_layers for trial in plan.trials] == [None, None]


def test_an_online_student_trains_its_own_teacher() -> None:
    plan = plan_of(DISTILL | {"distillation.mode": "online"})
    assert plan.of_kind("finetune", "states") == []
    assert plan.trials[-1].teacher_layers == 8


def test_seeds_go_from_end_to_end() -> None:
    plan = plan_of(*ALL, seeds=3)
    for kind, count in (("data", 1), ("sasrec", 3), ("finetune", 6), ("distill", 3), ("probe", 3), ("states", 12)):
        assert len(plan.of_kind(kind)) == count, kind
    for stage in plan.of_kind("distill"):
        inputs = [plan.experiments[stage.inputs[role]].seed for role in ("item_table", "teacher")]
        assert inputs == [plan.experiments[stage.stage_id].seed] * 2
    assert not any(trial.shared_teacher for trial in plan.trials)


def test_a_shared_teacher_is_that_of_seed_0_and_its_rows_are_marked() -> None:
    plan = plan_of(DISTILL, base={"shared_teacher": True}, seeds=3)
    assert len(plan.of_kind("sasrec")) == len(plan.of_kind("finetune")) == 1
    assert len(plan.of_kind("distill")) == 3
    assert {stage.inputs["teacher"] for stage in plan.of_kind("distill")} == stage_ids(plan, "finetune")
    assert stage_ids(plan, "finetune") == stage_ids(plan_of(DISTILL), "finetune")
    assert all(trial.shared_teacher for trial in plan.trials)
    assert sorted(trial.seed for trial in plan.trials if trial.row == "distill") == [0, 1, 2]


def test_rows_of_two_names_may_share_a_stage() -> None:
    plan = plan_of(FINETUNE | {"row": "ce"}, FINETUNE)
    assert {trial.row for trial in plan.trials} == {"sasrec", "ce", "finetune"}
    assert len(plan.of_kind("finetune")) == 1


def test_the_epoch_budget_caps_training_and_not_the_item_table() -> None:
    plan = plan_of(FINETUNE, budget={"max_epochs": 2})
    experiment = plan.experiments[only(plan, "finetune").stage_id]
    assert (experiment.training.epochs, experiment.item_table.training.epochs) == (2, 120)
    assert stage_ids(plan, "finetune") == stage_ids(plan_of(FINETUNE, base={"training.epochs": 2}), "finetune")
    with pytest.raises(ConfigError, match="training.epochs: .*got 'many'"):
        plan_of(FINETUNE, base={"training.epochs": "many"}, budget={"max_epochs": 2})


def test_a_model_deeper_than_its_backbone_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="student.num_layers: backbone tiny has 8 layers, got 9. Use 8 or fewer"):
        plan_of(FINETUNE | {"student.num_layers": 9})
    with pytest.raises(ConfigError, match="teacher.num_layers: backbone smollm2.* has 30 layers, got 31"):
        plan_of(PROBE, base={"backbone": "smollm2-135m-instruct-q4_1", "teacher.num_layers": 31})
    # Nobody reads this teacher.
    assert plan_of(FINETUNE, base={"teacher.num_layers": 31}).trials


def test_blocks_that_do_not_divide_the_depth_come_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"must divide student.num_layers=4, got 3. Use one of \[1, 2, 4\]"):
        plan_of(DISTILL | {"distillation.num_blocks": 3})


def test_faults_of_all_rows_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(FINETUNE | {"student.num_layers": {"grid": [9, "two"]}}, DISTILL | {"distillation.num_blocks": 3})
    assert len(str(caught.value).splitlines()) == 3


def test_workers_are_checked() -> None:
    with pytest.raises(ConfigError, match="workers.zero_stage: .*, got 7"):
        plan_of(FINETUNE, base={"workers.zero_stage": 7})
    assert plan_of(FINETUNE, base={"workers.num_workers": 3}).workers.num_workers == 3


def test_missing_data_are_an_error_of_the_plan() -> None:
    with pytest.raises(DataError, match="no such file and no named data set, got 'syntetic'"):
        plan_of(FINETUNE, base={"data.path": "syntetic"})


GROUPS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["sasrec", "finetune", "distill", "probe"]),
        "student.num_layers": st.sampled_from([1, 2, 4, 8]),
    },
    optional={
        "distillation.mode": st.sampled_from(["offline", "online"]),
        "distillation.cosine_weight": st.sampled_from([0.0, 1.0]),
        "distillation.logit_weight": st.sampled_from([0.0, 1.0]),
        "student.init": st.sampled_from(["base", "teacher"]),
        "shared_teacher": st.booleans(),
    },
)


def inputs_before_their_readers(plan: Plan) -> bool:
    seen: set[str] = set()
    for stage in plan.stages.values():
        if not set(stage.inputs.values()) <= seen:
            return False
        seen.add(stage.stage_id)
    return True


@settings(max_examples=25)
@given(groups=st.lists(GROUPS, min_size=1, max_size=4), seeds=st.integers(1, 2))
def test_whatever_the_rows_stages_follow_what_they_read(groups: list[dict[str, Any]], seeds: int) -> None:
    plan = plan_of(*groups, seeds=seeds)
    assert inputs_before_their_readers(plan)
    in_waves: list[list[Stage]] = list(waves(plan))
    assert sorted(s.stage_id for wave in in_waves for s in wave) == sorted(plan.stages)
    built: set[str] = set()
    for wave in in_waves:
        assert all(set(stage.inputs.values()) <= built for stage in wave)
        built |= {stage.stage_id for stage in wave}
    ids = [trial.trial_id for trial in plan.trials]
    assert len(set(ids)) == len(ids)
    assert {trial.stage_id for trial in plan.trials} <= set(plan.stages)


DRAWN = {"method": "distill", "student.num_layers": 4, "distillation.cosine_weight": {"loguniform": [0.1, 1.0]}}


def planned_search(*groups: dict[str, Any], **keys: Any) -> Plan:
    space = space_of(*groups, search={"algorithm": "random"}, **keys)
    plan = make_plan(space)
    plan_shared_stages(plan, space)
    return plan


def test_what_drawn_points_read_is_planned_for_every_choice_and_they_are_not() -> None:
    plan = planned_search(DRAWN | {"student.num_layers": {"choice": [2, 4]}}, FINETUNE)
    assert plan.of_kind("distill") == []
    assert [stage.settings["layer"] for stage in plan.of_kind("states")] == [4, 8, 2, 6]
    assert inputs_before_their_readers(plan)
    assert [trial.row for trial in plan.trials] == ["sasrec", "finetune", "teacher"]


def test_choices_are_planned_whole_or_refused() -> None:
    # Beyond 256 combinations they were once cut off, and a point read states that nobody had built.
    layers = {"student.num_layers": {"choice": [4, 2]}, "distillation.cosine_weight": 1.0}
    many = {name: {"choice": [*range(100, 117)]} for name in ("training.warmup_steps", "training.batch_size")}
    with pytest.raises(ConfigError, match="choices must have at most 256 combinations.*, got 578. Write ranges"):
        planned_search(DRAWN | many | layers)


def test_a_sweeps_data_are_read_once(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    synthetic_interactions(num_users=6, num_items=6).to_csv(file, index=False)
    space = space_of(FINETUNE, base={"data.path": str(file)})
    plan = make_plan(space)
    file.unlink()
    later = plan.like()
    add_row(later, space, {**space.base, **FINETUNE, "data.path": str(file)}, 0)
    assert list(later.stages) == list(plan.stages)


def test_planning_a_search_twice_adds_nothing() -> None:
    space = space_of(DRAWN, search={"algorithm": "optuna"})
    plan = make_plan(space)
    plan_shared_stages(plan, space)
    stages, trials = list(plan.stages), list(plan.trials)
    plan_shared_stages(plan, space)
    assert (list(plan.stages), plan.trials) == (stages, trials)


def test_a_point_that_could_be_drawn_but_not_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must divide student.num_layers=4, got 3"):
        planned_search(DRAWN | {"distillation.num_blocks": {"choice": [1, 3]}})
    with pytest.raises(ConfigError, match="student.lora_dropout: .*less than 1"):
        planned_search(DRAWN | {"student.lora_dropout": {"uniform": [0.0, 2.0]}})
    with pytest.raises(ConfigError, match="item_table.training.learning_rate decides what all drawn points read"):
        planned_search(DRAWN | {"item_table.training.learning_rate": {"loguniform": [1e-4, 1e-2]}})


def test_points_are_chosen_by_the_metric_that_chose_their_epoch() -> None:
    with pytest.raises(ConfigError, match="select.metric: must be the training.checkpoint_metric of drawn points"):
        planned_search(DRAWN, select={"metric": "valid/mrr"})
    both = {"training.checkpoint_metric": "valid/mrr"}
    assert planned_search(DRAWN, base=both, select={"metric": "valid/mrr"}).stages


def test_listed_comparisons_name_rows_of_the_space() -> None:
    groups = ({"method": "finetune", "student.num_layers": {"grid": [1, 4]}}, {**PROBE, "row": "read"}, SASREC)
    plan_of(*groups, compare=["finetune-1 vs finetune-4", "read-0 vs read-8", "finetune-4 vs sasrec-0"])
    with pytest.raises(ConfigError, match=r"compare: must name rows .* got 'finetune-2'"):
        plan_of(*groups, compare=["finetune-1 vs finetune-2"])


def test_rows_to_choose_from_leave_the_test_split_closed_and_are_points_of_a_search() -> None:
    closed, open_ = plan_of(FINETUNE, DISTILL, select={"read_test": False}), plan_of(FINETUNE, DISTILL)
    for method in ("finetune", "distill"):
        (theirs,) = (closed.stages[trial.stage_id] for trial in closed.trials if trial.row == method)
        (ours,) = (open_.stages[trial.stage_id] for trial in open_.trials if trial.row == method)
        assert theirs.stage_id != ours.stage_id
        assert ours.untested == theirs
    # What others read is the same: the teacher is trained once.
    assert only(closed, "probe" if closed.of_kind("probe") else "data") == only(open_, "data")
    assert stage_ids(closed, "states") == stage_ids(open_, "states")


def test_a_teacher_may_have_a_learning_rate_of_its_own() -> None:
    plan = plan_of(DISTILL, base={"teacher_learning_rate": 3.0e-4, "training.learning_rate": 1.0e-3})
    rates = {stage.settings["training"]["learning_rate"] for stage in plan.of_kind("finetune")}  # type: ignore[index]
    assert rates == {3.0e-4}
    at_that_rate = plan_of({**FINETUNE, "student.num_layers": 8}, base={"training.learning_rate": 3.0e-4})
    assert stage_ids(plan, "finetune") == stage_ids(at_that_rate, "finetune"), "it is the model fine-tuned so"
    with pytest.raises(ConfigError, match=r"teacher_learning_rate: an online teacher .* got 0\.0003"):
        plan_of({**DISTILL, "distillation.mode": "online"}, base={"teacher_learning_rate": 3.0e-4})


def test_rows_that_differ_in_a_setting_alone_are_told_apart_in_the_log() -> None:
    finetune = {"method": "finetune", "student.num_layers": {"grid": [1, 2]}}
    names = labels(plan_of({**finetune, "training.learning_rate": {"grid": [1.0e-3, 3.0e-3]}})).values()
    assert {name for name in names if name.startswith("finetune-2")} == {
        "finetune-2-seed0 training.learning_rate=0.001", "finetune-2-seed0 training.learning_rate=0.003",
    }  # fmt: skip
    assert "finetune-2-seed0" in labels(plan_of(finetune)).values()
