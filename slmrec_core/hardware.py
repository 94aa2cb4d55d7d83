"""What this machine computes fast: the one place where the hardware is asked."""

from typing import Literal

import torch


def fast_precision() -> Literal["fp32", "bf16"]:
    """`bf16` where matrix products have hardware for it (CUDA from Ampere on, AMX or AVX512-BF16 on CPU), else `fp32`.

    On a CPU without it, torch falls back to a loop that was measured at a seventieth of the speed of float32.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Private names, so their absence means no.
    checks = [
        getattr(torch.cpu, name, lambda: False) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return "bf16" if any(check() for check in checks) else "fp32"
