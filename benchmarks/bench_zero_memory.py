"""ZeRO 0 to 3 on two workers: bytes of parameters, gradients and optimizer state that each of them holds.

Two gloo processes train a student of SmolLM2-135M's shape, every weight of the decoder, in float32, with two backward
passes a step. After the first step and between the two passes of the second, when gradients have to be held, the
storages behind parameters, gradients and optimizer state are counted, each once. (After the last pass of a step
DeepSpeed drops what a worker does not step, in stage 1 as well.)

Theory (ZeRO, arXiv:1910.02054) for Ψ trained parameters and N workers: parameters 4Ψ bytes, gradients 4Ψ, optimizer
state KΨ; stage 1 divides the last by N, stage 2 gradients too, stage 3 parameters too. Adam's K is 8 in float32. From
stage 1 on DeepSpeed steps a float32 copy of its share of the weights, as it must where weights are 16 bits wide, so K
is 12 there, as in the paper.
"""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from benchmarks.harness import Goal, Report, arguments
from benchmarks.shapes import QUESTION_TOKENS, SMOLLM2_135M, beauty_shaped, random_table
from orchestrator.training.deepspeed_engine import DeepSpeedEngine
from orchestrator.training.workers import WorkersConfig
from slmrec_core.distillation import Objective
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.structures import SequenceBatch
from slmrec_core.training import TrainingConfig, TrainingData

NUM_WORKERS = 2
NUM_LAYERS = {"smallest": 1, "short": 4, "full": 8}
STAGES = (0, 1, 2, 3)
TOLERANCE = 0.1
Kind = Literal["parameters", "gradients", "optimizer state"]


def theory(stage: int, trained: int) -> dict[Kind, float]:
    """Bytes per worker."""
    share = 1.0 / NUM_WORKERS
    return {
        "parameters": 4.0 * trained * (share if stage >= 3 else 1.0),
        "gradients": 4.0 * trained * (share if stage >= 2 else 1.0),
        "optimizer state": 12.0 * trained * share if stage >= 1 else 8.0 * trained,
    }


def held_bytes(engine: DeepSpeedEngine, stage: int) -> dict[Kind, int]:
    """Bytes that this worker holds, from the tensors themselves."""
    optimizer: Any = engine._engine.optimizer
    trained: list[Any] = [p for p in engine.objective.parameters() if p.requires_grad]
    state = getattr(optimizer, "optimizer", optimizer).state
    states = [t for of_one in state.values() for t in of_one.values() if isinstance(t, Tensor)]
    name = {0: None, 1: "single_partition_of_fp32_groups", 2: "single_partition_of_fp32_groups"}.get(
        stage, "fp32_partitioned_groups_flat"
    )
    own_copies: list[Tensor] = [] if name is None else getattr(optimizer, name)
    partitions = [p.ds_tensor for p in trained] if stage == 3 else []
    # Where DeepSpeed keeps what is reduced, between passes and after the last one.
    kept = [getattr(optimizer, name, {}) for name in ("all_grad_tensors", "averaged_gradients")]
    reduced = [t for groups in kept for group in groups.values() if group is not None for t in group if t is not None]
    gradients = [*(p.grad for p in trained if p.grad is not None), *reduced]
    return {
        "parameters": _bytes([*trained, *partitions]),
        "gradients": _bytes(gradients),
        "optimizer state": _bytes([*states, *own_copies]),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def work(rank: int, num_layers: int, port: int, folder: str) -> None:
    """One worker: every stage in turn, and what it holds written to `folder`."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(NUM_WORKERS))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=NUM_WORKERS)
    found = [count_stage(rank, stage, num_layers) for stage in STAGES]
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def count_stage(rank: int, stage: int, num_layers: int) -> dict[str, int]:
    """Bytes by kind, and the trained parameters, after a step of two backward passes and one pass more."""
    torch.manual_seed(0)
    decoder = empty_decoder({**SMOLLM2_135M, "num_hidden_layers": num_layers})
    config = RecommenderConfig(num_layers=num_layers, tuning="full")
    model = RecommenderModel(config, decoder, Prompt(tuple(range(QUESTION_TOKENS)), ()), random_table(1000))
    training = TrainingConfig(batch_size=2 * NUM_WORKERS, precision="fp32")
    workers = WorkersConfig(num_workers=NUM_WORKERS, zero_stage=cast(Any, stage), micro_batch_size=1)
    data = TrainingData(beauty_shaped(2 * NUM_WORKERS, num_items=1000), 20, training)
    first, second = (data.batch(np.array([2 * rank + step])) for step in range(2))
    engine = DeepSpeedEngine(Objective(model).train(), training, workers, torch.device("cpu"))
    trained: list[Any] = [p for p in engine.objective.parameters() if p.requires_grad]
    count = sum(p.ds_numel if stage == 3 else p.numel() for p in trained)

    def backward(batch: SequenceBatch) -> None:
        engine.backward(engine.objective.total(engine.forward(batch, None)) / (2 * NUM_WORKERS))

    backward(first)
    backward(second)
    engine.step(learning_rate=1e-4)
    backward(first)
    found = {str(kind): held for kind, held in held_bytes(engine, stage).items()}
    backward(second)
    engine.step(learning_rate=1e-4)
    return {**found, "trained": count}


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    with TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start_processes(work, (NUM_LAYERS[options.size], port, folder), nprocs=NUM_WORKERS)  # type: ignore[no-untyped-call]
        workers = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(NUM_WORKERS)]
    rows: list[dict[str, object]] = []
    worst, trained = 0.0, workers[0][0]["trained"]
    for stage, found in zip(STAGES, zip(*workers, strict=True), strict=True):
        for kind, expected in theory(stage, trained).items():
            held = max(worker[kind] for worker in found)
            gap = abs(held / expected - 1.0)
            worst = max(worst, gap)
            rows.append(
                {
                    "stage": stage,
                    "of": kind,
                    "MiB per worker": held / 2**20,
                    "theory, MiB": expected / 2**20,
                    "off by": f"{100 * gap:.1f} %",
                }
            )
    settings: dict[str, object] = {"workers": NUM_WORKERS, "trained_parameters": trained, "precision": "fp32"}
    goals = [Goal("largest relative gap to theory", worst, at_most=TOLERANCE)]
    Report("zero memory", options.size, 1, settings, rows, goals).publish()


if __name__ == "__main__":
    main()
