"""Files as streams, decompressed; text: decoded, its line ends made alike, some whole lines at a time."""

import codecs
import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from isal import igzip, isal_zlib

from slmrec_core.data.columns import RowNames
from slmrec_core.errors import DataError
from slmrec_core.progress_bar import bar_over_file

READ_FAULTS: tuple[type[Exception], ...] = (OSError, EOFError, isal_zlib.error)  # type: ignore[assignment]
"""What opening and reading a file raise: it is not there, is cut short, or is damaged inside."""
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_BLOCK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# -sig: spreadsheets put a byte-order mark before the first column's name.
_UTF_8 = "utf-8-sig"
_FIRST_CHARACTER = re.compile(r"^[^\S\n]*[^\s#]", re.MULTILINE)
"""Of a line that is neither blank nor a comment."""


@dataclass(frozen=True)
class TextSource:
    """Text of a file from its first line that says something; it is read anew, block by block, by who asks for it."""

    path: Path
    header: str
    """That line."""
    first_line: int
    """Its number in the file."""
    encoding: str = _UTF_8

    @property
    def rows(self) -> RowNames:
        """How errors call the lines below the first."""
        return RowNames(str(self.path), first=self.first_line + 1)

    def at(self, position: int = 0) -> str:
        """How errors call the line at a position, 0 = the first one."""
        return f"{self.path}, line {self.first_line + position}"

    def blocks(self) -> Iterator[tuple[int, str]]:
        """Position of a block's first line, and whole lines, each with its end; blank ones at the end are left out.

        Raises:
            DataError: The file cannot be read to its end, or is not text.
        """
        num_above, position = self.first_line - 1, 0
        for block in _whole_lines(_decoded(self.path, self.encoding)):
            if num_above:
                *above, block = block.split("\n", num_above)
                num_above -= len(above)
            if block:
                yield position, block
                position += block.count("\n")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The content of a file as a stream, gzip and Zstandard undone on the way; this and reading raise `READ_FAULTS`.

    A bar shows how much of the file is read, where that takes long.
    """
    with path.open("rb") as raw, bar_over_file(raw, path.name, path.stat().st_size) as file:
        magic = raw.read(len(_ZSTD_MAGIC))
        raw.seek(0)
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


def open_text(path: Path, other_encoding: str | None = None) -> TextSource:
    """The text of a file, without comments and blank lines above and blank lines below.

    Args:
        path: Of the file.
        other_encoding: Of a file that is not UTF-8, one that takes every byte; None = such a file is refused.

    Raises:
        DataError: It cannot be read, is empty, not UTF-8, or holds nothing but comments.
    """
    encoding = _UTF_8 if other_encoding is None or _is_utf_8(path) else other_encoding
    num_lines = 0
    for block in _whole_lines(_decoded(path, encoding)):
        if character := _FIRST_CHARACTER.search(block):
            start = block.rfind("\n", 0, character.end()) + 1
            header = block[start : block.index("\n", start)]
            return TextSource(path, header, num_lines + block.count("\n", 0, start) + 1, encoding)
        num_lines += block.count("\n")
    if num_lines:
        raise DataError(f"{path}: no line holds interactions, got {num_lines} lines of comments. Name another file.")
    raise DataError(f"{path}: the file is empty, got {path.stat().st_size} bytes. Name a file with interactions.")


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder(_UTF_8)()
    try:
        with opened(path) as file:
            while read := file.read(_BLOCK_BYTES):
                decoder.decode(read)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    except READ_FAULTS as error:
        raise DataError(f"{path}: cannot be read, got {error}. Fetch the file again, or pack it again.") from error
    return True


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    """Pieces of a file's text in which every line ends with a newline.

    Raises:
        DataError: It cannot be read to its end, or is not text of this encoding.
    """
    decoder, newlines = codecs.getincrementaldecoder(encoding)(), io.IncrementalNewlineDecoder(None, translate=True)
    line, is_end = 1, False
    try:
        with opened(path) as file:
            while not is_end:
                is_end = not (read := file.read(_BLOCK_BYTES))
                piece = newlines.decode(decoder.decode(read, is_end), is_end)
                if (zero := piece.find("\0")) >= 0:
                    line += piece.count("\n", 0, zero)
                    raise DataError(
                        f"{path}, line {line}: binary content, got a zero byte. Name a text or parquet file."
                    )
                line += piece.count("\n")
                yield piece
    except UnicodeDecodeError as error:
        line += newlines.decode(error.object[: error.start].decode(), True).count("\n")
        raise DataError(
            f"{path}, line {line}: not UTF-8 text, got byte {error.object[error.start]:#04x}."
            " Convert it to UTF-8, or name a CSV, TSV, parquet or RecBole file."
        ) from error
    except READ_FAULTS as error:
        raise DataError(
            f"{path}, line {line} or below: cannot be read, got {error}. Fetch the file again, or pack it again."
        ) from error


def _whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text, cut anew so that they end with a line's end; blank lines at the end are left out."""
    # The last line that says something waits: what follows it may be blank to the end.
    waiting: list[str] = []
    has_end = False
    for piece in pieces:
        said = len(piece.rstrip())
        if cut := piece.rfind("\n", 0, said) + 1:
            yield "".join([*waiting, piece[:cut]])
            waiting, has_end = [piece[cut:]], False
        elif said and has_end:
            text = "".join(waiting)
            cut = text.rindex("\n") + 1
            yield text[:cut]
            waiting, has_end = [text[cut:], piece], False
        else:
            waiting.append(piece)
        has_end |= "\n" in waiting[-1]
    rest = "".join(waiting)
    if rest.strip():
        end = rest.find("\n", len(rest.rstrip()))
        yield (rest if end < 0 else rest[:end]) + "\n"
