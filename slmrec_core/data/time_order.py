"""The order of a user's events: by time, and at one time by the order of their rows, or by none."""

from typing import Literal

import numpy as np
from jaxtyping import Int, Int64, Shaped

Ties = Literal["input", "shuffled"]
_TIES_SEED = 20240528
"""Fixed, so that every model meets the same order."""


def time_order(
    users: Int[np.ndarray, " events"], timestamps: Shaped[np.ndarray, " events"], ties: Ties
) -> Int64[np.ndarray, " events"]:
    """User after user, each in time order; events with equal timestamps stay in the order of their rows, or do not."""
    if ties == "shuffled":
        return np.lexsort((np.random.default_rng(_TIES_SEED).permutation(len(users)), timestamps, users))
    earliest, latest = timestamps.min(), timestamps.max()
    span = int(latest) - int(earliest) + 1
    if timestamps.dtype != np.int64 or (int(users.max()) + 1) * span > np.iinfo(np.int64).max:
        # Fractions, or nanoseconds of many users.
        return np.lexsort((timestamps, users))
    # One key sorts in half the time that two take.
    return np.argsort(users * np.int64(span) + (timestamps - earliest), kind="stable")
