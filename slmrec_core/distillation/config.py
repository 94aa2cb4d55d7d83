"""The settings of distillation: which terms there are, with which weight, and how states are aligned."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from slmrec_core.frozen_config import FrozenConfig


class DistillationConfig(FrozenConfig):
    """The terms of the objective beside the next-item loss, and how states are aligned."""

    mode: Literal["offline", "online"] = "offline"
    """`offline`: a trained, frozen teacher. `online`: both train together; only the student is evaluated as such."""
    num_blocks: PositiveInt | None = None
    """B, which divides the student's depth; None = min(4, depth). B = 1 has no supervision heads."""
    teacher_layers: tuple[PositiveInt, ...] | None = None
    """Aligned teacher layers, one per block; None = floor(k·M/B + ½)."""
    next_item_weight: NonNegativeFloat = 1.0
    """Weight of the student's own cross entropy; 0 leaves the task to the teacher alone."""
    cosine_weight: NonNegativeFloat = 1.0
    """λ1 of the paper: weight of the direction gap, dimensionless; 0 leaves the term out."""
    norm_weight: NonNegativeFloat = 0.1
    """λ2 of the paper: weight of the squared length gap; 0 leaves the term out."""
    supervision_weight: NonNegativeFloat = 0.1
    """λ3 of the paper: weight of the cross entropy of inner blocks, nats; 0 leaves the term out."""
    logit_weight: NonNegativeFloat = 0.0
    """Weight of T²·KL(teacher ‖ student) of the final scores, nats; 0 leaves the term out. Not in the paper."""
    temperature: PositiveFloat = 2.0
    """T of the logit term."""
    align_at: Literal["hidden_states", "normed"] = "hidden_states"
    """`hidden_states`: the residual stream inside and the normed state at the end (the paper). `normed`: all states
    read through the final norm."""
    norm_scale: Literal["teacher", "none"] = "teacher"
    """`teacher`: each block's norm term is divided by its mean squared teacher norm. `none`: the paper's literal
    form, which starts a hundred times above the cross entropy."""
    norm_squared: bool = True
    """Squared distance (the paper) or the distance itself (the authors' code)."""
    block_reduction: Literal["mean", "sum"] = "mean"
    """Mean over blocks (the paper) or their sum (the authors' code); for supervision heads too."""
    supervision_read: Literal["normed", "raw"] = "normed"
    """Supervision heads read inner states through the final norm, or `raw` (the authors' code)."""
    detach_teacher: bool = True
    """Online: alignment moves the student alone. False = the authors' code, where the teacher is pulled along."""
    teacher_states: Literal["stored", "recompute"] = "stored"
    """Offline: read the teacher's states from disk, or run the teacher at every step when disk is the limit."""
    teacher_users: Literal["own", "another"] = "own"
    """`another`: each target is taught what the teacher says of another user's, always the same one: a control that
    tells what alignment teaches from mere regularisation. With stored states."""

    @property
    def aligns(self) -> bool:
        """True = a term compares hidden states."""
        return self.cosine_weight > 0 or self.norm_weight > 0

    @property
    def needs_teacher(self) -> bool:
        """True = a term asks for the teacher."""
        return self.aligns or self.logit_weight > 0

    @property
    def runs_teacher(self) -> bool:
        """True = a frozen teacher runs at every step: offline, with a term that asks for it, and nothing stored."""
        return self.mode == "offline" and self.needs_teacher and self.teacher_states == "recompute"

    def weights(self) -> dict[str, float]:
        """Weight by term name, as in `DistillationLosses`."""
        return {
            "next_item": self.next_item_weight,
            "cosine": self.cosine_weight,
            "norm": self.norm_weight,
            "supervision": self.supervision_weight,
            "logit": self.logit_weight,
            "teacher_next_item": 1.0 if self.mode == "online" else 0.0,
        }

    def absent_terms(self, num_blocks: int) -> dict[str, str]:
        """Why each term of the objective that is left out is 0, for the log: nothing is off in silence."""
        own = ("next_item", "cosine", "norm", "supervision", "logit")
        reasons = {name: f"distillation.{name}_weight is 0" for name in own if self.weights()[name] == 0}
        if num_blocks == 1 and self.supervision_weight > 0:
            reasons["supervision"] = "one block has no inner block to supervise"
        return reasons


CROSS_ENTROPY_ALONE = DistillationConfig(cosine_weight=0.0, norm_weight=0.0, supervision_weight=0.0)
"""The objective of fine-tuning, and of SASRec."""
