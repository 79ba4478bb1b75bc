"""Exercise checks: `check("01-2", answer)` answers at once, right or with a hint.

Nothing is stored: every expected value is computed from the data set in use, so the same
exercise works on the demo database, on Imp2d, or on a student's own files. An exercise is a
judge, a function of (data set, answer) that returns None for a right answer and a hint for a
wrong one; judges live in `defectkit.teach.exercises`. Where a data set may lack the rows of a
question, the exercise is registered with a function that says so. Helpers of the notebooks choose
rows to show: a student's own files may hold no adsorbate, no moment, no energy, a single host or
none, so a helper takes another row, or passes a step over and prints one sentence on why.
"""

import html
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from defectkit import DefectkitError
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord

Judge = Callable[["Dataset", object], str | None]
Reason = Callable[["Dataset"], str]
_judges: dict[str, Judge] = {}
_reasons: dict[str, Reason] = {}
_dataset: "Dataset | None" = None
STRICT = "DEFECTKIT_STRICT_CHECKS"  # set by the runs that must prove every solution right
EASY_TO_SEE = 40  # atoms: examples come from cells no larger than this, where there are any


if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

    from defectkit.data.dataset import Dataset


@dataclass(frozen=True)
class Verdict:
    """The answer of a check: `right` and a sentence; shows itself in text and in a notebook."""

    number: str
    right: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.number}: {self.message}"

    def _repr_html_(self) -> str:
        colour = "#1b7837" if self.right else "#b35806"
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.4em 0.8em">'
            f'<b style="color: {colour}">{html.escape(repr(self)[:1])} {self.number}</b> '
            f"{html.escape(self.message)}</div>"
        )


def use(dataset: "Dataset") -> None:
    """Check the exercises that follow against this data set."""
    global _dataset
    _dataset = dataset


def exercise(number: str, nothing_to_ask: Reason = lambda data: "") -> Callable[[Judge], Judge]:
    """Register a judge for exercise `number`, for example "01-2".

    `nothing_to_ask(data)` says in words what a data set lacks for this exercise, else "".
    """

    def register(judge: Judge) -> Judge:
        _judges[number], _reasons[number] = judge, nothing_to_ask
        return judge

    return register


def check(number: str, answer: object) -> Verdict:
    """Judge an answer; an unanswered exercise (`...`) gets a friendly reminder.

    Where the data set lacks the rows of the question, any answer passes and the verdict says why.
    Raises DefectkitError for an unknown exercise, or when no data set was named with `use`.
    """
    judge = _find(number)
    if _dataset is None:
        raise DefectkitError("Run the notebook's first cells: they name the data set in use.")
    if reason := _reasons[number](_dataset):
        return Verdict(number, True, f"nothing to answer on this data set: {reason}.")
    if answer is ...:
        hint = "no answer yet: replace the three dots by your code, then run both cells again."
    else:
        try:
            hint = judge(_dataset, answer)
        except Fault as fault:
            hint = str(fault)
    verdict = Verdict(number, hint is None, hint or "right!")
    if not verdict.right and os.environ.get(STRICT):
        raise AssertionError(repr(verdict))
    return verdict


def exercise_numbers(notebook: str) -> list[str]:
    """Numbers of the exercises of one notebook, for example `exercise_numbers("01")`."""
    _load()
    numbers = sorted(number for number in _judges if number.startswith(f"{notebook}-"))
    if not numbers:
        raise DefectkitError(f"There is no notebook {notebook!r} with exercises.")
    return numbers


class Fault(Exception):  # noqa: N818 - an answer's, not the program's
    """What is wrong with an answer, in words for the student; `check` shows them."""


def result_of(answer: object, names: str, shapes: str, *arguments: object) -> object:
    """A judge's helper: what the student's function returns for these arguments.

    Args:
        answer: the function.
        names: of its arguments, as in "(h, index, weight)".
        shapes: what they are, as in "h is (N, D)."
        arguments: the values.

    Raises Fault where the answer is no function, or stops with an error.
    """
    if not callable(answer):
        raise Fault(f"answer with a function of {names}.")
    try:
        return answer(*arguments)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise Fault(f"your function stopped: {error}. {shapes}") from error


def pair_of(answer: object, words: str) -> tuple:
    """A judge's helper: the two parts of an answer; raises Fault with `words` for anything else."""
    if not (isinstance(answer, tuple | list | np.ndarray) and len(answer) == 2):
        raise Fault(words)
    return tuple(answer)


def check_row(data: "Dataset", uid: object, name: str) -> None:
    """A judge's helper: raises Fault where `uid`, written as `name` in a notebook, is no row."""
    if uid not in data.frame.index:
        raise Fault(f"{uid!r} is no row of this data set; {name} is the id of the row in use.")


def same_number(answer: object, expected: float, hint: str, rel: float = 1e-3) -> str | None:
    """A judge's helper: None when `answer` is a number close to `expected`, else a hint."""
    if isinstance(answer, np.generic):
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, Number):
        return f"a number is wanted here, not {type(answer).__name__}. {hint}"
    if np.isclose(answer, expected, rtol=rel, atol=1e-9):
        return None
    return f"{answer:g} is too {'high' if answer > expected else 'low'}. {hint}"


def same_numbers(answers: Sequence, expected: Sequence[float], hints: Sequence[str]) -> str | None:
    """A judge's helper: the first fault of `same_number` among several answers."""
    faults = map(same_number, answers, expected, hints)
    return next(filter(None, faults), None)


def same_text(answer: object, expected: str, hint: str) -> str | None:
    """A judge's helper: None when `answer` is the text `expected`, else a hint."""
    if not isinstance(answer, str):
        return f"a text in quotes is wanted here, not {type(answer).__name__}. {hint}"
    return None if answer.strip() == expected else f"not {answer.strip()!r}. {hint}"


def same_tensor(answer: object, expected: "Tensor", hint: str) -> str | None:
    """A judge's helper: None when `answer` is a tensor close to `expected`, else a hint."""
    import torch

    if not isinstance(answer, torch.Tensor) or answer.shape != expected.shape:
        found = tuple(getattr(answer, "shape", ())) or type(answer).__name__
        return f"a tensor of shape {tuple(expected.shape)} is wanted, not {found}. {hint}"
    if torch.allclose(answer, expected, atol=1e-5):
        return None
    return f"right shape, other numbers than expected. {hint}"


def same_array(answer: object, expected: np.ndarray, hint: str) -> str | None:
    """A judge's helper: None when `answer` is an array close to `expected`, else a hint."""
    if np.shape(answer) != expected.shape:
        return f"an array of shape {expected.shape} is wanted, not {np.shape(answer)}. {hint}"
    if np.allclose(answer, expected):
        return None
    return f"right shape, other numbers than expected. {hint}"


def _load() -> None:
    """Import the judges, which register themselves."""
    for subject in ("data", "models", "trust", "real", "own", "vectors"):
        importlib.import_module(f"defectkit.teach.exercises.{subject}")


def _find(number: str) -> Judge:
    notebook = number.partition("-")[0]
    known = exercise_numbers(notebook)
    if number not in known:
        raise DefectkitError(
            f"There is no exercise {number!r}; notebook {notebook} has {', '.join(known)}."
        )
    return _judges[number]


def has(values: pd.Series, what: str, least: int = 1) -> bool:
    """Whether `values` (texts or numbers) hold at least `least` different ones; if not, say so.

    Empty texts and NaN do not count. `what` names the values in the plural.
    """
    different = values[values.notna() & (values != "")].nunique()
    if different >= least:
        return True
    count = f"fewer than {least} different" if different else "no"
    print(f"This data set has {count} {what}: this step is passed over.")
    return False


def example(data: Dataset, rows: pd.DataFrame, what: str, seed: int = 0) -> DefectRecord:
    """One of `rows` at random, of the small cells where there are any, with a known host.

    Where there is none, another row of the data set stands in, and a sentence says so. `what`
    names what `rows` are in the singular, such as "adsorbate".
    """
    hosted = data.frame.host.isin(list(data.hosts))
    chosen = rows[hosted[rows.index]]
    missing = chosen.empty
    if missing:
        chosen = data.frame[hosted] if hosted.any() else data.frame
    small = chosen[chosen.natoms <= max(EASY_TO_SEE, chosen.natoms.min())]
    record = data[small.sample(1, random_state=seed).index[0]]
    if missing:
        print(f"This data set has no {what}; {record.name or record.uid} stands in.")
    return record


def clean_rows(data: Dataset, quiet: bool = False) -> Dataset:
    """The rows that the strict rules leave; where they leave none, those with an energy, or all.

    A sentence says so, unless `quiet`.
    """
    kept = clean(data, "strict").dataset
    if len(kept):
        return kept
    labelled = data.frame.index[data.frame.eform.notna()]
    if not quiet:
        others = "those that have an energy" if len(labelled) else "all, without energies"
        print(
            f"The strict rules leave none of {len(data):,} rows (see section 7 of notebook 01); we "
            f"go on with {others}."
        )
    return data.subset(labelled) if len(labelled) else data


def defect_of(data: Dataset, record: DefectRecord) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a record's defect atoms and positions, (k, 3) Å, of its vacancies.

    Both are empty where its host cannot tell, and a sentence says why.
    """
    try:
        if record.host in data.hosts:
            found = recognised(record, data.hosts[record.host])
            return found.defect_indices, found.vacancy_positions
        reason = f"its pristine host {record.host!r} is not among the data"
    except DefectkitError as refusal:
        reason = str(refusal)
    print(f"Which atom of {record.uid} is the defect stays open: {reason}.")
    return np.zeros(0, dtype=int), np.zeros((0, 3))


def caption(record: DefectRecord) -> str:
    """Name, chemistry, type and source of the labels of a record, for above a figure."""
    host = f"in {record.host}" if record.host else ""
    missing = f"{','.join(record.removed)} missing" if record.removed else ""
    what = f"{record.dopant or missing} {host}".strip()
    words = ", ".join(part for part in (what, record.defecttype) if part)
    name = record.name or record.uid
    return f"{name}{f': {words}' if words else ''} ({record.label_source})"


def table(frame: pd.DataFrame) -> Styler:
    """A table to show, whose texts are not cut and stand on the left."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    left = {"text-align": "left"}
    headers = [{"selector": "th", "props": [("text-align", "left")]}]
    return frame.style.set_properties(subset=texts, **left).set_table_styles(headers)
