"""Structures of one's own: from files and objects to records with a host, and what was assumed.

The way of a structure: it is read and laid flat (`structures.files`), its host is named, or found
among those of the training data, or taken from the lattice that most of its atoms follow; then
its defect is recognised, and with it whether the structure is relaxed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from defectkit import DefectkitError
from defectkit.data.readers import demo_hosts, read_database
from defectkit.data.sources import fetch
from defectkit.predict.domain import same_crystal
from defectkit.structures.files import (
    as_layer,
    check_layer,
    is_poscar,
    is_structure,
    read_structure,
)
from defectkit.structures.hosts import hosts_2dmd, majority_host, named_host
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, recognise
from defectkit.structures.record import DefectRecord, SiteKind, reduced_formula

FOLLOW = 0.75  # of a host's sites hold their own atom, where it is the host of a structure
MOST_CHANGES = 0.25  # of the atoms of a structure
STILL = 0.02  # Å: in a structure that nobody relaxed no host atom is farther from its site
ALL = "all"  # hosts
GIVEN, OF_ITS_OWN = "(as given)", "(from its own lattice)"  # hosts that are none of a data set
MOST_ATOMS = 2000  # of a structure: attention grows with the square
DATABASES = (".db",)
PYMATGEN = "to_ase_atoms"  # the method of its structures, which need not be imported to ask


@dataclass(frozen=True, eq=False)
class Own:
    """One structure that was given.

    Attributes:
        record: with its defect and in both positions the atoms as they were given.
        host: the pristine host; None where the structure cannot be read.
        found: its defect; None where it cannot be.
        relaxed: whether it is taken as relaxed.
        assumed: what nobody said, a sentence each.
        fault: why it cannot be read, in a sentence; empty where it can.
    """

    record: DefectRecord
    host: Atoms | None = None
    found: Recognition | None = None
    relaxed: bool = True
    assumed: tuple[str, ...] = ()
    fault: str = ""

    @property
    def defect(self) -> str:
        """In words, as "Cr adsorbate, S vacancy"."""
        return in_words(self.record.atoms, self.found) if self.found else ""


@lru_cache(maxsize=4)
def training_hosts(name: str) -> dict[str, Atoms]:
    """The pristine hosts of a data set by name: those of the demo data or of 2DMD, else none."""
    if name == "2dmd":
        return hosts_2dmd()
    return demo_hosts(fetch(name)) if name == "demo" else {}


def read_own(
    given: Iterable[Any],
    known: Mapping[str, Atoms],
    host: str | Path | Atoms | None = None,
    relaxed: bool | None = None,
) -> list[Own]:
    """Every structure with its host and its defect; what cannot be read has a `fault`.

    Args:
        given: files (CIF, POSCAR, xyz, extxyz), ASE databases, folders of these, ASE Atoms,
            pymatgen Structures; or one of them; or Atoms and Structures by name.
        known: hosts of the training data by name.
        host: a file, a pristine cell, or a name in any everyday form, such as hBN or 2H-MoS2; found
            where it is not given.
        relaxed: whether the structures are relaxed; told from the atoms where it is not given.

    Raises DefectkitError for a host that cannot be read or is not known.
    """
    named = _given_host(host, known)
    found, names = [], set()
    for name, read in _each(given):
        uid = next(text for text in _numbered(name) if text not in names)
        names.add(uid)
        try:
            found.append(_own(uid, _layer(read(), uid), known, named, relaxed))
        except DefectkitError as error:
            empty = DefectRecord(uid, Atoms(cell=np.eye(3), pbc=True), "", "")
            found.append(Own(empty, fault=one_line(error, 500)))
    return found


def host_cell(host: str | Path) -> Atoms:
    """The pristine cell of a host that is named, or in a file; DefectkitError for another."""
    return _given_host(host, training_hosts("2dmd") | training_hosts("demo"))[1]


def host_cells(hosts: Iterable[str | Path]) -> dict[str, Atoms]:
    """Pristine cells by name, of hosts that are named or in files; "all" for the demo's.

    Raises DefectkitError for one that cannot be read or is not known, or two of one name.
    """
    known, cells = training_hosts("2dmd") | training_hosts("demo"), {}
    for host in hosts:
        found = training_hosts("demo") if str(host) == ALL else dict([_given_host(host, known)])
        for name, cell in found.items():
            if name in cells:
                raise DefectkitError(f"The host {name} stands twice; give every one once.")
            cells[name] = cell
    return cells


def in_words(atoms: Atoms, found: Recognition) -> str:
    """What was added, replaced and taken out, as "Cr adsorbate" or "W on Mo, S vacancy"."""
    words = []
    for k in found.defect_indices:
        kind, symbol = SiteKind(found.site_kind[k]), atoms.symbols[k]
        before = chemical_symbols[found.original_z[k]]
        words.append(
            f"{symbol} on {before}"
            if kind == SiteKind.SUBSTITUTION
            else f"{symbol} {kind.name.lower()}"
        )
    words += [f"{chemical_symbols[z]} vacancy" for z in found.vacancy_z]
    return ", ".join(sorted(words)) or "no defect"


def _numbered(name: str) -> Iterator[str]:
    """The name, then with numbers, for structures of one name."""
    yield name
    for number in count(2):
        yield f"{name} ({number})"


def _each(given: Any) -> Iterator[tuple[str, Callable[[], Atoms]]]:
    """The name of every structure, and what reads it."""
    if isinstance(given, Mapping):
        yield from ((name, partial(_of_object, thing)) for name, thing in given.items())
        return
    if isinstance(given, Atoms | str | Path) or hasattr(given, PYMATGEN):
        given = [given]
    for number, thing in enumerate(given, 1):
        if isinstance(thing, str | Path):
            yield from _of_path(Path(thing))
        else:
            yield f"structure {number}", partial(_of_object, thing)


def _of_object(thing: Any) -> Atoms:
    """ASE's atoms of an object; DefectkitError where it is none with atoms in whole sites."""
    if isinstance(thing, Atoms):
        return thing
    if not hasattr(thing, PYMATGEN):
        raise DefectkitError(
            f"A {type(thing).__name__} was given; give files, ASE Atoms or pymatgen Structures."
        )
    if not thing.is_ordered:
        raise DefectkitError("A site of the structure is partly occupied; choose one occupant.")
    atoms = getattr(thing, PYMATGEN)()
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _of_path(path: Path) -> Iterator[tuple[str, Callable[[], Atoms]]]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _readable(file))
        for file in inside:
            yield from _of_path(file)
        if not inside:
            yield path.name, partial(_refuse, f"{path} holds no CIF, POSCAR, xyz or database.")
    elif path.suffix.lower() in DATABASES:
        try:
            rows, _ = read_database(path)
        except DefectkitError as error:
            yield path.name, partial(_refuse, str(error))
        else:
            yield from ((f"{path.name}, row {row.id}", row.toatoms) for row in rows)
    else:
        yield path.name, partial(read_structure, path)


def _refuse(reason: str) -> Atoms:
    raise DefectkitError(reason)


def _readable(file: Path) -> bool:
    database = file.suffix.lower() in DATABASES
    return file.is_file() and (is_structure(file) or is_poscar(file) or database)


def _layer(atoms: Atoms, name: str) -> Atoms:
    """The atoms alone, flat and checked."""
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    check_layer(plain, name)
    if len(plain) > MOST_ATOMS:
        raise DefectkitError(
            f"{name} has {len(plain):,} atoms; at most {MOST_ATOMS:,} are read: cut a smaller cell "
            "around the defect."
        )
    try:
        return as_layer(plain)
    except DefectkitError as error:
        raise DefectkitError(f"{name}: {error}") from error


def _given_host(
    host: str | Path | Atoms | None, known: Mapping[str, Atoms]
) -> tuple[str, Atoms] | None:
    """Name and cell of the host that a person names, if they do."""
    if host is None:
        return None
    if not isinstance(host, Atoms) and not Path(host).is_file():
        name = named_host(str(host), known)
        return name, known[name]
    cell = _layer(host, "The host") if isinstance(host, Atoms) else read_structure(host)
    for name, other in known.items():
        if same_crystal(cell, other, np.inf):  # lattice constants differ between functionals
            return name, cell
    return f"{reduced_formula(cell)} {GIVEN}", cell


def _own(
    uid: str,
    atoms: Atoms,
    known: Mapping[str, Atoms],
    named: tuple[str, Atoms] | None,
    relaxed: bool | None,
) -> Own:
    assumed = []
    if named is not None:
        (name, host), found = named, recognise(atoms, named[1])
    else:
        name, host, found = _host_of(atoms, known, uid)
        assumed.append(f"host: {name}")
    if not _changes(found):
        raise DefectkitError(f"{uid} is the pristine host {name}: there is no defect in it.")
    if _changes(found) > MOST_CHANGES * len(atoms):
        raise DefectkitError(
            f"{uid}: {_changes(found)} of its {len(atoms)} atoms and sites are not as in {name}, "
            "and that is no point defect; is it another host, or more than one layer?"
        )
    if relaxed is None:
        farthest = _farthest(atoms, found)
        relaxed = farthest > STILL
        how = "relaxed" if relaxed else "not relaxed"
        assumed.append(f"{how}: the host's atoms are up to {farthest:.2f} Å from their sites")
    if found.reason:
        assumed.append(found.reason)
    record = DefectRecord(
        uid,
        atoms,
        name,
        "",
        dopant=",".join(sorted(set(atoms.symbols[found.defect_indices]))),
        removed=found.removed,
        defecttype=found.defecttype,
        unrelaxed=atoms.positions.copy(),
        defect_positions=found.defect_positions,
    )
    return Own(record, host, found, relaxed, tuple(assumed))


def _host_of(atoms: Atoms, known: Mapping[str, Atoms], uid: str) -> tuple[str, Atoms, Recognition]:
    """The host in which a structure has the fewest changes: a known one, else its own lattice."""
    fits = []
    for name, host in known.items():
        if set(host.symbols) <= set(atoms.symbols) and (found := _fit(atoms, host)):
            fits.append((_changes(found), found.rms, name, host, found))
    best = min(fits, key=lambda fit: fit[:3])[2:] if fits else None
    many = MOST_CHANGES * len(atoms)
    if best is None or best[2].doubt or _changes(best[2]) > many:  # of another phase, perhaps
        host = majority_host(atoms)
        found = _fit(atoms, host) if host is not None else None
        if found is not None and (best is None or not found.doubt):
            best = f"{reduced_formula(host)} {OF_ITS_OWN}", host, found
    if best is None:
        raise DefectkitError(
            f"{uid} follows no lattice that is known, and none of its own; give its pristine host."
        )
    return best


def _fit(atoms: Atoms, host: Atoms) -> Recognition | None:
    """The defect of a structure in a host; None where it is not its host."""
    try:
        found = recognise(atoms, host)
    except DefectkitError:
        return None
    sites = (found.original_z > 0).sum() + len(found.vacancy_z)
    return found if (found.site_kind == SiteKind.HOST).sum() >= FOLLOW * sites else None


def _changes(found: Recognition) -> int:
    """How many sites are not as in the host."""
    return len(found.defect_indices) + len(found.vacancy_z)


def _farthest(atoms: Atoms, found: Recognition) -> float:
    """Å that a host atom is at most from its site."""
    own = found.site_kind == SiteKind.HOST
    away = atoms.positions[own] - found.ideal_positions[own]
    # All together may stand anywhere against the host.
    away -= np.median(away, axis=0)
    return float(np.linalg.norm(away, axis=1).max(initial=0.0))
