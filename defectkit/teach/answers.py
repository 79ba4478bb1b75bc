"""Answers of students: read whatever was handed in, and say how it differs from the right answer.

What is wanted is read from the right answer itself: a whole number is wanted exactly, another
number closely, and lists, arrays, tensors and pandas objects stand for each other wherever one of
them is wanted. Nothing of an answer is read before its kind and its size are known.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Number, Real

import numpy as np
import pandas as pd

from defectkit.data.dataset import Dataset

ANY = object()  # in a right or wrong answer: a part that may be anything
WHOLE = 1e-6  # largest distance from a whole number that rounding explains
PLACES = ("first", "second", "third", "fourth")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 6
short = _short.repr


class Fault(Exception):  # noqa: N818 - an answer's, not the program's
    """What is wrong with an answer, in words for the student; `check` shows them."""


@dataclass(frozen=True)
class AnyOf:
    """Several right answers, of which one is wanted."""

    values: tuple

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


def differs(found: object, expected: object, rel: float = 1e-3) -> str:
    """How an answer differs from the expected one, in words; empty where it does not.

    Args:
        found: anything.
        expected: a truth value, number, text, tuple, list, set, dictionary, array, tensor, series,
            `AnyOf` or `ANY`.
        rel: largest relative distance of numbers, unless a whole number is expected.
    """
    if expected is ANY:
        return ""
    if isinstance(expected, AnyOf):
        faults = [differs(found, value, rel) for value in expected.values]
        return "" if "" in faults else faults[0]
    if isinstance(expected, bool | np.bool_):
        return _differs_truth(found, bool(expected))
    if isinstance(expected, Number):
        return _differs_number(found, expected, rel)
    if isinstance(expected, str):
        return _differs_text(found, expected)
    if isinstance(expected, Mapping):
        return _differs_mapping(found, expected, rel)
    if isinstance(expected, tuple):
        return _differs_tuple(found, expected, rel)
    if isinstance(expected, set | list):
        return _differs_names(found, expected)
    return _differs_array(found, expected, rel)


def kind(found: object) -> str:
    """What an object is, in words; whatever it does when it is asked."""
    try:
        return _kind(found)
    except Exception:
        return f"an object of the class {type(found).__name__}"


def _kind(found: object) -> str:
    if found is None:
        return "None"
    if isinstance(found, bool | np.bool_):
        return "True or False"
    if isinstance(found, str):
        return "a text"
    if isinstance(found, Number):
        return "a number"
    name = type(found).__name__
    shape = getattr(found, "shape", None)
    if isinstance(shape, tuple):
        return f"a {name} of shape {tuple(shape)}"
    if callable(found):
        return "a function" if name == "function" else f"a {name}, which has to be called first"
    size = f" of {len(found)}" if isinstance(found, tuple | list | set | dict) else ""
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}{size}"


def number_of(found: object) -> float | None:
    """The number that an answer is, whatever wraps it; None where it is none.

    Arrays, tensors and pandas objects of one value are read, truth values and texts are not.
    """
    if getattr(found, "shape", None) is not None and _size(found) == 1:
        found = _numpy(found).reshape(-1)[0]
    found = found.item() if isinstance(found, np.generic) else found
    if isinstance(found, bool) or not isinstance(found, Number):
        return None
    try:
        return float(found) if isinstance(found, Real) or not isinstance(found, complex) else None
    except OverflowError:
        return math.inf


def _differs_truth(found: object, expected: bool) -> str:
    if getattr(found, "shape", None) == ():
        found = _numpy(found).item()
    if not isinstance(found, bool | np.bool_):
        return f"True or False is wanted here, not {kind(found)}"
    return "" if bool(found) == expected else f"not {bool(found)}"


def _differs_number(found: object, expected: float, rel: float) -> str:
    value = number_of(found)
    if value is None:
        return f"a number is wanted here, not {kind(found)}{_remark(found)}"
    if math.isnan(value) or math.isnan(expected):
        return "" if math.isnan(value) and math.isnan(expected) else f"{value:g} is not it"
    near = WHOLE if isinstance(expected, int | np.integer) else rel * abs(expected) + 1e-9
    if abs(value - expected) <= near:
        return ""
    return f"{value:g} is too {'high' if value > expected else 'low'}"


def _remark(found: object) -> str:
    if found is None:
        return " (does the function end with return?)"
    if isinstance(found, bool | np.bool_):
        return " (to count, take the sum of many of them)"
    if isinstance(found, str):
        return " (numbers stand without quotes)"
    if getattr(found, "shape", None) is not None:
        return " (which one of them?)"
    return ""


def _differs_text(found: object, expected: str) -> str:
    if not isinstance(found, str):
        return f"a text in quotes is wanted here, not {kind(found)}"
    return "" if found.strip() == expected else f"not {short(found.strip())}"


def _differs_mapping(found: object, expected: Mapping, rel: float) -> str:
    found = found.to_dict() if isinstance(found, pd.Series) else found
    names = ", ".join(map(str, expected))
    if not isinstance(found, Mapping):
        return f"a dictionary of {names} is wanted here, not {kind(found)}"
    if set(found) != set(expected):
        return f"the dictionary must have the names {names}, and no others"
    for name, value in expected.items():
        if fault := differs(found[name], value, rel):
            return f"{name}: {fault}"
    return ""


def _differs_tuple(found: object, expected: tuple, rel: float) -> str:
    size = _size(found) if getattr(found, "shape", None) is not None else None
    if isinstance(found, tuple | list):
        size = len(found)
    count = {2: "a pair", 3: "a group of three values"}[len(expected)]
    if size != len(expected):
        return f"{count} in round brackets is wanted here, not {kind(found)}"
    parts = found if isinstance(found, tuple | list) else _numpy(found).reshape(-1).tolist()
    for place, part, value in zip(PLACES, parts, expected):
        if part is ...:
            return f"the {place} value has no answer yet"
        if fault := differs(part, value, rel):
            return f"the {place} value: {fault}"
    return ""


def _differs_names(found: object, expected: set | list) -> str:
    wanted = "a set" if isinstance(expected, set) else "a list"
    if not isinstance(found, set | frozenset | list | tuple | pd.Index | pd.Series | np.ndarray):
        return f"{wanted} of names is wanted here, not {kind(found)}"
    if len(found) > 1000 or np.ndim(_names(found)) != 1:
        return f"{wanted} of names is wanted here, not {kind(found)}"
    names = [str(name) for name in _names(found)]
    if isinstance(expected, set):
        alike = set(names) == {str(name) for name in expected}
    else:
        alike = not isinstance(found, set | frozenset) and names == list(map(str, expected))
    return "" if alike else f"not {short(names)}"


def _names(found: object) -> np.ndarray:
    every = list(found)
    names = np.empty(len(every), dtype=object)
    names[:] = [name if np.ndim(name) == 0 else str(name) for name in every]
    return names


def _differs_array(found: object, expected: object, rel: float) -> str:
    """Arrays, tensors, series and tables; NaN equals NaN."""
    name = "tensor" if type(expected).__name__ == "Tensor" else "array"
    expected_array = _numpy(expected)
    wanted = f"{'a' if name == 'tensor' else 'an'} {name} of shape {expected_array.shape}"
    sized = getattr(found, "shape", None) is not None or isinstance(found, list | tuple)
    if not sized or _shape(found) != expected_array.shape:
        return f"{wanted} is wanted, not {kind(found)}"
    both = isinstance(found, pd.Series) and isinstance(expected, pd.Series)
    if both and not found.index.equals(expected.index):
        return "keep the rows in their order, with their ids"
    array = _numpy(found)
    if expected_array.dtype == bool:
        if array.dtype != bool:
            return f"{wanted} with True or False in every place is wanted, not with {array.dtype}"
        wrong = array != expected_array
        return f"{int(wrong.sum())} of {wrong.size} places are wrong" if wrong.any() else ""
    if array.dtype.kind not in "iuf":
        return f"{wanted} of numbers is wanted, not of {array.dtype}"
    expected_array = expected_array.astype(float)
    near = np.isclose(array.astype(float), expected_array, rtol=rel, atol=1e-5, equal_nan=True)
    if near.all():
        return ""
    if isinstance(expected, pd.Series):
        row = expected.index[~near][0]
        return f"{row} gives {array[~near][0]:g} and not {expected_array[~near][0]:g}"
    return "right shape, other numbers than expected"


def _shape(found: object) -> tuple:
    if getattr(found, "shape", None) is not None:
        return tuple(found.shape)
    return np.shape(_numpy(found))


def _size(found: object) -> int:
    return math.prod(found.shape)


def _numpy(found: object) -> np.ndarray:
    """An array of what is an array by another name; raises whatever the object raises."""
    return np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)


def row_id(name: str, value: str) -> Callable[[Dataset, object], tuple]:
    """For an answer of two parts, the id of a row and what was asked of it.

    Args:
        name: what the id is called in the notebook, such as "row.name".
        value: what the second part is.

    Returns:
        a function of (data set, answer) that gives both parts; it raises Fault where the first one
        is no row.
    """

    def read(data: Dataset, answer: object) -> tuple:
        uid, found = _two(answer, f"({name}, {value})")
        rows = data.frame.index
        if isinstance(uid, str) and uid in rows:
            return uid, found
        if isinstance(found, str) and found in rows:
            raise Fault(f"the two are swapped: ({name}, {value}).")
        raise Fault(f"{short(uid)} is no row of this data set; {name} is the id of the row in use.")

    return read


def seed_and(value: str) -> Callable[[Dataset, object], tuple]:
    """The same for an answer whose first part is the seed of what was drawn."""

    def read(data: Dataset, answer: object) -> tuple:
        seed, found = _two(answer, f"(seed, {value})")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise Fault(f"the first part is the seed, a whole number, and not {short(seed)}.")
        return int(seed), found

    return read


def _two(answer: object, words: str) -> tuple:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Fault(f"answer with a pair in round brackets, {words}, not with {kind(answer)}.")
    return tuple(answer)
