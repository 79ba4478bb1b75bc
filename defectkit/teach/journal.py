"""What a student did: answers given, guesses made before a result was seen, and how they came out.

`guess` asks before a result and `reveal` answers beside it. `summary` shows both, and whether the
student was as often right as sure: the calibration that notebook 05 asks of a network. All is kept
in one small file, `progress.json`, in the folder of the notebook, which may be deleted at any time
and goes nowhere. It is written from notebooks only, and not by runs that show the solutions.
"""

import copy
import html
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from filelock import Timeout
from IPython import get_ipython

from defectkit import DefectkitError
from defectkit.structures.writing import keep, locked, write_text

if TYPE_CHECKING:  # a notebook has them loaded
    from ipywidgets import VBox
    from matplotlib.axes import Axes

STRICT = "DEFECTKIT_STRICT_CHECKS"  # set by the runs that must prove every solution right
FILE = Path("progress.json")
SURE = (0.5, 0.7, 0.9, 0.99)  # how sure a student may be of a guess
PATIENCE = 2.0  # s until another notebook has written its own
# Of this kernel: what cannot be kept is known here all the same.
_session: dict[str, dict] = {"exercises": {}, "guesses": {}}


def note_answer(number: str, right: bool | None) -> None:
    """Keep what a check said: how often it was wrong, and whether it was right at last."""
    if right is None:
        return

    def change(book: dict) -> None:
        known = book["exercises"].setdefault(number, {"wrong": 0, "right": False})
        known["right"] = known["right"] or right
        known["wrong"] += not right

    _change(change)


@dataclass(frozen=True)
class Answer:
    """What a guess is told, in a sentence."""

    number: str
    right: bool | None
    message: str

    def __repr__(self) -> str:
        return f"Guess {self.number}: {self.message}"

    def _repr_html_(self) -> str:
        colour = {True: "#1b7837", False: "#b35806", None: "#666666"}[self.right]
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.2em 0.8em">'
            f"<b>Guess {html.escape(self.number)}</b> {html.escape(self.message)}</div>"
        )


def guess(
    number: str, options: Sequence[object], choice: object = None, sure: float = 0.7
) -> "VBox | Answer":
    """Ask for a guess: buttons to choose from, or the `choice` itself.

    The last choice before the result counts; from there on it stays.

    Args:
        number: of the guess, such as "02-b".
        options: texts or numbers to choose from.
        choice: one of them, where there are no buttons.
        sure: how sure, as a probability.

    Raises DefectkitError where `choice` is none of the options.
    """
    names = [str(option) for option in options]
    if choice is None:
        return _buttons(number, names)
    if str(choice) not in names:
        raise DefectkitError(f"Guess {number} is one of: {'; '.join(names)}.")
    return _keep_guess(number, names, str(choice), sure)


def reveal(number: str, truth: object, ax: "Axes | None" = None) -> Answer:
    """Answer a guess, and write it on the figure of the result.

    Args:
        number: of the guess.
        truth: the right option; where options are numbers, a number, and the nearest one is right.
        ax: axes of the figure.
    """
    known = _book()["guesses"].get(number)
    if known is None:
        return Answer(number, None, f"the answer is “{_text(truth)}”. (You made no guess.)")
    right = _nearest(known["options"], truth)
    won = known["choice"] == right
    _change(lambda book: book["guesses"].setdefault(number, known).update(truth=right))
    said = f"you said “{known['choice']}”, {known['sure']:.0%} sure"
    message = f"{said}, and so it is" if won else f"{said}; it is “{right}”"
    more = f" ({_text(truth)})" if right != str(truth) else ""
    if ax is not None:
        ax.annotate(
            f"your guess: {known['choice']} {'✓' if won else '✗'}",
            xy=(1, 1),
            xytext=(-4, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"},
            zorder=10,
        )
    return Answer(number, won, f"{message}{more}.")


@dataclass(frozen=True)
class Progress:
    """Exercises and guesses of a student, and how well sureness and success agree.

    Attributes:
        exercises: columns right, tried and all, by notebook.
        guesses: columns choice, sure, truth and right, by number.
        calibration: of the answered guesses, by how sure: their number, and the share right.
    """

    exercises: pd.DataFrame
    guesses: pd.DataFrame
    calibration: pd.DataFrame

    def __repr__(self) -> str:
        return "\n\n".join(f"{title}\n{_plain(table)}" for title, table in self._tables())

    def _repr_html_(self) -> str:
        parts = [
            f"<h4>{title}</h4>{table.to_html(na_rep='') if len(table) else 'none yet'}"
            for title, table in self._tables()
        ]
        return "".join(parts)

    def _tables(self) -> list[tuple[str, pd.DataFrame]]:
        return [
            ("Exercises", self.exercises),
            ("Guesses", self.guesses),
            ("How sure, and how often right", self.calibration),
        ]


def summary(numbers: Sequence[str]) -> Progress:
    """What was done so far of the exercises with these numbers, and every guess."""
    book = _book()
    done = pd.DataFrame({"number": list(numbers)})
    done["notebook"] = done.number.str.partition("-")[0]
    known = done.number.map(lambda number: book["exercises"].get(number, {}))
    done["right"] = known.map(lambda one: bool(one.get("right")))
    done["tried"] = known.map(bool)
    done["all"] = True
    made = pd.DataFrame.from_dict(book["guesses"], orient="index").sort_index()
    made = made.reindex(columns=["choice", "sure", "truth"]).rename_axis("guess")
    made["right"] = (made.choice == made.truth).where(made.truth.notna())
    answered = made.dropna(subset=["truth"])
    share = answered.astype({"right": float}).groupby("sure").right.agg(["size", "mean"])
    share.columns = ["guesses", "of them right"]
    return Progress(done.groupby("notebook")[["right", "tried", "all"]].sum(), made, share.round(2))


def forget() -> None:
    """Remove what is kept of a student."""
    for part in _session.values():
        part.clear()
    FILE.unlink(missing_ok=True)


def _buttons(number: str, names: list[str]) -> "VBox":
    import ipywidgets

    known = _book()["guesses"].get(number, {})
    choose = ipywidgets.ToggleButtons(
        options=names,
        value=known.get("choice") if known.get("choice") in names else None,
        style={"button_width": "auto"},
        disabled="truth" in known,
    )
    sure = ipywidgets.SelectionSlider(
        options=[(f"{level:.0%}", level) for level in SURE],
        value=known.get("sure") if known.get("sure") in SURE else SURE[1],
        description="how sure",
        disabled="truth" in known,
    )
    told = ipywidgets.HTML("The guess stands: its result was shown." if "truth" in known else "")

    def commit(_: object) -> None:
        if choose.value is not None:
            told.value = html.escape(_keep_guess(number, names, choose.value, sure.value).message)

    choose.observe(commit, "value")
    sure.observe(commit, "value")
    return _Box(f"Guess {number}: {' · '.join(names)}", [choose, sure, told])


def _Box(words: str, children: list) -> "VBox":  # noqa: N802 - it stands for a class
    """A box of widgets that a page without a kernel shows as these words."""
    import ipywidgets

    class Box(ipywidgets.VBox):
        def _repr_mimebundle_(self, **settings: object) -> dict:
            bundle = super()._repr_mimebundle_(**settings) or {}
            return {**bundle, "text/html": f"<p>{html.escape(words)}</p>", "text/plain": words}

    return Box(children)


def _keep_guess(number: str, names: list[str], choice: str, sure: float) -> Answer:
    if "truth" in _book()["guesses"].get(number, {}):
        return Answer(number, None, "the result was shown already, so the first guess stands.")
    made = {"options": names, "choice": choice, "sure": sure}
    _change(lambda book: book["guesses"].update({number: made}))
    return Answer(number, None, f"“{choice}” is noted, {sure:.0%} sure. Run on, and see.")


def _nearest(options: list[str], truth: object) -> str:
    """The option that is the truth; of numbers the one that is nearest to it."""
    if str(truth) in options or not isinstance(truth, Real):
        return str(truth)
    with suppress(ValueError):
        return min(options, key=lambda option: abs(float(option) - float(truth)))
    return str(truth)


def _text(truth: object) -> str:
    return f"{truth:.3g}" if isinstance(truth, Real) and not isinstance(truth, bool) else str(truth)


def _plain(table: pd.DataFrame) -> str:
    return table.to_string(na_rep="") if len(table) else "none yet"


def _kept() -> bool:
    """Whether this is a student's notebook: only its shell has a kernel."""
    return hasattr(get_ipython(), "kernel") and not os.environ.get(STRICT)


def _book() -> dict:
    """What is known: of the file, where it can be read, else of this session."""
    return _read() or copy.deepcopy(_session)


def _read() -> dict | None:
    if not _kept():
        return None
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        book = json.loads(FILE.read_text(encoding="utf-8"))
        whole = all(isinstance(one, dict) for part in _session for one in book[part].values())
        if whole and all({"options", "choice", "sure"} <= set(g) for g in book["guesses"].values()):
            return book
    return None


def _change(change: Callable[[dict], None]) -> None:
    """Change what is known, and keep it; a file that cannot be written is gone without."""
    if _kept():
        with suppress(Timeout, OSError), locked(FILE.with_suffix(".lock"), PATIENCE):
            book = _book()
            change(book)
            if FILE.exists() and _read() is None:  # not ours, or no longer
                FILE.replace(FILE.with_suffix(".broken.json"))
            keep(FILE, lambda part: write_text(part, json.dumps(book, indent=1) + "\n"))
            if _read() == book:
                return
    change(_session)
