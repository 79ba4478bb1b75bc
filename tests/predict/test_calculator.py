"""The ASE calculator: its forces and stress are the derivatives of its energy."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS

from defectkit import DefectkitError
from defectkit.data.potential import ChgnetCalculator
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.calculator import DefectCalculator, pulled
from defectkit.structures.defects import defects_of
from defectkit.structures.hosts import HOSTS

HOST = HOSTS["MoS2"].unit_cell()


class Flat(Calculator):
    """An energy that no displacement changes, eV."""

    implemented_properties = ["energy"]  # noqa: RUF012 (ASE's interface)

    def calculate(self, *asked, **settings) -> None:
        super().calculate(*asked, **settings)
        self.results = {"energy": 1.0}


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


def test_a_pull_is_counted_from_the_start_and_names_the_members(chromium):
    before = chromium.positions.copy()
    table = pulled(
        chromium, 27, (0, 0, 2), [-0.4, 0.0, 0.4], {"networks": chromium.calc, "CHGNet": Flat()}
    )
    assert table.columns.tolist() == ["network 0", "network 1", "network 2", "networks", "CHGNet"]
    assert table.index.tolist() == [-0.4, 0.0, 0.4]
    assert table.loc[0.0].abs().max() < 1e-5
    members = table[["network 0", "network 1", "network 2"]]
    assert np.allclose(members.mean(axis=1), table.networks, atol=1e-5)
    assert np.array_equal(chromium.positions, before)
    start = chromium.get_potential_energy()
    chromium.positions[27, 2] += 0.4
    assert table.networks[0.4] == pytest.approx(chromium.get_potential_energy() - start, abs=1e-4)


def test_a_pull_needs_a_direction(chromium):
    with pytest.raises(DefectkitError, match="direction of the pull is zero"):
        pulled(chromium, 27, (0, 0, 0), [0.1], {"networks": chromium.calc})


@pytest.mark.slow
def test_the_networks_let_an_atom_into_the_sheet_where_chgnet_does_not():
    """What the warning of the sandbox and notebook 08 say, measured."""
    atoms = defects_of(HOST, add="Cr")["ads1"].atoms
    both = {
        "networks": DefectCalculator(shipped_predictor("hybrid"), HOST),
        "CHGNet": ChgnetCalculator(),
    }
    table = pulled(atoms, len(atoms) - 1, (0, 0, 1), [-0.8, 0.0], both)
    assert table.CHGNet[-0.8] > table.networks[-0.8] + 0.5
