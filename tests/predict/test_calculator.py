"""The ASE calculator: its forces and stress are the derivatives of its energy."""

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import BFGS

from defectkit import DefectkitError
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.calculator import DefectCalculator
from defectkit.structures.hosts import HOSTS

HOST = HOSTS["MoS2"].unit_cell()


@pytest.fixture
def chromium() -> Atoms:
    """A chromium atom on MoS2, off its place."""
    atoms = HOST.repeat((3, 3, 1))
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    atoms += Atoms("Cr", [top + [1.6, 0.9, 0.9]])
    atoms.rattle(0.05, seed=0)
    atoms.calc = DefectCalculator(shipped_predictor("hybrid"), HOST)
    return atoms


def test_forces_are_the_slope_of_the_energy(chromium):
    forces, step = chromium.get_forces(), 0.01
    assert forces.shape == (28, 3)
    for atom, axis in ((27, 2), (27, 0), (0, 1)):
        energies = []
        for sign in (1, -1):
            chromium.positions[atom, axis] += sign * step
            energies.append(chromium.get_potential_energy())
            chromium.positions[atom, axis] -= sign * step
        slope = (energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=0.02)
    assert np.abs(forces.sum(axis=0)).max() < 1e-3


def test_stress_is_the_slope_by_strain_in_the_plane(chromium):
    stress, step, cell = chromium.get_stress(voigt=False), 2e-3, chromium.cell.array.copy()
    assert not stress[2].any()
    for a, b in ((0, 0), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            chromium.set_cell(cell @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(chromium.get_potential_energy())
        chromium.set_cell(cell, scale_atoms=True)
        slope = (energies[0] - energies[1]) / (2 * step) / chromium.get_volume()
        assert stress[a, b] == pytest.approx(slope, rel=0.05, abs=2e-5)


def test_optimisers_of_ase_lower_the_energy(chromium):
    before = chromium.get_potential_energy()
    BFGS(chromium, logfile=None).run(fmax=0.05, steps=15)
    assert chromium.get_potential_energy() < before
    assert chromium.calc.results["energies"].shape == (3,)


def test_the_energy_at_the_start_is_the_prediction(chromium):
    said = shipped_predictor("hybrid").predict(chromium, host=HOST, relaxed=True)
    assert chromium.get_potential_energy() == pytest.approx(said.eform.item(), abs=1e-3)


def test_networks_of_sites_alone_are_refused():
    with pytest.raises(DefectkitError, match="sites of a defect alone"):
        DefectCalculator(shipped_predictor("sites"), HOST)
