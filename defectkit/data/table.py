"""Tables of comma-separated values as spreadsheets save them, and the values in their cells.

There is one reader for each kind of column, which also reads the keys of a database. A cell that is
empty, NaN, or says in a word that nothing is known is left out; any other that is not of its kind
is an error that says what would be.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import TypeVar

import numpy as np
from ase.data import atomic_numbers

from defectkit import DefectkitError
from defectkit.structures.files import read_text
from defectkit.structures.record import SCALARS

Value = TypeVar("Value")
UNKNOWN = {"", "-", *"nan NaN NAN NA N/A n/a #N/A <NA> null NULL none None".split()}  # not Na
YES = {"yes", "y", "true", "t", ".true.", "1", "1.0"}
NO = {"no", "n", "false", "f", ".false.", "0", "0.0"}
NO_ATOM = "X"  # ASE's symbol of it
SPACEGROUPS = 230
SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*)$")
MAX_BYTES = 1_000_000_000
LONGEST_CELL = 10_000_000  # characters; a cell may hold a whole CIF


def is_unknown(value: object) -> bool:
    """Whether a cell says nothing."""
    if isinstance(value, str):
        return value.strip() in UNKNOWN
    return value is None or (isinstance(value, Real) and value != value)


def text(value: object) -> str:
    """A text without blanks around it."""
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value.strip()


def number(value: object) -> float:
    """A finite number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("is no number; write it like 0.5, with a point") from None
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise ValueError("is no number")
    if not isfinite(value):
        raise ValueError("is not finite; leave it out where it is not known")
    return float(value)


def whole(value: object) -> int:
    """A whole number, which a spreadsheet may have written as 331.0."""
    found = number(value)
    if found != round(found) or abs(found) > 2**53:
        raise ValueError("is no whole number")
    return round(found)


def _whole_or_none(value: object) -> int | None:
    try:
        return whole(value)
    except ValueError:
        return None


def spacegroup(value: object) -> int:
    """The number of a space group, 0 where it is not known."""
    found = _whole_or_none(value)
    if found is None or not 0 <= found <= SPACEGROUPS:
        raise ValueError("is no number of a space group; write one from 1 to 230, such as 187")
    return found


def supercell(value: object) -> int:
    """The repetition as an integer, from 331 or 3x3x1."""
    if isinstance(value, str) and (
        repeat := re.fullmatch(r"\(?(\d+)\s*[x×,*]\s*(\d+)\s*[x×,*]\s*(\d+)\)?", value.strip())
    ):
        return int("".join(repeat.groups()))
    found = _whole_or_none(value)
    if found is None or found < 0:
        raise ValueError("is no repetition of the unit cell; write 331 or 3x3x1")
    return found


def flag(value: object) -> bool:
    """Yes or no, in the words of `YES` and `NO`."""
    word = str(value).strip().lower()
    if word not in YES | NO:
        raise ValueError("is neither yes nor no; write yes or no")
    return word in YES


def symbols(value: object) -> tuple[str, ...]:
    """Symbols of elements with commas between them; none where there is only `NO_ATOM`."""
    found = tuple(filter(None, (part.strip() for part in text(value).split(","))))
    if found == (NO_ATOM,):
        return ()
    for symbol in found:
        if atomic_numbers.get(symbol, 0) < 1:
            raise ValueError(
                "is no chemical element; write symbols with commas between them, such as Cr,Mn"
            )
    return found


def dopant(value: object) -> str:
    """The symbols of `symbols`, each once and sorted, with commas between them."""
    return ",".join(sorted(set(symbols(value))))


KINDS: dict[str, Callable] = {
    **{name: {str: text, float: number, int: whole, bool: flag}[t] for name, t in SCALARS.items()},
    "dopant": dopant,
    "removed": symbols,
    "host_spacegroup": spacegroup,
    "supercell": supercell,
}


def fields(row: Mapping[str, object], where: str, what: str) -> dict:
    """The fields of a `DefectRecord` that a row holds, in their types.

    Args:
        row: values by name; names of no field are passed over.
        where: file and row, for messages.
        what: "column" or "key", for messages.

    Raises DefectkitError for a value that is not of its kind.
    """
    found = {}
    for name, kind in KINDS.items():
        if name not in row or is_unknown(row[name]):
            continue
        found[name] = read_value(row[name], kind, f"{where}, {what} {name}")
    return found


def read_value(value: object, kind: Callable[[object], Value], where: str) -> Value:
    """`value` read by one of the functions above; DefectkitError, beginning with `where`."""
    try:
        return kind(value)
    except ValueError as error:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DefectkitError(f"{where}: {shown} {error}.") from None


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

    def read(self, column: str, kind: Callable[[object], Value]) -> Value | None:
        """The cell read by a function of `data.table`, None where it says nothing.

        DefectkitError, with its place, where it is not of that kind.
        """
        cell = self.cells.get(column, "")
        return (
            None if is_unknown(cell) else read_value(cell, kind, f"{self.where}, column {column}")
        )

    def need(self, column: str, kind: Callable[[object], Value]) -> Value:
        """The cell as `read` reads it; DefectkitError also where it says nothing."""
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
