import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, mx2
from ase.geometry import get_distances
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.structures.files import as_layer, read_structure, write_structure
from defectkit.structures.hosts import as_slab

NAMES = ["a.cif", "a.vasp", "POSCAR_1", "a.xyz", "a.extxyz"]


def layer() -> Atoms:
    atoms = as_slab(mx2("MoS2").repeat((2, 2, 1)))
    atoms.symbols[3] = "W"
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, (len(atoms), 3))
    return atoms


def distances_by_element(atoms: Atoms) -> np.ndarray:
    order = np.argsort(atoms.numbers, kind="stable")
    atoms = atoms[order]
    return get_distances(atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[1]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_again(tmp_path, name):
    atoms = layer()
    again = read_structure(write_structure(atoms, tmp_path / name))
    assert sorted(again.numbers) == sorted(atoms.numbers)
    assert again.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(again.cell.cellpar(), atoms.cell.cellpar(), atol=1e-6)
    ours, theirs = distances_by_element(atoms), distances_by_element(again)
    np.testing.assert_allclose(np.sort(theirs, axis=None), np.sort(ours, axis=None), atol=1e-6)


def test_coordinates_of_cif_are_not_rounded_to_fractions(tmp_path):
    atoms = Atoms("Mo", scaled_positions=[[0.33334, 0.66664, 0.5]], cell=layer().cell, pbc=True)
    again = read_structure(write_structure(atoms, tmp_path / "a.cif"))
    np.testing.assert_allclose(again.get_scaled_positions()[0, :2], [0.33334, 0.66664], atol=1e-7)


def broken(tmp_path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DefectkitError) as caught:
        read_structure(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_faults_are_named(tmp_path):
    good = layer()
    poscar = write_structure(good, tmp_path / "good.vasp").read_text(encoding="utf-8")
    cif = write_structure(good, tmp_path / "good.cif").read_text(encoding="utf-8")
    xyz = write_structure(good, tmp_path / "good.xyz").read_text(encoding="utf-8")

    assert "export it again" in broken(tmp_path, "a.cif", cif[: len(cif) // 3])
    assert "export it again" in broken(tmp_path, "b.cif", "this is no CIF")
    assert "export it again" in broken(tmp_path, "a.vasp", poscar[: len(poscar) // 2])
    assert "export it again" in broken(tmp_path, "empty.vasp", "")
    assert "2 structures" in broken(tmp_path, "a.xyz", xyz + xyz)
    assert "Xx" in broken(tmp_path, "c.cif", cif.replace(" W ", " Xx ").replace("W1", "Xx"))
    assert "Qq" in broken(tmp_path, "b.vasp", poscar.replace(" W ", " Qq "))
    assert "Qq" in broken(tmp_path, "b.xyz", xyz.replace("\nW ", "\nQq "))
    assert "occupied" in broken(tmp_path, "d.cif", cif.rstrip().removesuffix("1") + "0.5\n")
    assert "no cell" in broken(tmp_path, "d.xyz", "1\n\nMo 0 0 0\n")
    assert "no atoms" in broken(tmp_path, "e.xyz", '0\nLattice="3 0 0 0 3 0 0 0 20"\n')


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(DefectkitError, match="no such file"):
        read_structure(tmp_path / "none.cif")
    with pytest.raises(DefectkitError, match="format"):
        read_structure(tmp_path / "a.txt")
    with pytest.raises(DefectkitError, match="cannot be written"):
        write_structure(layer(), tmp_path / "no" / "folder" / "a.vasp")


def test_atoms_that_overlap_or_are_nowhere_are_named(tmp_path):
    atoms = layer()
    atoms.positions[5] = atoms.positions[3] + [0.1, 0, 0] + atoms.cell[0]
    with pytest.raises(DefectkitError, match=r"W \(number 3\).*number 5\) are 0.10 Å apart"):
        write_structure(atoms, tmp_path / "a.xyz")
    atoms = layer()
    atoms.positions[2, 1] = np.nan
    with pytest.raises(DefectkitError, match=r"number 2\) is not a number"):
        write_structure(atoms, tmp_path / "a.xyz")


def test_bulk_is_no_layer(tmp_path):
    bulk("Cu", cubic=True).write(tmp_path / "a.vasp")
    with pytest.raises(DefectkitError, match="no layer"):
        read_structure(tmp_path / "a.vasp")


def test_layer_cut_by_the_boundary_is_joined():
    atoms = layer()
    thickness = np.ptp(atoms.positions[:, 2])
    cut = atoms.copy()
    cut.pbc = True
    cut.positions[:, 2] -= atoms.positions[:, 2].mean()
    cut.wrap()
    assert np.ptp(cut.positions[:, 2]) > 2 * thickness
    assert np.ptp(as_layer(cut).positions[:, 2]) == pytest.approx(thickness)


def test_whole_layer_keeps_its_coordinates():
    atoms = layer()
    atoms.pbc = True
    atoms.positions[0] -= atoms.cell[0]  # outside the cell in the plane: no matter
    np.testing.assert_array_equal(as_layer(atoms).positions, atoms.positions)


@settings(max_examples=25, deadline=None)
@given(st.floats(-180, 180), st.floats(-180, 180), st.floats(0, 1), st.floats(-0.4, 0.4))
def test_layers_in_any_orientation_keep_their_distances(phi, theta, offset, tilt):
    atoms = layer()
    reference = get_distances(atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[1]
    atoms.set_cell(atoms.cell.array + [[0] * 3, [0] * 3, tilt * atoms.cell.array[0]])
    atoms.pbc = True
    atoms.positions += offset * atoms.cell.array[2]
    atoms.rotate(phi, "x", rotate_cell=True)
    atoms.rotate(theta, "y", rotate_cell=True)
    atoms.wrap()
    turned = as_layer(atoms)
    assert np.abs(turned.cell.array[:2, 2]).max() < 1e-6
    found = get_distances(turned.positions, cell=turned.cell, pbc=turned.pbc)[1]
    np.testing.assert_allclose(found, reference, atol=1e-6)
