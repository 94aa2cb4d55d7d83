"""An index finds what the recommender recommends."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from slmrec_core.errors import ConfigError
from slmrec_core.faiss_index import item_index
from slmrec_core.recommender import Recommender
from tests.tiny import jolted, tiny_model

CATALOGUE = ["", *(f"item-{index}" for index in range(1, 13))]
HISTORIES = [["item-3", "item-5"], ["item-1"], ["item-12", "item-2", "item-7"]]


def test_a_search_finds_what_recommend_does_also_after_it_was_saved(item_table: Tensor, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    recommender = Recommender(jolted(tiny_model(item_table)), CATALOGUE, 5)
    faiss.write_index(item_index(recommender), str(tmp_path / "items.faiss"))
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    scores, columns = index.search(recommender.embed_users(HISTORIES), 12)
    expected = recommender.recommend(HISTORIES, k=12, exclude_seen=False)
    assert [[recommender.item_ids[column] for column in row] for row in columns] == expected.item_ids
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-5, atol=1e-5)


def test_without_faiss_it_says_what_to_install(item_table: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return plain(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        item_index(Recommender(tiny_model(item_table), CATALOGUE, 5))
