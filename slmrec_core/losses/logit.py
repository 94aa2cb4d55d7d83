"""Gap between the score distributions of a student and its teacher."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax

from slmrec_core.errors import ConfigError, TeacherStudentMismatchError
from slmrec_core.losses.mean import mean_or_raise


def logit_loss(
    student_scores: Float[Tensor, "target item"], teacher_scores: Float[Tensor, "_ _"], temperature: float = 2.0
) -> Float[Tensor, ""]:
    """T^2 * KL(teacher || student) between softmaxes of the scores at temperature T, in nats per target.

    Hinton et al. (arXiv:1503.02531): T^2 keeps the size of the gradient about the same at every temperature. Not a
    term of SLMRec (arXiv:2405.17890); its authors' code has one for online distillation, on every block and without
    temperature.

    Args:
        student_scores: One row per target, any float type (computed in float32); gradients flow.
        teacher_scores: Scores of the same items; gradients flow here too unless the caller detached them.
        temperature: Above 0; larger values weigh the unlikely items more.

    Returns:
        Mean over targets, at least 0. Columns at -inf in both add nothing; a column at -inf in the student alone
        gives +inf where the teacher's probability is above 0.

    Raises:
        ConfigError: `temperature` is not above 0.
        TeacherStudentMismatchError: The shapes differ.
        DivergedError: A row holds NaN or +inf, or nothing but -inf.
    """
    require_temperature(temperature, "logit_loss")
    if student_scores.shape != teacher_scores.shape:
        raise TeacherStudentMismatchError(
            "logit_loss: student and teacher scores differ in shape [target, item],"
            f" got student {list(student_scores.shape)} and teacher {list(teacher_scores.shape)}."
            " Score the same catalogue at the same positions with both."
        )
    student_log_probs = log_softmax(student_scores.float() / temperature, dim=-1)
    teacher_log_probs = log_softmax(teacher_scores.float() / temperature, dim=-1)
    teacher_probs = teacher_log_probs.exp()
    # 0 * log 0 is 0; without the mask a column at -inf in both is 0 * (inf - inf) = NaN.
    log_ratio = (teacher_log_probs - student_log_probs).masked_fill(teacher_probs == 0, 0)
    return temperature**2 * mean_or_raise((teacher_probs * log_ratio).sum(dim=-1), "logit_loss")


def require_temperature(temperature: float, where: str) -> None:
    """Check a temperature.

    Raises:
        ConfigError: It is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"{where}: temperature must be above 0, got {temperature!r}. The usual value is 2.0.")
