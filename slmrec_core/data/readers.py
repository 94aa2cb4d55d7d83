"""Interaction files in every supported format, told apart by what they hold and not by their names.

    typed TAB header  `user_id:token item_id:token timestamp:float`            RecBole, one event per line
    typed TAB header  `user_id:token item_id_list:token_seq item_id:token`     RecBole, one user per line
    named columns     CSV (comma or semicolon), TSV, parquet                   one event per line
    `user_id,parent_asin,rating,timestamp,history`                             Amazon 2023's splits: `histories`
    `{"reviewerID": …, "asin": …, "unixReviewTime": …}`                        Amazon's reviews, or other JSON lines
    `user::item::rating::timestamp` and the like, no header                    MovieLens, Amazon: `rating_logs`
    `user item`       two fields on every line, no header                      the original SASRec text
    `user item item …`                                                         one user per line, each user once

Each may be compressed by gzip or Zstandard. Where columns have names, those of Amazon's releases and of MovieLens are
found without settings. Blank lines and comments (#) above the first line are skipped; above JSON blank lines alone.
Text without names, the last two forms, is separated by spaces or TABs. A file whose lines all have two fields means the
same read either way. A longer line in a file of pairs, or another log without a header, repeats a user, which the
one-user-per-line form never does: it is refused, not misread.
"""

import io
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from slmrec_core.data.columns import ColumnNames, RowNames, found_columns, standard_interactions
from slmrec_core.data.histories import HISTORY_COLUMNS, unlisted_histories
from slmrec_core.data.json_lines import is_json, read_json_lines
from slmrec_core.data.rating_logs import read_rating_log
from slmrec_core.data.text_files import TextSource, decode, read_bytes, read_quoted_table, read_typed_table
from slmrec_core.data.titles import movie_file, with_movie_titles, with_product_titles, with_recbole_titles
from slmrec_core.errors import DataError

_HEAD_BYTES = 2**16
_PARQUET_MAGIC = b"PAR1"
_TYPED_FIELD = re.compile(r"[^:\t]+:(token|float)(_seq)?")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_USER_NAMES = ("user", "users", "user_id", "userid", "uid", "session", "session_id")
"""First words that are a column's name, never a user."""
_MOVIELENS_ITEM = "movieId"
_SEPARATORS = {"\t": "TABs", ",": "commas", ";": "semicolons", " ": "spaces"}


def read_interactions(path: Path, names: ColumnNames) -> pd.DataFrame:
    """The events of a file, in its order, as `load_interactions` returns them; `attrs["format"]` says how it was read.

    Raises:
        DataError: The file cannot be read as interactions.
    """
    form, frame = _read(path, names)
    if "title" not in frame:
        frame = with_product_titles(frame, path)
    frame.attrs["format"] = form
    return frame


def _read(path: Path, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    """What the file is, and its events."""
    if is_json(read_bytes(path, _HEAD_BYTES)):
        return _with_columns("JSON lines", read_json_lines(path, names))
    content = read_bytes(path)
    if content.startswith(_PARQUET_MAGIC):
        return _with_columns("parquet", _read_parquet(path, content, names))
    source = decode(path, content)
    header = source.header
    if _is_typed(header):
        return _read_recbole(source, names)
    if header.lstrip().startswith(("{", "[")):
        raise DataError(
            f"{source.at()}: JSON must be one object per line, from the first line on, got {header[:40]!r}."
            " Write the file so, or as CSV or parquet with named columns."
        )
    if (ratings := read_rating_log(source, names)) is not None:
        return ratings
    for separator in ("\t", ",", ";"):
        if separator in header:
            if _has_names(header, separator, names):
                return _read_named(source, separator, names)
            if separator == "\t":
                return _read_sequences(source)
            raise DataError(
                f"{source.at()}: the columns have no names, got {header[:80]!r}."
                f" Put a line such as {separator.join(('user_id', 'item_id', 'timestamp'))!r} above it."
            )
    if names.user in header.split():
        return _read_named(source, " ", names)
    return _read_sequences(source)


def _with_columns(form: str, frame: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    return f"{form}, columns {', '.join(frame.attrs['columns'])}", frame


def _read_named(source: TextSource, separator: str, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    table = read_quoted_table(source, separator)
    form = f"text separated by {_SEPARATORS[separator]}"
    if _MOVIELENS_ITEM in table and movie_file(source.path) is not None and names.title not in table:
        events = standard_interactions(table, replace(names, title=None), source.rows)
        return _with_columns(form, with_movie_titles(events, source.path))
    events = standard_interactions(table, names, source.rows)
    if set(table.columns) == HISTORY_COLUMNS and (whole := unlisted_histories(events, table["history"])) is not None:
        users, lists = whole
        frame = _from_lists(source.path, users, lists, source.first_line + 1)
        return "Amazon 2023, histories whose events have no rows", frame
    return _with_columns(form, events)


def _has_names(header: str, separator: str, names: ColumnNames) -> bool:
    """False = the first line is data: numbers alone, none of them a column's name."""
    fields = [field.strip().strip('"') for field in header.split(separator)]
    if names.user in fields or names.item in fields:
        return True
    return not all(_NUMBER.fullmatch(word) for field in fields for word in field.split())


def _read_parquet(path: Path, content: bytes, names: ColumnNames) -> pd.DataFrame:
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        names = found_columns(file.schema_arrow.names, names, str(path))
        wanted = dict.fromkeys(name for name in vars(names).values() if name is not None)
        columns = file.read(columns=list(wanted))
        # pandas' own notes would make an index of a column that was one.
        table = columns.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged parquet file, got {error}. Write the file again.") from error
    return standard_interactions(table, names, RowNames(str(path), unit="row", first=0))


def _is_typed(header: str) -> bool:
    fields = header.split("\t")
    return len(fields) > 1 and all(_TYPED_FIELD.fullmatch(field) for field in fields)


def _read_recbole(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    table = read_typed_table(source)
    # Titles of this family stand in a file of their own.
    in_events = replace(names, title=None)
    if f"{names.item}_list" in table:
        # Users and last items, checked by line; the list itself may be empty.
        last = standard_interactions(table, replace(in_events, timestamp=None, rating=None), source.rows)
        lists = table[f"{names.item}_list"].fillna("") + " " + last["item_id"].to_numpy()
        users, first = last["user_id"].tolist(), source.first_line + 1
        frame = _from_lists(source.path, users, [items.split() for items in lists], first)
        return "RecBole, one user per line", with_recbole_titles(frame, source.path, names)
    frame = standard_interactions(table, in_events, source.rows)
    return _with_columns("RecBole, one event per line", with_recbole_titles(frame, source.path, names))


def _read_sequences(source: TextSource) -> tuple[str, pd.DataFrame]:
    numbered = [(position, line.split()) for position, line in enumerate(source.text.split("\n"))]
    rows = [(position, fields) for position, fields in numbered if fields]
    _refuse_header(source, [fields for _, fields in rows])
    for position, fields in rows:
        if len(fields) == 1:
            raise DataError(
                f"{source.at(position)}: a user without items, got {fields[0]!r}."
                " Remove the line; a table needs a header that names its columns."
            )
    first = source.first_line
    if all(len(fields) == 2 for _, fields in rows):
        columns = {"user_id": [fields[0] for _, fields in rows], "item_id": [fields[1] for _, fields in rows]}
        rows_at = RowNames(str(source.path), first=first)
        frame = standard_interactions(pd.DataFrame(columns), ColumnNames(timestamp=None), rows_at)
        return "text, one `user item` pair per line", frame
    users, lists = [fields[0] for _, fields in rows], [fields[1:] for _, fields in rows]
    return "text, one user per line", _from_lists(source.path, users, lists, first)


def _refuse_header(source: TextSource, rows: list[list[str]]) -> None:
    """Text without names must not begin with names: they would be read as a user and their items."""
    first, others = rows[0], rows[1:]
    is_named = first[0].lower() in _USER_NAMES or any(_TYPED_FIELD.fullmatch(field) for field in first)
    if not is_named and any(_NUMBER.fullmatch(field) for field in first):
        return
    if is_named or (others and all(_NUMBER.fullmatch(field) for fields in others for field in fields)):
        raise DataError(
            f"{source.at()}: column names where a user and items were expected, got {source.header[:80]!r}."
            " Give data.user_column and data.item_column these names, separate a typed header by TABs, or remove the"
            " line."
        )


def _from_lists(path: Path, users: list[str], lists: list[list[str]], first_line: int) -> pd.DataFrame:
    """One user per line; a user who comes twice shows that the file is something else."""
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
