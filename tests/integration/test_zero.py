"""ZeRO 0 to 3 with two workers train what one process trains: losses, metrics and weights."""

from typing import Any

import numpy as np
import pytest
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.cluster import connected
from tests.integration.zero_run import run_on_workers, run_plain

pytestmark = pytest.mark.ray

CASES = [
    {"workers": {"zero_stage": 0}, "precision": "fp32"},
    {"workers": {"zero_stage": 1}, "precision": "fp32"},
    {"workers": {"zero_stage": 2}, "precision": "fp32"},
    {"workers": {"zero_stage": 3}, "precision": "fp32"},
    {"workers": {"zero_stage": 2, "micro_batch_size": 7}, "precision": "fp32"},
    {"workers": {"zero_stage": 3, "micro_batch_size": 7}, "precision": "fp32"},
    {"workers": {"zero_stage": 2, "offload": "optimizer"}, "precision": "fp32"},
    {"workers": {"zero_stage": 3}, "precision": "bf16"},
]


def on_workers(cluster: dict[str, str], cases: list[dict[str, Any]], num_workers: int, folder: str) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.items():
            patch.setenv(name, value)
        with connected():
            result = TorchTrainer(
                run_on_workers,
                train_loop_config={"cases": cases, "num_workers": num_workers},
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=ray.train.ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": 0.9}),
                run_config=ray.train.RunConfig(storage_path=folder, name=f"zero-{num_workers}"),
            ).fit()
    return list(result.return_value)


def assert_same_training(got: dict[str, Any], expected: dict[str, Any], relative: float) -> None:
    for ours, theirs in zip(got["epochs"], expected["epochs"], strict=True):
        losses = {name for name in theirs if name.startswith("train/loss")}
        assert losses <= ours.keys()
        for name in losses:
            assert ours[name] == pytest.approx(theirs[name], rel=relative), name
        assert ours["valid/ndcg_at_10"] == pytest.approx(theirs["valid/ndcg_at_10"], abs=10 * relative)
    assert got["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        np.testing.assert_allclose(got["weights"][name], weight, atol=50 * relative, err_msg=name)


def test_every_zero_stage_with_two_workers_trains_what_one_process_trains(
    cluster: dict[str, str], tmp_path: Any
) -> None:
    expected = {precision: run_plain(precision) for precision in ("fp32", "bf16")}
    for case, got in zip(CASES, on_workers(cluster, CASES, 2, str(tmp_path)), strict=True):
        # bfloat16 rounds sums that the workers take in another order.
        assert_same_training(got, expected[case["precision"]], 1e-4 if case["precision"] == "fp32" else 3e-2)


def test_one_worker_at_zero_0_trains_what_plain_torch_trains(cluster: dict[str, str], tmp_path: Any) -> None:
    (got,) = on_workers(cluster, CASES[:1], 1, str(tmp_path))

    assert_same_training(got, run_plain(), 1e-4)
