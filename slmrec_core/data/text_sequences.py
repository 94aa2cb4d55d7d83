"""Text without names: a user and an item on every line, or a user and all items, separated by spaces or TABs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int64

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.text_files import NUMBER, TextSource
from slmrec_core.data.text_tables import TYPED_FIELD
from slmrec_core.errors import DataError, shown

_USER_NAMES = ("user", "users", "user_id", "userid", "uid", "session", "session_id")
"""First words that are a column's name, never a user."""


@dataclass(frozen=True)
class UserLists:
    """Users, each with a list of items."""

    users: pd.Series
    lengths: Int64[np.ndarray, " users"]
    items: pd.Series
    """Of all users, one after the other."""

    @classmethod
    def of_fields(cls, parts: Iterable[list[list[str]]]) -> "UserLists":
        """Users and their items as they come, some lines at a time: of each line the user, then the items."""
        # Arrow's text takes a few bytes an item beside its letters; Python's takes about 60.
        users, lengths, items = [], [], []
        for lines in parts:
            users.append(pd.Series([fields[0] for fields in lines], dtype=str))
            lengths.append(np.array([len(fields) - 1 for fields in lines], dtype=np.int64))
            items.append(pd.Series([item for fields in lines for item in fields[1:]], dtype=str))
        return cls(pd.concat(users, ignore_index=True), np.concatenate(lengths), pd.concat(items, ignore_index=True))

    @classmethod
    def of_rows(cls, blocks: Iterable[pd.DataFrame], user: str, items: str, last_item: str) -> "UserLists":
        """Users and their items out of a table in which a column of lists stands beside the last item."""
        return cls.of_fields(
            [[name, *own] for name, own in zip(rows[user], split_lists(rows, items, last_item), strict=True)]
            for rows in blocks
        )


def split_lists(rows: pd.DataFrame, items: str, last_item: str) -> Iterator[list[str]]:
    """Of every row the items of its list, separated by spaces, and the last one; the list may be empty."""
    for listed, last in zip(rows[items].fillna(""), rows[last_item], strict=True):
        yield f"{listed} {last}".split()


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
    _refuse_header(source)
    lists = UserLists.of_fields(_checked(source, form))
    if form != "lists" and (lists.lengths == 1).all():
        raw = pd.DataFrame({"user_id": lists.users, "item_id": lists.items})
        lines = RowNames(str(source.path), first=source.first_line)
        return "text, one `user item` pair per line", standard_interactions(raw, ColumnNames(timestamp=None), lines)
    return "text, one user per line", events_of_lists(source.path, lists, source.first_line)


def events_of_lists(path: Path, lists: UserLists, first_line: int) -> pd.DataFrame:
    """One user per line, each with all items.

    Raises:
        DataError: A user comes twice, which shows that the file is something else.
    """
    repeated = lists.users.duplicated()
    if repeated.any():
        line = int(repeated.to_numpy().argmax())
        user = lists.users[line]
        raise DataError(
            f"{path}, line {first_line + line}: one user per line was expected, got user {shown(user)} again (first"
            f" on line {first_line + int((lists.users == user).to_numpy().argmax())}). Merge the lines, or if each line"
            " is one event, put a header with column names above it and separate the fields by commas or TABs."
        )
    users = lists.users.iloc[np.repeat(np.arange(len(lists.users)), lists.lengths)].reset_index(drop=True)
    raw = pd.DataFrame({"user_id": users, "item_id": lists.items})
    return standard_interactions(raw, ColumnNames(timestamp=None), RowNames(str(path), unit="event", first=1))


def _lines(source: TextSource) -> Iterator[list[tuple[int, list[str]]]]:
    """Positions and fields of the lines that have some, some lines at a time."""
    for start, block in source.blocks():
        numbered = enumerate(block.split("\n"), start)
        yield [(position, fields) for position, line in numbered if (fields := line.split())]


def _checked(source: TextSource, form: Literal["pairs", "lists"] | None) -> Iterator[list[list[str]]]:
    for lines in _lines(source):
        for position, fields in lines:
            if len(fields) == 1:
                raise DataError(
                    f"{source.at(position)}: a user without items, got {shown(fields[0])}."
                    " Remove the line; a table needs a header that names its columns."
                )
            if form == "pairs" and len(fields) > 2:
                raise DataError(
                    f"{source.at(position)}: a pair must be `user item`, got {' '.join(fields)[:80]!r}."
                    " Mend the line, or set data.format=lists if each line is a user with all items."
                )
        yield [fields for _, fields in lines]


def _refuse_header(source: TextSource) -> None:
    """Text without names must not begin with names: they would be read as a user and their items."""
    first = source.header.split()
    is_named = first[0].lower() in _USER_NAMES or any(TYPED_FIELD.fullmatch(field) for field in first)
    if not is_named and any(NUMBER.fullmatch(field) for field in first):
        return
    if is_named or _has_numbers_alone_below(source):
        raise DataError(
            f"{source.at()}: column names where a user and items were expected, got {source.header[:80]!r}."
            " Give data.user_column and data.item_column these names, separate a typed header by TABs, or remove the"
            " line."
        )


def _has_numbers_alone_below(source: TextSource) -> bool:
    """True = the lines below the first hold numbers and nothing else."""
    has_some = False
    for lines in _lines(source):
        below = [fields for position, fields in lines if position > 0]
        has_some |= bool(below)
        if not all(NUMBER.fullmatch(field) for fields in below for field in fields):
            return False
    return has_some
