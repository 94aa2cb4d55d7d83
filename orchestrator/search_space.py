"""A search space: the question of a sweep, read from YAML and checked whole before anything runs."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from orchestrator.workers import WorkersConfig
from slmrec_core.errors import ConfigError, nearest_name
from slmrec_core.experiment import dotted, dotted_defaults, first_faults
from slmrec_core.frozen_config import FrozenConfig

SPACES_FOLDER = Path(__file__).resolve().parents[1] / "search_spaces"
WORKERS_PREFIX = "workers."


_SAMPLERS = ("choice", "uniform", "loguniform", "randint")
ROW_KEY = "row"


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
    mode: Literal["max", "min"] = "max"
    """Which end is better."""


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

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if isinstance(raw, dict):
            raw = dict(raw)
            if isinstance(raw.get("params"), dict):
                raw["params"] = [raw["params"]]
            if isinstance(raw.get("seeds"), int):
                raw["seeds"] = list(range(raw["seeds"]))
        return raw

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults: list[str] = []
        known = {*dotted_defaults(), *worker_defaults(), ROW_KEY}
        for where, settings in [("base", self.base), *(("params", group) for group in self.params)]:
            faults += [
                f"{where}: there is no such setting, got {name!r}. {nearest_name(name, known)}"
                for name in settings
                if name not in known
            ]
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
        if self.search.algorithm == "grid" and self.search.scheduler != "none":
            faults.append("search.scheduler: every row of a grid is reported, so none is stopped early, got 'asha'.")
        if faults:
            raise ConfigError("\n".join(faults))
        return self

    def fixed_groups(self) -> Iterator[dict[str, Any]]:
        """Settings of every row that is known beforehand, axes laid out, `row` among them."""
        for group in self.params:
            if not self._is_sampled(group):
                yield from self._laid_out(group)

    def sampled_group(self) -> dict[str, Any] | None:
        """The group with distributions: constants and `{sampler: arguments}`; None for a grid."""
        sampled = [group for group in self.params if self._is_sampled(group)]
        return {**self.base, **sampled[0]} if sampled else None

    def swept_names(self) -> set[str]:
        """Settings with more than one value."""
        return {name for group in self.params for name, value in group.items() if _axis_kind(value)}

    def _is_sampled(self, group: dict[str, Any]) -> bool:
        return any(is_sampled(value) for value in group.values())

    def _laid_out(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        names = list(group)
        axes = [value["grid"] if _axis_kind(value) == "grid" else [value] for value in group.values()]
        for values in itertools.product(*axes):
            yield {**self.base, **dict(zip(names, values, strict=True))}


def worker_defaults() -> dict[str, object]:
    """Every setting of the workers under its dotted name."""
    return {f"{WORKERS_PREFIX}{name}": value for name, value in dotted(WorkersConfig()).items()}


def load_search_space(space: str, overrides: list[str]) -> SearchSpace:
    """Reads a space by path or name and applies `--set` settings.

    Args:
        space: A file, or the name of one in `search_spaces/`.
        overrides: `dotted.key=value`, the value in YAML; on a swept key it takes the place of the axis.

    Raises:
        ConfigError: No such file, or it says something that cannot be; all faults at once.
    """
    path = _find(space)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"search space {path}: cannot be read, got {error}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"search space {path}: must be a mapping, got {type(raw).__name__}. Copy depth.yaml.")
    raw.setdefault("study", path.stem)
    for override in overrides:
        _apply(raw, override)
    try:
        return SearchSpace.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"search space {path}:\n{first_faults(error)}") from error


def space_names() -> list[str]:
    """Names of the shipped spaces; those in subfolders with their folder."""
    return sorted(str(p.relative_to(SPACES_FOLDER).with_suffix("")) for p in SPACES_FOLDER.rglob("*.yaml"))


def _find(space: str) -> Path:
    for path in (Path(space).expanduser(), SPACES_FOLDER / f"{space}.yaml", SPACES_FOLDER / space):
        if path.is_file():
            return path
    raise ConfigError(f"search space: there is no such file or name, got {space!r}. {nearest_name(space, space_names())}")


def _apply(raw: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set: must be dotted.key=value, got {override!r}. E.g. --set training.epochs=2.")
    try:
        value = _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {name}: the value must be YAML, got {text!r}.") from error
    section, _, key = name.partition(".")
    if name == "seeds":
        raw["seeds"] = value
    elif section in ("search", "select", "budget") and key:
        raw[section] = {**(raw.get(section) or {}), key: value}
    elif name in {*dotted_defaults(), *worker_defaults()}:
        groups = raw.get("params")
        _set(raw, [g for g in (groups if isinstance(groups, list) else [groups]) if isinstance(g, dict)], name, value)
    else:
        known = [*dotted_defaults(), *worker_defaults(), "seeds"]
        known += [f"{part}.{field}" for part, cls in _SECTIONS.items() for field in cls.model_fields]
        raise ConfigError(f"--set: there is no such setting, got {name!r}. {nearest_name(name, known)}")


def _set(raw: dict[str, Any], groups: list[dict[str, Any]], name: str, value: Any) -> None:
    """A value replaces an axis of this name; a list makes one, in the groups that sweep the name or else in all."""
    holders = [group for group in groups if name in group]
    if isinstance(value, list) and not isinstance(dotted_defaults().get(name), list):
        for group in holders or groups:
            group[name] = {"grid": value}
        return
    for group in holders:
        group[name] = value
    raw["base"] = {**(raw.get("base") or {}), name: value}


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; on the command line people mean the number."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and not value.lower().startswith(("e", "inf")) else value
        except ValueError:
            return value
    return [_numbers(item) for item in value] if isinstance(value, list) else value


def is_sampled(value: Any) -> bool:
    """True = a distribution, from which a search draws."""
    return _axis_kind(value) in _SAMPLERS


def _axis_kind(value: Any) -> str | None:
    if isinstance(value, dict) and len(value) == 1:
        kind = next(iter(value))
        if kind == "grid" or kind in _SAMPLERS:
            arguments = value[kind]
            if not isinstance(arguments, list) or not arguments:
                raise ConfigError(f"params: {kind} takes a list, got {json.dumps(arguments)}. Write {{{kind}: [a, b]}}.")
            return str(kind)
    return None


_SECTIONS: dict[str, type[BaseModel]] = {"search": SearchConfig, "select": SelectConfig, "budget": BudgetConfig}
