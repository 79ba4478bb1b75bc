"""The sandbox: sliders move one atom, energy and forces follow, a relaxation can be stopped."""

import asyncio

import numpy as np
import pytest
from ase import Atoms

from defectkit.predict.answer import shipped_predictor
from defectkit.predict.calculator import DefectCalculator
from defectkit.structures.hosts import HOSTS
from defectkit.widgets import Sandbox, sandbox

HOST = HOSTS["MoS2"].unit_cell()
CHROMIUM = 27


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    """A chromium atom on MoS2."""
    sheet = HOST.repeat((3, 3, 1))
    top = sheet.positions[sheet.positions[:, 2].argmax()]
    return sheet + Atoms("Cr", [top + [1.6, 0.9, 0.9]])


@pytest.fixture
def box(atoms) -> Sandbox:
    return Sandbox(atoms, HOST, shipped_predictor("hybrid"))


def test_the_defect_comes_first_and_the_warning_is_plain(box):
    assert box.atom.value == CHROMIUM
    assert box.atom.options[0][0] == "27 Cr, adsorbate"
    assert "This is no force field." in box.children[0].value
    assert "CHGNet-0.3.0" in box.children[0].value


def test_a_slider_moves_its_atom_and_all_else_follows(box, atoms):
    before = bytes(box.picture.value), box.reading.value
    box.sliders[2].value = 0.4
    wanted = atoms.copy()
    wanted.positions[CHROMIUM, 2] += 0.4
    assert np.allclose(box.atoms.positions, wanted.positions)
    wanted.calc = DefectCalculator(shipped_predictor("hybrid"), HOST)
    assert box.energies[-1] == pytest.approx(wanted.get_potential_energy(), abs=1e-4)
    assert bytes(box.picture.value) != before[0]
    assert "27 Cr by 0.40 Å" in box.reading.value
    assert f"{box.energies[1] - box.energies[0]:+.2f} eV against the start" in box.reading.value
    assert np.array_equal(atoms.positions, box.start)


def test_another_atom_has_sliders_of_its_own(box):
    box.sliders[0].value = 0.3
    box.atom.value = 0
    assert [slider.value for slider in box.sliders] == [0, 0, 0]
    box.atom.value = CHROMIUM
    assert [slider.value for slider in box.sliders] == pytest.approx([0.3, 0, 0])
    assert len(box.energies) == 2, "choosing an atom moves none"


def test_relaxing_ends_lower_within_its_steps_and_reset_goes_back(box, atoms, monkeypatch):
    monkeypatch.setattr(sandbox, "STEPS", 5)
    box.sliders[2].value = 0.2
    box.relax.click()
    assert 2 < len(box.energies) <= 2 + 5 + 1
    assert box.energies[-1] < box.energies[1]
    assert box.relax.description == "Relax"
    assert not any(slider.disabled for slider in box.sliders)
    moved = box.atoms.positions[CHROMIUM] - atoms.positions[CHROMIUM]
    assert [slider.value for slider in box.sliders] == pytest.approx(moved, abs=1e-6)
    box.reset.click()
    assert np.array_equal(box.atoms.positions, atoms.positions)
    assert [slider.value for slider in box.sliders] == [0, 0, 0]
    assert len(box.energies) == 1


def test_a_relaxation_lets_clicks_through_and_stops_at_one(box):
    async def clicks() -> None:
        box.relax.click()
        await asyncio.sleep(0.02)
        assert box.relax.description == "Stop"
        assert box.sliders[0].disabled
        box.relax.click()
        await box._task

    asyncio.run(clicks())
    assert len(box.energies) < 5
    assert box.relax.description == "Relax"


def test_starting_anew_stops_a_relaxation(box, atoms):
    async def clicks() -> None:
        box.relax.click()
        await asyncio.sleep(0.02)
        box.reset.click()
        await box._task

    asyncio.run(clicks())
    assert np.array_equal(box.atoms.positions, atoms.positions)


def test_atoms_in_each_other_get_a_reason_and_no_arrows(box, atoms):
    onto = atoms.positions[0] - atoms.positions[CHROMIUM]
    for slider, length in zip(box.sliders, onto):
        slider.min, slider.max = -9, 9
        slider.value = float(length)
    assert "apart, less than half" in box.reading.value
    box.relax.click()
    assert "apart, less than half" in box.reading.value
    box.reset.click()
    assert "Energy" in box.reading.value
