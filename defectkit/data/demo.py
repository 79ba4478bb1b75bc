"""Computes the demo database `demo2d.db`: defects in 2D hosts, labelled by CHGNet, not by DFT.

The database follows the schema of Imp2d (Davidsson et al., npj 2D Mater. Appl. 7, 26, 2023).
Candidates are put in one seeded order, so that a longer run only adds rows, and a run that was
interrupted goes on where it stopped.
"""

import contextlib
import os
import sqlite3
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import spglib
import torch
from ase import Atoms
from ase.db import connect
from threadpoolctl import threadpool_limits

from defectkit import DefectkitError
from defectkit.data import potential
from defectkit.structures.defects import Defect, DefectSite, find_sites, make_defect
from defectkit.structures.hosts import HOSTS, supercell_size

DOPANTS = (
    "Ag Al As Au B Ba Be Bi Br C Ca Cd Cl Co Cr Cs Cu F Fe Ga Ge H Hf Hg I In Ir K Li Lu Mg Mn Mo "
    "N Na Nb Ni O Os P Pb Pd Pt Rb Re Rh Ru S Sb Sc Se Si Sn Sr Ta Tc Te Ti Tl V W Xe Y Zn Zr"
).split()
SHARES = {
    "adsorbate": 0.28,
    "interstitial": 0.25,
    "substitution": 0.23,
    "complex": 0.14,
    "vacancy": 0.10,
}
NO_DOPANT = "X"  # ASE's symbol for "no atom"
STRAINED_SHARE, MAX_STRAIN = 0.1, 0.02
STRAINED_VACANCIES = 6  # strained copies of each vacancy: it has no dopant to vary
MOMENT_FLOOR = 0.1  # μB: site moments below it are noise of the unsigned prediction
DIGITS = 6  # after the decimal point; CHGNet computes in single precision
PAGE_SIZE = 8192  # bytes; with SQLite's default most rows would leave half a page empty
AHEAD = 64  # tasks handed out before their results are collected


@dataclass(frozen=True)
class Candidate:
    """One row to compute: a host, a site in it, a dopant ("X" for none), a biaxial strain."""

    host: str
    site: DefectSite
    dopant: str
    strain: float

    @property
    def name(self) -> str:
        """Imp2d's form `host_dopant_site`, host in Hill order; strain in per cent."""
        formula = HOSTS[self.host].unit_cell().symbols.formula.format("hill")
        strain = f"_{100 * self.strain:+.1f}%" if self.strain else ""
        return f"{formula}_{self.dopant}_{self.site.name}{strain}"


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


def candidates(hosts: dict[str, HostReference], seed: int) -> list[Candidate]:
    """Every possible row in one seeded order, a weighted permutation with `SHARES` by kind.

    Drawing without replacement in proportion to weights makes any first part of the list a
    sample with about these shares, until a kind runs out. A strained candidate is passed over
    while more than `STRAINED_SHARE` of the list before it is strained.
    """
    rng = np.random.default_rng(seed)
    strains = np.round(np.linspace(-MAX_STRAIN, MAX_STRAIN, 41), 4)
    strains = strains[strains != 0]
    pool: list[Candidate] = []
    for host, reference in hosts.items():
        for site in find_sites(reference.unit):
            if not site.has_dopant:
                drawn = rng.choice(strains, STRAINED_VACANCIES, replace=False)
                pool += [Candidate(host, site, NO_DOPANT, float(s)) for s in (0.0, *drawn)]
                continue
            for dopant in DOPANTS:
                strain = float(rng.choice(strains)) if rng.random() < STRAINED_SHARE else 0.0
                if not _replaces_itself(reference.unit, site, dopant):
                    pool.append(Candidate(host, site, dopant, strain))
    kinds = np.array([c.site.kind for c in pool])
    weights = sum((kinds == k) * share / (kinds == k).sum() for k, share in SHARES.items())
    order = rng.choice(len(pool), size=len(pool), replace=False, p=weights / weights.sum())
    chosen, strained = [], 0
    for candidate in (pool[i] for i in order):
        if candidate.strain and strained > STRAINED_SHARE * len(chosen):
            continue
        strained += bool(candidate.strain)
        chosen.append(candidate)
    return chosen


def _replaces_itself(unit: Atoms, site: DefectSite, dopant: str) -> bool:
    return site.substituted is not None and unit[site.substituted[0]].symbol == dopant


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
        strained = potential.relax(unit, _calculator())
        unit, energy = strained.atoms, strained.en2
    defect = make_defect(unit, host.repeat, candidate.site, candidate.dopant)
    result = potential.relax(defect.atoms, _calculator())
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
    thickness = np.ptp(layer)
    depth = 2 * abs(z - (layer.max() + layer.min()) / 2) / thickness
    return float(depth), float(thickness / np.ptp(unit.positions[:, 2]))


@cache
def _calculator() -> potential.ChgnetCalculator:
    return potential.ChgnetCalculator()


def _try_row(candidate: Candidate, host: HostReference, mu: dict[str, float]):
    """`compute_row`, or the reason why this row could not be computed."""
    try:
        row = compute_row(candidate, host, mu)
    except (ValueError, RuntimeError, FloatingPointError, np.linalg.LinAlgError) as error:
        return candidate, None, f"{type(error).__name__}: {error}"
    if not np.isfinite(row[1]["eform"]):
        return candidate, None, "energy is not finite"
    return candidate, row, ""


def build(
    path: Path,
    rows: int,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Compute the first `rows` candidates into the ASE database at `path`, or go on doing so.

    `workers` processes run side by side, one per core by default; with a Dask `scheduler`
    address the work goes there instead. `progress(what, done, total)` is called as it goes on.
    """
    workers = workers or os.cpu_count()
    with _executor(workers, scheduler) as executor:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = connect(path, type="db", use_lock_file=False)
        metadata = database.metadata
        if not metadata:
            metadata = _references(executor, seed, progress)
            database.metadata = metadata
        if metadata["seed"] != seed:
            raise DefectkitError(
                f"{path} was begun with seed {metadata['seed']}, not {seed}: "
                "give that seed, or another file."
            )
        hosts = read_hosts(metadata)
        mu = {symbol: entry["mu"] for symbol, entry in metadata["chemical_potentials"].items()}
        wanted = candidates(hosts, seed)[:rows]
        known = {row.name for row in database.select(include_data=False)} | set(metadata["failed"])
        todo = [c for c in wanted if c.name not in known]
        done = len(wanted) - len(todo)
        progress("rows", done, len(wanted))
        run = {"rows": 0, "seconds": 0.0, "workers": workers, "cpus": os.cpu_count()}
        metadata["runs"].append(run)
        start = time.perf_counter()
        results = _ahead(executor, _try_row, ((c, hosts[c.host], mu) for c in todo))
        for batch in iter(lambda: list(islice(results, 10)), []):
            with database:
                for candidate, row, reason in batch:
                    if row is None:
                        metadata["failed"][candidate.name] = reason
                    else:
                        atoms, pairs, data = row
                        database.write(atoms, key_value_pairs=pairs, data=data)
            run["rows"] += len(batch)
            run["seconds"] = round(time.perf_counter() - start, 1)
            database.metadata = metadata
            done += len(batch)
            progress("rows", done, len(wanted))
    _compact(path)


def _compact(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("VACUUM")


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    if scheduler:
        from dask.distributed import Client

        with Client(scheduler) as client, client.get_executor() as executor:
            yield executor
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _single_thread) as executor:
        yield executor


def _single_thread() -> None:
    """Rows run side by side: threads within a row would only wait for each other.

    The matrices are small: oneDNN costs more to set up for them than it saves (a fifth).
    """
    warnings.filterwarnings("ignore", "Converting a tensor", UserWarning, "chgnet")  # harmless
    torch.backends.mkldnn.enabled = False
    torch.set_num_threads(1)
    threadpool_limits(1)


def _ahead(executor: Executor, function, tasks: Iterator[tuple]) -> Iterator:
    """Results in the order of the tasks, with at most `AHEAD` of them under way."""
    waiting = deque(executor.submit(function, *task) for task in islice(tasks, AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(executor.submit(function, *task) for task in islice(tasks, 1))


def _references(executor: Executor, seed: int, progress) -> dict:
    """The database's metadata: relaxed hosts and chemical potentials."""
    names = list(HOSTS)
    hosts = {}
    for name, reference in zip(names, _ahead(executor, relax_host, ((n,) for n in names))):
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
    results = _ahead(executor, potential.chemical_potential, ((s,) for s in symbols))
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
