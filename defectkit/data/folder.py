"""A user's own folder of structures with a table of targets."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.table import NO, YES, Row, fields, read_table, text, whole
from defectkit.structures.files import is_structure, plain_name, read_structure
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, keep_recognition, recognise
from defectkit.structures.record import DefectRecord, SiteKind

OWN_SHARE = 0.5  # of a host's sites hold their own atom in any defect
WHOLE_SPECIES = 3  # sites of an element: more than a point defect replaces all of
SAME_ORDER = 1.0  # Å: median displacement in a relaxation that leaves atoms in their order
SAME_CELL = 0.05  # Å
LONGEST_NAME = 400  # characters, folders included


def read_folder(folder: Path) -> Dataset:
    """A folder of CIF, POSCAR, xyz or extxyz files with a CSV file of targets.

    The one CSV file (or `targets.csv`) has a row a structure, and the columns

    * `file`: its name in the folder,
    * `eform`: the formation energy in eV, empty or left out where it is not known,
    * `unrelaxed`: "yes" where the file holds the positions before relaxation, else the name of
      the file that does, with the same atoms in the same order,
    * and any others of `structures.record.COLUMNS`: `spin` (μB), `host`, `dopant`, `removed` and
      so on.

    Further columns are ignored. A pristine unit cell in `hosts/HOST.cif` (or another format) lets
    the kit find the defect: it fills in `dopant`, `removed` and `defecttype` where the table does
    not say, and refuses a table that says otherwise. HOST may be any name.

    A line says how many defects are found with doubt, and how many have no host to be found in.
    Raises DefectkitError, with file, row, column and value, for whatever cannot be what it says.
    """
    folder = Path(folder)
    path = _targets_file(folder)
    rows = read_table(path, ["file"])
    if not rows:
        raise DefectkitError(f"{path} names no structure; give every file a row.")
    hosts = _hosts(folder / "hosts")
    name = folder.resolve().name
    label_source = _label_source(rows, f"{name} (user's files)")
    _check_unique(rows)
    records, doubts = [], []
    for row in rows:
        record, doubt = _record(folder, row, hosts, label_source)
        records.append(record)
        doubts += [doubt] * bool(doubt)
    if doubts:
        tqdm.write(
            f"{name}: {len(doubts)} of {len(rows)} defects are found with doubt. {doubts[0]}."
        )
    lost = sorted({record.host for record in records} - set(hosts) - {""})
    if lost and hosts:
        tqdm.write(
            f"{name}: there is no file in hosts/ for {', '.join(lost)}; they stay as they are."
        )
    families = {host: family_name(a.symbols.formula, spacegroup_of(a)) for host, a in hosts.items()}
    return Dataset(name, label_source, records, hosts, families)


def spacegroup_of(unit: Atoms) -> int:
    """Number of the space group of a unit cell."""
    cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
    return int(spglib.get_symmetry_dataset(cell, symprec=1e-2).number)


def _targets_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.csv"))
    if len(found) == 1:
        return found[0]
    if folder / "targets.csv" in found:
        return folder / "targets.csv"
    raise DefectkitError(
        f"{folder} holds {len(found)} CSV files; put the targets in one named targets.csv with "
        "the columns file and eform."
    )


def _hosts(folder: Path) -> dict[str, Atoms]:
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*")):
        name = Path(plain_name(file)).stem
        if is_structure(file) and files.setdefault(name, file) != file:
            raise DefectkitError(
                f"{files[name]} and {file.name} are both the host {name}; keep one of them."
            )
    return {name: read_structure(file) for name, file in files.items()}


def _label_source(rows: Sequence[Row], default: str) -> str:
    """What computed the labels of all rows; DefectkitError where they name several sources."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.read("label_source", text) or default, row)
    if len(first) > 1:
        (source, row), (other, other_row) = list(first.items())[:2]
        raise DefectkitError(
            f"{row.where} is labelled by {source} and row {other_row.number} by {other}, whose "
            "zero and accuracy differ; make a folder for each."
        )
    return next(iter(first))


def _check_unique(rows: Sequence[Row]) -> None:
    for column in ("file", "uid"):
        first: dict[str, Row] = {}
        for row in rows:
            value = row.read(column, text)
            if value and first.setdefault(value, row) is not row:
                raise DefectkitError(
                    f"{row.where}, column {column}: {value} stands twice, first in row "
                    f"{first[value].number}; remove one of the rows."
                )


def _record(
    folder: Path, row: Row, hosts: dict[str, Atoms], label_source: str
) -> tuple[DefectRecord, str]:
    """The record of a row, and what is doubtful about its defect in words, else empty."""
    name = row.need("file", text)
    atoms = _read(folder, row, name)
    values = {"uid": name, "host": ""} | fields(row.cells, row.where, "column")
    values["label_source"] = label_source
    given = row.read("natoms", whole)
    if given not in (None, len(atoms)):
        raise DefectkitError(
            f"{row.where}: natoms is {given}, and {name} holds {len(atoms)} atoms."
        )
    for symbol in filter(None, values.get("dopant", "").split(",")):
        if symbol not in atoms.symbols:
            raise DefectkitError(
                f"{row.where}, column dopant: there is no {symbol} in {name}; mend the table or "
                "the structure."
            )
    arrays = {"unrelaxed": _unrelaxed(folder, row, name, atoms)}
    found, doubt = None, ""
    host = values["host"]
    if host in hosts:
        where = f"{row.where} ({name})"
        found = _recognised(atoms, hosts[host], host, where)
        doubt = f"{name}: {found.reason}" if found.ambiguous else ""
        seen = {"dopant": _dopant(found, atoms), "removed": found.removed}
        if not found.ambiguous:
            _compare(values, seen, where)
        values = {**seen, "defecttype": found.defecttype} | values
        arrays["defect_positions"] = found.defect_positions
    record = DefectRecord(atoms=atoms, **arrays, **values)
    if found is not None:
        keep_recognition(record, hosts[host], found)
    return record, doubt


def _read(folder: Path, row: Row, name: str) -> Atoms:
    """The structure that a cell of the row names, which lies in the folder."""
    if len(name) > LONGEST_NAME:
        raise DefectkitError(
            f"{row.where}: '{name[:40]}...' has {len(name):,} characters; name a file."
        )
    file = Path(name.replace("\\", "/"))
    if file.is_absolute() or ".." in file.parts:
        raise DefectkitError(
            f"{row.where}: {name} lies outside {folder}; put the file into the folder."
        )
    try:
        return read_structure(folder / file)
    except DefectkitError as error:
        raise DefectkitError(f"{row.where}: {one_line(error, 500)}") from error


def _unrelaxed(folder: Path, row: Row, name: str, atoms: Atoms) -> np.ndarray | None:
    """Positions (N, 3) before relaxation, where the row says which they are."""
    cell = row.read("unrelaxed", text)
    if cell is None or cell.lower() in NO:
        return None
    if cell.lower() in YES:
        return atoms.positions.copy()
    before = _read(folder, row, cell)
    where = f"{row.where}, column unrelaxed: {cell}"
    if not np.array_equal(before.numbers, atoms.numbers):
        raise DefectkitError(
            f"{where} holds {before.symbols.formula:hill} and {name} {atoms.symbols.formula:hill}, "
            "or in another order; give the same atoms in the same order."
        )
    if np.abs(before.cell.array[:2] - atoms.cell.array[:2]).max() > SAME_CELL:
        raise DefectkitError(f"{where} and {name} have different cells; give one cell to both.")
    height = atoms.cell[2, 2]
    drift = (atoms.positions - before.positions)[:, 2].mean()
    before.positions[:, 2] += height * np.round(drift / height)  # images of one layer
    moved = DefectRecord(name, atoms, "", "", unrelaxed=before.positions).displacements()
    middle = np.median(np.linalg.norm(moved, axis=1))
    if middle > SAME_ORDER:
        raise DefectkitError(
            f"{where}: half of the atoms move by more than {middle:.1f} Å to those of {name}; give "
            "the atoms in the same order."
        )
    return before.positions


def _recognised(atoms: Atoms, pristine: Atoms, host: str, where: str) -> Recognition:
    """The defect; DefectkitError where `pristine` is hardly to be found in `atoms`."""
    try:
        found = recognise(atoms, pristine)
    except DefectkitError as error:
        raise DefectkitError(f"{where}: {error}") from error
    own = found.site_kind == SiteKind.HOST
    sites = np.concatenate([found.original_z[found.original_z > 0], found.vacancy_z])
    kinds, counts = np.unique(sites, return_counts=True)
    none_left = [
        z for z, n in zip(kinds, counts) if n >= WHOLE_SPECIES and z not in atoms.numbers[own]
    ]
    if own.sum() < OWN_SHARE * len(sites) or none_left:
        raise DefectkitError(
            f"{where}: {own.sum()} of {len(sites)} sites of the host {host} "
            f"({pristine.symbols.formula.reduce()[0]}) hold their own atom; it is another host: "
            f"mend the column host, or the file of {host} in hosts/."
        )
    return found


def _dopant(found: Recognition, atoms: Atoms) -> str:
    """Symbols of the atoms that are not on a site of their own."""
    return ",".join(sorted(set(atoms.symbols[found.defect_indices])))


def _compare(values: dict, seen: dict, where: str) -> None:
    """DefectkitError where a table says otherwise than the structure shows."""
    dopants = values.get("dopant", seen["dopant"]), seen["dopant"]
    removed = values.get("removed", seen["removed"]), seen["removed"]
    pairs = {"dopant": dopants, "removed": tuple(",".join(sorted(one)) for one in removed)}
    for column, (listed, seen_symbols) in pairs.items():
        if Counter(listed.split(",")) != Counter(seen_symbols.split(",")):
            raise DefectkitError(
                f"{where}, column {column}: the table says '{listed}' and the structure, against "
                f"its host, '{seen_symbols}'; mend the one that is wrong, or leave the cell empty."
            )
