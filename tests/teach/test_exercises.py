"""Every exercise with its right answer, with the wrong ones it lists, and with odd ones."""

import itertools
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from defectkit import teach
from defectkit.data import load
from defectkit.teach import checks
from defectkit.teach.answers import ANY, AnyOf

NUMBERS = teach.exercise_numbers()
COUNTS = Counter()


class Rude:
    """An object that no question may be asked."""

    def __getattr__(self, name):
        raise RuntimeError("no")

    __eq__ = __len__ = __iter__ = __array__ = __float__ = __bool__ = __repr__ = __getattr__
    __hash__ = None


def endless():
    while True:
        yield 1


def looping(*_):
    while True:
        pass


def stops(*_):
    raise KeyError("typo")


def leaves(*_):
    sys.exit(3)


def deep(*_):
    return deep()


def greedy(*_):
    return np.zeros((10**9, 10**6))


ITSELF = []
ITSELF.append(ITSELF)
ODD = {
    "None": None,
    "dots": ...,
    "dots in a pair": (..., 1),
    "an exception": ValueError("x"),
    "a class": ValueError,
    "a function without arguments": lambda: 1,
    "a function that returns nothing": lambda *_: None,
    "a function that returns itself": lambda *_: looping,
    "a function that stops": stops,
    "a function that leaves": leaves,
    "a function that loops": looping,
    "a function without end": deep,
    "a function that wants all memory": greedy,
    "a function that returns a rude object": lambda *_: Rude(),
    "a generator": endless(),
    "a function that is a generator": lambda *_: endless(),
    "a count": itertools.count(),
    "a huge array": np.broadcast_to(np.float64(1), (10**6, 10**6)),
    "an empty array": np.zeros(0),
    "a wrong shape": np.zeros((2, 3, 4)),
    "an array of objects": np.array([None, "x"], dtype=object),
    "a complex tensor": torch.ones(2, dtype=torch.complex64, requires_grad=True),
    "a table": pd.DataFrame({"a": ["x", "y"]}),
    "a series of text": pd.Series(["x", "y"]),
    "a long text": "x" * 10**6,
    "markup": "<script>alert(1)</script>",
    "bytes": b"x",
    "a wrong pair": ("yes", "no"),
    "an id that is none": ("no such row", 1.0),
    "a list in itself": ITSELF,
    "ragged lists": [[1, 2], [3]],
    "a huge number": 10**400,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "a complex number": 1 + 2j,
    "a dictionary": {"x": object()},
    "a set": {"x"},
    "a rude object": Rude(),
    "the type of dots": type(...),
}


@pytest.fixture(scope="module")
def demo():
    """The demo data, some rows with a moment below zero, without one, or without an energy."""
    data = load("demo")
    rows = list(data.records)
    rows[::3] = [replace(row, spin=-row.spin) for row in rows[::3]]
    rows[1::10] = [replace(row, spin=np.nan) for row in rows[1::10]]
    rows[2::50] = [replace(row, eform=np.nan) for row in rows[2::50]]
    rows[4::70] = [replace(row, converged=False) for row in rows[4::70]]
    return replace(data, records=rows)


@pytest.fixture(autouse=True)
def data(monkeypatch, demo):
    monkeypatch.setattr(checks, "_dataset", demo)
    monkeypatch.setattr(checks, "_wrong", Counter())
    monkeypatch.setattr(checks, "SECONDS", 2.0)  # loops without end are many here
    monkeypatch.delenv(teach.STRICT, raising=False)


def handed_in(asked, data, answer):
    """An answer as a student hands it in, with the first part that the exercise wants."""
    if asked.cases is not None:
        return answer
    if asked.given is None:
        return answer(data) if callable(answer) else answer
    part = 0 if "seed" in str(asked.given) else telling(asked, data)
    return part, answer(data, part) if callable(answer) else answer


def telling(asked, data):
    """A row for which every listed mistake gives another answer."""
    for uid in data.frame.index[:400]:
        try:
            right = asked.right(data, uid)
        except checks.Fault:
            continue
        if all(checks.differs(m(data, uid), right) for m in asked.mistakes.values()):
            return uid
    raise AssertionError(asked.number)


def concrete(answer, right):
    """A wrong answer with right parts in the place of those that may be anything."""
    if isinstance(answer, tuple) and ANY in [part for part in answer if part is ANY]:
        return tuple(r if part is ANY else part for part, r in zip(answer, right))
    return answer


@pytest.mark.parametrize("number", NUMBERS)
def test_the_right_answer_is_told_what_it_means(number, demo):
    asked = checks.find(number)
    right = handed_in(asked, demo, asked.right)
    if isinstance(right, AnyOf):
        right = right.values[0]
    verdict = teach.check(number, right)
    assert verdict.right, verdict
    assert len(verdict.message) > 20
    assert not verdict.more
    COUNTS["right"] += 1


@pytest.mark.parametrize("number", NUMBERS)
def test_each_listed_mistake_is_wrong_and_gets_its_own_sentence(number, demo):
    asked = checks.find(number)
    told = 0
    for sentence, mistake in asked.mistakes.items():
        right = handed_in(asked, demo, asked.right)
        wrong = handed_in(asked, demo, mistake)
        if asked.cases is None and asked.given is None:
            wrong = concrete(wrong, right)
        verdict = teach.check(number, wrong)
        if verdict.right and callable(mistake) and asked.cases is None:
            COUNTS["listed, but right on these data"] += 1  # whoever has two hosts finds both
            continue
        assert verdict.right is False, sentence
        assert verdict.message == sentence
        told += 1
    COUNTS["listed wrong"] += told
    assert told >= 2


@pytest.mark.parametrize("number", NUMBERS)
def test_help_comes_in_steps_and_the_way_last(number):
    asked = checks.find(number)
    first, second, third = (repr(teach.check(number, "nonsense")) for _ in range(3))
    assert asked.hint not in first
    assert asked.way not in first + second
    assert asked.hint in second
    assert asked.way in third


@pytest.mark.parametrize("number", NUMBERS)
def test_odd_answers_get_a_sentence(number):
    for name, odd in ODD.items():
        verdict = teach.check(number, odd)
        assert not verdict.right, name
        assert (verdict.right is None) == (name in ("dots", "dots in a pair")), name
        assert verdict.message.endswith((".", "?")), verdict.message
        assert len(verdict.message) < 700
        assert "Traceback" not in repr(verdict)
        COUNTS["odd, no answer yet" if verdict.right is None else "odd, refused"] += 1


def test_counts(capsys):
    with capsys.disabled():
        print(f"\n{len(NUMBERS)} exercises:", ", ".join(f"{n} {k}" for k, n in COUNTS.items()))
