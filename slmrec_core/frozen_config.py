"""The base of every settings class: frozen, unknown keys refused, field docstrings kept as descriptions."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from slmrec_core.errors import ConfigError

if TYPE_CHECKING:
    # It has no public name.
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Told(ModelMetaclass):
    """Raises our error where a person makes settings. What pydantic makes inside others keeps pydantic's, which knows
    the whole path of a fault."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        try:
            return super().__call__(*arguments, **settings)
        except ValidationError as error:
            raise ConfigError(first_faults(error, self.__name__)) from error


class FrozenConfig(BaseModel, metaclass=_Told):
    """Settings that cannot change after they were checked; unknown keys, inf and nan are errors, never ignored.

    Raises:
        ConfigError: A setting cannot be.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


def first_faults(error: ValidationError, owner: str | None = None) -> str:
    """All faults in our message form, one a line, under the name of the settings' owner if there is one."""
    lines = []
    for fault in error.errors():
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            lines.append(str(cause))
        else:
            where = ".".join(str(part) for part in (owner, *fault["loc"]) if part is not None)
            lines.append(f"{where}: {fault['msg'].lower()}, got {fault['input']!r}. Give a value that fits.")
    return "\n".join(lines)
