"""From result rows to curves: which settings stand for a row, their mean over seeds, and how far it can be trusted.

Intervals and paired tests come from the ranks that each stage keeps, so none of them needs a second run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from orchestrator.report.rank_reader import RANK_METRIC, Cell, RankReader
from slmrec_core.errors import ConfigError
from slmrec_core.metrics import Verdict, holm, paired_test

SELECT_METRIC = "valid/ndcg_at_10"

INTERVAL_METRICS = tuple(
    f"{split}/{name}" for split, name in product(("valid", "test"), ("ndcg_at_10", "hit_rate_at_10", "mrr"))
)
"""Curves with an interval; a bootstrap takes about half a second for 22,000 users, so the others have sd only."""


@dataclass(frozen=True)
class CurvePoint:
    """One metric of one row of the study at one depth, over its seeds."""

    row: str
    """First word of the curve's name."""
    metric: str
    """`split/name_at_k`."""
    num_layers: int
    mean: float
    sd: float | None
    """Between seeds, n - 1 in the denominator; None = one seed."""
    low: float | None
    """Lower end of the 95 % interval over users and seeds; None = one seed, or not one of `INTERVAL_METRICS`."""
    high: float | None
    """Upper end of the same interval."""
    num_seeds: int


@dataclass(frozen=True)
class Selection:
    """The finished rows that a curve is drawn through."""

    frame: pd.DataFrame
    """One setting for each row name and depth, with all its seeds."""
    notes: list[str]
    """One sentence for each choice that had to be made."""


@dataclass(frozen=True)
class Comparison:
    """One row against another, user by user."""

    name: str
    """`<row>-<layers> vs <row>-<layers>`."""
    num_seeds: int
    difference: float
    """Mean of the first minus the second."""
    by_seed: tuple[float, ...]
    """The same for each of the seeds that both sides have, in their order."""
    low: float
    high: float
    p_value: float
    p_value_holm: float
    """Corrected for all comparisons of the sweep."""
    verdict: Verdict


def setting_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a result frame that hold settings, seeds left out."""
    columns = list(frame.columns)
    settings = columns[columns.index("seed") + 1 : columns.index("stage_id")]
    return [name for name in settings if name.rsplit(".", 1)[-1] != "seed"]


def compressed_rows(frame: pd.DataFrame) -> set[str]:
    """Names of the rows that are trained models made smaller: they differ by cost, not by depth."""
    return set(frame.loc[frame["compressed"].eq(True), "row"]) if "compressed" in frame else set()


def row_groups(frame: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """The rows of each curve at each depth, by name and then by depth."""
    for _, group in frame.groupby(["row", "num_layers"], sort=True):
        yield str(group["row"].iloc[0]), int(group["num_layers"].iloc[0]), group


def best_settings(frame: pd.DataFrame, select_metric: str = SELECT_METRIC) -> Selection:
    """For each row name and depth the setting with the best mean of `select_metric` over its seeds.

    A study has one setting there and nothing is chosen; a search has many, and the choice is made on `valid` alone.

    Raises:
        ConfigError: A choice is needed and `select_metric` was not measured, or is not on the valid split.
    """
    if not select_metric.startswith("valid"):
        raise ConfigError(f"select.metric: must begin with valid/, got {select_metric!r}. Test is for the report.")
    finished = frame[frame["status"] == "finished"]
    if finished.empty:
        return Selection(finished, [])
    names = ["teacher_layers", "num_blocks", *setting_columns(frame)]
    # As text: among settings are lists and missing values, which equal nothing.
    keys = pd.Series([repr(values) for values in finished[names].itertuples(index=False, name=None)], finished.index)
    kept, notes = [], []
    for row, num_layers, group in row_groups(finished):
        settings = group.groupby(keys[group.index], sort=False)
        if settings.ngroups > 1:
            if select_metric not in group or group[select_metric].isna().all():
                raise ConfigError(
                    f"select.metric: {row} with {num_layers} layers has {settings.ngroups} settings to choose from, got"
                    f" no {select_metric}. Name a metric that is measured."
                )
            differing = [name for name in names if group[name].map(repr).nunique() > 1]
            means = settings[select_metric].mean()
            group = settings.get_group(means.idxmax())
            chosen = ", ".join(f"{name}={group[name].iloc[0]}" for name in differing)
            notes.append(
                f"{row}, {num_layers} layers: best of {settings.ngroups} settings by {select_metric}: {chosen}."
            )
        kept.append(group)
    return Selection(pd.concat(kept), notes)


def curves(frame: pd.DataFrame, stages: Path, select_metric: str = SELECT_METRIC) -> list[CurvePoint]:
    """Every metric of every row against depth; SASRec, which has no depth, is repeated at each one.

    Args:
        frame: From `results.collect`.
        stages: Folder with the stages' ranks, which are read only where there are several seeds.
        select_metric: Decides which setting is drawn where a row has several at one depth.

    Raises:
        CheckpointError: Ranks are missing or damaged.
        ConfigError: See `best_settings`.
        DataError: Seeds of one point were evaluated on different users.
    """
    chosen = best_settings(frame, select_metric).frame
    reader = RankReader(stages)
    metrics = [name for name in chosen.columns if RANK_METRIC.fullmatch(name)]
    depths = sorted({int(depth) for depth in chosen.loc[chosen["method"] != "sasrec", "num_layers"]})
    points = []
    for row, num_layers, group in row_groups(chosen):
        is_flat = (group["method"] == "sasrec").all() and depths
        for metric, depth in product(metrics, depths if is_flat else [num_layers]):
            measured = group[group[metric].notna()]
            if not measured.empty:
                points.append(_point(row, metric, depth, measured, reader))
    return points


def paired_comparisons(
    frame: pd.DataFrame,
    stages: Path,
    metric: str = "test/ndcg_at_10",
    select_metric: str = SELECT_METRIC,
    listed: Sequence[str] = (),
) -> list[Comparison]:
    """The paired tests of a sweep, user by user, over the seeds that both sides have.

    The family is fixed before anything is measured, and Holm's correction is over all of it: what the space lists, or
    each distilled student against the model fine-tuned at its depth and against its teacher.

    Args:
        frame: From `results.collect`.
        stages: Folder with the stages' ranks.
        metric: A function of ranks.
        select_metric: Decides which setting stands for a row that has several at one depth.
        listed: `<row>-<layers> vs <row>-<layers>`; a pair that is not measured yet is left out.

    Raises:
        CheckpointError, ConfigError, DataError: See `curves`.
    """
    chosen = best_settings(frame, select_metric).frame
    if metric not in chosen:
        return []
    groups = {f"{row}-{depth}": group for row, depth, group in row_groups(chosen[chosen[metric].notna()])}
    pairs = [name.split(" vs ") for name in listed] or _own_pairs(groups)
    reader, tests = RankReader(stages), {}
    for one, other in pairs:
        seeds = sorted(set(groups[one]["seed"]) & set(groups[other]["seed"])) if {one, other} <= groups.keys() else []
        if seeds:
            # In one call, so that both sides are known to be the same users.
            cells = [*_cells(groups[one], seeds), *_cells(groups[other], seeds)]
            values = reader.values(cells, metric)
            tests[f"{one} vs {other}"] = (len(seeds), paired_test(values[: len(seeds)], values[len(seeds) :]))
    # A test of the list that is not measured yet counts with p = 1: the family does not grow with the results.
    corrected = holm(dict.fromkeys(listed, 1.0) | {name: test.p_value for name, (_, test) in tests.items()})
    return [
        Comparison(name=name, num_seeds=num_seeds, p_value_holm=corrected[name], **vars(test))
        for name, (num_seeds, test) in tests.items()
    ]


def _own_pairs(groups: Mapping[str, pd.DataFrame]) -> list[tuple[str, str]]:
    """Each distilled student with the model fine-tuned at its depth, and with its teacher; each stage once."""
    pairs = []
    finetuned = {name: group for name, group in groups.items() if (group["method"] == "finetune").all()}
    for student, students in groups.items():
        if not (students["method"] == "distill").all():
            continue
        # A student without a term that needs one has no teacher.
        depths = {*students["num_layers"], *students["teacher_layers"].dropna()}
        compared: set[frozenset[str]] = set()
        for other, others in finetuned.items():
            # The teacher is often the model fine-tuned at its depth as well: one comparison, not two.
            stages = frozenset(others["stage_id"])
            if depths & {*others["num_layers"]} and stages not in compared:
                compared.add(stages)
                pairs.append((student, other))
    return pairs


def _point(row: str, metric: str, num_layers: int, group: pd.DataFrame, reader: RankReader) -> CurvePoint:
    values = group[metric]
    num_seeds = group["seed"].nunique()
    several = num_seeds > 1
    interval = None
    if several and metric in INTERVAL_METRICS:
        interval = reader.interval(_cells(group, sorted(group["seed"])), metric)
    return CurvePoint(
        row=row,
        metric=metric,
        num_layers=num_layers,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if several else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        num_seeds=num_seeds,
    )


def _cells(group: pd.DataFrame, seeds: Sequence[int]) -> list[Cell]:
    stage_of = dict(zip(group["seed"], group["stage_id"], strict=True))
    layer = int(group["num_layers"].iloc[0]) if (group["method"] == "probe").all() else None
    return [(str(stage_of[seed]), layer) for seed in seeds]
