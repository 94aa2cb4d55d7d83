"""How a model is trained; equal settings give equal numbers wherever they run."""

from typing import Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from slmrec_core.errors import ConfigError
from slmrec_core.frozen_config import FrozenConfig

RankingProtocol = Literal["full", "sampled", "unmasked"]
OTHER_PROTOCOLS: tuple[RankingProtocol, ...] = get_args(RankingProtocol)[1:]
"""What may stand beside `full`; their metrics are named `test_sampled/…`."""


class TrainingConfig(FrozenConfig):
    """Optimisation: AdamW with linear warm-up and cosine decay."""

    epochs: PositiveInt = 2
    """How often the model is trained and then ranked; the schedule is laid out for all of them."""
    steps_per_epoch: PositiveInt | None = None
    """Optimizer steps between two rankings, which go on where the last epoch stopped; None = one pass over the
    training windows. Fewer find a better checkpoint where a model overfits within a pass."""
    patience: PositiveInt | None = None
    """Epochs without a better checkpoint metric after which training ends; None = run all epochs."""
    batch_size: PositiveInt = 32
    """Windows (users, unless `windows` is `all`) per optimizer step, over all workers and accumulation steps."""
    learning_rate: PositiveFloat = 2.0e-3
    """Peak of the schedule."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled, on matrices alone."""
    warmup_steps: NonNegativeInt = 10
    """Optimizer steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After warm-up: `cosine` decay, which would reach 0 with the step after the last (the paper), or `constant`."""
    adam_beta2: float = Field(default=0.999, gt=0.0, lt=1.0)
    """Second moment's decay."""
    gradient_clipping: PositiveFloat | None = 1.0
    """Largest global gradient norm; None = no clipping."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the decoder; trained weights, scores and softmax stay in float32. `auto` is settled when a sweep
    is read, by the machine that reads it: `bf16` where it has hardware for it, else `fp32`."""
    targets: Literal["all", "last"] = "all"
    """`all` positions of the training part, or only the `last` one per user (the authors' code)."""
    windows: Literal["last", "all"] = "last"
    """The newest `max_seq_len` events of each user, or `all`: a longer history is cut into several windows."""
    checkpoint_metric: Literal["valid/ndcg_at_10", "valid/mrr"] = "valid/ndcg_at_10"
    """The epoch with the best value is kept."""


class EvaluationConfig(FrozenConfig):
    """How items are ranked."""

    mask_seen: bool = True
    """Leave the items of the user's history out of the ranking, except the target itself."""
    protocols: tuple[RankingProtocol, ...] = ("full",)
    """`full` ranks the whole catalogue and is always among them; `sampled` adds the paper's 1 + `num_negatives`
    candidates, `unmasked` the whole catalogue with the items of the history among the candidates."""
    selection_users: PositiveInt | None = None
    """Users of `valid` that are ranked after each epoch, a fixed sample; the epoch that is kept is then ranked for
    all. None = all, after each epoch."""
    num_negatives: PositiveInt = 999
    """Unseen items beside the target in the sampled protocol, the same for every model."""
    batch_size: PositiveInt = 256
    """Users per forward pass; does not change the numbers."""

    @field_validator("protocols")
    @classmethod
    def _check_protocols(cls, protocols: tuple[RankingProtocol, ...]) -> tuple[RankingProtocol, ...]:
        if "full" not in protocols or len(set(protocols)) != len(protocols):
            raise ConfigError(
                f"evaluation.protocols: must name 'full' and none twice, got {list(protocols)}."
                " Checkpoints are chosen by full ranking; 'sampled' and 'unmasked' may stand beside it."
            )
        # In one order, which a checkpoint gives back: a resumed training then writes the same files.
        return tuple(name for name in get_args(RankingProtocol) if name in protocols)
