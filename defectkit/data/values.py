"""What stands in a cell of a table or a key of a database, as the field of a record that it is.

One reader for each kind of column. A cell that is empty, NaN, or says in a word that nothing is
known is left out; any other that is not of its kind is an error that says what would be.
"""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from numbers import Real

import numpy as np
from ase.data import atomic_numbers

from defectkit import DefectkitError
from defectkit.structures.record import SCALARS

UNKNOWN = {"", "-", *"nan NaN NAN NA N/A n/a #N/A <NA> null NULL none None".split()}  # not Na
YES = {"yes", "y", "true", "t", ".true.", "1", "1.0"}
NO = {"no", "n", "false", "f", ".false.", "0", "0.0"}
NO_ATOM = "X"  # ASE's symbol of it
SPACEGROUPS = 230


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
    """The repetition as an integer: 331, or in words 3x3x1."""
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


def read_value(value: object, kind: Callable, where: str):
    """`value` read by one of the functions above; DefectkitError, beginning with `where`."""
    try:
        return kind(value)
    except ValueError as error:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DefectkitError(f"{where}: {shown} {error}.") from None
