"""The mean that every loss ends with."""

from jaxtyping import Float
from torch import Tensor

from slmrec_core.errors import DivergedError


def mean_or_raise(values: Float[Tensor, "*targets"], where: str) -> Float[Tensor, ""]:
    """Mean of the loss of each target; 0 without targets, so that a worker that has none adds nothing.

    Args:
        values: Loss of each target (for hidden states: of each target in each block); +inf is legal.
        where: Name of the loss, for the message.

    Raises:
        DivergedError: A value is NaN.
    """
    # Testing the reduced values sees every NaN of the inputs and costs no mask as large as the score matrix.
    if num_bad := int(values.isnan().sum()):
        raise DivergedError(
            f"{where}: the loss is not a number, got NaN for {num_bad} of {values.numel()} values."
            " Lower the learning rate, or look for NaN or +inf in the inputs."
        )
    return values.sum() / max(values.numel(), 1)
