"""Reads a folder in the format of 2DMD: CIF texts in one table, labels in another."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.folder import spacegroup_of
from defectkit.data.sources import SOURCES
from defectkit.data.table import Row, number, read_table, text
from defectkit.structures.files import as_layer, check_layer, read_structure
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, keep_recognition, recognise
from defectkit.structures.record import DefectRecord


def read_2dmd(folder: Path) -> Dataset:
    """Defects in the format of 2DMD (Huang et al., npj 2D Mater. Appl. 7, 6, 2023).

    `folder` holds `data.csv[.gz]` (CIF text per row, indexed by the defect type's id),
    `targets.csv[.gz]` (labels; row k belongs to row k of the former), `descriptors.csv` (defect
    types) and the unit cell `HOST.cif` of every host. The structures are unrelaxed. What is
    missing and replaced is found by matching to the host and compared with the defect type.

    Raises DefectkitError where a file is missing, the ids of a row disagree, or a structure is
    not what its defect type says.
    """
    folder = Path(folder)
    structures = _read(folder, "data", ["structures"])
    targets = _read(folder, "targets", ["_id", "descriptor_id", "formation_energy"])
    columns = ["_id", "description", "base", "cell", "defects"]
    types = {row.need("_id", text): row.cells for row in _read(folder, "descriptors", columns)}
    _check_ids(folder, structures, targets, types)
    bases = sorted({types[_type_id(row)]["base"] for row in structures})
    hosts = {base: read_structure(folder / f"{base}.cif") for base in bases}
    spacegroups = {base: spacegroup_of(unit) for base, unit in hosts.items()}
    records = [
        _record(structure, target, types[_type_id(structure)], hosts, spacegroups)
        for structure, target in zip(structures, targets)
    ]
    families = {
        base: family_name(unit.symbols.formula, spacegroups[base]) for base, unit in hosts.items()
    }
    return Dataset("2dmd", SOURCES["2dmd"].label_source, records, hosts, families)


def _record(
    structure: Row, target: Row, kind: dict, hosts: dict[str, Atoms], spacegroups: dict[str, int]
) -> DefectRecord:
    uid, base = target.need("_id", text), kind["base"]
    where = f"{structure.where} ({uid})"
    atoms = _p1_layer(structure.need("structures", text), where)
    try:
        found = recognise(atoms, hosts[base])
    except DefectkitError as error:
        raise DefectkitError(f"{where}: {error}") from error
    expected = _defects(kind["defects"], where)
    _compare(found, expected, where)
    energies = {
        field: value
        for field, column in {
            "eform": "formation_energy",
            "spin": "total_mag",
            "en2": "energy",
        }.items()
        if (value := target.read(column, number)) is not None
    }
    record = DefectRecord(
        uid=uid,
        name=f"{base}_{kind['description']}_{uid[-6:]}",
        atoms=atoms,
        unrelaxed=atoms.positions.copy(),
        label_source=SOURCES["2dmd"].label_source,
        host=base,
        dopant=",".join(sorted({d["to"] for d in expected if "to" in d})),
        removed=found.removed,
        defecttype=found.defecttype,
        site=kind["description"],
        host_spacegroup=spacegroups[base],
        supercell=_repeat(kind["cell"], where),
        defect_positions=found.defect_positions,
        **energies,
    )
    keep_recognition(record, hosts[base], found)
    return record


def _read(folder: Path, stem: str, columns: list[str]) -> list[Row]:
    for name in (f"{stem}.csv.gz", f"{stem}.csv"):
        if (folder / name).is_file():
            return read_table(folder / name, columns)
    raise DefectkitError(f"{folder} has no {stem}.csv or {stem}.csv.gz; this is not a 2DMD folder.")


def _type_id(structure: Row) -> str:
    """The defect type's id, in the first column, whose name differs between parts of the data."""
    return next(iter(structure.cells.values())).strip()


def _check_ids(folder: Path, structures: list[Row], targets: list[Row], known: dict) -> None:
    if len(structures) != len(targets):
        raise DefectkitError(
            f"{folder}: data has {len(structures)} rows and targets {len(targets)}; "
            "they must correspond row by row."
        )
    for structure, target in zip(structures, targets):
        kind, target_kind = _type_id(structure), target.need("descriptor_id", text)
        if kind != target_kind:
            raise DefectkitError(
                f"{folder}: row {structure.number} of data is of type {kind}, that of targets of "
                f"type {target_kind}; bring both into the same order."
            )
        if kind not in known:
            raise DefectkitError(
                f"{folder}: descriptors.csv has no type {kind}, which row {structure.number} is of."
            )


def _literal(text: str, where: str) -> object:
    """The Python literal in a descriptor; never run as code."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DefectkitError(f"{where}: its descriptor '{text}' is no literal list.") from error


def _defects(text: str, where: str) -> list[dict]:
    """Vacancies with their `element`, substitutions with `from` and `to`."""
    needed = {"vacancy": {"element"}, "substitution": {"from", "to"}}
    defects = _literal(text, where)
    for defect in defects if isinstance(defects, list) else [None]:
        keys = needed.get(defect.get("type")) if isinstance(defect, dict) else None
        if not keys or any(defect.get(key) not in atomic_numbers for key in keys):
            raise DefectkitError(f"{where}: its descriptor '{text}' is no list of known defects.")
    return defects


def _repeat(text: str, where: str) -> int:
    """The repetition as an integer: "[8, 8, 1]" as 881."""
    repeat = _literal(text, where)
    if not isinstance(repeat, list | tuple) or not all(isinstance(n, int) for n in repeat):
        raise DefectkitError(f"{where}: its cell '{text}' is no list of three whole numbers.")
    return int("".join(map(str, repeat)) or 0)


def _p1_layer(text: str, where: str) -> Atoms:
    """Atoms of a CIF without symmetry; pymatgen's full parser takes thirty times as long."""
    from pymatgen.core import Lattice
    from pymatgen.io.cif import CifFile

    try:
        (block,) = CifFile.from_str(text).data.values()
        operations = block.data.get("_symmetry_equiv_pos_as_xyz")
        lengths = [float(block[f"_cell_length_{axis}"]) for axis in "abc"]
        angles = [float(block[f"_cell_angle_{name}"]) for name in ("alpha", "beta", "gamma")]
        scaled = np.array([block[f"_atom_site_fract_{axis}"] for axis in "xyz"], dtype=float).T
        cell = Lattice.from_parameters(*lengths, *angles).matrix
        symbols = block["_atom_site_type_symbol"]
        atoms = Atoms(symbols, scaled_positions=scaled, cell=cell, pbc=True)
    except Exception as error:  # the parser raises anything on a broken text
        raise DefectkitError(
            f"{where}: its structure is no readable CIF ({type(error).__name__}: "
            f"{one_line(error)})."
        ) from error
    if operations != ["x, y, z"]:
        raise DefectkitError(f"{where}: the CIF has symmetry operations; expand it to P 1.")
    check_layer(atoms, where)
    try:
        return as_layer(atoms)
    except DefectkitError as error:
        raise DefectkitError(f"{where}: {error}") from error


def _compare(found: Recognition, expected: list[dict], where: str) -> None:
    """DefectkitError where the structure is not what its defect type says."""
    wanted = Counter(d.get("from") or d["element"] for d in expected)
    if Counter(found.removed) != wanted or len(found.defect_indices) != sum(
        d["type"] == "substitution" for d in expected
    ):
        raise DefectkitError(
            f"{where}: the structure lacks {dict(Counter(found.removed))} against its host, its "
            f"defect type says {dict(wanted)}; the files do not belong together."
        )
