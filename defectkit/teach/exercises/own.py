"""The exercises on a structure of one's own: notebook 08."""

import numpy as np
import pandas as pd

from defectkit.teach.checks import exercise


def _sum(symbols: list[str], dmu: dict[str, float]) -> float:
    return sum(dmu.get(symbol, 0.0) for symbol in symbols)


@exercise(
    "08-1",
    cases=[
        (2.7, ["S"], [], {"S": -1.0}),
        (1.0, [], ["Cr"], {"Cr": -0.5}),
        (3.0, ["Mo", "S", "S"], ["W"], {"S": -0.4}),
        (3.0, ["Mo"], ["W"], {"Mo": -0.3, "W": -0.2}),
    ],
    takes="removed and added are lists of symbols, dmu a dictionary by symbol.",
    hint="What leaves goes to its reservoir, plus its dmu; what is added comes from one, minus.",
    way="eform + sum(dmu.get(x, 0.0) for x in removed) - sum(dmu.get(x, 0.0) for x in added)",
    meaning="In a gas poor in sulfur a sulfur vacancy costs less: energies need their reservoirs.",
    mistakes={
        "Both signs are turned over: what leaves adds its dmu, what comes takes it off.": (
            lambda eform, removed, added, dmu: eform - _sum(removed, dmu) + _sum(added, dmu)
        ),
        "What is added comes from its reservoir: minus its dmu.": (
            lambda eform, removed, added, dmu: eform + _sum(removed, dmu) + _sum(added, dmu)
        ),
        "What leaves goes to its reservoir: plus its dmu.": (
            lambda eform, removed, added, dmu: eform - _sum(removed, dmu) - _sum(added, dmu)
        ),
        "What is added is missing.": lambda eform, removed, added, dmu: eform + _sum(removed, dmu),
        "What is removed is missing.": lambda eform, removed, added, dmu: eform - _sum(added, dmu),
        "Two atoms of one element count twice; a set forgets one of them.": (
            lambda eform, removed, added, dmu: (
                eform + _sum(list(set(removed)), dmu) - _sum(list(set(added)), dmu)
            )
        ),
        "Every potential of dmu is added, whoever comes or leaves.": (
            lambda eform, removed, added, dmu: eform + sum(dmu.values())
        ),
    },
)
def shifted(eform: float, removed: list[str], added: list[str], dmu: dict[str, float]) -> float:
    """A formation energy against other reservoirs."""
    return eform + _sum(removed, dmu) - _sum(added, dmu)


def _lowest(eform: np.ndarray) -> np.ndarray:
    return np.argsort(eform)[:2]


@exercise(
    "08-2",
    cases=[
        (np.array(eform), np.array(sigma))
        for eform, sigma in (
            ([1.0, 3.0, 2.0], [0.1, 9.0, 0.1]),
            ([1.5, 1.0, 1.2], [0.0, 0.1, 0.1]),
            ([1.0, 1.25], [0.1, 0.0]),
            ([1.0, 1.25, 5.0], [0.1, 0.1, 0.0]),
            ([1.0, 1.15], [0.1, 0.0]),
            ([1.0, 1.35], [0.1, 0.1]),
            ([1.0, 1.05], [0.1, 0.1]),
        )
    ],
    takes="eform and sigma are arrays (n,); the result is True or False.",
    hint="Only the lowest two count; errors add as squares.",
    way="first, second = np.argsort(eform)[:2]; eform[second] - eform[first] > "
    "2 * np.hypot(sigma[first], sigma[second])",
    meaning="An order is settled where the gap is larger than what the networks disagree by.",
    mistakes={
        "The factor of two is missing.": lambda eform, sigma: bool(
            np.diff(eform[_lowest(eform)])[0] > np.hypot(*sigma[_lowest(eform)])
        ),
        "The sigmas add as squares: the root of the sum of squares, not the sum.": (
            lambda eform, sigma: bool(
                np.diff(eform[_lowest(eform)])[0] > 2 * sigma[_lowest(eform)].sum()
            )
        ),
        "Only the lowest two count, not the spread of all.": lambda eform, sigma: bool(
            np.ptp(eform) > 2 * np.hypot(*sigma[_lowest(eform)])
        ),
        "The first two of the list need not be the lowest: sort them.": lambda eform, sigma: bool(
            eform[1] - eform[0] > 2 * np.hypot(sigma[0], sigma[1])
        ),
        "Only the sigmas of these two count, not the largest of all.": lambda eform, sigma: bool(
            np.diff(eform[_lowest(eform)])[0] > 2 * sigma.max() * 2**0.5
        ),
        "That is whether it is *not* settled.": lambda eform, sigma: bool(
            np.diff(eform[_lowest(eform)])[0] <= 2 * np.hypot(*sigma[_lowest(eform)])
        ),
        "It depends on the numbers: not always True.": lambda eform, sigma: True,
        "It depends on the numbers: not always False.": lambda eform, sigma: False,
    },
)
def settled(eform: np.ndarray, sigma: np.ndarray) -> bool:
    """Whether the lowest of uncertain energies is the lowest."""
    first, second = _lowest(eform)
    return bool(eform[second] - eform[first] > 2 * np.hypot(sigma[first], sigma[second]))


_POINTS = np.linspace(0.0, 2.0, 9)  # Å


@exercise(
    "08-3",
    cases=[(_POINTS, (_POINTS - 0.5) ** 3)],
    takes="x and energy are arrays (n,); the result (n - 2,).",
    hint="At each inner point: the next energy minus the one before, over twice the step.",
    way="-(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])",
    meaning="A force is minus a slope: whoever has energies at enough points has forces.",
    mistakes={
        "A force points downhill: minus the slope.": lambda x, energy: (
            (energy[2:] - energy[:-2]) / (x[2:] - x[:-2])
        ),
        "From one neighbour to the other it is two steps.": lambda x, energy: (
            -(energy[2:] - energy[:-2]) / (x[1] - x[0])
        ),
        "Those are differences to the next point only; take both neighbours.": lambda x, energy: (
            -np.diff(energy) / np.diff(x)
        ),
        "Inner points only: at the ends there is no neighbour on one side.": lambda x, energy: (
            -np.gradient(energy, x)
        ),
        "That is the difference of energies; divide by the distance.": lambda x, energy: (
            -(energy[2:] - energy[:-2])
        ),
    },
)
def force(x: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Minus the slope of an energy, by central differences."""
    return -(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])


def _predictions() -> list[tuple[pd.DataFrame, float]]:
    columns = ["verdict", "eform_lo", "eform_hi"]
    rows = [("inside", 1.0, 1.5), ("unlike", 0.0, 0.1), ("inside", 0.0, 2.0), ("inside", 2.0, 3.0)]
    rows.append(("inside", 0.0, 5.0))
    return [(pd.DataFrame(rows, list("dabce"), columns), 1.0)]


@exercise(
    "08-4",
    cases=_predictions(),
    takes="table has columns verdict, eform_lo and eform_hi; the result is a list of its index.",
    hint='Two conditions, joined by &: "inside", and narrow enough; at most means <=.',
    way="narrow = table.eform_hi - table.eform_lo <= width; list(table.index[(table.verdict == "
    '"inside") & narrow])',
    meaning="Interval and verdict together: the one is a promise, the other says whether it holds.",
    mistakes={
        'A narrow interval of a row that is not "inside" promises nothing.': (
            lambda table, width: list(table.index[table.eform_hi - table.eform_lo <= width])
        ),
        "A row inside may still have an interval too wide to be of use.": lambda table, width: list(
            table.index[table.verdict == "inside"]
        ),
        "At most: <= width, not <.": lambda table, width: list(
            table.index[(table.verdict == "inside") & (table.eform_hi - table.eform_lo < width)]
        ),
        "Keep the order of the table.": lambda table, width: sorted(
            table.index[(table.verdict == "inside") & (table.eform_hi - table.eform_lo <= width)]
        ),
        "Either is not enough: both conditions have to hold, &.": lambda table, width: list(
            table.index[(table.verdict == "inside") | (table.eform_hi - table.eform_lo <= width)]
        ),
        "The whole interval has to be narrow, not half of it.": lambda table, width: list(
            table.index[
                (table.verdict == "inside") & ((table.eform_hi - table.eform_lo) / 2 <= width)
            ]
        ),
    },
)
def usable(table: pd.DataFrame, width: float) -> list[str]:
    """The predictions that one may use: inside, and narrow enough."""
    narrow = table.eform_hi - table.eform_lo <= width
    return list(table.index[(table.verdict == "inside") & narrow])
