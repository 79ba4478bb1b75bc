"""Reads structures of 2D layers from CIF, POSCAR, xyz and extxyz files, and checks them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from defectkit import DefectkitError
from defectkit.structures.formats import check_size, parse, read_text
from defectkit.structures.hosts import VACUUM
from defectkit.structures.names import one_line

TOO_CLOSE = 0.5  # Å: no two nuclei of a solid or molecule come this near
NO_LENGTH = 1e9  # Å, a tenth of a metre
MIN_VACUUM = 5.0  # Å of empty space along the third cell vector that make a cell a layer
NARROWEST, LONGEST = 1.0, 1000.0  # Å: width of a cell in the plane, length of its vectors
FARTHEST = 1e4  # Å from the origin, where a position begins to lose digits
SUFFIXES = {
    ".cif": "cif",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".vasp": "vasp",
    ".poscar": "vasp",
}


def read_structure(path: str | Path) -> Atoms:
    """The layer in a CIF, POSCAR/CONTCAR, xyz or extxyz file, which may be gzipped (.gz).

    Returns atoms in the xy plane, periodic along the two in-plane vectors (see `as_layer`);
    positions in Å. Raises DefectkitError, naming the file and the atoms, where the file is
    missing, broken, empty, holds several structures, more or fewer atoms than it says itself (a
    lost line would be a vacancy), more than `formats.MAX_ATOMS`, an unknown element, a partly
    occupied site, a position that is not a number, overlapping atoms, a cell that is too small or
    too large, or no layer.
    """
    path = Path(path)
    kind = _format(path)
    text = read_text(path)
    try:
        atoms, fault = parse(text, kind, path)
    except DefectkitError:
        raise
    except Exception as error:  # parsers raise anything on a broken file
        reason = f"{type(error).__name__}: {one_line(error)}"
        name = {"vasp": "POSCAR", "extxyz": "xyz"}.get(kind, kind)
        advice = "export it again from the program that made it"
        if "chemical symbols" in reason:  # an old POSCAR
            advice = "add a line with the symbols above the counts"
        raise DefectkitError(
            f"{path} is not a readable {name} file ({reason}); {advice}."
        ) from error
    atoms = with_height(atoms)
    _check(atoms, path)
    if fault:
        raise DefectkitError(f"{path}: {fault}")
    try:
        return as_layer(atoms)
    except DefectkitError as error:
        raise DefectkitError(f"{path}: {error}") from None


def as_layer(atoms: Atoms) -> Atoms:
    """A copy with the layer in one piece, in the xy plane, periodic in that plane only.

    A cell whose first two vectors leave the xy plane is rotated as a whole. A layer that is cut
    by the periodic boundary along z is joined. The third vector becomes (0, 0, height); the
    coordinates stay as they are where nothing of this is needed. Where it is zero, as ASE's
    builders leave it, the height is the layer's thickness and `hosts.VACUUM`. DefectkitError
    where there is no vacuum along the third vector.
    """
    atoms = with_height(atoms)
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


def with_height(atoms: Atoms) -> Atoms:
    """A copy whose third cell vector, where it is zero and the others are not, is upright.

    It gets the length of the thickness and `hosts.VACUUM` (Å); the atoms stay where they are.
    """
    atoms = atoms.copy()
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    area = np.linalg.norm(normal)
    if len(atoms) and not atoms.cell[2].any() and area > 0 and np.isfinite(atoms.positions).all():
        normal /= area
        cell = atoms.cell.array.copy()
        cell[2] = normal * (np.ptp(atoms.positions @ normal) + VACUUM)
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
    # 1e-9 below the bottom, so that rounding cannot send the lowest atom to the top.
    joined = bottom + (raw - bottom + 1e-9) % 1.0 - 1e-9
    shifts = np.rint(joined - raw)
    return shifts - shifts.min() if np.ptp(shifts) else np.zeros(len(atoms))


def is_structure(path: Path) -> bool:
    """Whether a file's suffix is one of a structure."""
    return Path(plain_name(path)).suffix.lower() in SUFFIXES


def plain_name(path: Path) -> str:
    """The file's name without .gz."""
    return path.stem if path.suffix.lower() == ".gz" else path.name


def _format(path: Path) -> str:
    """ASE's name of the format that a file name stands for."""
    name = plain_name(path)
    if is_structure(path):
        return SUFFIXES[Path(name).suffix.lower()]
    if name.upper().startswith(("POSCAR", "CONTCAR")):
        return "vasp"
    raise DefectkitError(
        f"{path}: the name does not say the format; use .cif, .vasp, POSCAR, .xyz or .extxyz."
    )


def check_atoms(atoms: Atoms, where: str | Path) -> None:
    """DefectkitError, beginning with `where`, unless `atoms` has atoms, elements and a cell.

    Distances are not checked.
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
    _check_cell(atoms.cell.array, where)


def _check_cell(cell: np.ndarray, where: str | Path) -> None:
    """DefectkitError unless the (3, 3) vectors (Å) span a volume."""
    if not np.abs(cell).max() < NO_LENGTH:  # nor is NaN
        raise DefectkitError(f"{where}: a number of its cell is no length; mend the cell.")
    zero = [name for name, vector in zip(("first", "second", "third"), cell) if not vector.any()]
    if len(zero) == 3:
        raise DefectkitError(
            f'{where} has no cell with a volume; an xyz file needs Lattice="..." in line 2.'
        )
    if zero:
        raise DefectkitError(
            f"{where} has no cell with a volume: its {' and '.join(zero)} vector is zero; give it "
            "a length, the third one that of the layer and its vacuum."
        )
    if not abs(np.linalg.det(cell)) >= 1.0:
        raise DefectkitError(
            f"{where} has no cell with a volume: its vectors lie in a plane, or are shorter than "
            "bonds; mend the cell."
        )


def check_layer(atoms: Atoms, where: str | Path) -> None:
    """DefectkitError unless `atoms` pass `check_atoms` and are of a size that a layer can have.

    These are `formats.MAX_ATOMS` atoms at most, positions within `FARTHEST`, and cell vectors not
    longer than `LONGEST` that span an area not narrower than `NARROWEST`.
    """
    check_size(len(atoms), where)
    if np.isfinite(atoms.cell.array).all() and atoms.cell.array.any(axis=1).all():
        _check_lengths(atoms.cell.array, where)
    check_atoms(atoms, where)
    far = np.flatnonzero(np.abs(atoms.positions).max(axis=1) > FARTHEST)
    if len(far):
        raise DefectkitError(
            f"{where}: {list_atoms(atoms, far)} farther than {FARTHEST:.0f} Å from the origin; "
            "mend the coordinates."
        )


def list_atoms(atoms: Atoms, indices: Sequence[int] | np.ndarray) -> str:
    """The first three of the atoms in words, as in "atoms W (number 3), S (number 5)"."""
    names = dict(enumerate(chemical_symbols))
    named = [f"{names.get(z := atoms.numbers[i], f'Z = {z}')} (number {i})" for i in indices[:3]]
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"atom{'s' * (len(indices) > 1)} " + ", ".join(named) + more


def _check_lengths(cell: np.ndarray, where: str | Path) -> None:
    # Clipped, so that no square is more than a number holds.
    vectors = np.clip(cell, -1e9, 1e9)
    lengths = np.linalg.norm(vectors, axis=1)
    width = np.linalg.norm(np.cross(*vectors[:2])) / lengths[:2].max()
    if lengths.max() > LONGEST or width < NARROWEST:
        sizes = " x ".join(f"{length:.3g}" for length in lengths)
        raise DefectkitError(
            f"{where}: its cell measures {sizes} Å, {width:.3g} Å at its narrowest; vectors are at "
            f"most {LONGEST:.0f} Å long and span at least {NARROWEST:.0f} Å: mend the cell."
        )


def _check(atoms: Atoms, path: Path) -> None:
    """DefectkitError where `atoms` cannot be a crystal."""
    check_layer(atoms, path)
    first, second, distance = neighbor_list("ijd", atoms, TOO_CLOSE)
    if len(first):
        k = int(distance.argmin())
        raise DefectkitError(
            f"{path}: {list_atoms(atoms, [first[k], second[k]])} are {distance[k]:.2f} Å apart; "
            "remove one of them or mend the cell."
        )
