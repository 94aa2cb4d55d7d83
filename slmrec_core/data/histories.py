"""Amazon 2023's splits with histories (`last_out_w_his`, `timestamp_w_his`): each event beside the items before it.

In `train.csv` every item of a history has a row of its own, so that the rows are all there is to read. In `valid.csv`
and `test.csv` a user's earlier items stand in the history alone: rows read as events would leave one event a user.
"""

import pandas as pd

HISTORY_COLUMNS = frozenset(("user_id", "parent_asin", "rating", "timestamp", "history"))
"""All columns of such a file."""


def unlisted_histories(events: pd.DataFrame, histories: pd.Series) -> tuple[list[str], list[list[str]]] | None:
    """Users and all of their items, oldest first, where rows alone do not tell them.

    Args:
        events: One row per row of the file, as `standard_interactions` returns them.
        histories: Of each row the items before it, oldest first, separated by spaces.

    Returns:
        Users by the place of their last event, and each one's last history with its event; None = every item of every
        history has a row.
    """
    table = pd.DataFrame({"user": events["user_id"], "item": events["item_id"], "time": events["timestamp"]})
    table["items"] = [f"{history} {item}".split() for history, item in zip(histories, table["item"], strict=True)]
    last = table.sort_values("time", kind="stable").drop_duplicates("user", keep="last").sort_index()
    num_rows = last["user"].map(table["user"].value_counts())
    if (last["items"].str.len() <= num_rows).all():
        return None
    return last["user"].tolist(), last["items"].tolist()
