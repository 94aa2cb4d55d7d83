"""Laws of one optimizer step: how a batch is shared out changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.data import SequenceDataset
from slmrec_core.distillation.blocks import pair_blocks
from slmrec_core.distillation.config import DistillationConfig
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import LiveTeacher, NoTeacher
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.training.config import TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine, TrainingEngine, build_optimizer, share_of_batch
from slmrec_core.training.loop import TrainingData, train_epoch
from tests.tiny import jolted, tiny_model

TRAINING = TrainingConfig(
    epochs=1, batch_size=7, learning_rate=1e-2, warmup_steps=0, schedule="constant", precision="fp32"
)


def sasrec(seed: int = 0, dropout: float = 0.0) -> Objective:
    torch.manual_seed(seed)
    return Objective(SASRec(SASRecConfig(item_dim=8, dropout=dropout), 12, 40))


def students_of_a_teacher(item_table: Tensor) -> tuple[Objective, LiveTeacher]:
    config = DistillationConfig(logit_weight=0.3, num_blocks=2)
    pairing = pair_blocks(2, 3, 2)
    live = LiveTeacher(jolted(tiny_model(item_table, num_layers=3, seed=4)), pairing.teacher_layers, "hidden_states")
    torch.manual_seed(0)
    objective = Objective(jolted(tiny_model(item_table)), config, pairing, [30.0, 40.0], teacher_width=32)
    return objective, live


def determined(engine: SingleProcessEngine) -> dict[str, Tensor]:
    """Trained weights without the keys' biases: softmax cancels them, so Adam would compare rounding errors."""
    return {name: weight for name, weight in engine.trainable_state().items() if not name.endswith("key.bias")}


class Lockstep:
    """Several workers in one process, each with its own copy: their gradients are added before every step."""

    def __init__(self, workers: list[SingleProcessEngine]) -> None:
        self.workers = workers

    def step_together(self, batches: list[np.ndarray], data: TrainingData, size: int) -> list[dict[str, float]]:
        sums: list[dict[str, float]] = []
        for windows in batches:
            num_targets = int(data.targets_per_window[windows].sum())
            sums.append({})
            for rank, worker in enumerate(self.workers):
                for share in share_of_batch(windows, rank, size, worker.accumulation_steps):
                    if not len(share):
                        continue
                    batch = data.batch(share)
                    terms = worker.forward(batch, None)
                    weight = int(data.targets_per_window[share].sum()) / num_targets
                    worker.backward(worker.objective.total(terms) * weight)
                    sums[-1]["loss"] = sums[-1].get("loss", 0.0) + worker.objective.total(terms).item() * weight
            self._add_gradients()
            for worker in self.workers:
                worker.step(1e-2)
        return sums

    def _add_gradients(self) -> None:
        for parameters in zip(*(w.objective.parameters() for w in self.workers), strict=True):
            total = sum(p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters)
            for parameter in parameters:
                parameter.grad = total.clone()  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_accumulating_over_micro_batches_equals_one_large_batch(tiny_dataset: SequenceDataset, steps: int) -> None:
    # Users have unequal numbers of targets, and 8 steps over 7 users leave one micro-batch empty.
    data = TrainingData(tiny_dataset, 30, TRAINING)
    assert len(set(data.targets_per_window[:7].tolist())) > 1
    whole, parts = (SingleProcessEngine(sasrec(), TRAINING, accumulation_steps=n) for n in (1, steps))
    expected, found = (train_epoch(engine, data, NoTeacher(), seed=0, epoch=0) for engine in (whole, parts))
    assert found == pytest.approx(expected, rel=1e-5)
    assert_close(determined(parts), determined(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_accumulation_changes_no_term_of_distillation(
    tiny_dataset: SequenceDataset, item_table: Tensor, targets: str
) -> None:
    config = TRAINING.model_copy(update={"targets": targets, "batch_size": 12})
    data = TrainingData(tiny_dataset, 10, config)
    metrics, states = [], []
    for steps in (1, 5):
        objective, live = students_of_a_teacher(item_table)
        engine = SingleProcessEngine(objective, config, accumulation_steps=steps)
        metrics.append({k: v for k, v in train_epoch(engine, data, live, 0, 0).items() if "user_cosine" not in k})
        states.append(engine.trainable_state())
    assert {"train/loss_cosine", "train/loss_norm", "train/loss_supervision", "train/loss_logit"} < set(metrics[0])
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4)
    assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_several_workers_equal_one(tiny_dataset: SequenceDataset, num_workers: int) -> None:
    data = TrainingData(tiny_dataset, 30, TRAINING)
    batches = data.in_order(7)
    alone = Lockstep([SingleProcessEngine(sasrec(), TRAINING)])
    together = Lockstep([SingleProcessEngine(sasrec(), TRAINING, accumulation_steps=2) for _ in range(num_workers)])
    expected, found = (w.step_together(batches, data, len(w.workers)) for w in (alone, together))
    assert [step["loss"] for step in found] == pytest.approx([step["loss"] for step in expected], rel=1e-5)
    for worker in together.workers:
        assert_close(determined(worker), determined(alone.workers[0]), rtol=1e-4, atol=1e-5)


def test_a_mean_of_means_would_be_another_number(tiny_dataset: SequenceDataset) -> None:
    # So that the laws above can fail: shares of one batch have unequal counts, and their plain mean differs.
    data = TrainingData(tiny_dataset, 30, TRAINING)
    objective = sasrec()
    losses, counts = [], []
    for share in share_of_batch(np.arange(7), 0, 1, 2):
        batch = data.batch(share)
        losses.append(objective(batch.item_ids, batch.read_mask, batch.targets)["next_item"].item())
        counts.append(len(batch.targets))
    weighted = np.average(losses, weights=counts)
    assert abs(np.mean(losses) - weighted) > 1e-4


@given(num=st.integers(0, 40), workers=st.integers(1, 5), steps=st.integers(1, 5))
def test_shares_cover_the_batch_once_and_differ_by_one_at_most(num: int, workers: int, steps: int) -> None:
    windows = np.arange(num)
    shares = [share for rank in range(workers) for share in share_of_batch(windows, rank, workers, steps)]
    assert len(shares) == workers * steps
    assert sorted(np.concatenate(shares).tolist()) == windows.tolist()
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_save_and_load_continue_as_if_nothing_had_happened(tiny_dataset: SequenceDataset, tmp_path: Path) -> None:
    data = TrainingData(tiny_dataset, 30, TRAINING)
    straight = SingleProcessEngine(sasrec(), TRAINING)
    train_epoch(straight, data, NoTeacher(), 0, 0)
    straight.save(tmp_path)
    other = SingleProcessEngine(sasrec(seed=9), TRAINING)
    other.load(tmp_path)
    for engine in (straight, other):
        train_epoch(engine, data, NoTeacher(), 0, 1)
    assert_close(other.trainable_state(), straight.trainable_state(), rtol=0.0, atol=0.0)


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    engine = SingleProcessEngine(sasrec(), TRAINING)
    engine.save(tmp_path)
    assert torch.load(tmp_path / "engine.pt", weights_only=True).keys() == {"weights", "optimizer"}


def test_trainable_state_is_a_copy_of_the_trained_weights_alone(item_table: Tensor) -> None:
    objective, _ = students_of_a_teacher(item_table)
    engine = SingleProcessEngine(objective, TRAINING)
    state = engine.trainable_state()
    assert set(state) == {name for name, p in objective.named_parameters() if p.requires_grad}
    with torch.no_grad():
        objective.student.input_projection.weight += 1  # type: ignore[union-attr, operator]
    assert not torch.equal(
        state["student.input_projection.weight"], engine.trainable_state()["student.input_projection.weight"]
    )
    engine.load_trainable(state)
    assert_close(engine.trainable_state(), state, rtol=0.0, atol=0.0)


def test_weight_decay_spares_vectors_and_no_group_is_empty() -> None:
    optimizer = build_optimizer(sasrec(), TRAINING)
    assert [{p.dim() for p in group["params"]} for group in optimizer.param_groups] == [{2}, {1}]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [TRAINING.weight_decay, 0.0]
    (only,) = build_optimizer(torch.nn.Linear(2, 2, bias=False), TRAINING).param_groups
    assert only["weight_decay"] == TRAINING.weight_decay


def trained_parameters(objective: Objective) -> Iterator[Tensor]:
    return (p for p in objective.parameters() if p.requires_grad)


def test_gradients_are_clipped_to_the_largest_global_norm() -> None:
    config = TRAINING.model_copy(update={"gradient_clipping": 0.5})
    engine = SingleProcessEngine(sasrec(), config)
    for parameter in trained_parameters(engine.objective):
        parameter.grad = torch.ones_like(parameter)
    recorded: list[Tensor] = []
    engine._optimizer.step = lambda: recorded.extend(p.grad.clone() for p in trained_parameters(engine.objective))  # type: ignore[method-assign, union-attr, assignment]
    engine.step(1e-3)
    assert torch.stack([g.square().sum() for g in recorded]).sum().sqrt().item() == pytest.approx(0.5, rel=1e-4)


def test_the_plain_engine_keeps_the_protocol() -> None:
    assert isinstance(SingleProcessEngine(sasrec(), TRAINING), TrainingEngine)
