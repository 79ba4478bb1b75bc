"""Exercises of notebook 01, explore and clean."""

import numpy as np

from defectkit.data.cleaning import RULES, clean
from defectkit.data.splits import structure_groups
from defectkit.teach import exercise, same_number, same_text


@exercise("01-1")
def finite_energies(data, answer):
    """Rows with a finite formation energy."""
    expected = np.isfinite(data.frame.eform).sum()
    return same_number(answer, expected, "np.isfinite(...) is True for a number.", rel=0)


@exercise("01-2")
def widest_host(data, answer):
    """Host with the largest standard deviation of eform, among those with 20 finite rows."""
    finite = data.frame[np.isfinite(data.frame.eform)]
    energies = finite.groupby("host").eform
    expected = energies.std()[energies.size() >= 20].idxmax()
    return same_text(answer, expected, 'Group by "host", take std(), drop small groups, idxmax().')


@exercise("01-3")
def dopant_mean_model(data, answer):
    """R2 of predicting the mean of the dopant."""
    f = data.frame
    f = f[(f.dopant != "") & f.converged & (f.eform.abs() < 20)]
    residual = f.eform - f.groupby("dopant").eform.transform("mean")
    expected = 1 - (residual**2).sum() / ((f.eform - f.eform.mean()) ** 2).sum()
    hint = "R2 = 1 - (sum of squared residuals) / (sum of squared deviations from the mean)."
    return same_number(answer, expected, hint)


@exercise("01-4")
def magnetic_share(data, answer):
    """Share of rows with a moment above 0.5 Bohr magnetons."""
    spin = data.frame.spin[np.isfinite(data.frame.spin)]
    hint = "A moment may be negative: compare its absolute value with 0.5."
    return same_number(answer, (spin.abs() > 0.5).mean(), hint)


@exercise("01-5")
def greediest_rule(data, answer):
    """Rule of the strict set that removes the most rows."""
    expected = clean(data, rules="strict").waterfall.set_index("rule").removed.idxmax()
    if isinstance(answer, str) and answer not in RULES:
        return f"{answer!r} is no rule; the names are {', '.join(RULES)}."
    return same_text(answer, expected, "Look at the column `removed` of the waterfall.")


@exercise("01-6")
def twins_in_test(data, answer):
    """Test rows with a twin outside the test set, when rows are cut without groups."""
    seed, count = answer
    if count is ...:
        return "no answer yet: replace the three dots by your code, then run both cells again."
    groups = structure_groups(clean(data, rules="strict").dataset)
    shuffled = np.random.default_rng(seed).permutation(groups.index)
    test = shuffled[-len(shuffled) // 10 :]
    rest = set(groups[shuffled[: -len(test)]])
    hint = "For each test row ask whether its group also occurs among the other rows."
    return same_number(count, groups[test].isin(rest).sum(), hint, rel=0)
