"""Readers of structures beside tables: the 2DMD format, and a folder of files with a CSV."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import spglib
from ase import Atoms

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.sources import SOURCES
from defectkit.records import DefectRecord, scalar_fields
from defectkit.structures.files import as_layer, read_structure
from defectkit.structures.recognise import Recognition, recognise

STRUCTURE_SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")
TEXTS = ("file", "name", "host", "dopant", "removed", "defecttype", "site", "label_source")


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
    structures = _read_csv(folder, "data", index_col=0)
    targets = _read_csv(folder, "targets")
    types = _read_csv(folder, "descriptors", index_col="_id")
    _check_ids(folder, structures.index, targets["descriptor_id"], types.index)
    hosts = {base: read_structure(folder / f"{base}.cif") for base in _bases(structures, types)}
    spacegroups = {base: _spacegroup(unit) for base, unit in hosts.items()}
    label_source = SOURCES["2dmd"].label_source
    records = []
    for number, (text, target) in enumerate(
        zip(structures["structures"], targets.to_dict("records")), start=1
    ):
        kind = types.loc[target["descriptor_id"]]
        where = f"{folder}, row {number} ({target['_id']})"
        atoms = as_layer(_p1_atoms(text, where))
        found = recognise(atoms, hosts[kind.base])
        expected = _literal(kind.defects, where)
        _compare(found, expected, where)
        records.append(
            DefectRecord(
                uid=target["_id"],
                name=f"{kind.base}_{kind.description}_{target['_id'][-6:]}",
                atoms=atoms,
                unrelaxed=atoms.positions.copy(),
                label_source=label_source,
                host=kind.base,
                dopant=",".join(sorted({d["to"] for d in expected if "to" in d})),
                removed=found.removed,
                defecttype=found.defecttype,
                site=kind.description,
                eform=float(target["formation_energy"]),
                spin=float(target["total_mag"]),
                en2=float(target["energy"]),
                host_spacegroup=spacegroups[kind.base],
                supercell=int("".join(map(str, _literal(kind.cell, where)))),
                defect_positions=found.defect_positions,
            )
        )
    families = {base: family_name(base, spacegroups[base]) for base in hosts}
    return Dataset("2dmd", label_source, records, hosts, families)


def read_folder(folder: Path) -> Dataset:
    """A folder of CIF, POSCAR, xyz or extxyz files with a CSV file of targets.

    The one CSV file (or `targets.csv`) has the columns `file` and `eform` (eV), and any others
    of `records.COLUMNS`: `spin` (μB), `host`, `dopant`, `removed` and so on; further columns
    are ignored. A pristine unit cell in `hosts/HOST.cif` (or another format) lets the kit find
    the defect and fill in `removed` and `defecttype` where the CSV does not.
    """
    folder = Path(folder)
    path = _targets_file(folder)
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
    for column in ("file", "eform"):
        if column not in table:
            raise DefectkitError(f"{path} has no column '{column}'; it has {list(table)}.")
    hosts = {
        file.stem: read_structure(file)
        for file in sorted((folder / "hosts").glob("*"))
        if file.suffix.lower() in STRUCTURE_SUFFIXES
    }
    label_source = f"{folder.name} (user's files)"
    records = [_folder_record(folder, row, hosts, label_source) for row in table.to_dict("records")]
    families = {host: family_name(host, _spacegroup(unit)) for host, unit in hosts.items()}
    return Dataset(folder.name, label_source, records, hosts, families)


def _folder_record(
    folder: Path, row: dict, hosts: dict[str, Atoms], label_source: str
) -> DefectRecord:
    atoms = read_structure(folder / row["file"])
    known = {key: value for key, value in row.items() if not pd.isna(value)}
    values = {"uid": row["file"], "host": "", "label_source": label_source}
    values |= scalar_fields(known)
    removed = tuple(filter(None, known.get("removed", "").split(",")))
    positions = None
    if values["host"] in hosts:
        found = recognise(atoms, hosts[values["host"]])
        positions = found.defect_positions
        removed = removed or found.removed
        values.setdefault("defecttype", found.defecttype)
    return DefectRecord(
        atoms=atoms,
        removed=removed,
        defect_positions=positions,
        **values,
    )


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


def _read_csv(folder: Path, stem: str, **options) -> pd.DataFrame:
    for name in (f"{stem}.csv.gz", f"{stem}.csv"):
        if (folder / name).is_file():
            return pd.read_csv(folder / name, **options)
    raise DefectkitError(f"{folder} has no {stem}.csv or {stem}.csv.gz; this is not a 2DMD folder.")


def _check_ids(folder: Path, structure_ids, target_ids, known_ids) -> None:
    if len(structure_ids) != len(target_ids):
        raise DefectkitError(
            f"{folder}: data has {len(structure_ids)} rows and targets {len(target_ids)}; "
            "they must correspond row by row."
        )
    for number, (ours, theirs) in enumerate(zip(structure_ids, target_ids), start=1):
        if ours != theirs:
            raise DefectkitError(
                f"{folder}: row {number} of data is of type {ours}, that of targets of type "
                f"{theirs}; bring both into the same order."
            )
        if ours not in known_ids:
            raise DefectkitError(
                f"{folder}: descriptors.csv has no type {ours}, which row {number} is of."
            )


def _literal(text: str, where: str) -> list:
    """The Python literal in a descriptor; never run as code."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise DefectkitError(f"{where}: its descriptor '{text}' is no literal list.") from error


def _bases(structures: pd.DataFrame, types: pd.DataFrame) -> list[str]:
    return sorted(types.loc[structures.index.unique(), "base"].unique())


def _p1_atoms(text: str, where: str) -> Atoms:
    """Atoms of a CIF without symmetry; pymatgen's full parser takes thirty times as long."""
    from pymatgen.core import Lattice
    from pymatgen.io.cif import CifFile

    (block,) = CifFile.from_str(text).data.values()
    if block.data.get("_symmetry_equiv_pos_as_xyz") != ["x, y, z"]:
        raise DefectkitError(f"{where}: the CIF has symmetry operations; expand it to P 1.")
    lengths = [float(block[f"_cell_length_{axis}"]) for axis in "abc"]
    angles = [float(block[f"_cell_angle_{name}"]) for name in ("alpha", "beta", "gamma")]
    scaled = np.array([block[f"_atom_site_fract_{axis}"] for axis in "xyz"], dtype=float).T
    cell = Lattice.from_parameters(*lengths, *angles).matrix
    return Atoms(block["_atom_site_type_symbol"], scaled_positions=scaled, cell=cell, pbc=True)


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


def _spacegroup(unit: Atoms) -> int:
    cell = (unit.cell.array, unit.get_scaled_positions(), unit.numbers)
    return int(spglib.get_symmetry_dataset(cell, symprec=1e-2).number)
