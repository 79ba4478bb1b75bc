"""Exercises and their checks: `check("01-2", answer)` answers at once.

An exercise is the function that computes its right answer from the data set in use, or, where a
function is asked for, that function itself; `exercise` registers it together with the wrong answers
that students give, and with what each of them suggests. So the same exercise works on the demo
database, on Imp2d, or on a student's own files, and where these lack the rows of a question it says
so. A right answer is told what it means. A wrong one is told what this mistake suggests; asked
again, a hint; and again, the way. Whatever is handed in, the verdict is a sentence.

Helpers of the notebooks choose rows to show: a student's own files may hold no adsorbate, no
moment, no energy, a single host or none, so a helper takes another row, or passes a step over and
prints one sentence on why.
"""

import copy
import html
import importlib
import inspect
import os
import pkgutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from defectkit import DefectkitError
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord
from defectkit.teach import exercises, journal
from defectkit.teach.answers import Fault, differs, kind
from defectkit.teach.journal import STRICT

Same = Callable[[object, object], str]
Reason = Callable[[Dataset], str]
EASY_TO_SEE = 40  # atoms: examples come from cells no larger than this, where there are any
SECONDS = 10.0  # longest time that a student's function may take for one case
COLOURS = {True: "#1b7837", False: "#b35806", None: "#666666"}
SIGNS = {True: "✓", False: "✗", None: "…"}
OPEN = "no answer yet. Replace the three dots by your code, then run both cells again."
_exercises: dict[str, "Exercise"] = {}
_wrong = Counter()  # wrong answers of this session, by exercise
_computed: dict = {}  # by key, for the data set under None
_dataset: Dataset | None = None


@dataclass(frozen=True)
class Verdict:
    """What a check answers; it shows itself in text and in a notebook.

    Attributes:
        number: of the exercise.
        right: None where there is no answer yet.
        message: what there is to say, a sentence or two.
        more: the steps of help that were asked for so far.
    """

    number: str
    right: bool | None
    message: str
    more: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n  ".join([f"{SIGNS[self.right]} {self.number}: {self.message}", *self.more])

    def _repr_html_(self) -> str:
        colour = COLOURS[self.right]
        lines = "<br>".join(html.escape(line) for line in (self.message, *self.more))
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.4em 0.8em">'
            f'<b style="color: {colour}">{SIGNS[self.right]} {html.escape(self.number)}</b> '
            f"{lines}</div>"
        )


@dataclass(frozen=True)
class Exercise:
    """An exercise as registered by `exercise`, which explains what it is made of."""

    number: str
    right: Callable
    hint: str
    way: str
    meaning: str | Callable[[object], str]
    mistakes: Mapping[str, object] = field(default_factory=dict)
    given: Callable[[Dataset, object], tuple] | None = None
    cases: Sequence[tuple] | Callable[[Dataset], Sequence[tuple]] | None = None
    takes: str = ""
    rel: float = 1e-3
    same: Same | None = None
    nothing_to_ask: Reason = lambda data: ""

    @property
    def title(self) -> str:
        """What is asked for, in a few words."""
        return inspect.getdoc(self.right).splitlines()[0].rstrip(".")

    def judge(self, data: Dataset, answer: object) -> tuple[str, str]:
        """What is wrong with an answer, or what it means; the other one is empty.

        What is wrong begins with the mistake that the answer looks like. Raises Fault where there
        is nothing to compare.
        """
        found, right, given_by = self._sides(data, answer)
        faults = [self._fault(*pair) for pair in zip(found, right)]
        place = next((k for k, fault in enumerate(faults) if fault), None)
        if place is None:
            value = None if self.cases is not None else right[0]
            return "", self._meant(value)
        for sentence, mistake in self.mistakes.items():
            try:
                wrong = given_by(mistake)
            except Exception:  # a wrong way need not lead anywhere on every data set
                continue
            if not any(self._fault(*pair) for pair in zip(found, wrong)):
                return sentence, ""
        return f"{faults[place]}{self._example(data, place)}.", ""

    def _meant(self, value: object) -> str:
        return self.meaning(value) if callable(self.meaning) else self.meaning.format(x=value)

    def _sides(self, data: Dataset, answer: object) -> tuple[list, list, Callable[[object], list]]:
        """What was answered and what is right, a value for each case; what a mistake gives."""
        if self.cases is None:
            asked = (data,)
            if self.given is not None:
                part, answer = self.given(data, answer)
                asked = (data, part)
            found, cases = [answer], [asked]
        else:
            cases = self._cases(data)
            names = list(inspect.signature(self.right).parameters)
            found = [call(answer, names, self.takes, case) for case in cases]
        key = cases[0][1:] if self.cases is None else ()

        def given_by(mistake: object) -> list:
            if not callable(mistake):
                return [mistake] * len(cases)
            return once(data, (mistake, *key), lambda: [mistake(*case) for case in cases])

        return found, given_by(self.right), given_by

    def _cases(self, data: Dataset) -> Sequence[tuple]:
        if not callable(self.cases):
            return self.cases
        return once(data, self.cases, lambda: self.cases(data))

    def _fault(self, found: object, expected: object) -> str:
        try:
            return self.same(found, expected) if self.same else differs(found, expected, self.rel)
        except Exception:  # of the answer's own making, which may do anything when it is read
            return f"this cannot be read as an answer; it is {kind(found)}"

    def _example(self, data: Dataset, place: int) -> str:
        """For which arguments a function was found wrong, where they are few and short."""
        if self.cases is None:
            return ""
        names = inspect.signature(self.right).parameters
        values = self._cases(data)[place]
        given = [f"{name} = {_shown(value)}" for name, value in zip(names, values)]
        text = ", ".join(given)
        return f", for {text}" if len(text) < 160 and "\n" not in text else ""


def exercise(
    number: str,
    *,
    hint: str,
    way: str,
    meaning: str | Callable[[object], str],
    **more: object,
) -> Callable[[Callable], Callable]:
    """Register the function that gives the right answer of exercise `number`, for example "01-2".

    A value is asked for: the function takes the data set and returns the right value. With `given`
    it takes the first part of the answer as well, such as the id of a row. A function is asked for:
    it is that function, and `cases` are what it is tried on.

    Args:
        number: of the exercise.
        hint: second help, after the sentence of the mistake.
        way: third help: how it is done.
        meaning: what the right answer means: a sentence, in which {x} stands for the value, or a
            function of the value.
        more: any of these:

            * nothing_to_ask: of the data set, says in words what it lacks for this exercise, or "";
            * mistakes: by what there is to say of it, each wrong answer that students give: a
              value, or a function of what the right one is a function of;
            * given: reads an answer of two parts (`answers.row_id`, `answers.seed_and`);
            * cases: tuples of arguments, or a function of the data set that returns them;
            * takes: what the arguments are, in a sentence;
            * rel: largest relative distance of numbers;
            * same: says how an answer differs from the right one, in place of `answers.differs`.
    """

    def register(right: Callable) -> Callable:
        _exercises[number] = Exercise(number, right, hint, way, meaning, **more)
        return right

    return register


def use(dataset: Dataset) -> None:
    """Check the exercises that follow against this data set."""
    global _dataset
    _dataset = dataset


def in_use() -> Dataset:
    """The data set in use; raises DefectkitError where none was named with `use`."""
    if _dataset is None:
        raise DefectkitError("Run the notebook's first cells: they name the data set in use.")
    return _dataset


def check(number: str, answer: object) -> Verdict:
    """Judge an answer; an unanswered exercise (`...`) gets a friendly reminder.

    Where the data set lacks the rows of the question, any answer passes and the verdict says why.
    Raises DefectkitError for an unknown exercise, or when no data set was named with `use`.
    """
    verdict = judge(number, answer)
    if not verdict.right and os.environ.get(STRICT):
        raise AssertionError(repr(verdict))
    journal.note_answer(number, verdict.right)
    return verdict


def judge(number: str, answer: object) -> Verdict:
    """The verdict of `check`, which is neither kept nor raised."""
    asked, data = find(number), in_use()
    if reason := asked.nothing_to_ask(data):
        return Verdict(number, True, f"nothing to answer on this data set: {reason}.")
    if answer is ... or (type(answer) is tuple and any(part is ... for part in answer)):
        return Verdict(number, None, OPEN)
    try:
        fault, meant = asked.judge(data, answer)
    except Fault as found:
        fault, meant = str(found), ""
    if not fault:
        return Verdict(number, True, meant)
    _wrong[number] += 1
    if _wrong[number] == 1:
        return Verdict(number, False, fault, ("(Run the check again for a hint.)",))
    help_ = (f"Hint: {asked.hint}", f"The way: {asked.way}")
    return Verdict(number, False, fault, help_[: _wrong[number] - 1])


def exercise_numbers(notebook: str = "") -> list[str]:
    """Numbers of the exercises of one notebook, such as "01"; of all by default."""
    _load()
    prefix = f"{notebook}-" if notebook else ""
    numbers = sorted(number for number in _exercises if number.startswith(prefix))
    if not numbers:
        raise DefectkitError(f"There is no notebook {notebook!r} with exercises.")
    return numbers


def progress() -> journal.Progress:
    """What a student did so far: exercises, guesses and their calibration; shows itself."""
    return journal.summary(exercise_numbers())


def find(number: str) -> Exercise:
    """An exercise by its number; raises DefectkitError, which names those there are."""
    notebook = str(number).partition("-")[0]
    known = exercise_numbers(notebook or "?")
    if number not in known:
        raise DefectkitError(
            f"There is no exercise {number!r}; notebook {notebook} has {', '.join(known)}."
        )
    return _exercises[number]


def once(data: Dataset, key: Hashable, compute: Callable[[], object]) -> object:
    """What `compute` gives, computed once for a data set: a second try should not wait again."""
    if _computed.get(None) is not data:
        _computed.clear()
        _computed[None] = data
    if key not in _computed:
        _computed[key] = compute()
    return _computed[key]


def _load() -> None:
    """Import the exercises, which register themselves."""
    for subject in pkgutil.iter_modules(exercises.__path__, f"{exercises.__name__}."):
        importlib.import_module(subject.name)


def call(
    function: object,
    names: Sequence[str],
    takes: str,
    arguments: Sequence,
    seconds: float | None = None,
) -> object:
    """What a student's function returns for copies of these arguments.

    Args:
        function: anything that was handed in as one.
        names: of its arguments.
        takes: what they are, in a sentence.
        arguments: the values.
        seconds: longest time that it may take; `SECONDS` where it is not given.

    Raises Fault where it is no function, stops with an error, takes longer, changes its arguments,
    or returns nothing.
    """
    words, seconds = f"({', '.join(names)})", seconds or SECONDS
    if not callable(function):
        raise Fault(f"answer with a function of {words}, not with {kind(function)}.")
    given = copy.deepcopy(list(arguments))
    try:
        with at_most(seconds):
            found = function(*given)
    except Fault:
        raise
    except TimeoutError as error:
        raise Fault(
            f"your function does not come to an end within {seconds:g} s: is there a loop?"
        ) from error
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Fault(
            f"your function stopped with {reason}. Its arguments are {words}: {takes}"
        ) from error
    for name, before, after in zip(names, arguments, given):
        if not _unchanged(before, after):
            raise Fault(f"your function changes {name} itself; let it work on something new.")
    if found is None:
        raise Fault("your function returns nothing: its last line must be return, and the result.")
    return found


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after some time; not in threads, nor on Windows."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _unchanged(before: object, after: object) -> bool:
    if isinstance(before, pd.DataFrame | pd.Series):
        return before.equals(after)
    if hasattr(before, "shape"):
        one, other = np.asarray(before), np.asarray(after)
        return one.shape == other.shape and bool(((one == other) | (one != one)).all())
    return before == after


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=2, separator=", ")
    return str(value)


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
