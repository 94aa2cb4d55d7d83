"""Layers left out of a trained model (ShortGPT, arXiv:2403.03853)."""

from collections.abc import Sequence

import torch

from slmrec_core.models.description import with_layers
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.structures import SequenceBatch
from slmrec_core.training.probe import LayerProbe

_ROWS_PER_PASS = 256


@torch.no_grad()
def block_influence(network: RecommenderModel, histories: Sequence[Sequence[int]], max_seq_len: int) -> list[float]:
    """How far each layer turns a user's state: mean of 1 − cosine between what enters and what leaves it, where the
    user is read.

    Args:
        network: In eval mode.
        histories: Columns of the scores, at least one each; of users that nothing is measured with.
        max_seq_len: Of each, the newest are read.

    Returns:
        One number per layer, 0 … 2; 0 = the layer could be left out.
    """
    probe, device = LayerProbe(network), network.item_table.device
    for start in range(0, len(histories), _ROWS_PER_PASS):
        probe(SequenceBatch.of_histories(histories[start : start + _ROWS_PER_PASS], max_seq_len).to(device))
    return probe.state_changes()


def with_most_influence(network: RecommenderModel, influence: Sequence[float], num_layers: int) -> RecommenderModel:
    """A copy with the layers of the most influence, in their order; of equal ones the first."""
    ranked = sorted(range(len(influence)), key=lambda layer: -influence[layer])
    return with_layers(network, sorted(ranked[:num_layers]))
