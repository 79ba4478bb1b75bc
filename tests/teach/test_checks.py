"""Exercise checks: verdicts, hints, and that every exercise of a notebook has a judge."""

import re

import numpy as np
import pytest

from defectkit import DefectkitError, teach
from defectkit.teach import notebooks


class Eleven:
    """A stand-in for a data set: exercises ask for its length only."""

    def __len__(self):
        return 11


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", Eleven())
    monkeypatch.delenv(teach.STRICT, raising=False)


def test_right_wrong_and_missing_answers():
    assert teach.check("00-1", 11).right
    assert teach.check("00-1", np.int64(11)).right
    low = teach.check("00-1", 3)
    assert not low.right
    assert "too low" in low.message
    assert "number" in teach.check("00-1", "eleven").message
    assert "number" in teach.check("00-1", True).message
    assert "no answer yet" in teach.check("00-1", ...).message


def test_verdict_shows_itself_as_text_and_page():
    verdict = teach.check("00-1", "<b>")
    assert repr(verdict).startswith("✗ 00-1")
    assert "<b>" not in teach.Verdict("00-1", False, "<b>")._repr_html_().replace("<b style", "")
    assert repr(teach.check("00-1", 11)) == "✓ 00-1: right!"


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
    asked = re.findall(r"\*\*Exercise (\d\d-\d+)\.", text)
    assert len(asked) >= 4
    assert re.findall(r'^check\("(\d\d-\d+)"', text, flags=re.MULTILINE) == asked
    assert sorted(asked) == teach.exercise_numbers(source.stem[:2])
