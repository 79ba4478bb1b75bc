"""Whether a row is of the kind that a model learned from: the out-of-domain guard.

Signs of two kinds, each blind where the other sees. The spread of an ensemble is large where its
members had nothing to learn from; but members of one kind can agree and be wrong together.
Distance to the training set, in what the network sees, in composition and in how the defect's atoms
stand to their neighbours, is large for a new host, dopant or place; but a familiar structure can be
difficult all the same. The guard asks both, with thresholds that are quantiles on validation rows;
where all signs together say which error is to be expected (`intervals.Expected`), it goes by that
first, and by a single sign where it is far out.

Which crystals a network learned from is kept beside these (`Learned`): another phase of a known
formula is near in composition, and may look familiar. A graph of the defect's sites shows neither
how the rest of the layer relaxed nor which crystal it is, but for the nearest bonds; for such a
network it is also kept what stood in the defects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import nn

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.graphs.build import GraphConfig, chosen_atoms, read_defect
from defectkit.graphs.dataset import GraphDataset
from defectkit.graphs.elements import feature_table
from defectkit.predict.intervals import NO_DISTANCE
from defectkit.structures.files import as_layer, check_layer
from defectkit.structures.recognise import ON_SITE, Recognition, recognise
from defectkit.structures.record import SiteKind, reduced_formula
from defectkit.training.inference import latent_vectors, predict

NEIGHBOURS = 5
QUANTILE = 0.95  # of the validation rows lie inside each threshold
FAR_QUANTILE, EXPECTED_QUANTILE = 0.99, 0.87  # the same where an error is expected, and of that
SAME_STRAIN = 0.01  # of a cell: lattice constants of one functional differ less between codes
SAME_PHASE_STRAIN = 0.025  # the same where a network has seen strain, and sees it
FEW = 8  # formulas are named, more are counted
SAME_RMS = 0.05  # Å: the atoms of two cells of one crystal are this near each other
ROUNDING = 1e-6  # of a distance between equal rows
# "spread" also where a large error is to be expected without the models disagreeing.
VERDICTS = ("inside", "spread", "unlike", "both")


def predict_with_vectors(
    model: nn.Module, graphs: GraphDataset, numbers: Sequence[int] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions, and the vectors from which the network's heads read them, in one pass.

    Args:
        model: of `models.MODELS`.
        graphs: of the configuration that the model was trained with.
        numbers: which of them; all by default.

    Returns:
        What `predict.predict` returns, and the vectors, (B, D); both indexed by uid.
    """
    with latent_vectors(model) as vectors:
        predicted = predict(model, graphs, numbers)
    return predicted, pd.DataFrame(torch.cat(vectors).numpy(), predicted.index)


def composition_vectors(frame: pd.DataFrame) -> pd.DataFrame:
    """What a defect is made of, (rows, 4 F + 2), indexed by uid.

    Standardised properties of the elements (`graphs.elements.feature_table`, "elemental"), their
    mean and largest over the host, their mean over the dopants and over the removed atoms; zeros
    where there is none, and how many of these there are.

    Args:
        frame: columns formula, dopant and removed of `Dataset.frame`.

    Raises DefectkitError for a host whose cell is not known and whose name is no formula.
    """
    columns = frame[["formula", "dopant", "removed"]]
    rows = [composition_vector(*row) for row in columns.itertuples(index=False)]
    return pd.DataFrame(rows, frame.index)


def composition_vector(formula: str, dopant: str, removed: str) -> np.ndarray:
    """(4 F + 2,), a row of `composition_vectors`."""
    changes = (dopant, removed)
    counts = [len(_symbols(symbols)) for symbols in changes]
    return np.concatenate([_host_vector(formula), *map(_mean_element, changes), counts])


def host_part(composition: np.ndarray) -> np.ndarray:
    """What `composition_vectors` say of the host, (rows, 4 F + 2) -> (rows, 2 F)."""
    return composition[:, : 2 * _elements().shape[1]]


@cache
def _host_vector(formula: str) -> np.ndarray:
    try:
        counts = Formula(formula).count()
        numbers = [atomic_numbers[symbol] for symbol in counts]
    except (ValueError, KeyError) as error:
        raise DefectkitError(
            f"There is no cell of the host {formula}, and its name is no chemical formula; give "
            "its cell, or name it like MoS2."
        ) from error
    values = _elements()[numbers]
    mean = np.average(values, axis=0, weights=list(counts.values()))
    return np.concatenate([mean, values.max(axis=0)])


@cache
def _mean_element(symbols: str) -> np.ndarray:
    unknown = [symbol for symbol in _symbols(symbols) if symbol not in atomic_numbers]
    if unknown:
        raise DefectkitError(f"There is no element {unknown[0]}; mend the symbol.")
    numbers = [atomic_numbers[symbol] for symbol in _symbols(symbols)]
    return _elements()[numbers].mean(axis=0) if numbers else np.zeros(_elements().shape[1])


def _symbols(text: str) -> list[str]:
    return [symbol for symbol in text.split(",") if symbol]


@cache
def _elements() -> np.ndarray:
    """(119, F), columns standardised over the elements up to bismuth."""
    table = feature_table(("elemental",))
    values = table.values[:, ~table.is_flag]
    return (values - values[1:84].mean(axis=0)) / values[1:84].std(axis=0)


class Nearness:
    """Mean distance to the nearest training rows, in units of the training rows' own.

    Args:
        training: (M, D) vectors; columns are brought to one scale.
        k: how many neighbours.

    The unit is the median distance of a training row to its k nearest others.
    """

    def __init__(self, training: pd.DataFrame, k: int = NEIGHBOURS):
        if len(training) <= k:
            raise DefectkitError(f"{len(training)} training rows are too few for {k} neighbours.")
        self.scaler = StandardScaler().fit(training.to_numpy())
        self.neighbours = NearestNeighbors(n_neighbors=k).fit(
            self.scaler.transform(training.to_numpy())
        )
        unit = float(np.median(self.neighbours.kneighbors()[0].mean(axis=1)))
        self.unit = unit if unit > ROUNDING else 1.0  # most training rows have a twin

    def __call__(self, rows: pd.DataFrame) -> pd.Series:
        """(n, D) vectors -> (n,) distances, by uid."""
        distance, _ = self.neighbours.kneighbors(self.scaler.transform(rows.to_numpy()))
        return pd.Series(distance.mean(axis=1) / self.unit, rows.index)


@dataclass(frozen=True)
class Guard:
    """Thresholds of the signs of an unfamiliar row; above any of them it is one.

    Attributes:
        spread: eV, of the ensemble's sigma.
        distances: by name of a distance, such as "latent" and "composition".
        expected: eV, of the error that is to be expected.
    """

    spread: float
    distances: dict[str, float]
    expected: float = np.inf

    @classmethod
    def fit(cls, signs: pd.DataFrame, quantile: float = QUANTILE) -> "Guard":
        """Thresholds that `quantile` of the validation rows stay below, `NO_DISTANCE` at least.

        Args:
            signs: columns spread (eV), any number of distances and, where it is known, `expected`
                (eV), a row a validation row.
            quantile: of each sign; with several distances more rows than that are "unlike". With
                `expected` it is `FAR_QUANTILE`, and `EXPECTED_QUANTILE` of that.
        """
        expected = np.inf
        if "expected" in signs:
            quantile, expected = FAR_QUANTILE, float(signs.expected.quantile(EXPECTED_QUANTILE))
        limits = signs.drop(columns="expected", errors="ignore").quantile(quantile).astype(float)
        distances = limits.drop("spread").clip(lower=NO_DISTANCE)
        return cls(float(limits.spread), distances.to_dict(), expected)

    def verdict(self, signs: pd.DataFrame) -> pd.DataFrame:
        """One of `VERDICTS` for every row, and a sentence that says why.

        Args:
            signs: as in `fit`; where there is a text in a column `reading`, what makes the
                structure doubtful, the row is never "inside".

        Returns:
            Columns `verdict` and `sentence`, by uid.
        """
        error = signs.get("expected", pd.Series(0.0, signs.index))
        spread = (signs.spread > self.spread) | (error > self.expected)
        far = pd.DataFrame({name: signs[name] > limit for name, limit in self.distances.items()})
        doubts = signs.get("reading", pd.Series("", signs.index))
        unlike = far.any(axis=1) | (doubts != "")
        verdict = np.select(
            [spread & unlike, spread, unlike], ["both", "spread", "unlike"], "inside"
        )
        sentences = [
            self._sentence(value, error[uid], [n for n in far if far.loc[uid, n]], doubts[uid])
            for uid, value in signs.spread.items()
        ]
        return pd.DataFrame({"verdict": verdict, "sentence": sentences}, signs.index)

    def _sentence(self, spread: float, error: float, far: list[str], doubt: str) -> str:
        wide, large = spread > self.spread, error > self.expected
        if not wide and not large and not far and not doubt:
            return (
                f"The models agree (spread {spread:.2f} eV) and the training set holds similar "
                "defects."
            )
        parts = []
        if wide:
            parts.append(
                f"the models disagree (spread {spread:.2f} eV; usual is less than "
                f"{self.spread:.2f} eV)"
            )
        if large:
            parts.append(
                f"an error of {error:.2f} eV is usual for such predictions (for most it is less "
                f"than {self.expected:.2f} eV)"
            )
        if far:
            parts.append(f"the training set holds nothing similar in {' or '.join(far)}")
        if doubt:
            parts.append(f"the structure is in doubt ({doubt})")
        text = " and ".join(parts)
        return f"{text[0].upper()}{text[1:]}: do not rely on this value."


@checked(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Cell:
    """A pristine host as plain values: symbols, positions (Å) and the two in-plane vectors (Å)."""

    symbols: list[str]
    positions: list[list[float]]
    cell: list[list[float]]

    @classmethod
    def of(cls, atoms: Atoms) -> "Cell":
        """The cell of `atoms`, rounded to 1e-6 Å."""
        positions, cell = atoms.positions.round(6).tolist(), atoms.cell.array.round(6).tolist()
        return cls(list(atoms.symbols), positions, cell)

    def atoms(self) -> Atoms:
        """As a layer; ValueError or DefectkitError where it is none."""
        layer = Atoms(self.symbols, positions=self.positions, cell=self.cell, pbc=(1, 1, 0))
        check_layer(layer, "A host")
        return as_layer(layer)


@checked(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Learned:
    """What a network was shown, which its distances cannot judge.

    Attributes:
        hosts: pristine cells by name.
        changes: what stood in their defects, by the same names, in the words of `changes_of`; None
            for a network that sees all atoms.
        moved: Å, farthest that an atom stood from its site; None likewise.
    """

    hosts: dict[str, Cell]
    changes: dict[str, list[str]] | None = None
    moved: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    def __post_init__(self) -> None:
        told = self.hosts if self.changes is None else self.changes
        if set(self.hosts) != set(told) or not self.hosts:
            raise DefectkitError("what was learned is not told of the hosts that are there.")
        if (self.changes is None) != (self.moved is None):
            raise DefectkitError("what was learned is told by halves.")
        for cell in self.hosts.values():
            cell.atoms()

    @classmethod
    def of(cls, dataset: Dataset, uids: Sequence[str], config: GraphConfig) -> "Learned":
        """Of the training rows `uids`, read as their graphs of `config` were."""
        if config.nodes == "atoms":
            names = sorted({dataset[uid].host for uid in uids})
            return cls({name: Cell.of(dataset.hosts[name]) for name in names})
        changes: dict[str, set[str]] = {}
        moved = 0.0
        for uid in uids:
            record = dataset[uid]
            found = read_defect(record, dataset.hosts[record.host], config)
            atoms = chosen_atoms(record, config)
            changes.setdefault(record.host, set()).update(changes_of(found, atoms))
            moved = max(moved, farthest(found, atoms))
        hosts = {name: Cell.of(dataset.hosts[name]) for name in sorted(changes)}
        return cls(hosts, {name: sorted(changes[name]) for name in hosts}, float(round(moved, 3)))

    def doubt(self, found: Recognition, atoms: Atoms, host: Atoms) -> str:
        """What of a structure the network was never shown, in words; empty where nothing.

        Args:
            found: its defect.
            atoms: of which it was found.
            host: the pristine host.
        """
        foreign = self.foreign(host)
        if self.changes is None:
            return foreign
        names, doubts = self._names(host), [foreign] if foreign else []
        known = {change for name in names for change in self.changes[name]}
        if new := sorted(changes_of(found, atoms) - known) if names else []:
            doubts.append(f"in this host there was no {', no '.join(new)} to learn from")
        far, most = farthest(found, atoms), max(self.moved, ON_SITE)
        if far > most:
            doubts.append(
                f"an atom stands {far:.2f} Å from its site, and none learned from farther than "
                f"{most:.2f} Å: give the structure before relaxation"
            )
        strain = float(np.abs(found.setting.strain).max())
        if strain > SAME_STRAIN:
            doubts.append(
                f"its host is strained by {strain:.1%}, and what was learned from by less than "
                f"{SAME_STRAIN:.0%}"
            )
        return "; ".join(doubts)

    def foreign(self, host: Atoms) -> str:
        """That the network was never shown this crystal, in words; empty where it was."""
        if self._names(host):
            return ""
        formulas = sorted({reduced_formula(cell.atoms()) for cell in self.hosts.values()})
        few = len(formulas) <= FEW
        which = f", {', '.join(formulas)}" if few else f" ({len(self.hosts)} of them)"
        return f"its host is none of the crystals learned from{which}"

    def _names(self, host: Atoms) -> list[str]:
        """Under which names the crystal `host` was learned."""
        key = (host.numbers.tobytes(), host.positions.tobytes(), host.cell.array.tobytes())
        if key not in self._known:
            most = SAME_STRAIN if self.changes else SAME_PHASE_STRAIN
            same = [
                name for name, cell in self.hosts.items() if same_crystal(host, cell.atoms(), most)
            ]
            self._known[key] = same
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[bytes, ...], list[str]]:
        return {}


def changes_of(found: Recognition, atoms: Atoms) -> set[str]:
    """What stands in a defect, such as "S vacancy", "Se in place of S" or "Li adsorbate"."""
    names = {f"{chemical_symbols[z]} vacancy" for z in found.vacancy_z}
    for index in found.defect_indices:
        symbol, kind = atoms.symbols[index], SiteKind(found.site_kind[index])
        was = f"in place of {chemical_symbols[found.original_z[index]]}"
        names.add(f"{symbol} {was if kind == SiteKind.SUBSTITUTION else kind.name.lower()}")
    return names


def farthest(found: Recognition, atoms: Atoms) -> float:
    """Å, of an atom from its site in the host; atoms that were added have none."""
    on_site = found.original_z > 0
    away = np.linalg.norm((atoms.positions - found.ideal_positions)[on_site], axis=1)
    return float(away.max(initial=0.0))


def same_crystal(atoms: Atoms, other: Atoms, most_strain: float = SAME_STRAIN) -> bool:
    """Whether two pristine layers are one crystal, in whatever setting they are written.

    Their lattices may differ by `most_strain`, their atoms by `SAME_RMS`.
    """
    try:
        found = recognise(atoms, other)
    except DefectkitError:
        return False
    strain = np.abs(found.setting.strain).max()
    return not found.defecttype and found.rms < SAME_RMS and strain < most_strain
