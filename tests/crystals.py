"""Structures for the tests, and files of them."""

import numpy as np
from ase import Atoms
from hypothesis import strategies as st

from defectkit.structures.hosts import HOSTS

SEEDS = st.integers(0, 2**32 - 1)


def random_crystal(seed: int, pbc=None) -> Atoms:
    """One to six atoms in a cell of any shape: skewed, thin, left-handed, atoms outside of it."""
    rng = np.random.default_rng(seed)
    while True:
        cell = rng.normal(size=(3, 3)) * rng.uniform(1.0, 6.0, (3, 1))
        if rng.random() < 0.5:  # one vector leans far along another
            cell[1] = 0.6 * cell[1] + rng.integers(-3, 4) * cell[0]
        if abs(np.linalg.det(cell)) > 3.0:
            break
    n = rng.integers(1, 7)
    return Atoms(
        rng.integers(1, 93, n),
        positions=rng.uniform(-1.5, 2.5, (n, 3)) @ cell,
        cell=cell,
        pbc=rng.random(3) < 0.6 if pbc is None else pbc,
    )


def unimodular(rng: np.random.Generator, size: int = 3, steps: int = 4) -> np.ndarray:
    """A (3, 3) integer matrix of determinant 1 that mixes the first `size` vectors."""
    matrix = np.eye(3, dtype=int)
    for _ in range(steps):
        a, b = rng.permutation(size)[:2]
        matrix[a] += rng.integers(-2, 3) * matrix[b]
    return matrix


def host() -> Atoms:
    return HOSTS["MoS2"].unit_cell()


def defective(repeat: int = 3) -> Atoms:
    """MoS2 with a W on a Mo site, a missing S and a Li on top; slightly disturbed."""
    atoms = host().repeat((repeat, repeat, 1))
    atoms.symbols[0] = "W"
    top = atoms.positions[:, 2].max()
    del atoms[13]
    atoms += Atoms("Li", positions=[[*atoms.positions[12, :2], top + 1.2]])
    atoms.rattle(0.03, rng=np.random.default_rng(0))
    return atoms


def equal_crystals(atoms: Atoms) -> list[Atoms]:
    """A layer as it is, turned, moved, upside down, and with its atoms in another order."""
    turned, moved, flipped = atoms.copy(), atoms.copy(), atoms.copy()
    turned.rotate(37.0, "z", rotate_cell=True)
    moved.positions += [1.3, -7.1, 0.4]
    moved.wrap()
    flipped.positions[:, 2] = flipped.cell[2, 2] - flipped.positions[:, 2]
    return [atoms, turned, moved, flipped, atoms[np.random.default_rng(1).permutation(len(atoms))]]
