"""The result table, its curves and comparisons, from stages on disk."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.planning.trial import Trial
from orchestrator.report import curves as curves_module
from orchestrator.report import rank_reader
from orchestrator.report.curves import CurvePoint, best_settings, curves, paired_comparisons
from orchestrator.report.results import LEAD_COLUMNS, best_student, collect, format_table, write_results
from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.metrics import bootstrap_interval, ndcg, per_user_ndcg
from tests.orchestrator.fake_stages import make_trial, ranks_of, write_stage


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    return tmp_path / "stages"


def full_study(stages: Path, seeds: range = range(2)) -> list[Trial]:
    """Two depths of three methods, SASRec, and a probe of the deepest."""
    trials = []
    for seed in seeds:
        trials += [make_trial("sasrec", 0, seed), make_trial("probe", 2, seed)]
        trials += [make_trial(method, depth, seed) for method in ("finetune", "distill") for depth in (4, 8)]
    for trial in trials:
        write_stage(stages, trial, quality=0.05 + 0.01 * trial.num_layers + (0.1 if trial.method == "distill" else 0))
    return trials


@dataclass(frozen=True)
class Study:
    stages: Path
    trials: list[Trial]
    frame: pd.DataFrame
    points: list[CurvePoint]


few_draws = partial(bootstrap_interval, num_samples=100)


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """Intervals of a hundred draws: enough to tell one number from another, and twenty times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_reader, "bootstrap_interval", few_draws)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Computed once."""
    stages = tmp_path_factory.mktemp("study") / "stages"
    trials = full_study(stages)
    frame = collect(trials, stages)
    return Study(stages, trials, frame, curves(frame, stages))


def at(points: list[CurvePoint], row: str, num_layers: int, metric: str = "test/ndcg_at_10") -> CurvePoint:
    (point,) = (p for p in points if (p.row, p.num_layers, p.metric) == (row, num_layers, metric))
    return point


def test_a_row_per_trial_and_seed_and_per_layer_of_a_probe(study: Study) -> None:
    frame = study.frame
    assert tuple(frame.columns[:7]) == LEAD_COLUMNS
    assert list(frame.columns[7:9]) == ["student.num_layers", "training.lr"]
    assert frame.columns[-1] == "status"
    assert (frame["status"] == "finished").all()
    assert len(frame) == 2 * (1 + 3 + 4)
    probe = frame[(frame["method"] == "probe") & (frame["seed"] == 1)]
    assert probe["num_layers"].tolist() == [0, 1, 2]
    assert probe["params_decoder"].tolist() == [0, 1_000_000, 2_000_000]
    # Valid before test, so that the eye does not choose by test.
    metrics = [name for name in frame.columns if "/" in name]
    assert [name.split("/")[0] for name in metrics] == ["valid"] * 6 + ["test"] * 6


def test_a_number_of_the_table_is_the_one_in_the_stage(stages: Path) -> None:
    trial = make_trial("finetune", 4)
    write_stage(stages, trial, quality=0.2)
    row = collect([trial], stages).iloc[0]
    assert row["test/ndcg_at_10"] == ndcg(ranks_of(0.2, 1), 10)
    assert row["params_total"] == 4_500_000
    assert row["seconds"] == 12.5


def test_two_rows_may_share_a_stage(stages: Path) -> None:
    shared = [
        make_trial("finetune", 8, stage="finetune-x"),
        make_trial("finetune", 8, row="teacher", stage="finetune-x"),
    ]
    write_stage(stages, shared[0])
    frame = collect(shared, stages)
    assert frame["row"].tolist() == ["finetune", "teacher"]
    assert frame["test/mrr"].nunique() == 1


def test_trials_without_a_stage_say_how_they_ended(stages: Path) -> None:
    trials = [make_trial("finetune", depth) for depth in (1, 2, 4)]
    endings = {
        trials[0].trial_id: ("failed", {}),
        trials[1].trial_id: ("stopped", {"valid/mrr": 0.25, "train/loss": 3.0}),
    }
    frame = collect(trials, stages, endings)  # type: ignore[arg-type]
    assert frame["status"].tolist() == ["failed", "stopped", "missing"]
    assert frame["valid/mrr"].tolist()[1] == 0.25
    assert "train/loss" not in frame
    assert curves(frame, stages) == []
    assert "finetune-1-seed0-a: no result (failed)." in format_table(frame)


def test_a_damaged_result_names_its_stage(stages: Path) -> None:
    trial = make_trial("finetune", 4)
    (write_stage(stages, trial) / "result.json").write_text('{"method": "finetune"')
    with pytest.raises(CheckpointError, match=r"stage finetune-40: result\.json cannot be read.*Delete the stage"):
        collect([trial], stages)


def test_a_curve_is_the_mean_over_seeds_with_the_spread_beside_it(study: Study) -> None:
    point = at(study.points, "distill", 4)
    values = [ndcg(ranks_of(0.19, 100 * seed + 1), 10) for seed in (0, 1)]
    assert point.mean == pytest.approx(sum(values) / 2)
    assert point.sd == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    expected = few_draws(per_user_ndcg(np.stack([ranks_of(0.19, 1), ranks_of(0.19, 101)]), 10))
    assert (point.low, point.high) == (expected.low, expected.high)
    assert point.num_seeds == 2


def test_one_seed_has_no_spread_and_reads_no_ranks(stages: Path) -> None:
    trial = make_trial("finetune", 4)
    (write_stage(stages, trial) / "ranks.parquet").unlink()
    point = at(curves(collect([trial], stages), stages), "finetune", 4)
    assert (point.sd, point.low, point.high, point.num_seeds) == (None, None, None, 1)


def test_sasrec_is_repeated_at_every_depth(study: Study) -> None:
    flat = [p for p in study.points if p.row == "sasrec" and p.metric == "test/mrr"]
    assert [p.num_layers for p in flat] == [0, 1, 2, 4, 8]
    assert len({(p.mean, p.low, p.high) for p in flat}) == 1


def test_sasrec_alone_stays_where_it_is(stages: Path) -> None:
    trial = make_trial("sasrec", 0)
    write_stage(stages, trial)
    assert at(curves(collect([trial], stages), stages), "sasrec", 0).num_seeds == 1


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_an_interval_of_a_probe_is_that_of_its_layer(study: Study, layer: int) -> None:
    point = at(study.points, "probe", layer)
    assert point.low is not None
    assert point.high is not None
    assert point.low <= point.mean <= point.high


def test_among_several_settings_the_best_on_valid_is_drawn_and_noted(stages: Path) -> None:
    weak, strong = (make_trial("distill", 4, **{"distillation.cosine_weight": weight}) for weight in (0.1, 1.0))
    write_stage(stages, weak, quality=0.1)
    write_stage(stages, strong, quality=0.4)
    frame = collect([weak, strong], stages)
    chosen = best_settings(frame)
    assert chosen.frame["trial_id"].tolist() == [strong.trial_id]
    assert chosen.notes == [
        "distill, 4 layers: best of 2 settings by valid/ndcg_at_10: distillation.cosine_weight=1.0."
    ]
    assert at(curves(frame, stages), "distill", 4).mean == frame["test/ndcg_at_10"][1]
    assert chosen.notes[0] in format_table(frame)
    assert best_student(frame, stages) is None, "a row that was kept without its weights"
    (stages / strong.stage_id / "model").mkdir()
    assert best_student(frame, stages) == stages / strong.stage_id / "model"


def test_seeds_are_not_settings(stages: Path) -> None:
    trials = [make_trial("finetune", 4, seed, **{"training.seed": seed}) for seed in (0, 1)]
    for trial in trials:
        write_stage(stages, trial)
    assert at(curves(collect(trials, stages), stages), "finetune", 4).num_seeds == 2


@pytest.mark.parametrize("metric", ["test/ndcg_at_10", "valid/loss"])
def test_settings_are_chosen_by_a_measured_valid_metric_only(stages: Path, metric: str) -> None:
    trials = [make_trial("distill", 4, **{"training.weight": weight}) for weight in (0.1, 1.0)]
    for trial in trials:
        write_stage(stages, trial)
    with pytest.raises(ConfigError, match=metric):
        best_settings(collect(trials, stages), metric)


def test_seeds_on_other_users_are_refused(stages: Path) -> None:
    trials = [make_trial("finetune", 4, seed) for seed in (0, 1)]
    for trial in trials:
        path = write_stage(stages, trial) / "ranks.parquet"
    pd.read_parquet(path).query("user_id != 7").to_parquet(path)
    with pytest.raises(DataError, match="same users, got 60 in finetune-40 and 59 in finetune-41"):
        curves(collect(trials, stages), stages)


def test_missing_ranks_name_their_stage(stages: Path) -> None:
    trials = [make_trial("finetune", 4, seed) for seed in (0, 1)]
    for trial in trials:
        (write_stage(stages, trial) / "ranks.parquet").unlink()
    with pytest.raises(CheckpointError, match=r"stage finetune-40: ranks\.parquet"):
        curves(collect(trials, stages), stages)


def test_students_are_compared_with_their_depth_and_with_their_teacher(study: Study) -> None:
    # The teacher is the model fine-tuned at its depth: that is one comparison.
    teachers = [make_trial("finetune", 8, seed, row="teacher", stage=f"finetune-8{seed}") for seed in (0, 1)]
    frame = collect([*study.trials, *teachers], study.stages)
    found = paired_comparisons(frame, study.stages)
    assert [c.name for c in found] == ["distill-4 vs finetune-4", "distill-4 vs finetune-8", "distill-8 vs finetune-8"]
    means = frame.groupby(["row", "num_layers"])["test/ndcg_at_10"].mean()
    assert found[0].difference == pytest.approx(means["distill", 4] - means["finetune", 4])
    assert all(c.p_value <= c.p_value_holm <= 1 for c in found)


def test_a_student_without_a_teacher_is_compared_with_its_depth_alone(stages: Path) -> None:
    # Cross entropy and supervision heads ask for no teacher.
    alone = replace(make_trial("distill", 4, row="ce_supervision"), teacher_layers=None)
    trials = [alone, make_trial("distill", 4), make_trial("finetune", 4), make_trial("finetune", 8)]
    for trial in trials:
        write_stage(stages, trial)
    found = paired_comparisons(collect(trials, stages), stages)
    assert [c.name for c in found] == [
        "ce_supervision-4 vs finetune-4", "distill-4 vs finetune-4", "distill-4 vs finetune-8",
    ]  # fmt: skip


def test_listed_comparisons_are_the_family_whatever_the_methods(study: Study) -> None:
    listed = ["finetune-4 vs sasrec-0", "probe-1 vs finetune-8", "finetune-30 vs finetune-8"]
    found = paired_comparisons(study.frame, study.stages, listed=listed)
    # What is not trained yet is left out, and counts in the correction all the same.
    assert [c.name for c in found] == listed[:2]
    assert [c.num_seeds for c in found] == [2, 2]
    smallest = min(found, key=lambda c: c.p_value)
    assert smallest.p_value_holm == pytest.approx(min(1.0, 3 * smallest.p_value))
    means = study.frame.groupby(["row", "num_layers"])["test/ndcg_at_10"].mean()
    assert found[1].difference == pytest.approx(means["probe", 1] - means["finetune", 8])


def test_a_closed_test_split_is_left_out_of_the_table(study: Study) -> None:
    frame = collect(study.trials, study.stages, read_test=False)
    assert "valid/ndcg_at_10" in frame
    assert not [name for name in frame if name.startswith("test")]
    assert paired_comparisons(frame, study.stages) == []
    assert "finetune" in format_table(frame)


def test_the_files_hold_the_same_numbers(study: Study, tmp_path: Path) -> None:
    frame = collect([*study.trials, make_trial("finetune", 2)], study.stages)
    table, summary = write_results(frame, study.points, tmp_path / "sweep", {"commit": "abc"})
    pd.testing.assert_frame_equal(pd.read_csv(table)[["test/mrr"]], frame[["test/mrr"]].astype(float), check_exact=True)
    content = json.loads(summary.read_text())
    assert content["commit"] == "abc"
    assert content["seeds"] == [0, 1]
    assert len(content["curves"]) == len(study.points)
    assert content["table"][-1]["test/mrr"] is None
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["results.csv", "summary.json"]


def test_writing_again_replaces_the_files_as_a_whole(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = study.frame
    table, _ = write_results(frame, [], tmp_path, {})
    before = table.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_results(frame.head(1), [], tmp_path, {})
    assert table.read_bytes() == before
    assert not list(tmp_path.glob(".results*"))


def test_the_table_fits_a_terminal_and_is_sorted(study: Study) -> None:
    long_name = make_trial("distill", 8, row="distill-with-a-name-that-goes-on-and-on-and-on", stage="distill-80")
    text = format_table(collect([*study.trials, long_name], study.stages))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    assert len({len(line) for line in lines}) == 1
    rows = [line.split()[:2] for line in lines[1:]]
    assert [row for row in rows if row[0] == "probe"] == [["probe", "0"], ["probe", "1"], ["probe", "2"]]
    assert rows[0] == ["distill", "4"]
    assert "±" in lines[1]


def test_rows_that_share_a_teacher_are_marked(stages: Path) -> None:
    trial = Trial(**{**vars(make_trial("finetune", 4)), "shared_teacher": True})
    write_stage(stages, trial)
    text = format_table(collect([trial], stages))
    assert "finetune*" in text
    assert "share one teacher" in text


def test_intervals_are_drawn_for_the_metrics_of_the_contract() -> None:
    assert {"test/ndcg_at_10", "test/hit_rate_at_10", "test/mrr"} <= set(curves_module.INTERVAL_METRICS)
