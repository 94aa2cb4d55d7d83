"""Which events are kept: the k-core, then users long enough for leave-one-out."""

import logging

import numpy as np
import pandas as pd
from jaxtyping import Bool

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.errors import DataError

logger = logging.getLogger(__name__)


def filtered_interactions(
    interactions: pd.DataFrame, min_user: int, min_item: int, min_events: int
) -> tuple[pd.DataFrame, int]:
    """The events that stay, and how many users of the k-core have fewer than `min_events` and do not.

    A table made by a caller is held to the same rules as a file.

    Raises:
        DataError: A column or value is missing or not readable, or nothing is left.
    """
    names = ColumnNames(title="title" if "title" in interactions.columns else None)
    checked = standard_interactions(interactions, names, RowNames("interactions", unit="row", first=0))
    core = checked[k_core(checked["user_id"], checked["item_id"], min_user, min_item)]
    num_events_of_user = core.groupby("user_id", sort=False)["item_id"].transform("size")
    kept = core[(num_events_of_user >= min_events).to_numpy(dtype=bool)]
    dropped = core["user_id"].nunique() - kept["user_id"].nunique()
    if kept.empty:
        raise DataError(
            f"interactions: nothing is left of {_describe(checked)} after filtering with min_user={min_user},"
            f" min_item={min_item} ({_describe(core)}) and min_events={min_events}, got 0 events."
            " Lower data.min_user and data.min_item, or use more data."
        )
    logger.info("interactions: %s, after filtering %s", _describe(checked), _describe(kept))
    if dropped:
        logger.info("interactions: dropped %d users with fewer than %d events", dropped, min_events)
    return kept, dropped


def k_core(users: pd.Series, items: pd.Series, min_user: int, min_item: int) -> Bool[np.ndarray, " events"]:
    """True for the events of the largest part in which every user and item has enough events.

    Dropping a user takes events from items and the other way round, so it is repeated until nothing changes. The
    result does not depend on the order: any part that meets both limits survives every round.
    """
    user_codes, item_codes = pd.factorize(users)[0], pd.factorize(items)[0]
    keep = np.ones(len(users), dtype=bool)
    while True:
        user_counts = np.bincount(user_codes[keep], minlength=len(users))
        item_counts = np.bincount(item_codes[keep], minlength=len(items))
        still = keep & (user_counts[user_codes] >= min_user) & (item_counts[item_codes] >= min_item)
        if still.sum() == keep.sum():
            return keep
        keep = still


def _describe(interactions: pd.DataFrame) -> str:
    users, items = interactions["user_id"].nunique(), interactions["item_id"].nunique()
    return f"{users} users, {items} items, {len(interactions)} events"
