"""The 2D Material Defect data (2DMD): unrelaxed supercells of six hosts with PBE labels.

P. Huang et al., npj 2D Mater. Appl. 7, 6 (2023). The data come in subsets, a folder each. What
was read once is kept in the user's data folder: numbers behind a JSON header (safetensors), with
nothing in it that a reader could be made to run.
"""

import ast
import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers, chemical_symbols
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data.cleaning import IDENTITY_TOLERANCE
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.folder import spacegroup_of
from defectkit.data.sources import SOURCES, data_folder
from defectkit.data.table import Row, number, read_table, text
from defectkit.structures.files import MAX_ATOMS, as_layer, check_layer, read_bytes, read_structure
from defectkit.structures.lattice import Setting
from defectkit.structures.names import one_line
from defectkit.structures.recognise import (
    Recognition,
    keep_recognition,
    recognise_unrelaxed,
    recognised,
)
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import checksum, keep

FORMAT = 1  # raise it when the same files give other records
ROWS = {"low": 5933, "high": 500}  # of a published subset, such as low_MoS2
DENSITIES = {f"{density}_density_defects": density for density in ROWS}  # official folders
DEEPEST = 2  # folders between the one that is given and that of a subset
DATA, ARCHIVE = ("data.csv.gz", "data.csv"), "initial.tar.gz"  # that hold structures
TARGETS = ("targets.csv.gz", "targets.csv", "defects.csv.gz", "defects.csv")  # the first one there
MAX_ARCHIVE = 500_000_000  # bytes of an archive, unpacked
LAYER_SHARE, LOWEST_CELL = 0.5, 10.0  # of the height, and Å: certainly a layer with vacuum
P1_ATOMS = """loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
"""  # what stands between cell and atoms in the files that pymatgen writes without symmetry
CELL_KEYS = [f"_cell_length_{axis}" for axis in "abc"]
CELL_KEYS += [f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")]
HEAD_LINE = re.compile(r"#.*|data_\S*|_\S+\s+\S.*")
NUMBERS = dict.fromkeys(("eform", "eform_per_site", "gap", "spin", "en2"), "<f8")
NUMBERS |= {"host_spacegroup": "<i8", "supercell": "<i8"}
TEXTS = ("uid", "name", "host", "dopant", "defecttype", "site", "subset")


@dataclass(frozen=True, eq=False)
class _Subset:
    """The rows of one folder.

    Attributes:
        records: with their recognitions.
        hosts: unit cells by name.
        notes: what is to be said of the rows, in lines.
    """

    records: list[DefectRecord]
    hosts: dict[str, Atoms]
    notes: list[str]


def read_2dmd(paths: Sequence[Path]) -> Dataset:
    """The rows of all subsets that lie at `paths`: their folders, or ones that hold several.

    The folder of a subset holds `descriptors.csv` (defect types) and either `data.csv[.gz]` (CIF
    text per row, indexed by the defect type's id) with `targets.csv[.gz]` (labels; row k belongs
    to row k of the former), or, as it is published, `initial.tar.gz` (CIF files named by the ids
    of rows) with `targets.csv[.gz]` or `defects.csv[.gz]`. The unit cell `HOST.cif` of every host
    lies there too, or in a folder `unit_cells` there or above. `elements.csv` (chemical potentials)
    and `initial_structures.csv` (pristine energies), there or above, are for checking the
    formation energies, and for computing those that a table does not give.

    The folder's name is the `subset` of its rows. A host is called as its file, or as the folder
    where that says more: MoS2 in a folder low_MoS2 is the host low_MoS2, since its unit cell is
    another than in high_MoS2.

    The structures are unrelaxed. What is missing and replaced is found by matching to the host; a
    line says how many descriptors say otherwise. A moment that is 0 in all rows of a folder was
    not computed, and is NaN. The gap is the smallest of the spin channels.

    Raises DefectkitError where a file is missing or no archive of plain files, the ids of a row
    disagree, a structure is not of its host, an energy is not that of its definition, or two
    folders have different hosts of one name.
    """
    records: list[DefectRecord] = []
    hosts: dict[str, Atoms] = {}
    for folder, name in _subset_folders(paths).items():
        subset = _kept_subset(folder, name)
        for line in subset.notes:
            tqdm.write(line)
        for host, unit in subset.hosts.items():
            if hosts.setdefault(host, unit) != unit:
                raise DefectkitError(
                    f"{folder} has another unit cell of {host} than a folder before it; call the "
                    f"folders like low_{host} and high_{host}."
                )
        records += subset.records
    families = {
        name: family_name(unit.symbols.formula, spacegroup_of(unit)) for name, unit in hosts.items()
    }
    return Dataset("2dmd", SOURCES["2dmd"].label_source, records, hosts, families)


def _subset_folders(paths: Sequence[Path]) -> dict[Path, str]:
    """The names of the subsets at or below `paths` by folder, in order."""
    found: dict[Path, None] = {}
    for path in paths:
        here = [folder.resolve() for folder in _below(Path(path), DEEPEST)]
        if not here:
            raise DefectkitError(
                f"{path} has no data.csv, data.csv.gz or {ARCHIVE}, nor has a folder in it; name "
                "a folder of 2DMD, unpacked."
            )
        found |= dict.fromkeys(here)
    twice = Counter(folder.name for folder in found)
    return {f: f.name if twice[f.name] == 1 else f"{f.parent.name}_{f.name}" for f in found}


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / name).is_file() for name in (*DATA, ARCHIVE)):
        yield folder
    elif depth and folder.is_dir():
        for inner in sorted(folder.iterdir()):
            yield from _below(inner, depth - 1)


def _kept_subset(folder: Path, name: str) -> _Subset:
    """The rows of a folder as they were kept when it was read before, else read and kept."""
    path = data_folder() / "structures" / f"2dmd-{_hash(folder, name)}.safetensors"
    if os.path.isfile(path):  # false where it may not even be looked for
        try:
            return _load(path)
        except DefectkitError as error:
            tqdm.write(f"{error} The structures are read anew.")
    subset = _read_subset(folder, name)
    keep(path, lambda part: _save(subset, part))
    return subset


def _hash(folder: Path, name: str) -> str:
    """Of the name of a subset and the contents of its files that are read."""
    digest = hashlib.sha256(json.dumps([FORMAT, name]).encode())
    for place in _places(folder):
        files = [place / "elements.csv", place / "initial_structures.csv"]
        files += sorted((place / "unit_cells").glob("*.cif"))
        if place == folder:
            files += [folder / file for file in (*DATA, ARCHIVE, *TARGETS, *_either("descriptors"))]
            files += sorted(folder.glob("*.cif"))
        for file in files:
            with suppress(OSError):  # whoever needs the file says so
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.name}\0{content}\0".encode())
    return digest.hexdigest()[:20]


def _places(folder: Path) -> list[Path]:
    """Where files may lie that several subsets share, the nearest first."""
    return [folder, *list(folder.parents)[:DEEPEST]]


def _either(stem: str) -> tuple[str, str]:
    return f"{stem}.csv.gz", f"{stem}.csv"


def _read_subset(folder: Path, name: str) -> _Subset:
    targets = _table(folder, TARGETS, ["_id", "descriptor_id"])
    columns = ["_id", "description", "base", "cell", "defects"]
    rows = {r.need("_id", text): r for r in _table(folder, _either("descriptors"), columns)}
    if not targets:
        raise DefectkitError(f"{folder}: its table of labels has no row; copy the folder again.")
    structures = _structures(folder, targets)
    used = dict.fromkeys(target.need("descriptor_id", text) for target in targets)
    types = {key: _DefectType.read(_descriptor(folder, rows, key)) for key in used}
    bases = sorted({kind.base for kind in types.values()})
    units = {base: _unit_cell(folder, base) for base in bases}
    spacegroups = {base: spacegroup_of(unit) for base, unit in units.items()}
    polarised = any(target.read("total_mag", number) for target in targets)
    reference = _Reference.read(folder)
    records, differing = [], 0
    for (where, cif), target in zip(structures, targets, strict=True):
        kind, uid = types[target.need("descriptor_id", text)], target.need("_id", text)
        atoms = _read_layer(cif, f"{where} ({uid})")
        try:
            found = recognise_unrelaxed(atoms, units[kind.base])
        except DefectkitError as error:
            raise DefectkitError(f"{where} ({uid}): {error}") from error
        changes = _changes(found, atoms)
        differing += changes != kind.changes
        record = DefectRecord(
            atoms=atoms,
            unrelaxed=atoms.positions.copy(),
            subset=name,
            label_source=SOURCES["2dmd"].label_source,
            host=_host_name(name, kind.base),
            host_spacegroup=spacegroups[kind.base],
            **kind.fields(uid),
            **_found_fields(found, atoms),
            **_labels(
                target, polarised, reference.expected(kind, changes, target), changes.total()
            ),
        )
        keep_recognition(record, units[kind.base], found)
        records.append(record)
    if not any(np.isfinite(record.eform) for record in records):
        raise DefectkitError(
            f"{folder}: its table has no formation_energy, and elements.csv and "
            "initial_structures.csv, by which it is computed, are neither there nor above."
        )
    hosts = {_host_name(name, base): unit for base, unit in units.items()}
    return _Subset(records, hosts, _notes(folder, name, len(records), differing))


def _structures(folder: Path, targets: list[Row]) -> list[tuple[str, str]]:
    """Where the structure of each row stands, in words, and its CIF text."""
    if any((folder / name).is_file() for name in DATA):
        rows = _table(folder, DATA, ["structures"])
        _check_ids(folder, rows, targets)
        return [(row.where, row.need("structures", text)) for row in rows]
    path = folder / ARCHIVE
    texts = read_archive(path)
    ids = [target.need("_id", text) for target in targets]
    if missing := [uid for uid in ids if uid not in texts]:
        raise DefectkitError(
            f"{path} has no {missing[0]}.cif, and lacks {len(missing):,} of the {len(ids):,} "
            "structures that have labels; copy it again."
        )
    return [(f"{path}, {uid}.cif", texts[uid]) for uid in ids]


def read_archive(path: Path) -> dict[str, str]:
    """The texts of the CIF files in a .tar.gz by their names without folder and ending.

    Nothing is written to the disk. Raises DefectkitError for an archive that is damaged or larger
    than `MAX_ARCHIVE`, or that holds anything but files and folders below its own: links, devices,
    absolute names, names with "..".
    """
    raw = BytesIO(read_bytes(path, MAX_ARCHIVE))
    try:
        with tarfile.open(fileobj=raw, mode="r:") as archive:
            members = archive.getmembers()
            for member in members:
                _check_member(member, path)
            return {
                PurePosixPath(member.name).stem: archive.extractfile(member).read().decode()
                for member in members
                if member.isreg() and member.name.endswith(".cif")
            }
    except (tarfile.TarError, UnicodeDecodeError, EOFError) as error:
        raise DefectkitError(
            f"{path} is no whole archive of texts ({one_line(error)}); copy it again."
        ) from error


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    name = PureWindowsPath(member.name)  # which knows the separators and roots of all systems
    plain = (member.isreg() and not member.issparse()) or member.isdir()
    if not plain or name.anchor or ".." in name.parts:
        raise DefectkitError(
            f"{path}: {one_line(member.name)} is no plain file inside the archive, which is not "
            "read; fetch it again from its page."
        )


def _unit_cell(folder: Path, base: str) -> Atoms:
    places = [folder / f"{base}.cif"]
    places += [place / "unit_cells" / f"{base}.cif" for place in _places(folder)]
    return read_structure(next(filter(Path.is_file, places), places[0]))


@dataclass(frozen=True)
class _Reference:
    """What a formation energy is measured from; empty where the files are not there.

    Attributes:
        potentials: eV, by element.
        pristine: eV, total energies of pristine supercells by host and repetition (881).
    """

    potentials: Mapping[str, float]
    pristine: Mapping[tuple[str, int], float]

    @classmethod
    def read(cls, folder: Path) -> "_Reference":
        """From `elements.csv` and `initial_structures.csv` in the nearest place."""
        tables = []
        columns = {
            "elements.csv": ["element", "chemical_potential"],
            "initial_structures.csv": ["base", "cell_size", "energy"],
        }
        for name, needed in columns.items():
            files = filter(Path.is_file, (place / name for place in _places(folder)))
            file = next(files, None)
            tables.append(read_table(file, needed) if file else [])
        elements, pristine = tables
        return cls(
            {row.need("element", text): row.need("chemical_potential", number) for row in elements},
            {
                (row.need("base", text), _repeat(row.need("cell_size", text), row.where)): row.need(
                    "energy", number
                )
                for row in pristine
            },
        )

    def expected(self, kind: "_DefectType", changes: Counter, target: Row) -> float | None:
        """Energy - pristine - sum of dn mu, eV; None where one of these is not known.

        DefectkitError where the row has a formation energy that is another.
        """
        energy = target.read("energy", number)
        known = {symbol for change in changes for symbol in change if symbol} <= set(
            self.potentials
        )
        pristine = self.pristine.get((kind.base, kind.supercell))
        if energy is None or pristine is None or not known:
            return None
        potentials = {"": 0.0, **self.potentials}
        added = sum(n * (potentials[to] - potentials[was]) for (was, to), n in changes.items())
        expected = energy - pristine - added
        given = target.read("formation_energy", number)
        if given is not None and abs(given - expected) > IDENTITY_TOLERANCE:
            raise DefectkitError(
                f"{target.where}: the formation energy is {given:.4f} eV, and energy - pristine - "
                f"sum of dn mu is {expected:.4f} eV; the files do not belong together."
            )
        return expected


def _notes(folder: Path, name: str, count: int, differing: int) -> list[str]:
    """What is to be said of a subset with `differing` descriptors."""
    notes = []
    if differing:
        notes.append(
            f"{name}: {differing:,} of {count:,} descriptors say otherwise than their structures, "
            "which are trusted."
        )
    published = ROWS.get(DENSITIES.get(folder.parent.name, name.split("_")[0]))
    if published not in (None, count):
        notes.append(f"{name}: {count:,} rows are here; {published:,} are published.")
    return notes


def _host_name(subset: str, base: str) -> str:
    return subset if base in subset.split("_") else base


@dataclass(frozen=True)
class _DefectType:
    """A row of `descriptors.csv`.

    Attributes:
        base: the host.
        description: in the source's words.
        supercell: the repetition as an integer: "[8, 8, 1]" as 881.
        changes: how many host atoms of an element (first) became one of another (second), which
            is empty for a vacancy.
    """

    base: str
    description: str
    supercell: int
    changes: Counter

    @classmethod
    def read(cls, row: Row) -> "_DefectType":
        defects = _defects(row.need("defects", text), row.where)
        return cls(
            base=row.need("base", text),
            description=row.cells["description"],
            supercell=_repeat(row.need("cell", text), row.where),
            changes=Counter((d.get("from") or d["element"], d.get("to", "")) for d in defects),
        )

    def fields(self, uid: str) -> dict:
        """Of the record of a row."""
        name = f"{self.base}_{self.description}_{uid[-6:]}"
        return {"uid": uid, "name": name, "site": self.description, "supercell": self.supercell}


def _changes(found: Recognition, atoms: Atoms) -> Counter:
    """Which element became which, as in `_DefectType.changes`."""
    now = [chemical_symbols[z] for z in atoms.numbers[found.defect_indices]]
    return Counter(zip(found.removed, now + [""] * len(found.vacancy_z), strict=True))


def _found_fields(found: Recognition, atoms: Atoms) -> dict:
    """What the structure says of the defect."""
    return {
        "dopant": ",".join(
            sorted({chemical_symbols[z] for z in atoms.numbers[found.defect_indices]})
        ),
        "removed": found.removed,
        "defecttype": found.defecttype,
        "defect_positions": found.defect_positions,
    }


def _labels(target: Row, polarised: bool, expected: float | None, sites: int) -> dict[str, float]:
    """The labels of a row that are known, by field.

    Args:
        target: the row.
        polarised: whether moments were computed.
        expected: the formation energy (eV) by its definition, for a table that has none.
        sites: of the defect.
    """
    eform = target.read("formation_energy", number)
    eform = expected if eform is None else eform
    channels = [target.read(f"homo_lumo_gap_{spin}", number) for spin in ("majority", "minority")]
    gap = target.read("homo_lumo_gap_min", number)
    if gap is None and None not in channels:
        gap = min(channels)
    labels = {
        "eform": eform,
        "eform_per_site": eform / sites if eform is not None and sites else None,
        "gap": target.read("homo_lumo_gap", number) if gap is None else gap,
        "spin": target.read("total_mag", number) if polarised else None,
        "en2": target.read("energy", number),
    }
    return {name: value for name, value in labels.items() if value is not None}


def _table(folder: Path, names: Sequence[str], columns: list[str]) -> list[Row]:
    for name in names:
        if (folder / name).is_file():
            return read_table(folder / name, columns)
    raise DefectkitError(f"{folder} has no {' or '.join(names)}; this is not a 2DMD folder.")


def _type_id(structure: Row) -> str:
    """The defect type's id, in the first column, whose name differs between parts of the data."""
    return next(iter(structure.cells.values())).strip()


def _check_ids(folder: Path, structures: list[Row], targets: list[Row]) -> None:
    if len(structures) != len(targets):
        raise DefectkitError(
            f"{folder}: data has {len(structures)} rows and targets {len(targets)}; "
            "they must correspond row by row."
        )
    for structure, target in zip(structures, targets, strict=True):
        kind, target_kind = _type_id(structure), target.need("descriptor_id", text)
        if kind != target_kind:
            raise DefectkitError(
                f"{folder}: row {structure.number} of data is of type {kind}, that of targets of "
                f"type {target_kind}; bring both into the same order."
            )


def _descriptor(folder: Path, rows: Mapping[str, Row], kind: str) -> Row:
    if kind not in rows:
        raise DefectkitError(
            f"{folder}: descriptors.csv has no type {kind}, which rows of the targets are of."
        )
    return rows[kind]


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


def _read_layer(cif: str, where: str) -> Atoms:
    """Atoms of a CIF without symmetry, as `structures.files.as_layer` lays them.

    A text as pymatgen writes it is taken apart here, which is an order faster than its parser;
    whatever looks otherwise goes there.
    """
    atoms = _regular_layer(cif)
    return _parsed_layer(cif, where) if atoms is None else atoms


def _regular_layer(cif: str) -> Atoms | None:
    """Atoms of a regular text whose layer lies in one piece in its cell; None for others."""
    head, found, body = cif.partition(P1_ATOMS)
    lines = head.splitlines()
    cells = body.split()
    if (
        not found
        or len(cells) % 7
        or head.count("\ndata_") > 1
        or "_" in body
        or not all(map(HEAD_LINE.fullmatch, lines))
    ):
        return None
    values = dict(line.split(None, 1) for line in lines if line.startswith("_"))
    try:
        cell = _layer_cell(*(float(values[key]) for key in CELL_KEYS))
        scaled = np.array([[*map(float, cells[k::7])] for k in (3, 4, 5)]).T
        numbers = [atomic_numbers[symbol] for symbol in cells[::7]]
    except (KeyError, ValueError):
        return None
    if cell is None or not 0 < len(numbers) <= MAX_ATOMS or min(numbers) < 1:
        return None
    if not {*cells[2::7], *cells[6::7]} <= {"1", "1.0"}:
        return None
    low, high = scaled.min(axis=0), scaled.max(axis=0)
    inside = bool((low > -1).all() and (high < 2).all())  # nor NaN
    if not inside or low[2] <= 0 or high[2] >= 1 or high[2] - low[2] >= LAYER_SHARE:
        return None
    written, upright = cell
    positions = written.cartesian_positions(scaled)
    return Atoms(numbers=numbers, positions=positions, cell=upright, pbc=(True, True, False))


@lru_cache(maxsize=256)
def _layer_cell(*parameters: float) -> tuple[Cell, Cell] | None:
    """A cell of these lengths (Å) and angles (°), as written and with its third vector upright.

    None where it is none of a layer in the xy plane with vacuum, or has to be turned.
    """
    from pymatgen.core import Lattice

    probe = Atoms("H", cell=Lattice.from_parameters(*parameters).matrix, pbc=True)
    probe.positions += probe.cell[2] / 2
    try:
        check_layer(probe, "")
        upright = as_layer(probe).cell
    except DefectkitError:
        return None
    turned = np.abs(probe.cell.array[:2, 2]).max() > 1e-6
    return None if turned or upright[2, 2] < LOWEST_CELL else (probe.cell, upright)


def _parsed_layer(cif: str, where: str) -> Atoms:
    """Atoms of a CIF without symmetry; pymatgen's full parser takes thirty times as long."""
    from pymatgen.core import Lattice
    from pymatgen.io.cif import CifFile

    try:
        (block,) = CifFile.from_str(cif).data.values()
        operations = block.data.get("_symmetry_equiv_pos_as_xyz")
        parameters = [float(block[key]) for key in CELL_KEYS]
        scaled = np.array([block[f"_atom_site_fract_{axis}"] for axis in "xyz"], dtype=float).T
        cell = Lattice.from_parameters(*parameters).matrix
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


def _save(subset: _Subset, path: Path) -> None:
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


def _load(path: Path) -> _Subset:
    """Read what `_save` wrote; DefectkitError where the file is damaged."""
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
    return _Subset(list(_records(header, tensors, hosts)), hosts, header["notes"])


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
