"""The questions of the study, one search space each, by tier: what is asked, and in which order it is answered."""

from dataclasses import dataclass
from pathlib import Path

RECORD = Path(__file__).resolve().parents[2] / "docs" / "study"
"""Where our own rows are kept; the page lies beside it."""


@dataclass(frozen=True)
class Question:
    """One file in `search_spaces/study/`."""

    name: str
    title: str
    text: str
    """What is asked, and how the rows are to be read."""
    costs: bool = False
    """True = its table is followed by what each row costs."""
    steps: bool = False
    """True = each depth is also compared with the one before it."""


QUESTIONS = (
    Question(
        "baseline",
        "SASRec, the baseline",
        "SASRec with full cross entropy, after the published runs of MTandHJ/CE-SCE-LLMRec, with twice their learning"
        " rate and a third of their passes: the eighth recipe that was tried (EXPERIMENTS.md), chosen on valid. On"
        " Beauty they report 0.0729 on valid and 0.0597 ± 0.0007 on test. Its item table is the one that every LLM of"
        " the same seed reads.",
    ),
    Question(
        "learning_rate",
        "The learning rate of each row",
        "Three rates for each number of layers, seed 0, judged on *valid* alone; the test split stayed closed. The best"
        " of the three is bold: where it is the highest or the lowest, a better one may lie beyond. All rows of that"
        " depth below are trained with it, SASRec with the rate of its recipe.",
    ),
    Question(
        "learning_rate_whole",
        "The learning rate of the whole LLM",
        "The same three rates for all 30 layers, computed in bfloat16: in float32 one such training takes hours on a"
        " core. What that changes is measured on 4 layers, in the row *bf16* of the next section.",
    ),
    Question(
        "depth",
        "How many layers does ranking need?",
        "The first n layers of the LLM, fine-tuned. Without layers there are the two projections and the final norm"
        " alone: such a model sees the last item and nothing before it.",
        costs=True,
        steps=True,
    ),
    Question(
        "probe",
        "What does each layer add?",
        "The model of 30 layers, read after each of them with its own head: through the final norm, as the head was"
        " trained, and without it, as in the authors' code. Beside it, how far the layer turns the state of a user"
        " (1 − cosine between what enters the layer and what leaves it): the paper's theory speaks of that.",
    ),
    Question(
        "distillation",
        "Does distillation help a student of 4 layers?",
        "Teacher of 8 layers, four blocks. *another* is the control: all terms, with the teacher's states of another"
        " user. What it gains is regularisation, what the row beside it gains on top is the teacher's knowledge. The"
        " weights are not searched: cosine 1, norm and supervision 0.1 where a row has them, with the learning rate"
        " that was chosen for cross entropy alone.",
        costs=True,
    ),
    Question(
        "controls",
        "What do pretrained weights bring?",
        "Pretrained and random weights, LoRA and every weight trained, all with the rate that was chosen for pretrained"
        " weights and LoRA.",
    ),
    Question(
        "teachers",
        "Is it distillation, or a second training?",
        "Students of a teacher like themselves, of the whole LLM, and one that begins as its teacher's first layers.",
    ),
    Question(
        "paper",
        "The paper's own set-up",
        "One target a user, read at the end of the closing template, 30 items, a 128-wide table, the norm term as it is"
        " written. *sampled* ranks among the paper's 1 + 999 candidates.",
    ),
    Question(
        "retrained",
        "One target a user, a trained item table",
        "One change to the model of 4 layers in each row: the last position of each user as the only target, and item"
        " vectors that are trained on with the rest.",
    ),
    Question(
        "ranking",
        "One set of weights, ranked in three ways",
        "Each model is trained once and ranks every test user three times: among the whole catalogue without the items"
        " of the history, with them (*unmasked*), and among the paper's 1 + 999 candidates (*sampled*).",
    ),
    Question(
        "learning_rate_between",
        "The learning rate of 15 and 22 layers",
        "The same three rates for two depths between the shallow models and the whole LLM.",
    ),
    Question(
        "between",
        "Between 8 and 30 layers",
        "Two more depths of the curve, each against the next.",
    ),
    Question(
        "five_seeds",
        "The headline rows with five seeds",
        "Rows of the sections above, seeds 0 to 4.",
    ),
    Question(
        "variants",
        "Blocks, an online teacher, the literal norm term, scores",
        "One change to *all* in each row: one or two blocks for four, the teacher trained beside its student, the norm"
        " term as it is written, and the teacher's scores as one more term.",
    ),
)

TIERS = {
    1: ("baseline", "learning_rate", "depth", "distillation", "learning_rate_whole", "depth", "probe"),
    2: ("controls", "teachers", "paper", "retrained", "ranking"),
    3: ("learning_rate_between", "between", "five_seeds", "variants"),
}
"""Names of the questions, in the order in which they are run. The whole LLM takes most of the time and comes last:
until its rate is chosen, `depth` is asked without it."""
