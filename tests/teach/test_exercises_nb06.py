"""Exercises of notebook 06: right answers, near misses, answers of another kind."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from defectkit import teach
from defectkit.training import pretrained


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(records=[]))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)
    monkeypatch.setattr(pretrained, "BENCHMARKS", tmp_path)
    pd.DataFrame(
        {
            "model": ["trained", "trained", "without content", "without content"],
            "label": [0.0, 1.0, 0.0, 1.0],
            "predicted": [0.1, 0.7, 0.2, 0.7],
        }
    ).to_csv(tmp_path / "attention.csv")


def rollout(maps):
    total = np.eye(maps.shape[-1])
    for alpha in maps.mean(axis=1):
        total = (np.eye(len(total)) + alpha) / 2 @ total
    return total


def heard(matrix, defect):
    return matrix[defect].mean(axis=0) * len(matrix)


def explained(score, symbol):
    means = pd.Series(score).groupby(symbol).transform("mean")
    return means.var() / np.var(score, ddof=1)


def spearman(first, second):
    return np.corrcoef(np.argsort(np.argsort(first)), np.argsort(np.argsort(second)))[0, 1]


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("06-1", rollout, lambda maps: rollout(maps[::-1]), "last on the left"),
        ("06-1", rollout, lambda maps: maps.mean(axis=1), "shape"),
        ("06-1", rollout, np.eye(6), "function"),
        ("06-2", heard, lambda m, d: heard(m.T, d), "rows"),
        ("06-2", heard, lambda m: m, "stopped"),
        ("06-3", 6.605, 4.605, "1/10"),
        ("06-4", 4 / 27, 4 / 26, "27 nodes"),
        ("06-5", explained, lambda score, symbol: 1 - explained(score, symbol), "element mean"),
        ("06-5", explained, lambda score, symbol: score, "number"),
        ("06-6", spearman, lambda a, b: np.corrcoef(a, b)[0, 1], "argsort"),
        ("06-7", 25.0, 1.25, "a factor"),
        ("06-7", 25.0, "more", "number"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdicts = [teach.check(number, wrong) for _ in range(3)]
    assert not any(verdict.right for verdict in verdicts)
    assert hint in repr(verdicts[-1])
