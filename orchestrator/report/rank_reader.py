"""Per-user metrics and their intervals, from the ranks that finished stages keep."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.metrics import Interval, bootstrap_interval, per_user_hit_rate, per_user_mrr, per_user_ndcg
from slmrec_core.training.config import OTHER_PROTOCOLS

_PROTOCOL = "|".join(OTHER_PROTOCOLS)
RANK_METRIC = re.compile(
    rf"(?P<split>valid|test)(_(?P<protocol>{_PROTOCOL}))?/(?P<name>ndcg|hit_rate|mrr)(_at_(?P<k>\d+))?"
)
"""Names of the metrics that are functions of a rank."""

RANK_COLUMNS = ("user_id", "split", "protocol", "rank")
"""What of `ranks.parquet` metrics, intervals and tests are computed from; a probe has `layer` beside them."""

Cell = tuple[str, int | None]
"""A stage, and the layer where it is a probe's."""


@dataclass
class RankReader:
    """Per-user metrics out of the `ranks.parquet` of stages; each file is read once."""

    stages: Path
    _ranks: dict[str, pd.DataFrame] = field(default_factory=dict)
    _intervals: dict[tuple[tuple[Cell, ...], str], Interval] = field(default_factory=dict)

    def values(self, cells: Sequence[Cell], metric: str) -> Float[np.ndarray, "seed user"]:
        """A metric per user, one row per cell, users in the same order everywhere.

        Raises:
            CheckpointError: A stage has no ranks, or lacks this split or layer.
            ConfigError: The metric is not a function of ranks.
            DataError: The cells were not evaluated on the same users.
        """
        parts = RANK_METRIC.fullmatch(metric)
        if parts is None:
            raise ConfigError(f"metric: must be a function of ranks, got {metric!r}. For instance test/ndcg_at_10.")
        protocol = parts["protocol"] or "full"
        ranks = [self._select(stage, layer, parts["split"], protocol) for stage, layer in cells]
        for other, cell in zip(ranks, cells, strict=True):
            if not other.index.equals(ranks[0].index):
                raise DataError(
                    f"{metric}: all seeds must be evaluated on the same users, got {len(ranks[0])} in {cells[0][0]} and"
                    f" {len(other)} in {cell[0]}, or others. Remove the stage that was made from other data."
                )
        stacked = np.stack([column.to_numpy() for column in ranks])
        if parts["name"] == "mrr":
            return per_user_mrr(stacked)
        per_user = per_user_ndcg if parts["name"] == "ndcg" else per_user_hit_rate
        return per_user(stacked, int(parts["k"]))

    def interval(self, cells: Sequence[Cell], metric: str) -> Interval:
        """Bootstrap over users and seeds; raises what `values` raises."""
        key = (tuple(cells), metric)
        if key not in self._intervals:
            self._intervals[key] = bootstrap_interval(self.values(cells, metric))
        return self._intervals[key]

    def _select(self, stage: str, layer: int | None, split: str, protocol: str) -> "pd.Series[int]":
        frame = self._read(stage)
        wanted = (frame["split"] == split) & (frame["protocol"] == protocol)
        if layer is not None:
            wanted &= frame["layer"] == layer
        found = frame[wanted]
        if found.empty:
            raise CheckpointError(
                f"stage {stage}: ranks.parquet lacks the {protocol} ranks of {split}, got layer {layer!r}."
                " Delete the stage and resume: it is built again."
            )
        return found.set_index("user_id")["rank"].sort_index()

    def _read(self, stage: str) -> pd.DataFrame:
        if stage not in self._ranks:
            path = self.stages / stage / "ranks.parquet"
            try:
                frame = pd.read_parquet(path)
                self._ranks[stage] = frame[[*RANK_COLUMNS, *(["layer"] if "layer" in frame else [])]]
            except (OSError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"stage {stage}: ranks.parquet cannot be read, got {error}."
                    " Delete the stage and resume: it is built again."
                ) from error
        return self._ranks[stage]
