"""Hosts: symmetry, bond lengths, supercells; lattice constants against real DFT hosts."""

import numpy as np
import pytest
import spglib
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from defectkit.structures.files import read_structure
from defectkit.structures.hosts import (
    HOSTS,
    MIN_ATOMS,
    MIN_IMAGE_DISTANCE,
    VACUUM,
    as_slab,
    hosts_2dmd,
    shortest_translation,
    supercell_size,
    twin_structures,
)
from defectkit.structures.recognise import recognise
from defectkit.structures.record import reduced_formula

# Space group of the slab of each prototype family.
SPACEGROUPS = {
    "MoS2 (2H)": 187,
    "CdI2 (1T)": 164,
    "MoSSe (Janus 2H)": 156,
    "BiTeI (Janus 1T)": 156,
    "silicene": 164,
    "graphane": 164,
    "BiI3": 162,
    "phosphorene": 53,
    "MXene": 164,
}


def test_enough_hosts_and_families():
    assert len(HOSTS) >= 24
    assert {host.family for host in HOSTS.values()} == set(SPACEGROUPS)


@pytest.mark.parametrize("name", HOSTS)
def test_host_is_a_sound_slab(name):
    unit = HOSTS[name].unit_cell()
    cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
    assert spglib.get_symmetry_dataset(cell, symprec=1e-2).number == SPACEGROUPS[HOSTS[name].family]
    assert unit.pbc.tolist() == [True, True, False]
    z = unit.positions[:, 2]
    assert unit.cell[2, 2] - np.ptp(z) == pytest.approx(VACUUM)
    assert (z.max() + z.min()) / 2 == pytest.approx(unit.cell[2, 2] / 2)
    first, second, distance = neighbor_list("ijd", unit, 6.0)
    contact = covalent_radii[unit.numbers[first]] + covalent_radii[unit.numbers[second]]
    assert 0.8 < (distance / contact).min() < 1.15


@pytest.mark.parametrize("name", HOSTS)
def test_supercell_is_large_enough_and_no_larger(name):
    unit = HOSTS[name].unit_cell()
    size = supercell_size(unit)
    repeated = unit.repeat(size)
    assert shortest_translation(repeated.cell.array) >= MIN_IMAGE_DISTANCE
    assert MIN_ATOMS <= len(repeated) <= 50
    a, b = unit.cell.lengths()[:2]
    if np.isclose(a, b):
        assert size[0] == size[1]
        n = size[0] - 1
        smaller = shortest_translation(unit.cell.array * [[n], [n], [1]]) if n else 0.0
        assert smaller < MIN_IMAGE_DISTANCE or len(unit) * n * n < MIN_ATOMS


def test_shortest_translation_looks_at_diagonals():
    sheared = np.array([[3.0, 0, 0], [2.9, 0.5, 0], [0, 0, 20.0]])
    assert shortest_translation(sheared) == pytest.approx(np.hypot(0.1, 0.5))


def test_as_slab_keeps_the_layer_and_leaves_its_input_alone():
    unit = HOSTS["P4"].unit_cell()
    before = unit.positions.copy()
    thicker = as_slab(unit, vacuum=30.0)
    assert np.array_equal(unit.positions, before)
    assert np.allclose(thicker.get_all_distances(), unit.get_all_distances())
    assert thicker.cell[2, 2] == pytest.approx(unit.cell[2, 2] + 30.0 - VACUUM)


def test_lattice_constants_agree_with_dft_hosts(real_data):
    from ase.io import read

    compared = []
    for path in sorted((real_data / "imp2d_hosts").glob("*.vasp")):
        if path.stem not in HOSTS:
            continue
        real, unit = read(path), HOSTS[path.stem].unit_cell()
        cells = np.sqrt(len(real) / len(unit))  # n x n repetitions
        a = np.linalg.norm(real.cell[0]) / cells
        assert a == pytest.approx(unit.cell.lengths()[0], rel=0.03), path.stem
        compared.append(path.stem)
    assert len(compared) >= 12


def test_shortest_translation_is_exact_in_very_skewed_cells():
    skewed = np.array([[3.0, 0, 0], [10.0, 0.5, 0], [0, 0, 20.0]])
    assert shortest_translation(skewed) == pytest.approx(np.hypot(1.0, 0.5))
    rng = np.random.default_rng(0)
    for _ in range(50):
        cell = np.eye(3)
        cell[:2, :2] = rng.normal(size=(2, 2)) + 2 * np.eye(2)
        mixed = cell.copy()
        for one, other in ((0, 1), (1, 0), (0, 1)):
            mixed[one] += rng.integers(-4, 5) * mixed[other]
        assert shortest_translation(mixed) == pytest.approx(shortest_translation(cell))


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


def test_hosts_of_2dmd_are_those_that_are_published_with_it(real_data):
    if not (real_data / "2dmd").is_dir():
        pytest.skip("the complete 2DMD data are not there")
    files = sorted((real_data / "2dmd").glob("*/*.cif"))
    assert {path.stem for path in files} == set(hosts_2dmd())
    for path in files:
        found = recognise(hosts_2dmd()[path.stem], read_structure(path))
        assert found.defecttype == ""
        assert found.rms < 1e-3
        assert np.abs(found.setting.strain).max() < 1e-4


def test_hosts_of_2dmd_are_sound_slabs():
    numbers = {}
    for name, unit in hosts_2dmd().items():
        cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
        numbers[name] = spglib.get_symmetry_dataset(cell, symprec=1e-2).number
        assert reduced_formula(unit) == name
    hexagonal = dict.fromkeys(("MoS2", "WSe2", "BN", "GaSe", "InSe"), 187)
    assert numbers == hexagonal | {"P": 53}
