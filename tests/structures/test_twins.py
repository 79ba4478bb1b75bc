import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from defectkit.structures.twins import twin_structures


@pytest.mark.parametrize("pair", [("cis", "trans"), ("1H", "1T")])
def test_twins_share_bonds_and_not_angles(pair):
    lengths, angles = [], []
    for name in pair:
        first, distance, vector = neighbor_list("idD", twin_structures()[name], 2.6)
        arms = vector[first == 0]
        lengths.append(np.sort(distance[first == 0]))
        angles.append(np.sort((arms @ arms.T).ravel()))
    assert np.allclose(*lengths)
    assert not np.allclose(*angles)


def test_cis_and_trans_differ_in_what_is_opposite():
    opposite = {}
    for name in ("cis", "trans"):
        atoms = twin_structures()[name]
        far = atoms.get_distances(1, range(2, 5)).argmax() + 2
        opposite[name] = atoms.symbols[1], atoms.symbols[int(far)]
    assert opposite == {"cis": ("Cl", "N"), "trans": ("Cl", "Cl")}
