"""A search on disk: what is drawn, what is kept of it, and what a second start makes of that. Nothing is trained."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.error import TuneError

from orchestrator.builders import Builder
from orchestrator.drawing import Sampler
from orchestrator.planning.plan import make_plan
from orchestrator.planning.shared_stages import plan_shared_stages
from orchestrator.planning.trial import Trial
from orchestrator.resources import Allocation
from orchestrator.runner import with_failures
from orchestrator.searching import Search, run_search
from orchestrator.space.search_space import SearchSpace
from orchestrator.storage.failures import note_failure, read_failure
from orchestrator.storage.metrics_tail import MetricsTail
from orchestrator.storage.payload import append_record, write_records
from orchestrator.training.job import Job
from orchestrator.tuning import Watcher
from slmrec_core.errors import CheckpointError, TrialFailedError
from slmrec_core.training.loop import EpochRecord
from tests.orchestrator.small_spaces import space_of

DRAWN: dict[str, Any] = {"method": "distill", "distillation.cosine_weight": {"loguniform": [0.1, 1.0]}}
AXES = {
    "distillation.cosine_weight": {"loguniform": [0.1, 1.0]},
    "student.lora_dropout": {"uniform": [0.0, 0.5]},
    "student.lora_rank": {"randint": [2, 4]},
    "student.init": {"choice": ["base", "teacher"]},
    "distillation.teacher_layers": {"choice": [[1, 2, 3, 4], [2, 4, 6, 8]]},
}


def searched(**keys: Any) -> SearchSpace:
    group = keys.pop("group", DRAWN)
    return space_of(group, search={"algorithm": "optuna", **keys.pop("search", {})}, budget={"num_trials": 3}, **keys)


def search_of(storage: Path, space: SearchSpace | None = None, cpus: float = 0.95) -> tuple[Search, list[Trial]]:
    """The search of a sweep as one more start finds it, and the points that it showed."""
    space = space or searched()
    plan = make_plan(space)
    plan_shared_stages(plan, space)
    folder = storage / "sweeps" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[Trial] = []
    return Search(plan, space, Builder(storage, "one", Allocation(2, 1, cpus, False)), folder, shown.append), shown


def report(search: Search, job: Job, *values: float) -> None:
    for epoch, value in enumerate(values, start=1):
        metrics = {"train/loss": 3.0 / epoch, "valid/ndcg_at_10": value}
        search.note(job, {**metrics, "epoch": epoch, "best_value": max(values[:epoch]), "checkpoint_path": "x"})


def finish(job: Job) -> None:
    with job.store.build(job.stage, {}):
        pass


def fail(job: Job, message: str = "training: the loss must be finite, got nan.") -> None:
    note_failure(job.failure_file, TrialFailedError(message))


def whole_search(storage: Path) -> tuple[Search, list[Job]]:
    """Three points: one finished, one stopped, one failed."""
    search, _ = search_of(storage)
    jobs = [search.draw() for _ in range(3)]
    for job, value in zip(jobs, (0.2, 0.1, 0.9), strict=True):
        report(search, job, value, value / 2)
    finish(jobs[0])
    fail(jobs[2])
    for job in jobs:
        search.end(job)
    return search, jobs


def test_a_search_that_is_over_draws_nothing_when_it_is_started_again(tmp_path: Path) -> None:
    # Its state once went with Ray's files: the resumed sweep drew other points and chose another winner.
    search, jobs = whole_search(tmp_path)
    retried, _ = search_of(tmp_path)
    assert retried.draw().stage == jobs[2].stage
    finish(jobs[2])
    retried.end(jobs[2])
    again, shown = search_of(tmp_path)
    assert again.num_left == 0
    assert again.outcome() == retried.outcome()
    assert again.outcome().trials == shown
    assert [trial.stage_id for trial in shown] == [job.stage.stage_id for job in jobs]
    assert search.outcome().trials == shown


def test_the_best_point_that_did_not_fail_is_chosen_with_the_constants_of_its_group(tmp_path: Path) -> None:
    search, jobs = whole_search(tmp_path)
    outcome = search.outcome()
    assert outcome.chosen is not None
    weight = jobs[0].experiment["distillation"]["cosine_weight"]
    assert outcome.chosen["distillation.cosine_weight"] == weight
    assert outcome.chosen["method"] == "distill"
    assert outcome.failures == {jobs[2].stage.stage_id: f"{outcome.trials[2].trial_id}: training: the loss must be"
                                " finite, got nan."}  # fmt: skip
    assert outcome.endings == {
        outcome.trials[1].trial_id: ("stopped", {"train/loss": 1.5, "valid/ndcg_at_10": 0.05}),
        outcome.trials[2].trial_id: ("failed", {"train/loss": 1.5, "valid/ndcg_at_10": 0.45}),
    }


def test_a_point_that_failed_is_tried_again_and_its_old_message_is_gone(tmp_path: Path) -> None:
    _, jobs = whole_search(tmp_path)
    search, _ = search_of(tmp_path)
    assert search.num_left == 1
    job = search.draw()
    assert job.stage == jobs[2].stage
    assert not job.failure_file.exists()
    finish(job)
    search.end(job)
    assert search.outcome().failures == {}
    assert search.outcome().chosen is not None
    assert search_of(tmp_path)[0].num_left == 0


def test_what_was_open_when_the_sweep_was_killed_goes_on_under_its_name_on_the_cluster_as_it_is_now(
    tmp_path: Path,
) -> None:
    search, _ = search_of(tmp_path, cpus=7.9)
    before = [search.draw(), search.draw()]
    report(search, before[0], 0.3)
    search, shown = search_of(tmp_path)
    assert search.num_left == 3
    assert len(shown) == 2
    after = [search.draw(), search.draw()]
    assert [job.stage for job in after] == [job.stage for job in before]
    # Train takes up its checkpoint by the name of the run.
    assert [job.run_name for job in after] == [job.run_name for job in before]
    # The share of the first start's cluster would never be there on a smaller one.
    assert [(job.cpus, job.threads) for job in after] == [(0.95, 1)] * 2
    new = search.draw()
    assert new.stage not in [job.stage for job in before], "a sampler that begins anew draws other points"
    assert len(shown) == 3


def test_a_stage_that_was_deleted_is_trained_again(tmp_path: Path) -> None:
    search, jobs = whole_search(tmp_path)
    folder = jobs[0].store.path(jobs[0].stage.stage_id)
    (folder / "manifest.json").unlink()
    folder.rmdir()
    search, _ = search_of(tmp_path)
    assert [search.draw().stage for _ in range(search.num_left)] == [jobs[0].stage, jobs[2].stage]


def test_equal_points_have_runs_of_their_own_and_are_one_row(tmp_path: Path) -> None:
    search, shown = search_of(tmp_path, searched(group=DRAWN | {"distillation.cosine_weight": {"choice": [0.5]}}))
    jobs = [search.draw(), search.draw()]
    assert jobs[0].stage == jobs[1].stage
    assert jobs[0].run_name != jobs[1].run_name
    for job in jobs:
        report(search, job, 0.2)
    finish(jobs[0])
    for job in jobs:
        search.end(job)
    assert search.outcome().trials == shown[:1]
    assert search.outcome().endings == {}


def test_what_a_point_reports_is_kept_where_the_mirror_finds_it(tmp_path: Path) -> None:
    search, _ = search_of(tmp_path)
    job = search.draw()
    report(search, job, 0.1, 0.2)
    lines = (tmp_path / "sweeps/one/search" / job.stage.stage_id / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["metrics"] == {"train/loss": 1.5, "valid/ndcg_at_10": 0.2}


def test_what_an_earlier_start_did_not_hear_before_it_was_killed_is_kept_too(tmp_path: Path) -> None:
    search, _ = search_of(tmp_path)
    job = search.draw()
    # A builder that goes on from the checkpoint of its second epoch; nobody heard of the first two.
    with job.store.build(job.stage, {}) as folder:
        write_records(folder, [EpochRecord(step, 100 * step, {"train/loss": 3.0 / step}) for step in (1, 2)])
        for epoch in (3, 4):
            metrics = {"train/loss": 3.0 / epoch, "valid/ndcg_at_10": 0.1}
            search.note(job, {**metrics, "epoch": epoch, "best_value": 0.1})
            append_record(folder, EpochRecord(epoch, 100 * epoch, metrics))
        kept = MetricsTail(tmp_path / "sweeps/one/search", job.stage.stage_id).read()
    assert [row.step for row in kept] == [1, 2, 3, 4]
    assert [row.metrics["train/loss"] for row in kept] == [3.0, 1.5, 1.0, 0.75]
    assert [row.timestamp_ms for row in kept[:2]] == [100, 200], "the mirror may have them: the same point again"


def test_a_trial_that_reports_nothing_has_no_worth(tmp_path: Path) -> None:
    search, _ = search_of(tmp_path)
    job = search.draw()
    search.note(job, {"done": True})
    search.end(job)
    assert search.outcome().chosen is None


def test_drawn_points_need_neither_the_data_nor_the_models_again(tmp_path: Path) -> None:
    # Each trial once planned its point where it ran, and hashed the data and the models there.
    data, model = tmp_path / "events.csv", tmp_path / "model"
    data.write_text("user_id,item_id,timestamp\n1,2,3\n")
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 8}')
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    space = searched(base={"data.path": str(data), "backbone": str(model)})
    search, _ = search_of(tmp_path, space)
    first = search.draw()
    for path in (data, model / "model.safetensors"):
        os.truncate(path, 0)
    second = search.draw()
    assert first.stage.inputs == second.stage.inputs
    assert first.stage.settings["model"] == second.stage.settings["model"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"points": [{"settings": {}, "colour": 1}]}'])
def test_a_damaged_file_is_told_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweeps/one").mkdir(parents=True)
    (tmp_path / "sweeps/one/search.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"search: .*search.json must hold the points .* Delete it"):
        search_of(tmp_path)


def test_a_finished_search_is_read_back_without_a_cluster(tmp_path: Path) -> None:
    search, jobs = whole_search(tmp_path)
    finish(jobs[2])
    search.end(jobs[2])
    space = searched()
    plan = make_plan(space)
    builder = Builder(tmp_path, "one", Allocation(2, 1, 0.95, False))
    assert run_search(plan, space, builder, tmp_path / "sweeps/one", lambda trial: None) == search.outcome()


def test_a_failed_point_keeps_its_last_metrics_in_the_table(tmp_path: Path) -> None:
    outcome = whole_search(tmp_path)[0].outcome()
    assert with_failures(outcome.endings, outcome.trials, outcome.failures) == outcome.endings
    failed = {trial.trial_id for trial in outcome.trials if trial.stage_id in outcome.failures}
    assert with_failures({}, outcome.trials, outcome.failures) == dict.fromkeys(failed, ("failed", {}))


def test_a_trial_whose_process_was_lost_leaves_the_reason(tmp_path: Path) -> None:
    # Tune alone knows it; the stage once ended as "it was not built, and nothing says why".
    search, _ = search_of(tmp_path)
    job = search.draw()
    ended: list[Job] = []
    watcher = Watcher(search.note, ended.append)
    lost = SimpleNamespace(config={"jobs": [job.to_dict()]}, get_error=lambda: TuneError("the node died"))
    watcher.on_trial_error(1, [], lost)
    message = read_failure(job.failure_file)
    assert message is not None
    assert "the process that steers its trial was lost, got the node died" in message
    assert ended == [job]
    # What a trial has said itself says more.
    fail(job, "training: mine.")
    watcher.on_trial_error(1, [], lost)
    assert read_failure(job.failure_file) == "training: mine."


# What is drawn


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_points_are_drawn_from_every_kind_of_distribution_and_can_be_learnt_from(algorithm: str) -> None:
    space = space_of({"method": "distill", **AXES}, search={"algorithm": algorithm})
    sampler = Sampler(space)
    points = [sampler.draw() for _ in range(30)]
    for point in points:
        # As it is read back from disk.
        sampler.learn(json.loads(json.dumps(point)), 0.5)
        assert 0.1 <= point["distillation.cosine_weight"] <= 1.0
        assert 0.0 <= point["student.lora_dropout"] <= 0.5
    assert {point["student.lora_rank"] for point in points} == {2, 3}, "the upper end is not drawn"
    assert {point["student.init"] for point in points} == {"base", "teacher"}
    assert {str(point["distillation.teacher_layers"]) for point in points} == {"[1, 2, 3, 4]", "[2, 4, 6, 8]"}
    assert [Sampler(space).draw() for _ in range(2)] == points[:1] * 2, "the seed decides"
    other = replace_seed(space, 1)
    assert Sampler(space, num_known=1).draw() == Sampler(other).draw() != points[0]


def replace_seed(space: SearchSpace, seed: int) -> SearchSpace:
    return space.model_copy(update={"search": space.search.model_copy(update={"seed": seed})})


def test_optuna_draws_where_points_turned_out_well() -> None:
    space = space_of(DRAWN | {"distillation.cosine_weight": {"uniform": [0.0, 1.0]}}, search={"algorithm": "optuna"})
    sampler = Sampler(space)
    for _ in range(40):
        point = sampler.draw()
        sampler.learn(point, -abs(point["distillation.cosine_weight"] - 0.8))
    late = [sampler.draw()["distillation.cosine_weight"] for _ in range(10)]
    # Uniform draws lie 0.34 from 0.8 on average.
    assert sum(abs(weight - 0.8) for weight in late) / 10 < 0.17
