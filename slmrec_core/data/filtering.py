"""Which events are kept: repeats or not, the k-core, then users long enough for leave-one-out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.errors import ConfigError, DataError

KCore = Literal["iterated", "once"]
Repeats = Literal["keep", "first"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilteredEvents:
    """What stays of a table, in the order of its rows; users and items by their place among the sorted ids."""

    users: Int[np.ndarray, " events"]
    user_ids: Shaped[np.ndarray, " users"]
    items: Int[np.ndarray, " events"]
    item_ids: Shaped[np.ndarray, " items"]
    timestamps: Shaped[np.ndarray, " events"]
    titles: pd.Series | None
    """Of each event; None = the table has none."""
    dropped_users: int
    """Users of the k-core with too few events."""


def filtered_interactions(
    interactions: pd.DataFrame,
    min_user: int,
    min_item: int,
    min_events: int,
    k_core: KCore = "iterated",
    repeats: Repeats = "keep",
) -> FilteredEvents:
    """The k-core of a table, without users that have fewer than `min_events` in it.

    A table made by a caller is held to the same rules as a file.

    Raises:
        ConfigError: Unknown `k_core` or `repeats`.
        DataError: A column or value is missing or not readable, or nothing is left.
    """
    if k_core not in _CORES:
        raise ConfigError(f"k_core: unknown, got {k_core!r}. Use one of {', '.join(_CORES)}.")
    if repeats not in get_args(Repeats):
        raise ConfigError(f"repeats: unknown, got {repeats!r}. Use one of {', '.join(get_args(Repeats))}.")
    names = ColumnNames(title="title" if "title" in interactions.columns else None)
    checked = standard_interactions(interactions, names, RowNames("interactions", unit="row", first=0))
    # Text is looked at once; from here on an event is two small numbers.
    users, user_ids = pd.factorize(checked["user_id"])
    items, item_ids = pd.factorize(checked["item_id"])
    before = _describe(users, items)
    if repeats == "first":
        first = first_of_each_item(users, items, checked["timestamp"].to_numpy())
        users, items, checked = users[first], items[first], checked.iloc[first]
    core = _CORES[k_core](users, items, min_user, min_item)
    kept = core[np.bincount(users[core])[users[core]] >= min_events] if len(core) else core
    after = _describe(users[kept], items[kept])
    if not len(kept):
        raise DataError(
            f"interactions: nothing is left of {before} after filtering with min_user={min_user},"
            f" min_item={min_item} ({_describe(users[core], items[core])}) and min_events={min_events}, got 0 events."
            " Lower data.min_user and data.min_item, or use more data."
        )
    logger.info("interactions: %s, after filtering %s", before, after)
    dropped = _num_used(users[core]) - _num_used(users[kept])
    if dropped:
        logger.info("interactions: dropped %d users with fewer than %d events", dropped, min_events)
    return FilteredEvents(
        *_numbered(users[kept], user_ids),
        *_numbered(items[kept], item_ids),
        timestamps=checked["timestamp"].to_numpy()[kept],
        titles=checked["title"].iloc[kept] if "title" in checked else None,
        dropped_users=dropped,
    )


def first_of_each_item(
    users: Int[np.ndarray, " events"], items: Int[np.ndarray, " events"], timestamps: Shaped[np.ndarray, " events"]
) -> Int[np.ndarray, " kept"]:
    """Positions of the events whose item the user did not have before, ascending; at equal times the first row."""
    # Stable, so that the first of each group is the earliest, and of those the first row.
    order = np.lexsort((timestamps, items, users))
    is_first = np.append(True, (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0))
    return np.sort(order[is_first])


def iterated_core(
    users: Int[np.ndarray, " events"], items: Int[np.ndarray, " events"], min_user: int, min_item: int
) -> Int[np.ndarray, " kept"]:
    """Positions of the events of the largest part in which every user and item has enough events.

    Dropping a user takes events from items and the other way round, so it is repeated until nothing changes. The
    result does not depend on the order: any part that meets both limits survives every round.
    """
    kept = np.arange(len(users))
    while True:
        enough = (np.bincount(users) >= min_user)[users] & (np.bincount(items) >= min_item)[items]
        if enough.all():
            return kept
        kept, users, items = kept[enough], users[enough], items[enough]


def single_pass(
    users: Int[np.ndarray, " events"], items: Int[np.ndarray, " events"], min_user: int, min_item: int
) -> Int[np.ndarray, " kept"]:
    """Positions of the events of items with enough events of users with enough events, as SLMRec's authors filter.

    A user may be left with fewer than `min_user` events, since items go last.
    """
    kept = np.flatnonzero((np.bincount(users) >= min_user)[users])
    enough: Int[np.ndarray, " kept"] = kept[(np.bincount(items[kept]) >= min_item)[items[kept]]]
    return enough


_CORES: dict[KCore, Callable[..., Int[np.ndarray, " kept"]]] = {"iterated": iterated_core, "once": single_pass}


def _numbered(
    codes: Int[np.ndarray, " events"], ids: pd.Index
) -> tuple[Int[np.ndarray, " events"], Shaped[np.ndarray, " used"]]:
    """Codes as places among the sorted ids that have an event, and those ids."""
    used = np.flatnonzero(np.bincount(codes))
    used = used[ids[used].argsort()]
    place = np.empty(len(ids), dtype=np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return place[codes], ids[used].to_numpy(dtype=object)


def _num_used(codes: Int[np.ndarray, " events"]) -> int:
    return int(np.count_nonzero(np.bincount(codes)))


def _describe(users: Int[np.ndarray, " events"], items: Int[np.ndarray, " events"]) -> str:
    return f"{_num_used(users)} users, {_num_used(items)} items, {len(users)} events"
