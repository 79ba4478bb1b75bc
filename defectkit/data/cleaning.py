"""Cleaning: named rules that say which rows are no good, and a count of what each takes away."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import covalent_radii
from matscipy.neighbours import neighbour_list

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset

SETTLED = 0.05  # eV: energy change at the end of a relaxation that counts as converged
EFORM_BOUND = 20.0  # eV, per site where these are counted: beyond it a calculation failed
EXTENSION_BOUND = 2.0  # thickness of the layer over that of the pristine one
IDENTITY_TOLERANCE = 1e-3  # eV
# eV that the last stage may end above the first. A relaxation goes downhill, so on one energy
# surface the rise is never positive. Of six genuine Imp2d rows looked at, four have stages within
# 0.4 eV of each other, and two, which are suspect, rise by 10.4 and 13.7 eV. In the demo data, one
# surface by construction, the rise is 0 at most.
RISE_BOUND = 1.0
DETACHED_RATIO = 1.5  # distance over the sum of covalent radii
FORCE_BOUND = 0.1  # eV/Å


@dataclass(frozen=True)
class Rule:
    """A reason to remove rows.

    Attributes:
        name: what it is called in a waterfall.
        description: one line with the values and units it goes by.
        hits: the rows it removes, a boolean Series over the data set's uids. A rule never hits
            a row whose source is silent about what it looks at, but for the label itself.
    """

    name: str
    description: str
    hits: Callable[[Dataset], pd.Series] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Cleaned:
    """The result of `clean`: the rows that stay, and why the others do not.

    Attributes:
        dataset: the rows that no rule hits.
        waterfall: one row a rule, in order: `rule`, `description`, `removed` (rows that were
            still there), `left`.
        reasons: tuple of the names of all rules that hit a row, by uid, for removed rows only.
    """

    dataset: Dataset
    waterfall: pd.DataFrame
    reasons: pd.Series


def clean(dataset: Dataset, rules: str | tuple[str, ...] = "strict") -> Cleaned:
    """Remove the rows that any of the rules hits.

    Args:
        dataset: what to clean; it stays as it is.
        rules: a name in `RULE_SETS`, or names in `RULES` in the order in which to count.

    Raises DefectkitError for an unknown rule.
    """
    names = _rule_names(rules)
    hits = pd.DataFrame({name: RULES[name].hits(dataset) for name in names})
    hits = hits.reindex(dataset.frame.index)  # keeps the index where there are no rules
    removed_by = hits.cumsum(axis=1).eq(1) & hits  # the first rule that hits a row counts it
    removed = removed_by.sum().reindex(names, fill_value=0).astype(int)
    waterfall = pd.DataFrame(
        {
            "rule": names,
            "description": [RULES[name].description for name in names],
            "removed": removed.to_numpy(),
            "left": len(dataset) - removed.cumsum().to_numpy(),
        }
    )
    bad = hits.any(axis=1)
    all_reasons = [tuple(hits.columns[row]) for row in hits[bad].to_numpy()]
    reasons = pd.Series(all_reasons, hits.index[bad], dtype=object, name="reasons")
    return Cleaned(dataset.subset(hits.index[~bad]), waterfall, reasons)


def _rule_names(rules: str | tuple[str, ...]) -> list[str]:
    if isinstance(rules, str):
        if rules not in RULE_SETS:
            raise DefectkitError(f"There is no rule set '{rules}'; use {', '.join(RULE_SETS)}.")
        rules = RULE_SETS[rules]
    for name in rules:
        if name not in RULES:
            raise DefectkitError(f"There is no rule '{name}'; use some of {', '.join(RULES)}.")
    return list(rules)


def identity_error(frame: pd.DataFrame) -> pd.Series:
    """The difference eform - (en2 - hostenergy - mu(dopant) + sum of mu(removed)), eV, per row."""
    expected = (
        frame.en2
        - frame.hostenergy
        - frame.dopant_chemical_potential
        + frame.removed_chemical_potential
    )
    return frame.eform - expected


def energy_rise(frame: pd.DataFrame) -> pd.Series:
    """How far the last stage of a relaxation ends above the first, en2 - en1, eV, per row.

    NaN where one of the two is missing; 0 stands for a missing one in Imp2d.
    """
    return frame.en2.replace(0, np.nan) - frame.en1.replace(0, np.nan)


def _per_site(frame: pd.DataFrame) -> pd.Series:
    """Formation energies (eV), over the number of sites where the source counts them."""
    return frame.eform_per_site.fillna(frame.eform)


def _missing_energy(dataset: Dataset) -> pd.Series:
    frame = dataset.frame
    broken = identity_error(frame).abs() > IDENTITY_TOLERANCE
    return frame.hostenergy.notna() & (frame.en2.isna() | (frame.en2 == 0) | broken)


def _wrong_host(dataset: Dataset) -> pd.Series:
    frame = dataset.frame
    return _per_site(frame).groupby(frame.host).transform("median").abs() > EFORM_BOUND


def loose_atoms(atoms: Atoms) -> np.ndarray:
    """Indices of the atoms without a neighbour within `DETACHED_RATIO`."""
    reach = DETACHED_RATIO * covalent_radii[atoms.numbers]  # r_i + r_j, scaled, per pair
    neighbours = np.bincount(neighbour_list("i", atoms, reach), minlength=len(atoms))
    return np.flatnonzero(neighbours == 0)


def _detached(dataset: Dataset) -> pd.Series:
    loose = [len(loose_atoms(record.atoms)) > 0 for record in dataset.records]
    return pd.Series(loose, dataset.frame.index)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in [
        Rule("missing_eform", "no formation energy", lambda d: d.frame.eform.isna()),
        Rule(
            "not_converged",
            f"first stage not converged: |conv1| > {SETTLED} eV",
            lambda d: ~d.frame.converged | (d.frame.conv1.abs() > SETTLED),
        ),
        Rule(
            "eform_outlier",
            f"|eform| > {EFORM_BOUND:.0f} eV, per site where these are counted",
            lambda d: _per_site(d.frame).abs() > EFORM_BOUND,
        ),
        Rule(
            "not_settled",
            f"final stage not converged: |conv2| > {SETTLED} eV",
            lambda d: d.frame.conv2.abs() > SETTLED,
        ),
        Rule(
            "rebuilt_layer",
            f"layer more than {EXTENSION_BOUND:.0f} times as thick as the pristine one",
            lambda d: d.frame.extension_factor > EXTENSION_BOUND,
        ),
        Rule(
            "missing_energy",
            f"total energy en2 missing or 0, or eform off en2 - hostenergy - mu by more than "
            f"{IDENTITY_TOLERANCE} eV",
            _missing_energy,
        ),
        Rule(
            "energy_rise",
            f"last stage ends above the first: en2 - en1 > {RISE_BOUND} eV",
            lambda d: energy_rise(d.frame) > RISE_BOUND,
        ),
        Rule(
            "wrong_host_reference",
            f"median eform of the host beyond {EFORM_BOUND:.0f} eV: its reference energy is wrong",
            _wrong_host,
        ),
        Rule(
            "detached_atom",
            f"an atom has no neighbour within {DETACHED_RATIO} times the sum of covalent radii",
            _detached,
        ),
        Rule(
            "forces_left",
            f"largest force after relaxation > {FORCE_BOUND} eV/Å",
            lambda d: d.frame.max_force > FORCE_BOUND,
        ),
    ]
}

RULE_SETS: dict[str, tuple[str, ...]] = {
    # The filter of the project's proposal.
    "proposal": ("missing_eform", "not_converged", "eform_outlier"),
    # A wrong host reference comes first, so that it is not counted row by row as outliers.
    "strict": (
        "missing_eform",
        "wrong_host_reference",
        "not_converged",
        "not_settled",
        "rebuilt_layer",
        "missing_energy",
        "energy_rise",
        "eform_outlier",
        "detached_atom",
        "forces_left",
    ),
}
