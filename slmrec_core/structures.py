"""The values that travel between data, models, losses and training: frozen dataclasses, one shape per field."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAD_ITEM = 0
"""Item id 0 is padding and nothing else; real items are 1 … num_items."""


@dataclass(frozen=True)
class SequenceBatch:
    """Histories of some users, right-padded, with the items to predict.

    Right padding and causal attention together mean that no real position ever sees padding, so no attention mask
    is needed.
    """

    user_index: Int[Tensor, "batch"]
    """Row of each user in the data set."""
    item_ids: Int[Tensor, "batch seq"]
    """History in time order; `PAD_ITEM` after its end."""
    target_items: Int[Tensor, "batch seq"]
    """Item to predict after each position; `PAD_ITEM` where there is none."""

    @classmethod
    def of_histories(cls, histories: Sequence[Sequence[int]], max_seq_len: int) -> "SequenceBatch":
        """Histories that are read at their end, where no target is known: the last item stands for it.

        Args:
            histories: Item ids, oldest first, at least one each.
            max_seq_len: The newest are kept.
        """
        newest = [torch.tensor(history[-max_seq_len:]) for history in histories]
        item_ids = torch.nn.utils.rnn.pad_sequence(newest, batch_first=True, padding_value=PAD_ITEM)
        lengths = torch.tensor([len(history) for history in newest])
        is_last = torch.arange(item_ids.shape[1]) == lengths[:, None] - 1
        return cls(torch.arange(len(item_ids)), item_ids, item_ids * is_last)

    @property
    def read_mask(self) -> Bool[Tensor, "batch seq"]:
        """True = a position with a target, whose state is read."""
        return self.target_items != PAD_ITEM

    @property
    def targets(self) -> Int[Tensor, "target"]:
        """The items to predict, row by row, in the order in which states are read."""
        return self.target_items[self.read_mask]

    def to(self, device: torch.device) -> "SequenceBatch":
        """The same batch on `device`."""
        return SequenceBatch(self.user_index.to(device), self.item_ids.to(device), self.target_items.to(device))


@dataclass(frozen=True)
class HiddenStates:
    """What a recommender computed at the positions that were read."""

    layers: dict[int, Float[Tensor, "target hidden"]]
    """State after layer n by n (0 = the projected inputs); the deepest one is after the final norm."""
    user_vectors: Float[Tensor, "target item_dim"]
    """Output projection of the deepest state, float32: its product with the item table gives the scores."""


@dataclass(frozen=True)
class TeacherSignal:
    """What the teacher says at the positions that the student reads; None = no term of the objective asks for it."""

    layers: dict[int, Float[Tensor, "target hidden"]]
    """State after each aligned teacher layer, no gradient."""
    user_vectors: Float[Tensor, "target item_dim"] | None = None
    """For the logit term."""


@dataclass(frozen=True)
class DistillationLosses:
    """The terms of the objective, unweighted means over targets; None = the term is absent."""

    next_item: Float[Tensor, ""] | None = None
    cosine: Float[Tensor, ""] | None = None
    norm: Float[Tensor, ""] | None = None
    supervision: Float[Tensor, ""] | None = None
    logit: Float[Tensor, ""] | None = None
    teacher_next_item: Float[Tensor, ""] | None = None
    """The teacher's own cross entropy, in online distillation."""

    def present(self) -> dict[str, Float[Tensor, ""]]:
        """The terms that are there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}
