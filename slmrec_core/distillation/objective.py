"""Every loss term by name, and their weighted sum."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from slmrec_core.distillation.blocks import BlockPairing
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE, DistillationConfig
from slmrec_core.errors import ConfigError, TeacherStudentMismatchError
from slmrec_core.losses import (
    catalogue_logit_loss,
    catalogue_next_item_loss,
    feature_cosine_loss,
    feature_norm_loss,
    logit_loss,
    supervision_loss,
    user_cosine,
)
from slmrec_core.models.recommender import RecommenderModel, table_scores
from slmrec_core.models.sasrec import SASRec
from slmrec_core.structures import DistillationLosses, HiddenStates, TeacherSignal

_Pair = tuple[Float[Tensor, "1 target hidden"], Float[Tensor, "1 target hidden"]]
"""A block's states, the student's and the teacher's."""


class Objective(nn.Module):
    """A student and what it is trained for; its forward pass gives each present term as a mean over the targets.

    SLMRec (arXiv:2405.17890), total loss: L_ce + λ1·(1 − D_cos) + λ2·D_norm + λ3·L_ms. Departs from the paper: the
    norm term is scaled by the teacher's norms unless `norm_scale` says otherwise; a logit term exists.

    Args:
        student: What is trained.
        config: The terms.
        pairing: Blocks; None = nothing is aligned and there are no heads.
        teacher_norms: Mean squared norm of the teacher's states, one per block, for `norm_scale: teacher`;
            empty = those of each batch, and the loss then depends on how batches are cut.
        teacher_width: The teacher's hidden size, when a term aligns states.
        online_teacher: Trained together with the student; None = offline.
    """

    def __init__(
        self,
        student: RecommenderModel | SASRec,
        config: DistillationConfig = CROSS_ENTROPY_ALONE,
        pairing: BlockPairing | None = None,
        teacher_norms: Sequence[float] = (),
        teacher_width: int | None = None,
        online_teacher: RecommenderModel | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.pairing = pairing
        self.teacher_norms = tuple(teacher_norms)
        self.online_teacher = online_teacher
        self.heads = nn.ModuleList()
        self.teacher_projection: nn.Module = nn.Identity()
        if pairing is not None and isinstance(student, RecommenderModel):
            if config.supervision_weight > 0:
                item_dim = student.item_table.shape[1]
                self.heads.extend(
                    nn.Linear(student.hidden_size, item_dim, bias=False) for _ in pairing.supervised_layers
                )
            if config.aligns and teacher_width is not None and teacher_width != student.hidden_size:
                # Trained with the student and dropped after training: it lets widths differ.
                self.teacher_projection = nn.Linear(student.hidden_size, teacher_width, bias=False)

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Student layers whose states some term reads."""
        if self.pairing is None:
            return ()
        aligned = self.pairing.student_layers if self.config.aligns else ()
        supervised = self.pairing.supervised_layers if len(self.heads) else ()
        return tuple(sorted({*aligned, *supervised}))

    def forward(
        self,
        item_ids: Int[Tensor, "batch seq"],
        read_mask: Bool[Tensor, "batch seq"],
        targets: Int[Tensor, "target"],
        teacher: TeacherSignal | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms by name, each the unweighted mean over `targets`, and diagnostics under names with a slash.

        Args:
            item_ids: Histories, right-padded.
            read_mask: True = a position with a target.
            targets: The items to predict, row by row.
            teacher: The teacher at the same positions; None offline when no term asks for it.

        Raises:
            TeacherStudentMismatchError: A term asks for a teacher, or for blocks, that are not there.
            DivergedError: A term is not a number.
        """
        student = self.student(item_ids, read_mask, self.student_layers)
        teacher_next_item = None
        if self.online_teacher is not None:
            teacher, teacher_next_item = self._run_online_teacher(item_ids, read_mask, targets)
        losses = self._terms(student, targets, teacher)
        diagnostics = self._user_cosines(student, read_mask) if self.config.aligns else {}
        terms = losses.present()
        if teacher_next_item is not None:
            terms["teacher_next_item"] = teacher_next_item
        return terms | diagnostics

    def total(self, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum that is minimised.

        Raises:
            ConfigError: There is no term.
        """
        if all("/" in name for name in terms):
            raise ConfigError("objective: at least one term must be there, got none. Set a weight above 0.")
        weights = self.config.weights()
        return torch.stack([weights[name] * value for name, value in terms.items() if "/" not in name]).sum()

    def _terms(
        self, student: HiddenStates, targets: Int[Tensor, "target"], teacher: TeacherSignal | None
    ) -> DistillationLosses:
        config, cosine, norm = self.config, None, None
        if config.aligns:
            blocks = self._aligned_blocks(student, teacher)
            if config.cosine_weight > 0:
                cosine = self._over_blocks([feature_cosine_loss(ours, theirs) for ours, theirs in blocks])
            if config.norm_weight > 0:
                norm = self._over_blocks(self._norm_terms(blocks))
        return DistillationLosses(
            next_item=self._next_item(student.user_vectors, targets) if config.next_item_weight > 0 else None,
            cosine=cosine,
            norm=norm,
            supervision=self._supervision(student, targets) if len(self.heads) else None,
            logit=self._logit(student.user_vectors, teacher) if config.logit_weight > 0 else None,
        )

    @torch.no_grad()
    def _user_cosines(
        self, student: HiddenStates, read_mask: Bool[Tensor, "batch seq"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Mean cosine between different users' own states, by block: each history's last target alone stands for it.

        Targets of one history are alike whatever the model knows of users, and a projection may undo what it knows.
        """
        counts = read_mask.sum(dim=1)
        ends = counts[counts > 0].cumsum(dim=0) - 1
        states = self._states({layer: state[ends] for layer, state in student.layers.items()})
        return {f"block_{k}/user_cosine": user_cosine(state) for k, state in enumerate(states, start=1)}

    def _states(self, layers: dict[int, Float[Tensor, "target hidden"]]) -> list[Float[Tensor, "target hidden"]]:
        """The student's state at the end of each block, in the form in which it is aligned."""
        pairing = self.pairing
        assert pairing is not None
        assert isinstance(self.student, RecommenderModel)
        return [
            aligned_state(self.student, layer, layers[layer], self.config.align_at) for layer in pairing.student_layers
        ]

    def _aligned_blocks(self, student: HiddenStates, teacher: TeacherSignal | None) -> list[_Pair]:
        """Student's and teacher's states at the end of each block: apart, because one block fits the caches."""
        pairing = self.pairing
        if pairing is None or teacher is None or not isinstance(self.student, RecommenderModel):
            raise TeacherStudentMismatchError(
                f"objective: alignment needs a teacher and blocks, got teacher={teacher!r}, blocks={pairing!r}."
                " Pass a TeacherSignal, or set the cosine and norm weights to 0."
            )
        blocks = []
        for state, layer in zip(self._states(student.layers), pairing.teacher_layers, strict=True):
            with torch.autocast(state.device.type, enabled=False):
                projected = self.teacher_projection(state.to(torch.float32))
            blocks.append((projected[None], teacher.layers[layer].to(torch.float32)[None]))
        return blocks

    def _norm_terms(self, blocks: list[_Pair]) -> list[Float[Tensor, ""]]:
        """The norm term of each block, scaled by its teacher's unless told otherwise."""
        squared = self.config.norm_squared
        gaps = [feature_norm_loss(ours, theirs, squared=squared) for ours, theirs in blocks]
        if self.config.norm_scale == "none":
            return gaps
        norms = self.teacher_norms or [float(t.detach().square().sum(dim=-1).mean()) for _, t in blocks]
        return [gap / (norm if squared else norm**0.5) for gap, norm in zip(gaps, norms, strict=True)]

    def _over_blocks(self, terms: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        total = torch.stack(terms)
        return total.sum() if self.config.block_reduction == "sum" else total.mean()

    def _supervision(self, student: HiddenStates, targets: Int[Tensor, "target"]) -> Float[Tensor, ""]:
        assert self.pairing is not None
        assert isinstance(self.student, RecommenderModel)
        losses = []
        for head, layer in zip(self.heads, self.pairing.supervised_layers, strict=True):
            state = student.layers[layer]
            read = self.student.normed(state) if self.config.supervision_read == "normed" else state
            with torch.autocast(read.device.type, enabled=False):
                losses.append(self._next_item(head(read.to(torch.float32)), targets))
        blocks = len(losses) if self.config.block_reduction == "sum" else 1
        return blocks * supervision_loss(losses)

    def _next_item(
        self, user_vectors: Float[Tensor, "target item_dim"], targets: Int[Tensor, "target"]
    ) -> Float[Tensor, ""]:
        return catalogue_next_item_loss(user_vectors, self.student.item_table, targets)

    def _logit(
        self, user_vectors: Float[Tensor, "target item_dim"], teacher: TeacherSignal | None
    ) -> Float[Tensor, ""]:
        if teacher is None or teacher.user_vectors is None:
            raise TeacherStudentMismatchError(
                f"objective: the logit term needs the teacher's user vectors, got {teacher!r}."
                " Pass them, or set distillation.logit_weight to 0."
            )
        theirs, table = teacher.user_vectors, self.student.item_table
        if theirs.requires_grad or table.requires_grad:
            # The chunked loss has a gradient for the student's vectors alone.
            return logit_loss(self.student.score(user_vectors), table_scores(theirs, table), self.config.temperature)
        return catalogue_logit_loss(user_vectors, theirs, table, self.config.temperature)

    def _run_online_teacher(
        self, item_ids: Int[Tensor, "batch seq"], read_mask: Bool[Tensor, "batch seq"], targets: Int[Tensor, "target"]
    ) -> tuple[TeacherSignal, Float[Tensor, ""]]:
        assert self.online_teacher is not None
        layers = self.pairing.teacher_layers if self.pairing is not None and self.config.aligns else ()
        states = self.online_teacher(item_ids, read_mask, layers)
        loss = catalogue_next_item_loss(states.user_vectors, self.online_teacher.item_table, targets)
        inner = {n: self._as_aligned(n, state) for n, state in states.layers.items()}
        if self.config.detach_teacher:
            return TeacherSignal({n: s.detach() for n, s in inner.items()}, states.user_vectors.detach()), loss
        return TeacherSignal(inner, states.user_vectors), loss

    def _as_aligned(self, layer: int, state: Float[Tensor, "target hidden"]) -> Float[Tensor, "target hidden"]:
        teacher = self.online_teacher
        assert teacher is not None
        return aligned_state(teacher, layer, state, self.config.align_at)


def aligned_state(
    model: RecommenderModel,
    layer: int,
    state: Float[Tensor, "target hidden"],
    align_at: Literal["hidden_states", "normed"],
) -> Float[Tensor, "target hidden"]:
    """A state in the form in which student and teacher are aligned; the deepest one is normed already."""
    return model.normed(state) if align_at == "normed" and layer < model.num_layers else state
