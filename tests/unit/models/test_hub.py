"""What a hub id means, and when a hub is asked; no network is touched."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from slmrec_core.errors import ConfigError, DownloadError
from slmrec_core.models import hub as hub_module
from slmrec_core.models.backbone import SMOLLM2, backbone_identity, open_backbone, pinned_backbone
from tests.tiny import LLAMA, write_model_directory

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub at a port that nobody listens on: the client raises its HTTP library's own error."""
    scan = huggingface_hub.scan_cache_dir

    class Unreachable(huggingface_hub.HfApi):
        def __init__(self) -> None:
            super().__init__(endpoint="http://127.0.0.1:9")

    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, float]]:
    """A hub that answers: what it was asked."""
    asked: list[tuple[str, str | None, float]] = []

    class Info:
        sha = NEW

    def model_info(self: object, name: str, revision: str | None, timeout: float) -> Info:
        asked.append((name, revision, timeout))
        return Info()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    return asked


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any request fails the test."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_tree", refuse)


def cached(cache: Path, commit: str, age_s: float = 0.0) -> Path:
    """A snapshot as a download by commit leaves it: no branch points at it."""
    folder = cache / "models--owner--model" / "snapshots" / commit
    write_model_directory(folder, LLAMA)
    for file in folder.iterdir():
        os.utime(file, (time.time() - age_s,) * 2)
    return folder


def test_a_hub_id_is_pinned_with_one_question_that_has_a_time_limit(asked: list[Any]) -> None:
    assert pinned_backbone("owner/model") == f"owner/model@{NEW}"
    assert backbone_identity("owner/model") == f"hub:owner/model@{NEW}"
    assert pinned_backbone("owner/model@dev") == f"owner/model@{NEW}"
    limit = hub_module.HUB_TIMEOUT_S
    assert asked == [("owner/model", None, limit), ("owner/model", None, limit), ("owner/model", "dev", limit)]
    assert limit <= 15


def test_what_means_the_same_for_ever_is_left_alone(tmp_path: Path, no_network: None) -> None:
    for name in ("tiny", SMOLLM2, str(tmp_path), f"owner/model@{OLD}"):
        assert pinned_backbone(name) == name
    assert backbone_identity(f"owner/model@{OLD}") == f"hub:owner/model@{OLD}"


@pytest.mark.parametrize("name", ["owner/model", f"owner/model@{OLD}"])
def test_what_was_fetched_by_commit_is_found_again_without_a_hub(cache: Path, name: str) -> None:
    # A bug of ours: a download by commit writes no branch, and only branches were looked for.
    folder = cached(cache, OLD)
    assert open_backbone(name).directory == folder


def test_without_a_hub_the_newest_whole_commit_is_taken_and_said(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(cache, OLD, age_s=100.0)
    cached(cache, NEW, age_s=50.0)
    (cached(cache, "0" * 39 + "3") / "tokenizer.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert pinned_backbone("owner/model") == f"owner/model@{NEW}"
    assert "newest cached commit" in caplog.text


def test_a_cached_commit_is_opened_without_a_question(cache: Path, no_network: None) -> None:
    # A bug of ours: every worker of every trial asked again, and a push between two of them changed the weights.
    folder = cached(cache, OLD)
    assert open_backbone(f"owner/model@{OLD}").directory == folder


@pytest.mark.parametrize("lost", ["tokenizer.json", "model.safetensors", "config.json", "a shard"])
def test_a_part_of_a_commit_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    folder = cached(cache, OLD)
    if lost == "a shard":
        index = {"weight_map": {"x": "model.safetensors", "y": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        (folder / lost).unlink()
    whole = cached(cache / "elsewhere", OLD)
    download: Callable[..., str] = huggingface_hub.snapshot_download

    def fetch(name: str, **options: Any) -> str:
        return download(name, **options) if options.get("local_files_only") else str(whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert open_backbone(f"owner/model@{OLD}").directory == whole


def test_a_name_that_the_hub_would_refuse_is_a_config_error() -> None:
    for name in ("owner/model--..x", f"owner/model--..x@{OLD}"):
        with pytest.raises(ConfigError, match="The hub says"):
            open_backbone(name)


@pytest.mark.parametrize("use", [open_backbone, backbone_identity, pinned_backbone])
def test_an_unreachable_hub_is_answered_within_seconds(cache: Path, use: Any) -> None:
    started = time.monotonic()
    with pytest.raises(DownloadError, match="'owner/model' is no alias, not a file here nor in the local cache"):
        use("owner/model")
    assert time.monotonic() - started < 5


def test_a_branch_that_is_not_cached_is_not_replaced_by_another(cache: Path) -> None:
    cached(cache, OLD)
    with pytest.raises(DownloadError, match="the hub cannot be reached"):
        pinned_backbone("owner/model@dev")
    refs = cache / "models--owner--model" / "refs"
    refs.mkdir()
    (refs / "dev").write_text(OLD)
    assert pinned_backbone("owner/model@dev") == f"owner/model@{OLD}"


def test_a_download_that_breaks_off_names_model_and_revision(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = next(kind for kind in HfHubHTTPError.__bases__ if kind is not OSError)
    download: Callable[..., str] = huggingface_hub.snapshot_download

    def break_off(name: str, **options: Any) -> str:
        if options.get("local_files_only"):
            return download(name, **options)
        raise base("the line is dead")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", break_off)
    with pytest.raises(DownloadError, match=f"'owner/model' at revision {OLD} .* the line is dead"):
        open_backbone(f"owner/model@{OLD}")
