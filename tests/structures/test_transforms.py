"""Transforms: what each keeps, what it changes, and when it refuses to keep the label."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import find_mic
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list

from defectkit import DefectkitError
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS, supercell_size
from defectkit.structures.recognise import recognise
from defectkit.structures.record import DefectRecord
from defectkit.structures.transforms import (
    MAX_STRAIN,
    MIN_CONTACT,
    STIFFNESS,
    AffineStrain,
    Compose,
    CoordinateNoise,
    ElasticField,
    LabelNotKept,
    OrUnchanged,
    PadSupercell,
    PartlyRelaxed,
    Reflection,
    Rotation,
    dilation_field,
)

UNITS = {name: HOSTS[name].unit_cell() for name in ("MoS2", "MoSSe", "Si2", "CrI3", "P4")}
SITES = {name: {site.name: site for site in find_sites(unit)} for name, unit in UNITS.items()}


def defect(host="MoS2", site="sub1", dopant="Se", size=None, push=0.2) -> DefectRecord:
    """A defect whose neighbours stand `push` Å further away than before its relaxation."""
    unit = UNITS[host]
    size = size or supercell_size(unit)
    built = make_defect(unit, size, SITES[host][site], dopant)
    atoms = built.atoms.copy()
    vectors, distances = find_mic(atoms.positions - built.positions[0], atoms.cell, atoms.pbc)
    near = (distances > 0.1) & (distances < 2.6)
    atoms.positions[near] += push * vectors[near] / distances[near, None]
    return DefectRecord(
        uid=f"{host}_{dopant}_{site}",
        atoms=atoms,
        host=host,
        label_source="made up",
        removed=built.removed,
        eform=1.5,
        spin=1.0,
        en1=-99.0,
        en2=-100.0,
        hostenergy=-90.0,
        max_force=0.03,
        supercell=int("".join(map(str, size))),
        unrelaxed=built.atoms.positions,
        defect_positions=built.positions,
        site_magmoms=np.linspace(0.0, 0.05, len(atoms)),
    )


RECORDS = [defect(), defect("Si2", "vac0"), defect("P4", "ads1", "H"), defect("CrI3", "cpx1", "Br")]
TRANSFORMS = [
    Rotation(),
    Reflection("x"),
    Reflection("y"),
    Reflection("z"),
    PadSupercell(UNITS, extra=(1, 3)),
    CoordinateNoise(),
    AffineStrain(),
    PartlyRelaxed(),
    ElasticField(strength=(-0.05, 0.05)),
    Compose((Rotation(), AffineStrain(), OrUnchanged(CoordinateNoise()))),
]
records = st.sampled_from(RECORDS)
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shells(positions, atoms: Atoms, cutoff: float = 6.0) -> np.ndarray:
    """Sorted distances of all pairs, images included, with the elements of both ends."""
    placed = Atoms(atoms.numbers, positions=positions, cell=atoms.cell, pbc=atoms.pbc)
    i, j, distance = neighbour_list("ijd", placed, cutoff)
    pairs = np.column_stack([placed.numbers[i], placed.numbers[j], distance.round(6)])
    return pairs[np.lexsort(pairs.T[::-1])]


def values(record: DefectRecord) -> dict:
    """Every field, arrays copied."""
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    atoms = fields.pop("atoms")
    fields |= {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
    return {name: np.array(value) for name, value in fields.items()}


def assert_same(first: dict, second: dict) -> None:
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_input_is_left_alone_and_the_seed_decides(transform):
    for record in (defect(), defect("Si2", "vac0")):
        before = values(record)
        first, again = transform(record, rng(7)), transform(record, rng(7))
        assert first is not record
        assert first.atoms is not record.atoms
        first.atoms.positions += 1.0
        assert_same(before, values(record))
        first.atoms.positions -= 1.0
        for name, value in values(again).items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(values(first)[name], value, atol=1e-12, err_msg=name)


@given(records, rngs, st.sampled_from([Rotation(), *(Reflection(a, 1.0) for a in "xyz")]))
@settings(deadline=None)
def test_symmetries_keep_all_distances_and_labels(record, rng, transform):
    turned = transform(record, rng)
    for name in ("positions", "unrelaxed"):
        before = record.unrelaxed if name == "unrelaxed" else record.atoms.positions
        after = turned.unrelaxed if name == "unrelaxed" else turned.atoms.positions
        np.testing.assert_allclose(
            shells(after, turned.atoms), shells(before, record.atoms), atol=2e-6
        )
    # The defect is where it was among the atoms.
    before = record.atoms.positions[:, None] - record.defect_positions
    after = turned.atoms.positions[:, None] - turned.defect_positions
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), atol=1e-9
    )
    assert np.linalg.det(turned.atoms.cell.array) > 0
    assert turned.atoms.cell.volume == pytest.approx(record.atoms.cell.volume)
    np.testing.assert_allclose(turned.atoms.cell.array[2], record.atoms.cell.array[2], atol=1e-9)
    changed = {"positions", "cell", "unrelaxed", "defect_positions"}
    before, after = values(record), values(turned)
    assert_same(
        {k: v for k, v in before.items() if k not in changed},
        {k: v for k, v in after.items() if k not in changed},
    )


def test_rotation_by_a_right_angle():
    record = defect()
    turned = Rotation(angle=(np.pi / 2, np.pi / 2))(record, rng())
    x, y, z = record.atoms.positions.T
    np.testing.assert_allclose(turned.atoms.positions, np.column_stack([-y, x, z]), atol=1e-12)
    np.testing.assert_allclose(
        turned.atoms.cell.array[0, :2], [0, record.atoms.cell[0, 0]], atol=1e-12
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_reflection_reverses_one_axis_and_stays_in_the_cell(axis):
    record = defect("MoSSe", "ads4", "Li")
    mirrored = Reflection("xyz"[axis], probability=1.0)(record, rng())
    sign = np.where(np.arange(3) == axis, -1.0, 1.0)
    shift = mirrored.atoms.positions - sign * record.atoms.positions
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-9)
    before = np.linalg.solve(record.atoms.cell.array.T, record.atoms.positions.T)
    after = np.linalg.solve(mirrored.atoms.cell.array.T, mirrored.atoms.positions.T)
    inside = ((before > 0) & (before < 1)).all(axis=0)
    assert ((after > 0) & (after < 1)).all(axis=0)[inside].all()
    never = Reflection("x", probability=0.0)(record, rng())
    assert_same(values(record), values(never))


def test_padded_defect_is_the_one_built_in_the_larger_cell():
    for host, site, dopant in [
        ("MoS2", "sub1", "Se"),
        ("MoS2", "vac0", ""),
        ("MoSSe", "ads4", "Li"),
        ("Si2", "div0", ""),
        ("CrI3", "cpx1", "Br"),
        ("P4", "int0", "B"),
    ]:
        record = defect(host, site, dopant, push=0.0)
        for extra in (1, 2):
            padded = PadSupercell(UNITS, extra=(extra, extra))(record, rng())
            n, m, _ = supercell_size(UNITS[host])
            expected = defect(host, site, dopant, size=(n + extra, m + extra, 1), push=0.0)
            assert padded.supercell == expected.supercell
            assert padded.natoms == record.natoms + len(UNITS[host]) * (
                (n + extra) * (m + extra) - n * m
            )
            np.testing.assert_allclose(padded.atoms.cell.array, expected.atoms.cell.array)
            for made in (padded.atoms.positions, padded.unrelaxed):
                np.testing.assert_allclose(
                    shells(made, padded.atoms),
                    shells(expected.atoms.positions, expected.atoms),
                    atol=2e-6,
                )


def test_padding_keeps_the_relaxed_surroundings_and_lays_pristine_host_around():
    record = defect(size=(4, 4, 1))
    padded = PadSupercell(UNITS, extra=(2, 2))(record, rng())
    assert (padded.atoms.numbers[: record.natoms] == record.atoms.numbers).all()
    # Distances to the defect and the relaxation of every old atom are what they were.
    before, after = (
        find_mic(r.atoms.positions - r.defect_positions[0], r.atoms.cell, r.atoms.pbc)[1]
        for r in (record, padded)
    )
    np.testing.assert_allclose(after[: record.natoms], before, atol=1e-9)
    vectors = padded.atoms.positions - padded.unrelaxed
    np.testing.assert_allclose(
        vectors[: record.natoms], record.atoms.positions - record.unrelaxed, atol=1e-9
    )
    np.testing.assert_allclose(vectors[record.natoms :], 0.0, atol=1e-9)
    # Around an atom far from the defect lies what lies around one in the pristine crystal.
    far = int(after.argmax())
    pristine = UNITS["MoS2"].repeat((6, 6, 1))
    like = int(np.flatnonzero(pristine.numbers == padded.atoms.numbers[far])[0])
    around, expected = (
        np.sort(atoms.get_distances(index, range(len(atoms)), mic=True))[:25]
        for atoms, index in ((padded.atoms, far), (pristine, like))
    )
    np.testing.assert_allclose(around, expected, atol=1e-9)


def test_recognition_finds_the_same_defect_in_a_padded_cell():
    for record in (defect(push=0.1), defect("CrI3", "cpx1", "Br"), defect("P4", "ads1", "H")):
        padded = PadSupercell(UNITS, extra=(1, 1))(record, rng())
        before = recognise(record.atoms, UNITS[record.host])
        after = recognise(padded.atoms, UNITS[record.host])
        assert after.defecttype == before.defecttype
        assert after.removed == before.removed
        assert after.defect_indices.tolist() == before.defect_indices.tolist()
        assert not after.ambiguous
        gap = after.defect_positions - padded.defect_positions
        assert find_mic(gap, padded.atoms.cell, padded.atoms.pbc)[1].max() < 0.05


def test_padding_relabels_what_grows_with_the_cell():
    record = defect(size=(3, 3, 1), push=0.0)
    padded = PadSupercell(UNITS, extra=(1, 1))(record, rng())
    assert padded.eform == record.eform
    assert padded.hostenergy == pytest.approx(-90.0 * 16 / 9)
    assert padded.en2 - padded.hostenergy == pytest.approx(record.en2 - record.hostenergy)
    assert padded.en1 - padded.hostenergy == pytest.approx(record.en1 - record.hostenergy)
    assert np.isnan(padded.max_force)
    assert (padded.spin, len(padded.site_magmoms)) == (1.0, padded.natoms)
    magnetic = replace(record, site_magmoms=np.full(record.natoms, 3.0))
    for silent in (magnetic, replace(record, site_magmoms=None)):
        padded = PadSupercell(UNITS, extra=(1, 1))(silent, rng())
        assert np.isnan(padded.spin)
        assert padded.site_magmoms is None
    assert PadSupercell(UNITS, extra=(1, 1))(replace(record, supercell=0), rng()).supercell == 0


def test_padding_with_a_pristine_supercell_counts_in_these():
    record = defect(size=(3, 3, 1), push=0.0)
    hosts = {"MoS2": UNITS["MoS2"].repeat((3, 3, 1))}
    padded = PadSupercell(hosts, extra=(1, 1))(record, rng())
    assert (padded.supercell, padded.natoms) == (661, 4 * 27)


def test_padding_refuses_where_the_label_would_not_hold():
    pad = PadSupercell(UNITS, extra=(1, 1))
    with pytest.raises(LabelNotKept, match=r"6\.36 Å apart"):
        pad(defect(size=(2, 2, 1)), rng())
    record = defect(size=(4, 4, 1))
    gaps = record.atoms.positions - record.defect_positions[0]
    moved = record.atoms.copy()
    moved.positions[find_mic(gaps, moved.cell, moved.pbc)[1].argmax(), 2] += 0.06
    with pytest.raises(LabelNotKept, match=r"up to 0\.06 Å"):
        pad(replace(record, atoms=moved), rng())
    assert PadSupercell(UNITS, extra=(1, 1), tolerance=0.1)(replace(record, atoms=moved), rng())
    with pytest.raises(LabelNotKept, match="none found"):
        pad(replace(record, atoms=UNITS["MoS2"].repeat((3, 3, 1))), rng())
    with pytest.raises(DefectkitError, match="no pristine cell of MoS2"):
        PadSupercell({}, extra=(1, 1))(record, rng())
    with pytest.raises(DefectkitError, match="from 0"):
        PadSupercell(UNITS, extra=(2, 1))
    assert_same(values(record), values(PadSupercell({}, extra=(0, 0))(record, rng())))


def test_or_unchanged_passes_refusals_over_and_nothing_else():
    record = defect(size=(2, 2, 1))
    kept = OrUnchanged(PadSupercell(UNITS, extra=(1, 1)))(record, rng())
    assert_same(values(record), values(kept))
    assert kept.atoms is not record.atoms
    with pytest.raises(DefectkitError, match="no pristine cell"):
        OrUnchanged(PadSupercell({}, extra=(1, 1)))(record, rng())


@given(records, rngs, st.floats(0.001, 0.03))
@settings(deadline=None)
def test_noise_stays_below_its_energy_and_changes_positions_only(record, rng, sigma):
    try:
        noisy = CoordinateNoise(sigma, max_energy=0.2)(record, rng)
    except LabelNotKept:
        assume(False)
    u = noisy.atoms.positions - record.atoms.positions
    assert 0 < STIFFNESS / 2 * (u**2).sum() <= 0.2
    before, after = values(record), values(noisy)
    assert_same(before | {"positions": after["positions"]}, after)


def test_noise_refuses_what_costs_too_much():
    with pytest.raises(LabelNotKept, match=r"20 draws.*bound 0\.100"):
        CoordinateNoise(sigma=0.1)(defect(), rng())


def test_overlap_screen_rejects_even_what_is_cheap():
    # Two atoms at the limit: half of all draws bring them closer and are drawn again.
    contact = MIN_CONTACT * 2 * 0.76  # Å, carbon
    atoms = Atoms("C2", positions=[[0, 0, 5], [contact, 0, 5]], cell=[10, 10, 10], pbc=(1, 1, 0))
    record = DefectRecord("C2", atoms, "C2", "made up")
    for seed in range(20):
        noisy = CoordinateNoise()(record, rng(seed))
        assert noisy.atoms.get_distance(0, 1) >= contact
    # Outward fields of the one push the other away, inward ones never pass.
    held = replace(record, defect_positions=np.array([[0.0, 0.0, 5.0]]))
    assert ElasticField(strength=(0.02, 0.02))(held, rng()).atoms.get_distance(0, 1) > contact
    with pytest.raises(LabelNotKept, match=r"closest pair was at 0\.6"):
        ElasticField(strength=(-0.02, -0.02))(held, rng())


@given(records, rngs, st.floats(0.0, MAX_STRAIN))
@settings(deadline=None)
def test_strain_is_affine_in_the_plane(record, rng, limit):
    strained = AffineStrain(limit)(replace(record, strain=0.01), rng)
    np.testing.assert_allclose(
        strained.atoms.get_scaled_positions(wrap=False),
        record.atoms.get_scaled_positions(wrap=False),
        atol=1e-9,
    )
    deformation = np.linalg.solve(record.atoms.cell.array, strained.atoms.cell.array)
    np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
    np.testing.assert_allclose(deformation[2], [0, 0, 1], atol=1e-12)
    e = deformation - np.eye(3)
    assert np.abs(e).max() <= limit + 1e-12
    assert strained.strain == pytest.approx(1.01 * (1 + np.trace(e) / 2) - 1)
    np.testing.assert_allclose(strained.unrelaxed, record.unrelaxed @ deformation, atol=1e-9)
    np.testing.assert_allclose(
        strained.defect_positions, record.defect_positions @ deformation, atol=1e-9
    )
    assert (strained.eform, strained.spin) == (record.eform, record.spin)


def test_large_strain_is_refused():
    with pytest.raises(DefectkitError, match=r"between 0 and 0\.01"):
        AffineStrain(0.02)


@given(records, rngs, st.floats(0.0, 1.0))
@settings(deadline=None)
def test_partly_relaxed_lies_on_the_way(record, rng, t):
    # Images that differ between the two sets of positions do not matter.
    atoms = record.atoms.copy()
    atoms.positions += rng.integers(-1, 2, (len(atoms), 2)) @ atoms.cell.array[:2]
    wrapped = replace(record, atoms=atoms)
    part = PartlyRelaxed((t, t))(wrapped, rng).atoms
    expected = record.unrelaxed + t * (record.atoms.positions - record.unrelaxed)
    assert find_mic(part.positions - expected, part.cell, part.pbc)[1].max() < 1e-9
    assert np.abs(part.positions - atoms.positions).max() < 0.5  # no atom changed its image


def test_partly_relaxed_ends_are_exact():
    record = defect()
    end = PartlyRelaxed((1.0, 1.0))(record, rng())
    assert_same(values(record), values(end))
    start = PartlyRelaxed((0.0, 0.0))(record, rng())
    np.testing.assert_allclose(start.atoms.positions, record.unrelaxed, atol=1e-12)
    assert (start.eform, start.unrelaxed is record.unrelaxed) == (record.eform, True)


def test_relaxation_needs_to_know_its_start_and_its_defect():
    with pytest.raises(DefectkitError, match="no unrelaxed positions"):
        PartlyRelaxed()(replace(defect(), unrelaxed=None), rng())
    with pytest.raises(DefectkitError, match="where its defect is"):
        ElasticField()(replace(defect(), defect_positions=None), rng())
    with pytest.raises(DefectkitError, match="within"):
        PartlyRelaxed((0.5, 1.5))
    with pytest.raises(DefectkitError, match="no mirror"):
        Reflection("xy")


def test_elastic_field_decays_as_the_inverse_distance():
    cell = np.diag([400.0, 400.0, 20.0])
    r = np.array([5.0, 10.0, 20.0])[:, None]
    along = np.array([np.cos(0.7), np.sin(0.7), 0.0])
    field = dilation_field(r * along, cell, core=1.5)
    background = np.pi * r / 400.0**2  # under one hundredth: the cell keeps its area
    np.testing.assert_allclose(field, along * (1 / r - background), atol=1e-5)
    # Inside the core: u = r / c² to first order, nothing in the centre itself.
    field = dilation_field(np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 3.0]]), cell, core=1.5)
    np.testing.assert_allclose(field, [[0, 0, 0], [0.01 / 1.5**2, 0, 0]], atol=1e-6)


def test_elastic_field_is_that_of_all_images_on_a_neutralising_background():
    # Around the centre of a large disc of images the background adds -pi r / S to their sum.
    cell = np.array([[9.5, 0, 0], [-4.75, 8.227, 0], [0, 0, 20.0]])
    points = np.array([[2.0, 1.0, 0.0], [-1.0, 3.5, 0.0], [4.0, 0.0, 0.0]])
    n = np.arange(-400, 401)
    images = (np.stack(np.meshgrid(n, n), axis=-1) @ cell[:2]).reshape(-1, 3)
    images = images[np.linalg.norm(images, axis=1) < 2500]
    gaps = points[:, None] - images
    squares = (gaps**2).sum(-1, keepdims=True)
    summed = (gaps / squares * -np.expm1(-squares / 1.5**2)).sum(axis=1)
    background = np.pi * points / abs(np.linalg.det(cell[:2, :2]))
    np.testing.assert_allclose(dilation_field(points, cell, 1.5), summed - background, atol=2e-4)


@given(rngs, st.floats(0.0, 2 * np.pi))
@settings(deadline=None, max_examples=30)
def test_elastic_field_respects_symmetry(rng, angle):
    cell = np.diag([0.0, 0.0, 20.0])
    cell[:2, :2] = rng.normal(0.0, 5.0, (2, 2)) + np.diag([8.0, 8.0])
    assume(abs(np.linalg.det(cell)) > 400)
    points = rng.normal(0.0, 4.0, (6, 3))
    field = dilation_field(points, cell, 1.5)
    np.testing.assert_allclose(dilation_field(-points, cell, 1.5), -field, atol=1e-9)
    shifts = rng.integers(-3, 4, (6, 2)) @ cell[:2]
    np.testing.assert_allclose(dilation_field(points + shifts, cell, 1.5), field, atol=1e-8)
    other = cell.copy()
    other[1] += 2 * other[0]
    np.testing.assert_allclose(dilation_field(points, other, 1.5), field, atol=1e-8)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        dilation_field(points @ turn, cell @ turn, 1.5), field @ turn, atol=1e-8
    )


def test_elastic_field_around_a_threefold_site_is_threefold():
    record = defect("MoS2", "sub0", "W", push=0.0)
    moved = ElasticField(strength=(0.1, 0.1))(record, rng())
    u = moved.atoms.positions - record.atoms.positions
    vectors, distances = find_mic(
        record.atoms.positions - record.defect_positions[0], record.atoms.cell, record.atoms.pbc
    )
    shell = np.argsort(distances)[1:7]  # six sulphur atoms
    np.testing.assert_allclose(u[distances < 0.1], 0.0, atol=1e-12)
    radial = (u[shell] * vectors[shell]).sum(axis=1)
    np.testing.assert_allclose(radial, radial[0], atol=1e-9)
    assert radial[0] > 0
    np.testing.assert_array_equal(u[:, 2], 0.0)
