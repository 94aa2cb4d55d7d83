"""From a file's columns to `user_id`, `item_id`, `timestamp` and `title`: checked once, for every format."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Shaped

from slmrec_core.errors import DataError, nearest_name, shown

_FIRST_INEXACT = 2.0**53
"""From here on float64 skips whole numbers."""
_KNOWN_NAMES = {
    "user": ("user_id", "reviewerID", "userId"),
    "item": ("item_id", "parent_asin", "asin", "movieId"),
    "timestamp": ("timestamp", "unixReviewTime"),
    "rating": ("rating", "overall"),
}
"""Default name of each role, then those of Amazon and MovieLens; `parent_asin` is a product, `asin` a variant of it."""
_WITHOUT = {
    "timestamp": ", or set it to null if every user's rows already stand in time order",
    "rating": ", or leave data.min_rating out",
}
"""What else to do about a missing column."""
_SHOWN_COLUMNS = 20
"""Names listed in a message; a file without a header can have thousands."""


@dataclass(frozen=True)
class ColumnNames:
    """Which columns to read; None = the file has none."""

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str | None = "timestamp"
    title: str | None = None
    rating: str | None = None


@dataclass(frozen=True)
class RowNames:
    """How an error calls a row: its file and the number that an editor shows beside it."""

    source: str
    unit: str = "line"
    first: int = 2

    def __call__(self, position: int) -> str:
        return f"{self.source}, {self.unit} {self.first + position}"


def found_columns(columns: Iterable[object], names: ColumnNames, source: str) -> ColumnNames:
    """The wanted columns as the file calls them: names that we know also answer to the default ones.

    Raises:
        DataError: One is not there; tells which there are, the nearest name and the setting.
    """
    present = [str(column) for column in columns]
    known = {
        role: next((name for name in aliases if name in present), default)
        for role, (default, *aliases) in _KNOWN_NAMES.items()
        if getattr(names, role) == default and default not in present
    }
    names = replace(names, **known)
    for role, column in vars(names).items():
        if column is None or column in present:
            continue
        listed = ", ".join(map(shown, present[:_SHOWN_COLUMNS])) + (", …" if len(present) > _SHOWN_COLUMNS else "")
        nearest = nearest_name(column, present)
        suggestion = f" {nearest}" if nearest.startswith("Did you mean") else ""
        without = _WITHOUT.get(role, "")
        raise DataError(
            f"{source}: no {role} column {column!r}, got columns {listed}.{suggestion}"
            f" Name it with `--set data.{role}_column=NAME` ({role}_column= in Python, --{role}-column in inspect)"
            f"{without}."
        )
    return names


def standard_interactions(raw: pd.DataFrame, names: ColumnNames, rows: RowNames) -> pd.DataFrame:
    """The events of `raw` under our column names: ids as text, times and ratings as numbers.

    Without a timestamp column the position among the user's rows is the time, and `attrs["has_timestamps"]` is False.
    `attrs["columns"]` lists the columns that were read.

    Raises:
        DataError: A column is missing, there is no row, or a user, item, timestamp or rating is missing or not
            readable.
    """
    names = found_columns(raw.columns, names, rows.source)
    if raw.empty:
        raise DataError(f"{rows.source}: no interactions, got 0 rows. Use a file with at least one event.")
    for name in filter(None, vars(names).values()):
        _refuse(_is_no_scalar(raw[name]), raw[name], rows, "text or a number")
    frame = pd.DataFrame({"user_id": _ids(raw[names.user], rows), "item_id": _ids(raw[names.item], rows)})
    if names.timestamp is None:
        frame["timestamp"] = frame.groupby("user_id", sort=False).cumcount().to_numpy(dtype=np.int64)
    else:
        frame["timestamp"] = _timestamps(raw[names.timestamp], rows)
    if names.title is not None:
        frame["title"] = _text(raw[names.title].astype(object).fillna(""))
    if names.rating is not None:
        frame["rating"] = _ratings(raw[names.rating], rows)
    frame.attrs["has_timestamps"] = names.timestamp is not None
    frame.attrs["columns"] = [name for name in vars(names).values() if name is not None]
    return frame


def _refuse(is_bad: Bool[np.ndarray, " rows"], column: pd.Series, rows: RowNames, wanted: str) -> None:
    """Name the first bad row, its value and how many there are."""
    if not is_bad.any():
        return
    first = int(is_bad.argmax())
    value = column.iloc[first]
    # NumPy's own numbers call themselves np.float64(nan).
    value = value.item() if isinstance(value, np.generic) else value
    others = f" ({int(is_bad.sum())} such rows)" if is_bad.sum() > 1 else ""
    raise DataError(
        f"{rows(first)}: column {str(column.name)!r} must hold {wanted}, got {shown(value)}{others}."
        " Fill it in or remove the row."
    )


def _is_no_scalar(column: pd.Series) -> Bool[np.ndarray, " rows"]:
    """True = a list, a struct or bytes that are no text, as parquet files and callers' tables may hold."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.array([_has_parts(value) for value in column], dtype=bool)


def _has_parts(value: object) -> bool:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return True
    return isinstance(value, Iterable) and not isinstance(value, str)


def _is_missing(column: pd.Series) -> Bool[np.ndarray, " rows"]:
    is_missing = column.isna()
    if not pd.api.types.is_numeric_dtype(column):
        # "nan" is what a missing number becomes on its way through text; "NA" and "None" may be real ids.
        is_missing |= column.astype(str).str.strip().isin(["", "nan", "NaN"])
    return is_missing.to_numpy(dtype=bool)


def _ids(column: pd.Series, rows: RowNames) -> pd.api.extensions.ExtensionArray:
    _refuse(_is_missing(column), column, rows, "an id")
    if pd.api.types.is_float_dtype(column) and (column % 1 == 0).all() and (column.abs() < _FIRST_INEXACT).all():
        # Whole numbers become floats on their way through a table that once missed one.
        column = column.astype(np.int64)
    return _text(column)


def _text(column: pd.Series) -> pd.api.extensions.ExtensionArray:
    """Arrow's text, a few bytes a row beside its letters; Python's takes about 60."""
    return column.astype(str).array


def _timestamps(column: pd.Series, rows: RowNames) -> Shaped[np.ndarray, " rows"]:
    """Numbers as they are, whatever their unit, since only their order is used; ISO 8601 dates as unix seconds."""
    wanted = "a number or an ISO 8601 date"
    _refuse(_is_missing(column), column, rows, wanted)
    if isinstance(column.dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_dtype(column):
        return _unix_seconds(pd.to_datetime(column, utc=True))
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().all():
        dates = pd.to_datetime(column.astype(str), format="ISO8601", utc=True, errors="coerce")
        _refuse(dates.isna().to_numpy(dtype=bool), column, rows, wanted)
        return _unix_seconds(dates)
    _refuse(~np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan)), column, rows, wanted)
    # float64 has no room for nanoseconds: neighbours would become equal, and their order that of the rows.
    fits = pd.api.types.is_integer_dtype(numbers) and int(numbers.max()) <= np.iinfo(np.int64).max
    return numbers.to_numpy(dtype=np.int64 if fits else np.float64)


def _ratings(column: pd.Series, rows: RowNames) -> Float64[np.ndarray, " rows"]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(~np.isfinite(numbers), column, rows, "a number")
    return numbers


def _unix_seconds(dates: pd.Series) -> Shaped[np.ndarray, " rows"]:
    # In the unit of the dates: nanoseconds end with the year 2262.
    epoch = pd.Timestamp(0, tz="UTC").as_unit(dates.dt.unit)
    seconds = ((dates - epoch) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64)
    whole = seconds.astype(np.int64)
    return whole if (whole == seconds).all() else seconds
