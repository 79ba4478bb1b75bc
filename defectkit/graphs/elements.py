"""Features of the elements by name, as one table that models look up by atomic number.

`feature_table(["elemental", "onehot"])` puts groups of columns side by side. Row z belongs to
atomic number z; row 0 to a vacancy node, all zeros but for its own column `vacancy`.

A value that the source lacks is filled with the mean of the element's group, where that has
none with the mean of its period, else with the mean of all; a column `missing: ...` says where
(columns that lack the same elements share one). A missing value is never zero.

Axes: 119 rows (Z = 0..118), F columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from ase.data import covalent_radii

from defectkit import DefectkitError
from defectkit.structures.names import one_line

if TYPE_CHECKING:
    from pymatgen.core import Element

ATOM_VECTORS = Path(__file__).resolve().parents[2] / "data/vectors/libraries-0/vectors.csv"
N_ELEMENTS = 118
ELEMENTS = np.arange(1, N_ELEMENTS + 1)

ELEMENTAL: dict[str, str] = {
    "Z": "atomic number",
    "group": "group of the periodic table, 1 to 18",
    "period": "period of the periodic table",
    "electronegativity": "Pauling's scale, without unit",
    "covalent_radius": "Å (Cordero et al., Dalton Trans. 2832, 2008, in ASE)",
    "vdw_radius": "van der Waals radius, Å",
    "valence_electrons": "outer s and p electrons; s and d in the d block; s, d and f in the f",
    "first_ionisation_energy": "eV",
    "electron_affinity": "eV",
}


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Numbers that describe the elements.

    Attributes:
        names: (F,) what stands in each column.
        values: (119, F) row z for atomic number z, row 0 for a vacancy.
        is_flag: (F,) bool, columns of zeros and ones, which are never standardised.
    """

    names: tuple[str, ...]
    values: np.ndarray
    is_flag: np.ndarray

    def __getitem__(self, z: np.ndarray) -> np.ndarray:
        """(n, F) features of n atomic numbers."""
        return self.values[z]


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of every column, from the training set; travels with a checkpoint.

    Attributes:
        names: (F,) the columns that it belongs to.
        mean, std: (F,) plain numbers; 0 and 1 for flags and for columns that do not vary.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, table: FeatureTable, z: np.ndarray) -> "Standardizer":
        """Statistics over the nodes of the training graphs.

        Args:
            table: the features.
            z: (n,) atomic number of every node; vacancies (0) do not count.
        """
        z = np.asarray(z)
        seen = table[z[z > 0]]
        if not len(seen):
            raise DefectkitError("There is no atom to take statistics from.")
        mean, std = seen.mean(axis=0), seen.std(axis=0)
        constant = std < 1e-6 * np.maximum(np.abs(mean), 1.0)
        mean, std = np.where(table.is_flag, 0.0, mean), np.where(constant | table.is_flag, 1.0, std)
        return cls(table.names, tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, table: FeatureTable) -> FeatureTable:
        """The table in these units; a vacancy stays at zero, the mean of the training set."""
        if table.names != self.names:
            raise DefectkitError(
                f"These statistics belong to {len(self.names)} other columns than the table's "
                f"{len(table.names)}; choose the features that the model was trained with."
            )
        values = (table.values - self.mean) / self.std
        values[0] = table.values[0]
        return replace(table, values=values)

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for JSON, YAML or a checkpoint."""
        return {"names": list(self.names), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, list]) -> "Standardizer":
        """What `to_dict` wrote."""
        return cls(*(tuple(values[key]) for key in ("names", "mean", "std")))


def feature_table(features: Sequence[str]) -> FeatureTable:
    """The groups of columns that `features` names, in that order, and the vacancy's flag.

    * elemental: the nine of `ELEMENTAL`, from pymatgen and ASE.
    * magpie: 64 scalars (Ward et al., npj Comput. Mater. 2, 16028, 2016), from matminer.
    * matscholar: 200 dimensions learned from abstracts (Tshitoyan et al., Nature 571, 95, 2019),
      from matminer.
    * onehot: one column an element.
    * atom_dl: 16 dimensions that the kit learned from formulas (`training.vectors`, with the
      configuration beside the table).

    Raises DefectkitError for an unknown name.
    """
    unknown = set(features) - set(GROUPS)
    if unknown or not features:
        raise DefectkitError(
            f"No features are called {one_line(', '.join(sorted(unknown))) or '(nothing)'}; "
            f"choose from {', '.join(GROUPS)}."
        )
    parts = [_group(name) for name in features]
    vacancy = np.zeros((N_ELEMENTS + 1, 1))
    vacancy[0] = 1.0
    return FeatureTable(
        names=(*(name for part in parts for name in part.names), "vacancy"),
        values=np.concatenate([*(part.values for part in parts), vacancy], axis=1),
        is_flag=np.concatenate([*(part.is_flag for part in parts), [True]]),
    )


@cache
def _group(name: str) -> FeatureTable:
    """One group of columns: read, filled and with its `missing` flags."""
    columns = GROUPS[name]()
    raw = np.column_stack(list(columns.values())).astype(float)  # (118, F)
    missing = np.isnan(raw)
    patterns: dict[bytes, list[str]] = {}
    for column, gaps in zip(columns, missing.T, strict=True):
        if gaps.any():
            patterns.setdefault(gaps.tobytes(), []).append(column)
    flags = [np.frombuffer(pattern, bool) for pattern in patterns]
    values = np.column_stack([*map(_filled, raw.T), *flags])
    names = (*columns, *map(_flag_name, patterns.values()))
    return FeatureTable(
        names=names,
        values=np.concatenate([np.zeros((1, len(names))), values]),
        is_flag=np.array([name == "onehot"] * len(columns) + [True] * len(flags)),
    )


def _flag_name(columns: list[str]) -> str:
    others = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    return f"missing: {columns[0]}{others}"


def _filled(values: np.ndarray) -> np.ndarray:
    """(118,) with each NaN replaced by the mean of the group, of the period, or of all."""
    group, period = _places()
    filled = values.copy()
    known = ~np.isnan(values)
    for element in np.flatnonzero(~known):
        circles = (group == group[element], period == period[element], np.ones_like(known))
        filled[element] = next(
            values[circle & known].mean() for circle in circles if (circle & known).any()
        )
    return filled


@cache
def _places() -> tuple[np.ndarray, np.ndarray]:
    """Group and period, (118,) each."""
    elements = _elements()
    return np.array([e.group for e in elements]), np.array([e.row for e in elements])


@cache
def _elements() -> tuple:
    from pymatgen.core import Element

    return tuple(Element.from_Z(int(z)) for z in ELEMENTS)


def _elemental() -> dict[str, np.ndarray]:
    group, period = _places()

    def column(key: str) -> list[float]:
        return [e.data.get(key, np.nan) for e in _elements()]

    columns = (
        ELEMENTS,
        group,
        period,
        column("X"),
        np.where(ELEMENTS <= LAST_CORDERO, covalent_radii[ELEMENTS], np.nan),
        column("Van der waals radius"),
        [_valence_electrons(e) for e in _elements()],
        [e.data.get("Ionization energies", [np.nan])[0] for e in _elements()],
        column("Electron affinity"),
    )
    return dict(zip(ELEMENTAL, columns, strict=True))


LAST_CORDERO = 96  # Cm; ASE has a placeholder after it
OUTER = {"s": "sp", "p": "sp", "d": "sd", "f": "sdf"}


def _valence_electrons(element: "Element") -> float:
    """Electrons outside the noble-gas core, in the subshells that count in the block."""
    if "Electronic structure" not in element.data:
        return np.nan
    shells = [shell for shell in element.electronic_structure.split(".") if "[" not in shell]
    return sum(int(shell[2:]) for shell in shells if shell[1] in OUTER[element.block])


def _magpie() -> dict[str, np.ndarray]:
    from matminer.utils.data import MagpieData

    table = MagpieData(impute_nan=False).all_elemental_props
    names = sorted(set(table) - {"OxidationStates"})  # a list, not a number
    return {name: _column(table[name]) for name in names}


def _matscholar() -> dict[str, np.ndarray]:
    from matminer.utils.data import MatscholarElementData

    data = MatscholarElementData(impute_nan=False)
    return {
        f"matscholar {k}": _column({symbol: v[name] for symbol, v in data.all_element_data.items()})
        for k, name in enumerate(data.prop_names, start=1)
    }


def _column(by_symbol: Mapping[str, float]) -> np.ndarray:
    return np.array([by_symbol.get(e.symbol, np.nan) for e in _elements()], float)


def _onehot() -> dict[str, np.ndarray]:
    return {e.symbol: row for e, row in zip(_elements(), np.eye(N_ELEMENTS), strict=True)}


def _atom_dl() -> dict[str, np.ndarray]:
    if not ATOM_VECTORS.is_file():
        raise DefectkitError(f"{ATOM_VECTORS} is missing; `defectkit vectors` learns it anew.")
    table = pd.read_csv(ATOM_VECTORS, index_col="element", keep_default_na=False)
    return {f"atom_dl {k}": _column(table[name]) for k, name in enumerate(table, start=1)}


GROUPS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "elemental": _elemental,
    "magpie": _magpie,
    "matscholar": _matscholar,
    "onehot": _onehot,
    "atom_dl": _atom_dl,
}
