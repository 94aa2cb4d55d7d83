"""Tables in text, with names of columns or without, read some rows at a time.

Of a block of rows only the wanted columns are kept, so that memory grows with them and not with the file.
"""

import csv
import io
import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from slmrec_core.data.text_files import TextSource
from slmrec_core.errors import DataError, shown

TYPED_FIELD = re.compile(r"[^:\t]+:(token|float)(_seq)?")
"""Of RecBole's headers."""
_FAULTS = (pd.errors.ParserError, pd.errors.ParserWarning)


@dataclass(frozen=True)
class TextTable:
    """A table whose every cell is text, so that ids keep their leading zeros and an item called NA stays one."""

    source: TextSource
    separator: str
    """A character, or `::` where the file has no TABs."""
    columns: list[str]
    has_header: bool = True
    """False = the first line is a row like the others."""
    is_quoted: bool = False
    """True = a cell may be quoted, but must end on its line: one that does not would swallow events."""

    def read(
        self, columns: Sequence[str], derive: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    ) -> pd.DataFrame:
        """Some columns of all rows; `derive` makes what is kept out of a block of them.

        Raises:
            DataError: See `blocks`.
        """
        wanted = list(dict.fromkeys(columns))
        parts = [derive(rows[wanted]) for rows in self.blocks()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=wanted, dtype=str)

    def blocks(self) -> Iterator[pd.DataFrame]:
        """All columns of some rows at a time, in the order of the file.

        Raises:
            DataError: A line has more cells than the first, a quoted cell does not end on its line, or the file cannot
                be read to its end.
        """
        first_row = ""
        for position, block in self.source.blocks():
            if position == 0 and self.has_header:
                position, block = 1, block[len(self.source.header) + 1 :]
            if not block:
                continue
            # It decides how many cells a row may have, whichever block that stands in.
            first_row = first_row or block[: block.index("\n") + 1]
            unclosed = _unclosed_line(block, self.separator) if self.is_quoted else None
            if unclosed is None:
                yield self._rows(first_row, block, position)
            else:
                lines = block.split("\n")
                if unclosed:
                    # A fault above is told first.
                    self._rows(first_row, _joined(lines[:unclosed]), position)
                raise _unclosed(self.source, position + unclosed, lines[unclosed])

    def _rows(self, first_row: str, rows: str, position: int) -> pd.DataFrame:
        try:
            return self._parsed(first_row + rows).iloc[1:]
        except _FAULTS as error:
            of_rows = error
        lines = rows.split("\n")[:-1]
        counts = range(1, len(lines) + 1)
        wrong = bisect_left(counts, True, key=lambda count: self._is_refused(first_row + _joined(lines[:count])))
        raise DataError(
            f"{self.source.at(position + wrong)}: more fields separated by {self.separator!r} than the first line has,"
            f" got {lines[wrong][:80]!r}. Give every line as many fields as the first."
        ) from of_rows

    def _is_refused(self, text: str) -> bool:
        try:
            self._parsed(text)
        except _FAULTS:
            return True
        return False

    def _parsed(self, text: str) -> pd.DataFrame:
        if len(self.separator) == 1:
            return _parsed(text, self.separator, self.is_quoted, self.columns)
        # pandas' fast parser takes separators of one character alone.
        return _parsed(text.replace(self.separator, "\t"), "\t", self.is_quoted, self.columns)


def quoted_table(source: TextSource, separator: str) -> TextTable:
    """A table with names on its first line, in which cells may be quoted.

    Raises:
        DataError: A name begins with a quotation mark and does not end with one, outside TAB files, or two columns have
            one name.
    """
    header = source.header + "\n"
    if separator == "\t":
        # Files of this kind are often written without quoting: a title with a lone quotation mark is ordinary.
        is_quoted = all(_unclosed_line(block, separator) is None for _, block in source.blocks())
    else:
        is_quoted = True
        if _unclosed_line(header, separator) is not None:
            raise _unclosed(source, 0, source.header)
    # As a row: as a header pandas would rename what is there twice.
    names = _parsed(header, separator, is_quoted).iloc[0].tolist()
    columns = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    return TextTable(source, separator, _distinct(columns, source), is_quoted=is_quoted)


def typed_table(source: TextSource) -> TextTable:
    """RecBole's table, whose header is `name:type`, by the names alone; it does not quote.

    Raises:
        DataError: Two columns have one name.
    """
    columns = [field.rpartition(":")[0] or field for field in source.header.split("\t")]
    return TextTable(source, "\t", _distinct(columns, source))


def _distinct(columns: list[str], source: TextSource) -> list[str]:
    # A file without a header has thousands of columns, and its first event where names should be.
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(
            f"{source.at()}: every column must have a name of its own, got {shown(twice)} twice. Rename one of them."
        )
    return columns


def _parsed(text: str, separator: str, is_quoted: bool, names: list[str] | None = None) -> pd.DataFrame:
    """The rows of a text; without names the columns are numbered."""
    with warnings.catch_warnings():
        # pandas only warns when rows are longer than the names, and then cuts them.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            # StringIO takes four bytes a character.
            io.BytesIO(text.encode()),
            sep=separator,
            names=names,
            header=None,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            skip_blank_lines=False,
            quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
        )


def _unclosed_line(text: str, separator: str) -> int | None:
    """Position of the first line that ends inside a quoted cell; None = there is none."""
    if '"' not in text:
        return None
    cell = rf'(?:"(?:[^"]|"")*+"[^{separator}]*+|[^"{separator}][^{separator}]*+)?+'
    closed = re.compile(rf"{cell}(?:{separator}{cell})*+")
    lines = enumerate(text.split("\n"))
    return next((position for position, line in lines if '"' in line and not closed.fullmatch(line)), None)


def _unclosed(source: TextSource, position: int, line: str) -> DataError:
    return DataError(
        f"{source.at(position)}: a quoted cell must end on its line, got {line[:80]!r}."
        " Double a quotation mark that belongs to the text, and take line breaks out of cells."
    )


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
