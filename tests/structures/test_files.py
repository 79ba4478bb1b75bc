import gzip
import os
import re
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, mx2
from ase.geometry import get_distances
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.structures.files import as_layer, read_structure, structure_in, write_structure
from defectkit.structures.hosts import VACUUM, as_slab

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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_read_as_their_file_is(tmp_path, name, packed):
    path = write_structure(layer(), tmp_path / name)
    raw = path.read_bytes()
    name = f"../{name}.gz" if packed else f"C:\\a folder\\{name}"
    again = structure_in(gzip.compress(raw) if packed else raw, name)
    assert again == read_structure(path)


@pytest.mark.parametrize(
    ("raw", "name", "words"),
    [
        (b"", "a.txt", "does not say the format"),
        (b"", "", "does not say the format"),
        (b"data", "a.cif.gz", "no whole gzip file"),
        (b"\x00", "POSCAR", "bytes that no text has"),
        (b"x" * 2_000_001, "a.cif", "longer than 2 MB"),
        (gzip.compress(b"x" * 2_000_001), "a.cif.gz", "longer than 2 MB"),
        (b"no crystal", "a.xyz", "no number of atoms"),
        (b"no crystal", "../../etc/a.xyz", "^a.xyz, line 1"),
    ],
)
def test_bytes_that_are_no_structure_get_a_reason(raw, name, words):
    with pytest.raises(DefectkitError, match=words):
        structure_in(raw, name, most=2_000_000)


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
    assert "3 lines of coordinates" in broken(tmp_path, "a.vasp", poscar[: len(poscar) // 2])
    assert "scale factor" in broken(tmp_path, "empty.vasp", "")
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


def lines_of(tmp_path, name: str) -> list[str]:
    return write_structure(layer(), tmp_path / name).read_text(encoding="utf-8").splitlines()


def test_a_lost_or_doubled_line_is_no_vacancy(tmp_path):
    cif, poscar, xyz = (lines_of(tmp_path, name) for name in ("a.cif", "a.vasp", "a.xyz"))
    for text in ("\n".join(cif[:-1]), "\n".join([*cif[:-3], *cif[-2:]])):
        said = broken(tmp_path, "b.cif", text + "\n")
        assert "Mo3 S8 W1" in said
        assert "Mo3 S7 W1" in said or "Mo2 S8 W1" in said
    for change, found in (([*poscar[:-1]], 11), ([*poscar, "1.0 1.0 1.0"], 13)):
        assert f"say 12 atoms and {found} lines" in broken(tmp_path, "b.vasp", "\n".join(change))
    for change, found in ((xyz[:-1], 11), ([*xyz, "Mo 1.0 1.0 1.0"], 13)):
        assert f"says 12 atoms and {found} lines" in broken(tmp_path, "b.xyz", "\n".join(change))
    assert "2 structures" in broken(tmp_path, "c.cif", "\n".join(cif * 2))


@pytest.mark.parametrize(
    ("formula", "units", "fits"),
    [
        ("Mo4 S8", None, True),
        ("MoS2", None, True),  # a unit of the formula, as databases write it
        ("Mo1 S2", 4, True),
        ("Mo4 S8", 4, True),  # what pymatgen and others write
        ("Mo1 S2", 5, False),
        ("Mo4 S9", None, False),
        ("Mo8 S16", None, False),
        ("?", None, True),
        ("Mo0.33 S0.67", None, True),
    ],
)
def test_formula_of_a_cif_is_that_of_its_cell_or_of_a_unit(tmp_path, formula, units, fits):
    atoms = as_slab(mx2("MoS2").repeat((2, 2, 1)))
    kept = (
        line
        for line in write_structure(atoms, tmp_path / "a.cif").read_text("utf-8").splitlines()
        if not line.startswith(("_cell_formula_units_Z", "_chemical_formula"))
    )
    said = f"_chemical_formula_sum '{formula}'\n" + f"_cell_formula_units_Z {units}\n" * bool(units)
    text = "\n".join(kept).replace("loop_", said + "loop_", 1)
    if fits:
        (tmp_path / "b.cif").write_text(text, encoding="utf-8")
        assert len(read_structure(tmp_path / "b.cif")) == 12
    else:
        assert "_chemical_formula_sum" in broken(tmp_path, "b.cif", text)


def test_dialects_of_poscar_are_read(tmp_path):
    lines = lines_of(tmp_path, "a.vasp")
    still = ["0.0 0.0 0.0"] * 12
    lattice = ["Lattice velocities and vectors", "1", *["0 0 0"] * 6]
    rest = ["", "1", "0.5E+00", "0 0 0 0", *["0 0 0"] * 36]
    head, species, points = lines[:5], lines[5].split(), lines[8:]
    dialects = {
        "blank lines": [*lines, "", "  ", ""],
        "velocities": [*lines, "", *still],
        "velocities as Cartesian": [*lines, "Cartesian", *still],
        "lattice velocities": [*lines, *lattice, "", *still],
        "dynamics": [*lines, "", *still, *rest],
        "selective": [*lines[:7], "Selective", lines[7], *[f"{p} T T F" for p in points]],
        "labels": [*lines[:8], *[f"{p} Mo1 ! a comment" for p in points]],
        "potentials": [*head, " ".join(f"{s}_pv/1a2b" for s in species), *lines[6:]],
        "no count": [*head, lines[5] + " Cr", lines[6] + " 0 ! none", *lines[7:]],
        "three scales": [lines[0], "1.0 1.0 1.0", *lines[2:]],
        "volume": [lines[0], f"{-layer().cell.volume:.9f}", *lines[2:]],
        "old": [lines[5], *lines[1:5], *lines[6:]],
    }
    for name, text in dialects.items():
        (tmp_path / "POSCAR").write_text("\n".join(text), encoding="utf-8")
        found = read_structure(tmp_path / "POSCAR")
        np.testing.assert_allclose(found.positions, layer().positions, atol=1e-6, err_msg=name)
        assert found.symbols.formula.count() == {"Mo": 3, "S": 8, "W": 1}, name
    with gzip.open(tmp_path / "b.vasp.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    assert len(read_structure(tmp_path / "b.vasp.gz")) == 12
    assert "11 lines of velocities" in broken(
        tmp_path, "POSCAR", "\n".join([*lines, "", *still[1:]])
    )
    assert "2 species" in broken(tmp_path, "POSCAR", "\n".join([*head, "Mo S", *lines[6:]]))


def test_encodings_and_line_ends(tmp_path):
    poscar = ["naïve µ", *lines_of(tmp_path, "a.vasp")[1:]]
    for encoding, end in (("utf-8-sig", "\r\n"), ("cp1252", "\r"), ("utf-8", "\n")):
        (tmp_path / "b.vasp").write_bytes(end.join(poscar).encode(encoding))
        assert len(read_structure(tmp_path / "b.vasp")) == 12
    cif = "\n".join(lines_of(tmp_path, "a.cif"))
    (tmp_path / "b.cif").write_text("\ufeff" + cif, encoding="utf-8")
    assert len(read_structure(tmp_path / "b.cif")) == 12
    (tmp_path / "c.cif").write_bytes(cif.encode("utf-16"))
    with pytest.raises(DefectkitError, match=r"c\.cif is encoded as UTF-16.*save it as UTF-8"):
        read_structure(tmp_path / "c.cif")
    (tmp_path / "d.cif").write_bytes(bytes(range(256)))
    with pytest.raises(DefectkitError, match=r"d\.cif holds bytes that no text has"):
        read_structure(tmp_path / "d.cif")


def test_occupancy_that_goes_without_saying(tmp_path):
    lines = [
        line[:-1] + "." if line.endswith(" 1") else line for line in lines_of(tmp_path, "a.cif")
    ]
    (tmp_path / "b.cif").write_text("\n".join(lines), encoding="utf-8")
    assert len(read_structure(tmp_path / "b.cif")) == 12


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz"])
def test_cell_without_a_third_vector_gets_a_height(tmp_path, name):
    for atoms in (mx2("MoS2", vacuum=None), graphene(vacuum=None)):
        atoms.write(tmp_path / name)
        found = read_structure(tmp_path / name)
        assert found.pbc.tolist() == [True, True, False]
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-6)
        assert found.cell[2, 2] == pytest.approx(np.ptp(atoms.positions[:, 2]) + VACUUM)
        assert as_layer(atoms).cell[2, 2] == pytest.approx(found.cell[2, 2])


def test_advice_fits_the_fault(tmp_path):
    lines = lines_of(tmp_path, "a.vasp")
    assert "scale factor is '0.0'" in broken(
        tmp_path, "b.vasp", "\n".join([lines[0], "0.0", *lines[2:]])
    )
    old = ["no symbols here", *lines[1:5], *lines[6:]]
    assert "add a line with the symbols" in broken(tmp_path, "b.vasp", "\n".join(old))
    assert "second vector is zero" in broken(
        tmp_path, "b.vasp", "\n".join([*lines[:3], "0 0 0", *lines[4:]])
    )
    (tmp_path / "folder.cif").mkdir()
    with pytest.raises(DefectkitError, match=r"folder\.cif is a folder"):
        read_structure(tmp_path / "folder.cif")
    with pytest.raises(DefectkitError, match=r"x\.cif cannot be opened"):
        read_structure(tmp_path / f"{'x' * 300}.cif")
    (tmp_path / "b.vasp.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:-20])
    with pytest.raises(DefectkitError, match=r"no whole gzip file"):
        read_structure(tmp_path / "b.vasp.gz")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_file_that_may_not_be_read(tmp_path):
    path = write_structure(layer(), tmp_path / "a.cif")
    path.chmod(0)
    with pytest.raises(DefectkitError, match=r"a\.cif may not be read \(permission denied\)"):
        read_structure(path)


def test_sizes_that_would_take_for_ever_are_refused_at_once(tmp_path):
    start = time.process_time()
    for factor in (1e6, 0.005):
        atoms = mx2("MoS2", vacuum=8.0)
        atoms.set_cell(atoms.cell.array * [[factor], [factor], [1]], scale_atoms=True)
        atoms.write(tmp_path / "a.xyz")
        with pytest.raises(DefectkitError, match=r"a\.xyz: its cell measures .* mend the cell"):
            read_structure(tmp_path / "a.xyz")
    xyz = lines_of(tmp_path, "a.xyz")
    assert "1000000000 atoms and 12 lines" in broken(
        tmp_path, "a.xyz", "\n".join(["1000000000", *xyz[1:]])
    )
    for vector in ("-1e308 0 0", "3.0 1e308 0", "inf 0 0"):
        poscar = lines_of(tmp_path, "a.vasp")
        assert "cell" in broken(tmp_path, "b.vasp", "\n".join([*poscar[:2], vector, *poscar[3:]]))
    atoms = layer()
    atoms.positions[4, 1] += 1e7
    atoms.write(tmp_path / "b.xyz")
    with pytest.raises(DefectkitError, match=r"number 4\) farther than"):
        read_structure(tmp_path / "b.xyz")
    large = as_slab(mx2("MoS2")).repeat((26, 26, 1))
    large.write(tmp_path / "large.cif")
    with pytest.raises(DefectkitError, match=r"2,028 atoms; 2,000 is the most.*POSCAR"):
        read_structure(tmp_path / "large.cif")
    assert len(read_structure(write_structure(large, tmp_path / "large.vasp"))) == 2028
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["a.cif", "a.vasp", "a.xyz"])
def test_unknown_symbols_are_named(tmp_path, name):
    text = "\n".join(lines_of(tmp_path, name))
    text = re.sub(r"(?m)\bW(\d*)\b", r"Qq\1", text)
    assert "Qq" in broken(tmp_path, name, text)
