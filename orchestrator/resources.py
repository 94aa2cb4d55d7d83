"""How many trials run at a time, and what each of their workers gets: computed, so that nothing can starve.

A trial's driver takes almost no CPU; its workers take the rest. Concurrency is what fits on the nodes, so a driver
never holds what its own workers are waiting for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.workers import WorkersConfig
from slmrec_core.errors import ConfigError

DRIVER_CPUS = 0.01
"""Of a Tune trial's actor, which only waits; Ray wants more than nothing."""
_RESERVED_CPUS = 0.1
"""Of every node, for the drivers of all trials that may sit on it."""
_TRIALS_PER_NODE = 2
"""Two one-worker trials at a time hide each other's start-up."""


@dataclass(frozen=True)
class Node:
    """What a node of the cluster offers."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Allocation:
    """What every trial gets."""

    concurrent_trials: int
    num_workers: int
    cpus_per_worker: float
    use_gpu: bool

    @property
    def threads(self) -> int:
        """Of torch in each worker: Ray would set OMP_NUM_THREADS from the CPU request, which may be below 1."""
        return max(1, math.floor(self.cpus_per_worker + _RESERVED_CPUS))

    def shared_among(self, num_jobs: int) -> "Allocation":
        """The same cluster for fewer jobs than it could run at a time: each gets more CPUs."""
        concurrent = max(1, min(num_jobs, self.concurrent_trials))
        cpus = math.floor(100 * self.cpus_per_worker * self.concurrent_trials / concurrent) / 100
        return Allocation(concurrent, self.num_workers, self.cpus_per_worker if self.use_gpu else cpus, self.use_gpu)

    def describe(self) -> str:
        """For people: trials at a time, workers and CPUs or GPUs each."""
        each = f"{self.cpus_per_worker:g} CPU" + (" and 1 GPU" if self.use_gpu else "")
        return f"{self.concurrent_trials} at a time, {self.num_workers} worker(s) each, {each} per worker"


def allocate(workers: WorkersConfig, nodes: Sequence[Node]) -> Allocation:
    """Concurrency and CPUs or GPUs per worker, from the cluster.

    Raises:
        ConfigError: Not even one trial fits; the message says what it needs and what there is.
    """
    nodes = [node for node in nodes if node.cpus > 0]
    use_gpu = any(node.gpus >= 1 for node in nodes) if workers.use_gpu is None else workers.use_gpu
    cpus = workers.cpus_per_worker or _even_share(workers, nodes, use_gpu)
    slots = sum(_slots(node, cpus, use_gpu) for node in nodes)
    fitting = slots // workers.num_workers
    if fitting < 1:
        there = "; ".join(f"{node.name}: {node.cpus:g} CPU, {node.gpus:g} GPU" for node in nodes) or "no node"
        raise ConfigError(
            f"workers: a trial needs {workers.num_workers} worker(s) of {cpus:g} CPU"
            f"{' and 1 GPU' if use_gpu else ''}, got room for {slots} ({there})."
            " Lower workers.num_workers or workers.cpus_per_worker, or add nodes."
        )
    limit = workers.max_concurrent_trials or fitting
    return Allocation(min(fitting, limit), workers.num_workers, cpus, use_gpu)


def _even_share(workers: WorkersConfig, nodes: Sequence[Node], use_gpu: bool) -> float:
    if not nodes:
        return 1.0
    smallest = min(node.cpus for node in nodes)
    if use_gpu:
        per_node = max(1, math.floor(max(node.gpus for node in nodes)))
    else:
        trials = workers.max_concurrent_trials or max(1, _TRIALS_PER_NODE * len(nodes) // workers.num_workers)
        per_node = math.ceil(trials * workers.num_workers / len(nodes))
    return max(0.01, math.floor(100 * (smallest - _RESERVED_CPUS) / per_node) / 100)


def _slots(node: Node, cpus: float, use_gpu: bool) -> int:
    # The small term keeps 1.9 / 0.95 from falling to 1 in floating point.
    by_cpu = math.floor((node.cpus - _RESERVED_CPUS) / cpus + 1e-9)
    return min(by_cpu, math.floor(node.gpus)) if use_gpu else by_cpu
