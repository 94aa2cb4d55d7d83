"""Training over an engine, epoch by epoch, with the best epoch kept; the same for one process and for ZeRO workers."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slmrec_core.data import SequenceDataset, epoch_batches, num_training_targets, training_batch, training_windows
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import Teacher
from slmrec_core.errors import DataError, DivergedError
from slmrec_core.progress_bar import bar
from slmrec_core.seeding import derive_seed, seed_torch
from slmrec_core.structures import SequenceBatch, TeacherSignal
from slmrec_core.training.config import TrainingConfig
from slmrec_core.training.engine import TrainingEngine, share_of_batch
from slmrec_core.training.evaluation import Evaluator, Ranking

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochRecord:
    """One line of `metrics.jsonl`."""

    step: int
    """Epochs done; 0 = before the first."""
    timestamp_ms: int
    """When it was measured, UNIX time."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """Where training stands: all that a resumed run needs beside the engine's own state."""

    epochs_done: int = 0
    seconds: float = 0.0
    """Wall time of the epochs, ranking included, whichever process trained them."""
    records: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    best_value: float = -math.inf
    best_state: dict[str, Tensor] = field(default_factory=dict)
    """Trained tensors of the best epoch."""
    best_rankings: tuple[Ranking, ...] = ()
    """Of the valid split in the best epoch, one for each protocol: of all users when training is over."""

    def after_epoch(
        self,
        record: EpochRecord,
        value: float,
        state: Callable[[], dict[str, Tensor]],
        rankings: Sequence[Ranking] = (),
        seconds: float = 0.0,
    ) -> "Progress":
        """Progress with one more epoch; `state` is asked for only if the epoch is the best so far."""
        records, total = (*self.records, record), self.seconds + seconds
        done = replace(self, epochs_done=record.step, seconds=total, records=records)
        if value > self.best_value:
            done = replace(done, best_epoch=record.step, best_value=value)
            return replace(done, best_state=state(), best_rankings=tuple(rankings))
        return done

    def is_over(self, config: TrainingConfig) -> bool:
        """True = all epochs are done, or patience has run out."""
        waited = self.epochs_done - self.best_epoch
        return self.epochs_done >= config.epochs or (config.patience is not None and waited >= config.patience)


@dataclass(frozen=True)
class TrainingData:
    """Training windows of a data set; window i of the first `num_users` is the newest one of user i."""

    dataset: SequenceDataset
    max_seq_len: int
    config: TrainingConfig

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """User, and number of newer pairs, of every window."""
        return training_windows(self.dataset, self.max_seq_len, self.config.windows)

    @cached_property
    def targets_per_window(self) -> np.ndarray:
        """Training targets of every window."""
        users, skipped = self.windows
        if self.config.targets == "last":
            one_each: np.ndarray = num_training_targets(self.dataset, self.max_seq_len, "last")[users]
            return one_each
        pairs: np.ndarray = self.dataset.history_lengths("train")[users] - 1 - skipped
        return pairs.clip(0, self.max_seq_len)

    @cached_property
    def examples(self) -> np.ndarray:
        """Windows with a target.

        Raises:
            DataError: There are none.
        """
        examples = np.flatnonzero(self.targets_per_window)
        if not len(examples):
            raise DataError(
                f"training: no user has a training target, got {self.dataset.num_users} users. Give longer histories."
            )
        return examples

    @property
    def steps_per_pass(self) -> int:
        """Optimizer steps in which every window is trained on once."""
        return math.ceil(len(self.examples) / self.config.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps between two rankings."""
        return self.config.steps_per_epoch or self.steps_per_pass

    def batches(self, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Windows of each optimizer step of an epoch; every pass has an order of its own."""
        order, passes = derive_seed(seed, "order"), dict[int, list[np.ndarray]]()
        for step in range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch):
            number, index = divmod(step, self.steps_per_pass)
            if number not in passes:
                passes = {number: epoch_batches(self.examples, self.config.batch_size, order, number)}
            yield passes[number][index]

    def batch(self, windows: Sequence[int] | np.ndarray) -> SequenceBatch:
        """Some windows."""
        users, skipped = (column[np.asarray(windows)] for column in self.windows)
        return training_batch(self.dataset, users, self.max_seq_len, self.config.targets, skipped)

    def in_order(self, batch_size: int) -> list[np.ndarray]:
        """All windows with a target, in order, in batches."""
        return [self.examples[start : start + batch_size] for start in range(0, len(self.examples), batch_size)]


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up, then cosine towards 0 at `total_steps`, or constant."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def fit(
    engine: TrainingEngine,
    data: TrainingData,
    teacher: Teacher,
    evaluator: Evaluator,
    seed: int,
    progress: Progress | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Trains until the epochs or the patience are used up, and leaves the best epoch's weights in the engine.

    The order of windows and the dropout of an epoch depend on the seed and the epoch alone, so a run that is resumed
    at an epoch equals one that was never interrupted.

    Args:
        engine: Holds the objective.
        data: What is trained on.
        teacher: Its signal at the training positions, or `NoTeacher`.
        evaluator: Ranks the valid split, or a sample of it, after every epoch.
        seed: Of shuffling and dropout.
        progress: Where to go on; None = at the start.
        on_epoch: Called after every epoch, on every worker: report, checkpoint.

    Raises:
        DivergedError: A loss is not finite; raised before the optimizer step.
    """
    config = data.config
    progress = progress or Progress()
    total_steps = config.epochs * data.steps_per_epoch
    if config.warmup_steps >= total_steps and engine.rank == 0:
        logger.warning(
            "training.warmup_steps: the run has %d optimizer steps, got %d: the learning rate never reaches its peak."
            " Lower warmup_steps, or train longer.",
            total_steps,
            config.warmup_steps,
        )
    while not progress.is_over(config):
        epoch = progress.epochs_done
        started = time.monotonic()
        metrics = train_epoch(engine, data, teacher, seed, epoch)
        metrics["train/seconds"] = time.monotonic() - started
        metrics["train/passes"] = data.steps_per_epoch / data.steps_per_pass
        rankings = evaluator.rank_selection(engine.objective.student)
        metrics |= {name: value for ranking in rankings for name, value in ranking.metrics().items()}
        if engine.objective.online_teacher is not None:
            theirs = evaluator.rank_selection(engine.objective.online_teacher)
            metrics |= {f"teacher_{name}": value for ranking in theirs for name, value in ranking.metrics().items()}
        record = EpochRecord(epoch + 1, int(time.time() * 1000), metrics)
        value, seconds = metrics[config.checkpoint_metric], time.monotonic() - started
        progress = progress.after_epoch(record, value, engine.trainable_state, rankings, seconds)
        on_epoch(progress)
    engine.load_trainable(progress.best_state)
    if evaluator.selection is not None:
        (everyone,) = evaluator.rank_split(engine.objective.student, "valid")
        progress = replace(progress, best_rankings=tuple(everyone))
    return progress


def train_epoch(
    engine: TrainingEngine, data: TrainingData, teacher: Teacher, seed: int, epoch: int
) -> dict[str, float]:
    """The steps of one epoch; each term's mean over all targets of all workers, by metric name."""
    config = data.config
    targets_per_window = data.targets_per_window
    total_steps = config.epochs * data.steps_per_epoch
    seed_torch(seed, "dropout", epoch, engine.rank)
    engine.objective.train()
    sums: dict[str, Tensor] = {}
    steps = bar(data.batches(seed, epoch), f"epoch {epoch + 1}", data.steps_per_epoch, shown=engine.rank == 0)
    for index, windows in enumerate(steps):
        num_targets = int(targets_per_window[windows].sum())
        for share in share_of_batch(windows, engine.rank, engine.world_size, engine.accumulation_steps):
            # A worker without windows still makes its passes, with weight 0: the others wait for it in collectives.
            batch = data.batch(share if len(share) else windows[:1]).to(engine.device)
            num_own = int(targets_per_window[share].sum())
            terms = engine.forward(batch, teacher.signal(batch))
            loss = engine.objective.total(terms)
            _require_finite(loss, terms, epoch, index)
            # A sum over targets ÷ the targets of all workers and accumulation steps, never a mean of means.
            engine.backward(loss * (num_own / num_targets))
            for name, value in {**terms, "": loss}.items():
                sums[name] = sums.get(name, 0.0) + _sum_and_weight(value.detach(), num_own)
        engine.step(learning_rate(epoch * data.steps_per_epoch + index, total_steps, config))
    names = sorted(sums)
    totals = engine.all_reduce(torch.stack([sums[name] for name in names])).tolist()
    return {
        _metric_name(name): total / weight for name, (total, weight) in zip(names, totals, strict=True) if weight > 0
    }


def term_gradient_norms(objective: Objective, batch: SequenceBatch, signal: TeacherSignal | None) -> dict[str, float]:
    """Gradient norm of each unweighted term over the trained weights, in eval mode, by metric name.

    Logged before the first step: it shows which term would drown the others.
    """
    was_training = objective.training
    objective.eval()
    trained = [p for p in objective.parameters() if p.requires_grad]
    terms = objective(batch.item_ids, batch.read_mask, batch.targets, signal)
    norms = {}
    for name, value in terms.items():
        if "/" not in name:
            gradients = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            squares = [g.to(torch.float32).square().sum() for g in gradients if g is not None]
            norms[f"train/gradient_norm_{name}"] = float(torch.stack(squares).sum().sqrt())
    objective.train(was_training)
    return norms


def _sum_and_weight(value: Tensor, num_targets: int) -> Float[Tensor, "2"]:
    """A mean over targets as their sum, and how many they are.

    A diagnostic that a lone target does not have is NaN: it must not spoil the epoch's mean.
    """
    known = (~value.isnan()).to(torch.float64) * num_targets
    return torch.stack([value.to(torch.float64).nan_to_num(0.0) * known, known])


def _require_finite(loss: Tensor, terms: dict[str, Tensor], epoch: int, step: int) -> None:
    if not bool(torch.isfinite(loss)):
        values = {name: value.item() for name, value in terms.items()}
        raise DivergedError(
            f"training: the loss must be finite, got {loss.item()} in epoch {epoch + 1}, step {step + 1} ({values})."
            " Lower training.learning_rate, or the weight of the term that left first."
        )


def _metric_name(term: str) -> str:
    if not term:
        return "train/loss"
    return f"train/{term.replace('/', '_')}" if "/" in term else f"train/loss_{term}"
