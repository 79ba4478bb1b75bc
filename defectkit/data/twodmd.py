"""The 2D Material Defect data (2DMD): unrelaxed supercells of six hosts with PBE labels.

P. Huang et al., npj 2D Mater. Appl. 7, 6 (2023). The data come in subsets, a folder each.
"""

import ast
import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data.cif_2dmd import read_layer
from defectkit.data.cleaning import IDENTITY_TOLERANCE
from defectkit.data.dataset import Dataset, family_name
from defectkit.data.folder import spacegroup_of
from defectkit.data.kept_2dmd import Subset, load_subset, save_subset
from defectkit.data.sources import SOURCES, data_folder
from defectkit.data.table import Row, number, read_table, text
from defectkit.structures.files import read_bytes, read_structure
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, keep_recognition, recognise_unrelaxed
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import keep

FORMAT = 1  # raise it when the same files give other records
ROWS = {"low": 5933, "high": 500}  # of a published subset, such as low_MoS2
DENSITIES = {f"{density}_density_defects": density for density in ROWS}  # official folders
DEEPEST = 2  # folders between the one that is given and that of a subset
DATA, ARCHIVE = ("data.csv.gz", "data.csv"), "initial.tar.gz"  # that hold structures
TARGETS = ("targets.csv.gz", "targets.csv", "defects.csv.gz", "defects.csv")  # the first one there
MAX_ARCHIVE = 500_000_000  # bytes of an archive, unpacked


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


def _kept_subset(folder: Path, name: str) -> Subset:
    """The rows of a folder as they were kept when it was read before, else read and kept."""
    path = data_folder() / "structures" / f"2dmd-{_hash(folder, name)}.safetensors"
    if os.path.isfile(path):  # false where it may not even be looked for
        try:
            return load_subset(path)
        except DefectkitError as error:
            tqdm.write(f"{error} The structures are read anew.")
    subset = _read_subset(folder, name)
    keep(path, lambda part: save_subset(subset, part))
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


def _read_subset(folder: Path, name: str) -> Subset:
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
        atoms = read_layer(cif, f"{where} ({uid})")
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
    return Subset(records, hosts, _notes(folder, name, len(records), differing))


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
