"""Pairs of structures that bond lengths cannot tell apart."""

import numpy as np
from ase import Atoms

from defectkit.structures.hosts import HOSTS

LENGTHS = {"Cl": 2.33, "N": 2.05}  # Å, to platinum


def twin_structures() -> dict[str, Atoms]:
    """Cis and trans, then 1H and 1T: in each pair all first neighbours at the same distances.

    Platinum in a square of two chlorines and two nitrogens, which are neighbours (cis) or opposite
    (trans); and unit cells of MoS2 with the lower sulfur in either hollow (1H and 1T). Atom 0 is
    the metal.
    """
    octahedral = HOSTS["MoS2"].unit_cell()
    octahedral.positions[2, :2] *= -1  # atom 0 is at the origin, atom 2 the lower sulfur
    return {
        "cis": _square_of("Cl", "Cl", "N", "N"),
        "trans": _square_of("Cl", "N", "Cl", "N"),
        "1H": HOSTS["MoS2"].unit_cell(),
        "1T": octahedral,
    }


def _square_of(*ligands: str) -> Atoms:
    arms = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    ends = arms * [[LENGTHS[symbol]] for symbol in ligands]
    return Atoms(["Pt", *ligands], [[0, 0, 0], *ends], cell=[20, 20, 20], pbc=[True, True, False])
