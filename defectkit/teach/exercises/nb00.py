"""Exercises of notebook 00, start here."""

import numpy as np

from defectkit.data.cleaning import IDENTITY_TOLERANCE, identity_error
from defectkit.data.dataset import Dataset
from defectkit.teach.checks import check_row, exercise, pair_of, same_number, same_text


@exercise("00-1")
def number_of_rows(data: Dataset, answer: object) -> str | None:
    """Rows in the data set."""
    return same_number(answer, len(data), "len(frame) counts the rows of a table.", rel=0)


def _no_terms(data: Dataset) -> str:
    complete = identity_error(data.frame).abs() < IDENTITY_TOLERANCE
    return "" if complete.any() else "no row has all four terms of its formation energy"


@exercise("00-2", _no_terms)
def formation_energy(data: Dataset, answer: object) -> str | None:
    """Formation energy of one row from its four terms."""
    uid, energy = pair_of(answer, "answer with a pair in round brackets: (row.name, energy).")
    check_row(data, uid, "row.name")
    row = data.frame.loc[[uid]]
    expected = (row.eform - identity_error(row)).item()  # what the four terms give
    if np.isnan(expected):
        return f"the row {uid!r} does not have all four terms; take the one drawn above."
    hint = "Mind the signs: what is added costs its reservoir mu, what is removed gives mu back."
    return same_number(energy, expected, hint)


@exercise("00-3")
def label_source(data: Dataset, answer: object) -> str | None:
    """What computed the labels."""
    return same_text(answer, data.label_source, "The data set knows: data.label_source.")


@exercise("00-4")
def interstitials(data: Dataset, answer: object) -> str | None:
    """Rows whose impurity ends inside the layer."""
    expected = (data.frame.defecttype == "interstitial").sum()
    return same_number(answer, expected, 'Compare a column with "interstitial", then sum.', rel=0)
