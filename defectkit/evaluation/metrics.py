"""How good predictions are: the error measures of every table and report, with intervals.

Intervals are percentile bootstraps. Rows that were held out together, such as all defects of a
host, err together: given as `groups`, they are drawn together. Few groups make an interval too
narrow; below ten, take it for a lower bound.

Regret measures decisions: how much energy is lost by choosing a site or a dopant with the model.
The rows of one unit, such as all sites of a dopant in a host, compete, and the lowest formation
energy wins. Regret is the true energy of the model's choice minus the lowest true energy: zero for
the right choice, and for a wrong one between equals. An error that all options of a unit share
costs nothing here, so a model with larger errors can choose better.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, hypergeom
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from defectkit import DefectkitError
from defectkit.data.splits import SAME_ENERGY
from defectkit.predict.intervals import MAGNETIC, check_same_rows

RESAMPLES = 2000
CONFIDENCE = 0.95
CLASSES = ["not magnetic", "magnetic"]
SAME_LABEL = 1e-4  # eV: predictions are stored with five decimals
SITE = ("host", "dopant", "strain")  # a unit whose options are the sites of a dopant in a host
DOPANT = ("host", "strain")  # a unit whose options are the dopants of a host


def scores(rows: pd.DataFrame, seed: int = 0, groups: pd.Series | None = None) -> dict[str, float]:
    """Errors of predictions.

    Args:
        rows: columns eform, spin, eform_pred, spin_pred (eV, μB), a row a structure; rows with
            an unknown label do not count for it. Models predict the size of a moment, so the
            label's sign is dropped.
        seed: of the bootstrap.
        groups: what was held out together, by uid; every row for itself where it is not given.

    Returns:
        eform_mae with eform_mae_lo and eform_mae_hi (eV), eform_rmse, eform_r2; spin_mae (μB);
        mag_accuracy and mag_f1 of |spin| > `MAGNETIC`. NaN where no label is known.
    """
    energy, moment = rows.dropna(subset=["eform"]), rows.dropna(subset=["spin"])
    errors = (energy.eform_pred - energy.eform).abs()
    low, high = mean_interval(errors, groups, seed)
    magnetic, called = _magnetic(moment)
    return {
        "eform_mae": _score(mean_absolute_error, energy.eform, energy.eform_pred),
        "eform_mae_lo": low,
        "eform_mae_hi": high,
        "eform_rmse": _score(root_mean_squared_error, energy.eform, energy.eform_pred),
        "eform_r2": _score(r2_score, energy.eform, energy.eform_pred, least=2),
        "spin_mae": _score(mean_absolute_error, moment.spin.abs(), moment.spin_pred),
        "mag_accuracy": _score(accuracy_score, magnetic, called),
        "mag_f1": _score(f1_score, magnetic, called, zero_division=0.0),
    }


def confusion(rows: pd.DataFrame) -> pd.DataFrame:
    """Confusion matrix (2, 2) of |spin| > `MAGNETIC`: labels down, predictions across.

    Args:
        rows: columns spin and spin_pred (μB); a row with an unknown label does not count.
    """
    counts = confusion_matrix(*_magnetic(rows.dropna(subset=["spin"])), labels=[False, True])
    names = {"index": pd.Index(CLASSES, name="label"), "columns": pd.Index(CLASSES, name="called")}
    return pd.DataFrame(counts, **names)


def interval(
    values: np.ndarray, statistic: Callable = np.mean, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a statistic of (n,) values."""
    return resampled((np.asarray(values),), statistic, seed)


def group_interval(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (95 %) of the mean of (n,) values, drawn by whole groups.

    Args:
        values: (n,).
        groups: (n,) the name of each value's group.
        seed: of the bootstrap.
    """
    grouped = pd.Series(np.asarray(values)).groupby(np.asarray(groups))
    sums, counts = grouped.sum().to_numpy(), grouped.count().to_numpy()
    return resampled((sums, counts), lambda s, n, axis=-1: s.sum(axis) / n.sum(axis), seed)


def mean_interval(
    values: pd.Series, groups: pd.Series | None = None, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (95 %) of a mean, by rows or by groups.

    Args:
        values: one a row, by uid.
        groups: what was held out together, by uid; every row for itself where it is not given.
        seed: of the bootstrap.
    """
    if groups is None:
        return interval(values.to_numpy(float), seed=seed)
    return group_interval(values.to_numpy(float), groups.loc[values.index].to_numpy(), seed)


def resampled(
    samples: tuple[np.ndarray, ...], statistic: Callable, seed: int = 0, paired: bool = True
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a statistic of arrays.

    Args:
        samples: arrays of (n,), the same n where they are drawn in step.
        statistic: of as many arrays, along its keyword `axis`.
        seed: of the resamples.
        paired: whether the arrays are drawn in step, else each by itself.

    Returns:
        Lower and upper end; NaN where there are fewer than two values.
    """
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        paired=paired and len(samples) > 1,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def compare(
    rows: pd.DataFrame,
    reference: pd.DataFrame,
    groups: pd.Series | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Paired bootstrap of two models on the same rows; below zero `rows` has the smaller error.

    Both models find the same rows easy or hard. The difference of a row's two errors leaves that
    out, so its interval is narrower than those of the two errors side by side.

    Args:
        rows: columns eform and eform_pred (eV), indexed by uid. Several seeds may stand below
            each other; the error of a row is then its mean over them.
        reference: the same columns, of the other model.
        groups: what was held out together, by uid; every row for itself where it is not given.
        seed: of the bootstrap.

    Returns:
        `difference` of the mean absolute errors (eV) with `lo` and `hi`, `better`: the share of
        rows on which `rows` has the smaller error, `n` rows.

    Raises DefectkitError where the two are not about the same rows and labels.
    """
    check_same_rows(rows, reference)
    ours, theirs = (_absolute_errors(table) for table in (rows, reference))
    difference = ours - theirs.loc[ours.index]
    low, high = mean_interval(difference, groups, seed)
    return {
        "difference": float(difference.mean()),
        "lo": low,
        "hi": high,
        "better": float((difference < 0).mean()),
        "n": len(difference),
    }


def common_rows(tables: Mapping[Hashable, pd.DataFrame]) -> dict[Hashable, pd.DataFrame]:
    """The rows that all tables of predictions hold: models are compared on the same rows only.

    Args:
        tables: as `compare` takes them, by name. Not every model can read every structure.

    Raises DefectkitError where no row is in all of them, or their labels differ.
    """
    shared = set.intersection(*(set(table.index) for table in tables.values()))
    if not shared:
        raise DefectkitError(
            f"No row is predicted by all of {', '.join(map(str, tables))}; compare runs of one "
            "split."
        )
    found = {name: table[table.index.isin(shared)] for name, table in tables.items()}
    first = next(iter(found.values()))
    for table in found.values():
        check_same_rows(first, table)
    return found


def _absolute_errors(rows: pd.DataFrame) -> pd.Series:
    """Absolute error of each uid, eV, the mean over seeds."""
    return (rows.eform_pred - rows.eform).abs().dropna().groupby(level=0, sort=False).mean()


def _magnetic(moment: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Whether each row is magnetic, and whether it is called so."""
    return moment.spin.abs() > MAGNETIC, moment.spin_pred.abs() > MAGNETIC


def _score(
    metric: Callable, label: pd.Series, predicted: pd.Series, least: int = 1, **options: float
) -> float:
    """A metric of scikit-learn; NaN for fewer than `least` rows."""
    return float(metric(label, predicted, **options)) if len(label) >= least else float("nan")


def choices(
    rows: pd.DataFrame, unit: Sequence[str] = SITE, option: str | None = None
) -> pd.DataFrame:
    """What the model chooses in every unit that leaves a choice.

    Args:
        rows: columns eform and eform_pred (eV), those of `unit` and `option`; a row a structure.
            Rows without a label or a dopant are left out.
        unit: columns; rows that agree in all of them compete.
        option: column that names an option, such as "dopant": its energy is that of its best
            row, by label for the truth and by prediction for the choice. Every row for itself
            where it is not given.

    Returns:
        A row a unit, indexed by `unit`: `options`, how many; `chosen`, `best`, the option's name
        (the uid where `option` is not given); `regret` (eV); `chance` (eV), the regret of a
        choice at random; `rank` of the first of the best options in the model's order, 1 for a
        right choice; `ties`, how many options lie within `SAME_ENERGY` of the best.

    Raises DefectkitError where no unit has two options.
    """
    usable = rows.dropna(subset=["eform", "eform_pred"])
    usable = usable[usable.dopant != ""]
    keys = [*unit, option] if option else [*unit, usable.index.name or "uid"]
    usable = usable.rename_axis(usable.index.name or "uid").reset_index()
    energies = usable.groupby(keys, observed=True)[["eform", "eform_pred"]].min()
    table = {
        name: _choice(group.droplevel(list(unit)))
        for name, group in energies.groupby(list(unit), observed=True)
        if len(group) > 1
    }
    if not table:
        raise DefectkitError(
            f"No two of these {len(rows)} rows share {', '.join(unit)}, so there is nothing to "
            "choose; take more rows."
        )
    return pd.DataFrame(table).T.rename_axis(list(unit)).infer_objects()


def _choice(energies: pd.DataFrame) -> dict:
    """The row of one unit; `energies`: columns eform, eform_pred (eV), indexed by option."""
    lowest = energies.eform.min()
    order = energies.eform_pred.sort_values(kind="stable").index
    tied = energies.eform <= lowest + SAME_ENERGY
    return {
        "options": len(energies),
        "chosen": order[0],
        "best": energies.eform.idxmin(),
        "regret": energies.eform[order[0]] - lowest,
        "chance": energies.eform.mean() - lowest,
        "rank": int(np.argmax(tied[order])) + 1,
        "ties": int(tied.sum()),
    }


def regret(table: pd.DataFrame, groups: pd.Series | None = None, seed: int = 0) -> dict[str, float]:
    """Mean regret over units with its interval, beside that of choosing at random.

    Args:
        table: of `choices`.
        groups: what was held out together, a value a unit; every unit for itself where it is
            not given.
        seed: of the bootstrap.

    Returns:
        `regret`, `lo`, `hi`, `chance` (eV); `right`, the share of units with a right choice;
        `units`.
    """
    low, high = mean_interval(table.regret, groups, seed)
    return {
        "regret": float(table.regret.mean()),
        "lo": low,
        "hi": high,
        "chance": float(table.chance.mean()),
        "right": float((table["rank"] == 1).mean()),
        "units": len(table),
    }


def top_k(
    table: pd.DataFrame,
    ks: Sequence[int] = (1, 2, 3, 5),
    groups: pd.Series | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of units whose best option is among the k that the model puts first.

    Only units with more than k options count: among the rest nothing can be missed. Options
    within `SAME_ENERGY` of the best are as good as it.

    Args:
        table: of `choices`.
        ks: numbers of options that one would compute or try.
        groups: as in `regret`.
        seed: of the bootstrap.

    Returns:
        By `k`: `units` that count, `recall` with `lo` and `hi`, `chance`, the recall of an order
        at random.
    """
    rows = {}
    for k in ks:
        eligible = table[table.options > k]
        found = (eligible["rank"] <= k).astype(float)
        low, high = mean_interval(found, groups, seed)
        random = hypergeom.sf(0, eligible.options.astype(int), eligible.ties.astype(int), k)
        rows[k] = {
            "units": len(eligible),
            "recall": found.mean(),
            "lo": low,
            "hi": high,
            "chance": float(random.mean()) if len(eligible) else np.nan,
        }
    return pd.DataFrame(rows).T.rename_axis("k").astype({"units": int})
