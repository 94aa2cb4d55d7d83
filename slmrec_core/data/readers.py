"""Interaction files in every supported format, told apart by what they hold, or by the name of the format when asked.

    csv          named columns, separated by commas, semicolons or spaces      one event per line
                 `user_id,parent_asin,rating,timestamp,history`                Amazon 2023's splits: `histories`
    tsv          named columns, separated by TABs
    parquet      named columns
    json-lines   `{"reviewerID": …, "asin": …, "unixReviewTime": …}`           Amazon's reviews, or others
    recbole      TABs, `user_id:token item_id:token timestamp:float`           one event per line
                 TABs, `user_id:token item_id_list:token_seq item_id:token`    one user per line
    movielens    `user::item::rating::timestamp`, or with TABs, no header      `rating_logs`
    amazon-2014  `user,item,rating,timestamp`, no header
    amazon-2018  `item,user,rating,timestamp`, no header
    pairs        `user item`, two fields on every line, no header              the original SASRec text
    lists        `user item item …`, no header                                 one user per line, each user once

Each may be compressed by gzip or Zstandard. Where columns have names, those of Amazon's releases and of MovieLens are
found without settings. Blank lines and comments (#) above the first line are skipped; above JSON blank lines alone.
Text without names, the last two forms, is separated by spaces or TABs. A file whose lines all have two fields means the
same read either way. A longer line in a file of pairs, or another log without a header, repeats a user, which the
one-user-per-line form never does: it is refused, not misread.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from slmrec_core.data.columns import ColumnNames, RowNames, found_columns, standard_interactions
from slmrec_core.data.histories import HISTORY, HISTORY_COLUMNS, unlisted_histories, with_history_lengths
from slmrec_core.data.json_lines import is_json, read_json_lines
from slmrec_core.data.rating_logs import rating_log_reader, read_amazon, read_movielens
from slmrec_core.data.text_files import NUMBER, TextSource, open_text, read_bytes
from slmrec_core.data.text_sequences import UserLists, events_of_lists, read_sequences
from slmrec_core.data.text_tables import TYPED_FIELD, quoted_table, typed_table
from slmrec_core.data.titles import movie_file, with_movie_titles, with_product_titles, with_recbole_titles
from slmrec_core.errors import DataError

_HEAD_BYTES = 2**16
_PARQUET_MAGIC = b"PAR1"
_MOVIELENS_ITEM = "movieId"
_SEPARATORS = {"\t": "TABs", ",": "commas", ";": "semicolons", " ": "spaces"}
_TextReader = Callable[[TextSource, ColumnNames], tuple[str, pd.DataFrame]]


def read_interactions(path: Path, names: ColumnNames, form: str | None = None) -> pd.DataFrame:
    """The events of a file, in its order, as `load_interactions` returns them; `attrs["format"]` says how it was read.

    Args:
        path: Of the file.
        names: Columns to read, where they have names.
        form: One of `FORMATS`; None = it is found by looking at the file.

    Raises:
        DataError: The file cannot be read as interactions, or not as `form`.
    """
    form, frame = _read(path, names, form)
    if "title" not in frame:
        frame = with_product_titles(frame, path)
    frame.attrs["format"] = form
    return frame


def _read(path: Path, names: ColumnNames, form: str | None) -> tuple[str, pd.DataFrame]:
    """What the file is, and its events."""
    head = read_bytes(path, _HEAD_BYTES) if form is None else b""
    if form == "json-lines" or is_json(head):
        return _with_columns("JSON lines", read_json_lines(path, names))
    if form == "parquet" or head.startswith(_PARQUET_MAGIC):
        return _with_columns("parquet", _read_parquet(path, names))
    source = open_text(path)
    read = _found_reader(source, names) if form is None else _TEXT_READERS[form]
    return read(source, names)


def _found_reader(source: TextSource, names: ColumnNames) -> _TextReader:
    """The reader of a text, by its first line.

    Raises:
        DataError: It is a log whose columns have no names, or JSON of another form.
    """
    header = source.header
    if _is_typed(header):
        return _read_recbole
    if header.lstrip().startswith(("{", "[")):
        raise DataError(
            f"{source.at()}: JSON must be one object per line, from the first line on, got {header[:40]!r}."
            " Write the file so, or as CSV or parquet with named columns."
        )
    if (of_ratings := rating_log_reader(header)) is not None:
        return of_ratings
    if "\t" in header:
        return _read_tsv if _has_names(header, "\t", names) else read_sequences
    for separator in (",", ";"):
        if separator in header:
            if _has_names(header, separator, names):
                return _read_csv
            raise DataError(
                f"{source.at()}: the columns have no names, got {header[:80]!r}."
                f" Put a line such as {separator.join(('user_id', 'item_id', 'timestamp'))!r} above it."
            )
    return _read_csv if names.user in header.split() else read_sequences


def _with_columns(form: str, frame: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    return f"{form}, columns {', '.join(frame.attrs['columns'])}", frame


def _read_csv(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    return _read_named(source, next((mark for mark in (",", ";", " ") if mark in source.header), ","), names)


def _read_tsv(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    return _read_named(source, "\t", names)


def _read_named(source: TextSource, separator: str, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    table = quoted_table(source, separator)
    has_movies = _MOVIELENS_ITEM in table.columns and names.title not in table.columns and movie_file(source.path)
    found = found_columns(table.columns, replace(names, title=None) if has_movies else names, str(source.path))
    wanted = [name for name in vars(found).values() if name is not None]
    form = f"text separated by {_SEPARATORS[separator]}"
    if set(table.columns) == HISTORY_COLUMNS:
        raw = table.read([*wanted, HISTORY], partial(with_history_lengths, item_column=found.item))
        events = standard_interactions(raw, found, source.rows)
        whole = unlisted_histories(events, raw[HISTORY], table, found)
        if whole is not None:
            frame = events_of_lists(source.path, whole, source.first_line + 1)
            return "Amazon 2023, histories whose events have no rows", frame
        return _with_columns(form, events)
    events = standard_interactions(table.read(wanted), found, source.rows)
    return _with_columns(form, with_movie_titles(events, source.path) if has_movies else events)


def _has_names(header: str, separator: str, names: ColumnNames) -> bool:
    """False = the first line is data: numbers alone, none of them a column's name."""
    fields = [field.strip().strip('"') for field in header.split(separator)]
    if names.user in fields or names.item in fields:
        return True
    return not all(NUMBER.fullmatch(word) for field in fields for word in field.split())


def _read_parquet(path: Path, names: ColumnNames) -> pd.DataFrame:
    try:
        # Parquet is read from its end, where a compressed file cannot be reached.
        with path.open("rb") as file:
            is_plain = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        with pyarrow.parquet.ParquetFile(path if is_plain else io.BytesIO(read_bytes(path))) as parquet:
            names = found_columns(parquet.schema_arrow.names, names, str(path))
            wanted = dict.fromkeys(name for name in vars(names).values() if name is not None)
            columns = parquet.read(columns=list(wanted))
        # pandas' own notes would make an index of a column that was one.
        table = columns.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged parquet file, got {error}. Write the file again.") from error
    return standard_interactions(table, names, RowNames(str(path), unit="row", first=0))


def _is_typed(header: str) -> bool:
    fields = header.split("\t")
    return len(fields) > 1 and all(TYPED_FIELD.fullmatch(field) for field in fields)


def _read_recbole(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    if not _is_typed(source.header):
        raise DataError(
            f"{source.at()}: RecBole's header must be fields such as 'user_id:token', separated by TABs, got"
            f" {source.header[:80]!r}. Set data.format to what the file is, or leave it out."
        )
    table = typed_table(source)
    # Titles of this family stand in a file of their own.
    in_events = replace(names, title=None)
    list_column = f"{names.item}_list"
    if list_column in table.columns:
        # Users and last items, checked by line; the list itself may be empty.
        last = replace(in_events, timestamp=None, rating=None)
        found = found_columns(table.columns, last, str(source.path))
        standard_interactions(table.read([found.user, found.item]), found, source.rows)
        lists = UserLists.of_rows(table.blocks(), found.user, list_column, found.item)
        frame = events_of_lists(source.path, lists, source.first_line + 1)
        return "RecBole, one user per line", with_recbole_titles(frame, source.path, names)
    found = found_columns(table.columns, in_events, str(source.path))
    wanted = [name for name in vars(found).values() if name is not None]
    frame = standard_interactions(table.read(wanted), found, source.rows)
    return _with_columns("RecBole, one event per line", with_recbole_titles(frame, source.path, names))


_TEXT_READERS: dict[str, _TextReader] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "recbole": _read_recbole,
    "movielens": read_movielens,
    "amazon-2014": partial(read_amazon, release=2014),
    "amazon-2018": partial(read_amazon, release=2018),
    "pairs": partial(read_sequences, form="pairs"),
    "lists": partial(read_sequences, form="lists"),
}
FORMATS = ("parquet", "json-lines", *_TEXT_READERS)
"""Names of all forms of a file, as the table above has them."""
