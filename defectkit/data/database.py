"""ASE databases in SQLite files, opened with care, so that a fault is named for what it is."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ase.db import connect
from ase.db.row import AtomsRow
from ase.db.sqlite import VERSION

from defectkit import DefectkitError
from defectkit.structures.names import one_line

HEADER = b"SQLite format 3\0"
OLDEST = 5  # version of ASE's tables that it still reads
PATIENCE = 3.0  # s that another program may hold the file


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
