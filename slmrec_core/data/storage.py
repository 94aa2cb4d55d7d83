"""Tables in a directory: parquet and one JSON header with the SHA-256 of each, nothing pickled."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow

from slmrec_core.downloads import file_sha256
from slmrec_core.errors import CheckpointError

_HEADER = "dataset.json"
_FORMAT = 1
"""Raised when older code could not read what is written."""


def write_tables(directory: Path, tables: Mapping[str, pd.DataFrame], header: Mapping[str, object]) -> None:
    """`<name>.parquet` for each table, then the header that vouches for them."""
    directory.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for name, table in tables.items():
        path = directory / f"{name}.parquet"
        table.to_parquet(path, index=False)
        hashes[name] = file_sha256(path)
    # Last, so that a directory cut short has no header and is refused.
    text = json.dumps({"format": _FORMAT, "sha256": hashes, **header}, indent=2)
    (directory / _HEADER).write_text(text + "\n", encoding="utf-8")


def read_tables(directory: Path) -> tuple[dict[str, pd.DataFrame], dict[str, object]]:
    """What `write_tables` wrote: the tables by name, and the header.

    Raises:
        CheckpointError: A file is missing or not the one that was written.
    """
    try:
        header = json.loads((directory / _HEADER).read_text(encoding="utf-8"))
        if header["format"] != _FORMAT:
            raise CheckpointError(
                f"{directory / _HEADER}: written in another format, got {header['format']!r}, not {_FORMAT}."
                " Build the data set again."
            )
        tables = {}
        for name, expected in header["sha256"].items():
            path = directory / f"{Path(name).name}.parquet"
            if (actual := file_sha256(path)) != expected:
                raise CheckpointError(
                    f"{path}: damaged, expected SHA-256 {expected}, got {actual}."
                    f" Remove {directory} and build it again."
                )
            tables[name] = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, pyarrow.ArrowException) as error:
        raise CheckpointError(
            f"{directory}: not a complete data set, got {type(error).__name__}: {error}."
            " Remove the directory and build it again."
        ) from error
    return tables, header
