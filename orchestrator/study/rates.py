"""The learning rate of each depth, as the study's own small search chose it on valid, for the questions after it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.report.curves import best_settings
from orchestrator.space.search_space import SearchSpace
from slmrec_core.errors import ConfigError
from slmrec_core.experiment import dotted_defaults

SEARCH = "learning_rate"
"""The question that chooses."""
BEFORE_RATES = ("baseline", SEARCH)
"""Questions that ask for no chosen rate."""
_RATE, _TEACHERS_RATE = "training.learning_rate", "teacher_learning_rate"
_DEPTH, _TEACHERS_DEPTH = "student.num_layers", "teacher.num_layers"


def chosen_rates(record: Path) -> dict[int, float]:
    """The rate that ranked best on valid, by number of layers.

    Args:
        record: Of the study, with the table of the search.

    Raises:
        ConfigError: The search is not finished.
    """
    file = record / f"{SEARCH}.csv"
    frame = pd.read_csv(file) if file.is_file() else pd.DataFrame({"status": ["missing"]})
    if not (frame["status"] == "finished").all():
        raise ConfigError(
            f"study: the rates of the rows are those of the question {SEARCH!r}, which must be finished first, got"
            f" {(frame['status'] != 'finished').sum()} rows without a result in {file}. Run tier 1."
        )
    chosen = best_settings(frame).frame
    trained = chosen[chosen["method"] == "finetune"]
    return {int(depth): float(rate) for depth, rate in zip(trained["num_layers"], trained[_RATE], strict=True)}


def with_rates(space: SearchSpace, rates: Mapping[int, float]) -> SearchSpace:
    """The same rows, every model that is trained with the rate of its depth; a group that names a rate keeps it.

    Raises:
        ConfigError: A depth was not searched.
    """
    groups = []
    for group in space.params:
        rows = [group] if _RATE in group else [_rated(row, rates) for row in space.laid_out(group)]
        groups += [
            {n: value for n, value in row.items() if n not in space.base or value != space.base[n]} for row in rows
        ]
    return SearchSpace.model_validate({**space.model_dump(), "params": groups})


def _rated(row: Mapping[str, Any], rates: Mapping[int, float]) -> dict[str, Any]:
    settings = {**dotted_defaults(), **row}
    depth, teachers_depth = int(settings[_DEPTH]), int(settings[_TEACHERS_DEPTH])
    match settings["method"]:
        case "finetune":
            return {**row, _RATE: _rate(rates, depth)}
        case "distill":
            return {**row, _RATE: _rate(rates, depth), _TEACHERS_RATE: _rate(rates, teachers_depth)}
        case "probe":
            return {**row, _RATE: _rate(rates, teachers_depth)}
    return dict(row)


def _rate(rates: Mapping[int, float], depth: int) -> float:
    if depth not in rates:
        raise ConfigError(
            f"study: the question {SEARCH!r} must have searched the rate of every depth, got {depth} layers beside"
            f" {sorted(rates)}. Add it there."
        )
    return rates[depth]
