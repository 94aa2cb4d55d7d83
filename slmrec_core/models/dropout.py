"""Dropout whose mask is cheap to draw on a CPU."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ENTRIES = 4
"""Mask entries out of 64 random bits."""
_VALUES = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` with the probability rounded to a multiple of 2⁻¹⁶, and its mask drawn four entries at a time.

    torch draws a number of double precision for every entry; on a CPU in bfloat16 that took a sixth of a training step.
    Off the CPU it is `nn.Dropout` itself, whose kernel is fused there.
    """

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The input with entries set to 0 with probability `p`, the others divided by 1 − p; in eval mode itself."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu":
            return super().forward(input)
        count = math.ceil(input.numel() / _ENTRIES)
        bits = torch.empty(count, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        dropped = round(self.p * _VALUES)
        is_kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - _VALUES // 2
        return input * is_kept.to(input.dtype).mul_(_VALUES / (_VALUES - dropped))
