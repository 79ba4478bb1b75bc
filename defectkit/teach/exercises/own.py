"""Judges of the exercises on a structure of one's own: notebook 08."""

import numpy as np
import pandas as pd

from defectkit.data.dataset import Dataset
from defectkit.teach.checks import exercise, result_of, same_array, same_number


@exercise("08-1")
def chemical_potentials(data: Dataset, answer: object) -> str | None:
    """A formation energy against other reservoirs."""
    names = "(eform, removed, added, dmu)"
    shapes = "removed and added are lists of symbols, dmu a dictionary by symbol."
    cases = (
        ((2.7, ["S"], [], {"S": -1.0}), 1.7, "What leaves goes to its reservoir: plus its dmu."),
        ((1.0, [], ["Cr"], {"Cr": -0.5}), 1.5, "What is added comes from its reservoir: minus."),
        ((3.0, ["Mo", "S", "S"], ["W"], {"S": -0.4}), 2.2, "Every atom counts, others are zero."),
    )
    for given, expected, hint in cases:
        found = result_of(answer, names, shapes, *given)
        if fault := same_number(found, expected, hint):
            return fault
    return None


@exercise("08-2")
def settled_order(data: Dataset, answer: object) -> str | None:
    """Whether the lowest of uncertain energies is the lowest."""
    shapes = "eform and sigma are arrays (n,); the result is True or False."
    cases = (
        (([1.0, 3.0, 2.0], [0.1, 9.0, 0.1]), True, "Only the lowest two count."),
        (([1.5, 1.0, 1.2], [0.0, 0.1, 0.1]), False, "Twice the root of the sum of squares."),
        (([1.0, 1.25], [0.1, 0.0]), True, "2 * np.hypot(...) of these two's sigma, not their sum."),
    )
    for (eform, sigma), expected, hint in cases:
        found = result_of(answer, "(eform, sigma)", shapes, np.array(eform), np.array(sigma))
        if not isinstance(found, bool | np.bool_):
            return "Answer with True or False."
        if bool(found) != expected:
            return hint
    return None


@exercise("08-3")
def force_along_a_line(data: Dataset, answer: object) -> str | None:
    """Minus the slope of an energy, by central differences."""
    x = np.linspace(0.0, 2.0, 9)
    shapes = "x and energy are arrays (n,); the result (n - 2,)."
    energy = (x - 0.5) ** 3
    found = result_of(answer, "(x, energy)", shapes, x, energy)
    expected = -(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])
    return same_array(found, expected, "-(energy[2:] - energy[:-2]) over twice the step.")


@exercise("08-4")
def rows_to_use(data: Dataset, answer: object) -> str | None:
    """The predictions that one may use: inside, and narrow enough."""
    columns = ["verdict", "eform_lo", "eform_hi"]
    rows = [("inside", 1.0, 1.5), ("unlike", 0.0, 0.1), ("inside", 0.0, 2.0), ("inside", 2.0, 3.0)]
    table = pd.DataFrame(rows, list("dabc"), columns)
    shapes = "table has columns verdict, eform_lo and eform_hi; the result is a list of its index."
    found = result_of(answer, "(table, width)", shapes, table, 1.0)
    if not isinstance(found, list):
        return "Answer with a list of ids."
    if "a" in found:
        return 'A narrow interval of a row that is not "inside" promises nothing.'
    return None if found == ["d", "c"] else "At most: <= width; in the order of the table."
