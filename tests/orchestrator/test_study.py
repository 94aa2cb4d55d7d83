"""The study's record: rows without weights are rows, weights are made again only where they are needed."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.planning.plan import Plan, make_plan, wanted
from orchestrator.report.curves import Comparison
from orchestrator.report.rank_reader import RankReader
from orchestrator.report.results import collect
from orchestrator.space.search_space import SPACES_FOLDER, load_search_space
from orchestrator.storage.stages import StageStore
from orchestrator.study import study
from orchestrator.study.claims import Evidence, claims
from orchestrator.study.cost import DepthCost, read_costs
from orchestrator.study.page import _seeds, page_text, write_page
from orchestrator.study.questions import QUESTIONS, RECORD, TIERS
from orchestrator.study.rates import BEFORE_RATES, SEARCHES, chosen_rates, waiting_depths, with_rates
from orchestrator.study.rows import keep_row, put_back
from slmrec_core.data import SequenceDataset
from slmrec_core.errors import CheckpointError, ConfigError
from tests.orchestrator.fake_stages import write_stage
from tests.orchestrator.small_spaces import only, plan_of, space_of

FINETUNE: dict[str, Any] = {"method": "finetune", "student.num_layers": 4}
PROBE: dict[str, Any] = {"method": "probe", "teacher.num_layers": 4}
PROVENANCE = {
    "commit": "0123456789abcdef",
    "threads": 1,
    "python": "3.11.7",
    "device": "cpu",
    **{f"version.{name}": "1" for name in ("ray", "torch", "transformers", "peft", "deepspeed")},
}


def build(store: StageStore, plan: Plan, stage_id: str, scratch: Path, quality: float = 0.1) -> None:
    """One stage as it is left on disk: rows with numbers and weights, others with a file."""
    trial = next((trial for trial in plan.trials if trial.stage_id == stage_id), None)
    with store.build(plan.stages[stage_id], PROVENANCE) as folder:
        if trial is not None:
            shutil.copytree(write_stage(scratch, trial, quality), folder, dirs_exist_ok=True)
            (folder / "weights.safetensors").write_bytes(b"weights")
        else:
            (folder / "events.npy").write_bytes(b"data")


def build_all(store: StageStore, plan: Plan, scratch: Path) -> None:
    for stage_id in plan.stages:
        build(store, plan, stage_id, scratch)


@pytest.fixture
def stages(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "stages")


@pytest.fixture
def rows(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "study" / "rows")


def test_a_kept_row_gives_the_table_and_the_ranks_of_its_stage(
    stages: StageStore, rows: StageStore, tmp_path: Path
) -> None:
    plan = plan_of(FINETUNE, PROBE)
    build_all(stages, plan, tmp_path / "scratch")
    for trial in plan.trials:
        keep_row(stages, trial.stage_id, rows)
    pd.testing.assert_frame_equal(collect(plan.trials, rows.root), collect(plan.trials, stages.root))
    for stage, layer in ((only(plan, "finetune").stage_id, None), (only(plan, "probe").stage_id, 2)):
        there, here = (RankReader(s.root).values([(stage, layer)], "test/mrr") for s in (rows, stages))
        assert (there == here).all()
    users = pd.read_parquet(rows.path(only(plan, "probe").stage_id) / "ranks.parquet")["user_id"]
    assert (users != users.shift()).sum() == users.nunique(), "all of a user's ranks together: half the size"
    weights = {path.parent.name for path in rows.root.rglob("*.safetensors")}
    assert weights == {only(plan, "sasrec").stage_id}, "only of SASRec, whose item table the others read"
    for trial in plan.trials:
        rows.verify(trial.stage_id)
        assert "host" not in json.loads((rows.path(trial.stage_id) / "manifest.json").read_text())["provenance"]
    assert not [path for path in rows.root.iterdir() if path.name.startswith(".")]


def test_what_is_not_finished_is_not_kept_and_what_is_altered_is_refused(
    stages: StageStore, rows: StageStore, tmp_path: Path
) -> None:
    plan = plan_of(FINETUNE)
    row = only(plan, "finetune").stage_id
    keep_row(stages, row, rows)
    assert not rows.is_done(row)
    build(stages, plan, row, tmp_path / "scratch")
    (stages.path(row) / "result.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"result\.json must be as the manifest says"):
        keep_row(stages, row, rows)
    assert not rows.is_done(row)


def test_a_row_that_was_put_back_is_done_and_only_its_reader_asks_for_weights(
    stages: StageStore, rows: StageStore, tmp_path: Path
) -> None:
    plan = plan_of(FINETUNE)
    build_all(stages, plan, tmp_path / "scratch")
    for trial in plan.trials:
        keep_row(stages, trial.stage_id, rows)
    other = StageStore(tmp_path / "another machine" / "stages")
    for trial in plan.trials:
        put_back(rows, trial.stage_id, other)
        other.verify(trial.stage_id)
    row = only(plan, "finetune").stage_id
    assert other.is_done(row)
    assert not other.is_whole(row)
    assert wanted(plan, other) == set(), "nobody reads the data"
    # A probe reads the model: it is trained again, and for that the data; its item table was kept with the row.
    more = plan_of(FINETUNE, PROBE)
    assert wanted(more, other) == {only(more, kind).stage_id for kind in ("data", "finetune", "probe")}
    build(other, plan, row, tmp_path / "again", quality=0.2)
    assert other.is_whole(row), "the row made room for itself with its weights"
    assert wanted(more, other) == {only(more, kind).stage_id for kind in ("data", "probe")}
    assert other.is_whole(only(plan, "sasrec").stage_id)


def test_a_whole_stage_is_never_replaced_by_a_row(stages: StageStore, rows: StageStore, tmp_path: Path) -> None:
    plan = plan_of(FINETUNE)
    build_all(stages, plan, tmp_path / "scratch")
    row = only(plan, "finetune").stage_id
    keep_row(stages, row, rows)
    put_back(rows, row, stages)
    assert stages.is_whole(row)
    manifest = (rows.path(row) / "manifest.json").read_text()
    keep_row(stages, row, rows)
    assert (rows.path(row) / "manifest.json").read_text() == manifest
    assert json.loads(manifest)["left_out"] == ["weights.safetensors"]


def test_what_a_drawn_point_will_read_is_wanted_though_no_row_reads_it_yet(stages: StageStore) -> None:
    plan = plan_of(FINETUNE)
    plan.trials.clear()
    assert wanted(plan, stages) == set(plan.stages)


def test_a_question_runs_what_is_not_kept_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_dataset: SequenceDataset
) -> None:
    space, calls = space_of(FINETUNE, seeds=[0, 1]), list[list[str]]()
    plan, dataset = make_plan(space), tiny_dataset
    one = study.Study(tmp_path / "storage", tmp_path / "study", ["seeds=2"])

    class Sweep:
        """Builds everything at once, and ends well."""

        returncode: int | None = None

        def __init__(self, command: list[str]) -> None:
            calls.append(command)

        def __enter__(self) -> "Sweep":
            return self

        def __exit__(self, *error: object) -> None:
            return None

        def wait(self, timeout: float) -> None:
            build_all(one.stages, plan, tmp_path / "scratch")
            self.returncode = 0

    monkeypatch.setattr(study.subprocess, "Popen", Sweep)
    assert not one.record.exists()
    monkeypatch.setattr(study, "load_search_space", lambda name, settings: space)
    monkeypatch.setattr(study.SequenceDataset, "load", lambda folder: dataset)
    assert one.answer("baseline") == 0
    (command,) = calls
    assert load_search_space(command[2], []) == space, "settings and rates are in the file"
    assert json.loads((one.record / "data.json").read_text())["users"] == dataset.num_users
    frame = pd.read_csv(one.record / "baseline.csv")
    assert (frame["status"] == "finished").all()
    shutil.rmtree(one.storage)
    assert one.answer("baseline") == 0
    assert len(calls) == 1, "kept rows are done, on any machine"
    assert one.stages.is_done(only(plan_of(FINETUNE), "finetune").stage_id)


def test_a_question_that_was_interrupted_before_its_first_row_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = study.Study(tmp_path / "storage", tmp_path / "study", [])
    monkeypatch.setattr(study, "load_search_space", lambda name, settings: space_of(FINETUNE))
    monkeypatch.setattr(study.Study, "_sweep", lambda self, question, space, rows: 130)
    assert one.run(1) == 130
    frame = pd.read_csv(one.record / "baseline.csv")
    assert (frame["status"] == "missing").all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_study_ends_the_sweep_that_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # `kill` ended the study alone: its sweep trained on, and nobody kept its rows.
    sweep = tmp_path / "orchestrator" / "sweep.py"
    sweep.parent.mkdir()
    sweep.write_text(
        "import os, signal, sys\n"
        "for name in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(name, lambda number, frame: sys.exit(128 + number))\n"
        f"os.kill(os.getppid(), {int(number)})\n"
        "signal.pause()\n"
    )
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(study, "load_search_space", lambda name, settings: space_of(FINETUNE))
    before = signal.getsignal(number)
    assert study.Study(tmp_path / "storage", tmp_path / "study", []).run(1) == 128 + number
    assert signal.getsignal(number) == before


def search_table(record: Path, valid: dict[tuple[int, float], float], name: str) -> None:
    rows = [
        {"row": "finetune", "method": "finetune", "num_layers": depth, "teacher_layers": None, "num_blocks": None,
         "seed": 0, "training.learning_rate": rate, "stage_id": f"{depth}-{rate}", "valid/ndcg_at_10": value}
        for (depth, rate), value in valid.items()
    ]  # fmt: skip
    record.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).assign(status="finished").to_csv(record / f"{name}.csv", index=False)


SYNTHETIC = ["data.path=synthetic", "seeds=1"]
RATES = {0: 3.0e-3, 1: 3.0e-3, 2: 1.0e-3, 4: 1.0e-3, 8: 3.0e-4, 15: 3.0e-4, 22: 3.0e-4, 30: 3.0e-4}


def test_the_rate_of_a_depth_is_the_best_on_valid(tmp_path: Path) -> None:
    valid = {(depth, rate): 0.1 for depth in RATES for rate in (3.0e-4, 1.0e-3, 3.0e-3)}
    valid |= dict.fromkeys(RATES.items(), 0.2)
    for name in SEARCHES:
        depths = {stage.num_layers for stage in make_plan(load_search_space(f"study/{name}", SYNTHETIC)).trials}
        search_table(tmp_path / "study", {key: value for key, value in valid.items() if key[0] in depths}, name)
    assert chosen_rates(tmp_path / "study") == RATES


def test_a_depth_whose_search_is_not_finished_has_no_rate(tmp_path: Path) -> None:
    assert chosen_rates(tmp_path) == {}
    search_table(tmp_path / "study", {(1, 1.0e-3): 0.1, (1, 3.0e-3): 0.1, (2, 1.0e-3): 0.1}, "learning_rate")
    table = tmp_path / "study" / "learning_rate.csv"
    table.write_text(table.read_text().replace("finished", "missing", 1))
    assert chosen_rates(tmp_path / "study") == {2: 1.0e-3}


def test_rows_wait_for_their_rate_and_what_is_compared_with_them_too(tmp_path: Path) -> None:
    space = load_search_space("study/depth", SYNTHETIC)
    rates = {depth: rate for depth, rate in RATES.items() if depth < 30}
    assert waiting_depths(space, rates) == {30}
    now = with_rates(space, rates)
    rows = {trial.trial_id.rpartition("-")[0]: trial.stage_id for trial in make_plan(now).trials}
    later = {trial.trial_id.rpartition("-")[0]: trial.stage_id for trial in make_plan(with_rates(space, RATES)).trials}
    assert rows.items() < later.items()
    assert {name for name in later if name not in rows} == {"finetune-30-seed0"}
    assert now.compare == ["finetune-4 vs sasrec-0", "bf16-4 vs finetune-4"]
    with pytest.raises(ConfigError, match=r"got none for \[30\] layers. Run tier 1"):
        with_rates(load_search_space("study/probe", SYNTHETIC), rates)


QUESTIONS_WITH_RATES = [name for names in TIERS.values() for name in names if name not in BEFORE_RATES]


@pytest.mark.parametrize("question", QUESTIONS_WITH_RATES)
def test_every_model_of_a_question_is_trained_with_the_rate_of_its_depth(question: str) -> None:
    space = load_search_space(f"study/{question}", SYNTHETIC)
    plan, rated = make_plan(space), make_plan(with_rates(space, RATES))
    assert [trial.trial_id.rpartition("-")[0] for trial in rated.trials] == [
        trial.trial_id.rpartition("-")[0] for trial in plan.trials
    ], "the rows are the same"
    trained = [stage for stage in rated.stages.values() if stage.kind in ("finetune", "distill")]
    assert trained
    for stage in trained:
        model, training = stage.settings["model"], stage.settings["training"]
        assert training["learning_rate"] == RATES[model["num_layers"]], stage.stage_id  # type: ignore[index, call-overload]


def test_the_teacher_of_a_student_is_a_row_of_the_depths() -> None:
    spaces = {
        name: with_rates(load_search_space(f"study/{name}", SYNTHETIC), RATES) for name in ("depth", "distillation")
    }
    depth, distillation = (make_plan(space) for space in spaces.values())
    teachers = {stage.inputs["teacher"] for stage in distillation.of_kind("distill") if "teacher" in stage.inputs}
    assert len(teachers) == 1
    assert teachers < {stage.stage_id for stage in depth.of_kind("finetune")}


def test_a_rate_that_a_group_names_is_kept() -> None:
    own = space_of(FINETUNE | {"training.learning_rate": 7.0e-4}, {"method": "sasrec"})
    assert list(with_rates(own, {}).fixed_groups()) == list(own.fixed_groups())
    assert waiting_depths(own, {}) == set()


def kept(question: str, plan: Plan, tmp_path: Path) -> study.Study:
    """A study in which one question is answered."""
    one = study.Study(tmp_path / "storage", tmp_path / "study", [])
    build_all(one.stages, plan, tmp_path / "scratch")
    for trial in plan.trials:
        keep_row(one.stages, trial.stage_id, one.rows)
    collect(plan.trials, one.rows.root).to_csv(one.record / f"{question}.csv", index=False)
    facts = {
        "file": "log.txt",
        "users": 1_234,
        "items": 56,
        "events": 7_890,
        "has_timestamps": True,
        "fingerprint": "ab" * 32,
    }
    (one.record / "data.json").write_text(json.dumps(facts))
    return one


def test_the_page_has_every_row_and_says_what_is_open(tmp_path: Path) -> None:
    depths = {"method": "finetune", "student.num_layers": {"grid": [1, 2, 4]}}
    one = kept("depth", plan_of(depths, base={"training.precision": "fp32"}, seeds=[0, 1]), tmp_path)
    page = write_page(one.record)
    text = page.read_text()
    assert page == tmp_path / "study.md"
    assert "`log.txt`, after the 5-core: 1,234 users" in text
    assert "| split | leave-one-out in the order of time:" in text
    assert "item vectors of SASRec, frozen; computed in fp32, trained weights and scores in fp32; AdamW" in text
    assert "AdamW, 32 windows a step, weight decay 0.01, cosine rate" in text
    assert "| finetune | 2 |" in text
    assert "| finetune | 4 |" in text
    assert "## Not answered yet" in text
    assert "Not compared yet: finetune-0 vs finetune-30, " in text
    (step,) = [line for line in text.splitlines() if line.startswith("| finetune-4 vs finetune-2 |")]
    assert step.startswith("| finetune-4 vs finetune-2 | 2 |")
    assert step.count("|") == 6, "neither p nor verdict: it is on no list"
    assert "cannot be told here" in text
    figures = tmp_path / "study" / "figures" / "depth"
    assert [path.name for path in figures.iterdir()] == ["depth_ndcg_at_10.png"], "5 MB of HTML are not kept"
    assert "(study/figures/depth/depth_ndcg_at_10.png)" in text
    assert page_text(one.record) == text, "from the same rows, the same page"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"a": [0], "b": [0]}, "Seed 0 alone."),
        ({"a": [0, 1, 2], "b": [0, 1, 2]}, "Means over 3 seeds; bands"),
        ({"a": [0, 1, 2], "b": [0]}, "Means over 1 to 3 seeds, where there is no band one; bands"),
    ],
)
def test_a_figure_says_how_many_seeds_its_rows_have(seeds: dict[str, list[int]], said: str) -> None:
    rows = [(row, 4, seed, "finished") for row, own in seeds.items() for seed in own]
    # What is not finished is not drawn.
    frame = pd.DataFrame([*rows, ("c", 4, 7, "pending")], columns=["row", "num_layers", "seed", "status"])
    assert _seeds(frame).startswith(said)


def test_where_depth_is_not_the_question_the_picture_is_of_the_differences(tmp_path: Path) -> None:
    rows = [{"method": "finetune", "row": "ce"}, {"method": "distill", "row": "all"}]
    one = kept("distillation", plan_of(*rows, seeds=[0, 1]), tmp_path)
    text = write_page(one.record).read_text()
    assert "| all-4 vs ce-4 | 2 |" in text
    figures = tmp_path / "study" / "figures" / "distillation"
    assert [path.name for path in figures.iterdir()] == ["differences.png"]
    assert "(study/figures/distillation/differences.png)" in text


def test_the_page_has_a_column_for_every_protocol_that_was_asked_for(tmp_path: Path) -> None:
    protocols = {"evaluation.protocols": ["full", "unmasked"]}
    plan = plan_of({"method": "finetune", "student.num_layers": {"grid": [2, 4]}, "compressed": True}, base=protocols)
    one = kept("paper", plan, tmp_path)
    text = page_text(one.record)
    assert "| test MRR | unmasked NDCG@10 | unmasked MRR |" in text
    assert "sampled NDCG@10" not in text
    (row,) = [trial for trial in plan.trials if trial.num_layers == 2 and trial.method == "finetune"]
    metrics = json.loads((one.rows.path(row.stage_id) / "result.json").read_text())["metrics"]
    (line,) = [line for line in text.splitlines() if line.startswith("| finetune | 2 |")]
    assert line.endswith(f"| {metrics['test_unmasked/ndcg_at_10']:.4f} | {metrics['test_unmasked/mrr']:.4f} |")


def test_the_page_says_which_rows_were_computed_in_which_precision(tmp_path: Path) -> None:
    models = [{"method": "finetune"}, {"method": "finetune", "row": "bf16", "training.precision": "bf16"}]
    one = kept("depth", plan_of({"method": "sasrec"}, *models, base={"training.precision": "fp32"}), tmp_path)
    text = page_text(one.record)
    assert "computed in bf16, fp32, trained weights" in text
    header = "| row | layers | learning rate | precision | seeds | best epoch | valid NDCG@10 |"
    _, _, *rows = text[text.index(header) :].partition("\n\n")[0].splitlines()
    assert {row.split(" | ")[0][2:]: row.split(" | ")[3] for row in rows} == {
        "finetune": "fp32",
        "bf16": "bf16",
        "sasrec": "–",
    }


def test_a_claim_is_never_borne_out_by_what_is_undecided_or_not_measured() -> None:
    *measurable, large = claims(Evidence({}, {}))
    assert {(claim.measured, claim.verdict) for claim in measurable} == {("–", "not measured yet")}
    assert large.verdict == "cannot be told here"


def test_a_claim_about_ranking_takes_three_seeds() -> None:
    def told(num_seeds: int) -> tuple[str, str]:
        test = Comparison("all-4 vs ce-4", num_seeds, 0.005, (0.005,) * num_seeds, 0.004, 0.006, 0.001, 0.001, "better")
        found = claims(Evidence({}, {test.name: test}))
        return next((c.measured, c.verdict) for c in found if c.text.startswith("Distillation lifts"))

    assert told(3)[1] == "holds"
    assert told(2)[1] == "not measured yet"
    assert told(2)[0].endswith("with 2 of 3 seeds")


def test_speed_is_claimed_from_the_run_in_which_the_depths_took_turns(tmp_path: Path) -> None:
    def verdicts(rows: list[tuple[int, float, float]]) -> dict[str, tuple[str, str]]:
        columns = ("layers", "decoder, M", "targets/s", "training, times", "users/s", "ranking, times")
        run = {
            "cpu": "some CPU", "date": "2026-11-30T00:00:00+00:00", "commit": "0123456789abcdef",
            "settings": {"threads": 1, "precision": "fp32"},
            "rows": [dict(zip(columns, (n, float(n), 1.0, train, 1.0, rank), strict=True)) for n, train, rank in rows],
        }  # fmt: skip
        (tmp_path / "cost.json").write_text(json.dumps(run))
        found = claims(Evidence({}, {}, read_costs(tmp_path)))
        return {word: (c.measured, c.verdict) for c in found for word in ("trains", "ranks 8.0") if word in c.text}

    assert read_costs(tmp_path) is None
    assert verdicts([(4, 6.7, 7.9), (30, 1.0, 1.0)]) == {
        "trains": ("4 layers are 6.7 times as fast as 30, fine-tuned", "holds"),
        "ranks 8.0": ("4 layers are 7.9 times as fast as 30, fine-tuned", "does not hold"),
    }
    assert {verdict for _, verdict in verdicts([(0, 9.0, 9.0), (4, 1.0, 1.0)]).values()} == {"not measured yet"}


def test_the_columns_of_the_benchmark_are_those_that_the_page_reads() -> None:
    text = (SPACES_FOLDER.parent / "benchmarks" / "bench_depth.py").read_text()
    columns = re.findall(r'^ {12}"(.+?)": ', text, flags=re.MULTILINE)
    assert columns == ["layers", "decoder, M", "targets/s", "training, times", "users/s", "ranking, times"]
    assert len(columns) == len(dataclasses.fields(DepthCost))


def test_parameters_are_counted_once_both_models_are_kept() -> None:
    def spoken(*rows: tuple[int, float, float]) -> list[tuple[str, str]]:
        frame = pd.DataFrame(rows, columns=["num_layers", "params_decoder", "params_total"]).assign(method="finetune")
        found = claims(Evidence({"depth": frame}, {}))
        return [(c.measured, c.verdict) for word in ("decoder", "vocabulary") for c in found if word in c.text]

    whole = (30, 30.0, 60.0)
    assert spoken((4, 4.0, 34.0)) == [("–", "not measured yet")] * 2
    assert spoken((4, 4.0, 34.0), whole, whole) == [
        ("4 layers over 30: 0.133", "holds"),
        ("4 layers over 30: 0.567", "does not hold"),
    ]


def test_every_question_has_a_file_and_a_tier() -> None:
    files = {path.stem for path in (SPACES_FOLDER / "study").glob("[!_]*.yaml")}
    assert {question.name for question in QUESTIONS} == files == {name for names in TIERS.values() for name in names}


def test_the_page_in_the_repository_is_that_of_its_rows() -> None:
    assert RECORD.with_suffix(".md").read_text() == page_text(RECORD), "run `python -m orchestrator.study --page`"
