"""Titles of Amazon's products, out of the metadata of each release.

Those of 2018 and 2023 are JSON, one product per line. Those of 2014 are Python literals, one per line; they are parsed
as literals and nothing else: a line that would have to be run is an error.
"""

import ast
import json
import warnings
from pathlib import Path

import pandas as pd
import pyarrow

from slmrec_core.data.json_lines import read_json_fields
from slmrec_core.data.text_files import READ_FAULTS, opened
from slmrec_core.errors import DataError

_IDS = ("parent_asin", "asin")
_LITERAL_FAULTS = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
"""What `ast.literal_eval` raises for text that is no literal, or one that is nested too deeply."""


def product_titles(path: Path) -> pd.Series:
    """Title by product, empty where a product has none.

    Raises:
        DataError: The file cannot be read, or a line is neither a JSON object nor a literal with the id of a product.
    """
    if _is_json(path):
        table, _ = read_json_fields(path, _schema)
        products = table.to_pandas()
    else:
        products = pd.DataFrame(_literals(path), columns=["asin", "title"])
    if products.empty:
        raise DataError(f"{path}: no product, got 0 lines. Fetch the file again, or move it away.")
    products = products.dropna(subset=products.columns[0])
    titles: pd.Series = products.set_index(products.columns[0])["title"].fillna("")
    return titles


def _is_json(path: Path) -> bool:
    """False = the first product is no JSON, which a literal of several fields never is: its quotes are single."""
    try:
        with opened(path) as file:
            first = json.loads(next((line for line in file if line.strip()), b""))
    except READ_FAULTS as error:
        raise DataError(f"{path}: cannot be read, got {error}. Fetch the file again, or move it away.") from error
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict)


def _schema(where: str, first: dict[str, object]) -> pyarrow.Schema:
    product = next((name for name in _IDS if name in first), None)
    if product is None:
        raise DataError(
            f"{where}: Amazon's metadata must have a field {' or '.join(map(repr, _IDS))}, got"
            f" {', '.join(first)[:80]!r}. Name the file otherwise if it is none, or fetch it again."
        )
    return pyarrow.schema({product: pyarrow.string(), "title": pyarrow.string()})


def _literals(path: Path) -> list[tuple[str, str]]:
    products = []
    position = 0
    try:
        with opened(path) as file, warnings.catch_warnings():
            # Python warns of escapes that it does not know, such as those of a path in a description.
            warnings.simplefilter("ignore")
            for position, line in enumerate(file, start=1):
                if line.strip():
                    products.append(_product(f"{path}, line {position}", line))
    except READ_FAULTS as error:
        raise DataError(
            f"{path}, line {position + 1} or below: cannot be read, got {error}. Fetch the file again, or move it away."
        ) from error
    return products


def _product(where: str, line: bytes) -> tuple[str, str]:
    try:
        fields = ast.literal_eval(line.decode().strip())
        product, title = fields["asin"], fields.get("title", "")
    except (*_LITERAL_FAULTS, KeyError, AttributeError) as error:
        shown = line[:80].decode(errors="replace").rstrip()
        raise DataError(
            f"{where}: must be one product as JSON or as a Python literal with 'asin', got {shown!r} ({error})."
            " Mend or remove the line."
        ) from error
    return str(product), str(title)
