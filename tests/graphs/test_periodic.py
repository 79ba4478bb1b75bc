from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry import find_mic, minkowski_reduce
from ase.neighborlist import neighbor_list
from crystals import SEEDS, host, random_crystal, unimodular
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.graphs import periodic


def parts(atoms: Atoms):
    return atoms.positions, atoms.cell.array, atoms.pbc


def rows(index: np.ndarray, shift: np.ndarray) -> list[tuple]:
    """Edges as sorted (receiver, sender, shift)."""
    return sorted(map(tuple, np.column_stack([index[1], index[0], shift]).tolist()))


@settings(deadline=None)
@given(seed=SEEDS, cutoff=st.floats(0.5, 6.0))
def test_edges_are_those_of_ase(seed, cutoff):
    atoms = random_crystal(seed)
    i, j, shift = neighbor_list("ijS", atoms, cutoff)
    index, ours = periodic.neighbour_edges(*parts(atoms), cutoff)
    assert index.dtype == ours.dtype == np.int64
    assert rows(index, ours) == rows(np.stack([j, i]), shift)
    assert (np.diff(index[1]) >= 0).all()


def test_an_atom_meets_its_own_images():
    atoms = Atoms("C", cell=[2.0, 3.0, 20.0], pbc=(True, True, False))
    index, shift = periodic.neighbour_edges(*parts(atoms), 3.5)
    assert index.tolist() == [[0] * 4] * 2
    assert sorted(map(tuple, shift.tolist())) == [(-1, 0, 0), (0, -1, 0), (0, 1, 0), (1, 0, 0)]
    assert np.allclose(sorted(periodic.distances(*parts(atoms)[:2], index, shift)), [2, 2, 3, 3])


@settings(deadline=None)
@given(seed=SEEDS)
@example(seed=3)  # the cell leans along a direction that does not repeat: find_mic misses images
def test_minimum_image_is_the_nearest_of_all(seed):
    atoms = random_crystal(seed)
    shift, distance = periodic.minimum_image(*parts(atoms))
    pos, cell, pbc = parts(atoms)
    gap = pos[None] - pos[:, None]  # [i, j] from i to j
    assert np.allclose(np.linalg.norm(gap + shift @ cell, axis=-1), distance, atol=1e-9)
    assert (shift == -shift.transpose(1, 0, 2)).all()
    assert not shift[:, :, ~pbc].any()
    assert np.allclose(distance, nearest_by_force(pos, cell, pbc), atol=1e-9)


def nearest_by_force(pos, cell, pbc) -> np.ndarray:
    """(n, n) over far more images than can matter, around the rounded one in a compact cell."""
    compact = minkowski_reduce(cell, pbc)[0][pbc]
    gap = pos[None] - pos[:, None]
    gap -= np.rint(gap @ np.linalg.pinv(compact)) @ compact
    around = np.array(list(product(range(-3, 4), repeat=len(compact)))) @ compact
    return np.linalg.norm(gap[:, :, None] + around, axis=-1).min(axis=-1)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_minimum_image_of_layers_is_that_of_ase(seed):
    atoms = random_crystal(seed, pbc=(True, True, False))
    cell = atoms.cell.array
    cell[:2, 2], cell[2] = 0.0, (0.0, 0.0, 9.0)
    assume(abs(np.linalg.det(cell)) > 9.0)
    _, distance = periodic.minimum_image(atoms.positions, cell, atoms.pbc)
    gap = (atoms.positions[None] - atoms.positions[:, None]).reshape(-1, 3)
    assert np.allclose(distance.ravel(), find_mic(gap, cell, atoms.pbc)[1], atol=1e-9)


def test_minimum_image_in_a_cell_where_rounding_fails():
    # Two atoms across the long diagonal of a hexagonal cell.
    cell = np.array([[1.0, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 10.0]])
    pos = np.array([[0, 0, 0], [0.45, 0.45, 0]]) @ cell
    shift, distance = periodic.minimum_image(pos, cell, (True, True, False))
    rounded = np.linalg.norm(pos[1])  # fractions below one half round to zero
    assert rounded == pytest.approx(0.45 * 3**0.5)
    assert distance[0, 1] == pytest.approx(np.linalg.norm([0.45 - 1, 0.45] @ cell[:2]))
    assert distance[0, 1] < rounded - 0.2
    assert shift[0, 1].any()


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_images_within_a_radius_are_the_edges_and_the_atoms_themselves(seed):
    atoms = random_crystal(seed)
    edges = rows(*periodic.neighbour_edges(*parts(atoms), 6.0))
    itself = [(i, i, 0, 0, 0) for i in range(len(atoms))]
    assert rows(*periodic.images_within(*parts(atoms), 6.0)) == sorted(edges + itself)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, k=st.integers(1, 16))
def test_nearest_edges_hold_the_k_nearest_of_every_atom(seed, k):
    atoms = random_crystal(seed, pbc=(True, True, False))
    index, shift = periodic.nearest_edges(*parts(atoms), k)
    distance = periodic.distances(*parts(atoms)[:2], index, shift)
    wide, far = periodic.neighbour_edges(*parts(atoms), distance.max() + 0.5)
    everything = periodic.distances(*parts(atoms)[:2], wide, far)
    for i in range(len(atoms)):
        kth = np.sort(everything[wide[1] == i])[k - 1]
        expected = np.sort(everything[(wide[1] == i) & (everything <= kth + periodic.TIE)])
        assert np.allclose(np.sort(distance[index[1] == i]), expected)


def test_nearest_edges_keep_ties():
    atoms = host().repeat((3, 3, 1))
    index, _ = periodic.nearest_edges(*parts(atoms), 4)
    count = np.bincount(index[1])
    # The third and fourth neighbour of Mo belong to its shell of six S; those of S are three Mo,
    # then the S across the layer (3.13 Å) before the six S beside it (3.18 Å).
    assert set(count[atoms.symbols == "Mo"]) == {6}
    assert set(count[atoms.symbols == "S"]) == {4}
    assert set(np.bincount(periodic.nearest_edges(*parts(atoms), 5)[0][1])) == {6, 10}


def test_more_neighbours_than_there_are():
    with pytest.raises(DefectkitError, match="ask fewer"):
        periodic.nearest_edges(np.zeros((1, 3)), np.eye(3), (False,) * 3, 1)


def lattice_lengths(cell, pbc) -> np.ndarray:
    return np.sort(np.linalg.norm(periodic.self_image_edges(cell, pbc) @ cell, axis=1))


@settings(deadline=None)
@given(seed=SEEDS, pbc=st.sampled_from([(1, 1, 0), (1, 1, 1)]))
@example(seed=0, pbc=(1, 1, 0))
def test_self_images_do_not_depend_on_the_unit_cell(seed, pbc):
    atoms = random_crystal(seed, pbc)
    cell = atoms.cell.array
    other = unimodular(np.random.default_rng(seed), sum(pbc)) @ cell
    assert np.allclose(lattice_lengths(cell, pbc), lattice_lengths(other, pbc))


def test_self_images_of_known_lattices():
    hexagonal = host().cell.array
    assert np.allclose(lattice_lengths(hexagonal, (1, 1, 0)), 3.18)
    assert lattice_lengths(hexagonal, (1, 0, 0)).shape == (1,)
    square = np.diag([2.0, 2.0, 9.0])
    assert np.allclose(lattice_lengths(square, (1, 1, 0)), [2, 2, 8**0.5])
    cubic = bulk("Po", "sc", a=3.0).cell.array
    assert np.allclose(lattice_lengths(cubic, (1, 1, 1)), [3, 3, 3, *[18**0.5] * 3])
    # The shortest non-zero lattice vector is the lattice constant, in any cell.
    leaning = np.array([[3.0, 0, 0], [60.0, 4.0, 0], [0, 0, 9.0]])
    assert lattice_lengths(leaning, (1, 1, 0))[0] == pytest.approx(3.0)


@pytest.mark.parametrize("seed", range(5))
def test_images_seen_from_a_few_are_those_seen_from_all(seed):
    atoms = random_crystal(seed)
    pos, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    some = np.array([len(atoms) - 1, 0])
    shift = periodic.images_seen_from(some, pos, cell, pbc)
    seen = np.linalg.norm(pos[None] + shift @ cell - pos[some, None], axis=2)
    np.testing.assert_allclose(seen, periodic.minimum_image(pos, cell, pbc)[1][some], atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_angle_pairs_are_all_pairs_of_chosen_edges_at_an_atom(seed):
    rng = np.random.default_rng(seed)
    receiver = rng.integers(0, 5, rng.integers(0, 30))  # in any order
    chosen = rng.random(len(receiver)) < 0.7
    expected = {
        (a, b)
        for a, b in product(range(len(receiver)), repeat=2)
        if a != b and receiver[a] == receiver[b] and chosen[a] and chosen[b]
    }
    pairs = periodic.angle_pairs(receiver, chosen)
    assert pairs.shape == (2, len(expected))
    assert set(map(tuple, pairs.T.tolist())) == expected
