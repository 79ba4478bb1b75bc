"""How sure a prediction is: the spread of a seed ensemble, and intervals that cover what they say.

A conformal interval is prediction ± factor x scale. The factor is a quantile of |error| / scale on
calibration rows; for new rows that are drawn like those, the interval then covers the label at
least as often as it says, whatever the model (Lei et al., J. Am. Stat. Assoc. 113, 1094, 2018).
The promise ends where rows are not drawn alike, such as on unseen hosts. Validation rows, which
chose the epoch, are a little easier than new ones: the calibration part of a split is cleaner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, rankdata

from defectkit import DefectkitError
from defectkit.evaluate import check_same_rows, group_interval, resampled

NO_SPREAD = 1e-4  # eV: predictions are stored with five decimals
LEVELS = (0.8, 0.9, 0.95)
METHODS = {"absolute": False, "normalised": True}


def ensemble(members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Several predictions of the same rows as one.

    Args:
        members: tables of `Run.part`, one a seed: eform, spin, eform_pred, spin_pred (eV, μB).

    Returns:
        The same columns, predictions being means, with `eform_sigma` (eV) and `spin_sigma` (μB),
        the standard deviations over members (n - 1).

    Raises DefectkitError for fewer than two members or members about different rows.
    """
    if len(members) < 2:
        raise DefectkitError("An ensemble needs two runs at least; give further seeds.")
    first = members[0]
    for other in members[1:]:
        check_same_rows(first, other)
    table = first.copy()
    for target in ("eform", "spin"):
        name = f"{target}_pred"
        table[name], table[f"{target}_sigma"] = mean_and_sigma(members, name)
    return table


def mean_and_sigma(members: Sequence[pd.DataFrame], column: str) -> tuple[pd.Series, pd.Series]:
    """Of a column over tables of the same rows, by uid; sigma with n - 1."""
    values = pd.concat([member[column] for member in members], axis=1, join="inner")
    values = values.loc[members[0].index]
    return values.mean(axis=1), values.std(axis=1, ddof=1)


@dataclass(frozen=True)
class Conformal:
    """Split-conformal intervals of the formation energy.

    Attributes:
        sizes: (n,) sorted |error| / scale of the calibration rows.
        floor: eV, added to sigma; None where the scale is 1 eV for all rows.
    """

    sizes: np.ndarray
    floor: float | None

    @classmethod
    def fit(cls, rows: pd.DataFrame, normalised: bool = False) -> "Conformal":
        """Calibrate.

        Args:
            rows: columns eform, eform_pred and, where `normalised`, eform_sigma (eV). Rows that
                were not trained on; those without a label do not count.
            normalised: whether intervals are wider where the ensemble spreads. The scale is
                sigma plus its median: few members often agree by chance, which is no certainty.

        Raises DefectkitError without labelled rows, or where nothing spreads.
        """
        known = rows.dropna(subset=["eform"])
        if known.empty:
            raise DefectkitError("There is no labelled row to calibrate intervals on.")
        floor = float(known.eform_sigma.median()) if normalised else None
        if normalised and not floor > NO_SPREAD:
            raise DefectkitError(
                "The members of the ensemble agree exactly; use absolute intervals."
            )
        errors = (known.eform_pred - known.eform).abs()
        return cls(np.sort((errors / _scale(known, floor)).to_numpy()), floor)

    def factor(self, confidence: float) -> float:
        """The quantile that covers new rows with this confidence; infinite with too few rows.

        DefectkitError unless the confidence lies between 0 and 1, both excluded.
        """
        if not 0 < confidence < 1:
            raise DefectkitError(
                f"confidence is {confidence}; it must lie between 0 and 1, such as 0.9."
            )
        n = len(self.sizes)
        rank = int(np.ceil(np.round((n + 1) * confidence, 9)))
        return float(self.sizes[rank - 1]) if rank <= n else np.inf

    def half_width(self, rows: pd.DataFrame, confidence: float = 0.9) -> pd.Series:
        """eV, to both sides of every prediction."""
        return (self.factor(confidence) * _scale(rows, self.floor)).rename("half_width")


def _scale(rows: pd.DataFrame, floor: float | None) -> pd.Series:
    return pd.Series(1.0, rows.index) if floor is None else rows.eform_sigma + floor


def coverage(
    calibration: pd.DataFrame,
    rows: pd.DataFrame,
    levels: Sequence[float] = LEVELS,
    groups: pd.Series | None = None,
) -> pd.DataFrame:
    """How often intervals cover the label, and how wide they are.

    Args:
        calibration: of `ensemble`, rows that were not trained on; or of a single run, which has
            absolute intervals alone.
        rows: likewise, those to judge; other ones, else DefectkitError.
        levels: confidences.
        groups: what was held out together, by uid; every row for itself where it is not given.

    Returns:
        A row a `method` (of `METHODS`) and `level`: `coverage` with its interval (95 %) `lo` to
        `hi`, Wilson's or a bootstrap over groups; mean and median full width, `width_mean` and
        `width_median` (eV).
    """
    known = _judged(calibration, rows)
    errors = (known.eform_pred - known.eform).abs()
    table = []
    for method in _methods(calibration):
        fitted = Conformal.fit(calibration, METHODS[method])
        for level in levels:
            half = fitted.half_width(known, level)
            covered = errors <= half
            low, high = _share_interval(covered, groups)
            table.append(
                {
                    "method": method,
                    "level": level,
                    "coverage": covered.mean(),
                    "lo": low,
                    "hi": high,
                    "width_mean": 2 * half.mean(),
                    "width_median": 2 * half.median(),
                }
            )
    return pd.DataFrame(table)


def _share_interval(covered: pd.Series, groups: pd.Series | None) -> tuple[float, float]:
    if groups is not None:
        return group_interval(covered.to_numpy(float), groups.loc[covered.index].to_numpy())
    ends = binomtest(int(covered.sum()), len(covered)).proportion_ci(method="wilson")
    return ends.low, ends.high


def coverage_by(
    calibration: pd.DataFrame,
    rows: pd.DataFrame,
    label: pd.Series,
    level: float = 0.9,
    method: str = "absolute",
) -> pd.DataFrame:
    """Coverage by a label, the worst first: the promise holds for all rows together only.

    Args:
        calibration: as in `coverage`.
        rows: as in `coverage`.
        label: of every row.
        level: confidence.
        method: of `METHODS`.

    Returns:
        By label: `n` rows, `coverage`, mean full `width` (eV).
    """
    known = _judged(calibration, rows)
    half = Conformal.fit(calibration, METHODS[method]).half_width(known, level)
    covered = (known.eform_pred - known.eform).abs() <= half
    table = pd.DataFrame({"covered": covered, "width": 2 * half}).groupby(
        label.loc[known.index], observed=True
    )
    found = table.agg(n=("covered", "size"), coverage=("covered", "mean"), width=("width", "mean"))
    return found.sort_values("coverage")


def reliability(
    calibration: pd.DataFrame, rows: pd.DataFrame, levels: Sequence[float] | None = None
) -> pd.DataFrame:
    """Observed coverage of every confidence, by method; also that of prediction ± z sigma.

    The last, `gaussian`, takes the spread of the seeds for the error's standard deviation.

    Args:
        calibration: as in `coverage`.
        rows: as in `coverage`.
        levels: confidences, 5 to 95 % by default.

    Returns:
        Columns of the methods, indexed by `level`.
    """
    levels = np.round(np.arange(0.05, 1.0, 0.05), 2) if levels is None else levels
    known = _judged(calibration, rows)
    errors = (known.eform_pred - known.eform).abs()
    table = {}
    for method in _methods(calibration):
        fitted = Conformal.fit(calibration, METHODS[method])
        table[method] = [(errors <= fitted.half_width(known, c)).mean() for c in levels]
    if "eform_sigma" in known:
        table["gaussian"] = [
            (errors <= norm.ppf((1 + c) / 2) * known.eform_sigma).mean() for c in levels
        ]
    return pd.DataFrame(table, pd.Index(levels, name="level"))


def ranking(rows: pd.DataFrame, by: str = "eform_sigma", seed: int = 0) -> dict[str, float]:
    """Whether a number ranks the errors: Spearman's rank correlation with |error|.

    Args:
        rows: columns eform, eform_pred (eV) and `by`.
        by: the number, such as the ensemble's spread.
        seed: of the bootstrap.

    Returns:
        `spearman` with its interval `lo` to `hi`; NaN where the number does not vary.
    """
    known = rows.dropna(subset=["eform", by])
    if np.ptp(known[by]) < NO_SPREAD:
        return dict.fromkeys(("spearman", "lo", "hi"), np.nan)
    number, error = known[by].to_numpy(), (known.eform_pred - known.eform).abs().to_numpy()

    def rank_correlation(x, y, axis=-1):
        x, y = (rankdata(values, axis=axis) for values in (x, y))
        x, y = (ranks - ranks.mean(axis=axis, keepdims=True) for ranks in (x, y))
        with np.errstate(invalid="ignore"):  # few rows: a draw of one row alone
            return (x * y).sum(axis) / np.sqrt((x * x).sum(axis) * (y * y).sum(axis))

    low, high = resampled((number, error), rank_correlation, seed)
    return {"spearman": float(rank_correlation(number, error)), "lo": low, "hi": high}


def _judged(calibration: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Labelled rows that intervals can be judged on: none of those that set their widths."""
    both = rows.index.intersection(calibration.index)
    if len(both):
        raise DefectkitError(
            f"{len(both)} rows, such as {both[0]}, are to calibrate intervals and to judge them; "
            "judge them on other rows."
        )
    return rows.dropna(subset=["eform"])


def _methods(calibration: pd.DataFrame) -> list[str]:
    """Those that the columns allow."""
    spreads = "eform_sigma" in calibration and calibration.eform_sigma.median() > NO_SPREAD
    return [name for name, normalised in METHODS.items() if spreads or not normalised]
