"""Exercises of notebook 09: right answers, near misses, answers of another kind."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from defectkit import teach
from defectkit.screening.choose import Pool, most_improving, most_unlike
from defectkit.screening.funnel import front


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(records=[]))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)


def margins(eform):
    return np.array([np.delete(eform, k).min() - e for k, e in enumerate(eform)])


def lost(truth, said, k):
    return truth[np.argsort(said)[:k]].min() - truth.min()


def apart(known, pool):
    return np.linalg.norm(pool[:, None] - known[None], axis=2)


def farthest(known, pool):
    return apart(known, pool).min(axis=1).argmax()


def improvement(mean, sigma, best):
    z = (best - mean) / sigma
    return (best - mean) * norm.cdf(z) + sigma * norm.pdf(z)


def lowest_of_a_column(costs):
    return (costs == costs.min(axis=0)).any(axis=1)


def beaten_in_all(costs):
    return ~(costs[:, None] < costs[None]).all(axis=2).any(axis=0)


def without_twins(costs):
    others = ~np.eye(len(costs), dtype=bool)
    return ~((costs[:, None] <= costs[None]).all(axis=2) & others).any(axis=0)


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("09-1", margins, lambda e: -margins(e), "the better one"),
        ("09-1", margins, lambda e: e.min() - e, "not with itself"),
        ("09-1", margins, lambda e: np.sort(e)[1] - e, "rival of the best"),
        ("09-1", margins, lambda e: margins(e).max(), "not the largest alone"),
        ("09-2", front, lambda c: front(-c), "Lower is better"),
        ("09-2", front, beaten_in_all, "Equal in one"),
        ("09-2", front, without_twins, "both stay"),
        ("09-2", front, lowest_of_a_column, "lowest in no column"),
        ("09-2", front, lambda c: np.flatnonzero(front(c)), "is wanted"),
        ("09-3", lost, lambda t, s, k: lost(t, s, 1), "k lowest"),
        ("09-3", lost, lambda t, s, k: lost(t, t, k), "does not know the truth"),
        ("09-3", lost, lambda t, s, k: lost(t, s, k) + t.min(), "take off the lowest"),
        ("09-3", lost, lambda t, s, k: "nothing", "number"),
        ("09-4", farthest, lambda k, p: apart(k, p).min(axis=1).argmin(), "nearest of all"),
        ("09-4", farthest, lambda k, p: apart(k, p).mean(axis=1).argmax(), "nearest known"),
        ("09-4", farthest, lambda k, p: apart(k, p).max(axis=1).argmax(), "nor the farthest"),
        ("09-4", farthest, lambda k, p: p.tolist(), "a number is wanted"),
        ("09-5", improvement, lambda m, s, b: (b - m) * norm.cdf((b - m) / s), "second term"),
        ("09-5", improvement, lambda m, s, b: norm.cdf((b - m) / s), "probable"),
        ("09-5", improvement, lambda m, s, b: improvement(-m, s, -b), "not mean - best"),
        ("09-5", improvement, lambda m, s, b: improvement(m, s, b)[:1], "shape"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdict = teach.check(number, wrong)
    assert not verdict.right
    assert hint in verdict.message


def test_what_the_exercises_teach_is_what_the_library_does():
    rng = np.random.default_rng(0)
    known, vectors = rng.normal(size=(5, 1)), rng.normal(size=(30, 1))
    mean, sigma = rng.normal(size=30), rng.uniform(0.1, 1, 30)
    pool = Pool(mean, sigma, vectors, known, -0.5)
    assert most_unlike(pool, 1, rng)[0] == farthest(known, vectors)
    assert most_improving(pool, 1, rng)[0] == improvement(mean, sigma, -0.5).argmax()
