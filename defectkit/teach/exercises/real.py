"""Judges of the exercises on real DFT labels: notebook 07.

Functions are judged on made-up numbers, so that they can be written where 2DMD is not at hand.
"""

import numpy as np
import pandas as pd

from defectkit.data.dataset import Dataset
from defectkit.teach.checks import (
    exercise,
    pair_of,
    result_of,
    same_array,
    same_number,
    same_numbers,
)


@exercise("07-1")
def energy_of_a_site(data: Dataset, answer: object) -> str | None:
    """Formation energy of a cell by its definition, and a site's share."""
    found = pair_of(answer, "answer with a pair: (energy of the cell, energy of a site).")
    hints = (
        "E(cell) - E(pristine) + mu(S) + mu(Mo) - mu(W): what leaves goes to its reservoir.",
        "Two sites are changed: the energy of the cell over two.",
    )
    return same_numbers(found, (5.0, 2.5), hints)


@exercise("07-2")
def pairs_of_nodes(data: Dataset, answer: object) -> str | None:
    """How many times as many pairs of nodes the graph of all atoms has."""
    hint = (
        "An 8 x 8 cell of MoS2 has 192 sites, and a vacancy is a node; three of them are changed. "
        "Pairs go with the square."
    )
    return same_number(answer, (192 / 3) ** 2, hint)


@exercise("07-3")
def composition_model(data: Dataset, answer: object) -> str | None:
    """Energies of kinds by least squares, from noisy energies of cells."""
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 3, (40, 4)).astype(float)
    energy = counts @ np.array([2.6, 7.1, -0.4, 1.2]) + rng.normal(0, 0.1, 40)
    shapes = "counts is (rows, kinds), energy (rows,); the result (kinds,)."
    found = result_of(answer, "(counts, energy)", shapes, counts, energy)
    expected = np.linalg.lstsq(counts, energy, rcond=None)[0]
    return same_array(found, expected, "np.linalg.lstsq(counts, energy)[0], without a constant.")


@exercise("07-4")
def clearly_below(data: Dataset, answer: object) -> str | None:
    """Subsets whose whole interval lies below a published number."""
    names = ["low_A", "high_A", "high_B", "high_C"]
    ours = pd.DataFrame({"mae": [2.0, 9.0, 30.0, 50.0], "mae_hi": [2.5, 11.0, 33.0, 70.0]}, names)
    published = pd.Series([40.0, 3.0, 10.0, 60.0], ["high_B", "low_A", "high_A", "high_C"])
    shapes = "ours is a table by subset with mae and mae_hi, published a series by subset."
    found = result_of(answer, "(ours, published)", shapes, ours, published)
    if not isinstance(found, list | tuple | set | pd.Index | np.ndarray):
        return f"your function must return a list of names, not {type(found).__name__}."
    if set(found) == {"low_A", "high_B"}:
        return None
    return (
        f"of a made-up table it returns {sorted(map(str, found))}: take the upper end of the "
        "interval, and compare subset by subset (published.loc[ours.index])."
    )


@exercise("07-5")
def flat_beyond_a_cut(data: Dataset, answer: object) -> str | None:
    """Energies of two vacancies that do not hear each other."""
    if not isinstance(answer, tuple | list | np.ndarray) or len(answer) != 3:
        return "answer with three numbers in round brackets."
    hint = "Beyond the cut each vacancy is alone: the energy is that of two single ones."
    return same_numbers(answer, 3 * [2 * 2.6], 3 * [hint])


@exercise("07-6")
def too_many_misses(data: Dataset, answer: object) -> str | None:
    """How far a coverage lies below what was promised, in standard deviations of a count."""
    for coverage, n, promised in ((0.6, 500, 0.9), (0.88, 100, 0.9), (0.95, 400, 0.8)):
        shapes = "coverage and promised are shares, n is a number of rows."
        found = result_of(answer, "(coverage, n, promised)", shapes, coverage, n, promised)
        expected = (promised - coverage) / (promised * (1 - promised) / n) ** 0.5
        hint = "Divide promised - coverage by sqrt(promised * (1 - promised) / n)."
        if fault := same_number(found, expected, hint):
            return fault
    return None
