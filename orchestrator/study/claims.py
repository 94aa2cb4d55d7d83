"""What the paper claims, what was measured here, and whether that bears it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from orchestrator.report.curves import Comparison
from slmrec_core.metrics import Verdict

HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told here"
_WHOLE, _STUDENT = 30, 4
"""Layers of the LLM, and of the paper's student."""


@dataclass(frozen=True)
class Claim:
    """One line of the table."""

    text: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """What is kept: result tables by question, paired tests by name."""

    tables: Mapping[str, pd.DataFrame]
    tests: Mapping[str, Comparison]

    def ratio(self, name: str) -> float | None:
        """A column of the fine-tuned student over that of the whole LLM, the mean of seeds that ran on equal hardware;
        None = there are none."""
        if "depth" not in self.tables:
            return None
        frame = self.tables["depth"]
        frame = frame[(frame["method"] == "finetune") & frame["num_layers"].isin([_STUDENT, _WHOLE])].dropna(
            subset=[name, "hardware"]
        )
        by_depth = frame.pivot_table(index=["hardware", "seed"], columns="num_layers", values=name)
        if not {_STUDENT, _WHOLE} <= set(by_depth.columns):
            return None
        ratios = (by_depth[_STUDENT] / by_depth[_WHOLE]).dropna()
        return None if ratios.empty else float(ratios.mean())


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
        _tested(evidence, "The shallow LLM ranks better than SASRec.", "finetune-4 vs sasrec-0", better),
        _ratio(evidence, "The student has 13 % of the parameters (decoder alone).", "params_decoder", at_most=0.14),
        _ratio(evidence, "… and with vocabulary and item table.", "params_total", at_most=0.14),
        _ratio(evidence, "It trains 6.6 times faster than the whole LLM.", "seconds_per_pass", at_most=1 / 6.6),
        _ratio(evidence, "It ranks 8.0 times faster than the whole LLM.", "users_per_second", at_least=8.0),
        Claim("All of this for LLaMA-2 with 7 billion parameters.", "one LLM of 135 million parameters", UNTOLD),
    ]


def _tested(evidence: Evidence, text: str, name: str, bearing_out: Sequence[Verdict]) -> Claim:
    test = evidence.tests.get(name)
    if test is None:
        return Claim(text, "not measured yet", UNTOLD)
    measured = f"{name}: {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}), {test.verdict}"
    if test.verdict == "undecided":
        return Claim(text, measured, UNTOLD)
    return Claim(text, measured, HOLDS if test.verdict in bearing_out else FAILS)


def _ratio(
    evidence: Evidence, text: str, name: str, at_least: float | None = None, at_most: float | None = None
) -> Claim:
    """The student's cost over that of the whole LLM, both fine-tuned."""
    ratio = evidence.ratio(name)
    if ratio is None:
        return Claim(text, "not measured yet on one kind of hardware", UNTOLD)
    holds = ratio >= at_least if at_least is not None else ratio <= (at_most or 0.0)
    shown = f"{_STUDENT} layers over {_WHOLE}: {ratio:.2f}" + (f" (1 to {1 / ratio:.1f})" if ratio < 1 else "")
    return Claim(text, shown, HOLDS if holds else FAILS)
