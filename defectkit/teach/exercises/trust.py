"""The exercises on evaluation and explanation: notebooks 05 and 06."""

import math

import numpy as np
import pandas as pd

from defectkit import explain
from defectkit.data.dataset import Dataset
from defectkit.evaluation.metrics import compare
from defectkit.predict.intervals import ensemble
from defectkit.teach.answers import ANY, differs
from defectkit.teach.checks import exercise
from defectkit.training.pretrained import benchmark, data_of, shipped_run

SEEDS = range(3)


def _samples() -> list[tuple[np.ndarray, int, int]]:
    rng = np.random.default_rng(1)
    return [(rng.random(80), 4000, 3), (rng.exponential(size=120), 4000, 3)]


def _near_interval(found: object, expected: tuple[float, float]) -> str:
    """Two ends within a fifth of the half width: random draws differ."""
    low, high = expected
    slack = 0.1 * abs(high - low)
    fault = differs(found, (ANY, ANY))
    for name, end, right in () if fault else zip(("lower", "upper"), found, expected):
        fault = fault or differs(end, float(right), slack / abs(right))
        if fault:
            return f"the {name} end: {fault}"
    return fault


def _quantiles(values: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(values, [0.5 - share / 2, 0.5 + share / 2])
    return float(low), float(high)


def _means(errors: np.ndarray, draws: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(errors, (draws, len(errors))).mean(axis=1)


@exercise(
    "05-1",
    cases=lambda data: _samples(),
    takes="errors is an array (n,), draws and seed are whole numbers; the result is (low, high).",
    same=_near_interval,
    hint="Draw n of n with replacement (rng.choice), take the mean; quantiles over all draws.",
    way="means = [rng.choice(errors, len(errors)).mean() for _ in range(draws)]; "
    "np.quantile(means, [0.025, 0.975])",
    meaning="How far the mean would move had other rows been drawn: an error bar from one sample.",
    mistakes={
        "Those are quantiles of the errors; quantiles of the means are wanted.": (
            lambda errors, draws, seed: _quantiles(errors)
        ),
        "Without replacement every draw has the same mean.": lambda errors, draws, seed: (
            float(errors.mean()),
            float(errors.mean()),
        ),
        "That interval holds two thirds of the means; 95 % are wanted.": (
            lambda errors, draws, seed: _quantiles(_means(errors, draws, seed), 0.68)
        ),
        "The two ends are swapped.": lambda errors, draws, seed: _quantiles(
            _means(errors, draws, seed)
        )[::-1],
        "A sample of half the rows has a mean that scatters more; draw as many as there are.": (
            lambda errors, draws, seed: _quantiles(
                _means(errors, draws, seed) * 2**0.5 + errors.mean() * (1 - 2**0.5)
            )
        ),
    },
)
def bootstrap(errors: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """The interval of a mean."""
    return _quantiles(_means(errors, draws, seed))


def _compared(column: str) -> tuple[bool, bool]:
    """Whether this number of the paired comparison is below zero, for both rivals."""
    results = [compare(_together("hybrid"), _together(name)) for name in ("alignn", "lightgbm")]
    return tuple(bool(result[column] < 0) for result in results)


@exercise(
    "05-2",
    hint="A claim needs the whole interval on one side of zero: look at `hi`.",
    way='tuple(pairs[f"hybrid − {other}"]["hi"] < 0 for other in ("alignn", "lightgbm"))',
    meaning=lambda pair: (
        f"ALIGNN: {'yes' if pair[0] else 'no'}; LightGBM: {'yes' if pair[1] else 'no'}. An "
        "interval that holds zero is no claim, whatever its middle says."
    ),
    mistakes={
        "The two are swapped: first ALIGNN, then LightGBM.": lambda d: _compared("hi")[::-1],
        "Look at the upper end, `hi`: is the whole interval below zero?": lambda d: tuple(
            not claim for claim in _compared("hi")
        ),
        "For ALIGNN look at `hi` again: is it below zero?": lambda d: (
            not _compared("hi")[0],
            ANY,
        ),
        "For LightGBM look at `hi` again: is it below zero?": lambda d: (
            ANY,
            not _compared("hi")[1],
        ),
    },
)
def claims(data: Dataset) -> tuple[bool, bool]:
    """Whether the paired intervals leave zero out."""
    return _compared("hi")


@exercise(
    "05-3",
    cases=[
        (["train", "test", "test", "train"], ["a", "a", "b", "c"]),
        (["test", "test", "train"], ["a", "a", "a"]),
        (["test", "train", "train"], ["a", "a", "a"]),
        (["train", "train"], ["a", "a"]),
        (["test", "test"], ["a", "a"]),
    ],
    takes="part and parent are lists of equal length.",
    hint="Collect the parents of the training rows first, in a set.",
    way='known = {p for where, p in zip(part, parent) if where == "train"}, then count the test'
    " rows whose parent is in it.",
    meaning="Zero is the only good number; a test row with a known parent was as good as learned.",
    mistakes={
        "Those are parents; two test rows of one parent are two leaks.": lambda part, parent: len(
            {p for w, p in zip(part, parent) if w == "train"}
            & {p for w, p in zip(part, parent) if w == "test"}
        ),
        "Those are training rows with a parent in the test; count the test rows.": (
            lambda part, parent: sum(
                w == "train" and p in {q for v, q in zip(part, parent) if v == "test"}
                for w, p in zip(part, parent)
            )
        ),
        "Rows that share a parent within one part do no harm.": lambda part, parent: (
            len(parent) - len(set(parent))
        ),
        "That counts all test rows.": lambda part, parent: part.count("test"),
        "Those are pairs; a test row counts once, however many training rows it is like.": (
            lambda part, parent: sum(
                w == "test" and v == "train" and p == q
                for w, p in zip(part, parent)
                for v, q in zip(part, parent)
            )
        ),
        "Those are the different parents.": lambda part, parent: len(set(parent)),
    },
)
def leaks(part: list[str], parent: list[str]) -> int:
    """Test rows whose parent is in the training part."""
    known = {p for where, p in zip(part, parent) if where == "train"}
    return sum(where == "test" and p in known for where, p in zip(part, parent))


def _steps() -> pd.DataFrame:
    return benchmark("ladder").pivot(index="model", columns="split", values="eform_mae")


@exercise(
    "05-4",
    hint="For each model divide eform_mae on host by that on random.",
    way='e = ladder.pivot(index="model", columns="split", values="eform_mae"); '
    "(e.host / e.random).to_dict()",
    meaning=lambda factors: (
        f"{min(factors.values()):.1f} to {max(factors.values()):.1f} times as large: an error on "
        "rows at random says little about hosts that nobody showed the model."
    ),
    mistakes={
        "Those are the inverse: unseen hosts over random rows.": lambda d: (
            _steps().random / _steps().host
        ).to_dict(),
        "Those are differences; a factor is a quotient.": lambda d: (
            _steps().host - _steps().random
        ).to_dict(),
        "Those are the errors on unseen hosts themselves.": lambda d: _steps().host.to_dict(),
        "That is the step to unseen dopants.": lambda d: (
            _steps().dopant / _steps().random
        ).to_dict(),
        "That is the step to unseen pairs.": lambda d: (_steps().pair / _steps().random).to_dict(),
        "That is by how much more; the factor is one larger.": lambda d: (
            _steps().host / _steps().random - 1
        ).to_dict(),
    },
)
def growth(data: Dataset) -> dict[str, float]:
    """Error on unseen hosts over that on random rows, by model."""
    return (_steps().host / _steps().random).to_dict()


def _share_of_worst(sizes: pd.Series, share: int = 20) -> float:
    sizes = sizes.sort_values(ascending=False)
    return float(sizes[: len(sizes) // share].sum() / sizes.sum())


@exercise(
    "05-5",
    hint="Sort |error|, largest first; sum of the top over all.",
    way="sizes = table.error.abs().sort_values(ascending=False); "
    "sizes[: len(sizes) // 20].sum() / sizes.sum()",
    meaning="{x:.0%} of the error comes from 5 % of the rows: a mean hides who pays it.",
    mistakes={
        "Sorted by sign: an error far below zero is large too; take abs() first.": lambda d: (
            (e := _ensemble_errors().sort_values(ascending=False))[: len(e) // 20].sum()
            / e.abs().sum()
        ),
        "Those are the best 5 %; sort with the largest first.": lambda d: (
            (e := _ensemble_errors().abs().sort_values())[: len(e) // 20].sum() / e.sum()
        ),
        "Squared errors give the few more weight than they have here.": lambda d: _share_of_worst(
            _ensemble_errors() ** 2
        ),
        "That is what the others carry.": lambda d: 1 - _share_of_worst(_ensemble_errors().abs()),
        "That is in percent; a share lies between 0 and 1.": lambda d: (
            100 * _share_of_worst(_ensemble_errors().abs())
        ),
        "That is the worst tenth; 5 % are a twentieth.": lambda d: _share_of_worst(
            _ensemble_errors().abs(), share=10
        ),
        "That is the share of the rows; the share of the errors is wanted.": 0.05,
    },
)
def heavy_tail(data: Dataset) -> float:
    """Share of the worst twentieth of the rows in the sum of absolute errors."""
    return _share_of_worst(_ensemble_errors().abs())


def _sizes_and_labels(data: Dataset) -> tuple[pd.Series, pd.Series]:
    """Atoms and energy (eV) of the test rows."""
    label = shipped_run("hybrid").part("test").eform
    return data_of(shipped_run("hybrid"), data).frame.natoms.loc[label.index], label


@exercise(
    "05-6",
    hint="The signed error is prediction − label, so 0 − eform.",
    way="np.polyfit(table.natoms, 0 - table.eform, 1)[0]",
    meaning="{x:.3f} eV an atom, from a model without atoms: large cells are of other hosts here.",
    mistakes={
        "The error is prediction − label; here that is 0 − eform.": lambda d: np.polyfit(
            *_sizes_and_labels(d), 1
        )[0],
        "The axes are swapped: np.polyfit(x, y, 1), x are the atoms.": lambda d: np.polyfit(
            -_sizes_and_labels(d)[1], _sizes_and_labels(d)[0], 1
        )[0],
        "That is where the line begins; its slope is element [0].": lambda d: np.polyfit(
            _sizes_and_labels(d)[0], -_sizes_and_labels(d)[1], 1
        )[1],
        "That is a correlation; a slope has a unit, eV an atom.": lambda d: (
            -np.corrcoef(*_sizes_and_labels(d))[0, 1]
        ),
        "Absolute errors; the sign is wanted.": lambda d: np.polyfit(
            _sizes_and_labels(d)[0], _sizes_and_labels(d)[1].abs(), 1
        )[0],
    },
)
def slope_of_zero(data: Dataset) -> float:
    """Slope of the signed error of a model that says zero."""
    natoms, label = _sizes_and_labels(data)
    return float(np.polyfit(natoms, -label, 1)[0])


@exercise(
    "05-7",
    hint="The model picks the lowest energy that it says: the last site.",
    way="0.5 - 0.4 for the regret; the mean of |said − true| over the four.",
    meaning="A regret of {x[0]:g} eV with an error of {x[1]:g} eV: what all share costs nothing.",
    mistakes={
        "The two are swapped: first the regret.": (1.0, 0.1),
        "The model does not know the truth: it picks the last site.": (0.0, ANY),
        "Regret is counted in true energies, those of the pick and of the best.": (0.9, ANY),
        "Regret is the pick minus the best, never below zero.": (-0.1, ANY),
        "The first one is the energy that the model says; the true ones count.": (1.4, ANY),
        "Those are true energies of the pick; take off the lowest.": (0.5, ANY),
        "The second one is the sum; the mean is wanted.": (ANY, 4.0),
    },
)
def one_choice(data: Dataset) -> tuple[float, float]:
    """Regret and error of four sites."""
    return 0.1, 1.0


def _rank(errors: np.ndarray, confidence: float) -> int:
    return int(np.ceil((len(errors) + 1) * confidence))


@exercise(
    "05-8",
    cases=[
        (np.array([0.3, 0.1, 0.9, 0.2, 0.5, 0.4, 0.8, 0.7, 0.6]), confidence)
        for confidence in (0.45, 0.5, 0.62, 0.8, 0.9)
    ],
    takes="errors is an array (n,), confidence a number between 0 and 1.",
    hint="Sort the errors; the rank counts from one, Python's index from zero.",
    way="np.sort(errors)[int(np.ceil((len(errors) + 1) * confidence)) - 1]",
    meaning="No belief about the shape of the errors: only that new rows are drawn like these.",
    mistakes={
        "np.quantile lies between two errors and promises too much: take the one at the rank.": (
            lambda errors, confidence: float(np.quantile(errors, confidence))
        ),
        "The rank counts from one, the index from zero.": lambda errors, confidence: float(
            np.sort(errors)[min(_rank(errors, confidence), len(errors) - 1)]
        ),
        "The errors have to be sorted.": lambda errors, confidence: float(
            errors[_rank(errors, confidence) - 1]
        ),
        "Round up, not down, or the promise is broken.": lambda errors, confidence: float(
            np.sort(errors)[int((len(errors) + 1) * confidence) - 1]
        ),
        "n + 1 and not n: the new row is one of them.": lambda errors, confidence: float(
            np.sort(errors)[int(np.ceil(len(errors) * confidence)) - 1]
        ),
        "Sorted the wrong way round: the largest errors come last.": lambda errors, confidence: (
            float(np.sort(errors)[::-1][_rank(errors, confidence) - 1])
        ),
    },
)
def half_width(errors: np.ndarray, confidence: float) -> float:
    """Half the width of a conformal interval, by rank."""
    return float(np.sort(errors)[_rank(errors, confidence) - 1])


def _together(name: str) -> pd.DataFrame:
    """Test rows of all seeds of a model."""
    return pd.concat([shipped_run(name, seed).part("test") for seed in SEEDS])


def _ensemble_errors() -> pd.Series:
    """Errors (eV) of the mean prediction of the hybrid's seeds."""
    rows = ensemble([shipped_run("hybrid", seed).part("test") for seed in SEEDS])
    return (rows.eform_pred - rows.eform).dropna()


def _random_maps() -> np.ndarray:
    """(2, 3, 6, 6) weights, every row of which sums to one."""
    maps = np.random.default_rng(0).random((2, 3, 6, 6))
    return maps / maps.sum(axis=-1, keepdims=True)


@exercise(
    "06-1",
    cases=[(_random_maps(),)],
    takes="maps is (L, H, n, n); the result (n, n).",
    hint="For each layer the mean over heads (axis=0), plus np.eye(n), over two; last on the left.",
    way="total = (np.eye(n) + alpha) / 2 @ total for alpha in maps.mean(axis=1), from np.eye(n).",
    meaning="It follows the way through all layers, if heads may be averaged.",
    mistakes={
        "The order of the layers: the last one stands on the left.": lambda maps: explain.combine(
            maps[::-1], "rollout"
        ),
        "Half of each layer is the residual connection: add np.eye(n), and halve.": lambda maps: (
            maps[1].mean(axis=0) @ maps[0].mean(axis=0)
        ),
        "Identity and attention each count half: divide by two.": lambda maps: (
            4 * explain.combine(maps, "rollout")
        ),
        "The mean over heads, not their sum.": lambda maps: (
            (np.eye(6) + maps[1].sum(axis=0)) / 2 @ ((np.eye(6) + maps[0].sum(axis=0)) / 2)
        ),
        "That is the mean over all; rollout multiplies the layers.": lambda maps: maps.mean(
            axis=(0, 1)
        ),
        "Matrices are multiplied by @; * goes number by number.": lambda maps: (
            (np.eye(6) + maps[1].mean(axis=0)) / 2 * ((np.eye(6) + maps[0].mean(axis=0)) / 2)
        ),
    },
)
def rollout(maps: np.ndarray) -> np.ndarray:
    """Rollout of attention through all layers."""
    return explain.combine(maps, "rollout")


@exercise(
    "06-2",
    cases=[(_random_maps()[0, 0], np.array([1, 4]))],
    takes="matrix is (n, n), defect an array of node numbers; the result (n,).",
    hint="Rows are who asks: the defect's rows, their mean, times n.",
    way="matrix[defect].mean(axis=0) * len(matrix)",
    meaning="One is uniform: above it a node is heard more than by a listener without opinion.",
    mistakes={
        "Those are columns, who listens to the defect; rows are whom it listens to.": (
            lambda matrix, defect: explain.seen_by(matrix.T, defect) * len(matrix)
        ),
        "Times n is missing, so that one is uniform.": lambda matrix, defect: explain.seen_by(
            matrix, defect
        ),
        "The mean over the defect's nodes, not their sum.": lambda matrix, defect: (
            matrix[defect].sum(axis=0) * len(matrix)
        ),
        "Times the number of all nodes, not of the defect's.": lambda matrix, defect: (
            explain.seen_by(matrix, defect) * len(defect)
        ),
        "That is the mean over all who ask; only the defect's nodes are meant.": (
            lambda matrix, defect: matrix.mean(axis=0) * len(matrix)
        ),
    },
)
def heard(matrix: np.ndarray, defect: np.ndarray) -> np.ndarray:
    """The weight that the defect gives, times the number of nodes."""
    return explain.seen_by(matrix, defect) * len(matrix)


@exercise(
    "06-3",
    rel=0.01,
    hint="The floor does not matter, nor the 4: exp(-(d - 2) / 2) = 1/10.",
    way="2 + 2 * np.log(10)",
    meaning="{x:.1f} Å: a decay length of 2 Å takes 4.6 Å to lose nine tenths.",
    mistakes={
        "That is how much farther than 2 Å; the distance itself is wanted.": 2 * math.log(10),
        "The decay length of 2 Å is missing.": 2 + math.log(10),
        "The natural logarithm, np.log: the base of the curve is e.": 4.0,
        "That is where the weight is half of it; a tenth is wanted.": 2 + 2 * math.log(2),
        "The floor of 0.5 is not counted: above the floor.": -2
        * math.log((0.1 * (4 * math.exp(-1) + 0.5)) / 4),
    },
)
def a_tenth(data: Dataset) -> float:
    """Where the excess over the floor is a tenth of what it is at 2 Å."""
    return 2 + 2 * math.log(10)


@exercise(
    "06-4",
    rel=0.01,
    hint="27 nodes, the vacancy among them; the sulfur had three neighbours.",
    way="(1 + 3) / 27",
    meaning="{x:.1%} without any opinion: only what exceeds it can have been learned.",
    mistakes={
        "The vacancy is a node too: 27 in all.": 4 / 26,
        "The vacancy itself counts to the share.": 3 / 27,
        "Sulfur has three neighbours of molybdenum, not six.": 7 / 27,
        "That is the vacancy alone.": 1 / 27,
        "3 x 3 cells have three atoms each.": 4 / 9,
        "Nodes are counted, not cells: and the vacancy is one.": 3 / 26,
    },
)
def uniform_share(data: Dataset) -> float:
    """A vacancy and its first shell in a sheet of 3 x 3 cells."""
    return 4 / 27


def _scores() -> list[tuple[np.ndarray, np.ndarray]]:
    symbol = np.array(["S", "S", "Mo", "Mo", "Mo"])
    return [(np.array([1.0, 6.0, 5.0, 5.0, 9.0]), symbol)]


def _means_of(score: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    return pd.Series(score).groupby(symbol).transform("mean").to_numpy()


@exercise(
    "06-5",
    cases=_scores(),
    takes="score and symbol are (n,); the result one number.",
    hint="Put every atom's element mean in its place; the variance of that over that of score.",
    way='means = pd.Series(score).groupby(symbol).transform("mean"); np.var(means) / np.var(score)',
    meaning="Near one, a map colours atoms by their element, whatever it was meant to show.",
    mistakes={
        "That is what lies within the elements.": lambda score, symbol: (
            1 - np.var(_means_of(score, symbol)) / np.var(score)
        ),
        "Standard deviations; the variance is their square.": lambda score, symbol: (
            np.std(_means_of(score, symbol)) / np.std(score)
        ),
        "Every atom counts, so an element of many atoms counts more.": lambda score, symbol: (
            np.var([score[symbol == one].mean() for one in np.unique(symbol)]) / np.var(score)
        ),
        "One variance divides by n, the other by n - 1 (pandas).": lambda score, symbol: (
            np.var(_means_of(score, symbol), ddof=1) / np.var(score)
        ),
        "That is the variance of the means; divide by that of the score.": lambda score, symbol: (
            np.var(_means_of(score, symbol))
        ),
    },
)
def between_elements(score: np.ndarray, symbol: np.ndarray) -> float:
    """The share of the variance of a score that lies between elements."""
    return float(np.var(_means_of(score, symbol)) / np.var(score))


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


@exercise(
    "06-6",
    cases=[(np.array([0.1, 2.0, 50.0, 0.3, 1.0]), np.array([3.0, 1.0, 9.0, 5.0, 7.0]))],
    takes="first and second are (n,), without ties.",
    hint="A rank is the place in the order; argsort alone gives something else.",
    way="np.argsort(np.argsort(x)) gives ranks; then np.corrcoef of both, element [0, 1].",
    meaning="Units and outliers drop out: only the order of the atoms counts.",
    mistakes={
        "That is the correlation of the values; replace them by ranks first.": (
            lambda first, second: np.corrcoef(first, second)[0, 1]
        ),
        "One argsort says who is first; two say in which place everybody is.": (
            lambda first, second: np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]
        ),
        "The order of one of the two is reversed.": lambda first, second: (
            -np.corrcoef(_ranks(first), _ranks(second))[0, 1]
        ),
        "np.corrcoef gives a table of two by two; take its element [0, 1].": (
            lambda first, second: np.corrcoef(_ranks(first), _ranks(second))
        ),
        "That is the square.": lambda first, second: (
            np.corrcoef(_ranks(first), _ranks(second))[0, 1] ** 2
        ),
    },
)
def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's coefficient of two scores without ties."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _attention_errors() -> pd.Series:
    table = benchmark("attention")
    return (table.predicted - table.label).abs().groupby(table.model).mean()


def _grows(model: str) -> float:
    error = _attention_errors()
    return 100 * (error[model] / error["trained"] - 1)


@exercise(
    "06-7",
    rel=0.01,
    hint="100 * (one mean error / the trained model's - 1).",
    way='100 * (error.loc["without content", "mean"] / error.loc["trained", "mean"] - 1)',
    meaning="{x:.0f} % more: the trained model does need it, whatever its maps explain.",
    mistakes={
        "That is a factor; in percent it is how much more than one, times a hundred.": lambda d: (
            1 + _grows("without content") / 100
        ),
        "That is a share; times a hundred it is in percent.": lambda d: (
            _grows("without content") / 100
        ),
        "That is the whole error in percent of the trained model's; by how much does it grow?": (
            lambda d: 100 + _grows("without content")
        ),
        "That is in eV; percent of the trained model's error are wanted.": lambda d: (
            _attention_errors()["without content"] - _attention_errors()["trained"]
        ),
        "That is without φ.": lambda d: _grows("without phi"),
        "That is without ψ.": lambda d: _grows("without psi"),
        "Counted from the larger error; growth is counted from where it began.": lambda d: (
            100 * (1 - 1 / (1 + _grows("without content") / 100))
        ),
    },
)
def uniform_attention(data: Dataset) -> float:
    """How much the error grows without query times key, in percent."""
    return _grows("without content")
