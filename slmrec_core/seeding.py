"""One experiment seed, from which every source of randomness takes its own."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(0, "dropout", epoch, rank)`.

    Hashing keeps streams apart: with `seed + epoch` the first epoch of seed 1 would repeat the second of seed 0.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, *purpose: object) -> None:
    """Sets torch's global generators (dropout, initialisation), which is all the global randomness that we use."""
    torch.manual_seed(derive_seed(seed, *purpose))
