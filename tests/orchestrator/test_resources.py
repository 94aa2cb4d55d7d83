"""Concurrency and shares of a cluster: nothing is oversubscribed, so nothing can starve."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resources import DRIVER_CPUS, Allocation, Node, allocate
from orchestrator.training.workers import WorkersConfig
from slmrec_core.errors import ConfigError


def nodes_of(*sizes: tuple[float, float]) -> list[Node]:
    return [Node(f"node{index}", cpus, gpus) for index, (cpus, gpus) in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "workers", "concurrent", "cpus", "use_gpu", "threads"),
    [
        pytest.param([(2, 0)], {}, 2, 0.95, False, 1, id="laptop"),
        pytest.param([(1, 0)], {}, 2, 0.45, False, 1, id="one core"),
        pytest.param([(16, 0)], {}, 2, 7.95, False, 8, id="workstation"),
        pytest.param([(2, 0), (2, 0)], {}, 4, 0.95, False, 1, id="two small nodes"),
        pytest.param([(2, 0)], {"num_workers": 2}, 1, 0.95, False, 1, id="two workers on a laptop"),
        pytest.param([(2, 0)], {"num_workers": 4}, 1, 0.47, False, 1, id="four workers on two cores"),
        pytest.param([(16, 0)], {"max_concurrent_trials": 5}, 5, 3.18, False, 3, id="five at a time"),
        pytest.param([(16, 0)], {"max_concurrent_trials": 1}, 1, 15.9, False, 16, id="one at a time"),
        pytest.param([(16, 0)], {"cpus_per_worker": 4}, 3, 4, False, 4, id="as many as fit"),
        pytest.param([(16, 8)], {}, 8, 1.98, True, 2, id="eight GPUs"),
        pytest.param([(16, 8)], {"num_workers": 4}, 2, 1.98, True, 2, id="four GPUs a trial"),
        pytest.param([(2, 0), (16, 2)], {}, 2, 7.95, True, 8, id="a head without GPUs"),
        pytest.param([(16, 8)], {"use_gpu": False}, 2, 7.95, False, 8, id="GPUs left alone"),
        pytest.param([(0, 0), (8, 0)], {"max_concurrent_trials": 2}, 2, 3.95, False, 4, id="a head without CPUs"),
        pytest.param([(2, 0), (64, 0)], {}, 4, 15.97, False, 16, id="unequal nodes"),
    ],
)
def test_clusters(
    sizes: list[tuple[float, float]], workers: dict[str, Any], concurrent: int, cpus: float, use_gpu: bool, threads: int
) -> None:
    found = allocate(WorkersConfig(**workers), nodes_of(*sizes))
    assert (found.concurrent_trials, found.cpus_per_worker, found.use_gpu) == (concurrent, cpus, use_gpu)
    assert found.threads == threads


@pytest.mark.parametrize(
    ("sizes", "workers", "said"),
    [
        ([(2, 0)], {"cpus_per_worker": 4}, ["1 worker(s) of 4 CPU, got room for 0", "node0: 2 CPU, 0 GPU"]),
        ([(2, 0)], {"use_gpu": True}, ["and 1 GPU, got room for 0"]),
        ([(16, 2)], {"num_workers": 4}, ["4 worker(s) of", "and 1 GPU, got room for 2", "node0: 16 CPU, 2 GPU"]),
        ([(2, 0), (2, 0)], {"num_workers": 3, "cpus_per_worker": 1.5}, ["3 worker(s) of 1.5 CPU, got room for 2"]),
        ([], {}, ["got room for 0 (no node)"]),
        ([(0.05, 0)], {}, ["got room for 0"]),
    ],
)
def test_too_small_a_cluster_says_what_is_needed_and_what_is_there(
    sizes: list[tuple[float, float]], workers: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        allocate(WorkersConfig(**workers), nodes_of(*sizes))
    for part in said:
        assert part in str(caught.value)
    assert "Lower workers.num_workers" in str(caught.value)


def fits(found: Allocation, nodes: list[Node]) -> None:
    """Every worker and driver has its place at the same time."""
    workers = found.concurrent_trials * found.num_workers
    assert workers * found.cpus_per_worker + found.concurrent_trials * DRIVER_CPUS <= sum(n.cpus for n in nodes) + 1e-6
    # No worker is larger than a node: it would wait for ever.
    places = sum(math.floor(node.cpus / found.cpus_per_worker + 1e-9) for node in nodes)
    assert places >= workers
    if found.use_gpu:
        assert workers <= sum(math.floor(node.gpus) for node in nodes)


SIZES = st.lists(st.tuples(st.integers(0, 64), st.sampled_from([0, 0, 1, 4])), min_size=1, max_size=4)
WORKERS = st.fixed_dictionaries(
    {"num_workers": st.integers(1, 6)},
    optional={
        "cpus_per_worker": st.sampled_from([0.05, 0.3, 1.0, 2.5, 8.0]),
        "max_concurrent_trials": st.integers(1, 200),
        "use_gpu": st.booleans(),
    },
)


@given(sizes=SIZES, workers=WORKERS)
def test_no_cluster_is_oversubscribed(sizes: list[tuple[float, float]], workers: dict[str, Any]) -> None:
    nodes = nodes_of(*sizes)
    try:
        found = allocate(WorkersConfig(**workers), nodes)
    except ConfigError:
        return
    fits(found, nodes)
    assert found.concurrent_trials <= workers.get("max_concurrent_trials", math.inf)
    if "cpus_per_worker" in workers:
        assert found.cpus_per_worker == workers["cpus_per_worker"], "what was asked for is given"


def test_the_share_is_told_to_people() -> None:
    assert allocate(WorkersConfig(), nodes_of((2, 0))).describe() == (
        "2 at a time, 1 worker(s) each, 0.95 CPU per worker"
    )
    assert allocate(WorkersConfig(), nodes_of((16, 8))).describe().endswith("1.98 CPU and 1 GPU per worker")
