"""Chunked losses against the plain ones over the matrix of all scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import ConfigError, DivergedError, TeacherStudentMismatchError
from slmrec_core.losses import (
    catalogue,
    catalogue_logit_loss,
    catalogue_next_item_loss,
    logit_loss,
    next_item_loss,
)

SIZES = st.tuples(st.integers(1, 9), st.integers(2, 7), st.integers(1, 5))
CHUNKS = st.integers(1, 12)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_scores(vectors: Tensor, table: Tensor) -> Tensor:
    scores = vectors @ table.T
    scores[:, 0] = float("-inf")
    return scores


@given(size=SIZES, chunk=CHUNKS, seed=st.integers(0, 99), is_trained=st.booleans())
def test_next_item_loss_and_gradients_are_those_of_all_scores(
    size: tuple[int, int, int], chunk: int, seed: int, is_trained: bool
) -> None:
    num_targets, num_items, width = size
    targets = torch.randint(1, num_items + 1, (num_targets,), generator=torch.Generator().manual_seed(seed))
    found = []
    for chunked in (False, True):
        vectors = draw(num_targets, width, seed=seed).requires_grad_()
        table = draw(num_items + 1, width, seed=seed + 1).requires_grad_(is_trained)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalogue, "rows_per_chunk", lambda columns: chunk)
            loss = (
                catalogue_next_item_loss(vectors, table, targets)
                if chunked
                # In double precision, where the contract's own loss would be float32.
                else torch.nn.functional.cross_entropy(plain_scores(vectors, table), targets)
            )
        (3.0 * loss).backward()
        found.append((loss.detach(), vectors.grad, table.grad))
    (loss, to_vectors, to_table), ours = found
    assert_close(ours[0], loss)
    assert_close(ours[1], to_vectors)
    if is_trained:
        assert_close(ours[2], to_table)
        assert_close(ours[2][0], torch.zeros(width, dtype=torch.float64))
    else:
        assert ours[2] is None


@given(size=SIZES, chunk=CHUNKS, seed=st.integers(0, 99), temperature=st.floats(0.5, 4.0))
def test_logit_loss_and_gradient_are_those_of_all_scores(
    size: tuple[int, int, int], chunk: int, seed: int, temperature: float
) -> None:
    num_targets, num_items, width = size
    teacher, table = draw(num_targets, width, seed=seed + 2), draw(num_items + 1, width, seed=seed + 1)
    student = draw(num_targets, width, seed=seed).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "rows_per_chunk", lambda columns: chunk)
        loss = catalogue_logit_loss(student, teacher, table, temperature)
    loss.backward()
    plain = student.detach().clone().requires_grad_()
    expected = logit_loss(plain_scores(plain, table), plain_scores(teacher, table), temperature)
    expected.backward()
    # The plain loss is float32.
    assert_close(loss.float(), expected, rtol=1e-4, atol=1e-5)
    assert_close(student.grad, plain.grad, rtol=1e-4, atol=1e-5)


def test_float32_at_a_real_size_is_close() -> None:
    vectors, table = draw(300, 16).float(), draw(5001, 16, seed=1).float()
    teacher = vectors + 0.1 * draw(300, 16, seed=2).float()
    targets = torch.randint(1, 5001, (300,), generator=torch.Generator().manual_seed(0))
    scores, theirs = plain_scores(vectors, table), plain_scores(teacher, table)
    assert_close(catalogue_next_item_loss(vectors, table, targets), next_item_loss(scores, targets))
    assert_close(catalogue_logit_loss(vectors, teacher, table), logit_loss(scores, theirs), rtol=1e-3, atol=1e-5)


def test_a_student_like_its_teacher_has_no_gap_and_no_gradient() -> None:
    vectors = draw(4, 3).float().requires_grad_()
    loss = catalogue_logit_loss(vectors, vectors.detach(), draw(9, 3, seed=1).float())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert_close(vectors.grad, torch.zeros(4, 3), atol=1e-6, rtol=0.0)


def test_no_targets_give_zero_and_a_gradient() -> None:
    nothing = torch.zeros(0, 3, requires_grad=True)
    table = draw(9, 3).float()
    total = catalogue_next_item_loss(nothing, table, torch.zeros(0, dtype=torch.int64))
    (total + catalogue_logit_loss(nothing, nothing.detach(), table)).backward()
    assert total.item() == 0.0
    assert nothing.grad is not None


@pytest.mark.parametrize("chunk", [1, 100])
def test_nan_raises(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(catalogue, "rows_per_chunk", lambda columns: chunk)
    vectors, table = draw(4, 3).float(), draw(9, 3, seed=1).float()
    broken = vectors.clone()
    broken[2, 0] = float("nan")
    with pytest.raises(DivergedError, match="catalogue_next_item_loss"):
        catalogue_next_item_loss(broken, table, torch.tensor([1, 2, 3, 4]))
    for pair in ((broken, vectors), (vectors, broken)):
        with pytest.raises(DivergedError, match="catalogue_logit_loss"):
            catalogue_logit_loss(*pair, table)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 0\.0"):
        catalogue_logit_loss(draw(2, 3), draw(2, 3), draw(5, 3), 0.0)
    with pytest.raises(TeacherStudentMismatchError, match=r"got student \[2, 3\] and teacher \[2, 4\]"):
        catalogue_logit_loss(draw(2, 3), draw(2, 4), draw(5, 3))


@pytest.mark.parametrize("chunk", [2, 100])
def test_autocast_leaves_scores_and_gradients_in_float32(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    # A bug of ours: DeepSpeed runs the objective under autocast for fp16, and products were rounded to it.
    monkeypatch.setattr(catalogue, "rows_per_chunk", lambda columns: chunk)
    table, teacher, targets = draw(9, 3, seed=1).float(), draw(4, 3, seed=2).float(), torch.tensor([1, 2, 3, 4])
    found = []
    for is_rounded in (False, True):
        vectors = draw(4, 3).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            loss = catalogue_next_item_loss(vectors, table, targets) + catalogue_logit_loss(vectors, teacher, table)
        loss.backward()
        found.append((loss.detach(), vectors.grad))
    assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("target", [0, -99, 10])
def test_a_target_that_is_no_item_is_not_skipped(monkeypatch: pytest.MonkeyPatch, chunk: int, target: int) -> None:
    # Row 0 is padding, and what torch's cross entropy skips in silence is -100, which -99 would become.
    monkeypatch.setattr(catalogue, "rows_per_chunk", lambda columns: chunk)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        catalogue_next_item_loss(draw(3, 3).float(), draw(10, 3).float(), torch.tensor([1, target, 2]))
