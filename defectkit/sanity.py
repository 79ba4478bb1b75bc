"""Values that cannot be: rules that flag extreme and non-physical predictions."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd
from ase import Atoms

UNPAIRED = {"s": 1, "p": 3, "d": 6, "f": 8}  # most unpaired electrons of an atom, by block
MARGIN = 0.1  # of the range of the training labels: a value beyond it is extreme
RULES = ("no number", "extreme energy", "negative moment", "extreme moment", "impossible moment")


def flags(
    predictions: pd.DataFrame,
    eform_range: tuple[float, float],
    spin_range: tuple[float, float],
    atoms: Mapping[str, Atoms] | None = None,
) -> pd.DataFrame:
    """The sentence of every rule for every prediction, empty where it does not apply.

    Args:
        predictions: columns eform (eV) and spin (μB), indexed by uid.
        eform_range: lowest and highest training label, eV (`ModelCard`).
        spin_range: likewise, μB.
        atoms: structures by uid, for the largest moment that their electrons allow.

    Returns:
        (rows, `RULES`) of texts.
    """
    table = pd.DataFrame("", predictions.index, list(RULES))
    for uid, eform, spin in predictions[["eform", "spin"]].itertuples():
        if not np.isfinite([eform, spin]).all():
            table.loc[uid, "no number"] = "the model returned no number; its input is damaged"
            continue
        if not _within(eform, eform_range):
            table.loc[uid, "extreme energy"] = (
                f"{eform:.1f} eV lies outside the training labels, {eform_range[0]:.1f} to "
                f"{eform_range[1]:.1f} eV"
            )
        if spin < 0:
            table.loc[uid, "negative moment"] = f"a size cannot be {spin:.2f} μB"
        if spin > 0 and not _within(spin, spin_range):
            table.loc[uid, "extreme moment"] = (
                f"{spin:.1f} μB is more than any training label, at most {spin_range[1]:.1f} μB"
            )
        if atoms is not None and spin > (most := largest_moment(atoms[uid])):
            table.loc[uid, "impossible moment"] = (
                f"{spin:.1f} μB is more than all electrons of these atoms allow, {most} μB"
            )
    return table


def largest_moment(atoms: Atoms) -> int:
    """μB, with all electrons unpaired that an atom's open shells allow."""
    return sum(UNPAIRED[_block(symbol)] for symbol in atoms.symbols)


@cache
def _block(symbol: str) -> str:
    from pymatgen.core import Element

    return Element(symbol).block


def _within(value: float, limits: tuple[float, float]) -> bool:
    reach = MARGIN * (limits[1] - limits[0])
    return limits[0] - reach <= value <= limits[1] + reach
