"""Full softmax and full ranking over a catalogue of the size of Amazon Cloth's.

1,024 targets, 376,858 items, 128 wide, float32, all cores. Softmax: loss and gradient of the user vectors and of the
table, by `cross_entropy` of all scores and by `catalogue_next_item_loss`. Ranking: the target's rank without 50 seen
items a user, by a descending sort of all scores and by counting, chunk by chunk, as our evaluation does. Each runs in a
process of its own that first makes the inputs; extra memory is how far the process' peak rises above that. Their turns
are interleaved.
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.harness import Goal, Report, arguments
from slmrec_core.hardware import rows_per_chunk
from slmrec_core.losses import catalogue_next_item_loss
from slmrec_core.metrics import rank_targets
from slmrec_core.models.recommender import table_scores

SHAPES = {"smallest": (16, 2_000, 16), "short": (1024, 100_000, 128), "full": (1024, 376_858, 128)}
"""Targets, items, width."""
REPEATS = {"smallest": 1, "short": 5, "full": 5}
SEEN = 50
Inputs = tuple[
    Float[Tensor, "target item_dim"], Float[Tensor, "row item_dim"], Int[Tensor, "target"], Int[Tensor, "target seen"]
]


def make_inputs(size: str) -> Inputs:
    """User vectors, item table with its padding row, targets and seen items; the same in every process."""
    num_targets, num_items, width = SHAPES[size]
    torch.manual_seed(0)
    vectors, table = torch.randn(num_targets, width) * 0.1, torch.randn(num_items + 1, width)
    targets = torch.randint(1, num_items + 1, (num_targets,))
    seen = torch.randint(1, num_items, (num_targets, SEEN))
    # Never the target: whatever is at or behind it moves on by one.
    return vectors.requires_grad_(), table.requires_grad_(), targets, seen + (seen >= targets[:, None])


def plain_softmax(inputs: Inputs) -> Tensor:
    """Loss of the matrix of all scores."""
    vectors, table, targets, _ = inputs
    return cross_entropy(vectors @ table[1:].T, targets - 1)


def chunked_softmax(inputs: Inputs) -> Tensor:
    """Ours."""
    vectors, table, targets, _ = inputs
    return catalogue_next_item_loss(vectors, table, targets)


@torch.no_grad()
def sorted_ranks(inputs: Inputs) -> Tensor:
    """Ranks by sorting all scores, seen items masked."""
    vectors, table, targets, seen = inputs
    scores = table_scores(vectors, table)
    scores.scatter_(1, seen, float("-inf"))
    order = scores.argsort(dim=1, descending=True)
    return (order == targets[:, None]).int().argmax(dim=1) + 1


@torch.no_grad()
def counted_ranks(inputs: Inputs) -> Tensor:
    """Ours, as the evaluator does it: one chunk of scores at a time."""
    vectors, table, targets, seen = inputs
    chunk, ranks = rows_per_chunk(len(table)), []
    for start in range(0, len(vectors), chunk):
        scores = table_scores(vectors[start : start + chunk], table)
        # Each pair once, as `seen_items` gives them.
        pairs = torch.stack([torch.arange(len(scores)).repeat_interleave(SEEN), seen[start : start + chunk].flatten()])
        rows, columns = torch.unique(pairs, dim=1)
        ranks.append(rank_targets(scores, targets[start : start + chunk], (rows, columns)))
    return torch.cat(ranks)


def softmax_step(loss: Callable[[Inputs], Tensor]) -> Callable[[Inputs], tuple[Tensor, ...]]:
    """Loss and gradients."""

    def step(inputs: Inputs) -> tuple[Tensor, ...]:
        vectors, table = inputs[:2]
        vectors.grad = table.grad = None
        value = loss(inputs)
        value.backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
        assert table.grad is not None
        return value.detach(), vectors.grad, table.grad

    return step


CANDIDATES: dict[str, Callable[[Inputs], Tensor | tuple[Tensor, ...]]] = {
    "cross_entropy of all scores": softmax_step(plain_softmax),
    "softmax ours": softmax_step(chunked_softmax),
    "sort of all scores": sorted_ranks,
    "ranks ours": counted_ranks,
}


def work(name: str, size: str, threads: int, pipe: Connection) -> None:
    """A process of one candidate: runs when asked, tells seconds and MiB above the inputs, and at last the result."""
    torch.set_num_threads(threads)
    inputs = make_inputs(size)
    # Libraries allocate at their first product.
    torch.randn(256, 256) @ torch.randn(256, 256)
    before = _peak_mib()
    while pipe.recv():
        started = time.perf_counter()
        result = CANDIDATES[name](inputs)
        pipe.send((time.perf_counter() - started, _peak_mib() - before))
    parts = result if isinstance(result, tuple) else (result,)
    pipe.send([part.numpy() for part in parts])


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints the report."""
    options = arguments(__doc__)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in CANDIDATES:
        near, far = context.Pipe()
        process = context.Process(target=work, args=(name, options.size, torch.get_num_threads(), far), daemon=True)
        process.start()
        pipes[name] = near
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    memory: dict[str, float] = {}
    for _ in range(REPEATS[options.size]):
        for name, pipe in pipes.items():
            pipe.send(True)
            spent, memory[name] = pipe.recv()
            seconds[name].append(spent)
    results = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        results[name] = [torch.from_numpy(part) for part in pipe.recv()]
    plain_softmaxed, softmaxed, sorted_, counted = results.values()
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(softmaxed, plain_softmaxed, strict=True))
    time_of = {name: statistics.median(values) for name, values in seconds.items()}
    rows: list[dict[str, object]] = [
        {"candidate": name, "seconds": time_of[name], "extra MiB at the peak": memory[name]} for name in CANDIDATES
    ]
    plain, ours, sort, count = CANDIDATES
    goals = [
        Goal("softmax, extra memory over plain", memory[ours] / max(memory[plain], 1e-9), at_most=0.25),
        Goal("softmax, time over plain", time_of[ours] / time_of[plain], at_most=1.3),
        Goal("softmax, largest gap of loss and gradients, relative", gap, at_most=1e-4),
        Goal("ranking, extra memory over sort", memory[count] / max(memory[sort], 1e-9), at_most=0.25),
        Goal("ranking, time over sort", time_of[count] / time_of[sort], at_most=1.3),
        # Products of another shape round in another way, and of 400,000 scores some are neighbours by less.
        Goal("ranking, largest difference of a rank", float((counted[0] - sorted_[0]).abs().max()), at_most=1.0),
    ]
    targets, items, width = SHAPES[options.size]
    settings: dict[str, object] = {
        "targets": targets,
        "items": items,
        "width": width,
        "threads": torch.get_num_threads(),
    }
    Report("catalogue", options.size, REPEATS[options.size], settings, rows, goals).publish()


if __name__ == "__main__":
    main()
