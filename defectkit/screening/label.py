"""Computes candidates of a screening with CHGNet, so that what was asked for can be learned from.

The file that it writes has the form of the demo database: `load("demo", path)` reads it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from ase.db import connect
from ase.db.core import Database
from filelock import Timeout

from defectkit import DefectkitError
from defectkit.data import demo, potential
from defectkit.data.sources import fetch
from defectkit.screening.handover import structures_of
from defectkit.screening.store import Screening
from defectkit.structures.hosts import supercell_size
from defectkit.structures.writing import ahead, locked, process_pool


def label(
    screening: Screening,
    keys: Iterable[str],
    path: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Relax candidates with CHGNet into an ASE database; those that are there stay.

    Energies of hosts and of elements are those of the demo database where it has them, and are
    computed where it has not.

    Args:
        screening: that they are of.
        keys: which of them.
        path: of the database.
        workers: processes.
        progress: called with how many are done, of how many.

    Returns:
        Why a candidate could not be computed, by name.

    Raises DefectkitError where the file is another database or is being written by another process.
    """
    path = Path(path)
    made = [candidate for _, (candidate, _) in structures_of(screening, keys)]
    try:
        with locked(f"{path.resolve()}.lock"):
            database = demo.demo_database(path)
            if not database.metadata:
                database.metadata = _metadata(screening, made)
            there = {row.get("name") for row in database.select(include_data=False)}
            todo = [one for one in made if one.name not in there]
            progress(len(made) - len(todo), len(made))
            return _compute(database, todo, workers, lambda k: progress(len(made) - k, len(made)))
    except Timeout as error:
        raise DefectkitError(
            f"{path} is being written by another process; wait until that has finished."
        ) from error


def _compute(
    database: Database,
    todo: list[demo.Candidate],
    workers: int,
    left: Callable[[int], None],
) -> dict[str, str]:
    """Compute and write row by row; the reasons of those that failed."""
    if not todo:
        return {}
    metadata = database.metadata
    hosts = demo.read_hosts(metadata)
    mu = demo.read_potentials(metadata)
    failed = {}
    with process_pool(min(workers, len(todo)), demo.single_thread) as pool:
        tasks = ((one, hosts[one.host], mu) for one in todo)
        for number, (candidate, row, reason) in enumerate(ahead(pool, demo.try_row, tasks), 1):
            if row is None:
                failed[candidate.name] = reason
            else:
                atoms, pairs, data = row
                database.write(atoms, key_value_pairs=pairs, data=data)
            left(len(todo) - number)
    return failed


def _metadata(screening: Screening, candidates: list[demo.Candidate]) -> dict:
    """Of a database as the demo's is: hosts with their energies, and chemical potentials."""
    shipped = connect(fetch("demo"), type="db", use_lock_file=False).metadata
    of_demo, cells = demo.read_hosts(shipped), screening.space.hosts
    hosts = {}
    for name in sorted({one.host for one in candidates}):
        same = name in of_demo and of_demo[name].unit == cells[name]
        hosts[name] = shipped["hosts"][name] if same else _host(name, cells[name])
    symbols = {symbol for unit in cells.values() for symbol in unit.symbols}
    symbols |= {one.dopant for one in candidates} - {demo.NO_DOPANT}
    known = shipped["chemical_potentials"]
    return {
        "title": "defects chosen by a screening, CHGNet labels (not DFT)",
        "label_source": potential.LABEL_SOURCE,
        "seed": 0,
        "hosts": hosts,
        "chemical_potentials": {s: known[s] if s in known else _phase(s) for s in sorted(symbols)},
        "failed": {},
        "runs": [],
    }


def _host(name: str, unit: Atoms) -> dict:
    """What the metadata say of a host: its cell as it was screened, its energy in CHGNet."""
    energy = potential.relax(unit, potential.ChgnetCalculator()).en2
    cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
    return {
        "family": name,
        "symbols": list(unit.symbols),
        "positions": unit.positions.tolist(),
        "cell": unit.cell.array.tolist(),
        "repeat": list(map(int, supercell_size(unit))),
        "energy": energy,
        "spacegroup": int(spglib.get_symmetry_dataset(cell, symprec=0.05).number),
    }


def _phase(symbol: str) -> dict:
    phase, mu = potential.chemical_potential(symbol)
    return {"phase": phase, "mu": float(np.round(mu, demo.DIGITS))}
