"""Structures of 2D layers in and out of CIF, POSCAR, xyz and extxyz files, checked."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read, write
from ase.neighborlist import neighbor_list

from defectkit import DefectkitError

TOO_CLOSE = 0.5  # Å: no two nuclei of a solid or molecule come this near
MIN_VACUUM = 5.0  # Å of empty space along the third cell vector that make a cell a layer


def read_structure(path: str | Path) -> Atoms:
    """The layer in a CIF, POSCAR/CONTCAR, xyz or extxyz file.

    Returns atoms in the xy plane, periodic along the two in-plane vectors (see `as_layer`);
    positions in Å. Raises DefectkitError, naming the file and the atoms, where the file is
    missing, broken, empty, holds several structures, an unknown element, a partly occupied
    site, a position that is not a number, overlapping atoms, or no layer.
    """
    path = Path(path)
    kind = _format(path)
    if not path.is_file():
        raise DefectkitError(f"{path}: there is no such file; check its name and folder.")
    try:
        atoms = _read_cif(path) if kind == "cif" else _read_one(path, kind)
    except DefectkitError:
        raise
    except Exception as error:  # parsers raise anything on a broken file
        raise DefectkitError(
            f"{path} is not a readable {kind} file ({type(error).__name__}: {error}); "
            "export it again from the program that made it."
        ) from error
    _check(atoms, path)
    try:
        return as_layer(atoms)
    except DefectkitError as error:
        raise DefectkitError(f"{path}: {error}") from None


def write_structure(atoms: Atoms, path: str | Path) -> Path:
    """Write `atoms` in the format that the name says: .cif, .vasp, POSCAR, .xyz or .extxyz.

    Positions keep at least 8 decimals. Raises DefectkitError where the structure would not
    pass the checks of `read_structure` or the file cannot be written.
    """
    path = Path(path)
    kind = _format(path)
    _check(atoms, path)
    try:
        if kind == "cif":
            _write_cif(atoms, path)
        else:
            write(path, atoms, format=kind)
    except OSError as error:
        raise DefectkitError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def as_layer(atoms: Atoms) -> Atoms:
    """A copy with the layer in one piece, in the xy plane, periodic in that plane only.

    A cell whose first two vectors leave the xy plane is rotated as a whole. A layer that is cut
    by the periodic boundary along z is joined. The third vector becomes (0, 0, height); the
    coordinates stay as they are where nothing of this is needed. DefectkitError where there is
    no vacuum along the third vector.
    """
    atoms = atoms.copy()
    if np.abs(atoms.cell.array[:2, 2]).max() > 1e-6:
        atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    height = atoms.cell.volume / np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))
    if atoms.pbc[2]:
        atoms.positions += _joining_shifts(atoms, height)[:, None] * atoms.cell[2]
    cell = atoms.cell.array.copy()
    cell[2] = 0.0, 0.0, height
    atoms.set_cell(cell)
    atoms.pbc = True, True, False
    return atoms


def _joining_shifts(atoms: Atoms, height: float) -> np.ndarray:
    """Integer shifts (N,) along the third vector that move the vacuum out of the layer."""
    raw = atoms.cell.scaled_positions(atoms.positions)[:, 2]
    wrapped = np.sort(raw % 1.0)
    gaps = np.diff(wrapped, append=wrapped[0] + 1.0)
    widest = int(gaps.argmax())
    if gaps[widest] * height < MIN_VACUUM:
        raise DefectkitError(
            f"no layer: the widest empty gap along the third cell vector is "
            f"{gaps[widest] * height:.1f} Å, and {MIN_VACUUM:.0f} Å are needed; put the vacuum "
            "of the slab along the third vector."
        )
    bottom = wrapped[(widest + 1) % len(wrapped)]
    # A hair below the bottom, so that rounding cannot send the lowest atom to the top.
    joined = bottom + (raw - bottom + 1e-9) % 1.0 - 1e-9
    shifts = np.rint(joined - raw)
    return shifts - shifts.min() if np.ptp(shifts) else np.zeros(len(atoms))


def _format(path: Path) -> str:
    """ASE's name of the format that a file name stands for."""
    suffix = path.suffix.lower()
    if suffix == ".cif":
        return "cif"
    if suffix in (".xyz", ".extxyz"):
        return "extxyz"
    if suffix in (".vasp", ".poscar") or path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return "vasp"
    raise DefectkitError(
        f"{path}: the name does not say the format; use .cif, .vasp, POSCAR, .xyz or .extxyz."
    )


def _read_one(path: Path, kind: str) -> Atoms:
    frames = read(path, index=":", format=kind)
    if len(frames) != 1:
        raise DefectkitError(f"{path} holds {len(frames)} structures; keep one in a file.")
    return Atoms(
        frames[0].numbers, positions=frames[0].positions, cell=frames[0].cell, pbc=frames[0].pbc
    )


def _read_cif(path: Path) -> Atoms:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifParser

    # Tolerance 0: coordinates stay as written instead of being rounded to nearby fractions.
    structures = CifParser(path, frac_tolerance=0).parse_structures(
        primitive=False, check_occu=False
    )
    if len(structures) != 1:
        raise DefectkitError(f"{path} holds {len(structures)} structures; keep one in a file.")
    for number, site in enumerate(structures[0]):
        if not site.is_ordered or site.species.num_atoms != 1:
            raise DefectkitError(
                f"{path}: site {number} ({site.species_string}) is not occupied by exactly one "
                "atom; give every site one atom."
            )
    atoms = AseAtomsAdaptor.get_atoms(structures[0], msonable=False)
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _write_cif(atoms: Atoms, path: Path) -> None:
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    structure = Structure(
        atoms.cell.array, atoms.numbers, atoms.positions, coords_are_cartesian=True
    )
    CifWriter(structure, significant_figures=10).write_file(path)


def check_atoms(atoms: Atoms, where: str | Path) -> None:
    """DefectkitError, beginning with `where`, unless `atoms` has atoms, elements and a cell.

    Distances are not looked at.
    """
    if len(atoms) == 0:
        raise DefectkitError(f"{where} holds no atoms.")
    unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols)))
    if len(unknown):
        raise DefectkitError(
            f"{where}: {list_atoms(atoms, unknown)} of no known element; mend the symbols."
        )
    lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(lost):
        raise DefectkitError(
            f"{where}: the position of {list_atoms(atoms, lost)} is not a number; "
            "mend or remove the line."
        )
    if not np.isfinite(atoms.cell.array).all() or atoms.cell.volume < 1.0:
        raise DefectkitError(
            f"{where} has no cell with a volume; "
            'an xyz file needs Lattice="..." in its second line.'
        )


def list_atoms(atoms: Atoms, indices) -> str:
    """The first three of the atoms in words, as in "atoms W (number 3), S (number 5)"."""
    names = dict(enumerate(chemical_symbols))
    named = [f"{names.get(z := atoms.numbers[i], f'Z = {z}')} (number {i})" for i in indices[:3]]
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"atom{'s' * (len(indices) > 1)} " + ", ".join(named) + more


def _check(atoms: Atoms, path: Path) -> None:
    """DefectkitError where `atoms` cannot be a crystal."""
    check_atoms(atoms, path)
    first, second, distance = neighbor_list("ijd", atoms, TOO_CLOSE)
    if len(first):
        k = int(distance.argmin())
        raise DefectkitError(
            f"{path}: {list_atoms(atoms, [first[k], second[k]])} are {distance[k]:.2f} Å apart; "
            "remove one of them or mend the cell."
        )
