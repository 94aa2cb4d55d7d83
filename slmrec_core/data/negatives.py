"""Candidates of the paper's sampled evaluation: the target among items that the user has never touched."""

import numpy as np
from jaxtyping import Int64

from slmrec_core.data.dataset import SequenceDataset
from slmrec_core.data.splits import EvaluationSplit
from slmrec_core.structures import PAD_ITEM

_SPLIT_SEEDS: dict[EvaluationSplit, int] = {"valid": 0, "test": 1}


def sampled_candidates(
    dataset: SequenceDataset, split: EvaluationSplit, num_negatives: int = 999, *, seed: int
) -> Int64[np.ndarray, "users candidates"]:
    """One target and `num_negatives` negatives per user, drawn once and the same for every model.

    The protocol of SLMRec (arXiv:2405.17890v3), kept so that its tables can be compared with. Prefer full ranking:
    metrics over sampled candidates are inconsistent, that is, they can order two models the other way round than the
    same metrics over the whole catalogue do, even in expectation (Krichene & Rendle, KDD 2020). The authors' code
    draws anew at every pass; here the draw depends on the data, `seed` and `split` alone.

    Args:
        dataset: Users and catalogue.
        split: Whose targets stand in column 0.
        num_negatives: Negatives per user, without replacement.
        seed: Of the draw; not the seed of a training run.

    Returns:
        Column 0 the target (`PAD_ITEM` for a user without one), then items absent from all three parts of the user's
        events, then `PAD_ITEM` where the catalogue holds fewer than `num_negatives` of them. `num_candidates` counts
        what is real.
    """
    generator = np.random.default_rng((seed, _SPLIT_SEEDS[split]))
    candidates = np.full((dataset.num_users, 1 + num_negatives), PAD_ITEM, dtype=np.int64)
    candidates[:, 0] = dataset.targets(split)
    for user in range(dataset.num_users):
        touched = np.unique(dataset.events[dataset.offsets[user] : dataset.offsets[user + 1]])
        num_untouched = dataset.num_items - len(touched)
        size = min(num_negatives, num_untouched)
        ranks = generator.choice(num_untouched, size=size, replace=False, shuffle=False) if size else np.empty(0, int)
        # The r-th untouched item is r + 1 plus the touched items before it; of those, touched[k] has
        # touched[k] - 1 - k untouched items before it. Cheaper than listing the untouched items of each user.
        untouched_before = touched - 1 - np.arange(len(touched))
        candidates[user, 1 : 1 + size] = ranks + 1 + np.searchsorted(untouched_before, ranks, side="right")
    return candidates


def num_candidates(candidates: Int64[np.ndarray, "users candidates"]) -> Int64[np.ndarray, " users"]:
    """Real candidates of each user, target included: the number that the target is ranked among."""
    counts: Int64[np.ndarray, " users"] = (candidates != PAD_ITEM).sum(axis=1, dtype=np.int64)
    return counts
