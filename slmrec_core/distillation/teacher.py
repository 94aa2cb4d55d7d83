"""A frozen teacher: its states at the training positions, stored once per layer or computed at every step.

States are stored in bfloat16, one safetensors file per layer, memory-mapped by every trial that reads them. They come
from training positions only, in eval mode, in the order of users and of positions within a user's window.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmrec_core.distillation.objective import aligned_state
from slmrec_core.errors import CheckpointError, DataError
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.structures import SequenceBatch, TeacherSignal

AlignAt = Literal["hidden_states", "normed"]
USER_VECTORS = "user_vectors"
"""Name under which the pooled, projected vectors are stored, for the logit term."""

_BFLOAT16_TOLERANCE = 2.0**-6
"""Relative gap allowed between stored and live states: bfloat16 keeps 8 bits, and batches of another shape may sum
in another order."""


@runtime_checkable
class Teacher(Protocol):
    """Gives the teacher's signal for a batch; frozen, no gradient."""

    def signal(self, batch: SequenceBatch) -> TeacherSignal | None:
        """The states and vectors at the batch's targets, in the batch's order and on its device."""
        ...


class NoTeacher:
    """For objectives that ask for no frozen teacher."""

    def signal(self, batch: SequenceBatch) -> None:
        """None."""
        return


@torch.no_grad()
def mean_squared_norms(
    model: RecommenderModel, layers: Sequence[int], align_at: AlignAt, batches: Iterable[SequenceBatch]
) -> list[float]:
    """Mean over all targets of the squared norm of a teacher's states, by layer, as stored states bring it with them.

    Taken once, before training: a mean over each micro-batch would let the loss depend on how many workers share one.
    """
    was_training = model.training
    model.eval()
    sums, count = torch.zeros(len(layers), dtype=torch.float64), 0
    for batch in batches:
        states = model(batch.item_ids, batch.read_mask, tuple(layers)).layers
        aligned = [aligned_state(model, n, states[n], align_at).to(torch.float32) for n in layers]
        sums += torch.stack([state.square().sum() for state in aligned]).cpu()
        count += len(batch.targets)
    model.train(was_training)
    return [float(total) / max(count, 1) for total in sums]


class LiveTeacher:
    """Runs the teacher at every step: `teacher_states: recompute`."""

    def __init__(self, model: RecommenderModel, layers: Sequence[int], align_at: AlignAt) -> None:
        self.model = model.eval().requires_grad_(False)
        self.layers = tuple(layers)
        self.align_at: AlignAt = align_at

    @torch.no_grad()
    def signal(self, batch: SequenceBatch) -> TeacherSignal:
        """One forward pass of the teacher."""
        states = self.model(batch.item_ids, batch.read_mask, self.layers)
        inner = {n: aligned_state(self.model, n, state, self.align_at) for n, state in states.layers.items()}
        return TeacherSignal(inner, states.user_vectors)


@dataclass(frozen=True)
class StoredLayer:
    """One layer's states (or the user vectors) at every training position of a data set."""

    values: Float[Tensor, "position width"]
    """Memory-mapped bfloat16."""
    mean_squared_norm: float
    """Over all positions, for `norm_scale: teacher`."""

    @classmethod
    def open(cls, folder: Path) -> "StoredLayer":
        """Reads what `write_states` wrote.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        try:
            values = load_file(folder / "states.safetensors")["states"]
            norm = float(json.loads((folder / "states.json").read_text())["mean_squared_norm"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"teacher states {folder}: cannot be read, got {error!r}. Delete the folder; they are made again."
            ) from error
        return cls(values, norm)

    def read(self, rows: Int[Tensor, "row"], device: torch.device) -> Float[Tensor, "row width"]:
        """Some positions, float32, on `device`."""
        return self.values[rows].to(device, torch.float32)


class StoredTeacher:
    """Reads the states that were stored once: `teacher_states: stored`.

    Args:
        layers: By teacher layer.
        user_vectors: For the logit term, else None.
        targets_per_user: Training targets of every user of the data set, in its order.
        users: `another` = the control: a target gets the row that lies half the store away, so that every row serves
            once and the states as a whole are the same.

    Raises:
        CheckpointError: A store has more or fewer rows than there are targets.
        DataError: With `another`, one user has half of all targets or more.
    """

    def __init__(
        self,
        layers: dict[int, StoredLayer],
        user_vectors: StoredLayer | None,
        targets_per_user: Int[np.ndarray, "user"],
        users: Literal["own", "another"] = "own",
    ) -> None:
        self.layers = layers
        self.user_vectors = user_vectors
        self._starts = np.concatenate([[0], np.cumsum(targets_per_user)])
        self._shift = 0 if users == "own" else self._starts[-1] // 2
        if users == "another" and max(targets_per_user, default=0) > self._shift:
            raise DataError(
                "distillation.teacher_users: 'another' needs users with less than half of all training targets, got"
                f" one with {max(targets_per_user)} of {self._starts[-1]}. Use more users."
            )
        stores = [*layers.values(), *([user_vectors] if user_vectors is not None else [])]
        for store in stores:
            if len(store.values) != self._starts[-1]:
                raise CheckpointError(
                    f"teacher states: must hold one row per training target, {self._starts[-1]} here,"
                    f" got {len(store.values)}. They belong to another data set or window; delete them."
                )

    def signal(self, batch: SequenceBatch) -> TeacherSignal:
        """Rows of the store, as float32."""
        users = batch.user_index.cpu().numpy()
        pieces = [np.arange(self._starts[user], self._starts[user + 1]) for user in users]
        own = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
        rows = torch.from_numpy((own + self._shift) % max(self._starts[-1], 1))
        device = batch.item_ids.device
        vectors = None if self.user_vectors is None else self.user_vectors.read(rows, device)
        return TeacherSignal({layer: store.read(rows, device) for layer, store in self.layers.items()}, vectors)


def write_states(
    teacher: LiveTeacher, batches: Callable[[], Iterable[SequenceBatch]], folders: dict[int | str, Path]
) -> None:
    """Stores the teacher's states at every target of `batches`, one folder per layer, in one pass over the data.

    Args:
        teacher: Computes the states of all layers in `folders`.
        batches: All training batches, users in the data set's order.
        folders: Existing, empty folders by layer, or by `USER_VECTORS`.

    Raises:
        CheckpointError: What was written differs from the live teacher by more than bfloat16 allows.
    """
    parts: dict[int | str, list[Tensor]] = {name: [] for name in folders}
    square_sums = dict.fromkeys(folders, 0.0)
    for batch in batches():
        for name, values in _named(teacher.signal(batch), folders).items():
            square_sums[name] += float(values.to(torch.float32).square().sum())
            parts[name].append(values.to("cpu", torch.bfloat16))
    for name, folder in folders.items():
        values = torch.cat(parts[name])
        save_file({"states": values}, folder / "states.safetensors")
        norm = square_sums[name] / max(len(values), 1)
        (folder / "states.json").write_text(json.dumps({"mean_squared_norm": norm, "layer": name}))
    first = next(iter(batches()))
    # One user alone: another shape of batch than the one that was stored.
    alone = SequenceBatch(first.user_index[:1], first.item_ids[:1], first.target_items[:1])
    for name, live in _named(teacher.signal(alone), folders).items():
        stored = StoredLayer.open(folders[name]).values[: len(live)].to(torch.float32)
        gap = float((stored - live.cpu().to(torch.float32)).norm() / live.to(torch.float32).norm().clamp_min(1e-6))
        if not gap <= _BFLOAT16_TOLERANCE:
            raise CheckpointError(
                f"teacher states: layer {name} as stored must equal the live teacher within {_BFLOAT16_TOLERANCE},"
                f" got a relative gap of {gap:.3g}. Set distillation.teacher_states=recompute."
            )


def _named(signal: TeacherSignal, names: Iterable[int | str]) -> dict[int | str, Tensor]:
    vectors = signal.user_vectors
    assert vectors is not None
    return {name: vectors if isinstance(name, str) else signal.layers[name] for name in names}
