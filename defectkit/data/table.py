"""Tables of comma-separated values as spreadsheets save them, with rows that know their place."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from defectkit import DefectkitError
from defectkit.data.values import is_unknown, read_value
from defectkit.structures.text import read_text

SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*)$")
MAX_BYTES = 1_000_000_000
LONGEST_CELL = 10_000_000  # characters; a cell may hold a whole CIF


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        path: of the file.
        number: as a spreadsheet counts: the heading is row 1.
        cells: the text in each column.
    """

    path: Path
    number: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        """File and row, in words."""
        return f"{self.path}, row {self.number}"

    def read(self, column: str, kind: Callable):
        """The cell read by a function of `data.values`, None where it says nothing.

        DefectkitError, with its place, where it is not of that kind.
        """
        cell = self.cells.get(column, "")
        return (
            None if is_unknown(cell) else read_value(cell, kind, f"{self.where}, column {column}")
        )

    def need(self, column: str, kind: Callable):
        """As `read`; DefectkitError as well where the cell says nothing."""
        value = self.read(column, kind)
        if value is None:
            raise DefectkitError(f"{self.where}, column {column}: the cell is empty; fill it in.")
        return value


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a file, blank ones left out.

    Commas, semicolons or tabs separate the cells: whichever gives the heading the column
    `columns[0]`. Where it is semicolons, numbers may have decimal commas. Names are taken in lower
    case, without the blanks around them.

    Raises DefectkitError, with the row, where the file cannot be read (`read_text`), is empty,
    lacks one of `columns`, has a column twice, a quote that is not closed, or a row with more or
    fewer cells than the heading.
    """
    text = read_text(path, MAX_BYTES)
    if not text.strip():
        raise DefectkitError(f"{path} is empty; its first row names the columns: {_list(columns)}.")
    first = text.lstrip("\n").split("\n", 1)[0]
    separator = max(
        SEPARATORS, key=lambda s: (columns[0] in _names(first.split(s)), first.count(s))
    )
    reader = csv.reader(StringIO(text), delimiter=separator, strict=True)
    csv.field_size_limit(LONGEST_CELL)
    lines = []
    try:
        lines.extend(reader)
    except csv.Error as error:
        raise DefectkitError(
            f"{path}, row {len(lines) + 1}: {error}; a quote may not be closed there."
        ) from error
    numbered = enumerate(lines, start=1)
    (_, heading), *body = ((n, cells) for n, cells in numbered if any(map(str.strip, cells)))
    names = _names(heading)
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise DefectkitError(f"{path} has the column '{twice[0]}' twice; keep one of them.")
    for name in columns:
        if name not in names:
            raise DefectkitError(f"{path} has no column '{name}'; it has {_list(names)[:200]}.")
    if separator == ";":
        body = [(n, [DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for n, cells in body]
    return [Row(path, number, _cells(path, number, names, cells)) for number, cells in body]


def _cells(path: Path, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
    filled = len(cells)
    while filled > len(names) and not cells[filled - 1].strip():
        filled -= 1
    if filled != len(names):
        raise DefectkitError(
            f"{path}, row {number}: it has {filled} cells and the heading {len(names)}; put a "
            "cell that holds a separator between double quotes."
        )
    return dict(zip(names, cells))


def _names(heading: list[str]) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in heading]


def _list(names: Sequence[str]) -> str:
    return ", ".join(filter(None, names))
