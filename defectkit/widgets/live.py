"""A student's own function draws: controls move its arguments, and the right answer stands beside.

The scenes are those of `concepts` where there is one. Whatever the function does, the figure stays,
and a sentence on it says what is wrong.
"""

import html
import inspect
import re
import textwrap
import time
from typing import ClassVar

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes

from defectkit import DefectkitError
from defectkit.plots import style
from defectkit.plots.attention import chain
from defectkit.plots.graphs import image_distance
from defectkit.teach import checks
from defectkit.teach.answers import Fault, differs, kind, number_of
from defectkit.widgets.concepts import AttentionChain, Concept, Intervals, MinimumImage, slider

SECONDS = 2.0  # that a picture may wait for a student's function
LARGEST = 1e6  # beyond this no answer is drawn
COLUMNS = 56  # characters of a line on the figure
YOURS = {"color": style.ORANGE, "ls": "--", "lw": 2.5}


class Live(Concept):
    """What a student's function gives, beside the right answer, on the axes of a concept.

    A subclass says which arguments the controls stand for, and draws.

    Attributes:
        function: whatever was handed in.
        fault: why it cannot be drawn, in words; empty where it can.
    """

    number: ClassVar[str]

    def __init__(self, function: object, *built: object, **sheet: object) -> None:
        self.function, self.fault = function, ""
        super().__init__(*built, **sheet)

    def _show(self) -> None:
        super()._show()
        words = html.unescape(re.sub("<[^>]+>", "", self.sentence.value))
        self.alt = f"{self.alt}. {words}"

    def _draw(self, *axes: Axes) -> str:
        cases = self._cases()
        exercise = checks.find(self.number)
        right = [np.asarray(exercise.right(*case)) for case in cases]
        try:
            found, self.fault = _answers(exercise, self.function, cases, right), ""
        except Fault as fault:
            words = str(fault)
            found, self.fault = None, words[0].upper() + words[1:]
        said = self._beside(cases, right, found, *axes)
        if self.fault:
            _note(axes[0], self.fault)
            return html.escape(self.fault)
        return said

    def _cases(self) -> list[tuple]:
        """The arguments that the function is asked for now, the first ones being those shown."""
        raise NotImplementedError

    def _beside(
        self, cases: list[tuple], right: list[np.ndarray], found: list | None, *axes: Axes
    ) -> str:
        """Draw the right answers and, where there are any, the student's; say what is seen."""
        raise NotImplementedError


class LiveImage(Live, MinimumImage):
    """Distance to the nearest image, while the other atom leaves its cell."""

    number = "02-1"
    REACH, SPAN = 10.0, (-2.0, 2.0)
    PATH = np.linspace(*SPAN, 41)  # of j along a

    def _cases(self) -> list[tuple]:
        cell = self.cell(self.controls["angle"].value)
        a, b = (self.controls[name].value for name in "ab")
        return [(np.array([along, b]) @ cell, cell) for along in (a, *self.PATH)]

    def _beside(
        self,
        cases: list[tuple],
        right: list[np.ndarray],
        found: list | None,
        left: Axes,
        beside: Axes,
    ) -> str:
        end, cell = cases[0]
        image_distance(cell, end, float(found[0]) if found else None, self.REACH, left)
        left.legend(**style.ABOVE, ncols=3, columnspacing=0.8)
        beside.plot(self.PATH, right[1:], color=style.NEAREST, label="nearest image")
        if found:
            beside.plot(self.PATH, found[1:], **YOURS, label="your function")
            beside.plot(self.controls["a"].value, found[0], "o", ms=11, color=style.ORANGE)
        beside.set(xlim=self.SPAN, ylim=(-0.2, 5), xlabel="j along a", ylabel="distance (Å)")
        beside.legend(loc="upper left", frameon=False)
        if not found:
            return ""
        wrong = sum(bool(differs(*pair)) for pair in zip(found[1:], right[1:]))
        return (
            f"Your function says <b>{found[0]:.2f} Å</b>; the nearest image of j is at "
            f"<b>{right[0]:.2f} Å</b>. Along the line to the right it errs at <b>{wrong} of "
            f"{len(self.PATH)}</b> places."
        )


class LiveTies(Live):
    """Which neighbours a function keeps, and the ties that it cuts."""

    number = "02-5"
    SIDE, SHELLS = 3.2, 4  # Å between atoms of a hexagonal layer; how many shells are drawn
    NOISE = 1e-5  # Å, as in a relaxed structure

    def __init__(self, function: object) -> None:
        steps = np.array([[i, j] for i in range(-4, 5) for j in range(-4, 5)])
        places = steps @ (self.SIDE * np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]]))
        away = np.linalg.norm(places, axis=1)
        ends = np.unique(away.round(6))[1 : self.SHELLS + 1]
        self.places = places[(away > 0.1) & (away < ends[-1] + 0.1)]
        controls = {
            "k": slider("neighbours k", 4, 1, len(self.places) - 1, 1),
            "order": slider("another order of the atoms", 0, 0, 20, 1),
        }
        super().__init__(function, controls, (1, 1.25), edges=(0.07, 0.985, 0.14, 0.84, 0.2))

    def _cases(self) -> list[tuple]:
        rng = np.random.default_rng(self.controls["order"].value)
        away = np.linalg.norm(self.places, axis=1)
        return [(away + rng.uniform(0, self.NOISE, len(away)), self.controls["k"].value)]

    def _beside(
        self,
        cases: list[tuple],
        right: list[np.ndarray],
        found: list | None,
        left: Axes,
        beside: Axes,
    ) -> str:
        (distances, k), wanted = cases[0], right[0]
        kept = found[0] if found else wanted
        cut, extra = wanted & ~kept, kept & ~wanted
        ranks = np.argsort(np.argsort(distances)) + 1
        for chosen, colour, words in (
            (~wanted & ~kept, style.BEFORE, "left out"),
            (wanted & kept, style.BLUE, "kept" if found else "to be kept"),
            (cut, style.ORANGE, "missing"),
            (extra, style.PINK, "too many"),
        ):
            left.plot(*self.places[chosen].T, "o", ms=15, color=colour, label=words)
            beside.plot(ranks[chosen], distances[chosen], "o", color=colour)
        left.plot(0, 0, "s", ms=12, color="black", label="the atom that asks")
        reach = np.abs(self.places).max() + 1.2
        left.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        left.set(xlabel="x (Å)", ylabel="y (Å)")
        left.legend(**style.ABOVE, ncols=3, columnspacing=0.8, handletextpad=0.1)
        beside.axvline(k + 0.5, color="black", ls=":")
        beside.set(xlim=(0, len(ranks) + 1), ylim=(2, 1.15 * reach))
        beside.set(xlabel="atoms, the nearest first (dotted: k)", ylabel="distance (Å)")
        return (
            f"The {k} nearest and all ties are <b>{wanted.sum()} atoms</b>. Your function keeps "
            f"<b>{kept.sum()}</b>: <b>{cut.sum()}</b> are missing, <b>{extra.sum()}</b> are too "
            "many. Another order of the atoms must not change which."
        )


class LiveAttention(Live, AttentionChain):
    """The weights that a function of attention gives an atom of a chain.

    Values are made so that the weights can be read back from the vectors that are returned.
    """

    number = "04-2"
    VALUE = np.eye(4) + np.eye(4, k=1)

    def _cases(self) -> list[tuple]:
        query = 2 * np.log(2) * np.array([self.CONTENT, *np.zeros((3, 4))])  # 2 is the root of d
        psi = np.array([0.0, 0.0, 0.0, self.controls["kind"].value])
        bias = np.log(2) * (psi - self.controls["distance"].value * self.distances)
        arrays = query, np.eye(4), self.VALUE, bias
        return [tuple(torch.tensor(array, dtype=torch.float32) for array in arrays)]

    def _beside(
        self,
        cases: list[tuple],
        right: list[np.ndarray],
        found: list | None,
        above: Axes,
        below: Axes,
    ) -> str:
        chain(self.x, self.LENGTH, self.NAMES, [3], above)
        bars = [(-0.2, right[0], style.BLUE, "right answer")]
        if found:
            bars.append((0.2, found[0], style.ORANGE, "your function"))
        for shift, vectors, colour, words in bars:
            weights = vectors[0] @ np.linalg.inv(self.VALUE)
            places = np.arange(4) + shift
            below.bar(places, weights, 0.38, color=colour, label=words)
            for place, weight in zip(places, weights):
                height = np.clip(weight, 0, 1.15)
                below.text(place, height, f"{weight:.3g}", ha="center", va="bottom")
        below.axhline(0, color="black", lw=1)
        below.set(xlim=(-0.6, 3.6), ylim=(-0.5, 1.5), yticks=(0, 0.5, 1))
        below.set_xticks(range(4), [f"to {name}" for name in self.NAMES])
        below.set_ylabel("weight of A's query")
        below.legend(loc="upper center", ncols=2, frameon=False)
        if not found:
            return ""
        total = (found[0][0] @ np.linalg.inv(self.VALUE)).sum()
        seen = "differ from" if differs(found[0], right[0]) else "are"
        return (
            "A's weights, read back from the vectors that your function returns, "
            f"<b>{seen} the right ones</b>; their sum is <b>{total:.3g}</b>, and has to be 1."
        )


class LiveQuantile(Live, Intervals):
    """Half the width of an interval, and how many rows it reaches."""

    number = "05-8"
    ROWS = Intervals.ROWS[1:]  # with ten rows there is no rank for 95 %
    START: ClassVar[dict[str, int]] = {"rows": ROWS[0], "draw": 4}  # here a rank more or less shows
    LEVELS = np.arange(50, 96, 5) / 100

    def _cases(self) -> list[tuple]:
        known, _ = self.drawn
        errors = (known.eform - known.eform_pred).abs().to_numpy()
        level = self.controls["confidence"].value / 100
        return [(errors, float(one)) for one in (level, *self.LEVELS)]

    def _beside(
        self,
        cases: list[tuple],
        right: list[np.ndarray],
        found: list | None,
        left: Axes,
        beside: Axes,
    ) -> str:
        known, others = self.drawn
        missed = others.eform - others.eform_pred
        level = cases[0][1]
        left.plot((0.5, 0.95), (0.5, 0.95), ":", color="black", label="as promised")
        series = [(right, {"color": style.BLUE}, "right answer")]
        if found:
            series.append((found, YOURS, "your function"))
        reached = []
        for halves, look, words in series:
            shares = [(missed.abs() <= half).mean() for half in halves]
            left.plot(self.LEVELS, shares[1:], **look, label=words)
            left.plot(level, shares[0], "o", ms=11, color=look["color"])
            reached.append(shares[0])
        left.set(xlim=(0.48, 0.97), ylim=(0, 1.05))
        left.set(xlabel="level", ylabel="share of other rows inside")
        left.legend(loc="lower right", frameon=False)
        self._single(beside, missed[: self.SHOWN], float((found or right)[0]))
        beside.set_title("your interval on other rows; lines: the right one")
        for sign in (-1, 1):
            beside.axhline(sign * right[0], color=style.BLUE, lw=2)
        if not found:
            return ""
        return (
            f"{len(known)} known rows, level {level:.0%}: your function says <b>± {found[0]:.3g} "
            f"eV</b>, which holds <b>{reached[-1]:.0%}</b> of the other {len(others)} rows; right "
            f"are <b>± {right[0]:.3g} eV</b>, which hold <b>{reached[0]:.0%}</b>."
        )


SCENES = {scene.number: scene for scene in (LiveImage, LiveTies, LiveAttention, LiveQuantile)}


def try_out(number: str, function: object) -> ipywidgets.VBox:
    """Let a student's function draw, for an exercise of `SCENES`, such as "02-1".

    Whatever is handed in, `...` as well, there is a figure, with a sentence where it cannot be
    drawn. Raises DefectkitError for an exercise that has no scene.
    """
    if number not in SCENES:
        raise DefectkitError(f"There is a scene for the exercises {', '.join(SCENES)} alone.")
    return SCENES[number](function)


def _answers(
    exercise: checks.Exercise, function: object, cases: list[tuple], right: list[np.ndarray]
) -> list[np.ndarray]:
    """What a function gives for each case, read as the right answers are; Fault where it is not."""
    if function is ...:
        raise Fault(checks.OPEN)
    names = list(inspect.signature(exercise.right).parameters)
    found, end = [], time.monotonic() + SECONDS
    for case, wanted in zip(cases, right):
        if time.monotonic() > end:
            raise Fault(f"your function takes more than {SECONDS:g} s for {len(cases)} answers.")
        value = checks.call(function, names, exercise.takes, case, SECONDS)
        found.append(_read(value, wanted))
    return found


def _read(value: object, wanted: np.ndarray) -> np.ndarray:
    """A value as numbers, or truth values, of the wanted shape."""
    try:
        single = wanted.ndim == 0
        plain = number_of(value) if single else value
        numbers = np.asarray(plain.detach().cpu() if hasattr(plain, "detach") else plain)
        kinds = "b" if wanted.dtype == bool else "iuf"
        fault = ""
        if numbers.shape != wanted.shape or numbers.dtype.kind not in kinds:
            fault = differs(value, wanted.item() if single else wanted) or kind(value)
    except Exception:  # of the answer's own making, which may do anything when it is read
        fault = f"this cannot be read as an answer; it is {kind(value)}"
    if fault:
        raise Fault(f"{fault}.")
    if not (np.abs(numbers) < LARGEST).all():
        raise Fault("your function returns NaN, or a number that is far too large.")
    return numbers


def _note(ax: Axes, fault: str) -> None:
    """A sentence in the middle of the axes, however long."""
    lines = "\n".join(textwrap.wrap(fault, COLUMNS, max_lines=8, placeholder=" …"))
    paper = {"fc": "white", "ec": style.ORANGE, "lw": 2, "boxstyle": "round,pad=0.6"}
    look = {"ha": "center", "va": "center", "zorder": 20, "parse_math": False, "bbox": paper}
    ax.text(0.5, 0.5, lines, transform=ax.figure.transFigure, **look)
