"""Which teacher layer teaches which student layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from slmrec_core.errors import ConfigError


@dataclass(frozen=True)
class BlockPairing:
    """Ends of the blocks, shallow to deep; block k is at index k − 1."""

    student_layers: tuple[int, ...]
    teacher_layers: tuple[int, ...]

    @property
    def num_blocks(self) -> int:
        """B of the paper."""
        return len(self.student_layers)

    @property
    def supervised_layers(self) -> tuple[int, ...]:
        """Student layers with a supervision head: every block's end but the last, which has the main head."""
        return self.student_layers[:-1]


def pair_blocks(
    student_depth: int, teacher_depth: int, num_blocks: int | None, teacher_layers: Sequence[int] | None = None
) -> BlockPairing:
    """Block k of B pairs student layer k·N/B with teacher layer floor(k·M/B + ½).

    SLMRec (arXiv:2405.17890), section on blocks: m = M/B, n = N/B. Departs from the paper where B does not divide M:
    the nearest teacher layer is taken (30 layers, B = 4 → 8, 15, 23, 30).

    Args:
        student_depth: N, at least 1.
        teacher_depth: M.
        num_blocks: B; divides N. None = min(4, N).
        teacher_layers: Takes the place of the computed teacher layers, one per block, ascending.

    Raises:
        ConfigError: B does not divide N, or `teacher_layers` does not fit B or M.
    """
    if student_depth < 1:
        raise ConfigError(
            f"student.num_layers: a student needs a layer to be distilled, got {student_depth}. Use method finetune."
        )
    blocks = min(4, student_depth) if num_blocks is None else num_blocks
    divisors = [b for b in range(1, student_depth + 1) if student_depth % b == 0]
    if blocks not in divisors:
        raise ConfigError(
            f"distillation.num_blocks: must divide student.num_layers={student_depth}, got {blocks}."
            f" Use one of {divisors}, or a depth that is a multiple of {blocks}."
        )
    computed = tuple((2 * k * teacher_depth + blocks) // (2 * blocks) for k in range(1, blocks + 1))
    chosen = computed if teacher_layers is None else tuple(teacher_layers)
    if len(chosen) != blocks or list(chosen) != sorted(set(chosen)) or not all(0 < t <= teacher_depth for t in chosen):
        raise ConfigError(
            f"distillation.teacher_layers: must be {blocks} ascending layers of 1 … {teacher_depth},"
            f" got {list(chosen)}. Leave it out to get {list(computed)}, or lower distillation.num_blocks."
        )
    per_block = student_depth // blocks
    return BlockPairing(tuple(k * per_block for k in range(1, blocks + 1)), chosen)
