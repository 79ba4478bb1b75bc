"""Where the errors are: by any label of the rows, by ranges of a number, along the cell's size."""

import numpy as np
import pandas as pd
from scipy.stats import linregress

from defectkit.evaluation.metrics import mean_interval, resampled

DESCRIPTIONS = ["name", "host", "dopant", "removed", "defecttype", "site", "strain", "natoms"]
RANGES = 5
SUMMARY = ["n", "mae", "mae_lo", "mae_hi", "bias", "worst"]


def described(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Predictions with their signed `error` (eV) and what `frame` says about each row.

    Args:
        rows: columns eform and eform_pred (eV), indexed by uid.
        frame: of `Dataset.frame`, these rows at least.

    Returns:
        `rows` with the columns `error`, those of `DESCRIPTIONS`, `pair` (host and dopant), and
        `energy`, the range of the formation energy. Rows without a label are left out.
    """
    labelled = rows.dropna(subset=["eform"])
    table = labelled.join(frame.loc[labelled.index, DESCRIPTIONS])
    return table.assign(
        error=table.eform_pred - table.eform,
        pair=table.host + " + " + table.dopant.where(table.dopant != "", "nothing"),
        energy=ranges(table.eform, "eV"),
    )


def ranges(values: pd.Series, unit: str, n: int = RANGES) -> pd.Series:
    """The range that each value lies in, ordered and named as in "1.2 to 3.4 eV".

    There are `n` ranges with equally many rows each, fewer where values repeat; up to `n` different
    values are their own ranges.
    """
    few = values.nunique() <= n
    bins = values.astype("category") if few else pd.qcut(values, n, duplicates="drop")
    ends = values.groupby(bins, observed=True).agg(["min", "max"])
    digits = ".1f" if (values % 1).any() else ".0f"
    names = {
        one: f"{low:{digits}} to {high:{digits}} {unit}" if low < high else f"{low:{digits}} {unit}"
        for one, low, high in ends.itertuples()
    }
    named = pd.Categorical(bins.map(names), list(dict.fromkeys(names.values())), ordered=True)
    return pd.Series(named, values.index, name=values.name)


def errors_by(
    errors: pd.Series, label: pd.Series, groups: pd.Series | None = None, seed: int = 0
) -> pd.DataFrame:
    """Errors by a label, the largest first, or in the order of an ordered label.

    Args:
        errors: signed, eV, a row a structure.
        label: of each row.
        groups: what was held out together, by uid; every row for itself where it is not given.
        seed: of the bootstrap.

    Returns:
        Indexed by label: `n` rows, `mae` with its interval `mae_lo` to `mae_hi`, `bias` (the mean
        of the signed error), `worst` (the largest absolute error), all in eV.
    """
    found = {
        name: _summary(group, groups, seed) for name, group in errors.groupby(label, observed=True)
    }
    table = pd.DataFrame(found, index=SUMMARY).T.astype({"n": int})
    table.index.name = label.name
    ordered = isinstance(label.dtype, pd.CategoricalDtype) and label.dtype.ordered
    return table if ordered else table.sort_values("mae", ascending=False)


def _summary(errors: pd.Series, groups: pd.Series | None, seed: int) -> dict[str, float]:
    sizes = errors.abs()
    low, high = mean_interval(sizes, groups, seed)
    return {
        "n": len(sizes),
        "mae": sizes.mean(),
        "mae_lo": low,
        "mae_hi": high,
        "bias": errors.mean(),
        "worst": sizes.max(),
    }


def size_slope(
    errors: pd.Series, natoms: pd.Series, groups: pd.Series | None = None, seed: int = 0
) -> dict[str, float]:
    """Slope of the signed error against the number of atoms: is the target extensive?

    A formation energy is local: the same defect in a larger cell has the same energy. A model
    that sums over atoms errs more the more atoms there are, and its slope is not zero. In most
    data the number of atoms depends on the host, so rows of one host must be drawn together.

    Args:
        errors: signed, eV.
        natoms: number of atoms of each row.
        groups: of the bootstrap, such as the host; every row for itself where it is not given.
        seed: of the bootstrap.

    Returns:
        `slope` with `lo` and `hi` (eV per atom), `intercept` (eV), `n` rows; NaN where all rows
        have equally many atoms.
    """
    if natoms.nunique() < 2:
        return {**dict.fromkeys(("slope", "lo", "hi", "intercept"), np.nan), "n": len(errors)}
    fit = linregress(natoms, errors)
    x, y = (natoms - natoms.mean()).to_numpy(float), errors.to_numpy()
    sums = pd.DataFrame({"n": 1.0, "x": x, "y": y, "xx": x * x, "xy": x * y})
    if groups is not None:
        sums = sums.groupby(groups.to_numpy()).sum()

    def slope(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        n, x, y, xx, xy = (part.sum(axis) for part in parts)
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one size only
            return (n * xy - x * y) / (n * xx - x * x)

    low, high = resampled(tuple(sums.to_numpy().T), slope, seed)
    found = {"slope": fit.slope, "lo": low, "hi": high, "intercept": fit.intercept}
    return {**{name: float(value) for name, value in found.items()}, "n": len(errors)}
