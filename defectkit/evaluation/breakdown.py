"""Where errors are large, and why: errors by a label, and rules on the data with their sentences.

A reason is a guess. `rule_errors` says how much larger the errors are where a rule applies: a rule
that applies to good and bad predictions alike explains nothing, however well its sentence reads.
"""

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import linregress

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.evaluation.metrics import MAGNETIC, mean_interval, resampled
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord

RARE = 0.5  # of the median: fewer training rows make a host or dopant rare
USUAL = 0.95  # share of the training rows that is called usual
APART = 1.0  # eV outside the energies of the same host and dopant
NO_REASON = "no rule applies"
DESCRIPTIONS = ["name", "host", "dopant", "removed", "defecttype", "site", "strain", "natoms"]
RANGES = 5
SUMMARY = ["n", "mae", "mae_lo", "mae_hi", "bias", "worst"]


class Training:
    """What the training rows say about what is usual.

    Args:
        dataset: with these rows.
        uids: of the training rows.
    """

    def __init__(self, dataset: Dataset, uids: Iterable[str]) -> None:
        self.dataset = dataset
        self.frame = dataset.frame.loc[list(uids)]
        self.counts = {column: self.frame[column].value_counts() for column in ("host", "dopant")}
        self.pairs = {pair: rows.eform for pair, rows in self.frame.groupby(["host", "dopant"])}

    @cached_property
    def energies(self) -> tuple[float, float]:
        """eV, between which the usual formation energies lie."""
        tail = (1 - USUAL) / 2
        return tuple(self.frame.eform.quantile([tail, 1 - tail]))

    @cached_property
    def relaxation(self) -> float:
        """Å that the farthest atom moves at most in usual relaxations; infinite if not known."""
        moved = [relaxation(self.dataset[uid]) for uid in self.frame.index]
        return float(np.nanquantile(moved, USUAL)) if np.isfinite(moved).any() else np.inf

    @cached_property
    def magnetic(self) -> float:
        """Share of magnetic rows."""
        return float((self.frame.spin.abs() > MAGNETIC).mean())


def relaxation(record: DefectRecord) -> float:
    """How far the farthest atom moved in the relaxation, Å; NaN without the starting structure.

    A shift of the whole layer, the median displacement, does not count.
    """
    if record.unrelaxed is None:
        return np.nan
    moved = record.displacements()
    return float(np.linalg.norm(moved - np.median(moved, axis=0), axis=1).max())


def _rare(column: str) -> Callable[[DefectRecord, Training], str]:
    def rule(record: DefectRecord, training: Training) -> str:
        name = getattr(record, column)
        counts = training.counts[column]
        n, middle = int(counts.get(name, 0)), counts.median()
        if not name or n >= RARE * middle:
            return ""
        return f"{name} is a rare {column}: {n} training rows, where others have {middle:.0f}"

    return rule


def _unseen_pair(record: DefectRecord, training: Training) -> str:
    if (record.host, record.dopant) in training.pairs or not record.dopant:
        return ""
    return f"no training row has {record.dopant} in {record.host}"


def _extreme_energy(record: DefectRecord, training: Training) -> str:
    low, high = training.energies
    if low <= record.eform <= high or np.isnan(record.eform):
        return ""
    return (
        f"{record.eform:.1f} eV is extreme: {USUAL:.0%} of the training rows lie between "
        f"{low:.1f} and {high:.1f} eV"
    )


def _unlike_its_pair(record: DefectRecord, training: Training) -> str:
    others = training.pairs.get((record.host, record.dopant))
    if others is None or not (
        record.eform < others.min() - APART or record.eform > others.max() + APART
    ):
        return ""
    lie = f"lie between {others.min():.1f} and {others.max():.1f}"
    if len(others) == 1:
        lie = f"lies at {others.min():.1f}"
    what = f"{record.dopant} in {record.host}" if record.dopant else f"vacancies in {record.host}"
    rows = "row" if len(others) == 1 else "rows"
    return f"{len(others)} training {rows} with {what} {lie} eV, this one at {record.eform:.1f} eV"


def _large_relaxation(record: DefectRecord, training: Training) -> str:
    moved = relaxation(record)
    if not moved > training.relaxation:
        return ""
    return (
        f"an atom moved {moved:.1f} Å in the relaxation, more than in {USUAL:.0%} of the training "
        f"rows ({training.relaxation:.1f} Å)"
    )


def _ambiguous(record: DefectRecord, training: Training) -> str:
    host = training.dataset.hosts.get(record.host)
    if host is None:
        return ""
    try:
        found = recognised(record, host)
    except DefectkitError:
        return "the defect cannot be recognised"
    return f"the defect is ambiguous: {found.reason}" if found.ambiguous else ""


def _magnetic(record: DefectRecord, training: Training) -> str:
    if not abs(record.spin) > MAGNETIC:
        return ""
    share = f"{training.magnetic:.0%} of the training rows"
    return f"it is magnetic ({abs(record.spin):.1f} μB), as {share} are"


RULES: dict[str, Callable[[DefectRecord, Training], str]] = {
    "rare host": _rare("host"),
    "rare dopant": _rare("dopant"),
    "unseen pair": _unseen_pair,
    "extreme energy": _extreme_energy,
    "unlike its pair": _unlike_its_pair,
    "large relaxation": _large_relaxation,
    "ambiguous": _ambiguous,
    "magnetic": _magnetic,
}


def reasons(uids: Iterable[str], training: Training) -> pd.DataFrame:
    """The sentence of every rule for every row, empty where it does not apply; (rows, rules)."""
    sentences = {
        uid: {name: rule(training.dataset[uid], training) for name, rule in RULES.items()}
        for uid in uids
    }
    return pd.DataFrame(sentences).T.reindex(columns=list(RULES))


def rule_errors(
    errors: pd.Series, sentences: pd.DataFrame, groups: pd.Series | None = None, seed: int = 0
) -> pd.DataFrame:
    """How large the errors are where a rule applies and where it does not, the best rule first.

    Args:
        errors: eV, with or without sign, indexed by uid.
        sentences: of `reasons`, for these rows at least.
        groups: what was held out together, by uid; every row for itself where it is not given.
        seed: of the bootstrap.

    Returns:
        By rule: `n` rows where it applies, `mae` there with `mae_lo` and `mae_hi`, `mae_else`
        (eV) and `ratio` of the two.
    """
    sizes = errors.abs()
    table = {}
    for rule in sentences:
        applies = sentences.loc[sizes.index, rule] != ""
        inside, outside = sizes[applies], sizes[~applies]
        low, high = mean_interval(inside, groups, seed)
        table[rule] = {
            "n": len(inside),
            "mae": inside.mean(),
            "mae_lo": low,
            "mae_hi": high,
            "mae_else": outside.mean(),
            "ratio": inside.mean() / outside.mean(),
        }
    table = pd.DataFrame(table).T.astype({"n": int}).sort_values("ratio", ascending=False)
    table.index.name = "rule"
    return table


def worst(rows: pd.DataFrame, sentences: pd.DataFrame, n: int = 10, most: int = 2) -> pd.DataFrame:
    """The `n` rows with the largest absolute errors, the worst first, with a likely `reason`.

    Args:
        rows: with the column error (eV), as `breakdown.described` gives it.
        sentences: of `reasons`, for these rows at least.
        n: how many rows.
        most: sentences a row, those first that go with the largest errors among all rows.
    """
    strongest = rule_errors(rows.error, sentences).index
    chosen = rows.loc[rows.error.abs().sort_values(ascending=False).index[:n]]
    texts = [
        "; ".join([text for text in sentences.loc[uid, strongest] if text][:most]) or NO_REASON
        for uid in chosen.index
    ]
    return chosen.assign(reason=texts)


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
