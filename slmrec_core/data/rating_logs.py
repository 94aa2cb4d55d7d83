"""Logs of ratings whose columns have no names, known by what they hold: who, what, how good, and when.

    user::item::rating::timestamp    MovieLens-1M, 10M    ratings.dat
    user⇥item⇥rating⇥timestamp       MovieLens-100K       u.data and its parts
    user,item,rating,timestamp       Amazon 2014          ratings_*.csv
    item,user,rating,timestamp       Amazon 2018          *.csv

Amazon turned the first two columns round between two releases, and nothing in the file says so but the ids: a product's
has 10 characters, a user's begins with A and is, but for a few in a thousand, longer.
"""

import re
from collections.abc import Callable
from typing import Literal

import pandas as pd

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.text_files import TextSource
from slmrec_core.data.text_tables import TextTable
from slmrec_core.data.titles import with_movie_titles
from slmrec_core.errors import DataError

_RATING = r"\d+(\.\d+)?"
# Nine digits begin in 1973: shorter numbers may be items of a user's list.
_SECONDS = r"\d{9,10}"
_MOVIELENS_DAT = re.compile(rf"\d+::\d+::{_RATING}::{_SECONDS}")
_MOVIELENS_TAB = re.compile(rf"\d+\t\d+\t[0-5](\.\d+)?\t{_SECONDS}")
_AMAZON = re.compile(rf"(?!\d+,\d+,)[0-9A-Za-z]+,[0-9A-Za-z]+,{_RATING},{_SECONDS}")
_PRODUCT = r"[0-9A-Z]{10}"
_USER = r"A[0-9A-Z]{10,}"
_MOST = 0.9
"""Share of a column's ids that must look like what the column holds."""
_USER_FIRST = ["user", "item", "rating", "timestamp"]


def rating_log_reader(
    header: str,
) -> Callable[[TextSource, ColumnNames], tuple[str, pd.DataFrame]] | None:
    """What reads a log that begins so; None = it is another file."""
    if _MOVIELENS_DAT.fullmatch(header) or _MOVIELENS_TAB.fullmatch(header):
        return read_movielens
    return read_amazon if _AMAZON.fullmatch(header) else None


def read_movielens(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    """What the log is, and its events with the titles that lie beside it; of `names` only whether ratings are wanted.

    Raises:
        DataError: A line has too many, too few or unreadable fields.
    """
    separator, form = "\t", "MovieLens-100K, user item rating timestamp"
    if "::" in source.header:
        separator, form = "::", "MovieLens, user::item::rating::timestamp"
    return form, with_movie_titles(_standard(source, _table(source, separator, names), names), source.path)


def read_amazon(
    source: TextSource, names: ColumnNames, release: Literal[2014, 2018] | None = None
) -> tuple[str, pd.DataFrame]:
    """What the log is, and its events; `release` None = its ids tell; of `names` only whether ratings are wanted.

    Raises:
        DataError: A line has too many, too few or unreadable fields, or the ids do not tell users from items.
    """
    table = _table(source, ",", names)
    if release is None:
        release = _release(source, table)
    if release == 2014:
        return "Amazon ratings of 2014, user,item,rating,timestamp", _standard(source, table, names)
    table = table.rename(columns={"user": "item", "item": "user"})
    return "Amazon ratings of 2018, item,user,rating,timestamp", _standard(source, table, names)


def _table(source: TextSource, separator: str, names: ColumnNames) -> pd.DataFrame:
    """The wanted columns, called as if users came first."""
    if source.header.count(separator) != len(_USER_FIRST) - 1:
        raise DataError(
            f"{source.at()}: a log of ratings must be user, item, rating and timestamp without a header, separated by"
            f" {separator!r}, got {source.header[:80]!r}. Set data.format to what the file is, or leave it out."
        )
    wanted = [name for name in _USER_FIRST if name != "rating" or names.rating is not None]
    return TextTable(source, separator, _USER_FIRST, has_header=False).read(wanted)


def _standard(source: TextSource, table: pd.DataFrame, names: ColumnNames) -> pd.DataFrame:
    columns = ColumnNames("user", "item", rating="rating" if names.rating is not None else None)
    return standard_interactions(table, columns, RowNames(str(source.path), first=source.first_line))


def _release(source: TextSource, table: pd.DataFrame) -> Literal[2014, 2018]:
    if _most(table["user"], _USER) and _most(table["item"], _PRODUCT):
        return 2014
    if _most(table["user"], _PRODUCT) and _most(table["item"], _USER):
        return 2018
    raise DataError(
        f"{source.at()}: cannot tell users from items, got {source.header[:80]!r}. Amazon's ratings of 2014 are"
        " user,item,rating,timestamp and those of 2018 item,user,rating,timestamp: of the first two columns one must"
        " hold products (10 characters) and the other users (longer, beginning with A). Set data.format to amazon-2014"
        " or amazon-2018."
    )


def _most(ids: pd.Series, pattern: str) -> bool:
    return bool(ids.str.fullmatch(pattern, na=False).mean() > _MOST)
