"""Exercises of notebooks 04 and 04b: right answers, near misses, answers of another kind."""

from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from crystals import host

from defectkit import teach
from defectkit.training import pretrained


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    cells = [SimpleNamespace(atoms=host().repeat((n, n, 1))) for n in (3, 6)]  # 9.5 and 19.1 Å
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(records=cells))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)
    monkeypatch.setattr(pretrained, "BENCHMARKS", tmp_path)
    pd.DataFrame(
        {"variant": ["full", "full", "no phi", "no phi"], "eform_mae": [0.4, 0.9, 0.7, 0.8]}
    ).to_csv(tmp_path / "ablation.csv")
    pd.DataFrame(
        {
            "model": ["hybrid", "alignn", "lightgbm", "hybrid", "hybrid"],
            "input": ["relaxed", "relaxed", "relaxed", "unrelaxed", "relaxed"],
            "split": ["random 0"] * 4 + ["leave-one-host-out 0"],
            "eform_mae": [0.2, 0.5, 0.3, 0.9, 2.0],
        }
    ).to_csv(tmp_path / "models_demo.csv")


def attend(query, key, value, bias):
    return (query @ key.T / query.shape[1] ** 0.5 + bias).softmax(dim=1) @ value


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("04-1", 0.1, 4 / 13, "1/16"),
        ("04-2", attend, lambda q, k, v, b: attend(q, k, v, b.T), "softmax"),
        ("04-2", attend, lambda q, k, v, b: v[0], "shape"),
        ("04-2", attend, lambda q, k: q, "stopped"),
        ("04-2", attend, torch.zeros(2), "function"),
        ("04-3", 9 / 7, 8 / 7, "itself"),
        ("04-4", 3, 2, "largest"),
        ("04-5", (9, 5, 3), (9, 5, 7), "-1/2"),
        ("04-5", (9, 5, 3), 9, "three"),
        ("04-6", (16.0, 4), (16.0, 2), "rows"),
        ("04-6", (16.0, 4), (4.0, 4), "heads"),
        ("04-6", (16.0, 4), 16.0, "pair"),
        ("04-7", "no phi", "full", "idxmax"),
        ("04-8", (2.5, 1.5), (0.4, 1.5), "alignn"),
        ("04-8", (2.5, 1.5), (2.5, 1.0), "lightgbm"),
        ("04-8", (2.5, 1.5), 2.5, "pair"),
        ("04-9", (6, 5.1), (4.8, 5.1), "sum to one"),
        ("04-9", (6, 5.1), (6, 5.0), "1/4"),
        ("04-9", (6, 5.1), 6, "pair"),
        ("04-10", lambda v, t: t[v.argmin()], lambda v, t: v.min(), "other rows"),
        ("04-10", lambda v, t: t[v.argmin()], lambda v, t: t.min(), "none left"),
        ("04-11", 1 - 0.95**20, 1, "average"),
        ("04-11", 1 - 0.95**20, 0.95**20, "none"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdicts = [teach.check(number, wrong) for _ in range(3)]
    assert not any(verdict.right for verdict in verdicts)
    assert hint in repr(verdicts[-1])
