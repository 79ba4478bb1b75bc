"""Exercise checks: verdicts, hints, and that every exercise of a notebook is asked."""

import re
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from defectkit import DefectkitError, teach
from defectkit.data import load
from defectkit.teach import notebooks


class Eleven:
    """A stand-in for a data set of eleven rows in two columns."""

    frame = pd.DataFrame({"host": ["MoS2"] * 11, "spin": 0.0})

    def __len__(self):
        return 11


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", Eleven())
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)


def test_right_wrong_and_missing_answers():
    assert teach.check("00-1", 11).right
    low = teach.check("00-1", 3)
    assert low.right is False
    assert "too low" in low.message
    assert "without quotes" in teach.check("00-1", "eleven").message
    assert "take the sum" in teach.check("00-1", True).message
    waiting = teach.check("00-1", ...)
    assert waiting.right is None
    assert "no answer yet" in waiting.message
    assert repr(waiting)[0] not in "✓✗"


@pytest.mark.parametrize(
    "eleven",
    [
        11.0,
        np.int64(11),
        np.array(11),
        np.array([11.0]),
        torch.tensor(11),
        torch.tensor([[11.0]], requires_grad=True),
        pd.Series([11]),
        pd.DataFrame({"n": [11]}),
        Fraction(11),
        Decimal(11),
    ],
    ids=str,
)
def test_a_number_counts_in_whatever_it_is_wrapped(eleven):
    assert teach.check("00-1", eleven).right


@pytest.mark.parametrize("wrap", [tuple, list, np.array, torch.tensor, pd.Series])
def test_parts_count_in_whatever_they_are_wrapped(wrap):
    assert teach.check("04-5", wrap([9, 5, 3])).right
    assert teach.check("04-5", wrap([9, 5, 7])).message == "P_2(0) is -1/2, and not 1/2."
    assert "three values" in teach.check("04-5", wrap([9, 5])).message


@pytest.mark.parametrize("wrap", [set, list, tuple, frozenset, np.array, pd.Index, pd.Series])
def test_names_count_in_whatever_they_are_wrapped(wrap):
    assert teach.check("02-6", wrap(["rotation", "reflection"])).right
    assert "mirror image" in teach.check("02-6", wrap(["rotation"])).message


def test_arrays_count_in_whatever_they_are_wrapped():
    def force(x, energy):
        return -(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])

    for wrap in (list, torch.tensor, pd.Series, tuple):
        assert teach.check("08-3", lambda x, energy, w=wrap: w(force(x, energy))).right
        assert not teach.check("08-3", lambda x, energy, w=wrap: w(-force(x, energy))).right


def test_a_function_may_not_change_what_it_is_given():
    def message_round(h, index, weight):
        return h.index_add_(0, index[1], weight[:, None] * h[index[0]])

    assert "changes h itself" in teach.check("03-1", message_round).message


def test_where_a_function_is_wrong_is_said():
    found = teach.check("07-6", lambda coverage, n, promised: 1.0)
    assert "for coverage = 0.6, n = 500, promised = 0.9" in found.message


def test_a_mistyped_id_is_named(monkeypatch):
    data = load("demo")
    monkeypatch.setattr(teach.checks, "_dataset", data)
    uid = data.records[0].uid
    assert f"'{uid}x' is no row" in teach.check("02-2", (uid + "x", 1)).message
    assert "swapped" in teach.check("02-2", (1, uid)).message
    assert "a pair" in teach.check("02-2", uid).message


def test_verdict_shows_itself_as_text_and_page():
    verdict = teach.check("00-1", "<b>")
    assert repr(verdict).startswith("✗ 00-1")
    assert "<b>" not in teach.Verdict("00-1", False, "<b>")._repr_html_().replace("<b style", "")
    assert (
        repr(teach.check("00-1", 11))
        == "✓ 00-1: 11 rows, each of them one supercell with a defect."
    )


def test_strict_checks_stop_a_wrong_solution(monkeypatch):
    monkeypatch.setenv(teach.STRICT, "1")
    assert teach.check("00-1", 11).right
    with pytest.raises(AssertionError, match="00-1"):
        teach.check("00-1", 12)


def test_unknown_exercise_and_missing_data_are_said_clearly(monkeypatch):
    with pytest.raises(DefectkitError, match="00-1, 00-2"):
        teach.check("00-99", 1)
    with pytest.raises(DefectkitError, match="no notebook '77'"):
        teach.check("77-1", 1)
    monkeypatch.setattr(teach.checks, "_dataset", None)
    with pytest.raises(DefectkitError, match="first cells"):
        teach.check("00-1", 11)


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_each_notebook_has_goals_time_and_at_least_four_checked_exercises(source):
    text = source.read_text(encoding="utf-8")
    for part in (
        "**Goals.**",
        "**Prerequisites.**",
        "**Time.**",
        "## Summary",
        "**Further reading.**",
    ):
        assert part in text, part
    assert 'tags=["parameters"]' in text
    assert f"# {notebooks.time_line(source)}\n" in text
    asked = re.findall(r"\*\*Exercise (\d\d-\d+)\.", text)
    assert len(asked) >= 4
    assert notebooks.asked(source) == asked
    assert {number[:2] for number in asked} == {source.stem[:2]}


def test_every_exercise_is_asked_in_one_notebook():
    asked = [number for source in notebooks.sources() for number in notebooks.asked(source)]
    assert sorted(asked) == teach.exercise_numbers()


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_each_notebook_has_optional_sections_and_is_a_lesson_without_them(source):
    headings = re.findall(r"^# (## .*)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    optional = [heading for heading in headings if heading.endswith(notebooks.OPTIONAL)]
    assert 0 < len(optional) < len(headings) / 2
    core, every = notebooks.minutes(source)
    assert core <= every
    assert core <= 90


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_each_notebook_begins_with_one_short_cell_of_imports(source):
    code = [c.source for c in notebooks.solved(source).cells if c.cell_type == "code"]
    assert notebooks.PRELUDE in code[1]
    assert len(code[1].splitlines()) <= 8
    assert not any(notebooks.PRELUDE in cell for cell in code[2:])


def test_minutes_of_optional_sections_are_not_those_of_the_core(tmp_path):
    path = tmp_path / "07_example.py"
    cell, words = "# %% [markdown]\n# ", "word " * 1300  # ten minutes
    core, more = f"## Core\n#\n# {words}\n#", f"## More (optional)\n#\n# {words}"
    path.write_text(f"{cell}{core}\n# {more}\n\n# %%\n1\n\n{cell}{core}\n")
    assert notebooks.minutes(path) == (20, 30)


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_each_notebook_asks_for_guesses_and_answers_them(source):
    text = source.read_text(encoding="utf-8")
    made = re.findall(r'teach\.guess\(\s*"(\d\d-[a-z])"', text)
    told = re.findall(r'teach\.reveal\(\s*"(\d\d-[a-z])"', text)
    assert made
    assert made == told
    assert {number[:2] for number in made} == {source.stem[:2]}
