"""Search spaces as they are read: names, axes, `--set`, and what cannot be."""

from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import yaml

from orchestrator.space.search_space import SearchSpace, load_search_space, space_names
from slmrec_core.errors import ConfigError
from tests.orchestrator.small_spaces import BASE, space_of

FINETUNE: dict[str, Any] = {"method": "finetune", "student.num_layers": {"grid": [1, 2]}}
DRAWN: dict[str, Any] = {"method": "distill", "distillation.cosine_weight": {"loguniform": [0.01, 1.0]}}
RANDOM = {"algorithm": "random"}


def write(folder: Path, **keys: Any) -> str:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump({"base": BASE, "params": [FINETUNE], **keys}))
    return str(file)


def load(folder: Path, *overrides: str, **keys: Any) -> SearchSpace:
    return load_search_space(write(folder, **keys), list(overrides))


def rows(space: SearchSpace, name: str) -> list[Any]:
    return [group.get(name) for group in space.fixed_groups()]


def message(folder: Path, *overrides: str, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, *overrides, **keys)
    return str(caught.value)


def test_a_file_without_a_study_is_named_after_itself(tmp_path: Path) -> None:
    space = load(tmp_path)
    assert space.study == "own"
    assert space.seeds == [0]
    assert rows(space, "student.num_layers") == [1, 2]


def test_a_single_group_and_a_number_of_seeds_have_short_forms(tmp_path: Path) -> None:
    space = load(tmp_path, params=FINETUNE, seeds=3)
    assert space.params == [FINETUNE]
    assert space.seeds == [0, 1, 2]


def test_axes_of_a_group_are_laid_out_against_each_other() -> None:
    space = space_of({"method": "finetune", "student.num_layers": {"grid": [1, 2]}, "max_seq_len": {"grid": [5, 9]}})
    found = [(group["student.num_layers"], group["max_seq_len"]) for group in space.fixed_groups()]
    assert found == [(1, 5), (1, 9), (2, 5), (2, 9)]


@pytest.mark.parametrize(
    ("keys", "nearest"),
    [
        ({"serch": {}}, "search"),
        ({"search": {"algoritm": "grid"}}, "algorithm"),
        ({"select": {"metrics": "valid/mrr"}}, "metric"),
        ({"budget": {"num_trails": 3}}, "num_trials"),
        ({"base": {"data.pth": "synthetic"}}, "data.path"),
        ({"base": {"worker.num_workers": 2}}, "workers.num_workers"),
        ({"params": [{"student.num_layer": 2}]}, "student.num_layers"),
        ({"params": [{"rows": "a"}]}, "row"),
        ({"params": [{"student.num_layers": {"gird": [1, 2]}}]}, "grid"),
        ({"select": {"metric": "valid/ndgc_at_10"}}, "valid/ndcg_at_10"),
    ],
)
def test_an_unknown_name_anywhere_is_answered_with_the_nearest(
    tmp_path: Path, keys: dict[str, Any], nearest: str
) -> None:
    assert f"Did you mean '{nearest}'?" in message(tmp_path, **keys)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    told = message(
        tmp_path,
        serch={},
        select={"metric": "test/mrr"},
        budget={"num_trials": 0},
        base={"data.pth": "synthetic"},
        params=[{"student.num_layer": 2}, {"training.epochs": {"grid": 3}}],
    )
    for part in ("serch", "test/mrr", "budget.num_trials", "data.pth", "student.num_layer", "grid takes a list"):
        assert part in told
    assert len(told.splitlines()) == 1 + 6


def test_a_missing_key_is_named_without_showing_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("base: {data.path: synthetic}")
    with pytest.raises(ConfigError, match="params: field required, got nothing"):
        load_search_space(str(file), [])


@pytest.mark.parametrize("text", ["- a\n- b", "text", "a: [1", "\x00", ""])
def test_a_file_that_is_no_mapping_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="search space"):
        load_search_space(str(file), [])


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("study: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_search_space(str(file), [])


def test_the_test_split_never_decides(tmp_path: Path) -> None:
    assert "must start with valid/, got 'test/ndcg_at_10'" in message(tmp_path, "select.metric=test/ndcg_at_10")


def test_a_grid_cannot_draw_and_the_others_need_something_to_draw_from() -> None:
    with pytest.raises(ValueError, match="grid cannot draw from distributions, got .*cosine_weight"):
        space_of(DRAWN)
    for algorithm in ("random", "optuna"):
        with pytest.raises(ValueError, match=f"a {algorithm} search needs one group with distributions, got 0"):
            space_of(FINETUNE, search={"algorithm": algorithm})
    with pytest.raises(ValueError, match="needs one group with distributions, got 2"):
        space_of(DRAWN, DRAWN, search=RANDOM)
    space = space_of(FINETUNE, DRAWN, search=RANDOM)
    assert space.sampled_group() == space.base | DRAWN


def test_a_grid_is_never_stopped_early() -> None:
    with pytest.raises(ValueError, match="search.scheduler: every row of a grid is reported"):
        space_of(FINETUNE, search={"scheduler": "asha"})


@pytest.mark.parametrize(
    "axis",
    [
        {"loguniform": [0.0, 1.0]},
        {"loguniform": ["1e-3", 1.0]},
        {"uniform": [1.0, 0.5]},
        {"uniform": [1.0]},
        {"randint": [1.0, 2.5]},
        {"choice": []},
        {"grid": "1, 2"},
        {"grid": [1], "choice": [2]},
        {},
    ],
)
def test_an_axis_that_cannot_be_is_refused_before_anything_runs(axis: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="distillation.norm_weight in params: "):
        space_of(DRAWN | {"distillation.norm_weight": axis}, search=RANDOM)


def test_base_holds_no_axes_and_drawn_groups_no_grids() -> None:
    with pytest.raises(ValueError, match="base: every trial shares its settings, got student.num_layers"):
        space_of(FINETUNE, base={"student.num_layers": {"grid": [1, 2]}})
    with pytest.raises(ValueError, match="has no grid beside them, got 'max_seq_len'"):
        space_of(DRAWN | {"max_seq_len": {"grid": [5, 9]}}, search=RANDOM)


@pytest.mark.parametrize("name", ["data.min_item", "evaluation.mask_seen", "workers.zero_stage"])
def test_what_all_rows_have_in_common_is_no_axis(tmp_path: Path, name: str) -> None:
    # Paired tests and choices by valid would compare other users, or other candidates.
    told = f"params: {name} is the same for all rows of a sweep, got"
    both = [{"method": "finetune"}, {"method": "distill"}]
    assert message(tmp_path, f"{name}=[1, 2]", params=both).count(told) == 1, "once, not for every group"
    assert told in message(tmp_path, params=[{"method": "finetune", name: 1}])
    assert load(tmp_path, f"{name}=1").base[name] == 1


def test_a_space_without_rows_or_seeds_is_refused(tmp_path: Path) -> None:
    assert "params: must have a group of rows, got none" in message(tmp_path, params=[])
    assert "seeds: must be distinct and at least one, got []" in message(tmp_path, seeds=[])
    assert "seeds: must be distinct and at least one, got [1, 1]" in message(tmp_path, seeds=[1, 1])
    assert "seeds: input should be a valid list, got True" in message(tmp_path, seeds=True)


@pytest.mark.parametrize("row", ["a b", "a/b", "", 3, None])
def test_the_name_of_a_row_is_fit_for_a_metric(row: object) -> None:
    with pytest.raises(ValueError, match="params: row names a curve"):
        space_of({"row": row, **FINETUNE})


def test_a_scalar_takes_the_place_of_an_axis(tmp_path: Path) -> None:
    space = load(tmp_path, "student.num_layers=2")
    assert rows(space, "student.num_layers") == [2]


def test_a_list_replaces_an_axis_or_makes_one_in_every_group(tmp_path: Path) -> None:
    assert rows(load(tmp_path, "student.num_layers=[4, 6]"), "student.num_layers") == [4, 6]
    space = load(tmp_path, "max_seq_len=[5, 9]", params=[{"method": "sasrec"}, {"method": "finetune"}])
    assert rows(space, "max_seq_len") == [5, 9, 5, 9]


def test_an_axis_may_be_written_out_on_the_command_line(tmp_path: Path) -> None:
    assert rows(load(tmp_path, "student.num_layers={grid: [4, 6]}"), "student.num_layers") == [4, 6]
    space = load(tmp_path, "distillation.norm_weight={loguniform: [1e-3, 1]}", params=[DRAWN], search=RANDOM)
    assert space.sampled_group()["distillation.norm_weight"] == {"loguniform": [0.001, 1]}  # type: ignore[index]


def test_a_list_is_drawn_from_in_a_group_that_is_drawn_from(tmp_path: Path) -> None:
    space = load(tmp_path, "student.num_layers=[2, 4]", params=[DRAWN], search=RANDOM)
    assert space.sampled_group()["student.num_layers"] == {"choice": [2, 4]}  # type: ignore[index]


def test_a_setting_that_is_a_list_takes_one_as_its_value(tmp_path: Path) -> None:
    space = load(tmp_path, "distillation.teacher_layers=[2, 8]", "evaluation.protocols=[full, sampled]")
    assert rows(space, "distillation.teacher_layers") == [[2, 8]] * 2
    assert rows(space, "evaluation.protocols") == [["full", "sampled"]] * 2
    space = load(tmp_path, "distillation.teacher_layers=[[2, 8], [4, 8]]", "student.num_layers=2")
    assert rows(space, "distillation.teacher_layers") == [[2, 8], [4, 8]]


def test_keys_of_the_space_itself_can_be_set(tmp_path: Path) -> None:
    space = load(
        tmp_path, "seeds=3", "search.algorithm=random", "select.mode=max", "budget.max_epochs=2", params=[DRAWN]
    )
    assert space.seeds == [0, 1, 2]
    assert (space.search.algorithm, space.select.mode, space.budget.max_epochs) == ("random", "max", 2)
    assert load(tmp_path, "seeds=[4, 7]").seeds == [4, 7]


def test_people_may_write_numbers_as_they_do_on_a_command_line(tmp_path: Path) -> None:
    assert rows(load(tmp_path, "training.learning_rate=1e-3"), "training.learning_rate") == [0.001] * 2
    assert rows(load(tmp_path, "training.learning_rate=[1e-3, 2E-4]", params=[{}]), "training.learning_rate") == [
        0.001,
        0.0002,
    ]
    assert rows(load(tmp_path, "data.path=east"), "data.path") == ["east"] * 2
    assert rows(load(tmp_path, "training.patience=null"), "training.patience") == [None] * 2


@pytest.mark.parametrize("override", ["", "=3", "training.epochs", "study: x"])
def test_a_malformed_override_shows_the_form(tmp_path: Path, override: str) -> None:
    assert "--set: must be dotted.key=value, got" in message(tmp_path, override)


def test_an_override_that_cannot_be_is_told_apart_from_an_unknown_one(tmp_path: Path) -> None:
    assert "--set training.epochs: the value must be YAML, got '[1'" in message(tmp_path, "training.epochs=[1")
    assert "Did you mean 'training.epochs'?" in message(tmp_path, "training.epoch=1")
    assert "Did you mean 'budget.num_trials'?" in message(tmp_path, "budget.num_trial=1")
    assert "search: must be a mapping, got 'optuna'" in message(tmp_path, "search.seed=1", search="optuna")
    assert "base: must be a mapping, got [1]" in message(tmp_path, "training.epochs=1", base=[1])


def test_a_space_is_found_by_name_and_a_misspelt_one_has_a_neighbour() -> None:
    assert load_search_space("smoke", []).study == "smoke"
    assert load_search_space("smoke.yaml", []).study == "smoke"
    assert "smoke" in space_names()
    with pytest.raises(ConfigError, match="no such file or name, got 'smok'. Did you mean 'smoke'?"):
        load_search_space("smok", [])


def test_a_space_extends_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "_shared.yaml").write_text(yaml.safe_dump({"base": {**BASE, "max_seq_len": 9}, "seeds": 3}))
    file = tmp_path / "own.yaml"
    own = {"extends": "_shared.yaml", "base": {"student.num_layers": 2}, "params": [{"method": "finetune"}]}
    file.write_text(yaml.safe_dump(own))
    space = load_search_space(str(file), ["max_seq_len=7"])
    assert space.base == {**BASE, "max_seq_len": 7, "student.num_layers": 2, "training.precision": ANY}
    assert (space.study, space.seeds) == ("own", [0, 1, 2])
    file.write_text(yaml.safe_dump({**own, "seeds": [5]}))
    assert load_search_space(str(file), []).seeds == [5]


@pytest.mark.parametrize("name", ["../other.yaml", "/etc/passwd", 3, None])
def test_only_a_file_beside_it_is_extended(tmp_path: Path, name: object) -> None:
    assert "extends must name a file beside it" in message(tmp_path, extends=name)


def test_a_file_that_is_extended_must_be_there(tmp_path: Path) -> None:
    assert "_gone.yaml: cannot be read" in message(tmp_path, extends="_gone.yaml")


@pytest.mark.parametrize("name", ["finetune-1", "finetune-1 vs ", "finetune vs probe", "a-1 vs b-1 vs c-1"])
def test_a_comparison_has_two_sides(tmp_path: Path, name: str) -> None:
    assert f"compare: must be '<row>-<layers> vs <row>-<layers>', got {name!r}" in message(tmp_path, compare=[name])


def test_a_probe_would_read_the_split_that_must_stay_closed(tmp_path: Path) -> None:
    told = message(tmp_path, params=[{"method": "probe"}], select={"read_test": False})
    assert "select.read_test: a probe reads both splits" in told
