"""Logs of ratings whose columns have no names, known by what they hold: who, what, how good, and when.

user::item::rating::timestamp    MovieLens-1M, 10M    ratings.dat
user⇥item⇥rating⇥timestamp       MovieLens-100K       u.data and its parts
"""

import re
from dataclasses import replace

import pandas as pd

from slmrec_core.data.columns import ColumnNames, RowNames, standard_interactions
from slmrec_core.data.text_files import TextSource, read_table
from slmrec_core.data.titles import with_movie_titles

_RATING = r"\d+(\.\d+)?"
# Nine digits begin in 1973: shorter numbers may be items of a user's list.
_SECONDS = r"\d{9,10}"
_MOVIELENS_DAT = re.compile(rf"\d+::\d+::{_RATING}::{_SECONDS}")
_MOVIELENS_TAB = re.compile(rf"\d+\t\d+\t[0-5](\.\d+)?\t{_SECONDS}")
_USER_FIRST = ["user", "item", "rating", "timestamp"]


def read_rating_log(source: TextSource) -> tuple[str, pd.DataFrame] | None:
    """What the log is, and its events with MovieLens' titles where they lie beside it; None = it is another file.

    Raises:
        DataError: A line has too many or unreadable fields.
    """
    if _MOVIELENS_DAT.fullmatch(source.header):
        # pandas' fast parser takes separators of one character alone.
        tabbed = replace(source, text=source.text.replace("::", "\t"))
        form, events = "MovieLens, user::item::rating::timestamp", _events(tabbed, "\t")
        return form, with_movie_titles(events, source.path)
    if _MOVIELENS_TAB.fullmatch(source.header):
        form, events = "MovieLens-100K, user item rating timestamp", _events(source, "\t")
        return form, with_movie_titles(events, source.path)
    return None


def _events(source: TextSource, separator: str) -> pd.DataFrame:
    return _standard(source, read_table(source, separator, quoted=False, columns=_USER_FIRST))


def _standard(source: TextSource, table: pd.DataFrame) -> pd.DataFrame:
    return standard_interactions(
        table, ColumnNames("user", "item"), RowNames(str(source.path), first=source.first_line)
    )
