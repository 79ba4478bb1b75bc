"""Exercises of notebook 08: right answers, near misses, answers of another kind."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from defectkit import teach


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(records=[]))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)


def shifted(eform, removed, added, dmu):
    return eform + sum(dmu.get(x, 0.0) for x in removed) - sum(dmu.get(x, 0.0) for x in added)


def settled(eform, sigma):
    first, second = np.argsort(eform)[:2]
    return eform[second] - eform[first] > 2 * np.hypot(sigma[first], sigma[second])


def force(x, energy):
    return -(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])


def usable(table, width):
    narrow = table.eform_hi - table.eform_lo <= width
    return list(table.index[(table.verdict == "inside") & narrow])


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("08-1", shifted, lambda e, r, a, d: e - sum(d.get(x, 0) for x in r), "plus its dmu"),
        ("08-1", shifted, lambda e, r, a, d: e + sum(d.get(x, 0) for x in r), "minus"),
        ("08-1", shifted, lambda e, r, a, d: shifted(e, set(r), a, d), "count twice"),
        ("08-1", shifted, 1.7, "function"),
        ("08-2", settled, lambda e, s: e.max() - e.min() > 2 * s.max(), "lowest two"),
        ("08-2", settled, lambda e, s: True, "always True"),
        ("08-2", settled, lambda e, s: 1.0, "True or False"),
        ("08-3", force, lambda x, e: -force(x, e), "energy[2:]"),
        ("08-3", force, lambda x, e: -np.gradient(e, x), "Inner points"),
        ("08-4", usable, lambda t, w: list(t.index[t.eform_hi - t.eform_lo <= w]), "promises"),
        ("08-4", usable, lambda t, w: usable(t, 0.9 * w), "At most"),
        ("08-4", usable, lambda t, w: len(t), "list"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdicts = [teach.check(number, wrong) for _ in range(3)]
    assert not any(verdict.right for verdict in verdicts)
    assert hint in repr(verdicts[-1])
