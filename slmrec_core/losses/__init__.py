"""Terms of the objective: pure functions of scores or hidden states, unweighted, float32, one scalar each.

Every loss is a mean in which each target weighs the same; no targets give 0 and NaN raises `DivergedError`. None of
them detaches anything: whoever wants a fixed teacher passes a teacher without gradient.
"""

from slmrec_core.losses.alignment import feature_cosine_loss, feature_norm_loss, user_cosine
from slmrec_core.losses.catalogue import catalogue_logit_loss, catalogue_next_item_loss
from slmrec_core.losses.logit import logit_loss
from slmrec_core.losses.next_item import next_item_loss
from slmrec_core.losses.supervision import supervision_loss

__all__ = [
    "catalogue_logit_loss",
    "catalogue_next_item_loss",
    "feature_cosine_loss",
    "feature_norm_loss",
    "logit_loss",
    "next_item_loss",
    "supervision_loss",
    "user_cosine",
]
