"""The base of every settings class: frozen, unknown keys refused, field docstrings kept as descriptions."""

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """Settings that cannot change after they were checked; unknown keys, inf and nan are errors, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
