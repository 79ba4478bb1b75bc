"""Students' functions that draw: right ones, listed mistakes, and whatever else is handed in."""

import numpy as np
import pandas as pd
import pytest
import torch

from defectkit import DefectkitError
from defectkit.teach import checks
from defectkit.widgets import live, try_out
from defectkit.widgets import picture as pictures

pytestmark = pytest.mark.usefixtures("no_windows")
NUMBERS = list(live.SCENES)


def frames(widget):
    return [(ax.get_xlim(), ax.get_ylim()) for ax in widget._sheet.axes.flat]


def picture(widget):
    return bytes(widget.picture.value)


@pytest.fixture(scope="module")
def right():
    """Pictures and frames of the right functions, as they open."""
    made = {number: try_out(number, checks.find(number).right) for number in NUMBERS}
    return {number: (picture(widget), frames(widget)) for number, widget in made.items()}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_right_function_follows_every_control_and_no_axis_moves(number):
    widget = try_out(number, checks.find(number).right)
    before = frames(widget)
    for name, control in widget.controls.items():
        ends = control.options if hasattr(control, "options") else (control.min, control.max)
        seen = set()
        for value in (ends[0], ends[-1]):
            control.value = value
            seen.add(picture(widget))
            assert widget.fault == "", (name, value)
            assert frames(widget) == before
        if name != "order":  # of the atoms: whoever keeps ties sees nothing of it
            assert len(seen) == 2, name
    assert "your function" in widget.alt or "kept" in widget.alt


@pytest.mark.parametrize(
    ("number", "mistake"),
    [(number, words) for number in NUMBERS for words in checks.find(number).mistakes],
)
def test_every_listed_mistake_looks_unlike_the_right_answer(number, mistake):
    exercise = checks.find(number)
    wrong, good = (try_out(number, f) for f in (exercise.mistakes[mistake], exercise.right))
    if "index k - 1" in mistake:  # within a shell it does not matter
        wrong.controls["k"].value = good.controls["k"].value = 6
    assert wrong.fault == ""
    assert wrong.sentence.value != good.sentence.value
    assert picture(wrong) != picture(good)
    assert frames(wrong) == frames(good)


class Odd:
    """Reads like an array, and stops when it is read."""

    shape = (2,)

    def __array__(self, *given, **named):
        raise RuntimeError("no")

    def __float__(self):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")


def stops(*given):
    raise ValueError("$x^2$ <b>" * 100)


def leaves(*given):
    raise SystemExit


def loops(*given):
    while True:
        pass


def changes(first, *others):
    first[...] = 0
    return first


ODD = {
    "open": ...,
    "none": None,
    "a number": 3,
    "a text": "shortest",
    "a class": Odd,
    "an object": Odd(),
    "no argument": lambda: 1.0,
    "stops": stops,
    "leaves": leaves,
    "loops": loops,
    "changes": changes,
    **{
        f"returns {name}": lambda *given, value=value: value
        for name, value in {
            "nothing": None,
            "dots": ...,
            "nan": np.nan,
            "infinity": torch.tensor(torch.inf),
            "far too much": 10**400,
            "a complex number": 1j,
            "a text": "1.0",
            "truth": True,
            "an empty list": [],
            "a ragged list": [[1], [2, 3]],
            "another shape": np.zeros((7, 7, 7)),
            "nan in every place": torch.full((4, 4), torch.nan),
            "texts": np.array(["a", "b"]),
            "a table": pd.DataFrame({"a": [1, 2]}),
            "an odd object": Odd(),
            "itself": stops,
        }.items()
    },
}


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_give_a_sentence_and_leave_a_figure(name, right, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.3)
    for number in NUMBERS:
        widget = try_out(number, ODD[name])
        assert widget.fault.endswith((".", "?", "again.")), (number, widget.fault)
        assert widget.fault[0].isupper()
        assert "<b>" not in widget.sentence.value
        assert widget.fault in widget.alt
        assert frames(widget) == right[number][1]
        assert picture(widget) != right[number][0]


def test_a_slow_function_is_not_asked_to_the_end(monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.0)
    monkeypatch.setattr(checks, "call", lambda function, names, takes, given, seconds: 1.0)
    assert "takes more than" in try_out("02-1", lambda gap, cell: 1.0).fault


def test_answers_by_another_name_are_read():
    def tensor(gap, cell):
        return torch.tensor(checks.find("02-1").right(gap, cell), requires_grad=True)

    def listed(distances, k):
        return checks.find("02-5").right(distances, k).tolist()

    assert try_out("02-1", tensor).fault == try_out("02-5", listed).fault == ""


def test_an_exercise_without_a_scene_is_refused():
    with pytest.raises(DefectkitError, match="02-1, 02-5, 04-2, 05-8 alone"):
        try_out("00-1", 3)


def test_a_fault_follows_the_controls():
    def small(distances, k):
        return distances < 4 if k < 10 else k

    widget = try_out("02-5", small)
    assert widget.fault == ""
    widget.controls["k"].value = 20
    assert widget.fault.startswith("An array of shape")
    widget.controls["k"].value = 3
    assert widget.fault == ""


def test_without_a_kernel_the_figure_is_left(monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "display", lambda bundle, **named: shown.append(bundle))
    try_out("02-1", ...)._ipython_display_()
    assert "image/png" in shown[-1]
