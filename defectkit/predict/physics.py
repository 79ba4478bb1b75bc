"""What physics demands of predictions, whatever the labels.

Values that cannot be are flagged. Equal crystals have equal energies, energies are smooth functions
of the positions, and along a row of dopants they follow the computed trend.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import nn

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset, load_graphs
from defectkit.structures import transforms
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord
from defectkit.training.config import Target
from defectkit.training.inference import predict

UNPAIRED = {"s": 1, "p": 3, "d": 6, "f": 8}  # most unpaired electrons of an atom, by block
MARGIN = 0.1  # of the range of the training labels: a value beyond it is extreme
RULES = (
    "no number",
    "extreme energy",
    "negative gap",
    "negative moment",
    "extreme moment",
    "impossible moment",
)
SERIES = ("Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")  # 3d


def flags(
    predictions: pd.DataFrame,
    eform_range: tuple[float, float],
    spin_range: tuple[float, float] | None,
    atoms: Mapping[str, Atoms] | None = None,
    target: Target = "eform",
) -> pd.DataFrame:
    """The sentence of every rule for every prediction, empty where it does not apply.

    Args:
        predictions: columns eform (eV) and spin (μB), indexed by uid.
        eform_range: lowest and highest training label, eV (`ModelCard`).
        spin_range: likewise of its size, μB; None where no moment was learned: then none is judged.
        atoms: structures by uid, for the largest moment that their electrons allow.
        target: what the column eform holds; a gap is never negative.

    Returns:
        (rows, `RULES`) of texts.
    """
    table = pd.DataFrame("", predictions.index, list(RULES))
    largest = max(map(abs, spin_range)) if spin_range else np.inf
    for uid, eform, spin in predictions[["eform", "spin"]].itertuples():
        if not np.isfinite([eform, spin] if spin_range else eform).all():
            table.loc[uid, "no number"] = "the model returned no number; its input is damaged"
            continue
        if not _within(eform, eform_range):
            table.loc[uid, "extreme energy"] = (
                f"{eform:.1f} eV lies outside the training labels, {eform_range[0]:.1f} to "
                f"{eform_range[1]:.1f} eV"
            )
        if target == "gap" and eform < 0:
            table.loc[uid, "negative gap"] = f"a gap cannot be {eform:.2f} eV"
        if spin < 0:
            table.loc[uid, "negative moment"] = f"a size cannot be {spin:.2f} μB"
        if spin > (1 + MARGIN) * largest:
            table.loc[uid, "extreme moment"] = (
                f"{spin:.1f} μB is more than any training label, at most {largest:.1f} μB"
            )
        if atoms is not None and spin > (most := largest_moment(atoms[uid])):
            table.loc[uid, "impossible moment"] = (
                f"{spin:.1f} μB is more than all electrons of these atoms allow, {most} μB"
            )
    return table


def largest_moment(atoms: Atoms) -> int:
    """μB, with all electrons unpaired that an atom's open shells allow."""
    return sum(UNPAIRED[_block(symbol)] for symbol in atoms.symbols)


def equal_crystals(
    model: nn.Module,
    config: GraphConfig,
    records: Sequence[DefectRecord],
    hosts: Mapping[str, Atoms],
    seed: int = 0,
) -> pd.DataFrame:
    """How much predictions differ between descriptions of one crystal.

    The defect is found anew in each description, so that the whole way from atoms to the energy is
    tested. What remains is the rounding of 32-bit numbers.

    Args:
        model: of `models.MODELS`.
        config: of the graphs that it was trained with.
        records: some structures.
        hosts: the pristine host by name.
        seed: of angles, shifts and orders.

    Returns:
        A row a structure and `change` (a key of `SAME_CRYSTAL`): uid, change, `eform` as given and
        `difference`, both eV, and `ambiguous`, whether the defect can be read in several ways: then
        equal crystals may be read differently.
    """
    rng = np.random.default_rng(seed)
    graphs = load_graphs(records, hosts, config)
    given = predict(model, graphs).eform
    ambiguous = graphs.tensors["ambiguous"].numpy()
    tables = []
    for change, transform in SAME_CRYSTAL.items():
        changed = load_graphs([transform(record, rng) for record in records], hosts, config)
        table = pd.DataFrame({"change": change, "eform": given, "ambiguous": ambiguous})
        tables.append(table.assign(difference=predict(model, changed).eform - given).reset_index())
    return pd.concat(tables, ignore_index=True)


def displacement_curve(
    model: nn.Module,
    config: GraphConfig,
    record: DefectRecord,
    hosts: Mapping[str, Atoms],
    displacements: np.ndarray,
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> pd.DataFrame:
    """The predicted energy while the first atom of the defect moves along a line.

    The energy should be smooth where neighbours come and go at the cutoff: a jump would stand out
    in the slope, and a kink in the curvature. Computed with 64 bits, so that these are not
    rounding. What every atom is (dopant, host) is found once, for the record as it is: a reading of
    the defect that changed on the way would be another input, not a displacement.

    Args:
        model: of `models.MODELS`; it is not changed.
        config: of the graphs that it was trained with.
        record: with an added or substituted atom.
        hosts: the pristine host by name.
        displacements: (K,) Å, evenly spaced, K at least 3.
        direction: in the frame of the record, of any length but zero.

    Returns:
        K rows: displacement (Å), eform (eV), `slope` (eV/Å) and `curvature` (eV/Å²) by central
        differences, NaN at the ends, and `neighbours`, atoms within the cutoff of the moving one.

    Raises DefectkitError for a defect without an atom, such as a vacancy, or where atoms come to
    lie in each other.
    """
    found = recognised(record, hosts[record.host])
    if not len(found.defect_indices):
        raise DefectkitError(f"{record.uid} has no atom of a defect to move; take another row.")
    atom, step = found.defect_indices[0], np.diff(displacements)[0]
    unit = np.array(direction) / np.linalg.norm(direction)
    graphs = []
    for displacement in displacements:
        atoms = record.atoms.copy()
        atoms.positions[atom] += displacement * unit
        moved = replace(record, atoms=atoms)
        graphs.append(build_graph(moved, config, recognition=found, dtype=torch.float64))
    eform = predict(deepcopy(model).double(), GraphDataset.from_graphs(graphs)).eform.to_numpy()
    slope, curvature = np.full((2, len(eform)), np.nan)
    slope[1:-1] = (eform[2:] - eform[:-2]) / (2 * step)
    curvature[1:-1] = (eform[2:] - 2 * eform[1:-1] + eform[:-2]) / step**2
    return pd.DataFrame(
        {
            "displacement": displacements,
            "eform": eform,
            "slope": slope,
            "curvature": curvature,
            "neighbours": [int((graph.edge_index[1] == atom).sum()) for graph in graphs],
        }
    )


def dopant_series(
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    dopants: Sequence[str] = SERIES,
    hosts: int = 6,
) -> pd.DataFrame:
    """Computed and predicted energies of a row of dopants on one site of several hosts.

    Substitutions of unstrained hosts, where the dopants of a host replace the same element; of
    several such rows that of lowest computed energy.

    Args:
        rows: columns eform and eform_pred (eV), by uid, of rows that the model was not trained on,
            such as `Run.predictions`.
        frame: of `Dataset.frame`, these rows at least.
        dopants: symbols, in the order of the periodic table.
        hosts: how many, those with the most dopants.

    Returns:
        Columns `place` (as in "Pt of PtSe2"), dopant, eform, eform_pred; place by place, dopants in
        their order. Places have at least two dopants.

    Raises DefectkitError where there is none.
    """
    table = rows.dropna(subset=["eform"])[["eform", "eform_pred"]]
    table = table.join(frame[["host", "dopant", "removed", "defecttype", "strain"]])
    chosen = (table.defecttype == "substitution") & (table.strain == 0)
    table = table[chosen & table.dopant.isin(dopants)].sort_values("eform")
    table["place"] = table.removed + " of " + table.host
    table = table.drop_duplicates(["place", "dopant"])
    counts = table.groupby(["host", "place"]).size().rename("n").reset_index()
    counts = counts[counts.n > 1].sort_values(["n", "place"], ascending=[False, True])
    places = counts.drop_duplicates("host").place[:hosts].tolist()
    if not places:
        raise DefectkitError(
            f"No host has two substitutions among {', '.join(dopants)} in these rows; give more."
        )
    table = table[table.place.isin(places)]
    order = table.place.map(places.index) * 1000 + table.dopant.map(atomic_numbers)
    columns = ["place", "dopant", "eform", "eform_pred"]
    return table.loc[order.sort_values().index, columns]


def _translated(record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
    """Shifted, and atoms that left the cell put back on its other side."""
    atoms, shift = record.atoms.copy(), rng.uniform(-10.0, 10.0, 3) * [1, 1, 0.1]
    atoms.positions += shift
    atoms.wrap()
    start = None if record.unrelaxed is None else record.unrelaxed + shift
    return replace(record, atoms=atoms, unrelaxed=start)


def _reordered(record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
    order = rng.permutation(record.natoms)
    start = None if record.unrelaxed is None else record.unrelaxed[order]
    return replace(record, atoms=record.atoms[order], unrelaxed=start)


def _other_cell(record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
    """The same lattice, spanned by a and a + b."""
    atoms = record.atoms.copy()
    a, b, c = atoms.cell.array
    atoms.set_cell([a, a + b, c])
    return replace(record, atoms=atoms)


# Descriptions of one crystal, by what was done.
SAME_CRYSTAL: dict[str, Callable[[DefectRecord, np.random.Generator], DefectRecord]] = {
    "rotated": transforms.Rotation(),
    "translated": _translated,
    "atoms reordered": _reordered,
    "other cell vectors": _other_cell,
}


@cache
def _block(symbol: str) -> str:
    from pymatgen.core import Element

    return Element(symbol).block


def _within(value: float, limits: tuple[float, float]) -> bool:
    reach = MARGIN * (limits[1] - limits[0])
    return limits[0] - reach <= value <= limits[1] + reach
