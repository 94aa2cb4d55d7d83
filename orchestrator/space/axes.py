"""Values of a search space that stand for several: grids, and distributions from which a search draws."""

import json
from typing import Any

from slmrec_core.errors import ConfigError, nearest_name

GRID = "grid"
SAMPLERS = ("choice", "uniform", "loguniform", "randint")
_ENDS = 2


def axis_kind(value: Any) -> str | None:
    """`grid`, the name of a sampler, or None for a plain value.

    Raises:
        ConfigError: The value is a mapping, but not an axis.
    """
    if not isinstance(value, dict):
        return None
    kind = str(next(iter(value), ""))
    if len(value) != 1 or kind not in (GRID, *SAMPLERS):
        raise ConfigError(
            f"params: a setting takes a value or one of {GRID}, {', '.join(SAMPLERS)}, got {_json(value)}."
            f" {nearest_name(kind, (GRID, *SAMPLERS))}"
        )
    arguments = value[kind]
    if not isinstance(arguments, list) or not arguments:
        raise ConfigError(f"params: {kind} takes a list, got {_json(arguments)}. Write {{{kind}: [a, b]}}.")
    if kind in (GRID, "choice"):
        return kind
    if len(arguments) != _ENDS or not all(_is_number(kind, end) for end in arguments) or arguments[0] >= arguments[1]:
        numbers = "whole numbers" if kind == "randint" else "numbers"
        raise ConfigError(
            f"params: {kind} takes two {numbers}, the lower first, got {_json(arguments)}. E.g."
            f" {{{kind}: {'[1, 9]' if kind == 'randint' else '[1.0e-3, 1.0]'}}}; YAML reads 1e-3 as text."
        )
    if kind == "loguniform" and arguments[0] <= 0:
        raise ConfigError(f"params: loguniform begins above 0, got {_json(arguments)}. Raise the lower end.")
    return kind


def is_sampled(value: Any) -> bool:
    """True = a distribution, from which a search draws."""
    return axis_kind(value) in SAMPLERS


def axis_faults(name: str, value: Any) -> list[str]:
    """What is wrong with a value, if it is meant as an axis; names its setting."""
    try:
        axis_kind(value)
    except ConfigError as error:
        return [f"{name} in {error}"]
    return []


def extremes(value: dict[str, list[Any]]) -> list[Any]:
    """All values of a choice; the first and the last that can be drawn from a range."""
    ((kind, arguments),) = value.items()
    return [arguments[0], arguments[1] - 1] if kind == "randint" else list(arguments)


def _is_number(kind: str, value: Any) -> bool:
    return isinstance(value, int if kind == "randint" else int | float) and not isinstance(value, bool)


def _json(value: Any) -> str:
    return json.dumps(value, default=str)
