"""From stages on disk to what is trained, without a cluster: a teacher is read as its settings say."""

import json
from pathlib import Path

import pytest
import torch

from orchestrator.planning.plan import Plan, add_row
from orchestrator.storage.stages import Stage
from orchestrator.training.assembly import Inputs, build_objective, build_student, experiment_of, inputs_of
from orchestrator.training.job import Job
from orchestrator.training.tasks import build_compressed, build_data, build_sasrec, build_states
from slmrec_core.compression import CompressionConfig, compress
from slmrec_core.data import SequenceDataset, synthetic_interactions
from slmrec_core.experiment import resolve
from slmrec_core.hardware import hardware_name
from slmrec_core.recommender import Recommender
from slmrec_core.training.config import EvaluationConfig
from slmrec_core.training.evaluation import Evaluator
from slmrec_core.training.loop import TrainingData
from tests.orchestrator.small_spaces import BASE, space_of

CPU = torch.device("cpu")
EVERY_TERM = BASE | {
    "method": "distill",
    "student.num_layers": 2,
    "distillation.logit_weight": 0.5,
    "max_seq_len": 8,
    "item_table.training.epochs": 1,
    "training.precision": "fp32",
}


def job_of(plan: Plan, stage: Stage, storage: Path) -> Job:
    experiment = plan.experiments[stage.stage_id].model_dump(mode="json")
    return Job(stage, experiment, storage, "x", plan.workers, threads=1, cpus=1.0, use_gpu=False, provenance={})


def built(storage: Path, **settings: object) -> Job:
    """The job of a distilled student, every stage that it reads built; the teacher is not trained."""
    plan = Plan()
    trial = add_row(plan, space_of({}), EVERY_TERM | settings, seed=0)
    for stage in plan.stages.values():
        job = job_of(plan, stage, storage)
        if stage.stage_id == trial.stage_id:
            return job
        if job.store.is_done(stage.stage_id):
            continue
        with job.store.build(stage, {}) as folder:
            if stage.kind == "data":
                build_data(experiment_of(job), folder)
            elif stage.kind == "sasrec":
                build_sasrec(job, folder)
            elif stage.kind == "states":
                build_states([job], [folder])
            else:
                dataset, student = inputs_of(job).dataset(), build_student(experiment_of(job), inputs_of(job))
                Recommender(student, list(dataset.item_ids), 8).save_pretrained(folder / "model")
    raise AssertionError(trial)


def test_data_are_read_and_filtered_as_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    # Item d is rated low; without it item c has one event, and goes after users were counted.
    rows = [*(f"u,{item},5,{time}" for time, item in enumerate("abaabc")), "u,d,1,9", *(f"v,d,1,{n}" for n in range(9))]
    path.write_text("\n".join(["user_id,item_id,stars,timestamp", *rows]))
    data = {"data.path": str(path), "data.rating_column": "stars", "data.min_rating": 2, "data.min_user": 6}
    experiment = resolve({**data, "data.min_item": 2, "data.k_core": "once"})
    build_data(experiment, tmp_path / "data")
    dataset = SequenceDataset.load(tmp_path / "data")
    assert dataset.user_ids.tolist() == ["u"]
    assert dataset.item_ids[dataset.events].tolist() == list("abaab")


def test_data_are_cut_at_the_moments_of_the_settings(tmp_path: Path) -> None:
    experiment = resolve({"data.path": "synthetic", "data.split": "global_time", "data.split_quantiles": [0.5, 0.7]})
    build_data(experiment, tmp_path)
    dataset = SequenceDataset.load(tmp_path)
    trained = dataset.history_lengths("train").sum() / dataset.num_events
    assert 0.4 < trained <= 0.5


def terms(job: Job) -> dict[str, float]:
    """Of the first users, in eval mode."""
    experiment = experiment_of(job)
    objective, teacher = build_objective(experiment, inputs_of(job), CPU)
    data = TrainingData(inputs_of(job).dataset(), experiment.max_seq_len, experiment.training)
    batch = data.batch(data.examples[:16])
    found = objective.eval()(batch.item_ids, batch.read_mask, batch.targets, teacher.signal(batch))
    return {name: value.item() for name, value in found.items()}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.mark.parametrize("split", ["leave_one_out", "global_time"])
def test_stored_states_are_the_live_teacher(storage: Path, split: str) -> None:
    # Cut at a point in time, some users have nothing to train on.
    stored = terms(built(storage, **{"data.split": split}))
    live = terms(built(storage, **{"data.split": split, "distillation.teacher_states": "recompute"}))
    assert {"next_item", "cosine", "norm", "supervision", "logit"} <= stored.keys()
    # States are kept in bfloat16.
    assert stored == pytest.approx(live, rel=2e-2)
    assert stored != live


def test_with_stored_states_the_teacher_is_not_loaded(storage: Path) -> None:
    job = built(storage)
    (storage / "stages" / job.stage.inputs["teacher"]).rename(storage / "away")
    assert terms(job)["cosine"] > 0
    (storage / "away").rename(storage / "stages" / job.stage.inputs["teacher"])


def test_the_teachers_cost_counts_its_training_and_one_pass_for_all_states(tmp_path: Path) -> None:
    folders = {}
    for role, seconds in {"teacher": 100.0, "states_2": 7.0, "states_4": 8.0}.items():
        folders[role] = tmp_path / role
        folders[role].mkdir()
        (folders[role] / "result.json").write_text(json.dumps({"seconds": seconds}))
    assert Inputs(folders).teacher_seconds() == 108.0
    assert Inputs({"teacher": folders["teacher"]}).teacher_seconds() == 100.0
    assert Inputs({"data": tmp_path}).teacher_seconds() is None


def test_a_trained_row_says_what_it_held(storage: Path) -> None:
    table = next((storage / "stages").glob("sasrec-*/result.json"))
    found = json.loads(table.read_text())
    # torch alone takes 100 MB.
    assert 10**8 < found["peak_memory_bytes"] < 10**11
    assert found["teacher_seconds"] is None
    assert found["hardware"] == hardware_name(CPU)


def test_a_model_that_is_passed_on_does_not_say_where_the_log_lay(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    synthetic_interactions().to_csv(log, index=False)
    job = built(tmp_path / "storage", method="finetune", **{"data.path": str(log)})
    config = (job.store.path(job.stage.inputs["item_table"]) / "model" / "config.json").read_text()
    assert json.loads(config)["metadata"]["settings"]["data"]["path"] == "log.csv"
    assert str(tmp_path) not in config


@pytest.mark.parametrize("settings", [{}, {"weights": "int4"}, {"keep_layers": 1}], ids=str)
def test_a_compressed_row_is_the_model_that_its_trained_stage_left(storage: Path, settings: dict[str, object]) -> None:
    names = {f"compression.{name}": value for name, value in settings.items()}
    job = built(storage, method="finetune", compressed=True, **names)
    with job.store.build(job.stage, {}) as folder:
        build_compressed(job, folder)
    found = json.loads((job.store.path(job.stage.stage_id) / "result.json").read_text())
    expected = compress(
        inputs_of(job).trained(),
        CompressionConfig.model_validate(settings),
        _training_histories(inputs_of(job).dataset()),
    )
    evaluator = Evaluator(inputs_of(job).dataset(), 8, EvaluationConfig(), CPU)
    (test,) = evaluator.rank_split(expected.network, "test")
    assert found["metrics"]["test/ndcg_at_10"] == test[0].metrics()["test/ndcg_at_10"]
    assert found["num_layers"] == settings.get("keep_layers", 2)
    saved = Recommender.from_pretrained(job.store.path(job.stage.stage_id) / "model")
    assert saved.metadata["metrics"] == found["metrics"]
    weights = job.store.path(job.stage.stage_id) / "model" / "model.safetensors"
    assert found["model_bytes"] == weights.stat().st_size
    assert 10**8 < found["peak_memory_bytes"] < 10**11


def _training_histories(dataset: SequenceDataset) -> list[list[str]]:
    return [[str(item) for item in dataset.item_ids[dataset.history(u, "train")]] for u in range(dataset.num_users)]
