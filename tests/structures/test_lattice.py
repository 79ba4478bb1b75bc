"""One crystal, however written: turned, flipped, in other supercells, strained, reordered."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, make_supercell
from crystals import SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.predict.predictor import Predictor
from defectkit.structures.hosts import HOSTS, as_slab
from defectkit.structures.lattice import MAX_SHEAR, MAX_STRAIN, aligned_setting, every_setting, fill
from defectkit.structures.recognise import recognise
from defectkit.structures.record import DefectRecord
from defectkit.training.pretrained import CHECKPOINTS


def puckered() -> Atoms:
    """Like GeSe: rectangular, nearly square, polar along x."""
    x = [0.0, 1.9, 2.2, 4.1]
    positions = [(x[0], 0, 0), (x[1], 0, 0.3), (x[2], 2, 2.6), (x[3] - 0.2, 2, 2.3)]
    return as_slab(Atoms("GeSeGeSe", positions=positions, cell=[4.29, 3.98, 20.0]))


PROTOTYPES = {
    **{name: HOSTS[name].unit_cell for name in ("MoS2", "SnSe2", "MoSSe", "P4", "CrI3", "Si2")},
    "C2": lambda: as_slab(graphene("C2", a=2.46)),
    "BN": lambda: as_slab(graphene("BN", a=2.51)),
    "GeSe": puckered,
}


def turned(atoms: Atoms, degrees: float) -> Atoms:
    atoms = atoms.copy()
    atoms.rotate(degrees, "z", rotate_cell=True)
    return atoms


def upside_down(atoms: Atoms) -> Atoms:
    """Turned by 180 degrees about x."""
    atoms = atoms.copy()
    height = atoms.cell[2, 2]
    atoms.positions *= [1, -1, -1]
    atoms.positions[:, 2] += height
    atoms.set_cell(atoms.cell.array * [[1, -1, 1], [1, -1, 1], [1, 1, 1]])
    return atoms


def integer_matrix(rng: np.random.Generator, unit: Atoms) -> np.ndarray:
    """(3, 3), a supercell of 20 to 60 atoms that is not thin, of either handedness."""
    while True:
        matrix = np.eye(3, dtype=int)
        matrix[:2, :2] = rng.integers(-5, 6, (2, 2))
        size = abs(round(np.linalg.det(matrix)))
        cell = (matrix @ unit.cell.array)[:2, :2]
        if not 20 <= size * len(unit) <= 60 or size < 4:
            continue
        shortest = np.linalg.norm(np.array([[1, 0], [0, 1], [1, 1], [1, -1]]) @ cell, axis=1).min()
        if shortest > 5.5:
            return matrix


def with_defect(rng: np.random.Generator, atoms: Atoms) -> tuple[Atoms, str, list[str], list[str]]:
    """A vacancy, a substitution or both; its kind, what is removed and what is added."""
    atoms, first, second = atoms.copy(), *rng.choice(len(atoms), 2, replace=False)
    kind = rng.choice(["vacancy", "substitution", "complex"])
    removed, added = [], []
    if kind != "vacancy":
        removed.append(atoms.symbols[second])
        atoms.symbols[second] = "Au"
        added = ["Au"]
    if kind != "substitution":
        removed.append(atoms.symbols[first])
        del atoms[int(first)]
    return atoms, str(kind), sorted(removed), added


@pytest.mark.parametrize("name", PROTOTYPES)
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS)
def test_a_defect_is_the_same_however_crystal_and_host_are_written(name, seed):
    rng = np.random.default_rng(seed)
    unit = PROTOTYPES[name]()
    matrix = integer_matrix(rng, unit)
    if np.linalg.det(matrix) > 0:
        whole = make_supercell(unit, matrix)
    else:
        whole = make_supercell(unit, matrix[[1, 0, 2]])
        whole.set_cell(whole.cell.array[[1, 0, 2]])
    atoms, kind, removed, added = with_defect(rng, whole)
    strain = np.eye(3)
    strain[:2, :2] *= 1 + rng.uniform(-0.045, 0.045)
    strain[0, 1] = strain[1, 0] = rng.uniform(-0.01, 0.01)
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.normal(0.0, 0.02, (len(atoms), 3)) + rng.uniform(-3, 3, 3)
    atoms = turned(atoms, rng.uniform(0, 360))[rng.permutation(len(atoms))]
    if rng.random() < 0.5:
        atoms = upside_down(atoms)
    if rng.random() < 0.5:
        atoms.wrap()
    host = turned(unit, rng.uniform(0, 360))
    if rng.random() < 0.5:
        host = upside_down(host)
    if rng.random() < 0.5:
        host.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ host.cell.array)
    found = recognise(atoms, host)
    assert (found.defecttype, sorted(found.removed)) == (kind, removed), found.doubt
    assert list(atoms.symbols[found.defect_indices]) == added
    assert not found.ambiguous, found.reason
    assert found.rms < 0.13
    assert found.setting.size == round(abs(np.linalg.det(matrix)))
    assert np.linalg.det(found.setting.rotation) == pytest.approx(1)
    # The host's cell, repeated, turned and strained, is that of the structure.
    inplane = found.setting.matrix @ host.cell.array[:2, :2] @ found.setting.deformation
    np.testing.assert_allclose(inplane, atoms.cell.array[:2, :2], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, strain=st.floats(-0.075, 0.075), shear=st.floats(-0.025, 0.025))
def test_no_setting_within_the_bounds_is_missed(seed, strain, shear):
    rng = np.random.default_rng(seed)
    unit = PROTOTYPES[rng.choice(list(PROTOTYPES))]()
    matrix = integer_matrix(rng, unit)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    deformation = np.diag([1 + strain + shear, 1 + strain - shear]) @ turn
    atoms = Atoms(cell=np.eye(3) * 20, pbc=True)
    atoms.cell[:2, :2] = matrix[:2, :2] @ unit.cell.array[:2, :2] @ deformation
    found = every_setting(unit, atoms)
    assert any((setting.matrix == matrix[:2, :2]).all() for setting in found)
    for setting in found:
        assert abs(setting.strain.mean()) <= MAX_STRAIN
        assert np.ptp(setting.strain) <= 2 * MAX_SHEAR


def test_named_supercells_of_a_hexagonal_layer():
    unit = HOSTS["MoS2"].unit_cell()
    for rows, size in (
        ([[2, 1], [-1, 1]], 3),
        ([[3, 1], [-1, 2]], 7),
        ([[3, 2], [-2, 1]], 7),
        ([[4, 2], [-2, 2]], 12),
        ([[4, 0], [2, 4]], 16),
        ([[5, 3], [-3, 2]], 19),
    ):
        matrix = np.eye(3, dtype=int)
        matrix[:2, :2] = rows
        atoms = make_supercell(unit, matrix)
        atoms.symbols[0] = "W"
        found = recognise(turned(atoms, 17), unit)
        assert (found.defecttype, found.removed, found.setting.size) == (
            "substitution",
            ("Mo",),
            size,
        )
        assert found.rms < 1e-3


def test_a_janus_layer_may_lie_upside_down():
    unit = HOSTS["MoSSe"].unit_cell()
    atoms = unit.repeat((3, 3, 1))
    atoms += Atoms("Li", [[0.0, 0.0, atoms.positions[:, 2].max() + 1.5]])
    upright, flipped = recognise(atoms, unit), recognise(upside_down(atoms), unit)
    assert not upright.setting.flipped
    assert flipped.setting.flipped
    for found in (upright, flipped):
        assert (found.defecttype, found.ambiguous) == ("adsorbate", False)
        assert found.rms < 1e-3


def chiral() -> Atoms:
    """A layer without any mirror, inversion or rotation-reflection."""
    unit = Atoms(
        "GaClBrS",
        positions=[(0, 0, 0), (1.9, 0.3, 1.1), (0.6, 2.1, -0.9), (2.7, 2.4, 0.4)],
        cell=[[4.6, 0, 0], [0.9, 4.2, 0], [0, 0, 20]],
    )
    return as_slab(unit)


def test_the_mirror_image_of_a_chiral_layer_is_another_crystal():
    unit = chiral()
    mirrored = unit.repeat((3, 3, 1))
    mirrored.positions[:, 2] = 2 * mirrored.positions[:, 2].mean() - mirrored.positions[:, 2]
    assert recognise(upside_down(unit.repeat((3, 3, 1))), unit).rms < 1e-3
    found = recognise(mirrored, unit)
    assert found.doubt
    assert found.rms > 0.3


@pytest.mark.parametrize("name", ["MoS2", "SnSe2", "Ti2CO2", "CrI3", "GeSe"])
def test_the_mirror_image_of_another_layer_is_itself_turned(name):
    unit = (PROTOTYPES.get(name) or HOSTS[name].unit_cell)()
    mirrored = unit.repeat((3, 3, 1))
    mirrored.positions[:, 2] = 2 * mirrored.positions[:, 2].mean() - mirrored.positions[:, 2]
    found = recognise(mirrored, unit)
    assert (found.defecttype, found.doubt) == ("", "")
    assert found.rms < 0.05


def test_strain_beyond_the_bounds_is_refused_and_large_strain_is_marked():
    unit = HOSTS["SnSe2"].unit_cell()
    atoms = unit.repeat((3, 3, 1))
    del atoms[4]
    for factor, doubt in ((1.03, ""), (1.065, "strain of 6.5%"), (0.935, "strain of 6.5%")):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * [[factor], [factor], [1]], scale_atoms=True)
        found = recognise(strained, unit)
        assert (found.removed, found.setting.size) == (("Se",), 9)
        assert doubt in found.doubt
        assert bool(found.doubt) == bool(doubt)
    for factors in ((1.11, 1.11), (1.06, 0.96)):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ np.diag([*factors, 1]), scale_atoms=True)
        with pytest.raises(DefectkitError, match="no supercell"):
            recognise(strained, unit)


def test_the_size_of_a_large_strained_cell_is_right():
    """At 4 % of strain a row of sixteen cells is as long as one of 15.4 or 16.7."""
    unit = HOSTS["MoS2"].unit_cell()
    for factor in (0.96, 1.04):
        atoms = unit.repeat((16, 16, 1))
        del atoms[100]
        atoms.set_cell(atoms.cell.array * [[factor], [factor], [1]], scale_atoms=True)
        found = recognise(atoms, unit)
        assert (found.defecttype, found.setting.size) == ("vacancy", 256)


def test_a_host_of_other_elements_is_refused():
    atoms = HOSTS["MoS2"].unit_cell().repeat((3, 3, 1))
    host = HOSTS["MoS2"].unit_cell()
    host.symbols = ["Mo", "Te", "Te"]
    with pytest.raises(DefectkitError, match="9 of the 27 atoms"):
        recognise(atoms, host)
    host.symbols = ["Au", "Au", "Au"]
    with pytest.raises(DefectkitError, match="no atom of the host"):
        recognise(atoms, host)


def test_absurd_cells_are_refused_at_once():
    unit = HOSTS["MoS2"].unit_cell()
    for length in (1e6, 0.02):
        with pytest.raises(DefectkitError, match="no supercell"):
            recognise(Atoms("Mo", cell=[length, length, 20], pbc=(1, 1, 0)), unit)


def test_real_hosts_of_other_potentials_are_read(real_data):
    """The same materials, relaxed with PBE and with the demo's potential; one is 5.5 % apart."""
    from defectkit.structures.files import read_structure

    hosts = load("demo").hosts
    for name in ("NiSe2", "SnSe2", "Ti2CO2", "MoS2", "HfS2"):
        atoms = read_structure(real_data / "imp2d_hosts" / f"{name}.vasp")
        found = recognise(turned(atoms, 20.0), hosts[name])
        assert (found.defecttype, found.ambiguous) == ("", False), name


@pytest.fixture(scope="module")
def hybrid() -> Predictor:
    return Predictor.load(CHECKPOINTS / "hybrid.safetensors")


def test_predictions_do_not_depend_on_how_the_host_is_written(hybrid):
    data = load("demo")
    uids = ["MoS2_X_vac1", "MoSSe_Cu_int1", "Cr2I6_X_vac0", "P4_X_vac0"]
    frame = data.frame
    chosen = [uid for uid in uids if uid in frame.index]
    chosen += list(frame[frame.host.isin(["WSe2", "Si2", "MoSSe"])].index[::90])
    records = [data[uid] for uid in chosen]
    given_hosts = {record.host: data.hosts[record.host] for record in records}
    want = hybrid(records, given_hosts)
    written = {
        "turned by 180": lambda unit: turned(unit, 180),
        "turned by 37": lambda unit: turned(unit, 37),
        "flipped": upside_down,
        "another origin": lambda unit: Atoms(
            unit.numbers, positions=unit.positions + [0.7, 1.9, 3.0], cell=unit.cell, pbc=unit.pbc
        ),
    }
    for how, write in written.items():
        table = hybrid(records, {name: write(unit) for name, unit in given_hosts.items()})
        clear = ~want.reading.str.contains("could as well|rebuilt")
        assert (table.eform - want.eform)[clear].abs().max() < 1e-4, how
        assert (table.verdict == want.verdict)[clear].all(), how


def test_structures_may_be_turned_and_flipped_as_well(hybrid):
    data = load("demo")
    clear = data.frame.query("defecttype == 'vacancy'").groupby("host").head(1).index[:12]
    records = [data[uid] for uid in clear]
    want = hybrid(records, data.hosts)
    for how, write in (("turned", lambda a: turned(a, 77)), ("flipped", upside_down)):
        moved = [
            DefectRecord(
                r.uid, write(r.atoms), r.host, r.label_source, dopant=r.dopant, removed=r.removed
            )
            for r in records
        ]
        table = hybrid(moved, data.hosts)
        assert (table.eform - want.eform).abs().max() < 1e-4, how


@pytest.mark.parametrize("name", PROTOTYPES)
def test_every_origin_of_the_host_is_found(name):
    """Half of a lattice vector brings most atoms of a puckered layer near others of its own."""
    unit = PROTOTYPES[name]()
    pristine = unit.repeat((3, 3, 1))
    for a in (0.0, 0.25, 0.5, 0.8):
        for b in (0.0, 0.3, 0.5):
            atoms = pristine.copy()
            atoms.positions += a * unit.cell[0] + b * unit.cell[1] + [0, 0, 1.0]
            atoms.rattle(0.03, seed=1)
            assert recognise(atoms, unit).rms < 0.1, (a, b)


def test_fill_keeps_the_number_of_atoms():
    unit = HOSTS["P4"].unit_cell()
    atoms = unit.repeat((3, 2, 1))
    assert len(fill(unit, atoms, aligned_setting(unit, atoms))) == 24
