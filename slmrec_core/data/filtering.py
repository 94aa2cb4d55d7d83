"""Which events are kept: the k-core, then users long enough for leave-one-out."""

import logging

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.errors import DataError

logger = logging.getLogger(__name__)


def filtered_interactions(
    interactions: pd.DataFrame, min_user: int, min_item: int, min_events: int
) -> tuple[pd.DataFrame, int]:
    """The events that stay, and how many users of the k-core have fewer than `min_events` and do not.

    A table made by a caller is held to the same rules as a file.

    Returns:
        Ids as categories, sorted and all of them used.

    Raises:
        DataError: A column or value is missing or not readable, or nothing is left.
    """
    names = ColumnNames(title="title" if "title" in interactions.columns else None)
    checked = standard_interactions(interactions, names, RowNames("interactions", unit="row", first=0))
    # Text is looked at once; from here on an event is two small numbers.
    checked = checked.astype({"user_id": "category", "item_id": "category"})
    users, items = _codes(checked, "user_id"), _codes(checked, "item_id")
    in_core = k_core(users, items, min_user, min_item)
    long_enough = in_core & (np.bincount(users[in_core], minlength=users.max() + 1)[users] >= min_events)
    core, kept = checked[in_core], checked[long_enough]
    if kept.empty:
        raise DataError(
            f"interactions: nothing is left of {_describe(checked)} after filtering with min_user={min_user},"
            f" min_item={min_item} ({_describe(core)}) and min_events={min_events}, got 0 events."
            " Lower data.min_user and data.min_item, or use more data."
        )
    logger.info("interactions: %s, after filtering %s", _describe(checked), _describe(kept))
    dropped = _num_used(core, "user_id") - _num_used(kept, "user_id")
    if dropped:
        logger.info("interactions: dropped %d users with fewer than %d events", dropped, min_events)
    for column in ("user_id", "item_id"):
        kept = kept.assign(**{column: kept[column].cat.remove_unused_categories()})
    return kept, dropped


def k_core(
    users: Int[np.ndarray, " events"], items: Int[np.ndarray, " events"], min_user: int, min_item: int
) -> Bool[np.ndarray, " events"]:
    """True for the events of the largest part in which every user and item has enough events.

    Dropping a user takes events from items and the other way round, so it is repeated until nothing changes. The
    result does not depend on the order: any part that meets both limits survives every round.
    """
    kept = np.arange(len(users))
    while True:
        enough = np.bincount(users[kept])[users[kept]] >= min_user
        enough &= np.bincount(items[kept])[items[kept]] >= min_item
        if enough.all():
            keep = np.zeros(len(users), dtype=bool)
            keep[kept] = True
            return keep
        kept = kept[enough]


def _codes(interactions: pd.DataFrame, column: str) -> Int[np.ndarray, " events"]:
    return interactions[column].cat.codes.to_numpy()


def _num_used(interactions: pd.DataFrame, column: str) -> int:
    return int(np.count_nonzero(np.bincount(_codes(interactions, column))))


def _describe(interactions: pd.DataFrame) -> str:
    users, items = _num_used(interactions, "user_id"), _num_used(interactions, "item_id")
    return f"{users} users, {items} items, {len(interactions)} events"
