"""The stage store: whole or not at all, one winner, and only the dead are removed."""

import json
import os
import platform
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.storage import stages
from orchestrator.storage.stages import Stage, StageStore, stage_id
from slmrec_core.errors import CheckpointError

STAGE = Stage.of("finetune", {"layers": 2}, {"data": "data-0"})


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "stages")


def build(store: StageStore, text: str = "weights") -> Path:
    with store.build(STAGE, {"host": "here"}) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_text(text)
        (folder / "result.json").write_text("{}")
    return store.path(STAGE.stage_id)


def test_a_name_is_made_of_what_defines_the_numbers() -> None:
    assert STAGE.stage_id.startswith("finetune-")
    # The order of keys is not a setting; every value is.
    assert stage_id("a", {"x": 1, "y": [2]}, {"d": "e"}) == stage_id("a", {"y": [2], "x": 1}, {"d": "e"})
    others = [
        ("b", {"x": 1}, {"d": "e"}),
        ("a", {"x": 2}, {"d": "e"}),
        ("a", {"x": 1}, {"d": "f"}),
        ("a", {"x": 1}, {}),
    ]
    assert len({stage_id(*other) for other in others} | {stage_id("a", {"x": 1}, {"d": "e"})}) == 5


def test_a_stage_appears_whole_with_size_and_hash_of_every_file(store: StageStore) -> None:
    with store.build(STAGE, {"host": "the driver's", "commit": "abc"}) as folder:
        (folder / "a.txt").write_text("abc")
        assert not store.is_done(STAGE.stage_id)
        assert not store.path(STAGE.stage_id).exists()
    manifest = json.loads((store.path(STAGE.stage_id) / "manifest.json").read_text())
    assert manifest == {
        "stage_id": STAGE.stage_id,
        "kind": "finetune",
        "settings": {"layers": 2},
        "inputs": {"data": "data-0"},
        "provenance": {"host": platform.node(), "commit": "abc"},
        "files": {"a.txt": {"bytes": 3, "sha256": sha256(b"abc").hexdigest()}},
    }
    assert store.is_done(STAGE.stage_id)
    assert sorted(os.listdir(store.path(STAGE.stage_id))) == ["a.txt", "manifest.json"]
    assert os.listdir(store.root) == [STAGE.stage_id]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_builder_that_raises_leaves_nothing(store: StageStore, error: type[BaseException]) -> None:

    def build_half() -> None:
        with store.build(STAGE, {}) as folder:
            (folder / "half").write_text("x")
            raise error

    with pytest.raises(error):
        build_half()
    assert os.listdir(store.root) == []


def test_of_two_builders_one_wins_and_both_succeed(store: StageStore) -> None:
    with store.build(STAGE, {"host": "slow"}) as slow:
        (slow / "a").write_text("slow")
        with store.build(STAGE, {"host": "fast"}) as fast:
            assert fast != slow
            (fast / "a").write_text("fast")
    assert (store.path(STAGE.stage_id) / "a").read_text() == "fast"
    assert os.listdir(store.root) == [STAGE.stage_id]
    store.verify(STAGE.stage_id)


def test_many_builders_at_once_leave_one_whole_stage(store: StageStore) -> None:
    errors = []

    def work(number: int) -> None:
        try:
            build(store, f"from {number}")
        except Exception as error:  # noqa: BLE001  # reported by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    store.verify(STAGE.stage_id)
    assert os.listdir(store.root) == [STAGE.stage_id]


def test_only_half_made_stages_without_a_heartbeat_are_removed(
    store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(stages, "STALE_AFTER_S", 0.5)
    finished = build(store)
    dead = store.root / ".building-distill-1-dead"
    dead.mkdir()
    (dead / ".heartbeat").touch()
    # A builder that was killed before its first heartbeat.
    silent = store.root / ".building-distill-2-dead"
    silent.mkdir()
    for path in (dead / ".heartbeat", dead, silent, finished):
        os.utime(path, (0, 0))
    other = Stage.of("distill", {}, {})
    with store.build(other, {}) as slow:
        time.sleep(0.7)
        assert store.remove_stale() == [dead.name, silent.name]
        assert slow.is_dir()
    assert store.is_done(other.stage_id)
    assert finished.is_dir()


def test_the_heartbeat_goes_on_while_large_files_are_hashed(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # It once ended before the hashing, and another sweep could remove the stage at the last moment.
    monkeypatch.setattr(stages, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(stages, "STALE_AFTER_S", 0.3)
    describe = stages.described
    removed = []

    def slowly(path: Path) -> dict[str, object]:
        time.sleep(0.5)
        removed.extend(store.remove_stale())
        return describe(path)

    monkeypatch.setattr(stages, "described", slowly)
    with store.build(STAGE, {}) as folder:
        (folder / "large").write_text("x")
    assert removed == []
    assert store.is_done(STAGE.stage_id)


@pytest.mark.parametrize("change", ["weightS", "longer weights", None])
def test_verify_notices_an_altered_or_missing_file(store: StageStore, change: str | None) -> None:
    path = build(store) / "model" / "weights.bin"
    store.verify(STAGE.stage_id)
    if change is None:
        path.unlink()
    else:
        path.write_text(change)
    with pytest.raises(CheckpointError, match=r"model/weights.bin must be as the manifest says") as caught:
        store.verify(STAGE.stage_id)
    # It once told people to delete the subfolder, which would have mended nothing.
    assert f"Delete {store.path(STAGE.stage_id)};" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', None])
def test_verify_says_so_when_the_manifest_itself_is_damaged(store: StageStore, text: str | None) -> None:
    manifest = build(store) / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    with pytest.raises(CheckpointError, match="its manifest cannot be read"):
        store.verify(STAGE.stage_id)


def test_a_stage_whose_manifest_was_lost_is_not_taken_for_another_builders(store: StageStore) -> None:
    (build(store) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="its folder must have a manifest.*Delete it and resume"):
        build(store)
    assert os.listdir(store.root) == [STAGE.stage_id]
