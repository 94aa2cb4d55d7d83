"""A trained network together with its catalogue: raw item ids in, ranked raw item ids out; saved without pickle."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from jaxtyping import Float, Int
from torch import Tensor

from slmrec_core.catalogue import Catalogue
from slmrec_core.data import SequenceDataset
from slmrec_core.errors import CheckpointError, ConfigError, DataError, shown
from slmrec_core.hardware import rows_per_chunk
from slmrec_core.metrics import rank_targets
from slmrec_core.model_files import StoredModel, model_folder, read_model, write_model
from slmrec_core.models.hub import hub_faults
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec
from slmrec_core.session import Session
from slmrec_core.structures import PAD_ITEM, SequenceBatch

logger = logging.getLogger(__name__)

_ROWS_PER_PASS = 256
"""Histories in one forward pass: memory must not grow with how many are asked for."""
_CARD = """---
{{ card_data }}
---

# A sequential recommender by slmrec

Ranks the items of its catalogue after a user's history of raw item ids.

```python
import slmrec_core as slm

model = slm.Recommender.from_pretrained("<this directory or repository>")
model.recommend([["<item id>", "<item id>"]], k=10)
```

`config.json` holds how it was trained and what was measured (`metadata`), `items.json` the catalogue.
"""


@dataclass(frozen=True)
class Recommendations:
    """The best items of each history, best first."""

    item_ids: list[list[str]]
    """Raw ids; fewer than k where the catalogue has no more that may be recommended."""
    scores: Float[np.ndarray, "history k"]
    """Inner products, or training events where `by_popularity`; −inf behind the last item of a row with fewer."""
    unknown_items: list[list[str]]
    """Items of each history that the catalogue lacks; they were left out of it."""
    by_popularity: list[bool]
    """True = nothing was left of the history, so these are the items that most users chose."""


class Recommender(ModelHubMixin, library_name="slmrec", tags=["recommender"], model_card_template=_CARD):
    """Answers with raw item ids.

    Args:
        network: Trained; put into eval mode.
        item_ids: Raw ids, index 0 standing for padding.
        max_seq_len: Longest history that the network reads; the newest items are kept.
        metadata: What the model is and how it was made, as JSON values.
        titles: Of the items, index 0 for padding; None = unknown.
        counts: Training events of the items, index 0 for padding; None = unknown, and then a history must not be empty.
    """

    def __new__(cls, *arguments: object, **named: object) -> "Recommender":
        """Plain: the hub's mixin would look through every argument for a configuration of its own."""
        return object.__new__(cls)

    def __init__(
        self,
        network: RecommenderModel | SASRec,
        item_ids: Sequence[str],
        max_seq_len: int,
        metadata: dict[str, object] | None = None,
        titles: Sequence[str] | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        self.network = network.eval()
        self.catalogue = Catalogue(
            tuple(map(str, item_ids)),
            None if titles is None else tuple(map(str, titles)),
            None if counts is None else tuple(map(int, counts)),
        )
        self.max_seq_len = max_seq_len
        self.metadata = metadata or {}

    @classmethod
    def of_dataset(
        cls,
        network: RecommenderModel | SASRec,
        dataset: SequenceDataset,
        max_seq_len: int,
        metadata: dict[str, object] | None = None,
    ) -> "Recommender":
        """A network with the catalogue of the data that it was trained on: ids, counts, and titles where there are
        any.

        Args:
            network: Trained; put into eval mode.
            dataset: What it was trained on.
            max_seq_len: Longest history that the network reads.
            metadata: What the model is and how it was made, as JSON values.
        """
        titles = None if dataset.titles is None else list(dataset.titles)
        return cls(network, list(dataset.item_ids), max_seq_len, metadata, titles, dataset.train_counts.tolist())

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Raw ids by column of the scores, index 0 standing for padding."""
        return self.catalogue.item_ids

    def merge_lora(self) -> "Recommender":
        """The same recommender with its low-rank updates merged into the weights, as `RecommenderModel.merge_lora`
        does it: faster, above all for sessions. Saved, it stays merged.
        """
        if isinstance(self.network, RecommenderModel):
            self.network.merge_lora()
        return self

    @torch.no_grad()
    def recommend(
        self,
        histories: Sequence[Sequence[str | int]],
        k: int = 10,
        exclude_seen: bool = True,
        allowed_items: Sequence[str | int] | None = None,
    ) -> Recommendations:
        """The `k` best items for each history.

        Items that the catalogue lacks are left out of a history and reported. A history of which nothing is left gets
        the items that most users chose, and that is reported, too.

        Args:
            histories: Raw item ids, oldest first.
            k: How many, at least 1.
            exclude_seen: Leave the items of the history out.
            allowed_items: Nothing else is recommended; None = the whole catalogue.

        Raises:
            ConfigError: `k` is not a whole number from 1 on.
            DataError: A history is not a list, `allowed_items` is empty or holds an item that the catalogue lacks, or a
                history is empty and the model has no counts.
        """
        columns, unknown = self._read(histories)
        return self.best_items(self._vectors(columns), columns, unknown, k, exclude_seen, allowed_items)

    def session(self, history: Sequence[str | int] = ()) -> Session:
        """One user whose next events will come one by one; each request then reads only what is new.

        Raises:
            DataError: The history holds an item that the catalogue lacks.
        """
        return Session(self, self.catalogue.columns(history, "the history of a session") if len(history) else [])

    @torch.no_grad()
    def best_items(
        self,
        user_vectors: Float[Tensor, "history item_dim"],
        columns: list[list[int]],
        unknown: list[list[str]],
        k: int,
        exclude_seen: bool,
        allowed_items: Sequence[str | int] | None = None,
    ) -> Recommendations:
        """The `k` best items for each user vector, with the scores of some users at a time.

        Args:
            user_vectors: One per history; what stands for an empty one is not read.
            columns: The histories behind them, as columns of the scores.
            unknown: Raw ids of each history that have no column.
            k: How many, at least 1.
            exclude_seen: Leave the items of the history out.
            allowed_items: Nothing else is recommended; None = the whole catalogue.

        Raises:
            ConfigError, DataError: As for `recommend`.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"recommender: k must be a whole number, at least 1, got {k!r}. The usual value is 10.")
        k, chunk, nothing = min(int(k), len(self.catalogue)), rows_per_chunk(len(self.item_ids)), float("-inf")
        barred = None if allowed_items is None else self._all_but(allowed_items)
        item_ids: list[list[str]] = []
        best_scores = [np.zeros((0, k), dtype=np.float32)]
        for start in range(0, len(columns), chunk):
            scores = self._scores(user_vectors[start : start + chunk], columns[start : start + chunk], start)
            if exclude_seen:
                for row, history in enumerate(columns[start : start + chunk]):
                    scores[row].index_fill_(0, torch.tensor(history, dtype=torch.long, device=scores.device), nothing)
            if barred is not None:
                scores[:, barred] = nothing
            values, best = (found.cpu().numpy() for found in scores.topk(k, dim=1))
            item_ids += [
                [self.item_ids[column] for column, score in zip(row, row_scores, strict=True) if score > nothing]
                for row, row_scores in zip(best.tolist(), values.tolist(), strict=True)
            ]
            best_scores.append(values)
        return Recommendations(item_ids, np.concatenate(best_scores), unknown, [not history for history in columns])

    @torch.no_grad()
    def rank(
        self, histories: Sequence[Sequence[str | int]], candidates: Sequence[Sequence[str | int]]
    ) -> list[Int[np.ndarray, "candidate"]]:
        """1-based rank of every candidate among the candidates of its history; ties count against an item.

        Histories are read as by `recommend`.

        Raises:
            DataError: A candidate list is empty or holds an item that the catalogue lacks, there is not one list for
                each history, or a history is empty and the model has no counts.
        """
        if len(histories) != len(candidates):
            raise DataError(
                f"recommender: each history needs its own list of candidates, got {len(histories)} histories and"
                f" {len(candidates)} lists. Give as many of each."
            )
        columns, _ = self._read(histories)
        asked = [self.catalogue.columns(items, f"row {row} of the candidates") for row, items in enumerate(candidates)]
        vectors, ranks = self._vectors(columns), []
        for start in range(0, len(columns), chunk := rows_per_chunk(len(self.item_ids))):
            scores = self._scores(vectors[start : start + chunk], columns[start : start + chunk], start).cpu()
            for row, items in zip(scores, asked[start : start + chunk], strict=True):
                own = row[items]
                ranks.append(rank_targets(own.expand(len(own), -1), torch.arange(len(own))).numpy())
        return ranks

    def embed_users(self, histories: Sequence[Sequence[str | int]]) -> Float[np.ndarray, "history item_dim"]:
        """The vector of each user, float32; its inner products with the item table are the scores.

        Raises:
            DataError: A history holds no item that the catalogue knows.
        """
        columns, _ = self._read(histories)
        for row, history in enumerate(columns):
            if not history:
                raise DataError(
                    f"recommender: row {row} must hold a known item to have a vector, got {list(histories[row])[:3]}."
                )
        found: np.ndarray = self._vectors(columns).float().cpu().numpy()
        return found

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Writes config.json, model.safetensors and items.json, each whole or not at all, and a card if there is none.

        Args:
            save_directory: Made if it is not there.
            options: Of the hub's mixin: `push_to_hub=True, repo_id=…` sends the directory to the hub as well.

        Returns:
            The commit's address if it was pushed.

        Raises:
            ConfigError: There is a file in its place, or a config.json of something else in the directory.
        """
        folder = Path(save_directory).expanduser()
        write_model(folder, StoredModel(self.network, self.catalogue, self.max_seq_len, self.metadata))
        if not (folder / "README.md").exists():
            self.generate_model_card().save(folder / "README.md")
        if options.pop("push_to_hub", False):
            return str(self.push_to_hub(options.pop("repo_id", None) or folder.name, **options))
        return None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Recommender":
        """Reads what `save_pretrained` wrote; nothing is unpickled, no backbone is fetched.

        Args:
            pretrained_model_name_or_path: A directory, or a stage of a sweep or a logged model of MLflow that has one
                inside; else a repository of the hub.
            options: For a repository: `revision`, `token`, `cache_dir` … of `huggingface_hub.snapshot_download`.

        Raises:
            CheckpointError: There is no such directory or repository, or a file in it is missing, altered, damaged, or
                of another format.
        """
        folder = Path(pretrained_model_name_or_path).expanduser()
        name = str(pretrained_model_name_or_path)
        if not folder.is_dir() and not folder.is_absolute() and name.count("/") == 1:
            faults: tuple[type[Exception], ...] = (ValueError, *hub_faults())
            try:
                folder = Path(snapshot_download(name, **options))
            except faults as error:
                raise CheckpointError(
                    f"model {name}: there is no such directory, and the hub gave none, got {error}. Mind the spelling."
                ) from error
        stored = read_model(model_folder(folder))
        catalogue = stored.catalogue
        return cls(
            stored.network,
            catalogue.item_ids,
            stored.max_seq_len,
            stored.metadata,
            catalogue.titles,
            catalogue.counts,
        )

    @torch.no_grad()
    def user_vectors(self, histories: list[list[int]]) -> Float[Tensor, "history item_dim"]:
        """The user after each history.

        Args:
            histories: Columns of the scores, oldest first, at least one each; the newest `max_seq_len` are read.
        """
        device = self.network.item_table.device
        if not histories:
            return torch.zeros(0, self.network.item_table.shape[1], device=device)
        vectors = []
        for start in range(0, len(histories), _ROWS_PER_PASS):
            batch = SequenceBatch.of_histories(histories[start : start + _ROWS_PER_PASS], self.max_seq_len).to(device)
            vectors.append(self.network(batch.item_ids, batch.read_mask).user_vectors)
        return torch.cat(vectors)

    def _read(self, histories: Sequence[Sequence[str | int]]) -> tuple[list[list[int]], list[list[str]]]:
        """Columns of the known items of each history, and the unknown ones; the log says if there are any."""
        if isinstance(histories, str):
            raise DataError(
                f"recommender: histories must be a list of lists of raw item ids, got the text {shown(histories)}."
                ' One user is [["item", "item"]].'
            )
        read = [self.catalogue.known(history, f"row {row} of the histories") for row, history in enumerate(histories)]
        columns, unknown = [known for known, _ in read], [others for _, others in read]
        if (lacking := sum(map(bool, unknown))) > 0:
            logger.info("recommender: %d of %d histories hold items that the catalogue lacks", lacking, len(histories))
        if (empty := sum(not history for history in columns)) > 0:
            logger.info("recommender: %d of %d histories are empty: by popularity", empty, len(histories))
        return columns, unknown

    def _vectors(self, columns: list[list[int]]) -> Float[Tensor, "history item_dim"]:
        """User vectors; zeros for an empty history."""
        there = [row for row, history in enumerate(columns) if history]
        found = self.user_vectors([columns[row] for row in there])
        if len(there) == len(columns):
            return found
        rows = torch.tensor(there, dtype=torch.long, device=found.device)
        return found.new_zeros(len(columns), found.shape[1]).index_copy(0, rows, found)

    def _scores(
        self, user_vectors: Float[Tensor, "history item_dim"], columns: list[list[int]], start: int
    ) -> Float[Tensor, "history row"]:
        """Scores of every row of the table; for an empty history the items' counts."""
        scores: Tensor = self.network.score(user_vectors)
        for row, history in enumerate(columns):
            if not history:
                scores[row, PAD_ITEM + 1 :] = self._popularity(start + row).to(scores)
        return scores

    def _popularity(self, row: int) -> Float[Tensor, "item"]:
        if self.catalogue.counts is None:
            raise DataError(
                f"recommender: row {row} must hold a known item, got none, and this model does not know which items are"
                " popular. Give a history, or make the model with counts."
            )
        return torch.tensor(self.catalogue.counts[PAD_ITEM + 1 :], dtype=torch.float32)

    def _all_but(self, allowed_items: Sequence[str | int]) -> Tensor:
        """True = a column that may not be recommended."""
        barred = torch.ones(len(self.item_ids), dtype=torch.bool, device=self.network.item_table.device)
        barred[self.catalogue.columns(allowed_items, "allowed_items")] = False
        return barred
