"""Files as streams, decompressed; text: decoded, line ends made alike, and cut into cells without losing a line."""

import contextlib
import csv
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow
from isal import igzip, isal_zlib

from slmrec_core.data.columns import RowNames
from slmrec_core.errors import DataError

READ_FAULTS: tuple[type[Exception], ...] = (OSError, EOFError, isal_zlib.error)  # type: ignore[assignment]
"""What opening and reading a file raise: it is not there, is cut short, or is damaged inside."""
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
TYPED_FIELD = re.compile(r"[^:\t]+:(token|float)(_seq)?")
"""Of RecBole's headers."""
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_FIRST_CHARACTER = re.compile(r"^[^\S\n]*[^\s#]", re.MULTILINE)
"""Of a line that is neither blank nor a comment."""


@dataclass(frozen=True)
class TextSource:
    """Text of a file from its first line that says something."""

    path: Path
    text: str
    first_line: int
    """Number of that line in the file."""

    @property
    def header(self) -> str:
        """The first line."""
        return self.text.split("\n", 1)[0]

    @property
    def rows(self) -> RowNames:
        """How errors call the lines below the first."""
        return RowNames(str(self.path), first=self.first_line + 1)

    def at(self, position: int = 0) -> str:
        """How errors call the line at a position of the text."""
        return f"{self.path}, line {self.first_line + position}"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The content of a file as a stream, gzip and Zstandard undone on the way; this and reading raise `READ_FAULTS`."""
    with path.open("rb") as file:
        magic = file.read(len(_ZSTD_MAGIC))
        file.seek(0)
        if magic.startswith(_GZIP_MAGIC):
            # A third of zlib's time, which was most of reading a file.
            yield igzip.IGzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call]
        elif magic == _ZSTD_MAGIC:
            # Buffered, because Arrow's own stream does not take read(-1).
            yield io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd"))
        else:
            yield file


def read_bytes(path: Path, at_most: int | None = None) -> bytes:
    """Content of a file, decompressed; or the beginning of it.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with opened(path) as file:
            content = file.read(-1 if at_most is None else at_most)
    except READ_FAULTS as error:
        raise DataError(f"{path}: cannot be read, got {error}. Name a readable file with interactions.") from error
    return content


def decode(path: Path, content: bytes, other_encoding: str | None = None) -> TextSource:
    """The text behind a file's content, without comments and blank lines above and below.

    Args:
        path: Of the file, for errors.
        content: All of it.
        other_encoding: Of content that is not UTF-8, one that takes every byte; None = such content is refused.

    Raises:
        DataError: It is empty, not UTF-8, or holds nothing but comments.
    """
    if not content.strip():
        raise DataError(f"{path}: the file is empty, got {len(content)} bytes. Name a file with interactions.")
    try:
        # -sig: spreadsheets put a byte-order mark before the first column's name.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if other_encoding is None:
            line = content.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{path}, line {line}: not UTF-8 text, got byte {content[error.start]:#04x}."
                " Convert it to UTF-8, or name a CSV, TSV, parquet or RecBole file."
            ) from error
        text = content.decode(other_encoding)
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise DataError(f"{path}, line {line}: binary content, got a zero byte. Name a text or parquet file.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Blank lines at the end mean nothing, nor do they at the top; in between they are reported as rows without ids.
    end = text.find("\n", len(text.rstrip()))
    end = end if end >= 0 else len(text)
    if (character := _FIRST_CHARACTER.search(text)) is None:
        count = text.count("\n", 0, end) + 1
        raise DataError(f"{path}: no line holds interactions, got {count} lines of comments. Name another file.")
    start = text.rfind("\n", 0, character.end()) + 1
    return TextSource(path, text[start:end], text.count("\n", 0, start) + 1)


def read_quoted_table(source: TextSource, separator: str) -> pd.DataFrame:
    """A table in which a cell may be quoted, but must end on its line: one that does not would swallow events.

    Raises:
        DataError: A quoted cell does not, outside TAB files, or a line has more cells than the header.
    """
    if (position := _unclosed_line(source.text, separator)) is None:
        return read_table(source, separator, quoted=True)
    if separator == "\t":
        # Files of this kind are often written without quoting: a title with a lone quotation mark is ordinary.
        return read_table(source, separator, quoted=False)
    line = source.text.split("\n")[position]
    raise DataError(
        f"{source.at(position)}: a quoted cell must end on its line, got {line[:80]!r}."
        " Double a quotation mark that belongs to the text, and take line breaks out of cells."
    )


def _unclosed_line(text: str, separator: str) -> int | None:
    """Position of the first line that ends inside a quoted cell; None = there is none."""
    if '"' not in text:
        return None
    cell = rf'(?:"(?:[^"]|"")*+"[^{separator}]*+|[^"{separator}][^{separator}]*+)?+'
    closed = re.compile(rf"{cell}(?:{separator}{cell})*+")
    lines = enumerate(text.split("\n"))
    return next((position for position, line in lines if '"' in line and not closed.fullmatch(line)), None)


def read_typed_table(source: TextSource) -> pd.DataFrame:
    """RecBole's table, whose header is `name:type`, by the names alone.

    Raises:
        DataError: A line has more cells than the header.
    """
    # RecBole does not quote: a title with a lone quotation mark is ordinary.
    table = read_table(source, "\t", quoted=False)
    return table.rename(columns=lambda column: str(column).rpartition(":")[0] or column)


def read_table(source: TextSource, separator: str, quoted: bool, columns: list[str] | None = None) -> pd.DataFrame:
    """Every cell as text, so that ids keep their leading zeros and an item called NA stays one.

    Args:
        source: Text.
        separator: One character.
        quoted: True = a cell may be quoted.
        columns: Names of the columns, whose first line is a row like the others; None = the first line has them.

    Raises:
        DataError: A line has more cells than the header.
    """
    try:
        with warnings.catch_warnings():
            # pandas only warns when rows are longer than the header, and then cuts them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                # StringIO takes four bytes a character.
                io.BytesIO(source.text.encode()),
                sep=separator,
                names=columns,
                header=None if columns else 0,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skip_blank_lines=False,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        counted = f" (counted from line {source.first_line})" if source.first_line > 1 else ""
        raise DataError(
            f"{source.path}: not a table separated by {separator!r}, got {str(error).strip()!r}{counted}."
            " Give every line as many fields as the first."
        ) from error
