"""Laws of training: what an epoch, a resumed run and the best epoch are."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.data import SequenceDataset, synthetic_interactions
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import NoTeacher
from slmrec_core.errors import CheckpointError, DataError, DivergedError
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.training.config import EvaluationConfig, TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine
from slmrec_core.training.evaluation import Evaluator, Ranking
from slmrec_core.training.item_table import train_sasrec
from slmrec_core.training.loop import (
    EpochRecord,
    Progress,
    TrainingData,
    fit,
    learning_rate,
    term_gradient_norms,
    train_epoch,
)
from tests.tiny import jolted, tiny_model

CPU = torch.device("cpu")
TRAINING = TrainingConfig(epochs=4, batch_size=8, learning_rate=1e-2, warmup_steps=2, precision="fp32")


def engine_of(training: TrainingConfig = TRAINING, seed: int = 0, dropout: float = 0.3) -> SingleProcessEngine:
    torch.manual_seed(seed)
    return SingleProcessEngine(Objective(SASRec(SASRecConfig(item_dim=8, dropout=dropout), 12, 40)), training)


def run(
    dataset: SequenceDataset,
    training: TrainingConfig = TRAINING,
    seed: int = 0,
    engine: SingleProcessEngine | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[SingleProcessEngine, Progress]:
    engine = engine or engine_of(training)
    evaluator = Evaluator(dataset, 30, EvaluationConfig(), CPU)
    done = fit(engine, TrainingData(dataset, 30, training), NoTeacher(), evaluator, seed, progress, on_epoch)
    return engine, done


def numbers(progress: Progress) -> list[dict[str, float]]:
    return [{k: v for k, v in record.metrics.items() if k != "train/seconds"} for record in progress.records]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(tiny_dataset: SequenceDataset) -> None:
    (_, one), (_, same), (_, other) = (run(tiny_dataset, seed=seed) for seed in (0, 0, 1))
    assert numbers(one) == numbers(same)
    assert numbers(one) != numbers(other)


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny_dataset: SequenceDataset, tmp_path: Path, after: int) -> None:
    saved: list[Progress] = []
    engine = engine_of()

    def checkpoint(progress: Progress) -> None:
        if progress.epochs_done == after:
            engine.save(tmp_path)
            saved.append(progress)

    _, straight = run(tiny_dataset, engine=engine, on_epoch=checkpoint)
    fresh = engine_of(seed=5)
    fresh.load(tmp_path)
    torch.manual_seed(77)
    _, resumed = run(tiny_dataset, engine=fresh, progress=saved[0])
    assert numbers(resumed) == numbers(straight)
    assert resumed.best_epoch == straight.best_epoch
    trained = sum(record.metrics["train/seconds"] for record in resumed.records)
    assert resumed.seconds > max(trained, saved[0].seconds), "epochs of both processes count"
    assert_close(fresh.trainable_state(), engine.trainable_state(), rtol=0.0, atol=0.0)


def test_the_best_epochs_weights_are_what_is_left(tiny_dataset: SequenceDataset) -> None:
    states: list[dict[str, Tensor]] = []
    engine = engine_of()
    _, progress = run(tiny_dataset, engine=engine, on_epoch=lambda p: states.append(engine.trainable_state()))
    values = [record.metrics["valid/ndcg_at_10"] for record in progress.records]
    assert progress.best_epoch == values.index(max(values)) + 1
    assert progress.best_value == max(values)
    assert_close(engine.trainable_state(), states[progress.best_epoch - 1], rtol=0.0, atol=0.0)
    ((ranking,),) = Evaluator(tiny_dataset, 30, EvaluationConfig(), CPU).rank_split(engine.objective.student, "valid")
    assert ranking.metrics()["valid/ndcg_at_10"] == max(values)
    (kept,) = progress.best_rankings
    assert kept.ranks.tolist() == ranking.ranks.tolist(), "the best epoch's, not the last one's"


def test_epochs_are_chosen_by_a_sample_and_the_last_choice_is_ranked_for_all(tiny_dataset: SequenceDataset) -> None:
    engine, config = engine_of(), EvaluationConfig(selection_users=4)
    evaluator = Evaluator(tiny_dataset, 30, config, CPU)
    choices: list[tuple[float, float]] = []

    def on_epoch(progress: Progress) -> None:
        (few,), ((everyone,),) = evaluator.rank_selection(student), evaluator.rank_split(student, "valid")
        assert len(few.ranks) == len(few.num_candidates) == 4
        assert few.ranks.tolist() == everyone.ranks[evaluator.selection].tolist()
        assert few.num_candidates.tolist() == everyone.num_candidates[evaluator.selection].tolist()
        choices.append((few.metrics()["valid/ndcg_at_10"], everyone.metrics()["valid/ndcg_at_10"]))
        assert progress.records[-1].metrics["valid/ndcg_at_10"] == choices[-1][0]

    student = engine.objective.student
    progress = fit(engine, TrainingData(tiny_dataset, 30, TRAINING), NoTeacher(), evaluator, 0, on_epoch=on_epoch)
    sampled = [few for few, _ in choices]
    assert progress.best_value == max(sampled)
    (kept,) = progress.best_rankings
    assert len(kept.ranks) == tiny_dataset.num_users
    assert kept.metrics()["valid/ndcg_at_10"] == choices[progress.best_epoch - 1][1]


def test_an_earlier_epoch_is_left_when_later_ones_are_worse() -> None:
    progress = Progress()
    for step, value in enumerate([0.1, 0.3, 0.2, 0.3], start=1):
        progress = progress.after_epoch(EpochRecord(step, 0, {}), value, lambda step=step: {"w": torch.tensor(step)})  # type: ignore[misc]
    assert (progress.best_epoch, progress.best_value, progress.best_state["w"].item()) == (2, 0.3, 2)
    assert progress.epochs_done == 4


def test_patience_counts_epochs_since_the_best() -> None:
    patient = TRAINING.model_copy(update={"epochs": 10, "patience": 2})
    assert not Progress(epochs_done=3, best_epoch=2).is_over(patient)
    assert Progress(epochs_done=4, best_epoch=2).is_over(patient)
    assert not Progress(epochs_done=9, best_epoch=1).is_over(patient.model_copy(update={"patience": None}))
    assert Progress(epochs_done=10, best_epoch=10).is_over(patient)
    assert not Progress().is_over(patient.model_copy(update={"patience": 1}))


def test_training_ends_when_patience_runs_out(tiny_dataset: SequenceDataset) -> None:
    # A rate that moves nothing: the first epoch stays the best.
    still = TRAINING.model_copy(update={"epochs": 9, "patience": 2, "learning_rate": 1e-30})
    _, progress = run(tiny_dataset, still)
    assert (progress.best_epoch, progress.epochs_done) == (1, 3)


def test_the_rate_warms_up_and_decays_as_worked_by_hand() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=3)
    rates = [learning_rate(step, total_steps=7, config=config) for step in range(8)]
    cosine = [0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(5)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, *cosine])
    assert rates[3] == 1.0
    assert rates[5] == pytest.approx(0.5)
    constant = config.model_copy(update={"schedule": "constant"})
    assert [learning_rate(step, 7, constant) for step in range(3, 7)] == [1.0] * 4


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(0, 10, TrainingConfig(learning_rate=0.5, warmup_steps=0)) == 0.5


def test_steps_get_the_schedules_rates_over_all_epochs(tiny_dataset: SequenceDataset) -> None:
    engine = engine_of()
    rates: list[float] = []
    step = engine.step
    engine.step = lambda rate: (rates.append(rate), step(rate))[1]  # type: ignore[method-assign]
    run(tiny_dataset, engine=engine)
    # 24 users in batches of 8: three steps in each of four epochs.
    assert rates == [learning_rate(index, 12, TRAINING) for index in range(12)]


def test_a_loss_that_is_no_number_stops_before_the_step(tiny_dataset: SequenceDataset) -> None:
    engine = engine_of()
    before = engine.trainable_state()
    engine.forward = lambda batch, teacher: {"next_item": torch.tensor(math.nan, requires_grad=True)}  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"got nan in epoch 1, step 1 .*Lower training\.learning_rate"):
        run(tiny_dataset, engine=engine)
    assert_close(engine.trainable_state(), before, rtol=0.0, atol=0.0)


def test_an_infinite_loss_stops_too(tiny_dataset: SequenceDataset) -> None:
    engine = engine_of()
    engine.forward = lambda batch, teacher: {"next_item": torch.tensor(math.inf, requires_grad=True)}  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="got inf"):
        run(tiny_dataset, engine=engine)


def test_weights_that_diverged_raise(tiny_dataset: SequenceDataset) -> None:
    with pytest.raises(DivergedError):
        run(tiny_dataset, TRAINING.model_copy(update={"learning_rate": 1e30, "gradient_clipping": None}))


@pytest.mark.parametrize(("warmup_steps", "warnings"), [(11, 0), (12, 1), (500, 1)])
def test_a_warm_up_longer_than_the_run_is_told_once(
    tiny_dataset: SequenceDataset, caplog: pytest.LogCaptureFixture, warmup_steps: int, warnings: int
) -> None:
    # 24 users in batches of 8: three steps in each of four epochs.
    run(tiny_dataset, TRAINING.model_copy(update={"warmup_steps": warmup_steps}))
    told = [record.getMessage() for record in caplog.records if "warmup_steps" in record.getMessage()]
    assert len(told) == warnings
    assert all(f"the run has 12 optimizer steps, got {warmup_steps}:" in message for message in told)


def test_a_diagnostic_without_a_value_does_not_spoil_the_epochs_mean(tiny_dataset: SequenceDataset) -> None:
    # A bug of ours: one target alone has no user cosine, and its NaN became the whole epoch's.
    data = TrainingData(tiny_dataset, 30, TRAINING.model_copy(update={"batch_size": 1000}))
    engine = engine_of()
    engine.accumulation_steps = 3
    values = iter([0.25, math.nan, 0.75])
    forward = engine.forward
    engine.forward = lambda b, t: forward(b, t) | {"block_1/user_cosine": torch.tensor(next(values))}  # type: ignore[method-assign]
    metrics = train_epoch(engine, data, NoTeacher(), 0, 0)
    assert 0.25 < metrics["train/block_1_user_cosine"] < 0.75
    engine.forward = lambda b, t: forward(b, t) | {"block_1/user_cosine": torch.tensor(math.nan)}  # type: ignore[method-assign]
    assert "train/block_1_user_cosine" not in train_epoch(engine, data, NoTeacher(), 0, 1)


def test_losses_are_logged_unweighted_and_the_total_weighted(tiny_dataset: SequenceDataset) -> None:
    engine = engine_of()
    engine.objective.config = engine.objective.config.model_copy(update={"next_item_weight": 0.25})
    metrics = train_epoch(engine, TrainingData(tiny_dataset, 30, TRAINING), NoTeacher(), 0, 0)
    assert metrics["train/loss"] == pytest.approx(0.25 * metrics["train/loss_next_item"])
    assert set(metrics) == {"train/loss", "train/loss_next_item"}


def test_no_user_with_a_target_is_a_data_error(tiny_dataset: SequenceDataset) -> None:
    short = synthetic_interactions(num_users=3, num_items=5).sort_values("timestamp").groupby("user_id").head(3)
    dataset = SequenceDataset.from_interactions(short, min_user=1, min_item=1)
    with pytest.raises(DataError, match="no user has a training target, got 3 users"):
        run(dataset)


def test_gradient_norms_of_the_terms_are_those_of_plain_autograd(
    item_table: Tensor, tiny_dataset: SequenceDataset
) -> None:
    model = jolted(tiny_model(item_table, lora_dropout=0.5))
    objective = Objective(model).train()
    batch = TrainingData(tiny_dataset, 5, TRAINING).batch(np.arange(4))
    norms = term_gradient_norms(objective, batch, None)
    assert objective.training
    assert all(p.grad is None for p in objective.parameters())
    objective.eval()
    objective(batch.item_ids, batch.read_mask, batch.targets)["next_item"].backward()
    expected = math.sqrt(sum(p.grad.square().sum().item() for p in objective.parameters() if p.grad is not None))
    assert norms == pytest.approx({"train/gradient_norm_next_item": expected}, rel=1e-5)


def test_every_event_of_a_long_history_is_a_target_once_with_all_windows(tiny_dataset: SequenceDataset) -> None:
    data = TrainingData(tiny_dataset, 4, TRAINING.model_copy(update={"windows": "all"}))
    users, _ = data.windows
    batch = data.batch(data.examples)
    assert data.targets_per_window[data.examples].tolist() == batch.read_mask.sum(dim=1).tolist()
    for user in range(tiny_dataset.num_users):
        rows = np.flatnonzero(users[data.examples] == user)
        targets = [batch.target_items[row][batch.read_mask[row]].tolist() for row in rows]
        # The newest window is the first; older ones follow, each one earlier in time.
        in_time_order = [item for window in reversed(targets) for item in window]
        assert in_time_order == tiny_dataset.history(user, "train")[1:].tolist()


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_and_long_epochs_go_through_the_same_batches(tiny_dataset: SequenceDataset, steps: int) -> None:
    whole = TrainingData(tiny_dataset, 30, TRAINING)
    assert whole.steps_per_epoch == whole.steps_per_pass == len(list(whole.batches(0, 0)))
    cut = TrainingData(tiny_dataset, 30, TRAINING.model_copy(update={"steps_per_epoch": steps}))
    asked = 2 * whole.steps_per_pass
    plain = [batch.tolist() for epoch in range(2) for batch in whole.batches(0, epoch)]
    ours = [batch.tolist() for epoch in range(asked) for batch in cut.batches(0, epoch)]
    assert ours[:asked] == plain


def test_an_epoch_of_some_steps_is_a_share_of_a_pass(tiny_dataset: SequenceDataset) -> None:
    data = TrainingData(tiny_dataset, 30, TRAINING)
    config = TRAINING.model_copy(update={"steps_per_epoch": 1, "schedule": "constant", "warmup_steps": 0})
    epochs = data.steps_per_pass
    straight = config.model_copy(update={"steps_per_epoch": None, "epochs": 1})
    (cut, progress), (whole, _) = (
        run(tiny_dataset, one, engine=engine_of(one, dropout=0.0))
        for one in (config.model_copy(update={"epochs": epochs}), straight)
    )
    assert sum(record.metrics["train/passes"] for record in progress.records) == pytest.approx(1.0)
    # Without dropout, ranking in between changes nothing about what is trained; `fit` leaves the best epoch's weights.
    if progress.best_epoch == epochs:
        assert_close(cut.trainable_state(), whole.trainable_state(), rtol=0.0, atol=0.0)


CASES: dict[str, dict[str, object]] = {
    "epochs": {"epochs": 3},
    "steps_per_epoch": {"steps_per_epoch": 1},
    "batch_size": {"batch_size": 5},
    "learning_rate": {"learning_rate": 2e-2},
    "weight_decay": {"weight_decay": 1.0},
    "warmup_steps": {"warmup_steps": 4},
    "schedule": {"schedule": "constant"},
    "adam_beta2": {"adam_beta2": 0.9},
    "gradient_clipping": {"gradient_clipping": 0.01},
    "targets": {"targets": "last"},
    "windows": {"windows": "all"},
}
ELSEWHERE = {
    "patience": test_training_ends_when_patience_runs_out,
    # Read by whoever builds the model: tests/unit/models/test_recommender.py shows what bfloat16 does.
    "precision": None,
    "checkpoint_metric": "test_the_checkpoint_metric_chooses_the_epoch",
}


def test_every_setting_has_a_case() -> None:
    assert set(CASES) | set(ELSEWHERE) == set(TrainingConfig.model_fields)


@pytest.mark.parametrize("name", CASES)
def test_every_setting_has_an_effect(tiny_dataset: SequenceDataset, name: str) -> None:
    base = TRAINING.model_copy(update={"epochs": 2})
    trained = []
    for config in (base, base.model_copy(update=CASES[name])):
        engine = engine_of(config, dropout=0.0)
        data = TrainingData(tiny_dataset, 6, config)
        trained.append([train_epoch(engine, data, NoTeacher(), 0, epoch) for epoch in range(2)])
    # More epochs also stretch the schedule.
    assert trained[0] != trained[1]


@pytest.mark.parametrize(("metric", "best"), [("valid/ndcg_at_10", 1), ("valid/mrr", 2)])
def test_the_checkpoint_metric_chooses_the_epoch(
    tiny_dataset: SequenceDataset, monkeypatch: pytest.MonkeyPatch, metric: str, best: int
) -> None:
    # Two users at rank 10 have the better NDCG@10, one at rank 3 and one far away the better MRR.
    of_epochs = iter([[10, 10], [3, 100]])

    def rank_selection(self: Evaluator, model: object) -> list[Ranking]:
        return [Ranking("valid", "full", np.array(next(of_epochs)), np.array([200, 200]))]

    monkeypatch.setattr(Evaluator, "rank_selection", rank_selection)
    config = TRAINING.model_copy(update={"epochs": 2, "checkpoint_metric": metric})
    assert run(tiny_dataset, config)[1].best_epoch == best


def test_sasrec_learns_the_ring() -> None:
    # The best possible predictor names the successor and is right 0.8 + 0.2 / 20 of the time; the most popular item
    # is right about once in 20.
    dataset = SequenceDataset.from_interactions(synthetic_interactions(num_users=120, num_items=20), 1, 1)
    training = TrainingConfig(
        epochs=8, batch_size=16, learning_rate=1e-2, warmup_steps=0, schedule="constant", precision="fp32"
    )
    # A ring that is walked round repeats items: masking seen ones would hide the answer's rivals.
    evaluation = EvaluationConfig(mask_seen=False)
    seen: list[int] = []
    model, progress = train_sasrec(
        dataset, SASRecConfig(item_dim=16, dropout=0.1), training, evaluation, 20, seed=0,
        on_epoch=lambda p: seen.append(p.epochs_done),
    )  # fmt: skip
    ((ranking,),) = Evaluator(dataset, 20, evaluation, CPU).rank_split(model, "test")
    popular = np.bincount(dataset.targets("test"), minlength=21).max() / dataset.num_users
    assert popular < 0.2
    assert ranking.metrics()["test/hit_rate_at_1"] > 0.6
    assert seen == list(range(1, 9))
    assert progress.best_value == max(record.metrics["valid/ndcg_at_10"] for record in progress.records)


@pytest.mark.parametrize("lost", ["between epochs", "while it was written"])
def test_sasrec_goes_on_where_it_was_stopped(tiny_dataset: SequenceDataset, tmp_path: Path, lost: str) -> None:
    training = TrainingConfig(epochs=4, batch_size=8, precision="fp32")
    arguments = (tiny_dataset, SASRecConfig(item_dim=8), training, EvaluationConfig(), 12, 3, CPU)
    whole, undisturbed = train_sasrec(*arguments)
    seen: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.epochs_done == 2:
            if lost == "while it was written":
                # What a kill leaves: a half-written folder, and the epoch before it.
                (tmp_path / ".writing-1234").mkdir()
                shutil.copytree(tmp_path / "epoch-2", tmp_path / "epoch-1")
                (tmp_path / "epoch-1" / "engine.pt").write_bytes(b"")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sasrec(*arguments, on_epoch=stop, checkpoints=tmp_path)
    again, progress = train_sasrec(*arguments, on_epoch=lambda p: seen.append(p.epochs_done), checkpoints=tmp_path)
    assert seen == [3, 4]
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])
    assert [r.metrics["train/loss"] for r in progress.records] == [r.metrics["train/loss"] for r in undisturbed.records]
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-4"]
    (tmp_path / "epoch-4" / "engine.pt").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"cannot be read, got .*Delete it"):
        train_sasrec(*arguments, checkpoints=tmp_path)
