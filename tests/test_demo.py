"""How the demo database is made: candidates, labels, resuming."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import molecule
from ase.db import connect

from defectkit.data import candidates, demo, potential
from defectkit.data.candidates import (
    DOPANTS,
    MAX_STRAIN,
    NO_DOPANT,
    SHARES,
    STRAINED_SHARE,
    STRAINS,
)
from defectkit.structures.hosts import HOSTS, supercell_size


@pytest.fixture(scope="module")
def calculator():
    return potential.ChgnetCalculator()


@pytest.fixture(scope="module")
def hosts():
    units = {name: HOSTS[name].unit_cell() for name in ("MoS2", "SnS2", "P4")}
    return {n: demo.HostReference(u, supercell_size(u), -1.0, 1) for n, u in units.items()}


def test_candidates_are_seeded_unique_and_in_proportion(hosts):
    first, again = demo.candidates(hosts, 0), demo.candidates(hosts, 0)
    assert [c.name for c in first] == [c.name for c in again]
    assert [c.name for c in first] != [c.name for c in demo.candidates(hosts, 1)]
    assert len({c.name for c in first}) == len(first)
    for n in (50, 100, 300):  # later the vacancies run out
        counts = Counter(c.site.kind for c in first[:n])
        for kind, share in SHARES.items():
            assert 100 * counts[kind] / n == pytest.approx(share, abs=4), (n, kind)
    assert {c.dopant for c in first} == {*DOPANTS, NO_DOPANT}
    with_dopant = [c for c in first if c.site.has_dopant]
    strained = [c for c in with_dopant if c.strain]
    assert 100 * len(strained) / len(with_dopant) == pytest.approx(STRAINED_SHARE, abs=3)
    assert {c.strain for c in strained} == set(STRAINS)
    assert all(abs(strain) <= MAX_STRAIN == 0.02 for strain in STRAINS)


def test_no_first_part_of_the_order_is_strained_beyond_its_share(hosts):
    strained = np.cumsum([bool(c.strain) for c in demo.candidates(hosts, 0)])
    before = np.arange(len(strained))
    assert (100 * (strained - 1) <= STRAINED_SHARE * before).all()


def test_the_order_hangs_on_names_alone(hosts):
    """Not on which host comes first, nor on what else there is to draw from."""
    names = [c.name for c in demo.candidates(hosts, 0) if not c.strain]
    backwards = {name: hosts[name] for name in reversed(hosts)}
    assert [c.name for c in demo.candidates(backwards, 0) if not c.strain] == names
    alone = [c.name for c in demo.candidates({"SnS2": hosts["SnS2"]}, 0) if not c.strain]
    for kind in ("ads", "int", "sub", "vac", "cpx"):
        own = [name for name in alone if f"_{kind}" in name]
        assert [name for name in names if name in own] == own


def test_no_candidate_replaces_an_atom_by_its_own_element(hosts):
    for candidate in demo.candidates(hosts, 0):
        if candidate.site.substituted is not None:
            atom = candidate.site.substituted[0]
            assert hosts[candidate.host].unit[atom].symbol != candidate.dopant


def test_strained_host_keeps_thickness_and_scales_the_plane(hosts):
    unit, stretched = hosts["MoS2"].unit, hosts["MoS2"].strained(0.02)
    assert np.allclose(stretched.cell.array[:2], 1.02 * unit.cell.array[:2])
    assert np.allclose(stretched.cell.array[2], unit.cell.array[2])
    assert np.allclose(stretched.positions[:, 2], unit.positions[:, 2])


def test_forces_are_the_slope_of_the_energy(calculator):
    atoms = HOSTS["P4"].unit_cell().repeat((2, 2, 1))
    atoms.rattle(0.05, seed=3)
    atoms.calc = calculator
    forces = atoms.get_forces()
    step = 1e-2
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=0.02)


def test_calculator_agrees_with_chgnets_own(calculator):
    from chgnet.model import CHGNetCalculator

    atoms = HOSTS["CrI3"].unit_cell()
    atoms.rattle(0.03, seed=1)
    ours, theirs = atoms.copy(), atoms.copy()
    ours.calc = calculator
    theirs.calc = CHGNetCalculator(potential.load_chgnet(), use_device="cpu")
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-4)
    assert np.allclose(ours.get_forces(), theirs.get_forces(), atol=1e-4)
    assert np.allclose(ours.get_magnetic_moments(), theirs.get_magnetic_moments(), atol=1e-4)


def test_relaxation_stops_at_its_force_and_leaves_its_input_alone(calculator):
    atoms = molecule("O2")
    atoms.positions *= 1.1
    atoms.center(vacuum=8.0)
    atoms.pbc = True
    before = atoms.positions.copy()
    result = potential.relax(atoms, calculator)
    assert np.array_equal(atoms.positions, before)
    assert result.max_force <= potential.FINE_FMAX
    assert result.en2 <= result.en1 + 1e-6
    assert result.atoms.calc is None


def test_drift_is_taken_back_and_displacements_stay():
    start = HOSTS["Si2"].unit_cell().repeat((4, 4, 1))
    relaxed = start.copy()
    relaxed.positions += [15.0, -9.0, 3.0]
    relaxed.positions[0] += [0.3, 0.0, 0.2]
    moved = demo._without_drift(relaxed, start)
    expected = np.zeros_like(start.positions)
    expected[0] = [0.3, 0.0, 0.2]
    assert np.allclose(moved.positions - start.positions, expected)


@pytest.mark.parametrize("symbol", DOPANTS)
def test_every_reference_phase_holds_its_element_only(symbol):
    name, atoms = potential.reference_phase(symbol)
    assert set(atoms.symbols) == {symbol}
    assert name
    distances = atoms.repeat(2 if atoms.pbc.all() and len(atoms) < 9 else 1).get_all_distances(
        mic=bool(atoms.pbc.all())
    )
    assert distances[np.triu_indices_from(distances, 1)].min() > 0.7


@pytest.fixture
def small_world(monkeypatch, calculator):
    """One host, one dopant: a build in seconds."""
    unit = HOSTS["MoS2"].unit_cell()
    unit.calc = calculator
    metadata = {
        "label_source": potential.LABEL_SOURCE,
        "seed": 0,
        "hosts": {
            "MoS2": {
                "family": HOSTS["MoS2"].family,
                "symbols": list(unit.symbols),
                "positions": unit.positions.tolist(),
                "cell": unit.cell.array.tolist(),
                "repeat": [3, 3, 1],
                "energy": unit.get_potential_energy(),
                "spacegroup": 187,
            }
        },
        "chemical_potentials": {
            s: {"phase": "test", "mu": mu} for s, mu in {"Mo": -10.7, "S": -4.1, "H": -3.3}.items()
        },
        "failed": {},
        "runs": [],
    }
    monkeypatch.setattr(candidates, "DOPANTS", ["H"])
    monkeypatch.setattr(demo, "_references", lambda executor, seed, progress: metadata)


@pytest.fixture
def threads(monkeypatch):
    """Threads instead of processes, which would have to load everything again."""
    monkeypatch.setattr(demo, "_executor", lambda workers, scheduler: ThreadPoolExecutor(1))


@pytest.mark.slow
def test_build_resumes_and_only_adds_rows(tmp_path, small_world, threads):
    path = tmp_path / "new" / "demo.db"
    demo.build(path, rows=2)
    first = [(row.name, row.eform) for row in connect(path).select()]
    demo.build(path, rows=4)
    rows = list(connect(path).select())
    assert [(row.name, row.eform) for row in rows[:2]] == first
    assert len(rows) == 4
    assert [run["rows"] for run in connect(path).metadata["runs"]] == [2, 2]
    for row in rows:
        pairs = row.key_value_pairs
        eform = row.en2 - row.hostenergy - row.dopant_chemical_potential
        assert row.eform == pytest.approx(eform + row.removed_chemical_potential, abs=1e-5)
        assert row.label_source == potential.LABEL_SOURCE
        assert pairs["supercell"] == 331
        assert row.data["unrelaxed_positions"].shape == row.positions.shape
        assert len(row.data["site_magmoms"]) == row.natoms
        removed = [s for s in pairs["removed"].split(",") if s]
        added = 0 if pairs["dopant"] == NO_DOPANT else 1
        assert row.natoms == 27 - len(removed) + added


@pytest.mark.slow
def test_build_refuses_another_seed(tmp_path, small_world, threads):
    path = tmp_path / "demo.db"
    demo.build(path, rows=1)
    with pytest.raises(demo.DefectkitError, match="seed 0"):
        demo.build(path, rows=1, seed=1)


@pytest.mark.slow
def test_build_can_use_a_dask_scheduler(tmp_path, small_world):
    from dask.distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        demo.build(tmp_path / "demo.db", rows=1, scheduler=cluster.scheduler_address)
    assert [row.host for row in connect(tmp_path / "demo.db").select()] == ["MoS2"]


def test_a_row_that_fails_is_told_from_one_that_works(hosts):
    broken = hosts["SnS2"].unit
    host = demo.HostReference(broken, (2, 2, 1), float("nan"), 1)
    candidate = next(c for c in demo.candidates(hosts, 0) if c.host == "SnS2" and not c.strain)
    mu = dict.fromkeys([*DOPANTS, "Sn", "S"], 0.0)
    _, row, reason = demo._try_row(candidate, host, mu)
    assert row is None
    assert reason
