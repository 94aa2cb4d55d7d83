"""Every search space that we ship can be run, asks a question, and says what the answer costs."""

import re

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.planning.shared_stages import plan_shared_stages
from orchestrator.space.search_space import SPACES_FOLDER, load_search_space, space_names

NAMES = space_names()
STUDY = [name for name in NAMES if name.startswith("study/")]


def overrides(name: str) -> list[str]:
    """Settings under which a space can be planned anywhere: the study's data are the user's own."""
    return ["data.path=ml-100k"] if name in STUDY else []


def test_these_are_the_spaces() -> None:
    assert set(NAMES) == {"ablation", "blocks", "comparison", "compression", "depth", "loss_weights", "smoke", *STUDY}
    assert len(STUDY) == 15
    assert not list(SPACES_FOLDER.rglob("*.yml")), "load_search_space looks for .yaml"


@pytest.mark.parametrize("name", NAMES)
def test_a_space_opens_with_its_question_and_then_its_cost(name: str) -> None:
    question, cost, *_ = (SPACES_FOLDER / f"{name}.yaml").read_text().splitlines()
    assert re.fullmatch(r"# [A-Z].*\?", question)
    assert re.fullmatch(r"# .*(about|under) \d+ (minutes|hours?).*\..*", cost)
    assert max(len(question), len(cost)) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_valid_and_can_be_planned(name: str) -> None:
    space = load_search_space(name, overrides(name))
    plan = make_plan(space)
    if space.sampled_group() is not None:
        plan_shared_stages(plan, space)
    assert space.study == name.replace("/", "-")
    assert plan.trials
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials)


@pytest.mark.parametrize("name", NAMES)
def test_floats_are_written_so_that_yaml_reads_numbers(name: str) -> None:
    assert not re.search(r"[ \[]\d+e-?\d", (SPACES_FOLDER / f"{name}.yaml").read_text()), "write 1.0e-3"


def test_the_ablation_leaves_terms_out_one_by_one() -> None:
    trials = {trial.row: trial for trial in make_plan(load_search_space("ablation", [])).trials}
    names = [f"distillation.{term}_weight" for term in ("cosine", "norm", "supervision")]
    assert {row: [trial.settings.get(name) for name in names] for row, trial in trials.items() if row.islower()} == {
        "sasrec": [None, None, None],
        "teacher": [None, None, None],
        "ce": [None, None, None],
        "ce_supervision": [0.0, 0.0, 0.1],
        "cosine": [1.0, 0.0, 0.0],
        "cosine_norm": [1.0, 0.1, 0.0],
        "cosine_supervision": [1.0, 0.0, 0.1],
        "all": [1.0, 0.1, 0.1],
    }
    assert {trial.num_layers for row, trial in trials.items() if row not in ("sasrec", "teacher")} == {4}
    assert trials["ce"].method == "finetune"


def test_the_full_objective_of_the_ablation_is_the_default_student_of_the_other_studies() -> None:
    stages = [
        {trial.stage_id for trial in make_plan(load_search_space(name, [])).trials if trial.row == row}
        for name, row in (("ablation", "all"), ("blocks", "offline_4"), ("comparison", "distill"))
    ]
    assert stages[0] == stages[1] == stages[2]


def test_every_way_of_compression_meets_each_of_the_three_models_that_are_trained_once() -> None:
    plan = make_plan(load_search_space("compression", []))
    by_model: dict[str, set[str]] = {}
    for trial in plan.trials:
        if (stage := plan.stages[trial.stage_id]).kind == "compress":
            by_model.setdefault(stage.inputs["trained"], set()).add(trial.row.partition("_")[2])
    ways = {"float", "int8", "int8_dynamic", "int4", "half", "2_of_4"}
    assert sorted(by_model.values(), key=len) == [ways, ways, ways | {"first", "influence"}]
    assert len(plan.of_kind("finetune", "distill")) == 3


def test_the_study_compares_what_its_questions_name() -> None:
    rows = {
        trial.row: trial for trial in make_plan(load_search_space("study/distillation", ["data.path=ml-100k"])).trials
    }
    own, another = rows["all"].settings, rows["another"].settings
    assert {name for name in own if own[name] != another[name]} == {"distillation.teacher_users"}
    assert rows["supervision"].teacher_layers is None
    assert rows["teacher"].num_layers == own["teacher.num_layers"] == 8
