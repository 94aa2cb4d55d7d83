"""The learning rate of each depth, as the study's own small searches chose it on valid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.report.curves import best_settings
from orchestrator.space.search_space import SearchSpace
from slmrec_core.errors import ConfigError
from slmrec_core.experiment import dotted_defaults

SEARCHES = ("learning_rate", "learning_rate_whole", "learning_rate_between")
"""The questions that choose, the cheap one first."""
BEFORE_RATES = ("baseline", *SEARCHES)
"""Questions that ask for no chosen rate."""
_RATE, _TEACHERS_RATE = "training.learning_rate", "teacher_learning_rate"
_DEPTH, _TEACHERS_DEPTH = "student.num_layers", "teacher.num_layers"


def chosen_rates(record: Path) -> dict[int, float]:
    """The rate that ranked best on valid, by number of layers; a depth counts once all its rates were tried.

    Args:
        record: Of the study, with the tables of the searches.
    """
    rates: dict[int, float] = {}
    for file in (record / f"{name}.csv" for name in SEARCHES):
        if file.is_file():
            frame = pd.read_csv(file)
            unfinished = frame.loc[frame["status"] != "finished", "num_layers"]
            chosen = best_settings(frame[~frame["num_layers"].isin(unfinished)]).frame
            trained = chosen[chosen["method"] == "finetune"]
            rates |= {
                int(depth): float(rate) for depth, rate in zip(trained["num_layers"], trained[_RATE], strict=True)
            }
    return rates


def waiting_depths(space: SearchSpace, rates: Mapping[int, float]) -> set[int]:
    """Numbers of layers that a space trains and whose rate is not chosen yet."""
    rows = [row for group in space.params if _RATE not in group for row in space.laid_out(group)]
    return {depth for row in rows for depth in _depths(row).values()} - rates.keys()


def with_rates(space: SearchSpace, rates: Mapping[int, float]) -> SearchSpace:
    """The rows whose rate is chosen, every model trained with that of its depth; a group that names a rate keeps it.

    A test that compares a row which waits for its rate is left out with it.

    Raises:
        ConfigError: All rows wait.
    """
    groups: list[dict[str, Any]] = []
    waiting = set()
    for group in space.params:
        if _RATE in group:
            groups.append(group)
            continue
        for row in space.laid_out(group):
            depths = _depths(row)
            if set(depths.values()) <= rates.keys():
                rated = {**row, **{name: rates[depth] for name, depth in depths.items()}}
                groups.append({n: value for n, value in rated.items() if n not in space.base or value != space.base[n]})
            else:
                settings = {**dotted_defaults(), **row}
                waiting.add(f"{row.get('row', settings['method'])}-{settings[_DEPTH]}")
    if not groups:
        raise ConfigError(
            f"study: the rates of the rows are those of {' and '.join(SEARCHES)}, got none for"
            f" {sorted(waiting_depths(space, rates))} layers. Run tier 1."
        )
    compare = [test for test in space.compare if not waiting & set(test.split(" vs "))]
    return SearchSpace.model_validate({**space.model_dump(), "params": groups, "compare": compare})


def _depths(row: Mapping[str, Any]) -> dict[str, int]:
    """Rates that a row is trained with: name of the setting → number of layers that it is for."""
    settings = {**dotted_defaults(), **row}
    depth, teachers_depth = int(settings[_DEPTH]), int(settings[_TEACHERS_DEPTH])
    match settings["method"]:
        case "finetune":
            return {_RATE: depth}
        # An online teacher is trained in its student's steps.
        case "distill" if settings["distillation.mode"] == "offline":
            return {_RATE: depth, _TEACHERS_RATE: teachers_depth}
        case "distill":
            return {_RATE: depth}
        case "probe":
            return {_RATE: teachers_depth}
    return {}
