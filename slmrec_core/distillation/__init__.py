"""What a student is trained for: blocks that are paired, terms of the objective, and the teacher behind them."""

from slmrec_core.distillation.blocks import BlockPairing, pair_blocks
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE, DistillationConfig
from slmrec_core.distillation.objective import Objective, aligned_state
from slmrec_core.distillation.teacher import (
    USER_VECTORS,
    LiveTeacher,
    NoTeacher,
    StoredLayer,
    StoredTeacher,
    Teacher,
    write_states,
)

__all__ = [
    "CROSS_ENTROPY_ALONE",
    "USER_VECTORS",
    "BlockPairing",
    "DistillationConfig",
    "LiveTeacher",
    "NoTeacher",
    "Objective",
    "StoredLayer",
    "StoredTeacher",
    "Teacher",
    "aligned_state",
    "pair_blocks",
    "write_states",
]
