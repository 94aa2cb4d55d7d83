"""A model directory: config.json, model.safetensors, items.json, and a card for people. Nothing in it is a pickle.

config.json is written last and has the hashes of the others and of itself, so a directory that was written half, or
changed since, is noticed when it is read. Files are written beside their places and renamed: what was there is good
until then.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec_core.catalogue import Catalogue
from slmrec_core.errors import CheckpointError, ConfigError
from slmrec_core.models.description import describe, rebuild
from slmrec_core.models.quantization import load_plain_state, plain_state
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec

FORMAT_VERSION = 4
_OLDEST = 2
"""Read too: 3 had no hash of its settings, 2 no rounded weights."""
_PLACES = ("model", "artifacts/model")
WEIGHTS = "model.safetensors"
_CONFIG, _ITEMS = "config.json", "items.json"
_HASHES, _VERSION = "files", "format_version"
"""Keys of config.json: SHA-256 by file, its own being that of its other content; and the format."""


@dataclass(frozen=True)
class StoredModel:
    """What a model directory holds."""

    network: RecommenderModel | SASRec
    catalogue: Catalogue
    max_seq_len: int
    metadata: dict[str, object]


def write_model(folder: Path, model: StoredModel) -> None:
    """Writes the three files, each whole or not at all.

    Raises:
        ConfigError: There is a file in the folder's place, or a config.json of something else in it.
    """
    _require_room(folder)
    folder.mkdir(parents=True, exist_ok=True)
    catalogue, network = model.catalogue, model.network
    state = {name: tensor.cpu().contiguous() for name, tensor in plain_state(network).items()}
    items = {
        "item_ids": catalogue.item_ids[1:],
        "titles": catalogue.titles[1:] if catalogue.titles else None,
        "counts": catalogue.counts[1:] if catalogue.counts else None,
    }
    fresh = {name: folder / f".{name}-{uuid4().hex[:8]}" for name in (WEIGHTS, _ITEMS, _CONFIG)}
    try:
        save_file(state, fresh[WEIGHTS])
        fresh[_ITEMS].write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
        # safetensors writes files that nobody else may read.
        shutil.copymode(fresh[_ITEMS], fresh[WEIGHTS])
        content = {
            _VERSION: FORMAT_VERSION,
            "max_seq_len": model.max_seq_len,
            "metadata": model.metadata,
            **describe(network),
        }
        hashes = {name: _sha256(fresh[name]) for name in (WEIGHTS, _ITEMS)}
        config = {**content, _HASHES: {**hashes, _CONFIG: _content_sha256(content)}}
        fresh[_CONFIG].write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        for name, file in fresh.items():
            os.replace(file, folder / name)
    finally:
        for file in fresh.values():
            file.unlink(missing_ok=True)


def model_folder(folder: Path) -> Path:
    """The model directory behind a folder: itself, or the one inside a stage (`model/`) or a logged model of MLflow
    (`artifacts/model/`)."""
    places = (folder, *(folder / place for place in _PLACES))
    return next((place for place in places if (place / _CONFIG).is_file()), folder)


def read_model(folder: Path) -> StoredModel:
    """Reads what `write_model` wrote; no backbone is fetched.

    Raises:
        CheckpointError: A file is missing, altered, damaged, or of another format.
    """
    if not folder.is_dir():
        raise CheckpointError(f"model {folder}: there is no such directory. Mind the spelling.")
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if config[_VERSION] not in range(_OLDEST, FORMAT_VERSION + 1):
            raise CheckpointError(
                f"model {folder}: {_VERSION} must be {_OLDEST} to {FORMAT_VERSION}, got {config[_VERSION]}."
                " Use the version of slmrec that wrote it."
            )
        hashes = config[_HASHES]
        found = {name: _sha256(folder / name) for name in (WEIGHTS, _ITEMS)}
        if config[_VERSION] == FORMAT_VERSION:
            found[_CONFIG] = _content_sha256(config)
        for name, own in found.items():
            if own != hashes[name]:
                raise CheckpointError(
                    f"model {folder}: {name} must have the SHA-256 that save_pretrained noted, {hashes[name]},"
                    f" got {own}. It was changed since, or copied in part; copy it again."
                )
        if config[_VERSION] == _OLDEST:
            config |= {"weight_format": "float"}
        items = json.loads((folder / _ITEMS).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
        network = rebuild(config, state)
        load_plain_state(network, state)
        catalogue = Catalogue(
            ("", *items["item_ids"]),
            None if items["titles"] is None else ("", *items["titles"]),
            None if items["counts"] is None else (0, *items["counts"]),
        )
        if len(catalogue) != len(network.item_table) - 1:
            raise ValueError(
                f"{len(catalogue)} items for {len(network.item_table)} rows of the table, padding included"
            )
        return StoredModel(network, catalogue, int(config["max_seq_len"]), dict(config["metadata"]))
    # Whatever stands in these files must not surface as an error of the code that reads it.
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"model {folder}: cannot be read, got {error!r}. It needs {_CONFIG}, {_ITEMS} and {WEIGHTS} as"
            " save_pretrained wrote them."
        ) from error


def weights_sha256(folder: Path) -> str:
    """Of the weights in a model directory, as its config notes it.

    Raises:
        CheckpointError: There is no model directory.
    """
    try:
        return str(json.loads((model_folder(folder) / _CONFIG).read_text(encoding="utf-8"))["files"][WEIGHTS])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"model {folder}: must be a directory that save_pretrained wrote, got {error!r}. Mind the spelling."
        ) from error


def _require_room(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"model {folder}: must be a directory, got a file. Give another name.")
    if not (folder / _CONFIG).exists():
        return
    try:
        is_ours = _VERSION in json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"model {folder}: must be a new directory or one that save_pretrained wrote, got a {_CONFIG} of something"
            " else. Give another name."
        )


def _content_sha256(config: Mapping[str, object]) -> str:
    """Of what config.json says, hashes left out, however its lines are broken."""
    content = {name: value for name, value in config.items() if name != _HASHES}
    # Twice through JSON, which makes tuples lists and keys text.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
