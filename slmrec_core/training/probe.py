"""The probe: what a trained model ranks like when it is read after each of its layers."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from slmrec_core.models.architecture import final_norm
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.structures import SequenceBatch


class LayerProbe:
    """Reads a model with its own, trained head at every layer 0 … n, in one forward pass; readouts for `rank_split`.

    SLMRec (arXiv:2405.17890), figure of direct inference from inner layers.

    Args:
        model: Trained.
        read: `normed` (default) reads inner states through the final norm, as the head was trained to; `raw` leaves it
            out, as the authors' code does. The deepest readout is the model's own in both.
    """

    def __init__(self, model: RecommenderModel, read: Literal["normed", "raw"] = "normed") -> None:
        self._model, self._read = model, read
        self._turned = torch.zeros(model.num_layers, dtype=torch.float64)
        self._num_users = 0

    def __call__(self, batch: SequenceBatch) -> list[Tensor]:
        """User vectors by layer."""
        model, depth = self._model, self._model.num_layers
        # Without the final norm, the deepest state is the residual stream like all others.
        with final_norm(model.decoder).register_forward_hook(lambda norm, inputs, output: inputs[0]):
            states = model(batch.item_ids, batch.read_mask, tuple(range(depth + 1))).layers
        for layer in range(depth):
            cosine = cosine_similarity(states[layer].float(), states[layer + 1].float(), dim=-1)
            self._turned[layer] += (1.0 - cosine).sum().cpu()
        self._num_users += len(batch.user_index)
        inner = [states[n] if self._read == "raw" and n < depth else model.normed(states[n]) for n in range(depth + 1)]
        return [model.project(state) for state in inner]

    def state_changes(self) -> list[float]:
        """How far layer 1 … n turns the state of a user, over all that was read: mean of 1 − cosine between what enters
        the layer and what leaves it; 0 = it could be left out. NaN where nothing was read."""
        return [float(total) / self._num_users if self._num_users else float("nan") for total in self._turned]
