"""Exercises of notebook 06, look inside: attention maps."""

import math

import numpy as np

from defectkit import explain
from defectkit.data.dataset import Dataset
from defectkit.teach.checks import exercise, result_of, same_array, same_number
from defectkit.training.pretrained import benchmark


@exercise("06-1")
def rollout(data: Dataset, answer: object) -> str | None:
    """Rollout of two layers of random attention."""
    maps = _random_maps()
    shapes = "maps is (L, H, n, n); the result (n, n)."
    found = result_of(answer, "(maps)", shapes, maps)
    hint = (
        "For each layer the mean over heads (axis=0), plus np.eye(n), over two; last on the left."
    )
    return same_array(found, explain.combine(maps, "rollout"), hint)


@exercise("06-2")
def relative_weight(data: Dataset, answer: object) -> str | None:
    """The weight that the defect gives, times the number of nodes."""
    matrix, defect = _random_maps()[0, 0], np.array([1, 4])
    shapes = "matrix is (n, n), defect an array of node numbers; the result (n,)."
    found = result_of(answer, "(matrix, defect)", shapes, matrix, defect)
    expected = explain.seen_by(matrix, defect) * len(matrix)
    return same_array(found, expected, "The mean of the defect's rows (axis=0), times n.")


@exercise("06-3")
def a_tenth(data: Dataset, answer: object) -> str | None:
    """Where the excess over the floor is a tenth of what it is at 2 Å."""
    hint = "The floor does not matter, nor the 4: exp(-(d - 2) / 2) = 1/10."
    return same_number(answer, 2 + 2 * math.log(10), hint, rel=0.01)


@exercise("06-4")
def uniform_share(data: Dataset, answer: object) -> str | None:
    """A vacancy and its first shell in a sheet of 3 x 3 cells."""
    hint = "27 nodes, the vacancy among them; the sulfur had three neighbours."
    return same_number(answer, 4 / 27, hint, rel=0.01)


@exercise("06-5")
def between_elements(data: Dataset, answer: object) -> str | None:
    """The share of the variance of a score that lies between elements."""
    score = np.array([1.0, 3.0, 5.0, 5.0, 9.0])
    symbol = np.array(["S", "S", "Mo", "Mo", "Mo"])
    shapes = "score and symbol are (n,); the result one number."
    found = result_of(answer, "(score, symbol)", shapes, score, symbol)
    means = np.array([2.0, 2.0, 19 / 3, 19 / 3, 19 / 3])
    hint = "Put every atom's element mean in its place; the variance of that over that of score."
    return same_number(found, means.var() / score.var(), hint)


@exercise("06-6")
def rank_correlation(data: Dataset, answer: object) -> str | None:
    """Spearman's coefficient of two scores without ties."""
    first = np.array([0.1, 2.0, 50.0, 0.3, 1.0])
    second = np.array([3.0, 1.0, 9.0, 5.0, 7.0])
    found = result_of(answer, "(first, second)", "Both are (n,), without ties.", first, second)
    ranks = np.argsort(np.argsort([first, second], axis=1), axis=1)
    hint = "np.argsort(np.argsort(x)) gives ranks; then np.corrcoef of both, element [0, 1]."
    return same_number(found, np.corrcoef(ranks)[0, 1], hint)


@exercise("06-7")
def uniform_attention(data: Dataset, answer: object) -> str | None:
    """How much the error grows without query times key, in percent."""
    table = benchmark("attention")
    error = (table.predicted - table.label).abs().groupby(table.model).mean()
    growth = 100 * (error["without content"] / error["trained"] - 1)
    return same_number(
        answer, growth, "100 * (one mean error / the trained model's - 1).", rel=0.01
    )


def _random_maps() -> np.ndarray:
    """(2, 3, 6, 6) weights, every row of which sums to one."""
    maps = np.random.default_rng(0).random((2, 3, 6, 6))
    return maps / maps.sum(axis=-1, keepdims=True)
