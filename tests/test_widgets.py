"""The 3D view: structure, marks and ghosts in one frame. Pictures are tested in the browser."""

import numpy as np
import pytest
from ase import Atoms

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.widgets import view_defect
from defectkit.widgets.structure import _standard_form


@pytest.fixture
def vacancy():
    unit = HOSTS["SnS2"].unit_cell()
    unit.rotate(30, "z", rotate_cell=True)  # not the orientation that PDB text can hold
    site = next(s for s in find_sites(unit) if s.name == "cpx0")
    return make_defect(unit, (3, 3, 1), site, "Fe")


def test_ghosts_turn_with_the_atoms(vacancy):
    turned, points = _standard_form(vacancy.atoms, vacancy.positions)
    before = np.linalg.norm(vacancy.atoms.positions[:, None] - vacancy.positions, axis=-1)
    after = np.linalg.norm(turned.positions[:, None] - points, axis=-1)
    assert np.allclose(before, after)
    assert np.allclose(turned.cell[0, 1:], 0)
    assert np.allclose(turned.cell.cellpar(), vacancy.atoms.cell.cellpar())


def test_view_marks_atoms_and_ghosts_and_leaves_its_input_alone(vacancy):
    before = vacancy.atoms.copy()
    view = view_defect(vacancy.atoms, [3], vacancy.positions[1:])
    assert before == vacancy.atoms
    sent = {m["methodName"]: (m["args"], m["kwargs"]) for m in view._ngl_msg_archive}
    assert sent["addRepresentation"][1]["sele"] == "@3"  # the last one added
    (kind, centre, *_), *more = sent["addShape"][0][1]
    assert (kind, more) == ("sphere", [])
    assert np.allclose(centre, _standard_form(vacancy.atoms, vacancy.positions[1:])[1])


def test_view_works_without_any_mark():
    atoms = Atoms(
        "MoS2", positions=[[0, 0, 5], [1.6, 0.9, 6.5], [1.6, 0.9, 3.5]], cell=[3.2, 3.2, 10]
    )
    assert len(view_defect(atoms, [])._ngl_component_ids) == 1
