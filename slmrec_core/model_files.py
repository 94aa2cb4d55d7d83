"""A model directory: config.json, model.safetensors, items.json, and a card for people. Nothing in it is a pickle.

config.json is written last and has the hashes of the others, so a directory that was written half, or changed since, is
noticed when it is read. Files are written beside their places and renamed: what was there is good until then.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec_core.catalogue import Catalogue
from slmrec_core.errors import CheckpointError
from slmrec_core.models.description import describe, rebuild
from slmrec_core.models.quantization import load_plain_state, plain_state
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.models.sasrec import SASRec

FORMAT_VERSION = 3
_BEFORE_WEIGHT_FORMATS = 2
_PLACES = ("model", "artifacts/model")
WEIGHTS = "model.safetensors"
_CONFIG, _ITEMS = "config.json", "items.json"


@dataclass(frozen=True)
class StoredModel:
    """What a model directory holds."""

    network: RecommenderModel | SASRec
    catalogue: Catalogue
    max_seq_len: int
    metadata: dict[str, object]


def write_model(folder: Path, model: StoredModel) -> None:
    """Writes the three files, each whole or not at all."""
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
        config = {
            "format_version": FORMAT_VERSION,
            "max_seq_len": model.max_seq_len,
            "metadata": model.metadata,
            "files": {name: _sha256(fresh[name]) for name in (WEIGHTS, _ITEMS)},
            **describe(network),
        }
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
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if config["format_version"] == _BEFORE_WEIGHT_FORMATS:
            config |= {"format_version": FORMAT_VERSION, "weight_format": "float"}
        if config["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"model {folder}: format_version must be {FORMAT_VERSION}, got {config['format_version']}."
                " Use the version of slmrec that wrote it."
            )
        for name in (WEIGHTS, _ITEMS):
            if (found := _sha256(folder / name)) != config["files"][name]:
                raise CheckpointError(
                    f"model {folder}: {name} must have the SHA-256 that save_pretrained noted,"
                    f" {config['files'][name]}, got {found}. It was changed since, or copied in part; copy it again."
                )
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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
