"""What the training loop asks of whoever holds the weights: one protocol, and the engine for a single process."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from slmrec_core.distillation.objective import Objective
from slmrec_core.structures import SequenceBatch, TeacherSignal
from slmrec_core.training.config import TrainingConfig


@runtime_checkable
class TrainingEngine(Protocol):
    """Forward, backward, step and exchange; the loop above it is the same for one process and for ZeRO workers."""

    objective: Objective
    device: torch.device
    rank: int
    world_size: int
    accumulation_steps: int
    """Backward passes of this worker per optimizer step."""

    def forward(self, batch: SequenceBatch, teacher: TeacherSignal | None) -> dict[str, Tensor]:
        """The objective's terms, means over the batch's targets."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Adds this worker's gradients. The sum over workers and accumulation steps of the losses is minimised."""
        ...

    def step(self, learning_rate: float) -> None:
        """One optimizer step, after `accumulation_steps` backward passes."""
        ...

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum over workers."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Whole trained tensors on the CPU; every worker calls it."""
        ...

    def load_trainable(self, state: dict[str, Tensor]) -> None:
        """Puts such a state back; every worker calls it."""
        ...

    def save(self, folder: Path) -> None:
        """Weights and optimizer, for resuming; every worker calls it with a folder of its own."""
        ...

    def load(self, folder: Path) -> None:
        """Takes up what `save` wrote, for the same number of workers."""
        ...


def build_optimizer(objective: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trained weights; vectors (biases, norms) are not decayed."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    # A group without parameters breaks ZeRO's flat buffers.
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.learning_rate, betas=(0.9, config.adam_beta2)
    )


class SingleProcessEngine:
    """Plain torch, one process: SASRec, library use, and the reference for every other engine."""

    rank = 0
    world_size = 1

    def __init__(
        self,
        objective: Objective,
        config: TrainingConfig,
        device: torch.device | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.objective = objective.to(self.device)
        self.accumulation_steps = accumulation_steps
        self._clip = config.gradient_clipping
        self._optimizer = build_optimizer(objective, config)

    def forward(self, batch: SequenceBatch, teacher: TeacherSignal | None) -> dict[str, Tensor]:
        """See `TrainingEngine`."""
        terms: dict[str, Tensor] = self.objective(batch.item_ids, batch.read_mask, batch.targets, teacher)
        return terms

    def backward(self, loss: Tensor) -> None:
        """See `TrainingEngine`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> None:
        """See `TrainingEngine`."""
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._trained().values(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def all_reduce(self, values: Tensor) -> Tensor:
        """See `TrainingEngine`."""
        return values

    def trainable_state(self) -> dict[str, Tensor]:
        """See `TrainingEngine`."""
        return {name: p.detach().cpu().clone() for name, p in self._trained().items()}

    def load_trainable(self, state: dict[str, Tensor]) -> None:
        """See `TrainingEngine`."""
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(state[name])

    def save(self, folder: Path) -> None:
        """See `TrainingEngine`."""
        torch.save({"weights": self.trainable_state(), "optimizer": self._optimizer.state_dict()}, folder / "engine.pt")

    def load(self, folder: Path) -> None:
        """See `TrainingEngine`; only tensors are read, no code."""
        saved = torch.load(folder / "engine.pt", weights_only=True)
        self.load_trainable(saved["weights"])
        self._optimizer.load_state_dict(saved["optimizer"])

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.objective.named_parameters() if p.requires_grad}


def share_of_batch(
    windows: Int[np.ndarray, " windows"], rank: int, world_size: int, accumulation_steps: int
) -> list[Int[np.ndarray, " share"]]:
    """This worker's micro-batches of one global batch: windows dealt round, so that shares differ by one at most."""
    shares = world_size * accumulation_steps
    return [windows[rank * accumulation_steps + step :: shares] for step in range(accumulation_steps)]
