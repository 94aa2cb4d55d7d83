"""Where a run happens: how many workers, which ZeRO stage. None of it changes the numbers, so none of it is hashed."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from slmrec_core.errors import ConfigError
from slmrec_core.experiment import dotted
from slmrec_core.frozen_config import FrozenConfig

WORKERS_PREFIX = "workers."


class WorkersConfig(FrozenConfig):
    """One Ray Train group of DeepSpeed workers."""

    num_workers: PositiveInt = 1
    """Workers of one trial; they share each global batch."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs that a worker takes; None = the cluster's, divided among the trials that run at a time."""
    use_gpu: bool | None = None
    """One GPU for each worker; None = if the cluster has any."""
    max_concurrent_trials: PositiveInt | None = None
    """Trials at a time; None = as many as fit, and two for each machine where neither CPUs nor GPUs say how many."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed ZeRO shards: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What lives in host memory: `optimizer` state (ZeRO 1 to 3), or `all` with the parameters (ZeRO 3)."""
    micro_batch_size: PositiveInt | None = None
    """Users per forward pass of a worker; a smaller one accumulates gradients. None = the worker's whole share."""
    max_failures: NonNegativeInt = 3
    """Times that a trial goes on from its last checkpoint after a worker was lost."""

    @model_validator(mode="after")
    def _check(self) -> "WorkersConfig":
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ConfigError(
                f"offload: {self.offload!r} needs zero_stage {needed} or more, got {self.zero_stage}."
                f" Set workers.zero_stage={needed}, or workers.offload=none."
            )
        return self

    def accumulation_steps(self, global_batch_size: int) -> int:
        """Backward passes of a worker per optimizer step."""
        share = -(-global_batch_size // self.num_workers)
        return 1 if self.micro_batch_size is None else -(-share // self.micro_batch_size)


def worker_defaults() -> dict[str, object]:
    """Every setting of the workers under its dotted name."""
    return {f"{WORKERS_PREFIX}{name}": value for name, value in dotted(WorkersConfig()).items()}
