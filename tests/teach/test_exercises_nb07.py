"""Exercises of notebook 07: right answers, near misses, answers of another kind."""

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


def prices(counts, energy):
    return np.linalg.lstsq(counts, energy, rcond=None)[0]


def with_a_constant(counts, energy):
    return np.linalg.lstsq(np.column_stack([counts, np.ones(len(counts))]), energy, rcond=None)[0]


def below(ours, published):
    return list(ours.index[ours.mae_hi < published.loc[ours.index]])


def surprise(coverage, n, promised):
    return (promised - coverage) / (promised * (1 - promised) / n) ** 0.5


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("07-1", (5.0, 2.5), (9.0, 4.5), "reservoir"),
        ("07-1", (5.0, 2.5), (5.0, 5.0), "over two"),
        ("07-1", (5.0, 2.5), 5.0, "pair"),
        ("07-2", 4096, 64, "square"),
        ("07-3", prices, with_a_constant, "a fifth price"),
        ("07-3", prices, lambda counts, energy: energy @ counts / len(energy), "lstsq"),
        ("07-3", prices, 2.6, "function"),
        ("07-4", below, lambda o, p: list(o.index[o.mae < p.loc[o.index]]), "upper end"),
        ("07-4", below, lambda o, p: list(o.index[o.mae_hi.values < p.values]), "by subset"),
        ("07-4", below, lambda ours, published: len(below(ours, published)), "list"),
        ("07-5", (5.2, 5.2, 5.2), (2.6, 2.6, 2.6), "two single ones"),
        ("07-5", (5.2, 5.2, 5.2), 5.2, "three values"),
        ("07-6", surprise, lambda c, n, p: -surprise(c, n, p), "promised - coverage"),
        ("07-6", surprise, lambda c, n, p: surprise(c, 1, p), "n is missing"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdicts = [teach.check(number, wrong) for _ in range(3)]
    assert not any(verdict.right for verdict in verdicts)
    assert hint in repr(verdicts[-1])
