"""Exercises of notebook 05: right answers, near misses, answers of another kind."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from defectkit import teach
from defectkit.teach.exercises import trust
from defectkit.training import pretrained

UIDS = [f"s{k}" for k in range(40)]
LABEL = pd.Series(np.linspace(-1, 3, 40), UIDS)
OFF = {"hybrid": 0.1, "alignn": 0.4, "lightgbm": 0.1}


def run(name: str, seed: int = 0) -> SimpleNamespace:
    """Errors of alternating sign; those of the hybrid and LightGBM are alike."""
    rng = np.random.default_rng(seed + len(name))
    error = OFF[name] * (1 + 0.2 * rng.normal(size=40)) * np.where(np.arange(40) % 2, 1, -1)
    error[:2] *= 30  # two rows carry most of it
    zero = np.zeros(40)
    table = pd.DataFrame(
        {"eform": LABEL, "spin": zero, "eform_pred": LABEL + error, "spin_pred": zero}
    )
    return SimpleNamespace(part=lambda part: table)


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    frame = pd.DataFrame({"natoms": np.repeat([20, 30], 20)}, UIDS)
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(frame=frame))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)
    monkeypatch.setattr(pretrained, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(trust, "shipped_run", run)
    monkeypatch.setattr(trust, "data_of", lambda run, data: data)
    pd.DataFrame(
        {
            "split": ["random", "random", "host", "host"],
            "model": ["hybrid", "alignn", "hybrid", "alignn"],
            "eform_mae": [0.5, 0.8, 1.0, 2.4],
        }
    ).to_csv(tmp_path / "ladder.csv")


def interval(errors, draws, seed):
    rng = np.random.default_rng(seed)
    means = rng.choice(errors, (draws, len(errors))).mean(axis=1)
    return tuple(np.quantile(means, [0.025, 0.975]))


def spread(errors, draws, seed):
    return tuple(np.quantile(errors, [0.025, 0.975]))  # of the errors, not of their mean


def leaks(part, parent):
    known = {p for where, p in zip(part, parent) if where == "train"}
    return sum(where == "test" and p in known for where, p in zip(part, parent))


def half_width(errors, confidence):
    return np.sort(errors)[int(np.ceil((len(errors) + 1) * confidence)) - 1]


def share_of_worst() -> float:
    parts = [run("hybrid", seed).part("test") for seed in range(3)]
    errors = np.abs(sum(part.eform_pred for part in parts) / 3 - LABEL).sort_values()
    return errors[-2:].sum() / errors.sum()


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("05-1", interval, spread, "replacement"),
        ("05-1", interval, lambda errors, draws, seed: 0.5, "pair"),
        ("05-1", interval, lambda errors: 0.5, "stopped"),
        ("05-1", interval, 0.5, "function"),
        ("05-2", (True, False), (True, True), "lightgbm"),
        ("05-2", (True, False), (False, False), "alignn"),
        ("05-2", (True, False), True, "pair"),
        ("05-3", leaks, lambda part, parent: len(set(parent)), "different parents"),
        ("05-3", leaks, 3, "function"),
        ("05-4", {"hybrid": 2.0, "alignn": 3.0}, {"hybrid": 2.0, "alignn": 0.3}, "alignn"),
        ("05-4", {"hybrid": 2.0, "alignn": 3.0}, {"hybrid": 2.0}, "dictionary"),
        ("05-5", share_of_worst(), 0.05, "largest"),
        ("05-6", -np.polyfit(np.repeat([20, 30], 20), LABEL, 1)[0], 0.2, "signed"),
        ("05-7", (0.1, 1.0), (0.0, 1.0), "last site"),
        ("05-7", (0.1, 1.0), (0.1, 0.5), "mean"),
        ("05-7", (0.1, 1.0), 0.1, "pair"),
        ("05-8", half_width, lambda errors, c: np.quantile(errors, c), "rank"),
        ("05-8", half_width, lambda errors, c: np.sort(errors)[int(10 * c)], "index"),
        ("05-8", half_width, 0.9, "function"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdicts = [teach.check(number, wrong) for _ in range(3)]
    assert not any(verdict.right for verdict in verdicts)
    assert hint in repr(verdicts[-1])
