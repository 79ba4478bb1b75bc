"""How good predictions are: the figures that every table and report of the kit shows."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

MAGNETIC = 0.5  # μB: a defect with a larger moment is called magnetic
RESAMPLES = 2000
CONFIDENCE = 0.95


def scores(rows: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Errors of predictions.

    Args:
        rows: columns eform, spin, eform_pred, spin_pred (eV, μB), a row a structure; rows with
            an unknown label do not count for it.
        seed: of the bootstrap.

    Returns:
        eform_mae with eform_mae_lo and eform_mae_hi (eV), eform_rmse, eform_r2; spin_mae (μB);
        mag_accuracy and mag_f1 of |spin| > `MAGNETIC`.
    """
    energy, moment = rows.dropna(subset=["eform"]), rows.dropna(subset=["spin"])
    low, high = interval((energy.eform_pred - energy.eform).abs().to_numpy(), seed=seed)
    magnetic, called = moment.spin.abs() > MAGNETIC, moment.spin_pred.abs() > MAGNETIC
    return {
        "eform_mae": float(mean_absolute_error(energy.eform, energy.eform_pred)),
        "eform_mae_lo": low,
        "eform_mae_hi": high,
        "eform_rmse": float(root_mean_squared_error(energy.eform, energy.eform_pred)),
        "eform_r2": float(r2_score(energy.eform, energy.eform_pred)),
        "spin_mae": float(mean_absolute_error(moment.spin, moment.spin_pred)),
        "mag_accuracy": float(accuracy_score(magnetic, called)),
        "mag_f1": float(f1_score(magnetic, called, zero_division=0.0)),
    }


def interval(
    values: np.ndarray, statistic: Callable = np.mean, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a statistic of (n,) values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    result = bootstrap(
        (values,),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
