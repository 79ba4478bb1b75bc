"""Judges of the exercises on evaluation and explanation: notebooks 05 and 06."""

import math

import numpy as np
import pandas as pd

from defectkit import explain
from defectkit.data.dataset import Dataset
from defectkit.evaluation.metrics import compare
from defectkit.predict.intervals import ensemble
from defectkit.teach.checks import (
    exercise,
    pair_of,
    result_of,
    same_array,
    same_number,
    same_numbers,
)
from defectkit.training.pretrained import benchmark, data_of, shipped_run

SEEDS = range(3)


@exercise("05-1")
def bootstrap(data: Dataset, answer: object) -> str | None:
    """The interval of a mean, of an even and of a skew sample."""
    rng = np.random.default_rng(1)
    for errors in (rng.random(80), rng.exponential(size=120)):
        names, shapes = "(errors, draws, seed)", "errors is an array (n,)."
        found = result_of(answer, names, shapes, errors, 4000, 3)
        low, high = pair_of(found, "your function must return a pair, (low, high).")
        hint = "Draw n of n with replacement (rng.choice), take the mean; quantiles over all draws."
        half = 1.96 * errors.std() / np.sqrt(len(errors))
        for end, expected in ((low, errors.mean() - half), (high, errors.mean() + half)):
            if fault := same_number(end, expected, hint, rel=0.2 * half / expected):
                return fault
    return None


@exercise("05-2")
def claims(data: Dataset, answer: object) -> str | None:
    """Whether the paired intervals leave zero out."""
    pair = pair_of(answer, "answer with a pair, as in (True, False).")
    for found, other in zip(pair, ("alignn", "lightgbm")):
        result = compare(_together("hybrid"), _together(other))
        if bool(found) != (result["hi"] < 0):
            return f"look at `hi` of hybrid − {other}: is the whole interval below zero?"
    return None


@exercise("05-3")
def leaks(data: Dataset, answer: object) -> str | None:
    """Test rows whose parent is in the training part."""
    cases = [
        (["train", "test", "test", "train"], ["a", "a", "b", "c"], 1),
        (["test", "test", "train"], ["a", "a", "a"], 2),
        (["train", "train"], ["a", "a"], 0),
    ]
    for part, parent, expected in cases:
        shapes = "part and parent are lists of equal length."
        found = result_of(answer, "(part, parent)", shapes, part, parent)
        hint = f"part = {part}, parent = {parent}: collect the training parents first."
        if fault := same_number(found, expected, hint, rel=0):
            return fault
    return None


@exercise("05-4")
def growth(data: Dataset, answer: object) -> str | None:
    """Error on unseen hosts over that on random rows, by model."""
    table = benchmark("ladder").pivot(index="model", columns="split", values="eform_mae")
    expected = (table.host / table.random).to_dict()
    if not isinstance(answer, dict) or set(answer) != set(expected):
        return f"answer with a dictionary of {', '.join(expected)}."
    for model, factor in expected.items():
        hint = f"Divide eform_mae of {model} on host by that on random."
        if fault := same_number(answer[model], factor, hint):
            return fault
    return None


@exercise("05-5")
def heavy_tail(data: Dataset, answer: object) -> str | None:
    """Share of the worst twentieth of the rows in the sum of absolute errors."""
    sizes = _ensemble_errors().abs().sort_values(ascending=False)
    expected = sizes[: len(sizes) // 20].sum() / sizes.sum()
    return same_number(answer, expected, "Sort |error|, largest first; sum of the top over all.")


@exercise("05-6")
def slope_of_zero(data: Dataset, answer: object) -> str | None:
    """Slope of the signed error of a model that says zero."""
    label = shipped_run("hybrid").part("test").eform
    natoms = data_of(shipped_run("hybrid"), data).frame.natoms.loc[label.index]
    expected = np.polyfit(natoms, -label, 1)[0]
    return same_number(answer, expected, "The signed error is prediction − label, so 0 − eform.")


@exercise("05-7")
def one_choice(data: Dataset, answer: object) -> str | None:
    """Regret and error of four sites."""
    found = pair_of(answer, "answer with a pair: (regret, mean absolute error).")
    hints = (
        "The model picks the last site, 0.5 eV; the best has 0.4 eV.",
        "The mean of |said − true| over the four.",
    )
    return same_numbers(found, (0.1, 1.0), hints)


@exercise("05-8")
def half_width(data: Dataset, answer: object) -> str | None:
    """Quantiles of small samples by rank."""
    errors = np.array([0.3, 0.1, 0.9, 0.2, 0.5, 0.4, 0.8, 0.7, 0.6])
    for confidence, expected in ((0.5, 0.5), (0.8, 0.8), (0.9, 0.9)):
        shapes = "errors is an array (n,)."
        found = result_of(answer, "(errors, confidence)", shapes, errors, confidence)
        hint = "Sort the errors; the rank counts from one, Python's index from zero."
        if fault := same_number(found, expected, hint):
            return fault
    return None


def _together(name: str) -> pd.DataFrame:
    """Test rows of all seeds of a model."""
    return pd.concat([shipped_run(name, seed).part("test") for seed in SEEDS])


def _ensemble_errors() -> pd.Series:
    """Errors (eV) of the mean prediction of the hybrid's seeds."""
    rows = ensemble([shipped_run("hybrid", seed).part("test") for seed in SEEDS])
    return (rows.eform_pred - rows.eform).dropna()


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
