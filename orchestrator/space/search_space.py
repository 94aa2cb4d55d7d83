"""A search space: the question of a sweep, read from YAML and checked whole before anything runs."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from orchestrator.space.axes import axis_faults, axis_kind, is_sampled
from orchestrator.space.overrides import apply_override
from orchestrator.training.workers import worker_defaults
from slmrec_core.errors import ConfigError, nearest_name
from slmrec_core.experiment import dotted_defaults
from slmrec_core.frozen_config import FrozenConfig
from slmrec_core.hardware import fast_precision
from slmrec_core.metrics import ranking_metrics

_PRECISION = "training.precision"
SPACES_FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"
ROW_KEY = "row"
_COMMON_SECTIONS = ("data", "evaluation", "workers")
"""Rows are compared user by user, so all of them rank the same users in the same way, on the same workers."""
_ROW = re.compile(r"[A-Za-z0-9._-]+")
_COMPARISON = re.compile(rf"{_ROW.pattern}-\d+ vs {_ROW.pattern}-\d+")
_EXTENDS = "extends"
_VALID_METRICS = tuple(ranking_metrics(np.ones(1, dtype=np.int64), "valid"))


class SearchConfig(FrozenConfig):
    """How points of the space are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """`grid` runs every combination; `random` and `optuna` draw `budget.num_trials` points."""
    scheduler: Literal["none", "asha"] = "none"
    """`asha` stops trials that fall behind others at the same epoch."""
    seed: NonNegativeInt = 0
    """Of the sampler."""


class SelectConfig(FrozenConfig):
    """What a search chooses by; the test split never decides."""

    metric: Annotated[str, Field(pattern=r"^valid/")] = "valid/ndcg_at_10"
    """A metric of the valid split."""
    mode: Literal["max"] = "max"
    """All our metrics are better when they are higher."""
    read_test: bool = True
    """False = the rows are there to choose a setting from: what is trained for them leaves the test split unread."""
    registered_model: Annotated[str, Field(pattern=r"^[^/:]+$")] | None = None
    """Name in MLflow's registry under which the best student becomes the `champion`; None = it is only logged."""


class BudgetConfig(FrozenConfig):
    """Limits."""

    num_trials: PositiveInt = 16
    """Points drawn by `random` and `optuna`; a grid has as many as it has."""
    max_epochs: PositiveInt | None = None
    """Cap on training.epochs; None = none."""
    grace_epochs: PositiveInt = 1
    """Epochs that ASHA grants every trial."""


class SearchSpace(FrozenConfig):
    """The keys of a file in `search_spaces/`."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """Name of the MLflow experiment."""
    base: dict[str, Any] = {}
    """Settings that every trial shares, under dotted names."""
    params: list[dict[str, Any]]
    """Groups of rows: a value, `{grid: [...]}`, or a distribution `{choice | uniform | loguniform | randint: [...]}`
    for each dotted name; `row` names the group's curve, by default its method."""
    seeds: list[NonNegativeInt] = [0]
    """Every row is run once for each; a number n stands for 0 … n − 1."""
    search: SearchConfig = SearchConfig()
    """How points are chosen."""
    select: SelectConfig = SelectConfig()
    """What the best is."""
    budget: BudgetConfig = BudgetConfig()
    """Limits."""
    compare: list[str] = []
    """`<row>-<layers> vs <row>-<layers>`: the paired tests, listed before anything is measured; Holm's correction is
    over all of them. Empty = each distilled student against its teacher and the model fine-tuned at its depth."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if isinstance(raw, dict):
            raw = dict(raw)
            if isinstance(raw.get("params"), dict):
                raw["params"] = [raw["params"]]
            if isinstance(raw.get("seeds"), int) and not isinstance(raw["seeds"], bool):
                raw["seeds"] = list(range(raw["seeds"]))
            base = raw.get("base", {})
            if isinstance(base, dict) and base.get(_PRECISION, "auto") == "auto":
                # Settled here, once, so that every node trains in the same precision and the hash names it.
                raw["base"] = {**base, _PRECISION: fast_precision()}
            for group in raw["params"] if isinstance(raw.get("params"), list) else []:
                if isinstance(group, dict) and "auto" in str(group.get(_PRECISION)):
                    raise ConfigError(f"{_PRECISION}: 'auto' is settled in base, got it in params. Name the precision.")
        return raw

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = list(dict.fromkeys(setting_faults(self.base, self.params)))
        if faults:
            raise ConfigError("\n".join(faults))
        if not self.params:
            faults.append("params: must have a group of rows, got none. E.g. params: [{method: finetune}].")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            faults.append(f"seeds: must be distinct and at least one, got {self.seeds}. E.g. seeds: [0, 1, 2].")
        sampled = [group for group in self.params if self._is_sampled(group)]
        if self.search.algorithm == "grid" and sampled:
            faults.append(
                "search.algorithm: grid cannot draw from distributions, got "
                f"{sorted(name for name, value in sampled[0].items() if is_sampled(value))}. Write {{grid: [...]}}."
            )
        if self.search.algorithm != "grid" and len(sampled) != 1:
            faults.append(
                f"params: a {self.search.algorithm} search needs one group with distributions, got {len(sampled)}."
                " Give one of the groups {choice: [...]}, {uniform: [a, b]}, {loguniform: [a, b]} or {randint: [a, b]}."
            )
        faults += [
            f"params: a group with distributions has no grid beside them, got {name!r}. Write {{choice: [...]}}."
            for group in sampled
            for name, value in group.items()
            if axis_kind(value) == "grid"
        ]
        if self.search.algorithm == "grid" and self.search.scheduler != "none":
            faults.append(
                "search.scheduler: every row of a grid is reported, so none is stopped early, got 'asha'."
                " Set search.scheduler=none, or search.algorithm=random."
            )
        faults += [
            f"compare: must be '<row>-<layers> vs <row>-<layers>', got {name!r}. E.g. distill-4 vs finetune-4."
            for name in self.compare
            if not _COMPARISON.fullmatch(name)
        ]
        if not self.select.read_test and any(group.get("method") == "probe" for group in self.params):
            faults.append("select.read_test: a probe reads both splits in one pass, got false. Leave the probe out.")
        if not self.select.read_test and (self.base.get("compressed") or any(g.get("compressed") for g in self.params)):
            faults.append("select.read_test: a compressed row reads both splits, got false. Leave `compressed` out.")
        if self.select.metric not in _VALID_METRICS:
            faults.append(
                f"select.metric: there is no such metric, got {self.select.metric!r}."
                f" {nearest_name(self.select.metric, _VALID_METRICS)}"
            )
        if faults:
            raise ConfigError("\n".join(faults))
        return self

    def fixed_groups(self) -> Iterator[dict[str, Any]]:
        """Settings of every row that is known beforehand, axes laid out, `row` among them."""
        for group in self.params:
            if not self._is_sampled(group):
                yield from self.laid_out(group)

    def sampled_group(self) -> dict[str, Any] | None:
        """The group with distributions: constants and `{sampler: arguments}`; None for a grid."""
        sampled = [group for group in self.params if self._is_sampled(group)]
        return {**self.base, **sampled[0]} if sampled else None

    def sampled_axes(self) -> dict[str, dict[str, list[Any]]]:
        """`{sampler: arguments}` by dotted name; empty for a grid."""
        return {name: value for name, value in (self.sampled_group() or {}).items() if is_sampled(value)}

    def _is_sampled(self, group: dict[str, Any]) -> bool:
        return any(is_sampled(value) for value in group.values())

    def laid_out(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Settings of every row of a group without distributions: `base`, and a value of each axis."""
        names = list(group)
        axes = [value["grid"] if axis_kind(value) == "grid" else [value] for value in group.values()]
        for values in itertools.product(*axes):
            yield {**self.base, **dict(zip(names, values, strict=True))}


def load_search_space(space: str, overrides: list[str]) -> SearchSpace:
    """Reads a space by path or name and applies `--set` settings.

    Args:
        space: A file, or the name of one in `search_spaces/`.
        overrides: `dotted.key=value`, the value in YAML; on a swept key it takes the place of the axis.

    Raises:
        ConfigError: No such file, or it says something that cannot be; all faults at once.
    """
    path = _find(space)
    raw = _read(path)
    raw.setdefault("study", _study_name(path))
    for override in overrides:
        apply_override(raw, override, _known_settings(), _SECTIONS)
    try:
        return SearchSpace.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"search space {path}:\n" + "\n".join(_all_faults(error, raw))) from error


def space_names() -> list[str]:
    """Names of the shipped spaces; those in subfolders with their folder. `_` begins what others extend."""
    files = [path for path in SPACES_FOLDER.rglob("*.yaml") if not path.name.startswith("_")]
    return sorted(str(path.relative_to(SPACES_FOLDER).with_suffix("")) for path in files)


def _study_name(path: Path) -> str:
    """The file's name; of our own files in a subfolder, that folder's before it."""
    is_ours = path.is_relative_to(SPACES_FOLDER)
    return "-".join(path.relative_to(SPACES_FOLDER).with_suffix("").parts) if is_ours else path.stem


def _read(path: Path) -> dict[str, Any]:
    """A file's mapping over that of the file beside it that it extends: keys replace keys, `base` is merged."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"search space {path}: cannot be read as YAML, got {error}. Mend the file.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"search space {path}: must be a mapping, got {type(raw).__name__}. Copy depth.yaml.")
    if _EXTENDS not in raw:
        return raw
    name = raw.pop(_EXTENDS)
    if not isinstance(name, str) or Path(name).name != name:
        raise ConfigError(f"search space {path}: extends must name a file beside it, got {name!r}. E.g. _beauty.yaml.")
    parent, base = _read(path.with_name(name)), raw.get("base", {})
    if isinstance(base, dict) and isinstance(parent.get("base"), dict):
        raw["base"] = {**parent["base"], **base}
    return {**parent, **raw}


def _find(space: str) -> Path:
    for path in (Path(space).expanduser(), SPACES_FOLDER / f"{space}.yaml", SPACES_FOLDER / space):
        if path.is_file():
            return path
    raise ConfigError(
        f"search space: there is no such file or name, got {space!r}. {nearest_name(space, space_names())}"
    )


def setting_faults(base: dict[str, Any], groups: list[dict[str, Any]]) -> list[str]:
    """Everything that is wrong with the names and axes of a space."""
    faults = []
    for where, settings in [("base", base), *(("params", group) for group in groups)]:
        for name, value in settings.items():
            if name == ROW_KEY and where == "params":
                faults += _row_faults(value)
            elif name not in _known_settings():
                known = {*_known_settings(), ROW_KEY} if where == "params" else _known_settings()
                faults.append(f"{where}: there is no such setting, got {name!r}. {nearest_name(str(name), known)}")
            elif where == "base" and isinstance(value, dict):
                faults.append(f"base: every trial shares its settings, got {name}: {value!r}. Move the axis to params.")
            elif where == "params" and str(name).split(".")[0] in _COMMON_SECTIONS:
                faults.append(f"params: {name} is the same for all rows of a sweep, got {value!r}. Move it to base.")
            else:
                faults += axis_faults(name, value)
    return faults


def _row_faults(value: Any) -> list[str]:
    if isinstance(value, str) and _ROW.fullmatch(value):
        return []
    return [f"params: row names a curve with letters, digits, '.', '_' and '-', got {value!r}. E.g. row: cosine."]


def _known_settings() -> set[str]:
    return {*dotted_defaults(), *worker_defaults()}


def _all_faults(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """The faults of fields and, which pydantic leaves out beside those, of names and axes."""
    faults = [_fault(fault) for fault in error.errors()]
    if any(fault["loc"] == () for fault in error.errors()):
        return faults
    base, params = raw.get("base"), raw.get("params")
    groups = [group for group in (params if isinstance(params, list) else [params]) if isinstance(group, dict)]
    return faults + setting_faults(base if isinstance(base, dict) else {}, groups)


def _fault(fault: Any) -> str:
    """One fault in our message form."""
    *parents, name = [str(part) for part in fault["loc"]] or [""]
    if fault["type"] == "extra_forbidden":
        section = _SECTIONS[parents[0]] if parents else SearchSpace
        where = ".".join(parents) or "search space"
        return f"{where}: there is no such key, got {name!r}. {nearest_name(name, section.model_fields)}"
    if fault["loc"] == ("select", "metric"):
        return f"select.metric: must start with valid/, got {fault['input']!r}. The test split never decides."
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    got = "nothing" if fault["type"] == "missing" else repr(fault["input"])
    return f"{'.'.join([*parents, name])}: {fault['msg'].lower()}, got {got}. Give a value that fits."


_SECTIONS: dict[str, type[BaseModel]] = {"search": SearchConfig, "select": SelectConfig, "budget": BudgetConfig}
