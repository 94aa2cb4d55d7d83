"""Laws of the frozen teacher: what is stored equals what is computed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.data import SequenceDataset
from slmrec_core.distillation import teacher as teacher_module
from slmrec_core.distillation.teacher import (
    USER_VECTORS,
    LiveTeacher,
    NoTeacher,
    StoredLayer,
    StoredTeacher,
    write_states,
)
from slmrec_core.errors import CheckpointError, DataError
from slmrec_core.structures import SequenceBatch
from slmrec_core.training.config import TrainingConfig
from slmrec_core.training.loop import TrainingData
from tests.tiny import jolted, some_batch, tiny_model

LENGTH = 6


def windows(dataset: SequenceDataset, targets: str = "all") -> TrainingData:
    return TrainingData(dataset, LENGTH, TrainingConfig(targets=targets))  # type: ignore[arg-type]


def store(
    teacher: LiveTeacher, data: TrainingData, root: Path, names: tuple[int | str, ...] = (1, 3, USER_VECTORS)
) -> dict[int | str, Path]:
    folders: dict[int | str, Path] = {name: root / str(name) for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)

    def batches() -> Iterator[SequenceBatch]:
        return (data.batch(examples) for examples in data.in_order(5))

    write_states(teacher, batches, folders)
    return folders


def opened(folders: dict[int | str, Path], dataset: SequenceDataset, targets: str = "all") -> StoredTeacher:
    layers = {name: StoredLayer.open(folder) for name, folder in folders.items() if isinstance(name, int)}
    per_user = windows(dataset, targets).targets_per_window
    return StoredTeacher(layers, StoredLayer.open(folders[USER_VECTORS]), per_user)


@pytest.fixture
def live(item_table: Tensor) -> LiveTeacher:
    return LiveTeacher(jolted(tiny_model(item_table, num_layers=3)), (1, 3), "hidden_states")


@pytest.mark.parametrize("targets", ["all", "last"])
@pytest.mark.parametrize("align_at", ["hidden_states", "normed"])
def test_what_is_stored_equals_the_live_teacher_in_any_order_of_users(
    item_table: Tensor, tiny_dataset: SequenceDataset, tmp_path: Path, targets: str, align_at: Any
) -> None:
    live = LiveTeacher(jolted(tiny_model(item_table, num_layers=3)), (1, 3), align_at)
    stored = opened(store(live, windows(tiny_dataset, targets), tmp_path), tiny_dataset, targets)
    order = np.random.default_rng(0).permutation(tiny_dataset.num_users)
    for users in (order[:7], order[7:], order[:1]):
        batch = windows(tiny_dataset, targets).batch(users)
        there, here = stored.signal(batch), live.signal(batch)
        assert there.layers.keys() == here.layers.keys() == {1, 3}
        for layer in (1, 3):
            # bfloat16 keeps 8 bits.
            assert_close(there.layers[layer], here.layers[layer], rtol=2**-7, atol=1e-4)
        assert_close(there.user_vectors, here.user_vectors, rtol=2**-7, atol=1e-4)
        assert there.layers[1].dtype == torch.float32


def test_the_control_gives_every_row_once_and_always_another_users(
    live: LiveTeacher, tiny_dataset: SequenceDataset, tmp_path: Path
) -> None:
    data = windows(tiny_dataset)
    folders = store(live, data, tmp_path)
    layers, vectors = {1: StoredLayer.open(folders[1])}, StoredLayer.open(folders[USER_VECTORS])
    # The rows themselves, so that each says where it came from.
    numbered = StoredLayer(torch.arange(float(len(layers[1].values)))[:, None], 1.0)
    control = StoredTeacher({1: numbered}, numbered, data.targets_per_window, "another")
    batch = data.batch(np.arange(tiny_dataset.num_users))
    given = control.signal(batch).layers[1][:, 0].long()
    assert sorted(given.tolist()) == list(range(len(numbered.values)))
    owner = np.repeat(np.arange(tiny_dataset.num_users), data.targets_per_window)
    assert (owner[given.numpy()] != owner).all()
    assert torch.equal(control.signal(batch).user_vectors[:, 0].long(), given), "states and vectors of one user"
    one = data.batch(np.array([3]))
    assert control.signal(one).layers[1][:, 0].long().tolist() == given[owner == 3].tolist(), "in every batch the same"
    assert not torch.equal(
        StoredTeacher(layers, vectors, data.targets_per_window, "another").signal(batch).layers[1],
        StoredTeacher(layers, vectors, data.targets_per_window).signal(batch).layers[1],
    )


def test_the_control_needs_a_second_user(live: LiveTeacher) -> None:
    layer = StoredLayer(torch.zeros(5, 2), 1.0)
    with pytest.raises(DataError, match="one with 3 of 5"):
        StoredTeacher({1: layer}, None, np.array([3, 2]), "another")


def test_response_pooling_stores_one_row_per_user(
    item_table: Tensor, tiny_dataset: SequenceDataset, tmp_path: Path
) -> None:
    live = LiveTeacher(jolted(tiny_model(item_table, num_layers=3, pooling="response")), (1, 3), "hidden_states")
    stored = opened(store(live, windows(tiny_dataset, "last"), tmp_path), tiny_dataset, "last")
    assert len(stored.layers[1].values) == tiny_dataset.num_users
    batch = windows(tiny_dataset, "last").batch(np.array([4, 0]))
    assert_close(stored.signal(batch).layers[3], live.signal(batch).layers[3], rtol=2**-7, atol=1e-4)


def test_norms_are_means_over_all_positions(live: LiveTeacher, tiny_dataset: SequenceDataset, tmp_path: Path) -> None:
    data = windows(tiny_dataset)
    folders = store(live, data, tmp_path)
    states = live.signal(data.batch(np.arange(tiny_dataset.num_users))).layers[3]
    expected = states.square().sum(dim=1).mean().item()
    assert StoredLayer.open(folders[3]).mean_squared_norm == pytest.approx(expected, rel=1e-5)


def test_states_are_small_and_nothing_is_pickled(
    live: LiveTeacher, tiny_dataset: SequenceDataset, tmp_path: Path
) -> None:
    folders = store(live, windows(tiny_dataset), tmp_path)
    assert load_file(folders[1] / "states.safetensors")["states"].dtype == torch.bfloat16
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} == {".safetensors", ".json"}


def test_only_training_positions_are_stored(item_table: Tensor, tiny_dataset: SequenceDataset, tmp_path: Path) -> None:
    # Other valid and test items leave the store as it is.
    events = tiny_dataset.events.copy()
    last_two = np.concatenate([tiny_dataset.offsets[1:] - 1, tiny_dataset.offsets[1:] - 2])
    events[last_two] = events[last_two] % 12 + 1
    live = LiveTeacher(jolted(tiny_model(item_table, num_layers=3)), (1, 3), "hidden_states")
    first = store(live, windows(tiny_dataset), tmp_path / "one")
    second = store(live, windows(replace(tiny_dataset, events=events)), tmp_path / "two")
    for name in first:
        assert torch.equal(StoredLayer.open(first[name]).values, StoredLayer.open(second[name]).values)
    pairs = np.clip(np.diff(tiny_dataset.offsets) - 3, 0, LENGTH)
    assert len(StoredLayer.open(first[1]).values) == pairs.sum()


def test_a_store_with_another_number_of_rows_is_refused(
    live: LiveTeacher, tiny_dataset: SequenceDataset, tmp_path: Path
) -> None:
    folders = store(live, windows(tiny_dataset), tmp_path)
    with pytest.raises(CheckpointError, match="one row per training target"):
        opened(folders, tiny_dataset, targets="last")


@pytest.mark.parametrize("file", ["states.safetensors", "states.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_store_is_named(
    live: LiveTeacher, tiny_dataset: SequenceDataset, tmp_path: Path, file: str, damage: str
) -> None:
    path = store(live, windows(tiny_dataset), tmp_path)[1] / file
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif file == "states.json":
        path.write_text(json.dumps({"another": 1}))
    else:
        save_file({"another": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="Delete the folder"):
        StoredLayer.open(path.parent)


@pytest.mark.parametrize("altered", [1, USER_VECTORS])
def test_what_was_written_is_checked_against_the_live_teacher(
    live: LiveTeacher,
    tiny_dataset: SequenceDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    altered: int | str,
) -> None:
    def altering(tensors: dict[str, Tensor], path: Path) -> None:
        shift = 1 if path.parent.name == str(altered) else 0
        save_file({name: tensor.roll(shift, dims=0) for name, tensor in tensors.items()}, path)

    monkeypatch.setattr(teacher_module, "save_file", altering)
    with pytest.raises(CheckpointError, match=f"layer {altered} as stored must equal the live teacher"):
        store(live, windows(tiny_dataset), tmp_path)


def test_a_live_teacher_is_frozen_and_draws_no_dropout(item_table: Tensor) -> None:
    model = tiny_model(item_table, input_dropout=0.5).train()
    teacher = LiveTeacher(model, (1,), "hidden_states")
    batch = some_batch()
    one, other = teacher.signal(batch), teacher.signal(batch)
    assert_close(one.layers[1], other.layers[1], atol=0.0, rtol=0.0)
    assert not one.layers[1].requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_no_teacher_says_nothing() -> None:
    assert NoTeacher().signal(some_batch()) is None
