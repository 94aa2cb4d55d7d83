"""Laws of what users call: raw ids in, raw ids out, and a saved model that is the same model."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from slmrec_core.data import SequenceDataset
from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.recommender import Recommender
from slmrec_core.structures import HiddenStates
from tests.tiny import GPT2, jolted, tiny_model, write_config, write_model_directory

CATALOGUE = ["", *(f"item-{index}" for index in range(1, 13))]
HISTORIES = [["item-3", "item-5"], ["item-1"], [f"item-{index}" for index in (2, 4, 6, 8, 10, 12, 1)]]


def sasrec() -> SASRec:
    torch.manual_seed(0)
    return SASRec(SASRecConfig(item_dim=8), 12, 5)


def llm(item_table: Tensor, **settings: object) -> Recommender:
    return Recommender(jolted(tiny_model(item_table, **settings)), CATALOGUE, 5, {"seed": 3})  # type: ignore[arg-type]


BUILDERS: dict[str, Callable[[Tensor], Recommender]] = {
    "sasrec": lambda table: Recommender(sasrec(), CATALOGUE, 5, {"seed": 3}),
    "lora": llm,
    "full": lambda table: llm(table, tuning="full"),
    "bf16": lambda table: llm(table, dtype=torch.bfloat16),
    "bf16 full": lambda table: llm(table, dtype=torch.bfloat16, tuning="full"),
    "response": lambda table: llm(table, pooling="response", template="alpaca"),
    "no layers": lambda table: llm(table, num_layers=0),
    "merged": lambda table: llm(table).merge_lora(),
    "merged bf16": lambda table: llm(table, dtype=torch.bfloat16).merge_lora(),
    "every": lambda table: llm(table, layer_choice="every", lora_rank=2, lora_alpha=5),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_saved_model_gives_the_same_scores(item_table: Tensor, tmp_path: Path, kind: str) -> None:
    before = BUILDERS[kind](item_table)
    before.save_pretrained(tmp_path / "model")
    after = Recommender.from_pretrained(tmp_path / "model")
    one, other = (r.recommend(HISTORIES, k=12, exclude_seen=False) for r in (before, after))
    assert one.item_ids == other.item_ids
    assert np.array_equal(one.scores, other.scores)
    assert (list(after.item_ids), after.max_seq_len, after.metadata) == (CATALOGUE, 5, {"seed": 3})
    assert after.network.parameter_counts() == before.network.parameter_counts()
    assert type(after.network) is type(before.network)
    assert after.network.config == before.network.config


@pytest.mark.parametrize("place", ["", "model", "artifacts/model"])
def test_a_stage_or_a_logged_model_loads_as_the_model_in_it(item_table: Tensor, tmp_path: Path, place: str) -> None:
    before = llm(item_table)
    before.save_pretrained(tmp_path / place)
    after = Recommender.from_pretrained(tmp_path)
    assert np.array_equal(after.recommend(HISTORIES).scores, before.recommend(HISTORIES).scores)


@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_a_merged_model_answers_as_before_without_an_operation_of_lora(
    item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    if backbone == "gpt2":
        write_model_directory(tmp_path / "gpt2", GPT2)
        monkeypatch.setattr("tests.tiny.open_backbone", lambda name: _without_tokenizer(tmp_path / "gpt2"))
    plain, merged = llm(item_table, lora_alpha=7, lora_rank=3), llm(item_table, lora_alpha=7, lora_rank=3).merge_lora()
    assert not [name for name, _ in merged.network.named_parameters() if "lora" in name]
    one, other = (r.recommend(HISTORIES, k=12, exclude_seen=False).scores for r in (plain, merged))
    np.testing.assert_allclose(one, other, atol=1e-5)
    untouched = Recommender(tiny_model(item_table), CATALOGUE, 5).recommend(HISTORIES, k=12, exclude_seen=False).scores
    assert np.abs(untouched - other).max() > 1e-3


@pytest.mark.parametrize("kind", ["sasrec", "full", "no layers"])
def test_without_updates_there_is_nothing_to_merge(item_table: Tensor, kind: str) -> None:
    plain, merged = BUILDERS[kind](item_table), BUILDERS[kind](item_table).merge_lora()
    assert np.array_equal(plain.recommend(HISTORIES).scores, merged.recommend(HISTORIES).scores)


def test_a_saved_model_is_loaded_without_a_word(
    item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llm(item_table).save_pretrained(tmp_path / "model")
    # The loggers of transformers end at their own handler.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    Recommender.from_pretrained(tmp_path / "model")
    assert caplog.text == ""


def test_another_architecture_is_saved_whole(item_table: Tensor, tmp_path: Path) -> None:
    write_model_directory(tmp_path / "gpt2", GPT2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.tiny.open_backbone", lambda name: _without_tokenizer(tmp_path / "gpt2"))
        before = llm(item_table)
    before.save_pretrained(tmp_path / "model")
    after = Recommender.from_pretrained(tmp_path / "model")
    assert np.array_equal(before.recommend(HISTORIES).scores, after.recommend(HISTORIES).scores)


def _without_tokenizer(directory: Path) -> object:
    from slmrec_core.models.backbone import Backbone, open_backbone  # noqa: PLC0415  # the fixture patches its user

    return Backbone("x", open_backbone(str(directory)).config, None)


@pytest.mark.parametrize("kind", ["sasrec", "lora"])
def test_nothing_is_pickled_and_no_backbone_is_needed(item_table: Tensor, tmp_path: Path, kind: str) -> None:
    BUILDERS[kind](item_table).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", "config.json", "items.json", "model.safetensors"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format_version"] == 4
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()


def test_code_named_in_a_model_directory_is_never_run(item_table: Tensor, tmp_path: Path) -> None:
    llm(item_table).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["decoder"]["auto_map"] = {"AutoModel": "evil.Model"}
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    write_config(tmp_path, config)
    assert Recommender.from_pretrained(tmp_path).recommend(HISTORIES).item_ids


@pytest.mark.parametrize("kind", ["sasrec", "lora"])
@pytest.mark.parametrize("file", ["config.json", "items.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "list"])
def test_a_damaged_model_is_named(item_table: Tensor, tmp_path: Path, kind: str, file: str, damage: str) -> None:
    BUILDERS[kind](item_table).save_pretrained(tmp_path)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "list": b"[]"}[damage])
    with pytest.raises(CheckpointError, match="save_pretrained"):
        Recommender.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["sasrec", "lora"])
def test_every_key_of_the_config_is_needed_and_none_of_another_type_passes(
    item_table: Tensor, tmp_path: Path, kind: str
) -> None:
    BUILDERS[kind](item_table).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in config:
        for changed in ({k: v for k, v in config.items() if k != key}, {**config, key: None}):
            if key in ("metadata", "max_seq_len") and key in changed:
                continue
            write_config(tmp_path, changed)
            with pytest.raises(CheckpointError):
                Recommender.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"max_seq_len": 4}, {"metadata": {}}, {"kind": "sasrec"}, {"more": 1}], ids=str)
def test_a_changed_setting_is_noticed_by_its_hash(item_table: Tensor, tmp_path: Path, change: dict[str, Any]) -> None:
    llm(item_table).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    # Other line breaks are no change.
    (tmp_path / "config.json").write_text(json.dumps(config))
    Recommender.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=r"config\.json must have the SHA-256 that save_pretrained noted"):
        Recommender.from_pretrained(tmp_path)


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Another file under a hash that fits, as a faulty writer would leave it."""
    (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["files"][name] = hashlib.sha256(content).hexdigest()
    write_config(folder, config)


def test_a_missing_or_misshapen_tensor_is_damage(item_table: Tensor, tmp_path: Path) -> None:
    llm(item_table).save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    for name in ("item_table", "output_projection.weight", "decoder.norm.weight"):
        rewrite(tmp_path, "model.safetensors", save({k: v for k, v in whole.items() if k != name}))
        with pytest.raises(CheckpointError):
            Recommender.from_pretrained(tmp_path)
        rewrite(tmp_path, "model.safetensors", save({**whole, name: torch.zeros(2, 2)}))
        with pytest.raises(CheckpointError):
            Recommender.from_pretrained(tmp_path)


def test_a_catalogue_of_another_length_than_the_table_is_damage(item_table: Tensor, tmp_path: Path) -> None:
    llm(item_table).save_pretrained(tmp_path)
    rewrite(tmp_path, "items.json", json.dumps({"item_ids": ["a", "b"], "titles": None, "counts": None}).encode())
    with pytest.raises(CheckpointError, match="2 items for 13 rows"):
        Recommender.from_pretrained(tmp_path)


def test_a_newer_format_is_refused_before_its_files_are_read(item_table: Tensor, tmp_path: Path) -> None:
    llm(item_table).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 5}))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="format_version must be 2 to 4, got 5. Use the version of slmrec that wrote it"
    ):
        Recommender.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["sasrec", "lora"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_model_of_an_older_format_is_still_read(item_table: Tensor, tmp_path: Path, kind: str, version: int) -> None:
    before = BUILDERS[kind](item_table)
    before.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["files"]["config.json"]
    if version == 2:
        config.pop("weight_format", None)
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": version}))
    after = Recommender.from_pretrained(tmp_path)
    assert np.array_equal(after.recommend(HISTORIES).scores, before.recommend(HISTORIES).scores)


@pytest.mark.parametrize("kind", ["sasrec", "lora", "response"])
def test_a_history_alone_gives_what_it_gives_in_a_batch(item_table: Tensor, kind: str) -> None:
    recommender = BUILDERS[kind](item_table)
    together = recommender.recommend(HISTORIES, k=4)
    for row, history in enumerate(HISTORIES):
        alone = recommender.recommend([history], k=4)
        assert alone.item_ids[0] == together.item_ids[row]
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sasrec", "lora"])
def test_many_histories_are_read_in_several_passes_with_the_same_result(
    item_table: Tensor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recommender = BUILDERS[kind](item_table)
    many = (HISTORIES * 200)[:520]
    passes: list[int] = []
    forward = recommender.network.forward

    def counted(item_ids: Tensor, read_mask: Tensor) -> HiddenStates:
        passes.append(len(item_ids))
        return forward(item_ids, read_mask)

    monkeypatch.setattr(recommender.network, "forward", counted)
    found = recommender.recommend(many, k=4)
    assert passes == [256, 256, 8]
    monkeypatch.setattr("slmrec_core.recommender._ROWS_PER_PASS", 1000)
    whole = recommender.recommend(many, k=4)
    assert found.item_ids == whole.item_ids
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-4, atol=1e-5)


def test_the_newest_items_are_read_and_all_are_left_out(item_table: Tensor) -> None:
    recommender = llm(item_table)
    longer, same = HISTORIES[2], ["item-9", *HISTORIES[2][-5:]]
    one, other = (recommender.recommend([h], k=12, exclude_seen=False) for h in (longer, same))
    assert one.item_ids == other.item_ids
    assert not set(recommender.recommend([longer], k=12).item_ids[0]) & set(longer)


def test_seen_items_come_back_when_asked_for(item_table: Tensor) -> None:
    recommender = llm(item_table)
    best = recommender.recommend(HISTORIES, k=12, exclude_seen=False)
    assert all(sorted(row) == sorted(CATALOGUE[1:]) for row in best.item_ids)
    unseen = recommender.recommend(HISTORIES, k=12)
    for history, everything, rest in zip(HISTORIES, best.item_ids, unseen.item_ids, strict=True):
        assert rest == [item for item in everything if item not in history]


def test_scores_fall_and_padding_is_never_recommended(item_table: Tensor) -> None:
    found = llm(item_table).recommend(HISTORIES, k=50)
    assert found.scores.shape == (3, 12)
    assert all(CATALOGUE[0] not in row for row in found.item_ids)
    for row, scores in zip(found.item_ids, found.scores, strict=True):
        assert (np.diff(scores[: len(row)]) <= 0).all()
        assert np.isneginf(scores[len(row) :]).all()


def test_ranks_follow_the_scores_and_ties_count_against_an_item(item_table: Tensor) -> None:
    recommender = llm(item_table)
    best = recommender.recommend(HISTORIES, k=12, exclude_seen=False).item_ids
    ranks = recommender.rank(HISTORIES, [[row[6], row[0], row[11]] for row in best])
    assert [list(row) for row in ranks] == [[2, 1, 3]] * 3
    assert list(recommender.rank([["item-1"]], [["item-2", "item-2", "item-2"]])[0]) == [3, 3, 3]


def test_numbers_are_taken_for_ids(item_table: Tensor) -> None:
    recommender = Recommender(sasrec(), ["", *(str(index) for index in range(1, 13))], 5)
    assert recommender.recommend([[3, 5]]).item_ids == recommender.recommend([["3", "5"]]).item_ids


def counted(table: Tensor) -> Recommender:
    counts = [0, *range(12, 0, -1)]
    titles = ["", *(f"The {index}th" for index in range(1, 13))]
    return Recommender(jolted(tiny_model(table)), CATALOGUE, 5, {"seed": 3}, titles, counts)


def test_items_that_the_catalogue_lacks_are_left_out_and_reported(
    item_table: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    recommender = llm(item_table)
    with caplog.at_level("INFO"):
        found = recommender.recommend([["item-3", "item-99", "", "item-5"], ["item-1"]])
    assert found.unknown_items == [["item-99", ""], []]
    assert found.by_popularity == [False, False]
    assert "1 of 2 histories hold items that the catalogue lacks" in caplog.text
    plain = recommender.recommend([["item-3", "item-5"], ["item-1"]])
    assert found.item_ids == plain.item_ids
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)


def test_an_empty_history_gets_what_most_users_chose_and_that_is_said(item_table: Tensor) -> None:
    recommender = counted(item_table)
    found = recommender.recommend([["item-2"], [], ["item-99"]], k=3)
    assert found.by_popularity == [False, True, True]
    assert found.item_ids[1] == found.item_ids[2] == ["item-1", "item-2", "item-3"]
    assert found.scores[1].tolist() == [12.0, 11.0, 10.0]
    assert found.item_ids[0] == recommender.recommend([["item-2"]], k=3).item_ids[0]
    assert list(recommender.rank([[]], [["item-9", "item-2"]])[0]) == [2, 1]
    session = recommender.session()
    assert session.recommend(k=3).item_ids == [["item-1", "item-2", "item-3"]]
    session.append("item-2")
    assert session.recommend(k=3).item_ids == found.item_ids[:1]


@pytest.mark.parametrize("history", [[], ["item-99"]])
def test_without_counts_an_empty_history_is_a_data_error(item_table: Tensor, history: list[str]) -> None:
    recommender = llm(item_table)
    for ask in (
        lambda: recommender.recommend([["item-1"], history]),
        lambda: recommender.rank([["item-1"], history], [["item-1"]] * 2),
        lambda: recommender.embed_users([["item-1"], history]),
    ):
        with pytest.raises(DataError, match="row 1 must hold a known item"):
            ask()


@pytest.mark.parametrize("items", [[], ["item-1", "item-99"]])
def test_candidates_and_allowed_items_must_be_known(item_table: Tensor, items: list[str]) -> None:
    recommender = llm(item_table)
    with pytest.raises(DataError, match=r"row 1 of the candidates must hold known items"):
        recommender.rank([["item-1"], ["item-1"]], [["item-1"], items])
    with pytest.raises(DataError, match=r"allowed_items must hold known items"):
        recommender.recommend([["item-1"]], allowed_items=items)


def test_nothing_but_allowed_items_is_recommended(item_table: Tensor) -> None:
    recommender = counted(item_table)
    allowed = ["item-4", "item-7", "item-9"]
    found = recommender.recommend([["item-3"], ["item-4"], []], k=10, allowed_items=allowed)
    everything = recommender.recommend([["item-3"]], k=12).item_ids[0]
    assert found.item_ids[0] == [item for item in everything if item in allowed]
    assert sorted(found.item_ids[1]) == ["item-7", "item-9"], "seen ones stay out"
    assert found.item_ids[2] == ["item-4", "item-7", "item-9"]
    session = recommender.session(["item-3"])
    assert session.recommend(k=10, allowed_items=allowed).item_ids == found.item_ids[:1]


@pytest.mark.parametrize("kind", ["sasrec", "lora", "bf16"])
def test_user_vectors_give_the_scores(item_table: Tensor, kind: str) -> None:
    recommender = BUILDERS[kind](item_table)
    vectors = recommender.embed_users(HISTORIES)
    assert vectors.dtype == np.float32
    table = recommender.network.item_table.detach().numpy()
    best = recommender.recommend(HISTORIES, k=1, exclude_seen=False)
    np.testing.assert_allclose((vectors @ table[1:].T).max(axis=1), best.scores[:, 0], rtol=1e-5)


def test_titles_and_counts_are_saved(item_table: Tensor, tmp_path: Path) -> None:
    before = counted(item_table)
    before.save_pretrained(tmp_path)
    after = Recommender.from_pretrained(tmp_path)
    assert after.catalogue == before.catalogue
    assert after.recommend([[]], k=2).item_ids == [["item-1", "item-2"]]


def test_saving_over_a_model_leaves_a_whole_one_and_nothing_beside_it(
    item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm(item_table).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("my own words")
    good = Recommender.from_pretrained(tmp_path).recommend(HISTORIES).scores
    monkeypatch.setattr(
        "slmrec_core.model_files.json.dumps", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        counted(item_table).save_pretrained(tmp_path)
    monkeypatch.undo()
    assert np.array_equal(Recommender.from_pretrained(tmp_path).recommend(HISTORIES).scores, good)
    counted(item_table).save_pretrained(tmp_path)
    assert Recommender.from_pretrained(tmp_path).catalogue.counts is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "config.json", "items.json", "model.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "README.md").read_text() == "my own words"


@pytest.mark.parametrize("file", ["items.json", "model.safetensors"])
def test_an_altered_file_is_noticed_by_its_hash(item_table: Tensor, tmp_path: Path, file: str) -> None:
    llm(item_table).save_pretrained(tmp_path / "a")
    counted(item_table).save_pretrained(tmp_path / "b")
    jolted(tiny_model(item_table, seed=5))
    other = Recommender(jolted(tiny_model(item_table, seed=5)), [*CATALOGUE[:-1], "other"], 5)
    other.save_pretrained(tmp_path / "b")
    (tmp_path / "a" / file).write_bytes((tmp_path / "b" / file).read_bytes())
    with pytest.raises(CheckpointError, match=f"{file} must have the SHA-256 that save_pretrained noted"):
        Recommender.from_pretrained(tmp_path / "a")


def test_a_repository_of_the_hub_is_fetched_and_pushed(
    item_table: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a hub: what is asked of its client is what counts.
    llm(item_table).save_pretrained(tmp_path / "there")
    asked: list[tuple[str, dict[str, object]]] = []

    def fetched(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(tmp_path / "there")

    monkeypatch.setattr("slmrec_core.recommender.snapshot_download", fetched)
    model = Recommender.from_pretrained("someone/student", revision="v1")
    assert asked == [("someone/student", {"revision": "v1"})]
    pushed: list[str] = []
    monkeypatch.setattr(Recommender, "push_to_hub", lambda self, repo_id, **options: pushed.append(repo_id) or "url")
    assert model.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="me/student") == "url"
    assert pushed == ["me/student"]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "library_name: slmrec" in card
    assert "slm.Recommender.from_pretrained" in card


def test_what_is_neither_a_directory_nor_on_the_hub_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"no such directory, and the hub gave none"):
        Recommender.from_pretrained("no/where")
    with pytest.raises(CheckpointError, match="there is no such directory"):
        Recommender.from_pretrained(tmp_path / "nowhere")


def test_no_histories_give_no_recommendations(item_table: Tensor) -> None:
    found = llm(item_table).recommend([], k=3)
    assert (found.item_ids, found.scores.shape) == ([], (0, 3))
    assert llm(item_table).rank([], []) == []


def test_a_list_of_candidates_belongs_to_each_history(item_table: Tensor) -> None:
    with pytest.raises(DataError, match="got 2 histories and 1 lists"):
        llm(item_table).rank([["item-1"], ["item-2"]], [["item-3"]])


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True, None])
def test_k_must_be_a_whole_number_from_one_on(item_table: Tensor, monkeypatch: pytest.MonkeyPatch, k: Any) -> None:
    # Types are checked in tests alone, before ours.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=f"k must be a whole number, at least 1, got {k!r}"):
        llm(item_table).recommend(HISTORIES, k=k)
    assert len(llm(item_table).recommend(HISTORIES, k=np.int64(2)).item_ids[0]) == 2


def test_a_text_is_no_list_of_items(item_table: Tensor) -> None:
    # Letter by letter it would be a history of unknown items, which is answered by popularity.
    model, text = llm(item_table), "item-3"
    asked: list[Callable[[], object]] = [
        lambda: model.recommend(text),
        lambda: model.recommend([text, "item-5"]),
        lambda: model.rank([text], [["item-1"]]),
        lambda: model.rank([["item-1"]], [text]),
        lambda: model.embed_users([text]),
        lambda: model.session(text),
        lambda: model.recommend(HISTORIES, allowed_items=text),
    ]
    for ask in asked:
        with pytest.raises(DataError, match="must be a list of (lists of )?raw item ids, got .*'item-3'"):
            ask()


def test_nothing_is_saved_in_the_place_of_something_else(item_table: Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"port": 80}')
    for name, got in {"file": "got a file", "other": r"got a config\.json of something else"}.items():
        with pytest.raises(ConfigError, match=got):
            llm(item_table).save_pretrained(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["config.json"]


def test_who_may_read_one_file_of_a_model_may_read_all(item_table: Tensor, tmp_path: Path) -> None:
    llm(item_table).save_pretrained(tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_recommender_of_a_data_set_has_its_catalogue(tiny_dataset: SequenceDataset) -> None:
    model = Recommender.of_dataset(SASRec(SASRecConfig(item_dim=8), tiny_dataset.num_items, 5), tiny_dataset, 5)
    assert list(model.item_ids) == list(tiny_dataset.item_ids)
    assert model.catalogue.titles == (None if tiny_dataset.titles is None else tuple(tiny_dataset.titles))
    assert model.catalogue.counts == tuple(tiny_dataset.train_counts.tolist())


def test_a_recommender_draws_no_dropout(item_table: Tensor) -> None:
    recommender = llm(item_table, input_dropout=0.5)
    assert np.array_equal(recommender.recommend(HISTORIES).scores, recommender.recommend(HISTORIES).scores)


def test_an_item_whose_score_is_not_a_number_is_not_recommended(item_table: Tensor) -> None:
    # topk puts NaN first, so whoever cuts its list short would keep the wrong end.
    model = llm(item_table)
    model.network.item_table[4] = torch.nan
    (best,) = model.recommend([["item-1"]], k=12).item_ids
    assert sorted(best) == sorted(set(CATALOGUE) - {"", "item-1", "item-4"})
