"""What is left of a model."""

from typing import Literal

from pydantic import Field, PositiveInt

from slmrec_core.frozen_config import FrozenConfig
from slmrec_core.models.quantization import WeightFormat

Pruning = Literal["none", "unstructured", "2:4"]


class CompressionConfig(FrozenConfig):
    """Low-rank updates are merged first; then layers are left out, then weights set to zero, then rounded."""

    keep_layers: PositiveInt | None = None
    """Decoder layers that stay; None = all."""
    keep: Literal["influence", "first"] = "influence"
    """Which stay: those that turn a user's state most (block influence, arXiv:2403.03853), or the `first`."""
    pruning: Pruning = "none"
    """Smallest weights of every linear map set to zero: a share of them, wherever they are (`unstructured`), or two of
    every four along the inputs (`2:4`, which GPUs from Ampere on can skip)."""
    sparsity: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of zeros with `unstructured` pruning."""
    weights: WeightFormat = "float"
    """What weights are rounded to: `int8`, `int8_dynamic` (inputs as well, at every call), `int4`; `float` = not."""
