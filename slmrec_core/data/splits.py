"""Where each user's events are cut: leave-one-out per user, or at two moments that are the same for all."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Int32, Shaped

from slmrec_core.errors import ConfigError, DataError

Split = Literal["train", "valid", "test"]
EvaluationSplit = Literal["valid", "test"]
SplitRule = Literal["leave_one_out", "global_time"]


def leave_one_out(num_events: Int[np.ndarray, " users"]) -> Int[np.ndarray, "users 3"]:
    """Length of each user's history in train, valid and test where the last two events are the targets."""
    return np.stack([num_events - 2, num_events - 2, num_events - 1], axis=1)


def fits(cuts: Int[np.ndarray, "any 3"], num_events: Int[np.ndarray, " users"]) -> bool:
    """True = these are histories of users with so many events, and every target is one of them."""
    return cuts.shape == (len(num_events), 3) and bool(((cuts >= 0) & (cuts <= num_events[:, None] - [0, 1, 1])).all())


@dataclass(frozen=True)
class GlobalTimeSplit:
    """A cut at two moments: events before the first train, `valid` lies between them, `test` from the second on.

    Of each user the last event of `valid` and the last one of `test` are predicted, each from everything that the user
    did before it. The last and not the first: what a user does first after a cut comes after an unusually long pause,
    and results on it agree less with those on all events one after the other (Gusak et al., Time to Split, RecSys
    2025). A user without an event in a part, or without one before it, is not asked there.

    Raises:
        ConfigError: The shares or times do not ascend, or a share is not between 0 and 1.
    """

    quantiles: tuple[float, float] = (0.8, 0.9)
    """Shares of all kept events before the first and the second moment; events at one time stay together."""
    times: tuple[int | float, int | float] | None = None
    """The moments, in the unit of the timestamps; None = those of `quantiles`."""

    def __post_init__(self) -> None:
        first, second = self.quantiles
        if not 0 < first < second < 1:
            raise ConfigError(
                f"data.split_quantiles: must be two shares between 0 and 1 that ascend, got {list(self.quantiles)}."
                " Use for instance [0.8, 0.9]."
            )
        if self.times is not None and not self.times[0] < self.times[1]:
            raise ConfigError(
                f"data.split_times: must be two moments that ascend, got {list(self.times)}. Turn them round."
            )

    def cuts(
        self, users: Int[np.ndarray, " events"], timestamps: Shaped[np.ndarray, " events"]
    ) -> Int32[np.ndarray, "users 3"]:
        """Length of each user's history in train, valid and test; 0 = no target there (train: no event).

        Args:
            users: Of each event, 0 … users − 1; each has an event.
            timestamps: Of each event.

        Raises:
            DataError: A part has nobody to train on or to ask.
        """
        first, second = self._moments(timestamps)
        num_events = np.bincount(users)
        before_valid, before_test = (
            np.bincount(users[timestamps < moment], minlength=len(num_events)) for moment in (first, second)
        )
        has_valid = (before_test > before_valid) & (before_test > 1)
        has_test = (num_events > before_test) & (num_events > 1)
        found = np.stack([before_valid, has_valid * (before_test - 1), has_test * (num_events - 1)], axis=1)
        asked = {"train": before_valid > 1, "valid": has_valid, "test": has_test}
        if empty := [name for name, some in asked.items() if not some.any()]:
            raise DataError(
                f"interactions: a split at {first} and {second} must leave users to every part, got none for"
                f" {' and '.join(empty)} (times from {timestamps.min()} to {timestamps.max()})."
                " Change data.split_quantiles or data.split_times."
            )
        return found.astype(np.int32)

    def _moments(self, timestamps: Shaped[np.ndarray, " events"]) -> tuple[int | float, int | float]:
        if self.times is not None:
            return self.times
        places = [int(share * len(timestamps)) for share in self.quantiles]
        first, second = np.partition(timestamps, places)[places].tolist()
        return first, second
