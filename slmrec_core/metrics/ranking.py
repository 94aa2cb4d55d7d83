"""Ranks of the items that came next, and metrics that are pure functions of those ranks.

Each metric exists twice: `per_user_x` keeps the shape of the ranks and feeds `metrics.significance`; `x` is its mean.
With one relevant item per list, as here, recall is `hit_rate`, and the ideal DCG is 1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Real
from torch import Tensor

from slmrec_core.errors import ConfigError, DataError, DivergedError

HIT_RATE_CUTOFFS = (1, 5, 10)
NDCG_CUTOFFS = (5, 10)

Ranks = Real[Tensor, "*users"] | Real[np.ndarray, "*users"] | Sequence[int] | Sequence[float]
"""1-based ranks of any shape, usually one per user; on any device."""


def rank_targets(
    scores: Float[Tensor, "batch item"],
    targets: Int[Tensor, "batch"],
    ignored: tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]] | None = None,
) -> Int[Tensor, "batch"]:
    """1-based rank of each target among all columns; ties count against the model, so constant scores rank last.

    Args:
        scores: One row per user. A column at -inf cannot come before a target above -inf, so masked items and padding
            do not count; a target that is itself at -inf ranks last.
        targets: Column index of the item that came next.
        ignored: Rows and columns of scores that count for nothing, such as items already seen; each pair once, none of
            them a target.

    Returns:
        Number of columns, the target's own included, that score at least as high; 1 = best.

    Raises:
        DataError: A target is not a column.
        DivergedError: A row holds NaN.
    """
    num_items = scores.shape[1]
    outside = (targets < 0) | (targets >= num_items)
    if outside.any():
        raise DataError(
            f"rank_targets: a target is not a column of the scores, got {int(targets[outside][0])} with {num_items}"
            " columns. Pass column indices."
        )
    own = scores.gather(1, targets.long()[:, None])
    ranks = (scores >= own).sum(dim=1)
    # A sum has NaN wherever one of its terms has: a pass less than a look at each.
    if scores.sum(dim=1).isnan().any():
        _refuse_nan(scores)
    if ignored is not None:
        rows, columns = ignored
        ahead = (scores[rows, columns] >= own[rows, 0]).long()
        ranks = ranks.index_add(0, rows.long(), ahead, alpha=-1)
    return ranks


def _refuse_nan(scores: Float[Tensor, "batch item"]) -> None:
    # Infinities of both signs add up to NaN as well.
    bad_rows = scores.isnan().any(dim=1).nonzero().flatten().tolist()
    if bad_rows:
        shown = ", ".join(map(str, bad_rows[:5])) + (", ..." if len(bad_rows) > 5 else "")
        raise DivergedError(
            f"rank_targets: NaN scores, got {len(bad_rows)} of {len(scores)} rows (rows {shown})."
            " Lower the learning rate."
        )


def per_user_hit_rate(ranks: Ranks, k: int) -> Float[np.ndarray, "*users"]:
    """1 where the target is among the first `k`, else 0.

    Raises:
        ConfigError: `k` is below 1.
        DataError: There are no ranks, or one is below 1 or not a number.
    """
    _require_cutoff(k, "hit_rate")
    return (_checked(ranks, "hit_rate") <= k).astype(np.float64)


def per_user_ndcg(ranks: Ranks, k: int) -> Float[np.ndarray, "*users"]:
    """1 / log2(rank + 1) where the target is among the first `k`, else 0.

    Raises:
        ConfigError: `k` is below 1.
        DataError: There are no ranks, or one is below 1 or not a number.
    """
    _require_cutoff(k, "ndcg")
    checked = _checked(ranks, "ndcg")
    return np.where(checked <= k, 1 / np.log2(checked + 1.0), 0.0)


def per_user_mrr(ranks: Ranks) -> Float[np.ndarray, "*users"]:
    """Reciprocal rank over the whole list, without a cutoff.

    Raises:
        DataError: There are no ranks, or one is below 1 or not a number.
    """
    return 1.0 / _checked(ranks, "mrr")


def hit_rate(ranks: Ranks, k: int) -> float:
    """Share of targets among the first `k`, in [0, 1]; raises what `per_user_hit_rate` raises."""
    return float(per_user_hit_rate(ranks, k).mean())


def ndcg(ranks: Ranks, k: int) -> float:
    """Mean normalised discounted cumulative gain of the first `k`, in [0, 1]; raises what `per_user_ndcg` raises."""
    return float(per_user_ndcg(ranks, k).mean())


def mrr(ranks: Ranks) -> float:
    """Mean reciprocal rank over the whole list, in (0, 1]; raises what `per_user_mrr` raises."""
    return float(per_user_mrr(ranks).mean())


def ranking_metrics(ranks: Ranks, split: str) -> dict[str, float]:
    """Every logged metric by its logged name, for instance `valid/ndcg_at_10`.

    Raises:
        DataError: There are no ranks, or one is below 1 or not a number.
    """
    return {
        **{f"{split}/hit_rate_at_{k}": hit_rate(ranks, k) for k in HIT_RATE_CUTOFFS},
        **{f"{split}/ndcg_at_{k}": ndcg(ranks, k) for k in NDCG_CUTOFFS},
        f"{split}/mrr": mrr(ranks),
    }


def _checked(ranks: Ranks, where: str) -> Real[np.ndarray, "*ranks"]:
    array = ranks.detach().cpu().numpy() if isinstance(ranks, Tensor) else np.asarray(ranks)
    if array.size == 0:
        raise DataError(f"{where}: there is nothing to average, got 0 ranks. Evaluate at least one user.")
    # Not `array < 1`: a rank that is not a number must not pass for a good one.
    is_bad = ~(array >= 1)
    if is_bad.any():
        raise DataError(f"{where}: ranks begin at 1, got {array[is_bad].flat[0]}. Take them from rank_targets.")
    return array


def _require_cutoff(k: int, where: str) -> None:
    if k < 1:
        raise ConfigError(f"{where}: the cutoff k must be at least 1, got {k!r}. The usual values are 5 and 10.")
