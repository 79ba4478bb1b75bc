"""The exercises on screening: notebook 09."""

import numpy as np
from scipy.stats import norm

from defectkit.screening.funnel import front
from defectkit.teach.checks import exercise


def _lowest_others(eform: np.ndarray) -> np.ndarray:
    return np.array([np.delete(eform, k).min() for k in range(len(eform))])


@exercise(
    "09-1",
    cases=[
        (np.array(eform),) for eform in ([1.4, -0.3, 0.2, 2.0], [0.5, 0.5, 1.0], [3.0, -1.0, 4.0])
    ],
    takes="eform is an array (n,), and so is the result.",
    hint="Every site has others: leave its own energy out, np.delete(eform, k), before the lowest.",
    way="np.array([np.delete(eform, k).min() - eform[k] for k in range(len(eform))])",
    meaning="Above zero for one site at most. What wins by little was decided by little.",
    mistakes={
        "Above zero where the site is the better one: the others' lowest minus its own.": (
            lambda eform: eform - _lowest_others(eform)
        ),
        "The best site competes with the second best, not with itself.": (
            lambda eform: eform.min() - eform
        ),
        "The second best of all is the rival of the best site only.": (
            lambda eform: np.sort(eform)[1] - eform
        ),
        "The rival is the lowest of the others, not their mean.": lambda eform: (
            (eform.sum() - eform) / (len(eform) - 1) - eform
        ),
        "A margin for each site is wanted, not the largest alone.": (
            lambda eform: (_lowest_others(eform) - eform).max()
        ),
    },
)
def margins(eform: np.ndarray) -> np.ndarray:
    """By how much each site of a dopant beats the best of the others."""
    return _lowest_others(eform) - eform


def _no_worse(costs: np.ndarray) -> np.ndarray:
    return (costs[:, None] <= costs[None]).all(axis=2)


def _no_twins(costs: np.ndarray) -> np.ndarray:
    return ~(_no_worse(costs) & ~np.eye(len(costs), dtype=bool)).any(axis=0)


@exercise(
    "09-2",
    cases=[
        (np.array(costs, float),)
        for costs in (
            [[0, 3], [1, 1], [3, 0], [2, 2]],
            [[0, 1], [0, 2], [1, 0]],
            [[1, 1], [1, 1], [2, 2]],
            [[0, 9, 9], [9, 0, 9], [3, 3, 3], [4, 3, 3]],
        )
    ],
    takes="costs is (n, k), the result (n,) of True and False.",
    hint="Compare every row with every other: no higher in all columns, and lower in one.",
    way="no_worse = (costs[:, None] <= costs[None]).all(axis=2); better = (costs[:, None] < "
    "costs[None]).any(axis=2); ~(no_worse & better).any(axis=0)",
    meaning="Nobody is better in all; which of them you like best is no question to a computer.",
    mistakes={
        "Lower is better, not higher.": lambda costs: front(-costs),
        "Those are the rows that somebody beats.": lambda costs: ~front(costs),
        "Equal in one column and higher in another is beaten as well.": lambda costs: (
            ~(costs[:, None] < costs[None]).all(axis=2).any(axis=0)
        ),
        "Equal rows do not beat each other: both stay.": _no_twins,
        "A row may stay that is lowest in no column: who beats it?": lambda costs: (
            costs == costs.min(axis=0)
        ).any(axis=1),
        "The sum of the columns is an exchange rate, and there is none.": lambda costs: (
            costs.sum(axis=1) == costs.sum(axis=1).min()
        ),
    },
)
def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Rows that no other beats, lower being better in every column."""
    return front(costs)


def _kept(truth: np.ndarray, said: np.ndarray, k: int) -> np.ndarray:
    return truth[said.argsort()[:k]]


@exercise(
    "09-3",
    cases=[
        *((np.array([0.9, 0.2, 0.5, 1.6]), np.array([0.1, 0.7, 0.3, 0.2]), k) for k in range(1, 5)),
        (np.array([0.5, 1.0, 0.1, 0.8]), np.array([0.2, 0.9, 0.4, 0.3]), 1),
    ],
    takes="truth and said are arrays (n,), k is a number; the result is a number in eV.",
    hint="np.argsort(said)[:k] are the rows that are computed; the best of them is kept.",
    way="truth[np.argsort(said)[:k]].min() - truth.min()",
    meaning="Nothing is lost where the best is among the k: the model need not put it first.",
    mistakes={
        "That computes one; the k lowest predictions are computed.": lambda truth, said, k: (
            _kept(truth, said, 1).min() - truth.min()
        ),
        "The model does not know the truth: its order is that of said.": lambda truth, said, k: (
            _kept(truth, truth, k).min() - truth.min()
        ),
        "That is the energy of what is kept; take off the lowest of all.": (
            lambda truth, said, k: _kept(truth, said, k).min()
        ),
        "The best of those computed is kept, not the last of them.": lambda truth, said, k: (
            _kept(truth, said, k)[-1] - truth.min()
        ),
        "The best of those computed is kept, not their mean.": lambda truth, said, k: (
            _kept(truth, said, k).mean() - truth.min()
        ),
        "Those are the k highest predictions; the lowest are computed.": lambda truth, said, k: (
            _kept(truth, -said, k).min() - truth.min()
        ),
        "Regret is what is kept minus the best, never below zero.": lambda truth, said, k: (
            truth.min() - _kept(truth, said, k).min()
        ),
    },
)
def energy_lost(truth: np.ndarray, said: np.ndarray, k: int) -> float:
    """Regret where the first k by prediction are computed and the best of them is kept."""
    return _kept(truth, said, k).min() - truth.min()


def _apart(known: np.ndarray, pool: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pool[:, None] - known[None], axis=2)


@exercise(
    "09-4",
    # Distances to the nearest known row are 2, 3 and 1: mean and largest choose other rows.
    cases=[
        (np.array([[0.0], [10.0]]), np.array([[12.0], [7.0], [-1.0]])),
        (np.array([[0.0, 0.0]]), np.array([[3.0, 0.0], [2.0, 2.0], [2.5, 2.5]])),
    ],
    takes="known is (m, D), pool (n, D); the result is the number of a row of pool.",
    hint="Smallest distance of each row of pool; then the row where that one is largest.",
    way="np.linalg.norm(pool[:, None] - known[None], axis=2).min(axis=1).argmax()",
    meaning="Far from all that is known; but a row that is like no other may teach of no other.",
    mistakes={
        "That one is nearest of all; the farthest is wanted.": lambda known, pool: int(
            _apart(known, pool).min(axis=1).argmin()
        ),
        "What counts is the nearest known row, not the mean of all, nor the farthest.": (
            lambda known, pool: int(_apart(known, pool).mean(axis=1).argmax())
        ),
        "That is the distance; the number of its row is wanted, argmax.": lambda known, pool: (
            _apart(known, pool).min(axis=1).max()
        ),
        "That is the row itself; its number is wanted, argmax.": lambda known, pool: pool[
            _apart(known, pool).min(axis=1).argmax()
        ],
        "That is a row of known; a row of pool is wanted.": lambda known, pool: int(
            _apart(known, pool).min(axis=0).argmax()
        ),
    },
)
def most_unlike(known: np.ndarray, pool: np.ndarray) -> int:
    """The row of a pool whose nearest known row is farthest away."""
    return int(_apart(known, pool).min(axis=1).argmax())


def _gain(mean: np.ndarray, sigma: np.ndarray, best: float, sign: float = 1.0) -> np.ndarray:
    z = sign * (best - mean) / sigma
    return sign * (best - mean) * norm.cdf(z) + sigma * norm.pdf(z)


@exercise(
    "09-5",
    cases=[(np.array([1.0, -0.5, 0.4]), np.array([0.5, 0.1, 1.0]), 0.2)],
    takes="mean and sigma are arrays (n,), best is a number; the result is (n,) in eV.",
    hint="z = (best - mean) / sigma comes first; then two terms, one with cdf and one with pdf.",
    way="z = (best - mean) / sigma; (best - mean) * norm.cdf(z) + sigma * norm.pdf(z)",
    meaning="Even a bad mean has a chance where sigma is large: the second term pays for a gamble.",
    mistakes={
        "The second term is missing: sigma times the density. It is what pays for a gamble.": (
            lambda mean, sigma, best: (best - mean) * norm.cdf((best - mean) / sigma)
        ),
        "That is how *probable* an improvement is; how large is it on average?": (
            lambda mean, sigma, best: norm.cdf((best - mean) / sigma)
        ),
        "Lower is better here: best - mean, not mean - best.": lambda mean, sigma, best: _gain(
            mean, sigma, best, -1.0
        ),
        "The density is that of z, times sigma; sigma is missing.": lambda mean, sigma, best: (
            _gain(mean, sigma, best) + (1 - sigma) * norm.pdf((best - mean) / sigma)
        ),
        "z is counted in units of sigma: divide.": lambda mean, sigma, best: (
            (best - mean) * norm.cdf(best - mean) + sigma * norm.pdf(best - mean)
        ),
        "A mean above the best has a chance too: that is the gain of the mean alone.": (
            lambda mean, sigma, best: np.maximum(best - mean, 0.0)
        ),
    },
)
def expected_improvement(mean: np.ndarray, sigma: np.ndarray, best: float) -> np.ndarray:
    """E[max(best - y, 0)] for y normal about the mean."""
    return _gain(mean, sigma, best)
