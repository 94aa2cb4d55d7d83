"""The item table as a FAISS index, for services that search catalogues of millions with it."""

from typing import TYPE_CHECKING

import numpy as np

from slmrec_core.errors import ConfigError
from slmrec_core.recommender import Recommender

if TYPE_CHECKING:
    import faiss


def item_index(recommender: Recommender) -> "faiss.IndexIDMap":
    """An exact index by inner product; an item's number in it is its place in `recommender.item_ids`.

    `index.search(recommender.embed_users(histories), k)` finds what `recommend` does with `exclude_seen=False`, and
    `faiss.write_index` saves it. An approximate index can be trained from the same vectors.

    Raises:
        ConfigError: The package `faiss-cpu` is not installed.
    """
    try:
        # Only who asks for it needs it.
        import faiss  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "faiss: a package of this name must be installed, got none. pip install faiss-cpu."
        ) from error
    table = recommender.network.item_table.detach().float().cpu().numpy()
    index = faiss.IndexIDMap(faiss.IndexFlatIP(table.shape[1]))
    # Row 0 is padding.
    index.add_with_ids(np.ascontiguousarray(table[1:]), np.arange(1, len(table)))
    return index
