"""The exercises on real DFT labels: notebook 07.

Functions are tried on made-up numbers, so that they can be written where 2DMD is not at hand.
"""

import numpy as np
import pandas as pd

from defectkit.data.dataset import Dataset
from defectkit.teach.answers import ANY
from defectkit.teach.checks import exercise


@exercise(
    "07-1",
    hint="E(cell) - E(pristine) + mu(S) + mu(Mo) - mu(W): what leaves goes to its reservoir.",
    way="-1393 + 1400 - 4.2 - 10.8 + 13.0 for the cell; two sites are changed, so half of it each.",
    meaning="{x[0]:g} eV for the cell, {x[1]:g} eV a site: papers on 2DMD count by site.",
    mistakes={
        "The chemical potentials have the wrong sign.": (9.0, ANY),
        "The chemical potentials are missing.": (7.0, ANY),
        "W comes from a reservoir as well: its potential is missing.": (-8.0, ANY),
        "Mo leaves as well: its potential is missing.": (15.8, ANY),
        "S leaves as well: its potential is missing.": (9.2, ANY),
        "Cell and pristine crystal are swapped.": (-9.0, ANY),
        "Two sites are changed: the energy of the cell over two.": (5.0, 5.0),
        "The missing atom and the foreign one are two sites, not three.": (5.0, 5 / 3),
        "The two are swapped: first the cell.": (2.5, 5.0),
    },
)
def energy_of_a_site(data: Dataset) -> tuple[float, float]:
    """Formation energy of a cell by its definition, and a site's share."""
    return 5.0, 2.5


@exercise(
    "07-2",
    hint="An 8 x 8 cell of MoS2 has 192 sites, and a vacancy is a node; three of them are changed.",
    way="(192 / 3) ** 2",
    meaning="{x:,.0f} times as many pairs, for nothing that the three sites do not say.",
    mistakes={
        "That is how many times as many nodes; pairs go with the square.": 64,
        "Vacancies are nodes too: 192, not 190.": (190 / 3) ** 2,
        "A node pairs with itself too: n² of them.": (192 * 191) / (3 * 2),
        "Those are the pairs of all atoms; divide by those of the sites.": 192**2,
        "Three sites are changed, not two.": (192 / 2) ** 2,
        "That is the other way round.": (3 / 192) ** 2,
    },
)
def pairs_of_nodes(data: Dataset) -> float:
    """How many times as many pairs of nodes the graph of all atoms has."""
    return (192 / 3) ** 2


def _cells() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 3, (40, 4)).astype(float)
    return [(counts, counts @ np.array([2.6, 7.1, -0.4, 1.2]) + rng.normal(0, 0.1, 40))]


@exercise(
    "07-3",
    cases=_cells(),
    takes="counts is (rows, kinds), energy (rows,); the result (kinds,).",
    hint="np.linalg.lstsq solves counts times prices = energy as well as it can, and returns more.",
    way="np.linalg.lstsq(counts, energy)[0], without a constant.",
    meaning="Four prices explain most of an energy; a network is for what they leave.",
    mistakes={
        "There is no constant: a cell without a change costs nothing.": lambda counts, energy: (
            np.linalg.lstsq(np.column_stack([counts, np.ones(len(counts))]), energy)[0][:-1]
        ),
        "The constant is a fifth price; a cell without a change costs nothing.": (
            lambda counts, energy: np.linalg.lstsq(
                np.column_stack([counts, np.ones(len(counts))]), energy
            )[0]
        ),
        "Each kind by itself takes the others' energy as its own; all have to be fitted at once.": (
            lambda counts, energy: energy @ counts / (counts**2).sum(axis=0)
        ),
        "That is the mean energy by kind; a row has several of them.": lambda counts, energy: (
            energy @ counts / counts.sum(axis=0)
        ),
    },
)
def prices(counts: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Energies of kinds by least squares, from noisy energies of cells."""
    return np.linalg.lstsq(counts, energy, rcond=None)[0]


def _subsets() -> list[tuple[pd.DataFrame, pd.Series]]:
    ours = pd.DataFrame(
        {"mae": [2.0, 9.0, 30.0, 50.0, 8.0], "mae_hi": [2.5, 11.0, 33.0, 70.0, 9.0]},
        ["low_A", "high_A", "high_B", "high_C", "high_D"],
    )
    published = pd.Series(
        [40.0, 7.0, 3.0, 10.0, 60.0], ["high_B", "high_D", "low_A", "high_A", "high_C"]
    )
    return [(ours, published)]


@exercise(
    "07-4",
    cases=_subsets(),
    takes="ours is a table by subset with mae and mae_hi, published a series by subset.",
    hint="The upper end of the interval, and subset by subset: published.loc[ours.index].",
    way="list(ours.index[ours.mae_hi < published.loc[ours.index]])",
    meaning="“Below” is all that may be said: their rows were others, and without an interval.",
    mistakes={
        "The mean alone is below; the upper end of the interval, mae_hi, has to be.": (
            lambda ours, published: set(ours.index[ours.mae < published.loc[ours.index]])
        ),
        "The two are in different orders; compare subset by subset.": lambda ours, published: set(
            ours.index[ours.mae_hi.to_numpy() < published.to_numpy()]
        ),
        "Those are not below.": lambda ours, published: set(
            ours.index[ours.mae_hi >= published.loc[ours.index]]
        ),
        "Those are all subsets.": lambda ours, published: set(ours.index),
    },
)
def clearly_below(ours: pd.DataFrame, published: pd.Series) -> set[str]:
    """Subsets whose whole interval lies below a published number."""
    return set(ours.index[ours.mae_hi < published.loc[ours.index]])


@exercise(
    "07-5",
    hint="Beyond the cut each vacancy is alone: the energy is that of two single ones.",
    way="2 * 2.6 eV, three times.",
    meaning="The same {x[0]:g} eV at 6, 9 and 12 Å: no training can make a network hear beyond.",
    mistakes={
        "There are two of them in the cell.": (2.6, 2.6, 2.6),
        "Nothing is heard beyond the cut, but each of them still costs its own energy.": (0, 0, 0),
        "That is for a site; the energy of the cell is asked for.": (1.3, 1.3, 1.3),
    },
)
def flat_beyond_a_cut(data: Dataset) -> tuple[float, float, float]:
    """Energies of two vacancies that do not hear each other."""
    return 5.2, 5.2, 5.2


@exercise(
    "07-6",
    cases=[(0.6, 500, 0.9), (0.88, 100, 0.9), (0.95, 400, 0.8)],
    takes="coverage and promised are shares, n is a number of rows.",
    hint="How far below the promise, over the scatter that the promise allows.",
    way="(promised - coverage) / (promised * (1 - promised) / n) ** 0.5",
    meaning="Above two or three it is no bad luck any more: the promise is broken.",
    mistakes={
        "The sign: what falls short of the promise is above zero.": lambda coverage, n, promised: (
            (coverage - promised) / (promised * (1 - promised) / n) ** 0.5
        ),
        "That divides by the variance; take its root.": lambda coverage, n, promised: (
            (promised - coverage) / (promised * (1 - promised) / n)
        ),
        "The more rows, the smaller the scatter: n is missing.": lambda coverage, n, promised: (
            (promised - coverage) / (promised * (1 - promised)) ** 0.5
        ),
        "The scatter is that of the promise p, not of the coverage found.": (
            lambda coverage, n, promised: (
                (promised - coverage) / (coverage * (1 - coverage) / n) ** 0.5
            )
        ),
        "That is the shortfall itself; count it in standard deviations.": (
            lambda coverage, n, promised: promised - coverage
        ),
    },
)
def surprise(coverage: float, n: int, promised: float) -> float:
    """How far a coverage lies below what was promised, in standard deviations of a count."""
    return (promised - coverage) / (promised * (1 - promised) / n) ** 0.5
