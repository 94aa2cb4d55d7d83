"""Amazon 2023's splits with histories (`last_out_w_his`, `timestamp_w_his`): each event beside the items before it.

In `train.csv` every item of a history has a row of its own, so that the rows are all there is to read. In `valid.csv`
and `test.csv` a user's earlier items stand in the history alone: rows read as events would leave one event a user.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Int

from slmrec_core.data.columns import ColumnNames
from slmrec_core.data.text_sequences import UserLists, split_lists
from slmrec_core.data.text_tables import TextTable

HISTORY = "history"
HISTORY_COLUMNS = frozenset(("user_id", "parent_asin", "rating", "timestamp", HISTORY))
"""All columns of such a file."""


def with_history_lengths(rows: pd.DataFrame, item_column: str) -> pd.DataFrame:
    """Rows of such a file with the number of their items, the event's own among them, in the place of the history."""
    return rows.assign(history=[len(items) for items in split_lists(rows, HISTORY, item_column)])


def unlisted_histories(
    events: pd.DataFrame, lengths: pd.Series, table: TextTable, names: ColumnNames
) -> UserLists | None:
    """Users and all of their items, oldest first, where rows alone do not tell them.

    Args:
        events: One row per row of the file, as `standard_interactions` returns them.
        lengths: Of each row's history, as `with_history_lengths` gives them.
        table: The file.
        names: Its columns.

    Returns:
        Users by the place of their last event, and each one's last history with its event; None = every item of every
        history has a row.
    """
    rows = pd.DataFrame({"user": events["user_id"], "time": events["timestamp"], "length": lengths})
    last = rows.sort_values("time", kind="stable").drop_duplicates("user", keep="last").sort_index()
    if (last["length"] <= last["user"].map(rows["user"].value_counts())).all():
        return None
    return UserLists.of_rows(_rows_at(table, last.index.to_numpy()), names.user, HISTORY, names.item)


def _rows_at(table: TextTable, places: Int[np.ndarray, " rows"]) -> Iterator[pd.DataFrame]:
    """Rows at some places, which ascend."""
    start = 0
    for rows in table.blocks():
        first, end = np.searchsorted(places, [start, start + len(rows)])
        yield rows.iloc[places[first:end] - start]
        start += len(rows)
