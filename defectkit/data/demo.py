"""Computes the demo database `demo2d.db`: defects in 2D hosts, labelled by CHGNet, not by DFT.

The database follows the schema of Imp2d (Davidsson et al., npj 2D Mater. Appl. 7, 26, 2023).
Every row that can be computed has its place in one seeded order (`candidates`), so that a longer
run only adds rows, and a run that was interrupted goes on where it stopped. The order is the same
on every processor: what is drawn is the hash of a name, shares are whole numbers, and no sum of
floats, whose last digit hangs on the vector unit, decides anything.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import lcm
from pathlib import Path
from typing import Protocol

import numpy as np
import spglib
import torch
from ase import Atoms
from ase.db import connect
from ase.db.sqlite import SQLite3Database
from ase.geometry import find_mic
from filelock import Timeout
from threadpoolctl import threadpool_limits

from defectkit import DefectkitError
from defectkit.data import potential
from defectkit.structures.defects import Defect, DefectSite, make_defect, named_sites
from defectkit.structures.hosts import HOSTS, supercell_size
from defectkit.structures.names import one_line
from defectkit.structures.record import MOMENT_FLOOR
from defectkit.structures.writing import ahead, atomic, executor, locked

DOPANTS = (
    "Ag Al As Au B Ba Be Bi Br C Ca Cd Cl Co Cr Cs Cu F Fe Ga Ge H Hf Hg I In Ir K Li Lu Mg Mn Mo "
    "N Na Nb Ni O Os P Pb Pd Pt Rb Re Rh Ru S Sb Sc Se Si Sn Sr Ta Tc Te Ti Tl V W Xe Y Zn Zr"
).split()
NO_DOPANT = "X"  # ASE's symbol for "no atom"
SHARES = {  # per cent of the rows
    "adsorbate": 28,
    "interstitial": 25,
    "substitution": 23,
    "complex": 14,
    "vacancy": 10,
}
STRAINED_SHARE = 10  # per cent of the rows
STRAINS = tuple(k / 1000 for k in range(-20, 21) if k)
MAX_STRAIN = STRAINS[-1]
STRAINED_VACANCIES = 6  # strained copies of each vacancy: it has no dopant to vary
FLAT = 1e-3  # Å: a sheet such as BN has no thickness, and what lies in it the depth 0
DIGITS = 6  # after the decimal point; CHGNet computes in single precision
PAGE_SIZE = 8192  # bytes; with SQLite's default most rows would leave half a page empty
METADATA = {"label_source", "seed", "hosts", "chemical_potentials", "failed", "runs"}


@dataclass(frozen=True)
class HostReference:
    """A host relaxed by CHGNet: unit cell (Å), repetition of it, energy per unit cell (eV)."""

    unit: Atoms
    repeat: tuple[int, int, int]
    energy: float
    spacegroup: int

    def strained(self, strain: float) -> Atoms:
        """The unit cell stretched by `strain` along both in-plane vectors."""
        unit = self.unit.copy()
        cell = unit.cell.array
        cell[:2] *= 1 + strain
        unit.set_cell(cell, scale_atoms=True)
        return unit


def read_hosts(metadata: dict) -> dict[str, HostReference]:
    """The relaxed hosts stored with a demo database, by name."""
    return {
        name: HostReference(
            Atoms(h["symbols"], positions=h["positions"], cell=h["cell"], pbc=(1, 1, 0)),
            tuple(h["repeat"]),
            h["energy"],
            h["spacegroup"],
        )
        for name, h in metadata["hosts"].items()
    }


def read_potentials(metadata: dict) -> dict[str, float]:
    """Chemical potentials (eV an atom) stored with a demo database, by element."""
    return {symbol: entry["mu"] for symbol, entry in metadata["chemical_potentials"].items()}


@dataclass(frozen=True)
class Candidate:
    """One row to compute: a host, a site in it, a dopant ("X" for none), a biaxial strain.

    `shift` (3,) Å is how far from its site a dopant begins.
    """

    host: str
    site: DefectSite
    dopant: str
    strain: float
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def name(self) -> str:
        """Imp2d's form `host_dopant_site`, host in Hill order; strain in per cent."""
        strain = f"_{100 * self.strain:+.1f}%" if self.strain else ""
        return f"{_formula(self.host)}_{self.dopant}_{self.site.name}{strain}"


@cache
def _formula(host: str) -> str:
    if host not in HOSTS:  # of another source
        return host
    return HOSTS[host].unit_cell().symbols.formula.format("hill")


def candidates(
    hosts: dict[str, HostReference], seed: int, places: dict[str, dict] | None = None
) -> list[Candidate]:
    """Every possible row in one seeded order, mixed by kind in the `SHARES`.

    `places` holds, by host, the sites that have names already (see `named_sites`).

    Within a kind the order is that of hashes; the kinds take turns, so that any first part of
    the list has these shares until a kind runs out. A strained candidate is passed over while
    more than `STRAINED_SHARE` of the list before it is strained.
    """
    pool = [
        Candidate(host, site, dopant, strain)
        for host, reference in hosts.items()
        for site in named_sites(reference.unit, (places or {}).get(host, {}))
        for dopant, strain in _variants(reference.unit, host, site, seed)
    ]
    unit = lcm(*SHARES.values())
    turns = []
    for rank, (kind, share) in enumerate(SHARES.items()):
        names = {c.name: c for c in pool if c.site.kind == kind}
        drawn = sorted(names, key=lambda name: draw(seed, name))
        # The k-th row of a kind is due when the list has about (k + 1/2) / share rows.
        turns += [((2 * k + 1) * unit // share, rank, names[name]) for k, name in enumerate(drawn)]
    chosen, strained = [], 0
    for _, _, candidate in sorted(turns, key=lambda turn: turn[:2]):
        if candidate.strain and 100 * strained > STRAINED_SHARE * len(chosen):
            continue
        strained += bool(candidate.strain)
        chosen.append(candidate)
    return chosen


def _variants(unit: Atoms, host: str, site: DefectSite, seed: int) -> list[tuple[str, float]]:
    """Dopant and strain of every candidate at a site: all dopants, a share of them strained.

    A site without a dopant comes without strain and with some.
    """
    if not site.has_dopant:
        drawn = sorted(STRAINS, key=lambda strain: draw(seed, host, site.name, strain))
        return [(NO_DOPANT, strain) for strain in (0.0, *drawn[:STRAINED_VACANCIES])]
    own = unit[site.substituted[0]].symbol if site.substituted is not None else NO_DOPANT
    variants = []
    for dopant in DOPANTS:
        which, percent = divmod(draw(seed, host, site.name, dopant), 100)
        strain = STRAINS[which % len(STRAINS)] if percent < STRAINED_SHARE else 0.0
        if dopant != own:
            variants.append((dopant, strain))
    return variants


def draw(*what: object) -> int:
    """A whole number of 64 bits, from the hash of `what`: the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def relax_host(name: str) -> HostReference:
    """Relax positions and in-plane cell of a host with CHGNet."""
    unit = potential.relax_cell(HOSTS[name].unit_cell())
    cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
    number = spglib.get_symmetry_dataset(cell, symprec=0.05).number
    return HostReference(unit, supercell_size(unit), unit.info.pop("energy"), int(number))


def compute_row(
    candidate: Candidate, host: HostReference, mu: dict[str, float]
) -> tuple[Atoms, dict, dict]:
    """Relax one candidate and return (atoms, key-value pairs, data) for `ase.db`.

    E_form = E(defect) - E(host supercell) - mu(dopant) + sum of mu(removed), eV.
    """
    unit = host.strained(candidate.strain)
    energy = host.energy
    if candidate.strain:
        strained = potential.relax(unit, calculator())
        unit, energy = strained.atoms, strained.en2
    defect = make_defect(unit, host.repeat, candidate.site, candidate.dopant)
    if any(candidate.shift):
        apart = np.linalg.norm(defect.atoms.positions - defect.positions[0], axis=1)
        defect.atoms.positions[apart.argmin()] += candidate.shift
    result = potential.relax(defect.atoms, calculator())
    en2 = round(result.en2, DIGITS)
    hostenergy = round(energy * int(np.prod(host.repeat)), DIGITS)
    mu_dopant = mu.get(candidate.dopant, 0.0)
    mu_removed = round(sum(mu[symbol] for symbol in defect.removed), DIGITS)
    depth, extension = _layer_shape(candidate, unit, defect, result.atoms)
    kind = candidate.site.kind
    if kind in ("adsorbate", "interstitial"):  # as in Imp2d: what it relaxed to decides
        kind = "interstitial" if depth < 1 else "adsorbate"
    moments = result.magmoms
    pairs = {
        "name": candidate.name,
        "host": candidate.host,
        "dopant": candidate.dopant,
        "defecttype": kind,
        "site": candidate.site.name,
        "eform": round(en2 - hostenergy - mu_dopant + mu_removed, DIGITS),
        "spin": round(float(moments[moments >= MOMENT_FLOOR].sum()), DIGITS),
        "converged": bool(abs(result.conv1) <= 0.05),
        "conv1": round(result.conv1, DIGITS),
        "conv2": round(result.conv2, DIGITS),
        "en1": round(result.en1, DIGITS),
        "en2": en2,
        "hostenergy": hostenergy,
        "dopant_chemical_potential": mu_dopant,
        "removed_chemical_potential": mu_removed,
        "removed": ",".join(defect.removed),
        "depth": round(depth, DIGITS),
        "extension_factor": round(extension, DIGITS),
        "host_spacegroup": host.spacegroup,
        "supercell": int("".join(map(str, host.repeat))),
        "strain": candidate.strain,
        "max_force": round(result.max_force, DIGITS),
        "label_source": potential.LABEL_SOURCE,
    }
    data = {
        "unrelaxed_positions": defect.atoms.positions.astype(np.float32),
        "site_magmoms": moments.astype(np.float32),
        "defect_positions": defect.positions.astype(np.float32),
    }
    return _without_drift(result.atoms, defect.atoms), pairs, data


def _without_drift(relaxed: Atoms, start: Atoms) -> Atoms:
    """The relaxed cell, moved as a whole to where it started.

    Nothing holds a free layer in its place, and rounding errors of the forces push it along. That
    drift, the median displacement of the atoms, costs no energy.
    """
    moved = relaxed.copy()
    moved.positions -= np.median(relaxed.positions - start.positions, axis=0)
    return moved


def _layer_shape(
    candidate: Candidate, unit: Atoms, defect: Defect, relaxed: Atoms
) -> tuple[float, float]:
    """Depth of the defect and extension of the layer, both without unit, as in Imp2d.

    depth = 2 |z - z_mid| / thickness of the relaxed layer: 0 in its middle, 1 at its surface.
    extension factor = thickness of the relaxed layer / thickness of the pristine layer.
    """
    layer = relaxed.positions[:, 2]
    z = defect.positions[0, 2]
    if candidate.site.point is not None:
        layer, z = layer[:-1], layer[-1]
    elif candidate.site.substituted is not None:
        gap = np.linalg.norm(defect.atoms.positions - defect.positions[0], axis=1)
        z = layer[gap.argmin()]
    thickness, pristine = np.ptp(layer), np.ptp(unit.positions[:, 2])
    away = 2 * abs(z - (layer.max() + layer.min()) / 2)
    depth = away / thickness if thickness > FLAT else np.inf if away > FLAT else 0.0
    return float(depth), float(thickness / pristine) if pristine > FLAT else np.nan


@cache
def calculator() -> potential.ChgnetCalculator:
    """CHGNet, loaded once."""
    return potential.ChgnetCalculator()


def try_row(
    candidate: Candidate, host: HostReference, mu: dict[str, float]
) -> tuple[Candidate, tuple[Atoms, dict, dict] | None, str]:
    """`compute_row`, or the reason why this row could not be computed."""
    try:
        row = compute_row(candidate, host, mu)
    except (ValueError, RuntimeError, FloatingPointError, np.linalg.LinAlgError) as error:
        return candidate, None, f"{type(error).__name__}: {error}"
    if not np.isfinite(row[1]["eform"]):
        return candidate, None, "energy is not finite"
    return candidate, row, ""


class Rows(Protocol):
    """Rows of another kind for `build`, such as `starts.RandomStarts`."""

    def references(self, seed: int) -> dict:
        """The metadata of a new database."""

    def candidates(self, hosts: dict[str, HostReference], seed: int) -> Iterator[Candidate]:
        """What to compute, in one seeded order."""


def build(
    path: Path,
    rows: int,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    other: Rows | None = None,
) -> None:
    """Compute rows into the ASE database at `path`, new or begun, until it holds `rows`.

    Rows that are there stay; the first candidates of the seeded order that are not there, by
    name, follow. `workers` processes run side by side, one per core by default; with a Dask
    `scheduler` address the work goes there instead. `progress(what, done, total)` is called as
    it goes on. Rows of an `other` kind than `candidates` come with hosts of their own.

    Raises DefectkitError where the file is no demo database, was begun with another seed, cannot
    be written, or is being built by another process.
    """
    workers = workers or os.cpu_count()
    with _opened(path) as database, _executor(workers, scheduler) as pool:
        metadata = database.metadata
        if not metadata:
            metadata = other.references(seed) if other else _references(pool, seed, progress)
            database.metadata = metadata
        if metadata["seed"] != seed:
            raise DefectkitError(
                f"{path} was begun with seed {metadata['seed']}, not {seed}: "
                "give that seed, or another file."
            )
        names, places = inventory(database, path)
        known = names | metadata["failed"].keys()
        hosts = read_hosts(metadata)
        mu = read_potentials(metadata)
        every = other.candidates(hosts, seed) if other else candidates(hosts, seed, places)
        todo = (c for c in every if c.name not in known)
        done = len(database)
        progress("rows", done, max(rows, done))
        run = {"rows": 0, "seconds": 0.0, "workers": workers, "cpus": os.cpu_count()}
        metadata["runs"].append(run)
        start = time.perf_counter()
        # Another round for those that could not be computed, until none is missing.
        while tasks := [(c, hosts[c.host], mu) for c in islice(todo, max(rows - done, 0))]:
            results = ahead(pool, try_row, iter(tasks))
            while batch := list(islice(results, 10)):
                done += _store(database, metadata, batch)
                run["rows"] += len(batch)
                run["seconds"] = round(time.perf_counter() - start, 1)
                database.metadata = metadata
                progress("rows", done, rows)
        _compact(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[SQLite3Database]:
    """The demo database at `path`, new or begun, for this process alone."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(f"{path.resolve()}.lock"))
        except Timeout as error:
            raise DefectkitError(
                f"{path} is being built by another process; wait until that has finished."
            ) from error
        except OSError as error:
            raise DefectkitError(
                f"{path} cannot be written ({error.strerror or error}); give another file."
            ) from error
        try:
            yield demo_database(path)
        except sqlite3.Error as error:
            raise DefectkitError(
                f"{path} cannot be written ({one_line(error)}); the rows that it holds stay."
            ) from error


def demo_database(path: Path) -> SQLite3Database:
    """The demo database at `path`, to write to; a new one has all its tables before its name.

    Raises DefectkitError as `check_demo_database` does, or where there can be no such file.
    """
    check_demo_database(path)
    if not path.exists() or not path.stat().st_size:
        with atomic(path) as part:
            connect(part, type="db", use_lock_file=False).metadata  # noqa: B018 - makes the tables
    return connect(path, type="db", use_lock_file=False)


def check_demo_database(path: Path) -> None:
    """DefectkitError where there is a file at `path` that is no demo database, nor an empty one.

    Looked at without ASE, which would write its tables into any SQLite file.
    """
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        address = f"{path.resolve().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            rows = connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0]
        metadata = connect(path, type="db", use_lock_file=False).metadata
    except (sqlite3.Error, ValueError, TypeError) as error:  # TypeError: tables without a version
        raise DefectkitError(
            f"{path} cannot be read as an ASE database ({one_line(error)}); check the path, or "
            "give another file."
        ) from error
    missing = METADATA - metadata.keys()
    if missing and (metadata or rows):
        raise DefectkitError(
            f"{path} is not a demo database: its metadata hold no {', '.join(sorted(missing))}; "
            "check the path, or give another file."
        )


def inventory(database: SQLite3Database, path: Path) -> tuple[set[str], dict[str, dict]]:
    """Names of all rows; and by host, where in its unit cell each site is that has rows."""
    rows = list(database.select(include_data=False))
    for name, count in Counter(row.get("name") for row in rows).items():
        if count > 1:
            raise DefectkitError(
                f"{path} holds {count} rows named '{name}'; delete all of them but one, or give "
                "another file."
            )
    first = {(row.host, row.get("site")): row.id for row in reversed(rows)}
    places: dict[str, dict] = {}
    with database:  # one connection for all rows
        for (host, site), number in first.items():
            row = database.get(number)
            if site is None or "defect_positions" not in row.data:
                continue
            points = np.array(row.data["defect_positions"], float)
            # Side by side, though they may lie at opposite ends of the supercell.
            points[1:] = points[0] + find_mic(points[1:] - points[0], row.cell, row.pbc)[0]
            points[:, :2] /= 1 + row.get("strain", 0.0)
            places.setdefault(host, {})[site] = points
    return {row.get("name") for row in rows}, places


def _store(database: SQLite3Database, metadata: dict, batch: list[tuple]) -> int:
    """Write what was computed, note in the metadata what failed; the number of rows written."""
    written = 0
    with database:
        for candidate, row, reason in batch:
            if row is None:
                metadata["failed"][candidate.name] = reason
            else:
                atoms, pairs, data = row
                database.write(atoms, key_value_pairs=pairs, data=data)
                written += 1
    return written


def _compact(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("VACUUM")


def _executor(workers: int, scheduler: str | None) -> AbstractContextManager[Executor]:
    return executor(workers, scheduler, single_thread)


def single_thread() -> None:
    """Start a worker with one thread: rows run side by side, and more would wait for each other.

    The matrices are small: oneDNN costs more to set up for them than it saves (a fifth).
    """
    warnings.filterwarnings("ignore", "Converting a tensor", UserWarning, "chgnet")  # harmless
    torch.backends.mkldnn.enabled = False
    torch.set_num_threads(1)
    threadpool_limits(1)


def _references(pool: Executor, seed: int, progress: Callable[[str, int, int], None]) -> dict:
    """The database's metadata: relaxed hosts and chemical potentials."""
    names = list(HOSTS)
    hosts = {}
    for name, reference in zip(names, ahead(pool, relax_host, ((n,) for n in names))):
        hosts[name] = {
            "family": HOSTS[name].family,
            "symbols": list(reference.unit.symbols),
            "positions": reference.unit.positions.tolist(),
            "cell": reference.unit.cell.array.tolist(),
            "repeat": list(reference.repeat),
            "energy": reference.energy,
            "spacegroup": reference.spacegroup,
        }
        progress("hosts", len(hosts), len(names))
    symbols = sorted({*DOPANTS, *(s for host in hosts.values() for s in host["symbols"])})
    mu = {}
    results = ahead(pool, potential.chemical_potential, ((s,) for s in symbols))
    for symbol, (phase, energy) in zip(symbols, results):
        mu[symbol] = {"phase": phase, "mu": round(energy, DIGITS)}
        progress("reference phases", len(mu), len(symbols))
    return {
        "title": "defectkit demo: point defects in 2D hosts, CHGNet labels (not DFT)",
        "label_source": potential.LABEL_SOURCE,
        "seed": seed,
        "hosts": hosts,
        "chemical_potentials": mu,
        "failed": {},
        "runs": [],
    }
