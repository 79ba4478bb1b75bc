"""Structures of 2D layers from CIF, POSCAR, xyz and extxyz files, checked when they are read.

Texts are plain or gzipped, in UTF-8 or a Western Windows encoding. A structure is compared with
what its file says of itself: a lost line would otherwise read as a vacancy.
"""

import codecs
import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io import read, write
from ase.neighborlist import neighbor_list

from defectkit import DefectkitError
from defectkit.structures.hosts import VACUUM
from defectkit.structures.names import one_line
from defectkit.structures.writing import atomic

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
MAX_BYTES = 50_000_000  # ten times what the largest structure that is read needs
WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x19\x1c-\x1f\x7f]")  # bytes that no text has
FORMULA = "_chemical_formula_sum"
MAX_ATOMS = 10_000
MAX_CIF_SITES = 2_000  # pymatgen's time grows with the square: some three seconds
MAX_CIF_ATOMS = 4_000


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
    _format(path)  # a wrong name is told before anything is read
    return _structure(read_text(path), path)


def structure_in(raw: bytes, name: str, most: int = MAX_BYTES) -> Atoms:
    """The layer in the bytes of a file of that name, which is neither read nor written.

    Raises DefectkitError as `read_structure` does, and for more than `most` bytes, packed or not.
    """
    path = Path(PurePosixPath(name.replace("\\", "/")).name)
    _format(path)
    with _opening(path):
        packed = path.suffix.lower() == ".gz"
        with gzip.open(BytesIO(raw)) if packed else BytesIO(raw) as file:
            raw = file.read(most + 1)
    _check_length(raw, path, most)
    return _structure(_decoded(raw, path), path)


def _structure(text: str, path: Path) -> Atoms:
    """The layer in the text of a file; `path` tells the format, and is for messages."""
    kind = _format(path)
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


def write_structure(atoms: Atoms, path: str | Path) -> Path:
    """Write `atoms` in the format that the name says: .cif, .vasp, POSCAR, .xyz or .extxyz.

    Positions keep at least 8 decimals. Raises DefectkitError where the structure would not
    pass the checks of `read_structure` or the file cannot be written.
    """
    path = Path(path)
    kind = _format(path)
    _check(atoms, path)
    with atomic(path) as part:
        if kind == "cif":
            _write_cif(atoms, part)
        else:
            write(part, atoms, format=kind)
    return path


def as_layer(atoms: Atoms) -> Atoms:
    """A copy with the layer in one piece, in the xy plane, periodic in that plane only.

    The vectors change places where the vacuum lies along the first or second one, and a cell whose
    first two vectors leave the xy plane is rotated as a whole. A layer that is cut
    by the periodic boundary along z is joined. The third vector becomes (0, 0, height); the
    coordinates stay as they are where nothing of this is needed. Where it is zero, as ASE's
    builders leave it, the height is the layer's thickness and `hosts.VACUUM`. DefectkitError
    where there is no vacuum along any vector.
    """
    atoms = _with_vacuum_last(with_height(atoms))
    if np.abs(atoms.cell.array[:2, 2]).max() > 1e-6:
        atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    height = atoms.cell.volume / np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))
    if atoms.pbc[2]:
        atoms.positions += _joining_shifts(atoms)[:, None] * atoms.cell[2]
    cell = atoms.cell.array.copy()
    cell[2] = 0.0, 0.0, height
    atoms.set_cell(cell)
    atoms.pbc = True, True, False
    return atoms


def _with_vacuum_last(atoms: Atoms) -> Atoms:
    """The vectors in turn, so that the third one is that of the widest gap, where it has none."""
    if not atoms.pbc[2] or not len(atoms):
        return atoms
    gaps = [_widest_gap(atoms, axis)[0] for axis in range(3)]
    axis = int(np.argmax(gaps))
    if gaps[2] >= MIN_VACUUM or gaps[axis] < MIN_VACUUM:
        return atoms
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array[order])
    return atoms


def _widest_gap(atoms: Atoms, axis: int) -> tuple[float, float]:
    """Å of the widest empty gap along a cell vector, upright, and where it ends (scaled)."""
    cell = atoms.cell.array
    others = np.cross(*np.delete(cell, axis, axis=0))
    height = atoms.cell.volume / np.linalg.norm(others)
    wrapped = np.sort(atoms.cell.scaled_positions(atoms.positions)[:, axis] % 1.0)
    gaps = np.diff(wrapped, append=wrapped[0] + 1.0)
    widest = int(gaps.argmax())
    return float(gaps[widest] * height), float(wrapped[(widest + 1) % len(wrapped)])


def with_height(atoms: Atoms) -> Atoms:
    """A copy whose third cell vector, where it is zero and the others are not, is upright.

    It gets the length of the thickness and `hosts.VACUUM` (Å); the atoms stay where they are.
    """
    atoms = atoms.copy()
    if not len(atoms) or atoms.cell.array[2].any():
        return atoms
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    area = np.linalg.norm(normal)
    if area > 0 and np.isfinite(atoms.positions).all():
        normal /= area
        cell = atoms.cell.array.copy()
        cell[2] = normal * (np.ptp(atoms.positions @ normal) + VACUUM)
        atoms.set_cell(cell)
        atoms.pbc = True, True, False
    return atoms


def _joining_shifts(atoms: Atoms) -> np.ndarray:
    """Integer shifts (N,) along the third vector that move the vacuum out of the layer."""
    raw = atoms.cell.scaled_positions(atoms.positions)[:, 2]
    gap, bottom = _widest_gap(atoms, 2)
    if gap < MIN_VACUUM:
        raise DefectkitError(
            f"no layer: the widest empty gap along the third cell vector is {gap:.1f} Å, and "
            f"{MIN_VACUUM:.0f} Å are needed; put the vacuum of the slab along the third vector."
        )
    # 1e-9 below the bottom, so that rounding cannot send the lowest atom to the top.
    joined = bottom + (raw - bottom + 1e-9) % 1.0 - 1e-9
    shifts = np.rint(joined - raw)
    return shifts - shifts.min() if np.ptp(shifts) else np.zeros(len(atoms))


def is_structure(path: Path) -> bool:
    """Whether a file's suffix is one of a structure."""
    return Path(plain_name(path)).suffix.lower() in SUFFIXES


def is_poscar(path: Path) -> bool:
    """Whether a file is called as VASP calls its structures."""
    return plain_name(path).upper().startswith(("POSCAR", "CONTCAR"))


def plain_name(path: Path) -> str:
    """The file's name without .gz."""
    return path.stem if path.suffix.lower() == ".gz" else path.name


def _format(path: Path) -> str:
    """ASE's name of the format that a file name stands for."""
    if is_structure(path):
        return SUFFIXES[Path(plain_name(path)).suffix.lower()]
    if is_poscar(path):
        return "vasp"
    raise DefectkitError(
        f"{path}: the name does not say the format; use .cif, .vasp, POSCAR, .xyz or .extxyz."
    )


def _write_cif(atoms: Atoms, path: Path) -> None:
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    structure = Structure(
        atoms.cell.array, atoms.numbers, atoms.positions, coords_are_cartesian=True
    )
    CifWriter(structure, significant_figures=10).write_file(path)


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


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The text of a file, its line ends as Unix has them; what ends in .gz is unpacked.

    UTF-8 with or without a byte-order mark, else Windows-1252. Raises DefectkitError where there
    is no such file, where it may not be read, is a folder, longer than `most` bytes, binary, or in
    UTF-16 or UTF-32.
    """
    return _decoded(read_bytes(path, most), path)


def _decoded(raw: bytes, path: Path) -> str:
    if raw.startswith(WIDE):
        raise DefectkitError(f"{path} is encoded as UTF-16 or UTF-32; save it as UTF-8.")
    if CONTROL.search(raw):
        raise DefectkitError(
            f"{path} holds bytes that no text has; it is damaged, or of another kind than its "
            "name says."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file, unpacked where it ends in .gz; DefectkitError as of `read_text`."""
    with _opening(path):
        if path.is_dir():
            raise DefectkitError(f"{path} is a folder; name a file.")
        if not path.exists():
            raise DefectkitError(f"{path}: there is no such file; check its name and folder.")
        if not path.is_file():
            raise DefectkitError(f"{path} is no file with contents; name another.")
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(most + 1)
    _check_length(raw, path, most)
    return raw


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """DefectkitError where a file cannot be opened or unpacked."""
    try:
        yield
    except PermissionError as error:
        raise DefectkitError(
            f"{path} may not be read (permission denied); change its permissions, or ask its owner."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DefectkitError(
            f"{path} is no whole gzip file ({error}); copy or pack it again."
        ) from error
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise DefectkitError(f"{path} cannot be opened ({reason}); check its name.") from error


def _check_length(raw: bytes, path: Path, most: int) -> None:
    if len(raw) > most:
        raise DefectkitError(
            f"{path} is longer than {most // 1_000_000} MB, the most that is read; split it."
        )


def parse(text: str, kind: str, path: Path) -> tuple[Atoms, str]:
    """The atoms of a text of `kind` "cif", "vasp" or "extxyz"; `path` is for messages.

    Returns the atoms, and what is wrong with their number against the formula of a CIF, empty
    where it fits. That is no error yet: atoms that lie on each other say more about the cause.

    Raises DefectkitError where the counts of a POSCAR or xyz are not those of its lines, and for
    more than `MAX_ATOMS`; other errors of the parsers are left as they are.
    """
    if kind == "cif":
        return _cif(text, path)
    checked = _checked_poscar(text, path) if kind == "vasp" else _checked_xyz(text, path)
    source = StringIO(checked)
    source.name = str(path)  # by which ASE finds a POTCAR beside a POSCAR without symbols
    frame = read(source, index=0, format=kind)
    return _plain(frame, frame.pbc), ""


def check_size(count: int, where: str | Path, most: int = MAX_ATOMS, advice: str = "") -> None:
    """DefectkitError, beginning with `where`, for more atoms than are read."""
    if count > most:
        advice = advice or "take a smaller cell"
        raise DefectkitError(f"{where} has {count:,} atoms; {most:,} is the most: {advice}.")


def _checked_poscar(text: str, path: Path) -> str:
    """The text, where its counts are those of its coordinates and of its velocities.

    Lattice velocities, velocities and what molecular dynamics leaves behind them may follow.
    """
    lines = [*text.split("\n"), *[""] * 8]
    if not any(_numbers(lines[1])):
        raise DefectkitError(
            f"{path}, line 2: the scale factor is '{lines[1].strip()[:40]}'; it must not be 0."
        )
    species = _words(lines[5])
    named = not species[0].lstrip("+-").isdecimal() if species else True
    counts = _words(lines[6]) if named else species
    if not counts or not all(count.isdecimal() for count in counts):
        raise DefectkitError(
            f"{path}, line {6 + named}: '{' '.join(counts)[:40]}' are no numbers of atoms; is "
            "this a POSCAR?"
        )
    if named:
        _check_species(species, counts, path)
    total = sum(map(int, counts))
    check_size(total, path)
    first = 8 if named else 7
    first += lines[first - 1].strip().lower().startswith("s")  # selective dynamics
    given = _count_points(lines[first:])
    if given != total:
        raise DefectkitError(
            f"{path}: its counts ({' '.join(counts)[:80]}) say {total} atoms and {given} lines of "
            "coordinates follow; restore the line, or correct the counts."
        )
    rest = lines[first + total :]
    if rest[0].strip().lower().startswith("l"):  # lattice velocities: 1 + 3 + 3 lines
        rest = rest[8:]
    moving = _count_points(rest[1:])
    if moving not in (0, total):
        raise DefectkitError(
            f"{path}: its counts say {total} atoms and {moving} lines of velocities follow; "
            "restore the lines, or remove the velocities."
        )
    return text


def _check_species(species: list[str], counts: list[str], path: Path) -> None:
    """Labels like Mo, Mo_pv and Mo_pv/1a2b, one for each count."""
    for label in species:
        _check_symbol(re.split("[_/]", label)[0], f"{path}, line 6")
    if len(species) != len(counts):
        raise DefectkitError(
            f"{path}: {len(species)} species ({' '.join(species)[:80]}) and {len(counts)} "
            f"counts ({' '.join(counts)[:80]}); give every species its count."
        )


def _checked_xyz(text: str, path: Path) -> str:
    """The text without blank lines among the atoms, where its count is that of the atoms."""
    head, _, body = text.partition("\n")
    comment, _, body = body.partition("\n")
    if not head.strip().isdecimal():
        raise DefectkitError(
            f"{path}, line 1: '{head.strip()[:40]}' is no number of atoms; is this an xyz file?"
        )
    count = int(head)
    lines = [line for line in body.split("\n") if line.strip()]
    atoms = [line for line in lines if not line.startswith("VEC")]  # a cell's vectors
    if len(atoms) > count and atoms[count].strip().isdecimal():
        raise DefectkitError(f"{path} holds 2 structures or more; keep one in a file.")
    if len(atoms) != count:
        raise DefectkitError(
            f"{path}: its first line says {count} atoms and {len(atoms)} lines follow; restore the "
            "line, or correct the number."
        )
    check_size(count, path)
    return "\n".join([head, comment, *lines, ""])


def _cif(text: str, path: Path) -> tuple[Atoms, str]:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifFile, CifParser

    names = re.findall(r"^\s*data_(\S*)", text, flags=re.MULTILINE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is checked here
        file = CifFile.from_str(text)
        crystals = [b for b in file.data.values() if "_atom_site_fract_x" in b.data]
        if len(crystals) > 1 or len(names) > len(set(names)):
            raise DefectkitError(f"{path} holds 2 structures or more; keep one in a file.")
        if crystals and _state_occupancy(crystals[0].data):
            text = str(file)
        # Tolerance 0: coordinates stay as written instead of being rounded to nearby fractions.
        parser = CifParser.from_str(text, frac_tolerance=0)
        for block in crystals:
            sites = len(block.data["_atom_site_fract_x"])
            advice = "write it as a POSCAR or extxyz, which may hold more"
            check_size(sites, path, MAX_CIF_SITES, advice)
            check_size(sites * len(parser.get_symops(block)), path, MAX_CIF_ATOMS, advice)
        structures = parser.parse_structures(primitive=False, check_occu=False)
    for number, site in enumerate(structures[0]):
        if not site.is_ordered or site.species.num_atoms != 1:
            raise DefectkitError(
                f"{path}: site {number} ({site.species_string}) is not occupied by exactly one "
                "atom; give every site one atom."
            )
    atoms = _plain(AseAtomsAdaptor.get_atoms(structures[0], msonable=False), True)
    if FORMULA in text and not any(FORMULA in block.data for block in file.data.values()):
        return atoms, f"its {FORMULA} cannot be told from what stands around it; mend these lines."
    return atoms, _formula_fault(atoms, crystals[0].data)


def _state_occupancy(data: dict) -> bool:
    """Replace "." and "?" among the occupancies, which mean full, by 1; whether there were any."""
    occupancy = data.get("_atom_site_occupancy")
    if not isinstance(occupancy, list) or not {".", "?"} & set(occupancy):
        return False
    data["_atom_site_occupancy"] = ["1" if o in (".", "?") else o for o in occupancy]
    return True


def _formula_fault(atoms: Atoms, data: dict) -> str:
    """How the atoms differ from the formula that a CIF gives, in words; empty where they do not.

    The formula is that of the cell, as programs write it, or of Z formula units, as the standard
    has it; without Z of any whole number of them. One that is no formula says nothing.
    """
    from pymatgen.core import Composition

    try:
        formula = Composition(data[FORMULA].replace("'", "")).get_el_amt_dict()
    except (KeyError, ValueError, AttributeError):
        return ""
    if not formula or any(n != round(n) or n < 1 for n in formula.values()):
        return ""
    held = Counter(atoms.symbols)
    units = data.get("_cell_formula_units_Z", "")
    if isinstance(units, str) and units.isdecimal() and int(units):
        multiples = {1, int(units)}
    else:
        units, multiples = "", {max(1, round(len(atoms) / sum(formula.values())))}
    if any({s: k * n for s, n in formula.items()} == held for k in multiples):
        return ""
    times = f", Z = {units}" if units not in ("", "1") else ""
    return (
        f"its {FORMULA} says {_formula(formula)}{times}, and it holds {_formula(held)}; a "
        "line of it is lost or doubled: restore it, or correct the formula."
    )


def _formula(amounts: Mapping[str, float]) -> str:
    return " ".join(f"{symbol}{amounts[symbol]:.0f}" for symbol in sorted(amounts))


def _plain(atoms: Atoms, pbc: bool | np.ndarray) -> Atoms:
    """Elements, positions and cell alone."""
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=pbc)


def _words(line: str) -> list[str]:
    """The words of a line, its comment left out."""
    return line.split("!")[0].split()


def _numbers(line: str) -> list[float]:
    """The numbers that a line begins with, up to three."""
    numbers = []
    for word in line.split()[:3]:
        try:
            numbers.append(float(word))
        except ValueError:
            break
    return numbers


def _count_points(lines: list[str]) -> int:
    """How many lines begin with three numbers, up to the first that does not."""
    return sum(1 for _ in takewhile(lambda line: len(_numbers(line)) == 3, lines))


def _check_symbol(symbol: str, where: str) -> None:
    if atomic_numbers.get(symbol, 0) < 1:
        raise DefectkitError(f"{where}: '{symbol[:40]}' is no chemical element; mend the symbol.")
