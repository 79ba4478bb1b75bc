"""Subsets of 2DMD, kept in the user's data folder once they have been read.

Numbers behind a JSON header (safetensors), with nothing in it that a reader could be made to run.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from defectkit import DefectkitError
from defectkit.data.sources import SOURCES
from defectkit.structures.lattice import Setting
from defectkit.structures.recognise import Recognition, keep_recognition, recognised
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import checksum

NUMBERS = dict.fromkeys(("eform", "eform_per_site", "gap", "spin", "en2"), "<f8")
NUMBERS |= {"host_spacegroup": "<i8", "supercell": "<i8"}
TEXTS = ("uid", "name", "host", "dopant", "defecttype", "site", "subset")


@dataclass(frozen=True, eq=False)
class Subset:
    """The rows of one folder.

    Attributes:
        records: with their recognitions.
        hosts: unit cells by name.
        notes: what is to be said of the rows, in lines.
    """

    records: list[DefectRecord]
    hosts: dict[str, Atoms]
    notes: list[str]


def save_subset(subset: Subset, path: Path) -> None:
    """Write the rows of a subset; arrays of all rows lie end to end."""
    records = subset.records
    units = [subset.hosts[record.host] for record in records]
    found = [recognised(record, unit) for record, unit in zip(records, units, strict=True)]
    tensors = {
        name: np.array([getattr(record, name) for record in records], kind)
        for name, kind in NUMBERS.items()
    }
    arrays = {
        "z": ([record.atoms.numbers for record in records], "u1"),
        "positions": ([record.atoms.positions for record in records], "<f8"),
        "cell": ([record.atoms.cell.array for record in records], "<f8"),
        "site_kind": ([one.site_kind for one in found], "u1"),
        "original_z": ([one.original_z for one in found], "u1"),
        "ideal_positions": ([one.ideal_positions for one in found], "<f8"),
        "vacancy_z": ([one.vacancy_z for one in found], "u1"),
        "vacancy_positions": ([one.vacancy_positions for one in found], "<f8"),
        "matrix": ([one.setting.matrix for one in found], "<f8"),
        "deformation": ([one.setting.deformation for one in found], "<f8"),
    }
    for name, (pieces, kind) in arrays.items():
        tensors[name] = np.concatenate(pieces).astype(kind)
    tensors["n_atoms"] = np.array([len(record.atoms) for record in records], "<i8")
    tensors["n_vacancies"] = np.array([len(one.vacancy_z) for one in found], "<i8")
    tensors["rms"] = np.array([one.rms for one in found], "<f8")
    hosts = {
        name: [unit.numbers.tolist(), unit.positions.tolist(), unit.cell.array.tolist()]
        for name, unit in subset.hosts.items()
    }
    header = {name: [getattr(record, name) for record in records] for name in TEXTS}
    header |= {
        "removed": [record.removed for record in records],
        "reason": [one.reason for one in found],
        "hosts": hosts,
        "notes": subset.notes,
        "crc": checksum(tensors),
    }
    # Through memory: the library's own writing to files hides what the system says.
    path.write_bytes(save(tensors, {"structures": json.dumps(header)}))


def load_subset(path: Path) -> Subset:
    """Read what `save_subset` wrote; DefectkitError where the file is damaged."""
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {}).get("structures", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise DefectkitError(f"{path} is not a readable file of structures: {error}.") from error
    if header.get("crc") != checksum(tensors):
        raise DefectkitError(f"{path} is damaged: its checksum is wrong; delete it.")
    hosts = {
        name: Atoms(numbers, positions=positions, cell=cell, pbc=(True, True, False))
        for name, (numbers, positions, cell) in header["hosts"].items()
    }
    return Subset(list(_records(header, tensors, hosts)), hosts, header["notes"])


def _records(
    header: Mapping, tensors: Mapping[str, np.ndarray], hosts: Mapping[str, Atoms]
) -> Iterator[DefectRecord]:
    """The records in the arrays of a file, with their recognitions."""
    rows = len(header["uid"])
    sizes = {"n_atoms": tensors["n_atoms"], "n_vacancies": tensors["n_vacancies"]}
    ends = {name: np.cumsum(counts)[:-1] for name, counts in sizes.items()}
    atoms_wise = ("z", "positions", "site_kind", "original_z", "ideal_positions")
    pieces = {name: np.split(_wide(tensors[name]), ends["n_atoms"]) for name in atoms_wise}
    for name in ("vacancy_z", "vacancy_positions"):
        pieces[name] = np.split(_wide(tensors[name]), ends["n_vacancies"])
    settings = _settings(tensors["matrix"].reshape(-1, 2, 2), tensors["deformation"])
    cells, matrices = {}, tensors["cell"].reshape(-1, 3, 3)
    values = {name: tensors[name].tolist() for name in NUMBERS}
    values |= {name: header[name] for name in TEXTS}
    names, columns = list(values), zip(*values.values(), strict=True)
    for row, known in zip(range(rows), columns, strict=True):
        cell = cells.setdefault(matrices[row].tobytes(), Cell(matrices[row]))
        atoms = Atoms(
            numbers=pieces["z"][row],
            positions=pieces["positions"][row],
            cell=cell,
            pbc=(True, True, False),
        )
        found = Recognition(
            site_kind=pieces["site_kind"][row],
            original_z=pieces["original_z"][row],
            ideal_positions=pieces["ideal_positions"][row],
            vacancy_positions=pieces["vacancy_positions"][row],
            vacancy_z=pieces["vacancy_z"][row],
            ambiguous=bool(header["reason"][row]),
            reason=header["reason"][row],
            rms=float(tensors["rms"][row]),
            setting=settings[row],
        )
        record = DefectRecord(
            atoms=atoms,
            unrelaxed=pieces["positions"][row],
            label_source=SOURCES["2dmd"].label_source,
            removed=tuple(header["removed"][row]),
            defect_positions=found.defect_positions,
            **dict(zip(names, known, strict=True)),
        )
        keep_recognition(record, hosts[record.host], found)
        yield record


def _settings(matrices: np.ndarray, deformations: np.ndarray) -> list[Setting]:
    """Of matrices and deformations (rows, 2, 2); equal ones are one object."""
    known: dict[bytes, Setting] = {}
    pairs = zip(matrices, deformations.reshape(-1, 2, 2), strict=True)
    return [
        known.setdefault(matrix.tobytes() + deformation.tobytes(), Setting(matrix, deformation))
        for matrix, deformation in pairs
    ]


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int64) if array.dtype == np.uint8 else array
