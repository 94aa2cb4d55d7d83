"""`--set dotted.key=value`: settings that the command line changes in a search space as it was read."""

from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from orchestrator.space.axes import GRID, SAMPLERS
from slmrec_core.errors import ConfigError, nearest_name
from slmrec_core.experiment import ExperimentConfig


def apply_override(
    raw: dict[str, Any], override: str, settings: set[str], sections: dict[str, type[BaseModel]]
) -> None:
    """Changes a space as YAML gave it.

    Args:
        raw: Changed in place.
        override: `dotted.key=value`, the value in YAML; on a swept key it takes the place of the axis.
        settings: Dotted names that exist.
        sections: The space's own sections by name; their keys are `section.key`.

    Raises:
        ConfigError: It has another form, or no setting has that name.
    """
    name, separator, text = override.partition("=")
    name = name.strip()
    if not separator or not name:
        raise ConfigError(f"--set: must be dotted.key=value, got {override!r}. E.g. --set training.epochs=2.")
    try:
        value = _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {name}: the value must be YAML, got {text!r}. Quote it for the shell.") from error
    section, _, key = name.partition(".")
    if name == "seeds":
        raw["seeds"] = value
    elif section in sections and key in sections[section].model_fields:
        raw[section] = {**_mapping(raw, section), key: value}
    elif name in settings:
        _set(raw, name, value)
    else:
        known = [*settings, "seeds", *(f"{part}.{key}" for part, cls in sections.items() for key in cls.model_fields)]
        raise ConfigError(f"--set: there is no such setting, got {name!r}. {nearest_name(name, known)}")


def _set(raw: dict[str, Any], name: str, value: Any) -> None:
    """A value replaces an axis of this name; a list makes one, in the groups that sweep the name or else in all."""
    params = raw.get("params")
    groups = [group for group in (params if isinstance(params, list) else [params]) if isinstance(group, dict)]
    holders = [group for group in groups if name in group]
    is_axis = isinstance(value, dict) or (isinstance(value, list) and not _is_one_value(name, value))
    for group in (holders or groups) if is_axis else holders:
        group[name] = {_axis(group): value} if isinstance(value, list) and is_axis else value
    if not is_axis:
        raw["base"] = {**_mapping(raw, "base"), name: value}


def _axis(group: dict[str, Any]) -> str:
    """A list becomes a grid; in a group that is drawn from, something to draw from."""
    drawn = any(isinstance(value, dict) and set(value) & set(SAMPLERS) for value in group.values())
    return "choice" if drawn else GRID


def _is_one_value(name: str, value: list[Any]) -> bool:
    """True = the setting takes a list, and this is one."""
    annotation: Any = ExperimentConfig
    for part in name.split("."):
        fields = getattr(annotation, "model_fields", {})
        if part not in fields:
            return False
        annotation = fields[part].annotation
    takes_list = any(get_origin(option) is tuple for option in (annotation, *get_args(annotation)))
    return takes_list and not any(isinstance(item, list) for item in value)


def _mapping(raw: dict[str, Any], section: str) -> dict[str, Any]:
    found = raw.get(section)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{section}: must be a mapping, got {found!r}. Copy the form of depth.yaml.")
    return found or {}


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; on the command line people mean the number."""
    if isinstance(value, str) and "e" in value.lower() and value[0] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value
