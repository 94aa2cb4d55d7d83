"""Windows over users' histories, as right-padded batches; every function is vectorised over users."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, Int64

from slmrec_core.data.dataset import SequenceDataset
from slmrec_core.data.splits import EvaluationSplit
from slmrec_core.errors import ConfigError
from slmrec_core.structures import PAD_ITEM, SequenceBatch

TargetMode = Literal["all", "last"]
"""`all`: a target at every position of the training part; `last`: one target per user, as the paper's authors train."""
WindowMode = Literal["last", "all"]
"""`last`: each user's newest window alone; `all`: a long history is cut into windows, so every event is used."""


def num_training_targets(
    dataset: SequenceDataset, max_seq_len: int, targets: TargetMode
) -> Int64[np.ndarray, " users"]:
    """How many targets `training_batch` gives each user; leave out users with 0, they teach nothing."""
    most = _checked_length(max_seq_len) if targets == "all" else 1
    counts: Int64[np.ndarray, " users"] = np.clip(dataset.history_lengths("train") - 1, 0, most)
    return counts


def training_windows(
    dataset: SequenceDataset, max_seq_len: int, windows: WindowMode
) -> tuple[Int64[np.ndarray, " windows"], Int64[np.ndarray, " windows"]]:
    """User and number of newer (item, next item) pairs of every window; windows of a user do not share a target.

    The newest windows come first, one per user in the data set's order, so window i < num_users is user i's.
    """
    pairs = np.maximum(dataset.history_lengths("train") - 1, 0)
    older = np.maximum(-(-pairs // _checked_length(max_seq_len)) - 1, 0) if windows == "all" else np.zeros_like(pairs)
    users = np.repeat(np.arange(dataset.num_users), older)
    rank = np.arange(len(users)) - np.repeat(np.cumsum(older) - older, older) + 1
    newest = np.arange(dataset.num_users)
    return np.concatenate([newest, users]), np.concatenate([np.zeros_like(newest), rank * max_seq_len])


def training_batch(
    dataset: SequenceDataset,
    users: Int[np.ndarray, " batch"],
    max_seq_len: int,
    targets: TargetMode,
    skipped: Int[np.ndarray, " batch"] | int = 0,
) -> SequenceBatch:
    """Each user's last `max_seq_len` (item, next item) pairs within the training part.

    Args:
        dataset: Where the events are.
        users: Rows of the data set, one per row of the batch; a user without a pair becomes a row of padding.
        max_seq_len: Most inputs per user; older ones are cut off.
        targets: Which positions carry a target; the inputs are the same for both.
        skipped: Newest pairs of each row that belong to another window, as `training_windows` gives them.

    Returns:
        As wide as the longest window in it, at least 1.
    """
    ends = dataset.history_ends("train")[users] - skipped
    lengths = np.clip(ends - dataset.offsets[users] - 1, 0, _checked_length(max_seq_len))
    first = ends - 1 - lengths
    inputs, is_input = _windows(dataset.events, first, lengths)
    target_items, _ = _windows(dataset.events, first + 1, lengths)
    if targets == "last":
        is_last = is_input & (np.arange(inputs.shape[1]) == lengths[:, None] - 1)
        target_items = np.where(is_last, target_items, PAD_ITEM)
    return _batch(users, inputs, target_items)


def evaluation_batch(
    dataset: SequenceDataset, users: Int[np.ndarray, " batch"], split: EvaluationSplit, max_seq_len: int
) -> SequenceBatch:
    """Each user's last `max_seq_len` items before the split's target, and that target at the last of them.

    Args:
        dataset: Where the events are.
        users: Rows of the data set, among its `evaluated_users`.
        split: Whose targets are read.
        max_seq_len: Most inputs per user; older ones are cut off.
    """
    ends = dataset.history_ends(split)[users]
    lengths = np.minimum(ends - dataset.offsets[users], _checked_length(max_seq_len))
    inputs, _ = _windows(dataset.events, ends - lengths, lengths)
    target_items = np.full_like(inputs, PAD_ITEM)
    target_items[np.arange(len(users)), lengths - 1] = dataset.targets(split)[users]
    return _batch(users, inputs, target_items)


def epoch_batches(
    users: Int[np.ndarray, " users"], batch_size: int, seed: int, epoch: int
) -> list[Int[np.ndarray, " batch"]]:
    """`users` in an order fixed by (`seed`, `epoch`) alone, cut into batches; the last, partial one is kept."""
    if batch_size < 1:
        raise ConfigError(f"batch_size: must be at least 1, got {batch_size}. Set a positive number of users.")
    order = np.random.default_rng((seed, epoch)).permutation(users)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def seen_items(
    dataset: SequenceDataset, users: Int[np.ndarray, " batch"], split: EvaluationSplit
) -> tuple[Int64[np.ndarray, " seen"], Int64[np.ndarray, " seen"]]:
    """What full ranking masks: each user's whole history before the target, not just the model's window.

    The target itself is left out, so a user who comes back to an item can still be predicted to.

    Returns:
        Rows (positions in `users`) and columns (item ids) of the scores to mask, each pair once, in ascending order.
    """
    lengths = dataset.history_lengths(split)[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    # Position of each event within its own user: a running count minus the count at the user's first event.
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = dataset.events[np.repeat(dataset.offsets[users], lengths) + within].astype(np.int64)
    is_other = columns != dataset.targets(split)[users][rows]
    num_columns = dataset.num_items + 1
    pairs = np.unique(rows[is_other] * num_columns + columns[is_other])
    return pairs // num_columns, pairs % num_columns


def _windows(
    events: Int[np.ndarray, " events"], first: Int[np.ndarray, " batch"], lengths: Int[np.ndarray, " batch"]
) -> tuple[Int64[np.ndarray, "batch seq"], np.ndarray]:
    """`lengths` events from `first` on, right-padded to the longest; and True where an event is."""
    positions = np.arange(lengths.max(initial=1))
    is_event = positions < lengths[:, None]
    # Padding reads event 0 of the file and is then overwritten; the index itself must stay within bounds.
    indices = np.where(is_event, first[:, None] + positions, 0)
    return np.where(is_event, events[indices], PAD_ITEM).astype(np.int64), is_event


def _batch(
    users: Int[np.ndarray, " batch"],
    inputs: Int64[np.ndarray, "batch seq"],
    target_items: Int64[np.ndarray, "batch seq"],
) -> SequenceBatch:
    rows = torch.from_numpy(np.array(users, dtype=np.int64))
    return SequenceBatch(rows, torch.from_numpy(inputs), torch.from_numpy(target_items))


def _checked_length(max_seq_len: int) -> int:
    if max_seq_len < 1:
        raise ConfigError(f"max_seq_len: must be at least 1, got {max_seq_len}. Set the items that the model reads.")
    return max_seq_len
