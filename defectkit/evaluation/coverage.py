"""Whether intervals cover what they say, and whether spread and guard find the bad predictions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, rankdata

from defectkit import DefectkitError
from defectkit.evaluation.metrics import group_interval, mean_interval, resampled
from defectkit.predict.domain import VERDICTS
from defectkit.predict.intervals import ROUNDING, Conformal

LEVELS = (0.8, 0.9, 0.95)
METHODS = {"absolute": False, "normalised": True}


def coverage(
    calibration: pd.DataFrame,
    rows: pd.DataFrame,
    levels: Sequence[float] = LEVELS,
    groups: pd.Series | None = None,
) -> pd.DataFrame:
    """How often intervals cover the label, and how wide they are.

    Args:
        calibration: table of `intervals.ensemble` over rows that were not trained on; or of a
            single run, which has absolute intervals only.
        rows: the same columns, rows to judge; DefectkitError where one of them calibrates.
        levels: confidences.
        groups: what was held out together, by uid; every row for itself where it is not given.

    Returns:
        A row a `method` (of `METHODS`) and `level`: `coverage` with its interval (95 %) `lo` to
        `hi`, Wilson's or a bootstrap over groups; mean and median full width, `width_mean` and
        `width_median` (eV).
    """
    judged = _judged(calibration, rows)
    errors = (judged.eform_pred - judged.eform).abs()
    table = []
    for method in _methods(calibration):
        fitted = Conformal.fit(calibration, METHODS[method])
        for level in levels:
            half = fitted.half_width(judged, level)
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
    """Coverage by a label, the lowest first: conformal intervals promise it for all rows together.

    Args:
        calibration: as in `coverage`.
        rows: as in `coverage`.
        label: of every row.
        level: confidence.
        method: of `METHODS`.

    Returns:
        By label: `n` rows, `coverage`, mean full `width` (eV).
    """
    judged = _judged(calibration, rows)
    half = Conformal.fit(calibration, METHODS[method]).half_width(judged, level)
    covered = (judged.eform_pred - judged.eform).abs() <= half
    table = pd.DataFrame({"covered": covered, "width": 2 * half}).groupby(
        label.loc[judged.index], observed=True
    )
    found = table.agg(n=("covered", "size"), coverage=("covered", "mean"), width=("width", "mean"))
    return found.sort_values("coverage")


def reliability(
    calibration: pd.DataFrame, rows: pd.DataFrame, levels: Sequence[float] | None = None
) -> pd.DataFrame:
    """Observed coverage of every confidence, by method; also of the prediction ± z sigma.

    That method, `gaussian`, takes the spread of the seeds for the error's standard deviation.

    Args:
        calibration: as in `coverage`.
        rows: as in `coverage`.
        levels: confidences, 5 to 95 % by default.

    Returns:
        Columns of the methods, indexed by `level`.
    """
    levels = np.round(np.arange(0.05, 1.0, 0.05), 2) if levels is None else levels
    judged = _judged(calibration, rows)
    errors = (judged.eform_pred - judged.eform).abs()
    table = {}
    for method in _methods(calibration):
        fitted = Conformal.fit(calibration, METHODS[method])
        table[method] = [(errors <= fitted.half_width(judged, c)).mean() for c in levels]
    if "eform_sigma" in judged:
        table["gaussian"] = [
            (errors <= norm.ppf((1 + c) / 2) * judged.eform_sigma).mean() for c in levels
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
    labelled = rows.dropna(subset=["eform", by])
    if np.ptp(labelled[by]) < ROUNDING:
        return dict.fromkeys(("spearman", "lo", "hi"), np.nan)
    number = labelled[by].to_numpy()
    error = (labelled.eform_pred - labelled.eform).abs().to_numpy()

    def rank_correlation(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        x, y = (rankdata(values, axis=axis) for values in (x, y))
        x, y = (ranks - ranks.mean(axis=axis, keepdims=True) for ranks in (x, y))
        with np.errstate(invalid="ignore"):  # few rows: a resample of one row only
            return (x * y).sum(axis) / np.sqrt((x * x).sum(axis) * (y * y).sum(axis))

    low, high = resampled((number, error), rank_correlation, seed)
    return {"spearman": float(rank_correlation(number, error)), "lo": low, "hi": high}


def guard_table(
    verdicts: pd.Series, errors: pd.Series, groups: pd.Series | None = None, seed: int = 0
) -> pd.DataFrame:
    """Errors by verdict, in the order of `VERDICTS`.

    Args:
        verdicts: by uid.
        errors: eV, with or without sign, by uid.
        groups: what was held out together, by uid; every row for itself where it is not given.
        seed: of the bootstrap.

    Returns:
        By verdict: `n` rows, `mae` with `mae_lo` to `mae_hi`, and the share of all errors above
        their 95 % quantile, `caught`, that carry this verdict.
    """
    sizes = errors.abs()
    large = sizes > sizes.quantile(0.95)
    rows = {}
    for verdict in VERDICTS:
        chosen = verdicts.loc[sizes.index] == verdict
        low, high = mean_interval(sizes[chosen], groups, seed)
        rows[verdict] = {
            "n": int(chosen.sum()),
            "mae": sizes[chosen].mean(),
            "mae_lo": low,
            "mae_hi": high,
            "caught": (chosen & large).sum() / max(large.sum(), 1),
        }
    return pd.DataFrame(rows).T.astype({"n": int}).rename_axis("verdict")


def _judged(calibration: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The labelled rows; DefectkitError where some of them set the widths of the intervals."""
    both = rows.index.intersection(calibration.index)
    if len(both):
        raise DefectkitError(
            f"{len(both)} rows, such as {both[0]}, are to calibrate intervals and to judge them; "
            "judge them on other rows."
        )
    return rows.dropna(subset=["eform"])


def _methods(calibration: pd.DataFrame) -> list[str]:
    """The methods of `METHODS` that the columns allow."""
    spreads = "eform_sigma" in calibration and calibration.eform_sigma.median() > ROUNDING
    return [name for name, normalised in METHODS.items() if spreads or not normalised]
