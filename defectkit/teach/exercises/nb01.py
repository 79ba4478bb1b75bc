"""Exercises of notebook 01, explore and clean."""

import numpy as np
import pandas as pd

from defectkit.data.cleaning import RULES, clean
from defectkit.data.dataset import Dataset
from defectkit.data.splits import structure_groups
from defectkit.models.tabular.features import defect_names
from defectkit.teach.checks import exercise, result_of, same_number, same_text
from defectkit.teach.lesson import clean_rows


@exercise("01-1")
def finite_energies(data: Dataset, answer: object) -> str | None:
    """Rows with a finite formation energy."""
    expected = np.isfinite(data.frame.eform).sum()
    return same_number(answer, expected, "np.isfinite(...) is True for a number.", rel=0)


def _spreads(data: Dataset) -> pd.Series:
    """Standard deviation of eform (eV) by host, of the hosts with 20 finite rows."""
    energies = data.frame[np.isfinite(data.frame.eform)].groupby("host").eform
    return energies.std()[energies.size() >= 20]


@exercise("01-2", lambda data: "" if len(_spreads(data)) else "no host has 20 formation energies")
def widest_host(data: Dataset, answer: object) -> str | None:
    """Host with the largest standard deviation of eform, among those with 20 finite rows."""
    hint = 'Group by "host", take std(), drop small groups, then take the largest.'
    return same_text(answer, _spreads(data).idxmax(), hint)


def _impurity_energies(data: Dataset) -> pd.Series:
    f = data.frame
    return f[(f.dopant != "") & f.converged & (f.eform.abs() < 20)].set_index("dopant").eform


@exercise(
    "01-3",
    lambda data: (
        "" if _impurity_energies(data).nunique() > 1 else "no two energies of impurities differ"
    ),
)
def dopant_mean_model(data: Dataset, answer: object) -> str | None:
    """R2 of predicting the mean of the dopant."""
    energy = _impurity_energies(data)
    residual = energy - energy.groupby(level=0).transform("mean")
    expected = 1 - (residual**2).sum() / ((energy - energy.mean()) ** 2).sum()
    hint = "R2 = 1 - (sum of squared residuals) / (sum of squared deviations from the mean)."
    return same_number(answer, expected, hint)


@exercise("01-4", lambda data: "" if data.frame.spin.notna().any() else "no row has a moment")
def magnetic_share(data: Dataset, answer: object) -> str | None:
    """Share of rows with a moment above 0.5 Bohr magnetons."""
    spin = data.frame.spin[np.isfinite(data.frame.spin)]
    hint = "A moment may be negative: compare its absolute value with 0.5."
    return same_number(answer, (spin.abs() > 0.5).mean(), hint)


def _removed(data: Dataset) -> pd.Series:
    return clean(data, rules="strict").waterfall.set_index("rule").removed


@exercise("01-5", lambda data: "" if _removed(data).any() else "no rule removes a row")
def greediest_rule(data: Dataset, answer: object) -> str | None:
    """Rule of the strict set that removes the most rows."""
    removed = _removed(data)
    if isinstance(answer, str) and answer not in RULES:
        return f"{answer!r} is no rule; the names are {', '.join(RULES)}."
    if isinstance(answer, str) and removed.get(answer) == removed.max():
        return None  # one of several that remove as many
    return same_text(answer, removed.idxmax(), "Look at the column `removed` of the waterfall.")


@exercise("01-6")
def twins_in_test(data: Dataset, answer: object) -> str | None:
    """Test rows with a twin outside the test set, when rows are cut without groups."""
    seed, count = answer
    if count is ...:
        return "no answer yet: replace the three dots by your code, then run both cells again."
    groups = structure_groups(clean_rows(data, quiet=True))
    shuffled = np.random.default_rng(seed).permutation(groups.index)
    test = shuffled[-len(shuffled) // 10 :]
    rest = set(groups[shuffled[: -len(test)]])
    hint = "For each test row ask whether its group also occurs among the other rows."
    return same_number(count, groups[test].isin(rest).sum(), hint, rel=0)


@exercise("01-7")
def names_of_rows(data: Dataset, answer: object) -> str | None:
    """Three columns of text: host with site, dopant, host with what was removed."""
    frame = clean_rows(data, quiet=True).frame
    found = result_of(answer, "(frame)", "frame is the table of clean rows.", frame)
    if not isinstance(found, pd.DataFrame) or found.shape != (len(frame), 3):
        return f"return a table with {len(frame):,} rows and 3 columns, as pd.DataFrame({{...}})."
    if not found.index.equals(frame.index):
        return "keep the rows in their order, with their ids: add up columns of frame."
    words = ("host and site", "dopant", "host and removed")
    for name, column in zip(words, defect_names(frame).values(), strict=True):
        if not any(_same_parts(column, found[other]) for other in found):
            return f"no column tells rows apart by {name} alone; join texts by `+`."
    return None


def _same_parts(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns of names put the same rows together, whatever the names are."""
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()
