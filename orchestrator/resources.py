"""How many trials run at a time, and what each of their workers gets: computed, so that nothing can starve.

A trial's driver takes almost no CPU; its workers take the rest. Concurrency is what fits on the nodes, so a driver
never holds what its own workers are waiting for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.training.workers import WorkersConfig
from slmrec_core.errors import ConfigError

DRIVER_CPUS = 0.01
"""Of a Tune trial's actor, which only waits; Ray wants more than nothing."""
_RESERVED_CPUS = 0.1
"""Of every node, for the drivers of all trials that may sit on it."""
_DRIVERS_IN_RESERVE = 10
"""Beyond as many trials on a node, their drivers are counted one by one."""
_LEAST_CPUS = 0.01
_ROUNDING = 1e-9
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
    wanted = workers.max_concurrent_trials
    if not use_gpu and workers.cpus_per_worker is None:
        wanted = wanted or max(1, _TRIALS_PER_NODE * len(nodes) // workers.num_workers)
    cpus = workers.cpus_per_worker or _even_share(workers.num_workers * (wanted or 1), nodes, use_gpu)
    slots = sum(_slots(node, cpus, use_gpu) for node in nodes)
    fitting = slots // workers.num_workers
    if fitting < 1:
        there = "; ".join(f"{node.name}: {node.cpus:g} CPU, {node.gpus:g} GPU" for node in nodes) or "no node"
        raise ConfigError(
            f"workers: a trial needs {workers.num_workers} worker(s) of {cpus:g} CPU"
            f"{' and 1 GPU' if use_gpu else ''}, got room for {slots} ({there})."
            " Lower workers.num_workers or workers.cpus_per_worker, or add nodes."
        )
    return Allocation(min(fitting, wanted or fitting), workers.num_workers, cpus, use_gpu)


def _even_share(num_workers: int, nodes: Sequence[Node], use_gpu: bool) -> float:
    if not use_gpu:
        return _largest_share(nodes, num_workers) or _LEAST_CPUS
    per_gpu = [_hundredths((n.cpus - _RESERVED_CPUS) / math.floor(n.gpus)) for n in nodes if n.gpus >= 1]
    return max(_LEAST_CPUS, min(per_gpu, default=1.0))


def _largest_share(nodes: Sequence[Node], num_workers: int) -> float | None:
    """The most CPUs that each of some workers can have at a time, each on one node; None = they never fit."""
    shares = {_hundredths((n.cpus - _RESERVED_CPUS) / k) for n in nodes for k in range(1, num_workers + 1)}
    for share in sorted(shares, reverse=True):
        if share >= _LEAST_CPUS and sum(_slots(node, share, use_gpu=False) for node in nodes) >= num_workers:
            return share
    return None


def _slots(node: Node, cpus: float, use_gpu: bool) -> int:
    # The small term keeps 1.9 / 0.95 from falling to 1 in floating point.
    by_cpu = math.floor((node.cpus - _RESERVED_CPUS) / cpus + _ROUNDING)
    if by_cpu > _DRIVERS_IN_RESERVE:
        by_cpu = max(_DRIVERS_IN_RESERVE, math.floor(node.cpus / (cpus + DRIVER_CPUS) + _ROUNDING))
    return max(0, min(by_cpu, math.floor(node.gpus)) if use_gpu else by_cpu)


def _hundredths(cpus: float) -> float:
    return math.floor(100 * cpus + _ROUNDING) / 100
