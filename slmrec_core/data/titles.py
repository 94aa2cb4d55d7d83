"""Titles of items that stand in a file of their own beside the events.

x.inter, x.test.inter                x.item       RecBole
u.data, u1.base, ua.test             u.item       MovieLens-100K, Latin-1
ratings.dat                          movies.dat   MovieLens-1M, Latin-1, and 10M, UTF-8
ratings.csv with column `movieId`    movies.csv   MovieLens-20M and later
X.json, reviews_X_5.json and so on   meta_X.json  Amazon; .jsonl as well, and events .csv

Either may be compressed, and then ends in .gz or .zst.
"""

import re
from pathlib import Path

import pandas as pd

from slmrec_core.data.amazon_metadata import product_titles
from slmrec_core.data.columns import ColumnNames, found_columns
from slmrec_core.data.text_files import TextSource, open_text
from slmrec_core.data.text_tables import quoted_table, typed_table
from slmrec_core.errors import DataError

_RECBOLE_TITLES = ("movie_title", "title")
_MOVIELENS_FILES = (
    (re.compile(r"u\.data|u[0-9ab]\.(base|test)"), "u.item"),
    (re.compile(r"ratings\.dat"), "movies.dat"),
    (re.compile(r"ratings\.csv"), "movies.csv"),
)
_AMAZON_FILE = re.compile(r"(reviews_|ratings_)?(?P<category>.+?)(_\d+)?(\.(train|valid|test))?\.(jsonl?|csv)")
_COMPRESSED = (".gz", ".zst")
_HEADLESS_SEPARATORS = {"u.item": "|", "movies.dat": "::"}


def item_file(path: Path) -> Path | None:
    """The table of items beside a file of events, by the names of this module's table; None = there is none."""
    return _recbole_file(path) or movie_file(path) or _metadata_file(path)


def _recbole_file(path: Path) -> Path | None:
    events = Path(_uncompressed(path.name))
    if events.suffix != ".inter":
        return None
    return _beside(path, [f"{stem}.item" for stem in (events.stem, events.stem.rpartition(".")[0]) if stem])


def movie_file(path: Path) -> Path | None:
    """MovieLens' file of movies beside a file of its ratings; None = there is none."""
    return _beside(path, [name for pattern, name in _MOVIELENS_FILES if pattern.fullmatch(_uncompressed(path.name))])


def _metadata_file(path: Path) -> Path | None:
    if (found := _AMAZON_FILE.fullmatch(_uncompressed(path.name))) is None:
        return None
    return _beside(path, [f"meta_{found['category']}.{suffix}" for suffix in ("json", "jsonl")])


def _beside(path: Path, names: list[str]) -> Path | None:
    files = (path.with_name(name + suffix) for name in names for suffix in ("", *_COMPRESSED))
    return next((file for file in files if file.is_file()), None)


def _uncompressed(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _COMPRESSED if name.endswith(suffix)), name)


def with_recbole_titles(frame: pd.DataFrame, path: Path, names: ColumnNames) -> pd.DataFrame:
    """The events with the titles of the .item file, where there is one.

    Raises:
        DataError: A title column is wanted and there is no such file or column, or the file cannot be read.
    """
    items_path = _recbole_file(path)
    if items_path is None:
        if names.title is not None:
            raise DataError(
                f"{path}: no .item file beside it to take titles from, got title_column={names.title!r}."
                " Set data.title_column=null, or put the file there."
            )
        return frame
    table = typed_table(open_text(items_path))
    title = names.title or next((column for column in _RECBOLE_TITLES if column in table.columns), None)
    item = found_columns(table.columns, ColumnNames(names.item, names.item, None, title), str(items_path)).item
    if title is None:
        return frame
    items = table.read([item, title])
    return _joined(frame, items[item], items[title])


def with_movie_titles(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The events with the titles of MovieLens' file of movies, where there is one.

    Raises:
        DataError: The file cannot be read.
    """
    items_path = movie_file(path)
    if items_path is None:
        return frame
    source = open_text(items_path, other_encoding="latin-1")
    if separator := _HEADLESS_SEPARATORS.get(_uncompressed(items_path.name)):
        movies = _id_and_title(source, separator)
        return _joined(frame, movies["item"], movies["title"])
    table = quoted_table(source, ",")
    if not {"movieId", "title"} <= set(table.columns):
        raise DataError(
            f"{source.at()}: MovieLens' movies must have columns movieId and title, got {source.header[:80]!r}."
            f" Take the file of the release that {path.name} is of, or move it away to read without titles."
        )
    movies = table.read(["movieId", "title"])
    return _joined(frame, movies["movieId"], movies["title"])


def with_product_titles(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The events with the titles of Amazon's metadata, where there are some, and of one of these products at least.

    Raises:
        DataError: The file cannot be read.
    """
    items_path = _metadata_file(path)
    if items_path is None:
        return frame
    titles = product_titles(items_path)
    is_other_set = not frame["item_id"].isin(titles.index).any()
    return frame if is_other_set else _joined(frame, titles.index.to_series(), titles)


def _joined(frame: pd.DataFrame, items: pd.Series, titles: pd.Series) -> pd.DataFrame:
    title_of = pd.Series(titles.to_numpy(), index=items.to_numpy())
    title_of = title_of[~title_of.index.duplicated()]
    return frame.assign(title=frame["item_id"].map(title_of).fillna("").astype(str))


def _id_and_title(source: TextSource, separator: str) -> pd.DataFrame:
    """The first two fields of each line; the others are genres and dates."""
    movies = []
    for start, block in source.blocks():
        for position, line in enumerate(block.split("\n"), start):
            item, *others = line.split(separator)
            if line.strip() and not others:
                raise DataError(
                    f"{source.at(position)}: a movie must be `id{separator}title`, got {line[:80]!r}. Mend or remove"
                    " the line."
                )
            movies += [(item, others[0])] if others else []
    return pd.DataFrame(movies, columns=["item", "title"])
