"""Logs of ratings whose columns have no names, known by what they hold: who, what, how good, and when.

    user::item::rating::timestamp    MovieLens-1M, 10M    ratings.dat
    user⇥item⇥rating⇥timestamp       MovieLens-100K       u.data and its parts
    user,item,rating,timestamp       Amazon 2014          ratings_*.csv
    item,user,rating,timestamp       Amazon 2018          *.csv

Amazon turned the first two columns round between two releases, and nothing in the file says so but the ids: a product's
has 10 characters, a user's begins with A and is, but for a few in a thousand, longer.
"""

import re
from dataclasses import replace

import pandas as pd

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.text_files import TextSource, read_table
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
_ITEM_FIRST = ["item", "user", "rating", "timestamp"]


def read_rating_log(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame] | None:
    """What the log is, and its events with MovieLens' titles where they lie beside it; None = it is another file.

    Of `names` it only counts whether ratings are wanted.

    Raises:
        DataError: A line has too many or unreadable fields, or users cannot be told from items.
    """
    if _MOVIELENS_DAT.fullmatch(source.header):
        # pandas' fast parser takes separators of one character alone.
        tabbed = replace(source, text=source.text.replace("::", "\t"))
        form, events = "MovieLens, user::item::rating::timestamp", _events(tabbed, "\t", names)
        return form, with_movie_titles(events, source.path)
    if _MOVIELENS_TAB.fullmatch(source.header):
        form, events = "MovieLens-100K, user item rating timestamp", _events(source, "\t", names)
        return form, with_movie_titles(events, source.path)
    if _AMAZON.fullmatch(source.header):
        return _read_amazon(source, names)
    return None


def _events(source: TextSource, separator: str, names: ColumnNames) -> pd.DataFrame:
    return _standard(source, read_table(source, separator, quoted=False, columns=_USER_FIRST), names)


def _standard(source: TextSource, table: pd.DataFrame, names: ColumnNames) -> pd.DataFrame:
    columns = ColumnNames("user", "item", rating="rating" if names.rating is not None else None)
    return standard_interactions(table, columns, RowNames(str(source.path), first=source.first_line))


def _read_amazon(source: TextSource, names: ColumnNames) -> tuple[str, pd.DataFrame]:
    table = read_table(source, ",", quoted=False, columns=_USER_FIRST)
    if _most(table["user"], _USER) and _most(table["item"], _PRODUCT):
        return "Amazon ratings of 2014, user,item,rating,timestamp", _standard(source, table, names)
    if _most(table["user"], _PRODUCT) and _most(table["item"], _USER):
        table = table.rename(columns=dict(zip(_USER_FIRST, _ITEM_FIRST, strict=True)))
        return "Amazon ratings of 2018, item,user,rating,timestamp", _standard(source, table, names)
    raise DataError(
        f"{source.at()}: cannot tell users from items, got {source.header[:80]!r}. Amazon's ratings of 2014 are"
        " user,item,rating,timestamp and those of 2018 item,user,rating,timestamp: of the first two columns one must"
        " hold products (10 characters) and the other users (longer, beginning with A). Put the line"
        " 'user_id,item_id,rating,timestamp' or 'item_id,user_id,rating,timestamp' above it."
    )


def _most(ids: pd.Series, pattern: str) -> bool:
    return bool(ids.str.fullmatch(pattern, na=False).mean() > _MOST)
