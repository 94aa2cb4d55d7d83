"""The training engine of a Ray Train worker: DeepSpeed ZeRO 0 to 3, on CPU with gloo and on CUDA with NCCL."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from orchestrator.training.workers import WorkersConfig
from slmrec_core.distillation.objective import Objective
from slmrec_core.errors import CheckpointError
from slmrec_core.structures import SequenceBatch, TeacherSignal
from slmrec_core.training.config import TrainingConfig
from slmrec_core.training.engine import build_optimizer


def zero_settings(training: TrainingConfig, workers: WorkersConfig) -> dict[str, Any]:
    """DeepSpeed's configuration. Trained weights stay float32: the decoder's precision is the model's own autocast."""
    accumulation = workers.accumulation_steps(training.batch_size)
    # DeepSpeed only uses these three to know when to step; the loop cuts the batches itself.
    share = -(-training.batch_size // (workers.num_workers * accumulation))
    zero: dict[str, Any] = {"stage": workers.zero_stage}
    if workers.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if workers.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": share,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": training.gradient_clipping or 0.0,
        "steps_per_print": 10**9,
    }
    if training.precision == "fp16":
        # For its loss scaling; bfloat16 has float32's range and needs none.
        settings["torch_autocast"] = {"enabled": True, "dtype": "float16"}
    return settings


class DeepSpeedEngine:
    """See `slmrec_core.training.engine.TrainingEngine`.

    The process group is Ray Train's. Nothing of DeepSpeed is compiled at run time, so no C++ compiler is needed.
    """

    def __init__(
        self, objective: Objective, training: TrainingConfig, workers: WorkersConfig, device: torch.device
    ) -> None:
        if device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        # Slow to import, and it looks at DS_ACCELERATOR when it is imported.
        import deepspeed  # noqa: PLC0415
        import deepspeed.ops  # noqa: PLC0415

        # Otherwise compiled at the first init_distributed; it serves inference alone. An internal table, so guarded.
        if "deepspeed_shm_comm" in getattr(deepspeed.ops, "__compatible_ops__", {}):
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._deepspeed = deepspeed
        self.device = device
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        self.accumulation_steps = workers.accumulation_steps(training.batch_size)
        self._is_partitioned = workers.zero_stage == 3
        self._engine, *_ = deepspeed.initialize(
            model=objective,
            optimizer=build_optimizer(objective, training),
            config=zero_settings(training, workers),
            dist_init_required=False,
        )
        self.objective: Objective = self._engine.module

    def forward(self, batch: SequenceBatch, teacher: TeacherSignal | None) -> dict[str, Tensor]:
        """See `TrainingEngine`."""
        terms: dict[str, Tensor] = self._engine(batch.item_ids, batch.read_mask, batch.targets, teacher)
        return terms

    def backward(self, loss: Tensor) -> None:
        """See `TrainingEngine`; DeepSpeed averages over workers and steps, where we sum."""
        self._engine.backward(loss * (self.world_size * self.accumulation_steps))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def step(self, learning_rate: float) -> None:
        """See `TrainingEngine`."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def all_reduce(self, values: Tensor) -> Tensor:
        """See `TrainingEngine`."""
        total = values.to(self.device)
        torch.distributed.all_reduce(total)
        return total

    def trainable_state(self) -> dict[str, Tensor]:
        """See `TrainingEngine`."""
        trained = self._trained()
        with self._gathered(trained, writer=None):
            return {name: p.detach().cpu().clone() for name, p in trained.items()}

    def load_trainable(self, state: dict[str, Tensor]) -> None:
        """See `TrainingEngine`."""
        trained = self._trained()
        with self._gathered(trained, writer=0), torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state[name])

    def save(self, folder: Path) -> None:
        """See `TrainingEngine`; frozen weights come from the backbone again."""
        self._engine.save_checkpoint(str(folder), tag="engine", exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """See `TrainingEngine`.

        Raises:
            CheckpointError: Shards are missing; DeepSpeed raises a bare assertion, or gives back nothing and goes on.
        """
        try:
            found, _ = self._engine.load_checkpoint(str(folder), tag="engine", load_module_strict=False)
        except (AssertionError, OSError) as error:
            raise _no_shards(folder, repr(error)) from error
        if found is None:
            raise _no_shards(folder, "none")

    def barrier(self) -> None:
        """Waits for all workers: a process group that is torn down while another worker is in it aborts that one."""
        torch.distributed.barrier()

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.objective.named_parameters() if p.requires_grad}

    def _gathered(self, trained: dict[str, nn.Parameter], writer: int | None) -> Any:
        enabled = self._is_partitioned
        return self._deepspeed.zero.GatheredParameters(list(trained.values()), modifier_rank=writer, enabled=enabled)


def _no_shards(folder: Path, got: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {folder}: must hold the shards of the engine, got {got}."
        " Delete the trial's folder under ray/ and resume."
    )
