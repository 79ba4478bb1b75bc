"""Reads every source into `DefectRecord`s: ASE databases, the 2DMD tables, a folder of files."""

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.db import connect
from ase.db.row import AtomsRow
from ase.formula import Formula

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.fetch import fetch
from defectkit.data.sources import SOURCES, find_source
from defectkit.data.tables import read_2dmd, read_folder
from defectkit.records import DefectRecord, scalar_fields

NO_DOPANT = "X"  # ASE's symbol for "no atom"


def load(source: str | Path = "demo", path: str | Path | None = None) -> Dataset:
    """The data set of a source.

    Args:
        source: a name in `SOURCES`, or the path of a folder with structure files and a CSV file
            of targets (see `defectkit.data.tables.read_folder`).
        path: where that source's file or folder is; found or downloaded where it is not given.

    Raises DefectkitError where the data is missing or not in the format of its source.
    """
    if path is None and str(source) not in SOURCES and Path(source).is_dir():
        return read_folder(Path(source))
    name = find_source(str(source)).name
    path = Path(path) if path is not None else fetch(name)
    return {"demo": read_demo, "imp2d": read_imp2d, "2dmd": read_2dmd}[name](path)


def read_demo(path: Path) -> Dataset:
    """The bundled database; its hosts and their families come from its metadata."""
    rows, metadata = _read_database(path)
    if "hosts" not in metadata:
        raise DefectkitError(f"{path} is not a demo database: its metadata holds no hosts.")
    hosts = {
        name: Atoms(h["symbols"], positions=h["positions"], cell=h["cell"], pbc=(1, 1, 0))
        for name, h in metadata["hosts"].items()
    }
    families = {name: h["family"] for name, h in metadata["hosts"].items()}
    label_source = metadata["label_source"]
    return Dataset("demo", label_source, _records(rows, label_source, path), hosts, families)


def read_imp2d(path: Path) -> Dataset:
    """The official Imp2d file.

    It calls its slabs periodic along z; they become periodic in the plane only. It has no
    pristine hosts: a host is taken from its own rows (see `host_from_rows`). Families are
    stoichiometry and space group.
    """
    label_source = SOURCES["imp2d"].label_source
    rows, _ = _read_database(path)
    records = _records(rows, label_source, path)
    by_host: dict[str, list[DefectRecord]] = {}
    for record in records:
        by_host.setdefault(record.host, []).append(record)
    references = {host: host_from_rows(rows) for host, rows in by_host.items()}
    hosts = {host: atoms for host, atoms in references.items() if atoms is not None}
    families = {host: family_name(host, rows[0].host_spacegroup) for host, rows in by_host.items()}
    return Dataset("imp2d", label_source, records, hosts, families)


def host_from_rows(records: list[DefectRecord]) -> Atoms | None:
    """A pristine supercell out of the rows of one host, or None where no row serves.

    Of the converged rows with a foreign dopant, adsorbates first, the one whose layer kept its
    thickness best, with the dopant taken out. A trace of the dopant's relaxation stays in it.
    """
    foreign = [
        r
        for r in records
        if r.converged
        and r.dopant not in Formula(r.host).count()
        and (r.atoms.symbols == r.dopant).sum() == 1
        and np.isfinite(r.extension_factor)
    ]
    if not foreign:
        return None
    best = min(
        foreign, key=lambda r: (r.defecttype != "adsorbate", abs(r.extension_factor - 1), r.uid)
    )
    return best.atoms[best.atoms.numbers != atomic_numbers[best.dopant]]


def _read_database(path: Path) -> tuple[list[AtomsRow], dict]:
    """Rows and metadata of an ASE database."""
    if not path.is_file():
        raise DefectkitError(f"{path}: there is no such database; check the path.")
    database = connect(path, type="db", use_lock_file=False)
    try:
        with database:  # one connection for all rows
            rows = list(database.select())
            metadata = database.metadata
    except sqlite3.DatabaseError as error:
        raise DefectkitError(
            f"{path} is not an ASE database ({error}); fetch it again or check the path."
        ) from error
    return rows, metadata


def _records(rows: list[AtomsRow], label_source: str, path: Path) -> list[DefectRecord]:
    """Rows with Imp2d's keys as records, named by `name`, and by row id where that repeats."""
    for row in rows:
        for key in ("name", "host", "dopant"):
            if key not in row.key_value_pairs:
                raise DefectkitError(
                    f"{path}, row {row.id}: the key '{key}' is missing; this is another schema."
                )
    names = Counter(row.name for row in rows)
    return [_record(row, names, label_source) for row in rows]


def _record(row: AtomsRow, names: Counter, label_source: str) -> DefectRecord:
    pairs = row.key_value_pairs
    data = row.data
    name = pairs["name"]
    uid = name if names[name] == 1 else f"{name}#{row.id}"
    values = {"uid": uid, "label_source": label_source} | scalar_fields(pairs)
    if values["dopant"] == NO_DOPANT:
        values["dopant"] = ""
    return DefectRecord(
        atoms=Atoms(row.numbers, positions=row.positions, cell=row.cell, pbc=(1, 1, 0)),
        removed=tuple(filter(None, pairs.get("removed", "").split(","))),
        unrelaxed=data.get("unrelaxed_positions"),
        defect_positions=data.get("defect_positions"),
        site_magmoms=data.get("site_magmoms"),
        **values,
    )
