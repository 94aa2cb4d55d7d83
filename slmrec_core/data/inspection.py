"""What a set of events is like, and the signs that it is not what it seems."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from slmrec_core.data.order_signal import markov_hit_rate, shuffled_within_users, turned_neighbours

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_ENOUGH_ITEMS = 5
"""Shorter histories ascend by chance: one of two orders of two items, one of six of three, one of 120 of five."""
_SUSPICIOUS_SHARE = 0.5
"""Of users whose items ascend. Files in the order of time have 0 to 0.21 (Amazon's, whose reviews of one day lie in the
order of products, most), files that were sorted by id have 1."""
_ENOUGH_NEIGHBOURS = 20
"""Below that, none in both orders may be chance."""
_SUSPICIOUS_TURNED = 0.05
"""Of neighbours. Files in the order of time have 0.27 (Amazon's) to 0.64 (MovieLens), files that were sorted have 0."""

_PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_YEAR_1990, _YEAR_2100 = 631_152_000, 4_102_444_800
"""Unix seconds."""


@dataclass(frozen=True)
class Inspection:
    """Measures of a set of events as it was read, before any filter."""

    form: str
    """How the file was read."""
    num_users: int
    num_items: int
    num_events: int
    density: float
    """Different pairs of user and item as a share of all possible ones, in (0, 1]."""
    length_quantiles: dict[float, int]
    """Events per user: the smallest length that this share of users does not exceed; 0 = the shortest, 1 = the
    longest."""
    first_time: int | float | None
    """Earliest timestamp, in the unit of the file; None = the file has no times."""
    last_time: int | float | None
    tied_share: float | None
    """Events that share their timestamp with another event of the same user; None = the file has no times."""
    num_repeats: int
    """Events whose item the same user had before."""
    num_duplicates: int | None
    """Repeats at the very time of the event that they repeat; None = the file has no times."""
    num_comparable: int
    """Users with five or more different items: those whose order says something."""
    num_ascending: int
    """Comparable users whose items never descend by id, as numbers or as text, in the order of time."""
    expected_ascending: float
    """Comparable users who would ascend if every order were as likely."""
    num_neighbours: int
    """Pairs of items that are neighbours in time twice or more."""
    num_turned: int
    """Neighbours that come in both orders."""
    num_titled: int | None
    """Items with a title; None = the file has no titles."""
    markov_hit_rate: float | None
    """Of `slmrec_core.data.order_signal`: last items that a Markov chain has among its first ten; None = no user has
    three events."""
    shuffled_hit_rate: float | None
    """The same with each user's events shuffled."""

    @property
    def ascending_share(self) -> float:
        """Of comparable users, in [0, 1]; 0 if there are none."""
        return self.num_ascending / max(self.num_comparable, 1)

    @property
    def turned_share(self) -> float:
        """Of neighbours, in [0, 1]; 0 if there are none."""
        return self.num_turned / max(self.num_neighbours, 1)

    @property
    def time_units(self) -> tuple[str, ...]:
        """Units in which the first and the last time would lie between 1990 and 2100: none if either fits no unit, two
        if their units differ."""
        found = [_time_unit(time) for time in (self.first_time, self.last_time)]
        return tuple(dict.fromkeys(unit for unit in found if unit)) if all(found) else ()

    @property
    def is_sorted_by_item(self) -> bool:
        """True = the events seem to be sorted by item, so that their order in time is lost.

        Most comparable users ascend by id, or hardly any two items come in both orders, which ids given after the
        sorting do not hide.
        """
        few_turned = self.num_neighbours >= _ENOUGH_NEIGHBOURS and self.turned_share < _SUSPICIOUS_TURNED
        return self.ascending_share > _SUSPICIOUS_SHARE or few_turned

    def lines(self) -> Iterator[str]:
        """A table of two columns, then a warning where there is one."""
        rows = {"read as": self.form}
        rows |= {"users": f"{self.num_users:,}", "items": f"{self.num_items:,}", "events": f"{self.num_events:,}"}
        rows["density"] = f"{self.density:.4%} of all pairs of user and item"
        ends = {0.0: "min", 1.0: "max"}
        lengths = [f"{ends.get(share, f'{share:.0%}')} {length:,}" for share, length in self.length_quantiles.items()]
        rows["events per user"] = ", ".join(lengths)
        if self.tied_share is None:
            rows["timestamps"] = "none: the order in the file is the order in time"
        else:
            rows["timestamps"] = f"{self.first_time} to {self.last_time}"
            if len(self.time_units) == 1:
                dates = " to ".join(_date(time, *self.time_units) for time in (self.first_time, self.last_time))
                rows["timestamps"] += f" ({dates}, as {self.time_units[0]})"
            rows["tied timestamps"] = f"{self.tied_share:.1%} of events share theirs with another one of the same user"
        rows["repeats"] = f"{self.num_repeats / self.num_events:.1%} of events, of an item that the user had before"
        if self.num_duplicates is not None:
            rows["duplicates"] = f"{self.num_duplicates:,} of the repeats, with the same timestamp"
        chance = self.expected_ascending / max(self.num_comparable, 1)
        rows["ascending items"] = (
            f"{self.ascending_share:.1%} of the {self.num_comparable:,} users with {_ENOUGH_ITEMS} or more items"
            f" (chance: {chance:.1%})"
        )
        rows["turned items"] = (
            f"{self.turned_share:.1%} of the {self.num_neighbours:,} pairs that are neighbours twice or more"
            " come in both orders"
        )
        if self.markov_hit_rate is not None and self.shuffled_hit_rate is not None:
            rows["next item"] = (
                f"a Markov chain has {self.markov_hit_rate:.1%} of the last items among its first 10,"
                f" {self.shuffled_hit_rate:.1%} with each user's order shuffled"
            )
        rows["titles"] = "none" if self.num_titled is None else f"of {self.num_titled / self.num_items:.1%} of items"
        for name, value in rows.items():
            yield f"{name:<16} {value}"
        if len(self.time_units) > 1:
            yield (
                f"warning: the first time reads as {self.time_units[0]}, the last one as {self.time_units[1]}. Times in"
                " two units have no order: convert one of them."
            )
        if self.is_sorted_by_item:
            yield (
                "warning: items stand in one order for all users, the sign of a set that was sorted by item and not by"
                " time. Next-item scores on it mean nothing: take the set from another source, or one with timestamps."
            )


def inspect_interactions(interactions: pd.DataFrame) -> Inspection:
    """Measures a table of events.

    Args:
        interactions: At least one row, as `load_interactions` returns them; not changed.
    """
    user_codes, user_ids = pd.factorize(interactions["user_id"])
    item_codes, item_ids = pd.factorize(interactions["item_id"])
    times = interactions["timestamp"].to_numpy()
    # Stable, like the order that models see: events at one time stay in the order of the rows.
    order = np.lexsort((times, user_codes))
    users, items, times = user_codes[order], item_codes[order], times[order]
    pairs = np.unique(users.astype(np.int64) * len(item_ids) + items)
    lengths, num_different = np.bincount(users), np.bincount(pairs // len(item_ids))
    is_comparable = num_different >= _ENOUGH_ITEMS
    has_times = bool(interactions.attrs.get("has_timestamps", True))
    is_next = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    is_tied = np.append(is_next, False) | np.append(False, is_next)
    triples = pd.DataFrame({"user": users, "item": items, "time": times})
    titled = interactions["title"].to_numpy() != "" if "title" in interactions else None
    num_neighbours, num_turned = turned_neighbours(users, items)
    return Inspection(
        form=str(interactions.attrs.get("format", "a table")),
        num_users=len(user_ids),
        num_items=len(item_ids),
        num_events=len(users),
        density=len(pairs) / (len(user_ids) * len(item_ids)),
        length_quantiles={
            share: int(length)
            for share, length in zip(_QUANTILES, np.quantile(lengths, _QUANTILES, method="inverted_cdf"), strict=True)
        },
        first_time=times.min().item() if has_times else None,
        last_time=times.max().item() if has_times else None,
        tied_share=float(is_tied.mean()) if has_times else None,
        num_repeats=len(users) - len(pairs),
        num_duplicates=int(triples.duplicated().sum()) if has_times else None,
        num_comparable=int(is_comparable.sum()),
        num_ascending=max(_num_ascending(users, places[items], is_comparable) for places in _orders(item_ids)),
        expected_ascending=math.fsum(1 / math.factorial(min(n, 20)) for n in num_different[is_comparable].tolist()),
        num_neighbours=num_neighbours,
        num_turned=num_turned,
        num_titled=None if titled is None else len(np.unique(item_codes[titled])),
        markov_hit_rate=markov_hit_rate(users, items),
        shuffled_hit_rate=markov_hit_rate(users, items[shuffled_within_users(users)]),
    )


def _time_unit(time: int | float | None) -> str | None:
    if time is None:
        return None
    return next(
        (unit for unit, per_second in _PER_SECOND.items() if _YEAR_1990 <= time / per_second < _YEAR_2100), None
    )


def _date(time: int | float | None, unit: str) -> str:
    return "" if time is None else str(datetime.fromtimestamp(time / _PER_SECOND[unit], UTC).date())


def _orders(item_ids: pd.Index) -> Iterator[Int[np.ndarray, " items"]]:
    """Place of each item in the orders that a file may have been sorted by: of text, and if they are, of numbers."""
    yield pd.Series(item_ids).rank(method="dense").to_numpy(dtype=np.int64)
    numbers = pd.to_numeric(pd.Series(item_ids), errors="coerce")
    if not numbers.isna().any():
        yield numbers.rank(method="dense").to_numpy(dtype=np.int64)


def _num_ascending(
    users: Int[np.ndarray, " events"], places: Int[np.ndarray, " events"], is_comparable: Bool[np.ndarray, " users"]
) -> int:
    """Comparable users without a step down; events stand user after user."""
    descends = (users[1:] == users[:-1]) & (places[1:] < places[:-1])
    num_descents = np.bincount(users[1:][descends], minlength=len(is_comparable))
    return int(np.count_nonzero(is_comparable & (num_descents == 0)))
