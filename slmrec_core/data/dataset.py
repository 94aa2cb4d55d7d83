"""Users' sequences as three flat arrays, filtered, ordered by time and split: leave-one-out, or at a point in time."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Int, Int32, Int64, Shaped

from slmrec_core.data.filtering import KCore, Repeats, filtered_interactions
from slmrec_core.data.splits import EvaluationSplit, GlobalTimeSplit, Split, fits, leave_one_out
from slmrec_core.data.storage import read_tables, write_tables
from slmrec_core.data.time_order import Ties, time_order
from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.structures import PAD_ITEM

_CUTS = [f"{split}_history" for split in get_args(Split)]
"""Columns of `cuts`, as they are stored."""
_SHORTEST_USER = 3
"""One event of history, one to validate on, one to test on."""


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Every user's items in time order, split by leave-one-out or at two moments (`GlobalTimeSplit`).

    Leave-one-out: of n events, `train` is the first n − 2, the target of `valid` is event n − 1 and the target of
    `test` is event n, whose history includes the valid item.

    What leave-one-out leaks: the cut is made per user, not at one moment for all. A model that predicts an early
    user's last event has trained on later events of other users, and so on items and fashions that did not exist yet.
    Scores are comparable with the literature, which cuts the same way, and higher than a deployed model would reach.

    A cut at two moments leaks nothing of this kind into the weights. What stays is the filter, which counts all events,
    and the catalogue, which has items that nobody knew before the cut.
    """

    user_ids: Shaped[np.ndarray, " users"]
    """Ids as they stood in the file, text, sorted."""
    item_ids: Shaped[np.ndarray, " items_and_padding"]
    """Ids as they stood in the file, text, sorted from index 1 on; index 0 is padding and holds an empty text."""
    titles: Shaped[np.ndarray, " items_and_padding"] | None
    """Title of each item, empty where unknown; None = the file has none."""
    events: Int32[np.ndarray, " events"]
    """Item of each event, 1 … num_items, user after user, each in time order."""
    offsets: Int64[np.ndarray, " users_and_end"]
    """User u's events are `events[offsets[u]:offsets[u + 1]]`."""
    has_timestamps: bool = True
    """False = the order comes from positions in the file, so users cannot be compared in time."""
    dropped_users: int = 0
    """Users with too few events for the three parts, after the k-core."""
    cuts: Int32[np.ndarray, "users 3"] | None = None
    """Length of each user's history in train, valid and test, 0 = no target there; None = leave-one-out."""

    def __post_init__(self) -> None:
        self._check_shapes()

    @classmethod
    def from_interactions(
        cls,
        interactions: pd.DataFrame,
        min_user: int = 5,
        min_item: int = 5,
        min_events: int = 3,
        ties: Ties = "input",
        k_core: KCore = "iterated",
        repeats: Repeats = "keep",
        time_split: GlobalTimeSplit | None = None,
    ) -> "SequenceDataset":
        """Filter, order and number the events of `load_interactions`.

        Ids follow the sorted raw ids, so they do not depend on how the users' rows are interleaved. Dropping short
        users can leave an item with fewer than `min_item` events; that happens only where `min_user` is less than
        `min_events`, or the k-core is not iterated.

        Args:
            interactions: Columns `user_id`, `item_id`, `timestamp`, maybe `title`; not changed.
            min_user: Fewest events per user in the k-core; 1 = no limit.
            min_item: Fewest events per item in the k-core; 1 = no limit.
            min_events: Users with fewer events after the k-core are dropped and counted; at least 3, and 4 for every
                user to have a training target.
            ties: Events of one user with equal timestamps keep the order of their rows (`input`), or get a random one
                that is the same every time (`shuffled`).
            k_core: Both limits hold in the end (`iterated`), or users are counted, then the items of those kept, and no
                more (`once`), which may leave users below `min_user`.
            repeats: Events of an item that the user had before are kept (`keep`), or left out before the k-core
                (`first`).
            time_split: Where all users are cut; None = leave-one-out.

        Raises:
            DataError: A column or value is missing, or nothing is left, or a part of it; there are no times to cut at.
            ConfigError: `min_events` is less than 3, or `k_core` or `repeats` unknown.
        """
        if min_events < _SHORTEST_USER:
            raise ConfigError(
                f"min_events: leave-one-out needs at least {_SHORTEST_USER} events per user, got {min_events}."
                f" Use {_SHORTEST_USER} or more."
            )
        has_timestamps = bool(interactions.attrs.get("has_timestamps", True))
        if time_split is not None and not has_timestamps:
            raise DataError(
                "data.split: a split at a point in time needs timestamps, got events without."
                " Use data.split=leave_one_out."
            )
        kept = filtered_interactions(interactions, min_user, min_item, min_events, k_core, repeats)
        order = time_order(kept.users, kept.timestamps, ties)
        titles = None
        if kept.titles is not None:
            _, first_rows = np.unique(kept.items, return_index=True)
            titles = np.concatenate([[""], kept.titles.iloc[first_rows].to_numpy(dtype=object)])
        return cls(
            user_ids=kept.user_ids,
            item_ids=np.concatenate([np.array([""], dtype=object), kept.item_ids]),
            titles=titles,
            events=kept.items[order] + 1,
            offsets=_offsets(np.bincount(kept.users)),
            has_timestamps=has_timestamps,
            dropped_users=kept.dropped_users,
            cuts=None if time_split is None else time_split.cuts(kept.users, kept.timestamps),
        )

    @property
    def num_users(self) -> int:
        """Users kept."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Real items, without padding."""
        return len(self.item_ids) - 1

    @property
    def num_events(self) -> int:
        """Events of all three parts together."""
        return len(self.events)

    @cached_property
    def num_repeats(self) -> int:
        """Events whose item the same user had before."""
        rows = np.repeat(np.arange(self.num_users), np.diff(self.offsets))
        return self.num_events - len(np.unique(rows * (self.num_items + 1) + self.events))

    @property
    def repeat_share(self) -> float:
        """`num_repeats` as a share of all events, in [0, 1)."""
        return self.num_repeats / self.num_events

    @cached_property
    def train_counts(self) -> Int64[np.ndarray, " items_and_padding"]:
        """Training events of each item, 0 at index 0."""
        ends = np.repeat(self.history_ends("train"), np.diff(self.offsets))
        trained = self.events[np.arange(self.num_events) < ends]
        counts: np.ndarray = np.bincount(trained, minlength=self.num_items + 1)
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, events and offsets: equal for two data sets that no model could tell apart."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            digest.update(json.dumps(ids.tolist()).encode())
        digest.update(self.events.astype("<i4").tobytes())
        digest.update(self.offsets.astype("<i8").tobytes())
        if self.cuts is not None:
            digest.update(self.cuts.astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def _history_lengths(self) -> Int[np.ndarray, "users 3"]:
        return leave_one_out(np.diff(self.offsets)) if self.cuts is None else self.cuts

    def history_lengths(self, split: Split) -> Int64[np.ndarray, " users"]:
        """Events in each user's history of `split`; 0 = the user is not asked there (train: has no event).

        Raises:
            ConfigError: Unknown split.
        """
        if split not in get_args(Split):
            raise ConfigError(f"split: unknown, got {split!r}. Use one of {', '.join(get_args(Split))}.")
        return self._history_lengths[:, get_args(Split).index(split)].astype(np.int64)

    def history_ends(self, split: Split) -> Int64[np.ndarray, " users"]:
        """Where each user's history of `split` ends in `events`, exclusive; for valid and test, where the target is.

        Raises:
            ConfigError: Unknown split.
        """
        ends: Int64[np.ndarray, " users"] = self.offsets[:-1] + self.history_lengths(split)
        return ends

    def evaluated_users(self, split: EvaluationSplit) -> Int64[np.ndarray, " asked"]:
        """Users with a target in `split`, ascending: all of them with leave-one-out."""
        return np.flatnonzero(self.history_lengths(split))

    def history(self, user: int, split: Split) -> Int32[np.ndarray, " history"]:
        """What a model may read of row `user`: the same for train and valid, and for test more, with leave-one-out."""
        return self.events[self.offsets[user] : self.history_ends(split)[user]]

    def targets(self, split: EvaluationSplit) -> Int32[np.ndarray, " users"]:
        """Each user's item to predict in `split`; `PAD_ITEM` for one who is not asked there.

        Raises:
            ConfigError: `train`, which has a target at every position, or an unknown split.
        """
        if split not in get_args(EvaluationSplit):
            raise ConfigError(f"targets: only valid and test have one target per user, got {split!r}. Use one of them.")
        is_asked = self.history_lengths(split) > 0
        targets: Int32[np.ndarray, " users"] = np.where(is_asked, self.events[self.history_ends(split)], PAD_ITEM)
        return targets

    def save(self, directory: Path) -> None:
        """Write parquet and JSON into `directory`, which is made if it is not there."""
        lengths = np.diff(self.offsets)
        items = pd.DataFrame({"item_id": self.item_ids})
        if self.titles is not None:
            items["title"] = self.titles
        users = pd.DataFrame({"user_id": self.user_ids, "num_events": lengths})
        if self.cuts is not None:
            users[_CUTS] = self.cuts
        tables = {
            "users": users,
            "items": items,
            "events": pd.DataFrame({"item": self.events}),
        }
        header = {
            "fingerprint": self.fingerprint,
            "has_timestamps": self.has_timestamps,
            "dropped_users": self.dropped_users,
        }
        write_tables(directory, tables, header)

    @classmethod
    def load(cls, directory: Path) -> "SequenceDataset":
        """Read what `save` wrote.

        Raises:
            CheckpointError: A file is missing, damaged or not of this format.
        """
        tables, header = read_tables(directory)
        try:
            users, items = tables["users"], tables["items"]
            dataset = cls(
                user_ids=users["user_id"].to_numpy(dtype=object),
                item_ids=items["item_id"].to_numpy(dtype=object),
                titles=items["title"].to_numpy(dtype=object) if "title" in items else None,
                events=tables["events"]["item"].to_numpy(dtype=np.int32, copy=True),
                offsets=_offsets(users["num_events"].to_numpy()),
                has_timestamps=bool(header["has_timestamps"]),
                dropped_users=int(str(header["dropped_users"])),
                cuts=users[_CUTS].to_numpy(dtype=np.int32, copy=True) if _CUTS[0] in users else None,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{directory}: not a data set of ours, got {type(error).__name__}: {error}."
                " Remove the directory and build it again."
            ) from error
        if dataset.fingerprint != header.get("fingerprint"):
            raise CheckpointError(
                f"{directory}: content and fingerprint differ, got {dataset.fingerprint},"
                f" not {header.get('fingerprint')}. Remove the directory and build it again."
            )
        return dataset

    def _check_shapes(self) -> None:
        lengths = np.diff(self.offsets)
        first_bad = None
        if len(self.offsets) != len(self.user_ids) + 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.events):
            first_bad = f"offsets from {self.offsets[:1]} to {self.offsets[-1:]}"
        elif lengths.min(initial=_SHORTEST_USER) < _SHORTEST_USER:
            first_bad = f"a user with {lengths.min()} events"
        elif len(self.events) and not 1 <= self.events.min() <= self.events.max() <= self.num_items:
            first_bad = f"items {self.events.min()} to {self.events.max()} of {self.num_items}"
        elif self.titles is not None and len(self.titles) != len(self.item_ids):
            first_bad = f"{len(self.titles)} titles for {len(self.item_ids)} items and padding"
        elif self.cuts is not None and not fits(self.cuts, lengths):
            first_bad = f"histories of up to {self.cuts.max(initial=0)} events for {len(self.cuts)} users"
        if first_bad:
            raise DataError(
                f"SequenceDataset: the arrays contradict one another, got {first_bad}. Build it with from_interactions."
            )


def _offsets(lengths: Int[np.ndarray, " users"]) -> Int64[np.ndarray, " users_and_end"]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
