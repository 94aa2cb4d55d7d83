"""What the depths cost beside one another: the run of `benchmarks.bench_depth` that a record holds."""

import json
from dataclasses import dataclass
from pathlib import Path

COSTS = "cost.json"
"""In a record: the last line of the benchmark's output."""


@dataclass(frozen=True)
class DepthCost:
    """One depth of the run."""

    num_layers: int
    decoder_millions: float
    targets_per_second: float
    training_times: float
    """As fast as the whole LLM in training."""
    users_per_second: float
    ranking_times: float
    """As fast as the whole LLM in ranking."""


@dataclass(frozen=True)
class DepthCosts:
    """All depths took turns in one run, so that their ratios hold on a machine whose speed swings."""

    depths: list[DepthCost]
    machine: str
    """Processor, threads and precision; date and commit."""

    def of(self, num_layers: int) -> DepthCost | None:
        """One depth; None = it was not in the run."""
        return next((depth for depth in self.depths if depth.num_layers == num_layers), None)


def read_costs(record: Path) -> DepthCosts | None:
    """The run that a record holds; None = it holds none."""
    file = record / COSTS
    if not file.is_file():
        return None
    run = json.loads(file.read_text())
    settings = run["settings"]
    machine = f"{run['cpu']}, {settings['threads']} thread(s), {settings['precision']}, {run['date'][:10]}"
    # The columns of the benchmark's table, in their order.
    return DepthCosts([DepthCost(*row.values()) for row in run["rows"]], f"{machine}, `{run['commit'][:9]}`")
