"""From the text of a CIF of 2DMD to its layer: fourteen thousand of them, so quickly."""

import re
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers

from defectkit import DefectkitError
from defectkit.structures.files import MAX_ATOMS, as_layer, check_layer
from defectkit.structures.names import one_line

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


def read_layer(cif: str, where: str) -> Atoms:
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
