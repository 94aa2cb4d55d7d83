"""What the paper claims, what was measured here, and whether that bears it out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from orchestrator.report.curves import Comparison
from orchestrator.study.cost import DepthCost, DepthCosts
from slmrec_core.metrics import Verdict

HOLDS, FAILS, UNTOLD, UNMEASURED = "holds", "does not hold", "cannot be told here", "not measured yet"
_WHOLE, _STUDENT = 30, 4
"""Layers of the LLM, and of the paper's student."""
_SEEDS = 3
"""Below as many a claim about ranking counts as not measured yet."""
_SHARE = 0.14
"""Where 13 % ends."""


@dataclass(frozen=True)
class Claim:
    """One line of the table."""

    text: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """What is kept: result tables by question, paired tests by name, what the depths cost."""

    tables: Mapping[str, pd.DataFrame]
    tests: Mapping[str, Comparison]
    costs: DepthCosts | None = None

    def share(self, column: str) -> float | None:
        """Parameters of the student over those of the whole LLM; None = one of the models is not kept."""
        if "depth" not in self.tables:
            return None
        frame = self.tables["depth"]
        by_depth = frame[frame["method"] == "finetune"].groupby("num_layers")[column].mean().dropna()
        if not {_STUDENT, _WHOLE} <= set(by_depth.index):
            return None
        return float(by_depth[_STUDENT] / by_depth[_WHOLE])


def claims(evidence: Evidence) -> list[Claim]:
    """The table, claim by claim; what is not measured yet says so."""
    as_good: tuple[Verdict, ...] = ("better", "equal")
    better: tuple[Verdict, ...] = ("better",)
    return [
        _tested(
            evidence,
            "Most layers of the LLM are redundant for ranking: four rank as well as all.",
            "finetune-4 vs finetune-30",
            as_good,
        ),
        _tested(
            evidence,
            "The distilled student of 4 layers ranks as well as its teacher of 8, or better.",
            "all-4 vs teacher-8",
            as_good,
        ),
        _tested(evidence, "Distillation lifts the student over training without it.", "all-4 vs ce-4", better),
        _tested(
            evidence,
            "It is the teacher's knowledge that lifts it (the control: states of another user).",
            "all-4 vs another-4",
            better,
        ),
        _tested(evidence, "Supervision of inner blocks helps by itself.", "supervision-4 vs ce-4", better),
        _tested(evidence, "The distilled student ranks better than SASRec.", "all-4 vs sasrec-0", better),
        _tested(evidence, "… and so does one of its depth that is fine-tuned.", "finetune-4 vs sasrec-0", better),
        _share("The student has 13 % of the parameters (decoder alone).", evidence.share("params_decoder")),
        _share("… and with vocabulary and item table.", evidence.share("params_total")),
        _speed(evidence, "It trains 6.6 times faster than the whole LLM.", lambda cost: cost.training_times, 6.6),
        _speed(evidence, "It ranks 8.0 times faster than the whole LLM.", lambda cost: cost.ranking_times, 8.0),
        Claim("All of this for LLaMA-2 with 7 billion parameters.", "one LLM of 135 million parameters", UNTOLD),
    ]


def _tested(evidence: Evidence, text: str, name: str, bearing_out: Sequence[Verdict]) -> Claim:
    test = evidence.tests.get(name)
    if test is None:
        return Claim(text, "–", UNMEASURED)
    measured = f"{name}: {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}), {test.verdict}"
    if test.num_seeds < _SEEDS:
        return Claim(text, f"{measured}, with {test.num_seeds} of {_SEEDS} seeds", UNMEASURED)
    if test.verdict == "undecided":
        return Claim(text, measured, UNTOLD)
    return Claim(text, measured, HOLDS if test.verdict in bearing_out else FAILS)


def _share(text: str, share: float | None) -> Claim:
    """What the student has of the whole LLM's parameters."""
    if share is None:
        return Claim(text, "–", UNMEASURED)
    return Claim(text, f"{_STUDENT} layers over {_WHOLE}: {share:.3f}", HOLDS if share <= _SHARE else FAILS)


def _speed(evidence: Evidence, text: str, times_of: Callable[[DepthCost], float], claimed: float) -> Claim:
    """How many times as fast the student is as the whole LLM, both fine-tuned, in one run."""
    student, whole = (evidence.costs.of(depth) if evidence.costs else None for depth in (_STUDENT, _WHOLE))
    if student is None or whole is None:
        return Claim(text, "–", UNMEASURED)
    times = times_of(student) / times_of(whole)
    measured = f"{_STUDENT} layers are {times:.1f} times as fast as {_WHOLE}, fine-tuned"
    return Claim(text, measured, HOLDS if times >= claimed else FAILS)
