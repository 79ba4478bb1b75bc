"""Reads every source into records: ASE databases, the 2DMD tables, a folder of files.

Databases are SQLite files, opened with care, so that a fault is named for what it is.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.db import connect
from ase.db.row import AtomsRow
from ase.db.sqlite import VERSION
from ase.formula import Formula

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.folder import read_folder
from defectkit.data.sources import SOURCES, fetch, find_source
from defectkit.data.table import fields
from defectkit.data.twodmd import read_2dmd
from defectkit.structures.files import check_layer, with_height
from defectkit.structures.names import one_line
from defectkit.structures.record import DefectRecord

HEADER = b"SQLite format 3\0"
OLDEST = 5  # version of ASE's tables that it still reads
PATIENCE = 3.0  # s that another program may hold the file
ADDED = ("adsorbate", "interstitial")  # defects that leave every atom of the host


def read_database(path: Path) -> tuple[list[AtomsRow], dict]:
    """Rows and metadata of an ASE database; the file stays as it is.

    Raises DefectkitError where it is missing, in use, no database, damaged, of another kind, or of
    a version that this ASE does not read; a row that is damaged is named.
    """
    _check_kind(path)
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            _check_tables(connection, path)
            ids = [number for (number,) in connection.execute("select id from systems order by id")]
        return _read(path, ids)
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise _sqlite_fault(path, error) from error


def _read(path: Path, ids: list[int]) -> tuple[list[AtomsRow], dict]:
    rows: list[AtomsRow] = []
    with connect(path, type="db", use_lock_file=False) as database:  # one connection for all rows
        try:
            metadata = database.metadata
            if not isinstance(metadata, dict):
                raise TypeError("they are no dictionary")
        except (ValueError, TypeError, AttributeError) as error:
            raise DefectkitError(
                f"{path}: its metadata cannot be read ({one_line(error)}); copy the file "
                "again, or write them anew."
            ) from error
        try:
            rows.extend(database.select())
        except sqlite3.Error:
            raise
        except Exception as error:  # ASE raises anything on damaged rows
            place = f"row {ids[len(rows)]}" if len(rows) < len(ids) else "a row"
            raise DefectkitError(
                f"{path}, {place} is damaged ({type(error).__name__}: {one_line(error)}); "
                "copy the file again, or remove the row."
            ) from error
    return rows, metadata


def _check_kind(path: Path) -> None:
    if path.is_dir():
        raise DefectkitError(f"{path} is a folder; name the database in it.")
    try:
        if not path.is_file():
            raise DefectkitError(f"{path}: there is no such database; check the path.")
        with path.open("rb") as file:
            start = file.read(len(HEADER))
    except PermissionError as error:
        raise DefectkitError(
            f"{path} may not be read (permission denied); change its permissions, or ask its owner."
        ) from error
    except OSError as error:
        raise DefectkitError(f"{path} cannot be opened ({error.strerror or error}).") from error
    if not start:
        raise DefectkitError(f"{path} is empty; copy or fetch it again.")
    if start.lstrip().startswith(b"{"):
        raise DefectkitError(
            f"{path} is not an ASE database in SQLite but a JSON text; convert one of ASE's with "
            f"`ase db {path.name} --insert-into new.db`, and read new.db."
        )
    if start != HEADER:
        raise DefectkitError(
            f"{path} is not an ASE database: it does not begin as SQLite files do; check the path, "
            "or fetch it again."
        )


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    found = {name for (name,) in connection.execute("select name from sqlite_master")}
    if "systems" not in found:
        raise DefectkitError(
            f"{path} is not an ASE database: it is an SQLite file without a table of structures; "
            "check the path."
        )
    version = 2
    if "information" in found:
        query = "select value from information where name='version'"
        (written,) = connection.execute(query).fetchone() or ("",)
        if not str(written).isdecimal():
            raise DefectkitError(f"{path} does not say its version; copy it again.")
        version = int(written)
    if version > VERSION:
        raise DefectkitError(
            f"{path} was written by a newer ASE (version {version} of its tables, and this ASE "
            f"reads {OLDEST} to {VERSION}); update ASE, or write the file with this one."
        )
    if version < OLDEST:
        raise DefectkitError(
            f"{path} was written by an old ASE (version {version} of its tables, and this ASE "
            f"reads {OLDEST} to {VERSION}); convert it with `python -m ase.db.convert {path.name}`."
        )


def _sqlite_fault(path: Path, error: Exception) -> DefectkitError:
    reason = one_line(error)
    if "locked" in reason or "busy" in reason:
        return DefectkitError(
            f"{path} is in use by another program ({reason}); wait or close that one, or read a "
            "copy, also where the file lies on a network drive without locks."
        )
    if "unable to open" in reason:
        return DefectkitError(f"{path} cannot be opened ({reason}); check its permissions.")
    return DefectkitError(
        f"{path} is damaged or cut short, or not an ASE database ({reason}); copy or fetch "
        "it again."
    )


def load(
    source: str | Path = "demo", path: str | Path | Sequence[str | Path] | None = None
) -> Dataset:
    """The data set of a source.

    Args:
        source: a name in `SOURCES`, or the path of a folder with structure files and a CSV file
            of targets (see `defectkit.data.folder.read_folder`).
        path: where that source's file or folder is; found or downloaded where it is not given.
            For "2dmd" the folder of a subset, one that holds all of them, or several such folders.

    Raises DefectkitError where the data is missing or not in the format of its source.
    """
    if path is None and str(source) not in SOURCES and Path(source).is_dir():
        return read_folder(Path(source))
    name = find_source(str(source)).name
    if name == "2dmd" and path is not None and not isinstance(path, str | Path):
        return read_2dmd([Path(folder) for folder in path])
    path = Path(path) if path is not None else fetch(name)
    if name == "2dmd":
        return read_2dmd([path])
    return {"demo": read_demo, "imp2d": read_imp2d}[name](path)


def read_demo(path: Path) -> Dataset:
    """The bundled database; its hosts and their families come from its metadata."""
    return _demo(*read_database(path), path)


def demo_rows(path: Path, uids: Sequence[str]) -> Dataset:
    """Some rows of `read_demo`, in this order, without the others, which take seconds.

    Raises DefectkitError where there is no such row, or what is not a demo database.
    """
    _check_kind(path)
    try:
        with connect(path, type="db", use_lock_file=False) as database:
            found = {uid: next(database.select(name=uid, limit=1), None) for uid in uids}
            metadata = database.metadata
    except sqlite3.Error as error:
        raise _sqlite_fault(path, error) from error
    for uid, row in found.items():
        if row is None:
            raise DefectkitError(f"The demo data have no row with the id {one_line(uid)}.")
    return _demo(list(found.values()), metadata, path)


def _demo(rows: list[AtomsRow], metadata: dict, path: Path) -> Dataset:
    hosts = _hosts(metadata, path)
    where, described = f"{path}: its metadata", metadata["hosts"]
    label_source = metadata.get("label_source")
    if not label_source or not isinstance(label_source, str):
        raise DefectkitError(f"{where} does not say what computed the labels (label_source).")
    families = {name: str(host.get("family", name)) for name, host in described.items()}
    return Dataset("demo", label_source, _records(rows, label_source, path), hosts, families)


def demo_hosts(path: Path) -> dict[str, Atoms]:
    """The hosts of `read_demo` without its rows, which take a hundred times as long."""
    return _hosts(connect(path, type="db", use_lock_file=False).metadata, path)


def _hosts(metadata: Mapping, path: Path) -> dict[str, Atoms]:
    described = metadata.get("hosts")
    if not isinstance(described, dict):
        raise DefectkitError(f"{path} is not a demo database: its metadata holds no hosts.")
    where = f"{path}: its metadata, host"
    return {name: _host(host, f"{where} {name}") for name, host in described.items()}


def _host(described: Mapping, where: str) -> Atoms:
    """A pristine cell from symbols, positions and cell (Å) of the metadata."""
    try:
        symbols, positions, cell = (described[key] for key in ("symbols", "positions", "cell"))
        atoms = Atoms(symbols, positions=positions, cell=cell, pbc=(1, 1, 0))
    except Exception as error:  # ASE raises anything on other shapes and types
        raise DefectkitError(
            f"{where} does not give symbols, positions and cell of its atoms "
            f"({type(error).__name__}: {one_line(error)})."
        ) from error
    check_layer(atoms, where)
    return atoms


def read_imp2d(path: Path) -> Dataset:
    """The official Imp2d file, or another with its keys.

    It calls its slabs periodic along z; they become periodic in the plane only. It has no
    pristine hosts: a host is taken from its own rows (see `host_from_rows`). Families are
    stoichiometry and space group.
    """
    label_source = SOURCES["imp2d"].label_source
    rows, _ = read_database(path)
    records = _records(rows, label_source, path)
    by_host: dict[str, list[DefectRecord]] = {}
    for record in records:
        by_host.setdefault(record.host, []).append(record)
    references = {host: host_from_rows(rows) for host, rows in by_host.items()}
    hosts = {host: atoms for host, atoms in references.items() if atoms is not None}
    families = {
        host: family_name(
            hosts[host].symbols.formula if host in hosts else _host_formula(rows[0]),
            rows[0].host_spacegroup,
        )
        for host, rows in by_host.items()
    }
    return Dataset("imp2d", label_source, records, hosts, families)


def host_from_rows(records: list[DefectRecord]) -> Atoms | None:
    """A pristine supercell out of the rows of one host, or None where no row serves.

    Of the converged rows with an added atom of an element of its own, adsorbates first, the one
    whose layer kept its thickness best, with that atom taken out. A trace of its relaxation stays.
    """
    foreign = [
        r
        for r in records
        if r.converged
        and r.dopant in atomic_numbers
        and r.defecttype in ADDED
        and not r.removed
        and (r.atoms.symbols == r.dopant).sum() == 1 < len(r.atoms)
        and np.isfinite(r.extension_factor)
    ]
    if not foreign:
        return None
    best = min(
        foreign, key=lambda r: (r.defecttype != "adsorbate", abs(r.extension_factor - 1), r.uid)
    )
    return best.atoms[best.atoms.numbers != atomic_numbers[best.dopant]]


def _host_formula(record: DefectRecord) -> Formula:
    """The formula of a record's host: its atoms without the dopants, with what was removed."""
    counts = Counter(record.atoms.symbols)
    counts.subtract(filter(None, record.dopant.split(",")))
    counts.update(record.removed)
    return Formula.from_dict({symbol: n for symbol, n in counts.items() if n > 0})


def _records(rows: list[AtomsRow], label_source: str, path: Path) -> list[DefectRecord]:
    """Rows with Imp2d's keys as records, named by `name`, and by row id where that repeats."""
    for row in rows:
        for key in ("name", "host", "dopant"):
            if key not in row.key_value_pairs:
                raise DefectkitError(
                    f"{path}, row {row.id}: the key '{key}' is missing; this is another schema."
                )
    names = Counter(str(row.key_value_pairs["name"]) for row in rows)
    records = []
    for row in rows:
        where = f"{path}, row {row.id}"
        try:
            records.append(_record(row, names, label_source, where))
        except DefectkitError:
            raise
        except Exception as error:  # ASE raises anything on a damaged blob
            raise DefectkitError(
                f"{where} is damaged ({type(error).__name__}: {one_line(error)}); copy the "
                "file again, or remove the row."
            ) from error
    return records


def _record(row: AtomsRow, names: Counter, label_source: str, where: str) -> DefectRecord:
    values = {"host": "", "label_source": label_source}
    values |= fields(row.key_value_pairs, where, "key")
    name = values.get("name", "")
    values.setdefault("uid", name if names[name] == 1 else f"{name}#{row.id}")
    atoms = Atoms(row.numbers, positions=row.positions, cell=row.cell, pbc=(1, 1, 0))
    atoms = with_height(atoms)
    check_layer(atoms, where)
    shapes = {
        "unrelaxed_positions": (len(atoms), 3),
        "defect_positions": (None, 3),
        "site_magmoms": (len(atoms),),
    }
    data = row.data
    arrays = {key: _array(data.get(key), s, f"{where}, {key}") for key, s in shapes.items()}
    return DefectRecord(
        atoms=atoms,
        unrelaxed=arrays["unrelaxed_positions"],
        defect_positions=arrays["defect_positions"],
        site_magmoms=arrays["site_magmoms"],
        **values,
    )


def _array(values: object, shape: tuple, where: str) -> np.ndarray | None:
    """An array of finite numbers, None where `values` is; a None in `shape` is any length."""
    if values is None:
        return None
    try:
        array = np.asarray(values)
        right = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape))
        finite = right and bool(np.isfinite(array).all())
    except (TypeError, ValueError):
        right = finite = False
    if not finite:
        wanted = " x ".join("k" if n is None else str(n) for n in shape)
        have = "others" if not right else "some that are not finite"
        raise DefectkitError(
            f"{where}: {wanted} numbers are expected and there are {have}; mend or remove them."
        )
    return array
