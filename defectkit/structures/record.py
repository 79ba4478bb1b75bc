"""The record of a defect: every field with its name and unit.

A database row of any source becomes a `DefectRecord`; a list of records becomes a table with
the columns of `COLUMNS`. Units: eV, Å, μB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from ase import Atoms
from ase.geometry import find_mic
from ase.symbols import Symbols

from defectkit import DefectkitError

MOMENT_FLOOR = 0.1  # μB: smaller site moments are noise, or tails of a neighbour's


class SiteKind(IntEnum):
    """What a node of a defect structure is; the order of the one-hot feature."""

    HOST = 0
    SUBSTITUTION = 1
    INTERSTITIAL = 2
    ADSORBATE = 3
    VACANCY = 4


COLUMNS: dict[str, str] = {
    "uid": "unique id within the source",
    "name": "host_dopant_site as the source spells it",
    "host": "name of the pristine 2D material",
    "formula": "its formula, reduced, from the cell of the pristine material where there is one",
    "dopant": "symbol of the impurity atom, empty where there is none",
    "removed": "symbols of host atoms taken out or replaced, comma-separated",
    "defecttype": "adsorbate, interstitial, substitution, vacancy or complex",
    "site": "starting site of the defect in the source's own numbering",
    "subset": "part of the source that the row belongs to, empty where it has no parts",
    "eform": "formation energy of the cell, eV",
    "eform_per_site": "the same by site of the defect, where the source counts them, eV",
    "gap": "gap between the highest occupied and the lowest empty level of the cell, eV",
    "spin": "magnetic moment of the cell, μB",
    "converged": "|conv1| <= 0.05 eV: the first relaxation stage settled",
    "conv1": "energy change at the end of the first stage, eV",
    "conv2": "energy change at the end of the final stage, eV",
    "en1": "total energy after the first stage, eV",
    "en2": "total energy after the final stage, eV",
    "hostenergy": "total energy of the pristine supercell, eV",
    "dopant_chemical_potential": "energy per atom of the dopant's elemental phase, eV",
    "removed_chemical_potential": "sum of the removed atoms' elemental energies, eV",
    "depth": "2 |z - z_mid| / layer thickness: 0 in the middle, 1 at the surface",
    "extension_factor": "thickness of the relaxed layer / thickness of the pristine one",
    "host_spacegroup": "space-group number of the host",
    "supercell": "repetition of the unit cell as an integer: 331 means 3 x 3 x 1",
    "strain": "biaxial strain of the host, without unit",
    "max_force": "largest force on an atom after relaxation, eV/Å",
    "natoms": "number of atoms",
    "label_source": "what computed the labels",
}


@dataclass(frozen=True, eq=False)
class DefectRecord:
    """One point defect in a 2D supercell, from any source.

    Attributes:
        uid: unique within the source.
        atoms: the structure as labelled (relaxed unless the source has unrelaxed ones only),
            periodic in the plane; positions in Å.
        label_source: what computed the labels, for example "CHGNet-0.3.0" or "DFT-PBE (Imp2d)".
        unrelaxed: (N, 3) Å, the positions before relaxation, or None.
        defect_positions: (k, 3) Å ideal positions of the defect's sites, or None where the
            source does not say.
        site_magmoms: (N,) μB, or None.

    Every other field is a column of `COLUMNS`; NaN or an empty string where the source is silent.
    """

    uid: str
    atoms: Atoms
    host: str
    label_source: str
    name: str = ""
    dopant: str = ""
    removed: tuple[str, ...] = ()
    defecttype: str = ""
    site: str = ""
    subset: str = ""
    eform: float = np.nan
    eform_per_site: float = np.nan
    gap: float = np.nan
    spin: float = np.nan
    converged: bool = True
    conv1: float = np.nan
    conv2: float = np.nan
    en1: float = np.nan
    en2: float = np.nan
    hostenergy: float = np.nan
    dopant_chemical_potential: float = np.nan
    removed_chemical_potential: float = 0.0
    depth: float = np.nan
    extension_factor: float = np.nan
    host_spacegroup: int = 0
    supercell: int = 0
    strain: float = 0.0
    max_force: float = np.nan
    unrelaxed: np.ndarray | None = field(default=None, repr=False)
    defect_positions: np.ndarray | None = field(default=None, repr=False)
    site_magmoms: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def recognitions(self) -> dict[bytes, object]:
        """The defects that `structures.recognise.recognised` found in this record, kept with it.

        A record that `dataclasses.replace` makes of this one begins with none; a shallow copy
        (`copy.copy`) has those that were found before the copy was made.
        """
        return {}

    @property
    def natoms(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    def unrelaxed_atoms(self) -> Atoms:
        """The structure before relaxation; DefectkitError where the source does not keep it."""
        if self.unrelaxed is None:
            raise DefectkitError(f"{self.name or self.uid} has no unrelaxed positions.")
        atoms = self.atoms.copy()
        atoms.positions = self.unrelaxed
        return atoms

    def displacements(self) -> np.ndarray:
        """(N, 3) Å, from the unrelaxed positions to the nearest images of the relaxed ones.

        DefectkitError where the source does not keep the unrelaxed positions.
        """
        moved = self.atoms.positions - self.unrelaxed_atoms().positions
        return find_mic(moved, self.atoms.cell, self.atoms.pbc)[0]


def to_frame(
    records: Sequence[DefectRecord], hosts: Mapping[str, Atoms] | None = None
) -> pd.DataFrame:
    """A table with the columns of `COLUMNS`, one row a record, indexed by uid.

    Args:
        records: of any source.
        hosts: pristine materials by name, whose cells say their `formula`; for one that is not
            among them it is the name.
    """
    formulas = {host: reduced_formula(atoms) for host, atoms in (hosts or {}).items()}
    own = [name for name in COLUMNS if name != "formula"]
    table = pd.DataFrame(
        [
            {name: getattr(record, name) for name in own}
            | {"formula": formulas.get(record.host, record.host)}
            for record in records
        ],
        columns=list(COLUMNS),
    )
    table["removed"] = table["removed"].map(",".join)
    return table.set_index("uid")


def reduced_formula(atoms: Atoms) -> str:
    """The formula unit, such as "MoS2", for any number of cells; metals come first."""
    return _formula_unit(tuple(atoms.numbers.tolist()))


@lru_cache(maxsize=1024)  # hosts are few, and asked about for every structure
def _formula_unit(numbers: tuple[int, ...]) -> str:
    return format(Symbols(numbers).formula.reduce()[0], "metal")


SCALARS = {f.name: f.type for f in fields(DefectRecord) if f.type in (str, float, int, bool)}
