"""One user whose events arrive one by one: what was read is kept, so the next request costs one item."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from slmrec_core.models.attention import DecoderCache
from slmrec_core.models.recommender import RecommenderModel

if TYPE_CHECKING:
    from slmrec_core.recommender import Recommendations, Recommender


class Session:
    """Answers as `Recommender.recommend` does for the whole history, and reads only what is new; made by
    `Recommender.session`.

    Once the history is longer than the model's window every new event moves the window, and with it every item's
    position: from there on each request reads the window anew. So it does for SASRec, whose positions are counted from
    the end, and for decoders with recurrent layers or a sliding window.

    Args:
        recommender: The model and its catalogue.
        columns: The history so far, as columns of the scores, oldest first.
    """

    def __init__(self, recommender: "Recommender", columns: list[int]) -> None:
        self._recommender = recommender
        self._columns = columns
        self._cache: DecoderCache | None = None
        self._num_read = 0
        self._user_vector: Float[Tensor, "1 item_dim"] | None = None

    def append(self, item: str | int) -> None:
        """The user's next event, a raw item id.

        Raises:
            DataError: The catalogue lacks the item.
        """
        self._columns += self._recommender.catalogue.columns([item], "the next event of a session")
        self._user_vector = None

    def recommend(
        self, k: int = 10, exclude_seen: bool = True, allowed_items: Sequence[str | int] | None = None
    ) -> "Recommendations":
        """The `k` best items, as the one row of `Recommendations`; for the rest see `Recommender.recommend`."""
        if not self._columns:
            return self._recommender.recommend([[]], k, exclude_seen, allowed_items)
        if self._user_vector is None:
            self._user_vector = self._read()
        return self._recommender.best_items(self._user_vector, [self._columns], [[]], k, exclude_seen, allowed_items)

    def _read(self) -> Float[Tensor, "1 item_dim"]:
        recommender, network = self._recommender, self._recommender.network
        fits = len(self._columns) <= recommender.max_seq_len
        if not (isinstance(network, RecommenderModel) and network.can_continue and fits):
            self._cache = None
            return recommender.user_vectors([self._columns])
        new = torch.tensor(self._columns[self._num_read :], device=network.item_table.device)
        vector, self._cache = network.continued(new, self._cache)
        self._num_read = len(self._columns)
        return vector
