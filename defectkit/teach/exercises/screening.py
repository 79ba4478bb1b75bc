"""Judges of the exercises on screening: notebook 09."""

import numpy as np
from scipy.stats import norm

from defectkit.data.dataset import Dataset
from defectkit.screening.funnel import front
from defectkit.teach.checks import Fault, exercise, result_of, same_array, same_number


@exercise("09-1")
def margins(data: Dataset, answer: object) -> str | None:
    """By how much each site of a dopant beats the best of the others."""
    eform = np.array([1.4, -0.3, 0.2, 2.0])
    found = result_of(answer, "(eform)", "eform is (n,), so is the result.", eform)
    expected = np.array([-1.7, 0.5, -0.5, -2.3])
    if np.shape(found) == expected.shape:
        if np.allclose(found, -expected):
            return "Above zero where the site is the better one: the others' best minus its own."
        if np.isclose(np.asarray(found, float)[1], 0):
            return "The best site competes with the second best, not with itself."
    return same_array(found, expected, "The lowest of all *other* sites minus the site's own.")


@exercise("09-2")
def pareto_front(data: Dataset, answer: object) -> str | None:
    """Rows that no other beats, lower being better in every column."""
    shapes = "costs is (n, k), the result (n,) of True and False."
    cases = (
        (
            [[0, 3], [1, 1], [3, 0], [2, 2]],
            "Lower is better: [1, 1] beats [2, 2], and nobody beats [1, 1].",
        ),
        ([[0, 1], [0, 2], [1, 0]], "Equal in one and higher in the other is beaten as well."),
        ([[1, 1], [1, 1], [2, 2]], "Equal rows do not beat each other: both stay."),
        ([[0, 9, 9], [9, 0, 9], [3, 3, 3], [4, 3, 3]], "A row may stay that is lowest in nothing."),
    )
    for costs, hint in cases:
        given = np.array(costs, float)
        found = np.asarray(result_of(answer, "(costs)", shapes, given))
        if found.dtype != bool or found.shape != given.shape[:1]:
            return f"Answer with an array of True and False, one a row. {shapes}"
        if (found != front(given)).any():
            return hint
    return None


@exercise("09-3")
def energy_lost(data: Dataset, answer: object) -> str | None:
    """Regret where the first k by prediction are computed and the best of them is kept."""
    truth, said = np.array([0.9, 0.2, 0.5, 1.6]), np.array([0.1, 0.7, 0.3, 0.2])
    shapes = "truth and said are (n,), k a number; the result is a number in eV."
    hints = {
        1: "One is computed: the true energy of the lowest prediction, minus the lowest of all.",
        3: "Of the k lowest *predictions* the lowest true energy, minus the lowest of all.",
        4: "Where all are computed nothing is lost.",
    }
    for k, hint in hints.items():
        kept = truth[said.argsort()[:k]].min()
        found = result_of(answer, "(truth, said, k)", shapes, truth, said, k)
        if fault := same_number(found, kept - truth.min(), hint):
            return fault
    return None


@exercise("09-4")
def most_unlike(data: Dataset, answer: object) -> str | None:
    """The row of a pool whose nearest known row is farthest away."""
    # Distances to the nearest known row are 2, 3 and 1: the sum and the largest choose another.
    known, pool = np.array([[0.0], [10.0]]), np.array([[12.0], [7.0], [-1.0]])
    shapes = "known is (m, D), pool (n, D); the result is the number of a row of pool."
    found = result_of(answer, "(known, pool)", shapes, known, pool)
    if isinstance(found, bool) or not isinstance(found, int | np.integer):
        raise Fault("answer with the number of one row of pool.")
    if found == 2:
        return "Row 2 is the nearest of all to what is known; the farthest is asked for."
    hint = "For each row the distance to its *nearest* known row; then the row where it is largest."
    return None if found == 1 else hint


@exercise("09-5")
def expected_improvement(data: Dataset, answer: object) -> str | None:
    """E[max(best - y, 0)] for y normal about the mean."""
    mean, sigma, best = np.array([1.0, -0.5, 0.4]), np.array([0.5, 0.1, 1.0]), 0.2
    shapes = "mean and sigma are (n,), best a number; the result is (n,) eV."
    found = result_of(answer, "(mean, sigma, best)", shapes, mean, sigma, best)
    gain, z = best - mean, (best - mean) / sigma
    expected = gain * norm.cdf(z) + sigma * norm.pdf(z)
    if np.shape(found) == expected.shape and np.allclose(found, gain * norm.cdf(z)):
        return "The second term is missing: sigma times the density. It is what pays for a gamble."
    if np.shape(found) == expected.shape and np.allclose(found, norm.cdf(z)):
        return "That is how *probable* an improvement is; how large is it on average?"
    return same_array(found, expected, "(best - mean) Φ(z) + σ φ(z), with z = (best - mean) / σ.")
