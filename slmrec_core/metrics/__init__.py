"""What is measured on a split, and how far a difference between two runs can be trusted."""

from slmrec_core.metrics.ranking import (
    hit_rate,
    mrr,
    ndcg,
    per_user_hit_rate,
    per_user_mrr,
    per_user_ndcg,
    rank_targets,
    ranking_metrics,
)
from slmrec_core.metrics.significance import (
    EQUAL_MARGIN,
    Interval,
    PairedTest,
    Verdict,
    bootstrap_interval,
    holm,
    paired_test,
    sign_flip_p_value,
)

__all__ = [
    "EQUAL_MARGIN",
    "Interval",
    "PairedTest",
    "Verdict",
    "bootstrap_interval",
    "hit_rate",
    "holm",
    "mrr",
    "ndcg",
    "paired_test",
    "per_user_hit_rate",
    "per_user_mrr",
    "per_user_ndcg",
    "rank_targets",
    "ranking_metrics",
    "sign_flip_p_value",
]
