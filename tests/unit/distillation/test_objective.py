"""Laws of the objective: what each term is, that none is off in silence, and that distillation distils."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax, softmax
from torch.testing import assert_close

from slmrec_core.distillation.blocks import pair_blocks
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE, DistillationConfig
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import LiveTeacher
from slmrec_core.errors import ConfigError, TeacherStudentMismatchError
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.structures import DistillationLosses, TeacherSignal
from tests.tiny import jolted, row_of, some_batch, tiny_model

BATCH = some_batch()
EVERYTHING = DistillationConfig(logit_weight=0.5, num_blocks=2)
PAIRING = pair_blocks(2, 4, 2)


def build(item_table: Tensor, config: DistillationConfig = EVERYTHING, **options: Any) -> tuple[Objective, LiveTeacher]:
    """A 2-layer student, a frozen 4-layer teacher, and the objective between them."""
    student = jolted(tiny_model(item_table, **options.pop("student", {})))
    teacher = jolted(tiny_model(item_table, num_layers=4, seed=5), seed=6)
    pairing = pair_blocks(student.num_layers, 4, config.num_blocks, config.teacher_layers)
    torch.manual_seed(0)
    settings = {"teacher_width": teacher.hidden_size, **options}
    objective = Objective(student, config, pairing, **settings).eval()
    return objective, LiveTeacher(teacher, pairing.teacher_layers, config.align_at)


def terms_of(objective: Objective, teacher: LiveTeacher | None) -> dict[str, Tensor]:
    signal = None if teacher is None else teacher.signal(BATCH)
    terms: dict[str, Tensor] = objective(BATCH.item_ids, BATCH.read_mask, BATCH.targets, signal)
    return terms


def losses_of(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in terms.items() if "/" not in name}


def plain_states(model: RecommenderModel, layers: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    with torch.no_grad():
        states = model(BATCH.item_ids, BATCH.read_mask, tuple(layers))
    return [states.layers[layer] for layer in layers], states.user_vectors


def test_each_term_is_what_the_paper_says_computed_plainly(item_table: Tensor) -> None:
    objective, teacher = build(item_table)
    student = objective.student
    assert isinstance(student, RecommenderModel)
    (inner, last), vectors = plain_states(student, PAIRING.student_layers)
    theirs, their_vectors = plain_states(teacher.model, PAIRING.teacher_layers)
    scores, their_scores = (v @ item_table[1:].T for v in (vectors, their_vectors))
    pairs = list(zip((inner, last), theirs, strict=True))
    heads = [head.weight for head in objective.heads]
    assert len(heads) == 1
    inner_scores = student.normed(inner) @ heads[0].T @ item_table[1:].T  # type: ignore[operator]
    cosines = [cosine_similarity(s, t, dim=1).mean() for s, t in pairs]
    norms = [((s - t) ** 2).sum(1).mean() / (t**2).sum(1).mean() for s, t in pairs]
    expected = {
        "next_item": cross_entropy(scores, BATCH.targets - 1),
        "cosine": 1 - torch.stack(cosines).mean(),
        "norm": torch.stack(norms).mean(),
        "supervision": cross_entropy(inner_scores, BATCH.targets - 1),
        "logit": 4 * kl_div(log_softmax(scores / 2, 1), softmax(their_scores / 2, 1), reduction="batchmean"),
    }
    terms = terms_of(objective, teacher)
    assert {name for name in terms if "/" not in name} == set(expected)
    for name, value in expected.items():
        assert_close(terms[name], value, msg=name)


def test_the_total_is_the_weighted_sum_and_diagnostics_are_not_in_it(item_table: Tensor) -> None:
    weights = {"next_item": 0.7, "cosine": 2.0, "norm": 0.3, "supervision": 0.11, "logit": 0.5}
    config = DistillationConfig(num_blocks=2, **{f"{name}_weight": weight for name, weight in weights.items()})  # type: ignore[arg-type]
    objective, teacher = build(item_table, config)
    terms = terms_of(objective, teacher)
    expected = sum(weights[name] * value for name, value in losses_of(terms).items())
    assert_close(objective.total(terms).item(), expected, rtol=1e-5, atol=1e-6)
    assert {"block_1/user_cosine", "block_2/user_cosine"} <= set(terms)


@pytest.mark.parametrize("align_at", ["hidden_states", "normed"])
@pytest.mark.parametrize("width", [32, 48])
def test_the_user_cosine_is_between_different_users_own_states(item_table: Tensor, align_at: str, width: int) -> None:
    # A bug of ours: targets of one user counted as users, and a projection to a wider teacher hid the student.
    config = EVERYTHING.model_copy(update={"align_at": align_at, "num_blocks": 2})
    objective, _ = build(item_table, config, teacher_width=width)
    student = objective.student
    assert isinstance(student, RecommenderModel)
    signal = TeacherSignal({n: torch.randn(len(BATCH.targets), width) for n in (2, 4)}, torch.randn(12, 6))
    terms = objective(BATCH.item_ids, BATCH.read_mask, BATCH.targets, signal)
    (inner, last), _ = plain_states(student, PAIRING.student_layers)
    # Histories of 5, 4 and 3 items, a target at each.
    for block, states in enumerate((student.normed(inner) if align_at == "normed" else inner, last), start=1):
        one, two, three = states[4], states[8], states[11]
        pairs = [cosine_similarity(a, b, dim=0) for a, b in ((one, two), (one, three), (two, three))]
        assert_close(terms[f"block_{block}/user_cosine"], torch.stack(pairs).mean())


def test_one_user_alone_has_no_user_cosine(item_table: Tensor) -> None:
    objective, teacher = build(item_table)
    alone = row_of(BATCH, 0)
    terms = objective(alone.item_ids, alone.read_mask, alone.targets, teacher.signal(alone))
    assert terms["block_1/user_cosine"].isnan()


@pytest.mark.parametrize("name", ["next_item", "cosine", "norm", "supervision", "logit"])
def test_weight_zero_leaves_the_term_out_and_the_log_says_why(item_table: Tensor, name: str) -> None:
    # Faults 1 to 3 of the authors' code: terms were off by default or by a bare except, and nothing said so.
    config = EVERYTHING.model_copy(update={f"{name}_weight": 0.0})
    objective, teacher = build(item_table, config)
    whole = losses_of(terms_of(*build(item_table)))
    terms = losses_of(terms_of(objective, teacher))
    assert set(whole) - set(terms) == {name}
    assert config.absent_terms(num_blocks=2) == {name: f"distillation.{name}_weight is 0"}
    for other, value in terms.items():
        assert value == pytest.approx(whole[other], rel=1e-5), other


def test_the_default_distils() -> None:
    # Fault 1: the shipped script trained with plain cross entropy.
    config = DistillationConfig()
    assert config.needs_teacher
    assert set(config.absent_terms(num_blocks=4)) == {"logit"}


def test_one_block_has_no_supervision_and_the_log_says_why(item_table: Tensor) -> None:
    config = EVERYTHING.model_copy(update={"num_blocks": 1})
    terms = terms_of(*build(item_table, config))
    assert "supervision" not in terms
    assert "inner block" in config.absent_terms(num_blocks=1)["supervision"]


def test_a_missing_teacher_is_an_error_not_a_silence(item_table: Tensor) -> None:
    # Fault 2: the teacher gave no states, a bare except swallowed it, and training went on without distillation.
    objective, _ = build(item_table)
    with pytest.raises(TeacherStudentMismatchError, match="alignment needs a teacher"):
        terms_of(objective, None)
    logit_alone = DistillationConfig(cosine_weight=0, norm_weight=0, supervision_weight=0, logit_weight=1)
    objective, teacher = build(item_table, logit_alone)
    with pytest.raises(TeacherStudentMismatchError, match="the logit term needs"):
        terms_of(objective, None)


def test_a_teacher_without_an_aligned_layer_is_an_error(item_table: Tensor) -> None:
    objective, teacher = build(item_table)
    signal = teacher.signal(BATCH)
    with pytest.raises(KeyError):
        objective(BATCH.item_ids, BATCH.read_mask, BATCH.targets, TeacherSignal({4: signal.layers[4]}))


def test_no_term_at_all_is_an_error() -> None:
    network = SASRec(SASRecConfig(item_dim=4), 12, 9)
    objective = Objective(network, CROSS_ENTROPY_ALONE.model_copy(update={"next_item_weight": 0.0}))
    with pytest.raises(ConfigError, match="at least one term"):
        objective.total(terms_of(objective, None))


def test_sasrec_trains_with_cross_entropy_alone() -> None:
    objective = Objective(SASRec(SASRecConfig(item_dim=4), 12, 9))
    assert list(terms_of(objective, None)) == ["next_item"]
    assert objective.student_layers == ()


def test_a_sum_over_blocks_is_the_mean_times_their_number(item_table: Tensor) -> None:
    # Fault 5: the authors sum over blocks, and over the B − 1 heads, where the paper takes means.
    config = EVERYTHING.model_copy(update={"num_blocks": 4})
    deep = {"num_layers": 4}
    mean = losses_of(terms_of(*build(item_table, config, student=deep)))
    summed = config.model_copy(update={"block_reduction": "sum"})
    total = losses_of(terms_of(*build(item_table, summed, student=deep)))
    assert total["cosine"] == pytest.approx(4 * mean["cosine"], rel=1e-5)
    assert total["norm"] == pytest.approx(4 * mean["norm"], rel=1e-5)
    assert total["supervision"] == pytest.approx(3 * mean["supervision"], rel=1e-5)
    assert total["next_item"] == pytest.approx(mean["next_item"], rel=1e-5)


def test_the_authors_norm_is_the_distance_itself_unscaled(item_table: Tensor) -> None:
    # Fault 6: un-squared distance. Reachable by settings, named so.
    config = EVERYTHING.model_copy(update={"norm_squared": False, "norm_scale": "none"})
    objective, teacher = build(item_table, config)
    ours, _ = plain_states(objective.student, PAIRING.student_layers)  # type: ignore[arg-type]
    theirs, _ = plain_states(teacher.model, PAIRING.teacher_layers)
    expected = torch.stack([(s - t).norm(dim=1).mean() for s, t in zip(ours, theirs, strict=True)]).mean()
    assert_close(terms_of(objective, teacher)["norm"], expected)


def test_stored_norms_scale_each_block_by_its_own(item_table: Tensor) -> None:
    objective, teacher = build(item_table, teacher_norms=[2.0, 8.0])
    ours, _ = plain_states(objective.student, PAIRING.student_layers)  # type: ignore[arg-type]
    theirs, _ = plain_states(teacher.model, PAIRING.teacher_layers)
    gaps = [((s - t) ** 2).sum(1).mean() for s, t in zip(ours, theirs, strict=True)]
    assert_close(terms_of(objective, teacher)["norm"], (gaps[0] / 2 + gaps[1] / 8) / 2)


def test_normed_alignment_reads_every_state_through_its_own_models_final_norm(item_table: Tensor) -> None:
    config = EVERYTHING.model_copy(update={"align_at": "normed"})
    objective, teacher = build(item_table, config)
    student = objective.student
    assert isinstance(student, RecommenderModel)
    (inner, last), _ = plain_states(student, PAIRING.student_layers)
    (their_inner, their_last), _ = plain_states(teacher.model, PAIRING.teacher_layers)
    pairs = [(student.normed(inner), teacher.model.normed(their_inner)), (last, their_last)]
    expected = 1 - torch.stack([cosine_similarity(s, t, dim=1).mean() for s, t in pairs]).mean()
    assert_close(terms_of(objective, teacher)["cosine"], expected)


def test_a_teacher_equal_to_the_student_has_no_gap(item_table: Tensor) -> None:
    student = jolted(tiny_model(item_table))
    twin = jolted(tiny_model(item_table))
    pairing = pair_blocks(2, 2, 2)
    objective = Objective(student, EVERYTHING, pairing, teacher_width=32).eval()
    terms = losses_of(terms_of(objective, LiveTeacher(twin, pairing.teacher_layers, "hidden_states")))
    assert [terms[name] for name in ("cosine", "norm", "logit")] == pytest.approx([0, 0, 0], abs=1e-5)


def test_a_teacher_of_another_width_is_met_through_a_projection(item_table: Tensor) -> None:
    objective, _ = build(item_table, teacher_width=20)
    assert isinstance(objective.teacher_projection, nn.Linear)
    wide = torch.randn(2, len(BATCH.targets), 20, generator=torch.Generator().manual_seed(0))
    signal = TeacherSignal({2: wide[0], 4: wide[1]}, torch.zeros(len(BATCH.targets), 6))
    terms = objective(BATCH.item_ids, BATCH.read_mask, BATCH.targets, signal)
    ours, _ = plain_states(objective.student, PAIRING.student_layers)  # type: ignore[arg-type]
    projected = [state @ objective.teacher_projection.weight.T for state in ours]
    cosines = [cosine_similarity(s, t, dim=1).mean() for s, t in zip(projected, wide, strict=True)]
    assert_close(terms["cosine"], 1 - torch.stack(cosines).mean())
    objective.total(terms).backward()
    assert objective.teacher_projection.weight.grad is not None


def test_equal_widths_need_no_projection_and_no_alignment_needs_none_either(item_table: Tensor) -> None:
    assert isinstance(build(item_table)[0].teacher_projection, nn.Identity)
    supervised_alone = DistillationConfig(cosine_weight=0.0, norm_weight=0.0, num_blocks=2)
    assert isinstance(build(item_table, supervised_alone, teacher_width=20)[0].teacher_projection, nn.Identity)


def test_gradients_reach_the_student_and_its_heads_but_no_frozen_teacher(item_table: Tensor) -> None:
    objective, teacher = build(item_table)
    objective.total(terms_of(objective, teacher)).backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.model.parameters())


def online(item_table: Tensor, **changes: Any) -> Objective:
    config = DistillationConfig.model_validate(
        {"mode": "online", "num_blocks": 2, "supervision_weight": 0.0, **changes}
    )
    teacher = jolted(tiny_model(item_table, num_layers=4, seed=5), seed=6)
    student = jolted(tiny_model(item_table))
    return Objective(student, config, PAIRING, teacher_width=32, online_teacher=teacher).eval()


def gradients(objective: Objective, terms: Sequence[str]) -> dict[str, Tensor]:
    found = terms_of(objective, None)
    weighted = {name: value for name, value in found.items() if name in terms}
    objective.zero_grad()
    objective.total(weighted).backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def test_online_alignment_moves_the_student_alone(item_table: Tensor) -> None:
    # Fault 9: in the authors' online mode the teacher was pulled toward the student.
    objective = online(item_table, logit_weight=1.0)
    moved = gradients(objective, ["cosine", "norm", "logit", "next_item"])
    assert moved
    assert all(name.startswith("student.") for name in moved)
    taught = gradients(objective, ["teacher_next_item"])
    assert taught
    assert all(name.startswith("online_teacher.") for name in taught)


@pytest.mark.parametrize("term", ["cosine", "norm", "logit"])
def test_the_authors_setting_pulls_the_teacher_along(item_table: Tensor, term: str) -> None:
    moved = gradients(online(item_table, detach_teacher=False, logit_weight=1.0), [term])
    assert {name.split(".")[0] for name in moved} == {"student", "online_teacher"}


def test_online_total_is_both_cross_entropies_and_the_alignment(item_table: Tensor) -> None:
    objective = online(item_table)
    terms = terms_of(objective, None)
    values = losses_of(terms)
    assert set(values) == {"next_item", "cosine", "norm", "teacher_next_item"}
    _, vectors = plain_states(objective.online_teacher, ())  # type: ignore[arg-type]
    assert values["teacher_next_item"] == pytest.approx(
        cross_entropy(vectors @ item_table[1:].T, BATCH.targets - 1).item(), rel=1e-5
    )
    expected = values["next_item"] + values["teacher_next_item"] + values["cosine"] + 0.1 * values["norm"]
    assert objective.total(terms).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("align_at", ["hidden_states", "normed"])
def test_an_online_teacher_says_what_the_same_model_says_live(item_table: Tensor, align_at: str) -> None:
    objective = online(item_table, align_at=align_at)
    there = losses_of(terms_of(objective, None))
    live = LiveTeacher(jolted(tiny_model(item_table, num_layers=4, seed=5), seed=6), PAIRING.teacher_layers, align_at)  # type: ignore[arg-type]
    config = objective.config.model_copy(update={"mode": "offline"})
    offline = Objective(jolted(tiny_model(item_table)), config, PAIRING, teacher_width=32).eval()
    here = losses_of(terms_of(offline, live))
    for name in ("cosine", "norm", "next_item"):
        assert there[name] == pytest.approx(here[name], rel=1e-5)


CASES: dict[str, dict[str, object]] = {
    "mode": {"mode": "online"},
    "num_blocks": {"num_blocks": 1},
    "teacher_layers": {"teacher_layers": (1, 3)},
    "next_item_weight": {"next_item_weight": 0.5},
    "cosine_weight": {"cosine_weight": 0.5},
    "norm_weight": {"norm_weight": 0.5},
    "supervision_weight": {"supervision_weight": 0.5},
    "logit_weight": {"logit_weight": 0.25},
    "temperature": {"temperature": 1.0},
    "align_at": {"align_at": "normed"},
    "norm_scale": {"norm_scale": "none"},
    "norm_squared": {"norm_squared": False},
    "block_reduction": {"block_reduction": "sum"},
    "supervision_read": {"supervision_read": "raw"},
}
ELSEWHERE = {
    "detach_teacher": test_the_authors_setting_pulls_the_teacher_along,
    # Where states come from, not what they are: StoredTeacher equals LiveTeacher, in test_teacher.py.
    "teacher_states": None,
    # Whose states come: in test_teacher.py.
    "teacher_users": None,
}


def test_every_setting_has_a_case() -> None:
    assert set(CASES) | set(ELSEWHERE) == set(DistillationConfig.model_fields)


@pytest.mark.parametrize("name", CASES)
def test_every_setting_has_an_effect(item_table: Tensor, name: str) -> None:
    objective, teacher = build(item_table)
    before = objective.total(terms_of(objective, teacher)).item()
    changed = EVERYTHING.model_copy(update=CASES[name])
    options: dict[str, Any] = {}
    if name == "mode":
        options["online_teacher"] = jolted(tiny_model(item_table, num_layers=4, seed=5), seed=6)
    objective, teacher = build(item_table, changed, **options)
    after = objective.total(terms_of(objective, teacher)).item()
    assert abs(after - before) > 1e-4


def test_losses_name_their_absence_by_none() -> None:
    assert DistillationLosses(next_item=torch.zeros(())).present().keys() == {"next_item"}
    assert set(DistillationConfig().weights()) == set(vars(DistillationLosses()))


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_alignment_alone_brings_the_students_blocks_to_the_teachers(item_table: Tensor, mode: str) -> None:
    # Distillation is really on: without the cross entropy, states move from far apart to nearly the same.
    config = DistillationConfig.model_validate(
        {"mode": mode, "next_item_weight": 0.0, "norm_weight": 0.0, "supervision_weight": 0.0, "num_blocks": 2}
    )
    teacher = jolted(tiny_model(item_table, tuning="full", seed=5), seed=6).requires_grad_(mode == "online")
    student = jolted(tiny_model(item_table, tuning="full"))
    pairing = pair_blocks(2, 2, 2)
    objective = Objective(
        student, config, pairing, teacher_width=32, online_teacher=teacher if mode == "online" else None
    )
    live = LiveTeacher(teacher, pairing.teacher_layers, "hidden_states") if mode == "offline" else None
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        terms = terms_of(objective, live)
        history.append(terms["cosine"].item())
        optimizer.zero_grad()
        objective.total(terms).backward()
        optimizer.step()
    assert history[0] > 0.5
    assert history[-1] < 0.05
