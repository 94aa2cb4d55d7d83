"""A small generated catalogue whose best possible score is known, for tests and the quickstart.

Items stand in a ring in a hidden order. From each item a user goes to its successor with probability `follow`, and to
an item drawn uniformly from the whole catalogue otherwise. So the best predictor of the next item names the successor
and is right with probability `follow + (1 - follow) / num_items`; no model can do better, and one that learns nothing
is right once in `num_items`.
"""

import hashlib
import json

import numpy as np
import pandas as pd

GENERATOR_VERSION = "ring-1"
"""Raised whenever the same arguments would give other events; part of the fingerprint."""

DEFAULT_NUM_USERS = 200
DEFAULT_NUM_ITEMS = 60
DEFAULT_FOLLOW = 0.8
_MIN_EVENTS, _MAX_EVENTS = 10, 30
_FIRST_SECOND = 1_700_000_000
_SECONDS_BETWEEN_EVENTS = 86_400


def synthetic_interactions(
    num_users: int = DEFAULT_NUM_USERS,
    num_items: int = DEFAULT_NUM_ITEMS,
    follow: float = DEFAULT_FOLLOW,
    seed: int = 0,
) -> pd.DataFrame:
    """Walks along the ring, one per user, 10 to 30 events long.

    Args:
        num_users: Walks to generate.
        num_items: Length of the ring.
        follow: Probability of going on to the successor, in [0, 1].
        seed: Fixes the ring, the walks and the order of the rows.

    Returns:
        Columns `user_id`, `item_id`, `timestamp` (unix seconds) and `title`. The rows are shuffled on purpose: code
        that forgets to sort by time learns nothing from them.
    """
    generator = np.random.default_rng(seed)
    ring = generator.permutation(num_items)
    lengths = generator.integers(_MIN_EVENTS, _MAX_EVENTS, size=num_users, endpoint=True)
    places = [_walk(int(length), num_items, follow, generator) for length in lengths]
    items = ring[np.concatenate(places)] if places else np.empty(0, dtype=np.int64)
    positions = np.concatenate([np.arange(length) for length in lengths]) if places else items
    frame = pd.DataFrame(
        {
            "user_id": [f"user-{user}" for user in np.repeat(np.arange(num_users), lengths)],
            "item_id": [f"item-{item}" for item in items],
            "timestamp": _FIRST_SECOND + _SECONDS_BETWEEN_EVENTS * positions.astype(np.int64),
            "title": [f"Thing number {item}" for item in items],
        }
    )
    return frame.iloc[generator.permutation(len(frame))].reset_index(drop=True)


def _walk(length: int, num_items: int, follow: float, generator: np.random.Generator) -> np.ndarray:
    """Places on the ring: a jump sets the place, every other step adds one to it."""
    jumps = generator.random(length) >= follow
    jumps[0] = True
    landings = generator.integers(num_items, size=length)
    steps = np.arange(length)
    last_jump = np.maximum.accumulate(np.where(jumps, steps, 0))
    return (landings[last_jump] + steps - last_jump) % num_items


def synthetic_fingerprint() -> str:
    """SHA-256 that stands for the default catalogue: of the generator's version and arguments, not of its output."""
    arguments = [GENERATOR_VERSION, DEFAULT_NUM_USERS, DEFAULT_NUM_ITEMS, DEFAULT_FOLLOW, _MIN_EVENTS, _MAX_EVENTS, 0]
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()
