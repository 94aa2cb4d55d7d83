"""How far the mean of a metric, and the difference between two runs, can be trusted.

Values have one row per seed and one column per user: seed s is a whole run from item table to student, and column u
is the same user everywhere. Users and seeds are both samples, so both are resampled.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Integer

from slmrec_core.errors import ConfigError, DataError

EQUAL_MARGIN = 0.002
"""Differences of NDCG@10 that do not matter in practice: two runs are equal when the interval lies within ± this."""

Verdict = Literal["better", "worse", "equal", "undecided"]

_CHUNK_VALUES = 2**22
"""Sign flips, or counts of drawn users, held in memory at once: 32 MiB as float64."""
_KEPT_COUNTS = 2**26
"""Counts of drawn users that are kept for the next metric: 128 MiB of 16 bits each, which is 33,000 users."""


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds that it would stay in under resampling."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """What can be said about run a against run b, user by user."""

    difference: float
    """Mean of a - b over users and seeds."""
    by_seed: tuple[float, ...]
    """The same over the users of each seed."""
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    """Upper end of the 95 % interval of the difference."""
    p_value: float
    """Two-sided, before any correction for several comparisons; see `holm`."""
    verdict: Verdict
    """a is better or worse: the interval excludes 0 and the seeds agree in sign. Else equal: the interval lies within
    `EQUAL_MARGIN` of 0. Else undecided, which is all that a large p-value alone can say."""


def bootstrap_interval(
    values: Float[np.ndarray, "seed user"], num_samples: int = 2_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of the mean when users and seeds are drawn anew, with replacement.

    One seed can only be drawn as itself: the interval then covers the choice of users and nothing else. With two or
    three seeds the spread between seeds is measured but underestimated.

    Args:
        values: A metric per user, or the paired difference of two.
        num_samples: Draws; those of the last users are kept up to 128 MiB, beyond it memory does not grow with them.
        seed: Of the draws, which have nothing to do with the seeds of the runs.
        level: Share of the draws inside the interval, between 0 and 1.

    Raises:
        ConfigError: `num_samples` is below 1 or `level` is not between 0 and 1.
        DataError: There are no values, or one is not finite.
    """
    _require_values(values, "bootstrap_interval")
    _require_at_least_one(num_samples, "bootstrap_interval", "num_samples")
    if not 0 < level < 1:
        raise ConfigError(f"bootstrap_interval: level must be between 0 and 1, got {level!r}. The usual value is 0.95.")
    num_seeds, num_users = values.shape
    values = values.astype(np.float64)
    draw = _kept_draws if num_users * num_samples <= _KEPT_COUNTS else _draws
    means = np.concatenate(
        [
            # From [seed, draw] to the seeds that each draw has, [draw, seed].
            np.take_along_axis(values @ user_counts.T.astype(np.float64) / num_users, seeds.T, axis=0).mean(axis=0)
            for user_counts, seeds in draw(num_seeds, num_users, num_samples, seed)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def _draws(
    num_seeds: int, num_users: int, num_samples: int, seed: int
) -> Iterator[tuple[Integer[np.ndarray, "draw user"], Int[np.ndarray, "draw seed"]]]:
    """How often each user was drawn, and which seeds, some draws at a time."""
    rng = np.random.default_rng(seed)
    counts_type = np.min_scalar_type(num_users)
    chunk = max(1, _CHUNK_VALUES // num_users)
    for start in range(0, num_samples, chunk):
        num_draws = min(chunk, num_samples - start)
        user_counts = np.empty((num_draws, num_users), dtype=counts_type)
        seeds = np.empty((num_draws, num_seeds), dtype=np.intp)
        for row in range(num_draws):
            # Faster than gathering the drawn columns or drawing multinomial counts.
            user_counts[row] = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
            seeds[row] = rng.integers(num_seeds, size=num_seeds)
        yield user_counts, seeds


@functools.lru_cache(maxsize=1)
def _kept_draws(
    num_seeds: int, num_users: int, num_samples: int, seed: int
) -> tuple[tuple[Integer[np.ndarray, "draw user"], Int[np.ndarray, "draw seed"]], ...]:
    """`_draws`, for the next metric of the same users."""
    return tuple(_draws(num_seeds, num_users, num_samples, seed))


def sign_flip_p_value(differences: Float[np.ndarray, "user"], num_permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference under "a and b could be swapped for each user", by random sign flips.

    Phipson and Smyth (2010): the observed signs count as one of the permutations, (1 + count) / (1 + permutations),
    so that the value is never 0 and never rejects too often.

    Args:
        differences: a - b per user, averaged over seeds.
        num_permutations: Flips of all signs; the smallest possible p-value is 1 / (1 + this).
        seed: Of the flips.

    Raises:
        ConfigError: `num_permutations` is below 1.
        DataError: There are no differences, or one is not finite.
    """
    _require_values(differences, "sign_flip_p_value")
    _require_at_least_one(num_permutations, "sign_flip_p_value", "num_permutations")
    # Flipping a zero changes nothing, and most users have the same metric in both runs.
    moved = differences[differences != 0].astype(np.float64)
    if moved.size == 0:
        return 1.0
    total = moved.sum()
    # Sums in another order differ in the last digits; a flip that gives the same sum must count as a tie.
    threshold = abs(total) - 1e-12 * np.abs(moved).sum()
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // moved.size)
    num_as_extreme = 0
    for start in range(0, num_permutations, chunk):
        num_rows = min(chunk, num_permutations - start)
        bits = np.frombuffer(rng.bytes(num_rows * -(-moved.size // 8)), dtype=np.uint8).reshape(num_rows, -1)
        kept = np.unpackbits(bits, axis=1, count=moved.size).astype(np.float64)
        # Signs of 2 * bit - 1, without a second matrix.
        num_as_extreme += int((np.abs(2 * (kept @ moved) - total) >= threshold).sum())
    return (1 + num_as_extreme) / (1 + num_permutations)


def paired_test(
    a: Float[np.ndarray, "seed user"],
    b: Float[np.ndarray, "_ _"],
    num_permutations: int = 10_000,
    seed: int = 0,
    num_samples: int = 2_000,
) -> PairedTest:
    """Is run a better than run b? The same users in the same columns, the same seeds in the same rows.

    The p-value: sign flips over users of the difference averaged over seeds. The interval: a paired bootstrap over
    users and seeds. The verdict rests on the interval and the seeds, not on the p-value.

    Args:
        a: A metric per user, higher = better.
        b: The same of the run that it is compared with.
        num_permutations: Sign flips behind the p-value.
        seed: Of the flips and draws.
        num_samples: Draws behind the interval.

    Raises:
        ConfigError: `num_permutations` or `num_samples` is below 1.
        DataError: The shapes differ, there are no values, or one is not finite.
    """
    if a.shape != b.shape:
        raise DataError(
            f"paired_test: both runs need the same seeds and users, got [seed, user] {list(a.shape)} and"
            f" {list(b.shape)}. Evaluate both on the same split, in the same order of users."
        )
    gap = a.astype(np.float64) - b.astype(np.float64)
    interval = bootstrap_interval(gap, num_samples=num_samples, seed=seed)
    p_value = sign_flip_p_value(gap.mean(axis=0), num_permutations=num_permutations, seed=seed)
    by_seed = tuple(gap.mean(axis=1).tolist())
    return PairedTest(
        difference=interval.mean,
        by_seed=by_seed,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        verdict=_verdict(interval, by_seed),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of several comparisons, by name in the order given (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, never falls below a smaller one's and never exceeds 1. At most
    a share alpha of such families has any false finding among the values up to alpha. List the comparisons before
    looking at them.

    Raises:
        DataError: A p-value is not between 0 and 1.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for index, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if not 0 <= p_value <= 1:
            raise DataError(f"holm: a p-value lies between 0 and 1, got {p_value!r} for {name!r}. Pass raw p-values.")
        running = max(running, min(1.0, (len(p_values) - index) * p_value))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def _verdict(interval: Interval, by_seed: Sequence[float]) -> Verdict:
    if interval.low > 0 and min(by_seed) > 0:
        return "better"
    if interval.high < 0 and max(by_seed) < 0:
        return "worse"
    if max(-interval.low, interval.high) <= EQUAL_MARGIN:
        return "equal"
    return "undecided"


def _require_values(values: Float[np.ndarray, "..."], where: str) -> None:
    if values.size == 0:
        raise DataError(
            f"{where}: there is nothing to average, got shape {list(values.shape)}. Pass at least one user."
        )
    if not np.isfinite(values).all():
        num_bad = int((~np.isfinite(values)).sum())
        raise DataError(
            f"{where}: every value must be finite, got {num_bad} that are not. Leave out the run that failed."
        )


def _require_at_least_one(number: int, where: str, name: str) -> None:
    if number < 1:
        raise ConfigError(f"{where}: {name} must be at least 1, got {number!r}. The default is usually enough.")
