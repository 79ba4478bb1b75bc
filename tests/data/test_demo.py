"""How the demo database is made: candidates, labels, resuming."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import molecule
from ase.db import connect
from ase.db.sqlite import SQLite3Database
from typer.testing import CliRunner

from defectkit import cli
from defectkit.bench.card import write_card
from defectkit.data import demo, potential
from defectkit.data.demo import (
    DOPANTS,
    MAX_STRAIN,
    NO_DOPANT,
    SHARES,
    STRAINED_SHARE,
    STRAINS,
)
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.structures.hosts import HOSTS, supercell_size

DATABASE = CHECKOUT_DATA / "demo2d.db"


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
    monkeypatch.setattr(demo, "DOPANTS", ["H"])
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
    _, row, reason = demo.try_row(candidate, host, mu)
    assert row is None
    assert reason


@pytest.fixture
def quick(monkeypatch, small_world, threads):
    """Rows without a relaxation, for tests of what is stored."""

    def compute_row(candidate, host, mu):
        defect = demo.make_defect(host.unit, host.repeat, candidate.site, candidate.dopant)
        pairs = {"name": candidate.name, "host": candidate.host, "site": candidate.site.name}
        pairs |= {"dopant": candidate.dopant, "strain": candidate.strain, "eform": 1.0}
        return defect.atoms, pairs, {"defect_positions": defect.positions}

    monkeypatch.setattr(demo, "compute_row", compute_row)


def names_in(path) -> list[str]:
    return [row.name for row in connect(path, type="db", use_lock_file=False).select()]


def test_a_longer_build_adds_the_first_candidates_that_are_not_there(tmp_path, quick):
    path = tmp_path / "demo.db"
    demo.build(path, rows=12)
    hosts = demo.read_hosts(connect(path).metadata)
    order = [c.name for c in demo.candidates(hosts, 0)]
    assert names_in(path) == order[:12]
    database = connect(path, type="db", use_lock_file=False)
    database.delete([2, 5])
    demo.build(path, rows=14)
    kept = [name for name in order[:12] if name not in (order[1], order[4])]
    assert names_in(path) == [*kept, order[1], order[4], *order[12:14]]
    demo.build(path, rows=3)  # fewer than there are: nothing changes
    assert len(names_in(path)) == 14


def test_rows_that_fail_are_made_up_for(tmp_path, quick, monkeypatch):
    compute = demo.compute_row
    tried = []

    def fail_often(candidate, host, mu):
        tried.append(candidate.name)
        if candidate.site.kind == "vacancy":
            raise ValueError("it fell apart")
        return compute(candidate, host, mu)

    monkeypatch.setattr(demo, "compute_row", fail_often)
    path = tmp_path / "demo.db"
    seen = []
    demo.build(path, rows=10, progress=lambda *step: seen.append(step))
    assert len(names_in(path)) == 10
    failed = connect(path).metadata["failed"]
    assert failed
    assert set(failed.values()) == {"ValueError: it fell apart"}
    assert seen[-1] == ("rows", 10, 10)
    demo.build(path, rows=11)  # and are not tried again
    assert len(set(tried)) == len(tried)
    assert len(names_in(path)) == 11


def test_one_build_at_a_time(tmp_path, quick, monkeypatch):
    path = tmp_path / "demo.db"
    compute = demo.compute_row
    refused = []

    def build_again(candidate, host, mu):
        if not refused:
            other = tmp_path / "link.db"
            other.symlink_to(path)
            for place in (path, other, path.parent / "." / path.name):
                with pytest.raises(demo.DefectkitError, match="being built by another process"):
                    demo.build(place, rows=30)
                refused.append(place)
        return compute(candidate, host, mu)

    monkeypatch.setattr(demo, "compute_row", build_again)
    demo.build(path, rows=5)
    assert len(refused) == 3
    demo.build(path, rows=6)
    assert len(set(names_in(path))) == len(names_in(path)) == 6


def test_a_new_database_has_all_its_tables_before_its_name(tmp_path, monkeypatch):
    path = tmp_path / "demo.db"
    whole = []

    def replace(part, target):
        with contextlib.closing(sqlite3.connect(part)) as connection:
            whole.extend(connection.execute("SELECT name FROM information"))
        assert not path.exists()
        os.rename(part, target)

    monkeypatch.setattr(os, "replace", replace)
    demo.demo_database(path)
    assert ("version",) in whole
    assert path.exists()


def test_a_database_without_its_version_is_told_of(tmp_path):
    path = tmp_path / "demo.db"
    demo.demo_database(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM information")
    with pytest.raises(demo.DefectkitError, match=r"cannot be read as an ASE database"):
        demo.build(path, rows=3)


TWO = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from defectkit.data import demo

def compute_row(candidate, host, mu):
    time.sleep(0.05)
    return host.unit, {"name": candidate.name, "host": candidate.host, "eform": 1.0}, {}

demo.compute_row = compute_row
demo._executor = lambda workers, scheduler: ThreadPoolExecutor(1)
demo.build(Path(sys.argv[1]), rows=30)
"""


@pytest.mark.slow
def test_two_processes_write_no_name_twice(tmp_path, quick):
    path = tmp_path / "demo.db"
    demo.build(path, rows=1)
    command = [sys.executable, "-c", TWO, str(path)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    names = names_in(path)
    assert len(set(names)) == len(names) == 30
    for process, error in zip(both, errors):  # where they met, one was sent away
        assert process.returncode == 0 or "being built by another process" in error


def test_a_database_with_a_name_twice_is_refused(tmp_path, quick):
    path = tmp_path / "demo.db"
    demo.build(path, rows=3)
    database = connect(path, type="db", use_lock_file=False)
    row = database.get(2)
    database.write(row.toatoms(), key_value_pairs=row.key_value_pairs, data=row.data)
    with pytest.raises(demo.DefectkitError, match=f"2 rows named '{re.escape(row.name)}'"):
        demo.build(path, rows=9)
    assert len(names_in(path)) == 4


def no_database(path, kind: str) -> None:
    if kind == "text":
        path.write_text("my notes\n" * 300)
    elif kind == "folder":
        path.mkdir()
    elif kind == "other SQLite":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE notes (text)")
            connection.commit()
    elif kind == "other ASE":
        connect(path, type="db").write(molecule("H2O"))


@pytest.mark.parametrize("kind", ["text", "folder", "other SQLite", "other ASE"])
def test_what_is_no_demo_database_is_refused_and_left_alone(tmp_path, quick, kind):
    path = tmp_path / "file.db"
    no_database(path, kind)
    before = path.read_bytes() if path.is_file() else None
    for work in (demo.build, write_card):
        with pytest.raises(demo.DefectkitError, match=r"file\.db (cannot be read as|is not)"):
            work(path, tmp_path / "card.md" if work is write_card else 3)
    assert before is None or path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["file.db"]


def test_places_that_cannot_be_written(tmp_path, quick):
    (tmp_path / "file").write_text("")
    with pytest.raises(demo.DefectkitError, match=r"demo\.db cannot be written"):
        demo.build(tmp_path / "file" / "demo.db", rows=1)
    with pytest.raises(demo.DefectkitError, match=r"card\.md cannot be written"):
        write_card(DATABASE, tmp_path / "no" / "card.md")
    with pytest.raises(demo.DefectkitError, match="there is no such database"):
        write_card(tmp_path / "none.db", tmp_path / "card.md")
    demo.build(tmp_path / "new" / "demo.db", rows=1)  # folders for it are made


def test_a_full_disk_is_one_sentence_and_the_rows_stay(tmp_path, quick, monkeypatch):
    path = tmp_path / "demo.db"
    demo.build(path, rows=3)

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(SQLite3Database, "_write", full)
        with pytest.raises(demo.DefectkitError, match=r"disk is full.*the rows that it holds stay"):
            demo.build(path, rows=6)
    assert len(names_in(path)) == 3
    demo.build(path, rows=6)
    assert len(names_in(path)) == 6


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size=1")
connection.execute("UPDATE systems SET calculator='x'")
connection.executemany("INSERT INTO keys VALUES (?, 1)", [("y" * 999,)] * 999)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_build_goes_on_after_one_that_was_killed_while_writing(tmp_path, quick):
    path = tmp_path / "demo.db"
    demo.build(path, rows=3)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.with_name("demo.db-journal").exists()
    demo.build(path, rows=6)
    assert len(set(names_in(path))) == 6
    assert {row.get("calculator") for row in connect(path).select()} == {None}


@pytest.mark.parametrize(
    "words",
    [["--rows", "-5"], ["--rows", "0"], ["--workers", "-1"], ["--workers", "0"], ["--seed", "-1"]],
)
def test_numbers_out_of_range_are_refused(tmp_path, words):
    result = CliRunner().invoke(cli.app, ["demo", "build", "--output", str(tmp_path / "x"), *words])
    assert result.exit_code == 2
    assert words[0] in result.output
    assert list(tmp_path.iterdir()) == []
