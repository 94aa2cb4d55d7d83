"""Ranking of a split: every user's target among the catalogue, and by the other protocols that are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from slmrec_core.data import SequenceDataset, evaluation_batch, num_candidates, sampled_candidates, seen_items
from slmrec_core.hardware import rows_per_chunk
from slmrec_core.metrics import rank_targets, ranking_metrics
from slmrec_core.progress_bar import bar
from slmrec_core.structures import SequenceBatch
from slmrec_core.training.config import EvaluationConfig, RankingProtocol

Split = Literal["valid", "test"]
Readouts = Callable[[SequenceBatch], Sequence[Float[Tensor, "user item_dim"]]]
"""Vectors of a batch's users, one tensor for every way of reading the model (a probe reads it at each layer)."""

_NEGATIVES_SEED = 20240528
"""Fixed, so that every model, seed and split reader meets the same candidates."""
_SELECTION_SEED = 20250424
"""Fixed, so that the epochs of every model are chosen by the same users."""


@dataclass(frozen=True)
class Ranking:
    """Ranks of users' targets in one split under one protocol: of all who have one, unless only some were asked for."""

    split: Split
    protocol: RankingProtocol
    ranks: Int64[np.ndarray, " users"]
    """1-based; ties count against the model."""
    num_candidates: Int64[np.ndarray, " users"]
    """What the target was ranked among, itself included."""

    def metrics(self) -> dict[str, float]:
        """By contract name: `valid/ndcg_at_10`, `test_sampled/mrr` …"""
        return ranking_metrics(self.ranks, self.split if self.protocol == "full" else f"{self.split}_{self.protocol}")

    def frame(self, dataset: SequenceDataset) -> pd.DataFrame:
        """One row per user with a target, of all of them: what every interval and paired test is computed from."""
        users = dataset.evaluated_users(self.split)
        return pd.DataFrame(
            {
                "user_id": dataset.user_ids[users],
                "split": self.split,
                "protocol": self.protocol,
                "target_item": dataset.item_ids[dataset.targets(self.split)[users]],
                "rank": self.ranks,
                "num_candidates": self.num_candidates,
            }
        )


@dataclass(frozen=True)
class Evaluator:
    """Ranks a split; several workers each take a share of the users and add up.

    Args:
        dataset: Users, targets, catalogue.
        max_seq_len: Longest history that the model reads; all older items are still masked.
        config: Protocols and masking.
        device: Where the model lives.
        rank: This worker.
        world_size: Workers.
        all_reduce: Sum over workers.
    """

    dataset: SequenceDataset
    max_seq_len: int
    config: EvaluationConfig
    device: torch.device
    rank: int = 0
    world_size: int = 1
    all_reduce: Callable[[Tensor], Tensor] = lambda values: values

    @cached_property
    def selection(self) -> Int64[np.ndarray, " user"] | None:
        """The users that epochs are chosen by; None = all."""
        size, users = self.config.selection_users, self.dataset.evaluated_users("valid")
        if size is None or size >= len(users):
            return None
        return users[np.sort(np.random.default_rng(_SELECTION_SEED).choice(len(users), size, replace=False))]

    def rank_selection(self, model: nn.Module) -> list[Ranking]:
        """`valid` by protocol, for the users that epochs are chosen by; raises what `rank_split` raises."""
        return self.rank_split(model, "valid", users=self.selection)[0]

    def rank_split(
        self,
        model: nn.Module,
        split: Split,
        readouts: Readouts | None = None,
        users: Int64[np.ndarray, " user"] | None = None,
    ) -> list[list[Ranking]]:
        """Rankings by readout and protocol.

        Args:
            model: Put into eval mode meanwhile.
            split: Whose targets are ranked.
            readouts: None = one, the model's own head.
            users: Their indices; None = all who have a target.

        Raises:
            DivergedError: A score is NaN.
        """
        read, asked = readouts or own_head(model), self.dataset.evaluated_users(split) if users is None else users
        protocols = self.config.protocols
        counted: Tensor | None = None
        was_training = model.training
        model.eval()
        with torch.no_grad():
            num_shares = -(-len(asked) // (self.config.batch_size * self.world_size))
            for places, is_ours in bar(self._shares(len(asked)), f"ranking {split}", num_shares, shown=self.rank == 0):
                batch = evaluation_batch(self.dataset, asked[places], split, self.max_seq_len).to(self.device)
                seen = self._seen(asked[places], split)
                ranks = torch.stack([self._ranks(model, vectors, batch, seen, split) for vectors in read(batch)])
                if counted is None:
                    counted = torch.zeros(*ranks.shape[:2], len(asked), dtype=torch.long)
                if is_ours:
                    counted[:, :, places] = ranks.cpu()
        model.train(was_training)
        assert counted is not None
        total = self.all_reduce(counted.to(self.device)).cpu().numpy()
        return [
            [
                Ranking(split, protocol, ranks, self._num_candidates(protocol, split)[asked])
                for protocol, ranks in zip(protocols, by_protocol, strict=True)
            ]
            for by_protocol in total
        ]

    def _shares(self, num_users: int) -> Iterator[tuple[np.ndarray, bool]]:
        """This worker's batches out of so many users. All workers make the same number of forward passes, which ZeRO-3
        needs; one that is only there to keep step is marked False."""
        step = self.config.batch_size * self.world_size
        for start in range(0, num_users, step):
            places = np.arange(start, min(start + step, num_users))[self.rank :: self.world_size]
            yield (places, True) if len(places) else (np.array([0]), False)

    def _ranks(
        self,
        model: nn.Module,
        vectors: Float[Tensor, "user item_dim"],
        batch: SequenceBatch,
        seen: tuple[Int64[Tensor, "pair"], Int64[Tensor, "pair"]] | None,
        split: Split,
    ) -> Int64[Tensor, "protocol user"]:
        """Ranks by protocol, with the scores of some users at a time."""
        chunk = rows_per_chunk(self.dataset.num_items)
        ranks = []
        for start in range(0, len(vectors), chunk):
            scores: Tensor = model.score(vectors[start : start + chunk])  # type: ignore[operator]
            targets = batch.targets[start : start + chunk]
            by_protocol = []
            for protocol in self.config.protocols:
                if protocol == "full":
                    by_protocol.append(rank_targets(scores, targets, _rows_from(seen, start, len(scores))))
                elif protocol == "unmasked":
                    by_protocol.append(rank_targets(scores, targets))
                else:
                    users = batch.user_index[start : start + chunk].cpu().numpy()
                    candidates = torch.from_numpy(self._candidates(split)[users]).to(self.device)
                    # Padding points at column 0, which scores −inf. Column 0 of the candidates is the target.
                    by_protocol.append(rank_targets(scores.gather(1, candidates), torch.zeros_like(targets)))
            ranks.append(torch.stack(by_protocol))
        return torch.cat(ranks, dim=1)

    def _seen(
        self, users: Int64[np.ndarray, " batch"], split: Split
    ) -> tuple[Int64[Tensor, "pair"], Int64[Tensor, "pair"]] | None:
        """Rows and columns of the items that full ranking leaves out; None = it leaves out none."""
        if not self.config.mask_seen:
            return None
        rows, columns = map(torch.from_numpy, seen_items(self.dataset, users, split))
        return rows.to(self.device), columns.to(self.device)

    def _candidates(self, split: Split) -> Int64[np.ndarray, "users candidates"]:
        return _cached_candidates(self.dataset, split, self.config.num_negatives)

    def _num_candidates(self, protocol: RankingProtocol, split: Split) -> Int64[np.ndarray, " users"]:
        if protocol == "sampled":
            return num_candidates(self._candidates(split))
        total = np.full(self.dataset.num_users, self.dataset.num_items, dtype=np.int64)
        if self.config.mask_seen and protocol == "full":
            rows, _ = seen_items(self.dataset, np.arange(self.dataset.num_users), split)
            total -= np.bincount(rows, minlength=self.dataset.num_users)
        return total


def _rows_from(
    pairs: tuple[Int64[Tensor, "pair"], Int64[Tensor, "pair"]] | None, start: int, count: int
) -> tuple[Int64[Tensor, "part"], Int64[Tensor, "part"]] | None:
    """The pairs whose rows are `count` from `start` on, counted from there; rows ascend."""
    if pairs is None:
        return None
    rows, columns = pairs
    first, end = torch.searchsorted(rows, torch.tensor([start, start + count], device=rows.device)).tolist()
    return rows[first:end] - start, columns[first:end]


def own_head(model: nn.Module) -> Readouts:
    """The model's own user vectors."""
    return lambda batch: [model(batch.item_ids, batch.read_mask).user_vectors]


# Small: an entry keeps its data set alive.
@lru_cache(maxsize=4)
def _cached_candidates(
    dataset: SequenceDataset, split: Split, num_negatives: int
) -> Int64[np.ndarray, "users candidates"]:
    return sampled_candidates(dataset, split, num_negatives, seed=_NEGATIVES_SEED)
