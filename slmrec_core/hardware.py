"""What a machine is, what it computes fast, and what it holds: the one place where the hardware is asked."""

import logging
import platform
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

logger = logging.getLogger(__name__)

_CHUNK = 2**21
"""Scores: 8 MiB."""
_FEWEST_ROWS = 64
"""Each chunk reads the whole item table, and writes its gradient if it is trained."""


def fast_precision() -> Literal["fp32", "bf16"]:
    """`bf16` where matrix products have hardware for it (CUDA from Ampere on, AMX or AVX512-BF16 on CPU), else `fp32`.

    On a CPU without it, torch falls back to a loop that was measured at a seventieth of the speed of float32.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _bfloat16_unit() else "fp32"


def hardware_name(device: torch.device) -> str:
    """What times and speeds were measured on: the GPU, or the CPU's model and the widest instructions of it that torch
    uses, e.g. `AMD EPYC, AVX512-BF16`. Times are comparable only under one name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {_bfloat16_unit() or torch.backends.cpu.get_cpu_capability()}"


def _bfloat16_unit() -> str | None:
    """What of the CPU multiplies matrices in bfloat16; None = nothing does."""
    units = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    # Private names, so their absence means no.
    return next((unit for unit, check in units.items() if getattr(torch.cpu, check, lambda: False)()), None)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    # Arm's Linux names no model; macOS has no such file.
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def rows_per_chunk(num_columns: int) -> int:
    """Rows of a score matrix that are held at a time: 2²¹ scores stay in the caches, fewer rows waste the table."""
    return max(_FEWEST_ROWS, _CHUNK // max(num_columns, 1))


def attention_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """FlashAttention on CUDA where its package is there and the precision allows, else torch's own attention.

    On a CPU in bfloat16 plain matrix products are twice as fast at a history's length, backward pass included.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return "eager" if device.type == "cpu" and dtype == torch.bfloat16 else "sdpa"
    # Slow to import, and only CUDA asks it.
    from transformers.utils import is_flash_attn_2_available  # noqa: PLC0415

    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def reset_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory_bytes` begin anew, where the system can (CUDA, Linux); the log says where it cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        # Linux: the peak of resident memory, and nothing else.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        logger.info("The peak of memory counts from the start of the process: %s", error)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process held since `reset_peak_memory`, or since it began: of the GPU where it computes
    there, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage keeps the peak of before a reset.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
