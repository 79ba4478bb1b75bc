"""How sure a prediction is: spread of an ensemble, intervals, and the chance of a moment.

A conformal interval is prediction ± factor x scale. The factor is a quantile of |error| / scale on
calibration rows; for new rows that are drawn like those, the interval then covers the label at
least as often as it says, whatever the model (Lei et al., J. Am. Stat. Assoc. 113, 1094, 2018).
The promise ends where rows are not drawn alike, such as on unseen hosts. Validation rows, which
chose the epoch, are a little easier than new ones: the calibration part of a split is cleaner.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LinearRegression, LogisticRegression

from defectkit import DefectkitError

MAGNETIC = 0.5  # μB: a defect with a larger moment is called magnetic
LEAST_OF_KIND = 30  # calibration rows, below which a kind has no interval of its own
LEAST = 20  # calibration rows of either kind, below which no chance is told
SMALL = 0.01  # μB, below which moments are all alike
SMALL_ERROR, SMALL_SPREAD = 0.02, 0.01  # eV, below which errors and spreads are all alike
NO_DISTANCE = 0.05  # in units of `domain.Nearness`: a row and its copy in half precision are nearer
ROUNDING = 1e-4  # eV: predictions are stored with five decimals


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


def check_same_rows(rows: pd.DataFrame, other: pd.DataFrame) -> None:
    """DefectkitError where two tables of predictions are not of the same rows and labels."""
    ours, theirs = (table.eform[~table.index.duplicated()] for table in (rows, other))
    if set(ours.index) != set(theirs.index):
        apart = len(set(ours.index) ^ set(theirs.index))
        raise DefectkitError(
            f"{apart} rows are predicted by one of the two models only; compare runs of one split."
        )
    gap = (ours - theirs.loc[ours.index]).abs()
    if gap.max() > ROUNDING or (ours.isna() != theirs.loc[ours.index].isna()).any():
        raise DefectkitError(
            f"The labels of {gap.fillna(np.inf).idxmax()} differ between the two models; compare "
            "runs on the same data."
        )


@dataclass(frozen=True)
class Expected:
    """The size of error that is usual where the signs of a row are what they are.

    ln(|error| + `SMALL_ERROR`) = constant + slope prediction + sum_k weight_k ln(sign_k), by least
    squares on rows that were not trained on. Signs are first the spread of the ensemble (eV), then
    the distances to the training rows, `SMALL_SPREAD` and `NO_DISTANCE` at least. The prediction
    comes in because what is not relaxed and is given a high energy has far to fall, and often falls
    elsewhere.

    Attributes:
        constant, slope, weights: of the equation, with energies in eV.
    """

    constant: float
    slope: float
    weights: tuple[float, ...]

    @classmethod
    def fit(cls, errors: pd.Series, prediction: pd.Series, signs: pd.DataFrame) -> "Expected":
        """Of rows by uid: errors, where they are known, and predictions (eV), and their signs."""
        known = errors.notna()
        model = LinearRegression().fit(
            np.column_stack([prediction, _logarithms(signs)])[known],
            np.log(errors[known].abs() + SMALL_ERROR),
        )
        slope, *weights = map(float, model.coef_)
        return cls(float(model.intercept_), slope, tuple(weights))

    def __call__(self, prediction: pd.Series, signs: pd.DataFrame) -> pd.Series:
        """eV, by uid."""
        exponent = self.slope * prediction + _logarithms(signs) @ np.array(self.weights)
        return np.exp(self.constant + exponent).rename("expected")


def _logarithms(signs: pd.DataFrame) -> np.ndarray:
    least = np.array([SMALL_SPREAD] + [NO_DISTANCE] * (signs.shape[1] - 1))
    return np.log(np.maximum(signs.to_numpy(float), least))


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
            normalised: whether intervals are wider where more error is to be expected. The scale
                is the column `expected` (eV, of `Expected`); where there is none, sigma plus its
                median: few members often agree by chance, which is no certainty.

        Raises DefectkitError without labelled rows, or where nothing spreads.
        """
        known = rows.dropna(subset=["eform"])
        if known.empty:
            raise DefectkitError("There is no labelled row to calibrate intervals on.")
        floor = float(known.eform_sigma.median()) if normalised else None
        if normalised and not floor > ROUNDING:
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


@dataclass(frozen=True)
class ByKind:
    """Normalised conformal intervals that keep their promise within each kind of rows.

    All calibration rows together promise a share of all new rows, and may miss most of a difficult
    kind. Calibrated kind by kind they promise it for each (Mondrian intervals; Vovk, Gammerman and
    Shafer, Algorithmic Learning in a Random World, 2005). A kind is told by several columns, the
    coarsest first; rows of a kind with too few calibration rows have the interval of the finest
    kind around it with enough of them.

    Attributes:
        parts: by the values of the first columns, () for all rows.
    """

    parts: Mapping[tuple, Conformal]

    @classmethod
    def fit(cls, rows: pd.DataFrame, kinds: pd.DataFrame) -> "ByKind":
        """Calibrate.

        Args:
            rows: as of `Conformal.fit`.
            kinds: columns that tell the kind of each row, the coarsest first, of whole numbers.
        """
        rows = rows.assign(**kinds).dropna(subset=["eform"])
        parts = {(): Conformal.fit(rows, normalised=True)}
        for key, some in _by_kind(rows, list(kinds)):
            if len(some) >= LEAST_OF_KIND:
                with suppress(DefectkitError):  # its members agree: it has no spread of its own
                    parts[key] = Conformal.fit(some, normalised=True)
        return cls(parts)

    def factor(self, confidence: float) -> float:
        """That of all rows; DefectkitError for a confidence that is none."""
        return self.parts[()].factor(confidence)

    def half_width(
        self, rows: pd.DataFrame, kinds: pd.DataFrame, confidence: float = 0.9
    ) -> pd.Series:
        """eV, to both sides of every prediction; rows and kinds as of `fit`, without labels."""
        half = self.parts[()].half_width(rows, confidence)
        for key, some in _by_kind(rows.assign(**kinds), list(kinds)):
            part = self.parts.get(key)
            if part is not None and np.isfinite(part.factor(confidence)):
                half[some.index] = part.half_width(some, confidence)
        return half


def _by_kind(rows: pd.DataFrame, columns: list[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The kinds that rows are of, coarse ones first, with their rows."""
    for depth in range(1, len(columns) + 1):
        yield from rows.astype(dict.fromkeys(columns, int)).groupby(columns[:depth])


@dataclass(frozen=True)
class Magnetism:
    """The chance that a defect is magnetic, |spin| > `MAGNETIC`, from the moments of an ensemble.

    logit p = constant + moment ln(spin + `SMALL`) + spread ln(spin_sigma + `SMALL`), with means and
    standard deviations of the members: Platt's scaling (Adv. Large Margin Classifiers, 61, 1999)
    with a second feature, as networks that learn an absolute error lean to no moment where they
    doubt, and disagree there. Moments and their spread in μB.
    """

    constant: float
    moment: float
    spread: float

    @classmethod
    def fit(cls, rows: pd.DataFrame) -> "Magnetism | None":
        """Calibrate; None with fewer than `LEAST` rows of a kind.

        Args:
            rows: columns spin, spin_pred and spin_sigma (μB), as of `ensemble`. Rows that were not
                trained on; those without a label do not count.
        """
        known = rows.dropna(subset=["spin"])
        magnetic = known.spin.abs() > MAGNETIC
        if min(magnetic.sum(), (~magnetic).sum()) < LEAST:
            return None
        model = LogisticRegression(C=10.0).fit(
            _moments(known.spin_pred, known.spin_sigma), magnetic
        )
        return cls(*map(float, (model.intercept_[0], *model.coef_[0])))

    def chance(self, spin: pd.Series, sigma: pd.Series) -> pd.Series:
        """The probability of each row, from mean and spread of the members' moments (μB)."""
        logit = self.constant + _moments(spin, sigma) @ np.array([self.moment, self.spread])
        return pd.Series(expit(logit), spin.index)


def _moments(spin: pd.Series, sigma: pd.Series) -> np.ndarray:
    """(n, 2) what `Magnetism` goes by."""
    return np.log(np.column_stack([spin.abs(), sigma]) + SMALL)


def _scale(rows: pd.DataFrame, floor: float | None) -> pd.Series:
    if floor is None:
        return pd.Series(1.0, rows.index)
    return rows.expected if "expected" in rows else rows.eform_sigma + floor
