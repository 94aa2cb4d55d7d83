"""`docs/study.md`: every number that we measured is computed from the kept rows, none is typed."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.report.curves import Comparison, best_settings, curves, paired_comparisons, row_groups
from orchestrator.report.difference_figure import DIFFERENCES, draw_differences
from orchestrator.report.figures import CURVE, draw
from orchestrator.report.rank_reader import RankReader
from orchestrator.report.results import replace_file
from orchestrator.space.search_space import load_search_space
from orchestrator.study.claims import Evidence, claims
from orchestrator.study.cost import DepthCosts, read_costs
from orchestrator.study.protocol import protocol
from orchestrator.study.questions import QUESTIONS, Question
from slmrec_core.training.config import OTHER_PROTOCOLS

_METRIC = "ndcg_at_10"
_DIFFERENCES = ("test NDCG@10", "seeds", "difference", "by seed", "95 %")


@dataclass(frozen=True)
class _Answer:
    """What is known of one question."""

    question: Question
    frame: pd.DataFrame
    """Its rows, at least one of them finished."""
    tests: Sequence[Comparison]
    """Those of its list that both sides are measured for."""
    open_tests: Sequence[str]
    """Names of the others."""

    @property
    def picture(self) -> str | None:
        """A curve over at least three depths, else the paired differences.

        None = there are none, or the rows are there to choose a setting from.
        """
        if f"test/{_METRIC}" not in self.frame:
            return None
        measured = self.frame[(self.frame["status"] == "finished") & (self.frame["method"] != "sasrec")]
        if measured["num_layers"].nunique() > 2:
            return CURVE
        return DIFFERENCES if self.tests else None


def write_page(record: Path) -> Path:
    """Writes the page beside the record's folder, and the figures into it; gives the page's path."""
    answers = _answers(record)
    for answer in answers:
        folder, title = record / "figures" / answer.question.name, answer.question.title
        if answer.picture == CURVE:
            points = curves(answer.frame, record / "rows")
            draw(points, answer.frame, folder, title, _seeds(answer.frame), interactive=False)
        elif answer.picture == DIFFERENCES:
            draw_differences(answer.tests, folder, title)
    return replace_file(record.with_suffix(".md"), _text(record, answers))


def page_text(record: Path) -> str:
    """The page, from the tables and rows of a record."""
    return _text(record, _answers(record))


def _answers(record: Path) -> list[_Answer]:
    """Of the questions with a table in which at least one row is finished."""
    answers = []
    for question in QUESTIONS:
        file = record / f"{question.name}.csv"
        frame = pd.read_csv(file) if file.is_file() else None
        if frame is not None and (frame["status"] == "finished").any():
            listed = load_search_space(f"study/{question.name}", []).compare
            tests = paired_comparisons(frame, record / "rows", listed=listed) if listed else []
            measured = {test.name for test in tests}
            answers.append(_Answer(question, frame, tests, [name for name in listed if name not in measured]))
    return answers


def _text(record: Path, answers: Sequence[_Answer]) -> str:
    parts = [_head(record, answers), *(_section(answer, record) for answer in answers)]
    answered = {answer.question.name for answer in answers}
    open_questions = [question for question in QUESTIONS if question.name not in answered]
    if open_questions:
        parts.append("## Not answered yet\n\n" + "\n".join(f"- {question.title}" for question in open_questions))
    costs = read_costs(record)
    if costs:
        parts.append(_depth_costs(costs))
    frames = {answer.question.name: answer.frame for answer in answers}
    tests = {test.name: test for answer in answers for test in answer.tests}
    parts.append(_claims(Evidence(frames, tests, costs)))
    return "\n\n".join(parts) + "\n"


def _head(record: Path, answers: Sequence[_Answer]) -> str:
    frames = [answer.frame[answer.frame["status"] == "finished"] for answer in answers]
    text = ["# The redundancy study", "Written by `make study`; no number that we measured is typed by hand."]
    if not frames:
        return "\n\n".join([*text, "No row is kept yet."])
    return "\n\n".join([*text, _table(["", ""], [[name, told] for name, told in protocol(record, frames).items()])])


def _section(answer: _Answer, record: Path) -> str:
    question, frame = answer.question, answer.frame
    chosen = best_settings(frame)
    reader = RankReader(record / "rows")
    # Settings to choose from are all shown, where they are what the question is about.
    shown = chosen.frame if f"test/{_METRIC}" in frame else frame[frame["status"] == "finished"]
    parts = [f"## {question.title}", question.text, _rows_table(shown, set(chosen.frame["stage_id"]), reader)]
    if answer.picture:
        parts.insert(2, f"![{question.title}]({record.name}/figures/{question.name}/{answer.picture})")
    if answer.tests:
        parts.append(_tests_table(answer.tests))
    if question.steps and (steps := _steps(frame, record / "rows")):
        parts.append(steps)
    if question.costs:
        parts.append(_costs_table(chosen.frame))
    missing = [
        f"{row['row']} of {row['num_layers']} layers, seed {row['seed']}, rate {_rate(row)}"
        for _, row in frame[frame["status"] != "finished"].iterrows()
    ]
    if missing:
        parts.append(f"Not trained yet: {'; '.join(missing)}.")
    if answer.open_tests:
        parts.append(f"Not compared yet: {', '.join(answer.open_tests)}.")
    return "\n\n".join(parts)


def _rows_table(frame: pd.DataFrame, chosen: Set[object], reader: RankReader) -> str:
    """One line for each row, depth and learning rate; of several rates the chosen one's value is bold."""
    read_test = f"test/{_METRIC}" in frame
    others = [other for other in OTHER_PROTOCOLS if read_test and f"test_{other}/{_METRIC}" in frame]
    has_change = "test/state_change" in frame
    precisions = frame["training.precision"].nunique() if "training.precision" in frame else 0
    header = ["row", "layers", "learning rate", *(["precision"] if precisions > 1 else []), "seeds", "best epoch"]
    header += ["valid NDCG@10"]
    header += ["test NDCG@10", "95 %", "test HR@10", "test MRR"] if read_test else []
    header += [f"{other} {name}" for other in others for name in ("NDCG@10", "MRR")]
    header += ["turns the state by"] if has_change else []
    lines = []
    frame = frame.assign(rate=[_rate(row) for _, row in frame.iterrows()])
    several = frame.groupby(["row", "num_layers"])["rate"].nunique().max() > 1
    for _, group in frame.groupby(["row", "num_layers", "rate"]):
        row, layers, rate = str(group["row"].iloc[0]), int(group["num_layers"].iloc[0]), str(group["rate"].iloc[0])
        cells = [row, _layers(group), rate]
        cells += [str(group["training.precision"].fillna("–").iloc[0])] if precisions > 1 else []
        cells += [str(group["seed"].nunique())]
        cells += [", ".join(f"{epoch:.0f}" for epoch in group["best_epoch"].dropna()) or "–"]
        valid = _mean_sd(group, f"valid/{_METRIC}")
        cells.append(f"**{valid}**" if several and set(group["stage_id"]) <= chosen else valid)
        if read_test:
            is_probe = (group["method"] == "probe").all()
            places = [(str(stage), layers if is_probe else None) for stage in group.sort_values("seed")["stage_id"]]
            interval = reader.interval(places, f"test/{_METRIC}")
            cells += [_mean_sd(group, f"test/{_METRIC}"), f"{interval.low:.4f} to {interval.high:.4f}"]
            cells += [_mean_sd(group, "test/hit_rate_at_10"), _mean_sd(group, "test/mrr")]
        for other in others:
            cells += [_mean_sd(group, f"test_{other}/{name}") for name in (_METRIC, "mrr")]
        if has_change:
            cells.append(_mean_sd(group, "test/state_change"))
        lines.append(cells)
    return _table(header, lines)


def _tests_table(tests: Sequence[Comparison]) -> str:
    lines = [[*_differences(test), f"{test.p_value_holm:.4f}", test.verdict] for test in tests]
    return _table([*_DIFFERENCES, "p (Holm)", "verdict"], lines)


def _steps(frame: pd.DataFrame, rows: Path) -> str | None:
    """Each depth of the fine-tuned models against the one before it; None = there is but one."""
    depths = sorted(frame.loc[(frame["method"] == "finetune") & (frame["status"] == "finished"), "num_layers"].unique())
    names = [f"finetune-{deeper} vs finetune-{shallower}" for shallower, deeper in pairwise(depths)]
    if not names:
        return None
    lines = [_differences(step) for step in paired_comparisons(frame, rows, listed=names)]
    note = "Step by step, beside the list of tests, and so without p and verdict:"
    return f"{note}\n\n{_table(_DIFFERENCES, lines)}"


def _differences(test: Comparison) -> list[str]:
    return [
        test.name,
        str(test.num_seeds),
        f"{test.difference:+.4f}",
        ", ".join(f"{difference:+.4f}" for difference in test.by_seed),
        f"{test.low:+.4f} to {test.high:+.4f}",
    ]


def _costs_table(frame: pd.DataFrame) -> str:
    header = [
        "row",
        "layers",
        "trained, M",
        "decoder, M",
        "all, M",
        "s per pass",
        "teacher, s",
        "users/s",
        "peak, GiB",
    ]
    lines = []
    by_hardware = [
        (row, str(name), same)
        for row, _, group in row_groups(frame)
        for name, same in group.groupby("hardware", dropna=False)
    ]
    several = len({name for _, name, _ in by_hardware}) > 1
    header += ["hardware"] if several else []
    for row, hardware, group in by_hardware:
        millions = [
            f"{group[name].mean() / 1e6:.2f}" for name in ("params_trainable", "params_decoder", "params_total")
        ]
        lines.append(
            [
                row,
                _layers(group),
                *millions,
                _mean(group["seconds_per_pass"], ".0f"),
                _mean(group["teacher_seconds"], ".0f"),
                _mean(group["users_per_second"], ",.0f"),
                _mean(group["peak_memory_bytes"] / 2**30, ".1f"),
                *([hardware] if several else []),
            ]
        )
    note = (
        "Means over seeds, beside other trainings on a machine whose speed swings: ratios are under *What the layers"
        " cost*. *s per pass* is one pass over the training users, without ranking; *teacher* is what its training and"
        " the pass that stores its states took. SASRec, whose item table every LLM reads, comes on top."
    )
    return f"{_table(header, lines)}\n\n{note}"


def _depth_costs(costs: DepthCosts) -> str:
    whole = f"against {costs.depths[-1].num_layers} layers"
    header = ["layers", "decoder, M", "targets/s", whole, "users/s", whole]
    lines = [
        [
            str(one.num_layers),
            f"{one.decoder_millions:.2f}",
            f"{one.targets_per_second:,.0f}",
            f"{one.training_times:.1f}",
            f"{one.users_per_second:,.0f}",
            f"{one.ranking_times:.1f}",
        ]
        for one in costs.depths
    ]
    note = (
        "Steps of 256 windows, and the ten best items for test histories, of Beauty's lengths and SmolLM2-135M's shape;"
        f" all depths took turns in one run of `benchmarks.bench_depth` ({costs.machine}). The paper: 6.6 times in"
        " training, 8.0 in inference, for 4 of the 32 layers of an LLM of 7 billion parameters."
    )
    return f"## What the layers cost\n\n{note}\n\n{_table(header, lines)}"


def _claims(evidence: Evidence) -> str:
    lines = [[claim.text, claim.measured, claim.verdict] for claim in claims(evidence)]
    return "## The paper's claims\n\n" + _table(["claim", "measured here", "verdict"], lines)


def _seeds(frame: pd.DataFrame) -> str:
    finished = frame[frame["status"] == "finished"]
    counts = finished.groupby(["row", "num_layers"])["seed"].nunique()
    fewest, most = counts.min(), counts.max()
    if most == 1:
        return f"Seed {finished['seed'].iloc[0]} alone."
    means = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds, where there is no band one"
    return f"Means over {means}; bands are 95 % intervals of each row, paired tests tell what differs."


def _layers(group: pd.DataFrame) -> str:
    """Of the LLM, which SASRec has none of."""
    return "–" if (group["method"] == "sasrec").all() else str(int(group["num_layers"].iloc[0]))


def _rate(row: "pd.Series[Any]") -> str:
    name = "item_table.training.learning_rate" if row["method"] == "sasrec" else "training.learning_rate"
    return f"{row[name]:g}"


def _mean_sd(group: pd.DataFrame, metric: str) -> str:
    values = group[metric].dropna() if metric in group else pd.Series(dtype=float)
    if values.empty:
        return "–"
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def _mean(values: "pd.Series[float]", form: str) -> str:
    return "–" if values.isna().all() else format(values.mean(), form)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
