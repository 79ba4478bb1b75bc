"""Exercises of notebook 05: evaluate, without fooling yourself."""

import numpy as np
import pandas as pd

from defectkit.data.dataset import Dataset
from defectkit.evaluation.metrics import compare
from defectkit.predict.intervals import ensemble
from defectkit.teach.checks import exercise, pair_of, result_of, same_number
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
    for value, expected, hint in zip(found, (0.1, 1.0), hints):
        if fault := same_number(value, expected, hint):
            return fault
    return None


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
