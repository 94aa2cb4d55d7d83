"""How everything on the page was measured: from the settings, manifests and facts of the kept rows."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from orchestrator.storage.stages import MANIFEST
from slmrec_core.metrics import EQUAL_MARGIN

DATA_FACTS = "data.json"
"""In a record: the file's name, users, items, events, whether they have times, fingerprint."""
_PACKAGES = ("ray", "torch", "transformers", "peft", "deepspeed")


def protocol(record: Path, frames: Sequence[pd.DataFrame]) -> dict[str, str]:
    """What holds for all sections, by name; several values of a setting are all told.

    Args:
        record: Of the study.
        frames: Finished rows by section, at least one.
    """
    stages = sorted({str(stage) for frame in frames for stage in frame["stage_id"]})
    facts = json.loads((record / DATA_FACTS).read_text())
    sizes = ", ".join(f"{facts[name]:,} {name}" for name in ("users", "items", "events"))
    order = "time" if facts["has_timestamps"] else "the file, which has no times of its own"
    seen = {"True": "left out", "False": "ranked"}.get(_all(frames, "evaluation.mask_seen"), "left out or ranked")
    return {
        "data": f"`{facts['file']}`, after the 5-core: {sizes} (fingerprint `{facts['fingerprint'][:12]}`)",
        "split": f"leave-one-out in the order of {order}: the last item is test, the one before it valid",
        "ranking": f"the whole catalogue; items of the history are {seen}; ties count against the model",
        "history": f"the newest {_all(frames, 'max_seq_len')} items; of a longer one SASRec is trained on the windows"
        f" `{_all(frames, 'item_table.training.windows')}`, an LLM on `{_all(frames, 'training.windows') or '–'}`",
        "loss": f"full cross entropy over the catalogue; targets: {_all(frames, 'training.targets') or 'all'}; and the"
        " terms that a row names",
        "LLM": _llm(frames),
        "SASRec": f"{_all(frames, 'item_table.network.num_layers')} blocks,"
        f" {_all(frames, 'item_table.network.item_dim')} wide, dropout {_all(frames, 'item_table.network.dropout')};"
        f" {_optimisation(frames, 'item_table.training')}",
        "checkpoint": f"the epoch with the best valid NDCG@10, by {_selection(frames)} while training runs, then"
        " measured for all; a row whose best epoch is its last might have gone on to a better one; test is read once"
        " per row of this page",
        "seeds": f"{_all(frames, 'seed')}; seed s has item table s, teacher s and student s",
        "intervals": "95 %, bootstrap over users and seeds; ± is the standard deviation between seeds",
        "tests": "paired: sign flips over users of their mean difference over seeds (10,000, so that p is at least"
        " 0.0001), Holm over the list of each section, where a test that is not measured yet counts with p = 1."
        " *Better*, *worse*: the interval of the difference, which no correction widens, excludes 0 and all seeds agree"
        f" in sign. *Equal*: it lies within ±{EQUAL_MARGIN}. Otherwise: undecided",
        **_provenance(record, stages, frames),
    }


def _llm(frames: Sequence[pd.DataFrame]) -> str:
    if not (backbone := _all(frames, "backbone")):
        return "none yet"
    return (
        f"`{backbone}` (`q4` in a name: 4-bit-quantised weights), tuning: {_all(frames, 'student.tuning')}; LoRA on the"
        f" MLPs, rank {_all(frames, 'student.lora_rank')}, alpha {_all(frames, 'student.lora_alpha')}, dropout"
        f" {_all(frames, 'student.lora_dropout')}; item vectors of SASRec, {_all(frames, 'student.item_vectors')};"
        f" computed in {_all(frames, 'training.precision')}, trained weights and scores in fp32;"
        f" {_optimisation(frames, 'training')}"
    )


def _optimisation(frames: Sequence[pd.DataFrame], section: str) -> str:
    def value(name: str) -> str:
        return _all(frames, f"{section}.{name}")

    stop = f", stopping after {value('patience')} without improvement" if value("patience") else ""
    return (
        f"AdamW, {value('batch_size')} windows a step, weight decay {value('weight_decay')}, {value('schedule')} rate;"
        f" at most {value('epochs')} passes{stop}"
    )


def _selection(frames: Sequence[pd.DataFrame]) -> str:
    sizes = _all(frames, "evaluation.selection_users")
    return f"a fixed sample of at most {sizes} users" if sizes else "all users"


def _provenance(record: Path, stages: Sequence[str], frames: Sequence[pd.DataFrame]) -> dict[str, str]:
    """Where the rows come from, by their manifests."""
    made = [json.loads((record / "rows" / stage / MANIFEST).read_text())["provenance"] for stage in stages]
    seconds = sum(json.loads((record / "rows" / s / "result.json").read_text())["seconds"] for s in stages)
    hardware = {name for frame in frames for name in frame["hardware"].dropna()}
    threads, pythons = ({str(one[name]) for one in made} for name in ("threads", "python"))
    return {
        "commits": ", ".join(sorted({f"`{one['commit'][:9]}`" for one in made})),
        "versions": "; ".join(", ".join(sorted({f"{p} {one[f'version.{p}']}" for one in made})) for p in _PACKAGES),
        "hardware": f"{'; '.join(sorted(hardware))}; threads of a worker: {', '.join(sorted(threads))}; Python"
        f" {', '.join(sorted(pythons))}",
        "wall time": f"{seconds / 3600:.1f} hours of training and ranking in {len(stages)} rows",
    }


def _all(frames: Sequence[pd.DataFrame], name: str) -> str:
    """All values of a setting, which not every row has; numbers as people write them."""
    values = {value for frame in frames if name in frame for value in frame[name].dropna()}
    return ", ".join(_spoken(value) for value in sorted(values))


def _spoken(value: object) -> str:
    # A count beside absent values is read as a float.
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and value else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
