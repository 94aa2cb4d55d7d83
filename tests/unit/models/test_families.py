"""Every family of decoders goes the whole way: trained, distilled, probed, saved, loaded, asked event by event."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from slmrec_core.distillation.blocks import pair_blocks
from slmrec_core.distillation.config import CROSS_ENTROPY_ALONE, DistillationConfig
from slmrec_core.distillation.objective import Objective
from slmrec_core.distillation.teacher import LiveTeacher, NoTeacher, Teacher
from slmrec_core.models.backbone import Backbone, open_backbone
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.recommender import Recommender
from slmrec_core.training.config import TrainingConfig
from slmrec_core.training.engine import SingleProcessEngine
from slmrec_core.training.probe import LayerProbe
from tests.tiny import jolted, some_batch, write_model_directory

DOCS = Path(__file__).parents[3] / "docs" / "backbones.md"
DEPTH = 3
BATCH = some_batch(num_users=4, seq=6)
LAST = BATCH.read_mask & (BATCH.read_mask.cumsum(dim=1) == BATCH.read_mask.sum(dim=1, keepdim=True))
ITEMS = [f"i{n}" for n in range(1, 13)]
WINDOW = 5
"""Items that a model reads at most."""


def rotary(kind: str, width: int, **more: object) -> dict[str, object]:
    """The settings that Llama's relatives share."""
    shape = {"vocab_size": 256, "hidden_size": width, "intermediate_size": 24, "num_hidden_layers": DEPTH}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    return written_out({"model_type": kind, **shape, **heads, **more})


def written_out(settings: dict[str, object]) -> dict[str, object]:
    """The config.json that transformers writes for these settings."""
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    text: str = transformers.AutoConfig.for_model(**{**settings, **tokens}).to_json_string()
    config: dict[str, object] = json.loads(text)
    return config


def gpt2(width: int, **more: object) -> dict[str, object]:
    shape = {"vocab_size": 256, "n_embd": width, "n_layer": DEPTH, "n_head": 2, "n_positions": 128}
    return written_out({"model_type": "gpt2", **shape, **more})


def gpt_neox(width: int) -> dict[str, object]:
    shape = {"vocab_size": 256, "hidden_size": width, "intermediate_size": 24, "num_hidden_layers": DEPTH}
    return written_out({"model_type": "gpt_neox", **shape, "num_attention_heads": 2})


FAMILIES: dict[str, Callable[[int], dict[str, object]]] = {
    "Llama": lambda width: rotary("llama", width),
    "Qwen2": lambda width: rotary("qwen2", width),
    "Qwen3": lambda width: rotary("qwen3", width),
    "Mistral": lambda width: rotary("mistral", width, sliding_window=None),
    "Gemma": lambda width: rotary("gemma", width),
    "Gemma 2": lambda width: rotary("gemma2", width, sliding_window=512),
    "Gemma 3, text": lambda width: rotary("gemma3_text", width, sliding_window=512, sliding_window_pattern=2),
    "GPT-2": gpt2,
    "GPT-NeoX": gpt_neox,
}
NARROW = {
    # A window that histories do not fit: the plain path, whatever the architecture can do besides.
    "Mistral, window 8": lambda width: rotary("mistral", width, sliding_window=8),
    "Gemma 3, window 8": lambda width: rotary("gemma3_text", width, sliding_window=8, sliding_window_pattern=2),
}
TEACHER_OF = dict(zip(FAMILIES, [*FAMILIES][4:] + [*FAMILIES][:4], strict=True))


@dataclass(frozen=True)
class Directories:
    """Model directories of random weights, written when they are first asked for."""

    root: Path

    def model(self, name: str, table: Tensor, width: int = 16, seed: int = 0, **settings: object) -> RecommenderModel:
        """A recommender of two layers on a family."""
        dtype = settings.pop("dtype", torch.float32)
        assert isinstance(dtype, torch.dtype)
        config = RecommenderConfig.model_validate({"num_layers": 2, "lora_rank": 4, **settings})
        backbone = open_backbone(str(self._folder(name, width)))
        torch.manual_seed(seed)
        return RecommenderModel.from_backbone(config, backbone, table, dtype).eval()

    def _folder(self, name: str, width: int) -> Path:
        folder = self.root / f"{name}-{width}"
        if not folder.exists():
            write_model_directory(folder, {**FAMILIES, **NARROW}[name](width), seed=width)
            # As real directories do; Gemma's own class asks for tokens that ours has not.
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        return folder


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    return Directories(tmp_path_factory.mktemp("families"))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[*FAMILIES, *NARROW])
def any_family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trained(objective: Objective, teacher: Teacher, steps: int = 5) -> tuple[dict[str, float], dict[str, float]]:
    """The terms on one batch before and after some steps on it."""
    engine = SingleProcessEngine(objective, TrainingConfig(precision="fp32"))

    def terms() -> dict[str, float]:
        objective.eval()
        with torch.no_grad():
            found = engine.forward(BATCH, teacher.signal(BATCH))
        total = objective.total(found)
        return {**{name: float(value) for name, value in found.items()}, "total": float(total)}

    before = terms()
    for _ in range(steps):
        objective.train()
        engine.backward(objective.total(engine.forward(BATCH, teacher.signal(BATCH))))
        engine.step(1e-2)
    return before, terms()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_few_steps_lower_the_loss_and_move_every_layer(
    directories: Directories, family: str, item_table: Tensor, tuning: str
) -> None:
    model = directories.model(family, item_table, tuning=tuning)
    start = {name: parameter.detach().clone() for name, parameter in model.decoder.named_parameters()}
    before, after = trained(Objective(model, CROSS_ENTROPY_ALONE), NoTeacher())
    assert after["next_item"] < before["next_item"] - 0.1
    moved = {name for name, value in model.decoder.named_parameters() if not torch.equal(value, start[name])}
    if tuning == "lora":
        assert all(".mlp." in name and ".lora_" in name for name in moved)
    for layer in (0, 1):
        assert any(f".{layer}.mlp." in name for name in moved)


def test_a_teacher_of_another_family_and_width_is_followed(
    directories: Directories, family: str, item_table: Tensor, tmp_path: Path
) -> None:
    student = directories.model(family, item_table)
    teacher = jolted(directories.model(TEACHER_OF[family], item_table, width=24, seed=3, num_layers=DEPTH))
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    config = DistillationConfig(num_blocks=2, logit_weight=0.5)
    pairing = pair_blocks(2, DEPTH, 2)
    objective = Objective(student, config, pairing, teacher_width=teacher.hidden_size)
    assert [tuple(p.shape) for p in objective.teacher_projection.parameters()] == [(24, 16)]
    before, after = trained(objective, LiveTeacher(teacher, pairing.teacher_layers, config.align_at))
    for term in ("next_item", "cosine", "norm", "supervision", "logit"):
        assert after[term] < before[term], term
    assert_close(teacher.state_dict(), kept, atol=0.0, rtol=0.0)
    # The projection that let the widths differ is no part of what is kept.
    Recommender(student, ["", *ITEMS], WINDOW).save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "teacher" in name]


@pytest.mark.parametrize("name", ["Gemma 3, text", "GPT-2"])
def test_an_online_teacher_may_be_of_another_family(directories: Directories, name: str, item_table: Tensor) -> None:
    student = directories.model(name, item_table)
    teacher = directories.model("Qwen3", item_table, width=24, seed=3, num_layers=DEPTH)
    config = DistillationConfig(mode="online", num_blocks=1)
    objective = Objective(student, config, pair_blocks(2, DEPTH, 1), teacher_width=24, online_teacher=teacher)
    before, after = trained(objective, NoTeacher())
    for term in ("next_item", "teacher_next_item", "cosine"):
        assert after[term] < before[term], term


def test_a_probe_reads_at_each_layer_what_a_model_of_that_depth_gives(
    directories: Directories, any_family: str, item_table: Tensor
) -> None:
    model = directories.model(any_family, item_table, num_layers=DEPTH, tuning="full")
    with torch.no_grad():
        readouts = LayerProbe(model)(BATCH)
    assert len(readouts) == DEPTH + 1
    for depth, read in enumerate(readouts):
        cut = directories.model(any_family, item_table, num_layers=depth, tuning="full")
        cut.input_projection.load_state_dict(model.input_projection.state_dict())
        cut.output_projection.load_state_dict(model.output_projection.state_dict())
        with torch.no_grad():
            expected = cut(BATCH.item_ids, BATCH.read_mask).user_vectors
        assert_close(read, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
def test_a_saved_model_gives_the_same_scores(
    directories: Directories, family: str, item_table: Tensor, tmp_path: Path, merged: bool
) -> None:
    model = Recommender(jolted(directories.model(family, item_table)), ["", *ITEMS], WINDOW)
    histories = [ITEMS[:3], ITEMS[4:5]]
    expected = model.recommend(histories, k=12, exclude_seen=False)
    (model.merge_lora() if merged else model).save_pretrained(tmp_path)
    found = Recommender.from_pretrained(tmp_path).recommend(histories, k=12, exclude_seen=False)
    # Merged weights are the same sums in another order.
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0.0, atol=1e-4 if merged else 0.0)
    assert found.item_ids == expected.item_ids


@pytest.mark.parametrize("pooling", ["item", "response"])
def test_a_session_answers_as_the_whole_history_does(
    directories: Directories, any_family: str, item_table: Tensor, pooling: str
) -> None:
    network = jolted(directories.model(any_family, item_table, pooling=pooling))
    model = Recommender(network, ["", *ITEMS], WINDOW)
    # Six events over a window of five: the last request is beyond it.
    events = [ITEMS[n] for n in (0, 3, 5, 3, 1, 8)]
    session = model.session(events[:2])
    for seen in range(2, len(events) + 1):
        ours = session.recommend(k=12, exclude_seen=False)
        whole = model.recommend([events[:seen]], k=12, exclude_seen=False)
        np.testing.assert_allclose(ours.scores, whole.scores, atol=1e-4)
        assert ours.item_ids == whole.item_ids
        if seen < len(events):
            session.append(events[seen])


def one_at_a_time(model: RecommenderModel) -> tuple[dict[int, Tensor], Tensor]:
    """States and user vectors of `BATCH`'s last items by transformers alone: each history as a row without padding."""
    states: dict[int, list[Tensor]] = {depth: [] for depth in range(3)}
    opening = model.prompt_vectors.weight
    model.decoder.set_attn_implementation("eager")  # type: ignore[operator]
    for row in BATCH.item_ids:
        items = model.input_projection(model.item_table[row[row != 0]])
        inputs = torch.cat([opening, items])[None]
        output = model.decoder(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        for depth, state in enumerate(output.hidden_states):
            states[depth].append(state[0, -1])
    model._kernel = None
    found = {depth: torch.stack(rows) for depth, rows in states.items()}
    return found, model.project(found[2])


def test_padding_packing_and_a_last_mlp_that_is_run_where_it_is_read_change_nothing(
    directories: Directories, any_family: str, item_table: Tensor
) -> None:
    model = jolted(directories.model(any_family, item_table))
    wider = nn.functional.pad(BATCH.item_ids, (0, 3)), nn.functional.pad(LAST, (0, 3))
    results = []
    for way in ("alone", "fast", "padded", "plain"):
        if way == "plain":
            model._can_pack, model._last_mlp, model._kernel = False, None, None
        model.zero_grad()
        if way == "alone":
            states, vectors = one_at_a_time(model)
        else:
            output = model(*(wider if way == "padded" else (BATCH.item_ids, LAST)), (0, 1, 2))
            states, vectors = output.layers, output.user_vectors
        (vectors.square().sum() + sum(state.sin().sum() for state in states.values())).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((vectors.detach(), {depth: state.detach() for depth, state in states.items()}, gradients))
        if way == "fast":
            assert model._layout(BATCH.item_ids).is_packed is (any_family in FAMILIES)
            assert model._last_mlp is not None
    for found in results[1:]:
        assert_close(found, results[0], rtol=1e-4, atol=1e-4)


def test_bfloat16_gives_nearly_the_same_users(directories: Directories, family: str, item_table: Tensor) -> None:
    exact, rounded = (
        directories.model(family, item_table, dtype=dtype)(BATCH.item_ids, LAST).user_vectors
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (rounded - exact).norm() / exact.norm() < 0.05
    rounded.sum().backward()


def facts(config: dict[str, object], table: Tensor) -> list[str]:
    """What the table of docs/backbones.md says of a family: model_type, what LoRA trains, packing, sessions."""
    model = RecommenderModel.from_backbone(RecommenderConfig(num_layers=2), Backbone("x", config, None), table)
    updated = {n.split(".mlp.")[1].split(".lora_")[0] for n, _ in model.named_parameters() if ".lora_" in n}
    maps = ", ".join(f"`{name}`" for name in sorted(updated))
    continues = "read on" if model.can_continue else "read anew"
    return [f"`{config['model_type']}`", maps, "packed" if model._can_pack else "one each", continues]


def test_the_documentation_says_of_each_family_what_is_so(item_table: Tensor) -> None:
    rows = [line.strip("|").split("|") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    written = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[1:] if len(row) == 5}
    written.pop("---", None)
    assert written == {name: facts(config(16), item_table) for name, config in FAMILIES.items()}
