"""One row of a sweep as it was planned, before anything has run."""

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["sasrec", "finetune", "distill", "probe"]


@dataclass(frozen=True)
class Trial:
    """One row of the result table: which stage holds its numbers, and what it is called.

    Two rows may share a stage (the teacher *is* the model fine-tuned at its depth); the stage is trained once.
    """

    trial_id: str
    """Unique in the sweep and stable over resumes: `<row>-<layers>-seed<seed>-<start of the stage's hash>`."""
    row: str
    """First word of the curve that the trial belongs to; by default its method."""
    method: Method
    stage_id: str
    """`<kind>-<hash>`: the folder under `stages/`."""
    num_layers: int
    """Decoder layers; 0 for SASRec, which has none of the LLM's. A probe reads 0 … num_layers."""
    teacher_layers: int | None
    """None = no teacher."""
    num_blocks: int | None
    """None = nothing is aligned."""
    seed: int
    settings: dict[str, object] = field(default_factory=dict)
    """Resolved settings that its numbers depend on, under dotted names."""
    shared_teacher: bool = False
    """True = the teacher comes from another seed, so the seeds are not end to end."""
