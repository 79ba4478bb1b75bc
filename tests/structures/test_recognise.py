import ast
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import mx2

from defectkit import DefectkitError
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.files import read_structure
from defectkit.structures.hosts import HOSTS, as_slab
from defectkit.structures.lattice import aligned_setting, fill
from defectkit.structures.recognise import recognise, recognise_unrelaxed
from defectkit.structures.record import SiteKind


def mos2(repeat: int = 1) -> Atoms:
    return as_slab(mx2("MoS2", a=3.18, thickness=3.13)).repeat((repeat, repeat, 1))


def disturbed(atoms: Atoms, seed: int, drift=(0.3, -0.2, 0.25), noise: float = 0.05) -> Atoms:
    """Shuffled, rattled, moved as a whole, and wrapped into the cell."""
    rng = np.random.default_rng(seed)
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.positions += np.array(drift) + rng.normal(0.0, noise, (len(atoms), 3))
    atoms.wrap()
    return atoms


@pytest.mark.parametrize("host", ["MoS2", "SnSe2", "MoSSe", "Si2", "Ge2H2", "CrI3", "P4", "Ti2CO2"])
def test_every_kind_of_defect_is_found_again(host):
    unit = HOSTS[host].unit_cell()
    repeat = (2, 2, 1) if len(unit) > 4 else (3, 3, 1)
    for number, site in enumerate(find_sites(unit)):
        defect = make_defect(unit, repeat, site, "Au")
        atoms = disturbed(defect.atoms, number)
        found = recognise(atoms, unit)
        kind = found.defecttype
        # Where a flat or thin layer ends is a matter of its noise; what was added is not.
        if site.kind in ("adsorbate", "interstitial"):
            assert kind in ("adsorbate", "interstitial"), site
        else:
            assert kind == site.kind, site
        assert sorted(found.removed) == sorted(defect.removed), site
        assert set(atoms.symbols[found.defect_indices]) == ({"Au"} if site.has_dopant else set())
        assert len(found.vacancy_positions) == len(site.vacancies)
        assert not found.ambiguous, (site, found.reason)


def test_positions_of_a_vacancy_and_a_substitution():
    atoms = mos2(4)
    vacancy, replaced = atoms.positions[10].copy(), atoms.positions[3].copy()
    atoms.symbols[3] = "W"
    del atoms[10]
    found = recognise(atoms, mos2())
    assert found.removed == ("Mo", "S")
    assert found.site_kind[3] == SiteKind.SUBSTITUTION
    assert found.original_z[3] == 42
    assert (found.original_z != 0).all()
    np.testing.assert_allclose(found.vacancy_positions, [vacancy], atol=1e-6)
    np.testing.assert_allclose(found.defect_positions, [replaced, vacancy], atol=1e-6)
    assert found.defecttype == "complex"


def test_drift_of_the_whole_layer_is_taken_out():
    drift = np.array([0.4, -0.3, 0.2])
    atoms = mos2(4)
    vacancy = atoms.positions[10].copy()
    del atoms[10]
    atoms.positions += drift
    found = recognise(atoms, mos2())
    np.testing.assert_allclose(found.vacancy_positions, [vacancy + drift], atol=1e-3)
    np.testing.assert_allclose(found.ideal_positions, atoms.positions, atol=1e-3)


def test_sites_turn_with_the_crystal():
    atoms = disturbed(mos2(4), seed=1)
    del atoms[10]
    turned = atoms.copy()
    turned.rotate(37.0, "z", rotate_cell=True)
    found, again = recognise(atoms, mos2()), recognise(turned, mos2())
    cosine, sine = np.cos(np.radians(37.0)), np.sin(np.radians(37.0))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    assert np.allclose(found.vacancy_positions @ rotation.T, again.vacancy_positions, atol=1e-6)
    assert np.allclose(found.ideal_positions @ rotation.T, again.ideal_positions, atol=1e-6)


def test_added_atom_has_no_original_element():
    atoms = mos2(3) + Atoms("Li", [[0.0, 0.0, mos2().positions[:, 2].max() + 2.0]])
    found = recognise(atoms, mos2(3))
    assert found.defect_indices.tolist() == [27]
    assert found.site_kind[27] == SiteKind.ADSORBATE
    assert found.original_z[27] == 0
    np.testing.assert_allclose(found.defect_positions, atoms.positions[[27]])


def test_host_cell_may_be_a_unit_cell_a_supercell_or_strained():
    atoms = mos2(4)
    del atoms[5]
    cell = atoms.cell.array.copy()
    cell[:2] *= 1.02
    strained = atoms.copy()
    strained.set_cell(cell, scale_atoms=True)
    for structure in (atoms, strained):
        for host in (mos2(), mos2(2), mos2(4)):
            assert recognise(structure, host).defecttype == "vacancy"


def test_other_description_of_the_same_lattice():
    # a' = a, b' = a + b: 60 instead of 120 degrees.
    matrix = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    atoms = mos2(3)
    atoms.set_cell(matrix @ atoms.cell.array)
    atoms.symbols[4] = "Se"
    atoms.wrap()
    found = recognise(atoms, mos2())
    assert (found.defecttype, found.defect_indices.tolist()) == ("substitution", [4])


def test_origin_and_vacuum_elsewhere():
    atoms = mos2(4)
    del atoms[7]
    atoms.positions += [1.1, 2.3, -4.0]
    host = as_slab(mos2(), vacuum=25.0)
    found = recognise(atoms, host)
    assert (found.defecttype, found.removed, found.ambiguous) == ("vacancy", ("S",), False)


@pytest.mark.parametrize("host", ["CrI3", "BiI3", "Ti2CO2", "MoS2"])
def test_a_shift_onto_other_sites_of_the_same_element_is_seen(host):
    """In CrI3 a third of a lattice vector brings iodine onto iodine and chromium into hollows."""
    unit = HOSTS[host].unit_cell()
    pristine = unit.repeat((2, 2, 1))
    for n, m in ((1, 1), (1, 2), (2, 1)):
        atoms = pristine.copy()
        atoms.positions += (n * unit.cell[0] + m * unit.cell[1]) / 3 + [0.1, 0.05, 0]
        assert recognise(atoms, unit).defecttype == ""


def test_shortest_images_are_exact_in_a_skew_cell():
    host = Atoms("C5", positions=[[0, 0, 8 + 2 * k] for k in range(5)])
    host.cell = [[3.2, 0, 0], [1.6, 2.7713, 0], [0, 0, 30]]
    atoms = host.copy()
    # 1.56 Å from one image of its site and 1.65 Å from another; rounded fractional coordinates
    # would make it 2.6 Å.
    atoms.positions[2] += 0.49 * host.cell[0] + 0.46 * host.cell[1]
    found = recognise(atoms, host)
    assert found.defecttype == ""
    displacement = np.linalg.norm(found.ideal_positions - atoms.positions, axis=1)
    np.testing.assert_allclose(displacement, [0, 0, 1.5583, 0, 0], atol=1e-3)


def test_ambiguous_where_two_atoms_share_a_site():
    atoms = mos2(3)
    sulphur = 1
    extra = atoms.positions[sulphur] + [0.9, 0.0, 0.0]
    atoms.positions[sulphur] -= [0.9, 0.0, 0.0]
    found = recognise(atoms + Atoms("S", [extra]), mos2())
    assert found.ambiguous
    assert "added" in found.reason
    assert (found.site_kind != SiteKind.HOST).sum() == 1


def test_dopant_of_a_host_element_is_found_by_place():
    atoms = mos2(3) + Atoms("S", [[1.0, 1.0, mos2().positions[:, 2].max() + 2.0]])
    atoms = disturbed(atoms, 3)
    found = recognise(atoms, mos2())
    assert not found.ambiguous
    assert found.defect_indices.tolist() == [int(atoms.positions[:, 2].argmax())]


def test_ambiguous_where_an_atom_sits_between_two_vacant_sites():
    atoms = mos2(4)
    sulphur = [i for i in range(len(atoms)) if atoms.symbols[i] == "S"]
    first = sulphur[0]
    gaps = atoms.get_distances(first, sulphur[1:], mic=True)
    second = sulphur[1:][int(gaps.argmin())]  # straight below
    atoms.positions[first] = (atoms.positions[first] + atoms.positions[second]) / 2
    del atoms[second]
    found = recognise(atoms, mos2())
    assert found.ambiguous
    assert "vacant" in found.reason


def test_a_rebuilt_layer_is_called_so():
    rng = np.random.default_rng(0)
    atoms = mos2(3)
    atoms.positions += rng.uniform(-3, 3, (len(atoms), 3))
    found = recognise(atoms, mos2())
    assert found.ambiguous
    assert "rebuilt" in found.reason


def test_wrong_cells_are_refused():
    with pytest.raises(DefectkitError, match="no supercell"):
        recognise(mos2(3), HOSTS["P4"].unit_cell())
    tilted = mos2(3)
    tilted.rotate(20, "x", rotate_cell=True)
    with pytest.raises(DefectkitError, match="as_layer"):
        recognise(tilted, mos2())
    with pytest.raises(DefectkitError, match="no atom of the host"):
        recognise(Atoms("Au", cell=mos2().cell, positions=[[0, 0, 8]]), mos2())


def test_tiling_keeps_heights():
    host = as_slab(mos2(), vacuum=30.0)
    tiled = fill(host, mos2(3), aligned_setting(host, mos2(3)))
    assert len(tiled) == 27
    assert np.ptp(tiled.positions[:, 2]) == pytest.approx(3.13)


def test_input_is_not_changed():
    atoms = disturbed(mos2(3), 1)
    before = atoms.copy()
    recognise(atoms, mos2())
    assert atoms == before


def test_real_hosts_are_pristine_against_themselves(real_data):
    files = sorted((real_data / "imp2d_hosts").glob("*.vasp"))
    assert len(files) == 20
    for file in files:
        host = read_structure(file)
        rng = np.random.default_rng(len(file.stem))
        found = recognise(disturbed(host, 7, noise=0.02), host)
        assert (found.defecttype, found.ambiguous) == ("", False), file.stem
        lost = int(rng.integers(len(host)))
        found = recognise(disturbed(host[np.arange(len(host)) != lost], 8, noise=0.02), host)
        assert (found.defecttype, found.removed) == ("vacancy", (host.symbols[lost],)), file.stem


def test_real_2dmd_counts_agree_with_descriptors(real_data, pilot):
    folder = real_data / "2dmd_pilot"
    types = pd.read_csv(folder / "descriptors.csv", index_col="_id")
    targets = pd.read_csv(folder / "targets.csv.gz", index_col="_id")
    assert len(pilot) == 200
    for record in pilot.records:
        found = recognise(record.atoms, pilot.hosts[record.host])
        expected = ast.literal_eval(types.loc[targets.descriptor_id[record.uid]].defects)
        replaced = Counter((d["from"], d["to"]) for d in expected if d["type"] == "substitution")
        missing = Counter(d["element"] for d in expected if d["type"] == "vacancy")
        dopants = record.atoms.symbols[found.defect_indices]
        assert Counter(zip(found.removed, dopants)) == replaced
        assert Counter(found.removed[len(dopants) :]) == missing
        assert not found.ambiguous


@pytest.mark.parametrize("host", ["MoS2", "P4", "MoSSe"])
def test_the_order_of_the_cell_vectors_does_not_matter(host):
    unit = HOSTS[host].unit_cell()
    atoms = unit.repeat((3, 4, 1))
    lost = atoms.symbols[5]
    del atoms[5]
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    found = recognise(atoms, unit)
    assert (found.removed, found.ambiguous) == ((lost,), False)
    assert not found.setting.flipped
    assert found.rms < 1e-6


@pytest.mark.parametrize("host", ["MoS2", "P4", "CrI3", "Ge2H2", "Ti2CO2"])
def test_unrelaxed_structures_are_read_alike_and_faster(host):
    unit = HOSTS[host].unit_cell()
    rng = np.random.default_rng(0)
    whole = unit.repeat((4, 4, 1))
    for noise, direct in ((0.0, True), (0.01, True), (0.2, False)):
        atoms = whole.copy()
        atoms.positions += rng.normal(0.0, noise, (len(atoms), 3))
        atoms.symbols[rng.choice(len(atoms), 2, replace=False)] = "Au"
        atoms = atoms[rng.permutation(len(atoms))[2:]]
        atoms.wrap(pbc=(True, True, False))
        quick, general = recognise_unrelaxed(atoms, unit), recognise(atoms, unit)
        assert quick.defecttype == general.defecttype
        assert (quick.removed, quick.reason) == (general.removed, general.reason)
        for name in ("site_kind", "original_z", "ideal_positions", "vacancy_positions", "rms"):
            one, other = getattr(quick, name), getattr(general, name)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
        assert (quick.rms < 0.03) == direct
    adatom = whole + Atoms("Li", [[1.0, 1.0, whole.positions[:, 2].max() + 2.5]])
    assert recognise_unrelaxed(adatom, unit).defecttype == "adsorbate"
