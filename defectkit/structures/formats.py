"""Texts of files, and the CIF, POSCAR and xyz formats as atoms.

Texts are read as people save them: plain or gzipped, in UTF-8 or a Western Windows encoding. A
structure is held against what its file says of itself: a lost line would read as a vacancy, so a
text whose numbers of atoms disagree is not believed.
"""

import codecs
import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from itertools import takewhile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io import read

from defectkit import DefectkitError

MAX_BYTES = 50_000_000  # ten times what the largest structure that is read needs
WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x19\x1c-\x1f\x7f]")  # bytes that no text has
FORMULA = "_chemical_formula_sum"
MAX_ATOMS = 10_000
MAX_CIF_SITES = 2_000  # pymatgen's time grows with the square: some three seconds
MAX_CIF_ATOMS = 4_000


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The text of a file, its line ends as Unix has them; what ends in .gz is unpacked.

    UTF-8 with or without a byte-order mark, else Windows-1252. Raises DefectkitError where there
    is no such file, where it may not be read, is a folder, longer than `most` bytes, binary, or in
    UTF-16 or UTF-32.
    """
    raw = _bytes(path, most + 1)
    if len(raw) > most:
        raise DefectkitError(
            f"{path} is longer than {most // 1_000_000} MB, the most that is read; split it."
        )
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


def _bytes(path: Path, most: int) -> bytes:
    try:
        if path.is_dir():
            raise DefectkitError(f"{path} is a folder; name a file.")
        if not path.exists():
            raise DefectkitError(f"{path}: there is no such file; check its name and folder.")
        if not path.is_file():
            raise DefectkitError(f"{path} is no file with contents; name another.")
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(most)
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
