"""Text without names: a user and an item on every line, or a user and all items, separated by spaces or TABs."""

from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.text_files import NUMBER, TYPED_FIELD, TextSource
from slmrec_core.errors import DataError

_USER_NAMES = ("user", "users", "user_id", "userid", "uid", "session", "session_id")
"""First words that are a column's name, never a user."""


def read_sequences(
    source: TextSource, names: ColumnNames, form: Literal["pairs", "lists"] | None = None
) -> tuple[str, pd.DataFrame]:
    """What a text without names is, and its events in the order of their lines.

    Args:
        source: Fields separated by spaces or TABs.
        names: There are none to read.
        form: `pairs` or `lists`; None = pairs if every line has two fields.

    Raises:
        DataError: It begins with names, a line has too few or too many fields, or a user has two lists.
    """
    numbered = [(position, line.split()) for position, line in enumerate(source.text.split("\n"))]
    rows = [(position, fields) for position, fields in numbered if fields]
    _refuse_header(source, [fields for _, fields in rows])
    for position, fields in rows:
        if len(fields) == 1:
            raise DataError(
                f"{source.at(position)}: a user without items, got {fields[0]!r}."
                " Remove the line; a table needs a header that names its columns."
            )
        if form == "pairs" and len(fields) > 2:
            raise DataError(
                f"{source.at(position)}: a pair must be `user item`, got {' '.join(fields)[:80]!r}."
                " Mend the line, or set data.format=lists if each line is a user with all items."
            )
    first = source.first_line
    if form != "lists" and all(len(fields) == 2 for _, fields in rows):
        columns = {"user_id": [fields[0] for _, fields in rows], "item_id": [fields[1] for _, fields in rows]}
        rows_at = RowNames(str(source.path), first=first)
        frame = standard_interactions(pd.DataFrame(columns), ColumnNames(timestamp=None), rows_at)
        return "text, one `user item` pair per line", frame
    users, lists = [fields[0] for _, fields in rows], [fields[1:] for _, fields in rows]
    return "text, one user per line", events_of_lists(source.path, users, lists, first)


def _refuse_header(source: TextSource, rows: list[list[str]]) -> None:
    """Text without names must not begin with names: they would be read as a user and their items."""
    first, others = rows[0], rows[1:]
    is_named = first[0].lower() in _USER_NAMES or any(TYPED_FIELD.fullmatch(field) for field in first)
    if not is_named and any(NUMBER.fullmatch(field) for field in first):
        return
    if is_named or (others and all(NUMBER.fullmatch(field) for fields in others for field in fields)):
        raise DataError(
            f"{source.at()}: column names where a user and items were expected, got {source.header[:80]!r}."
            " Give data.user_column and data.item_column these names, separate a typed header by TABs, or remove the"
            " line."
        )


def events_of_lists(path: Path, users: list[str], lists: list[list[str]], first_line: int) -> pd.DataFrame:
    """One user per line, each with all items.

    Raises:
        DataError: A user comes twice, which shows that the file is something else.
    """
    repeated = pd.Series(users).duplicated()
    if repeated.any():
        line = int(repeated.to_numpy().argmax())
        raise DataError(
            f"{path}, line {first_line + line}: one user per line was expected, got user {users[line]!r} again (first"
            f" on line {first_line + users.index(users[line])}). Merge the lines, or if each line is one event, put a"
            " header with column names above it and separate the fields by commas or TABs."
        )
    raw = pd.DataFrame(
        {
            "user_id": np.repeat(np.array(users, dtype=object), [len(items) for items in lists]),
            "item_id": list(chain.from_iterable(lists)),
        }
    )
    return standard_interactions(raw, ColumnNames(timestamp=None), RowNames(str(path), unit="event", first=1))
