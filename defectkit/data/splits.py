"""Splits into train, validation, test and calibration parts that leak nothing.

Rows with the same relaxed structure form a group, and a group is never divided. A split is
stored with the fingerprint of its data and refuses any other data.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from ase import Atoms
from ase.geometry import get_distances
from pydantic import ConfigDict, TypeAdapter, ValidationError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.structures.names import one_line
from defectkit.structures.recognise import lattice_form
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import keep, write_text

# Two relaxations into one minimum stop where their forces fall below a bound, not at its bottom.
# Generous bounds cost a test set nothing; narrow ones leave near-copies of it in the training set.
SAME_ENERGY = 0.02  # eV between rows that can be one structure
SAME_POSITION = 0.1  # Å, the largest distance between corresponding atoms of one structure
TEST_SHARE = VALID_SHARE = 0.1
FOLDS = 5
SUBSET_TEST_SHARE = 0.2  # as the published benchmark of 2DMD
FOLD_KINDS = ("host", "dopant", "pair", "combination")
HELD_KINDS = {
    "leave-one-host-out": "host",
    "leave-one-formula-out": "formula",
    "leave-one-density-out": "density",
    "leave-one-dopant-out": "dopant",
    "block": "block",
}
KINDS = ("random", "subset", *FOLD_KINDS, *HELD_KINDS)
PARTS = ("train", "valid", "test", "calibration")


@dataclass(frozen=True)
class Split:
    """Uids of each part of a data set.

    Attributes:
        kind, seed, fold, held_out: how it was made, see `make_split`.
        fingerprint: of the data set that it belongs to.
        train, valid, test, calibration: disjoint, together all rows.
    """

    kind: str
    seed: int
    fold: int | None
    held_out: str | tuple[str, str] | None
    fingerprint: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    calibration: tuple[str, ...]

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # of files

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: str | Path, dataset: Dataset) -> "Split":
        """Read a split of `dataset`.

        Raises DefectkitError where the file holds no split, was made for other data, its parts are
        not disjoint and together all rows, or its test part is not of the kind that it names.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            split = TypeAdapter(cls).validate_json(text)
        except (OSError, UnicodeDecodeError) as error:
            raise DefectkitError(f"{path} is not a readable split file ({error}).") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = one_line(".".join(map(str, first["loc"]))) or "the file"
            raise DefectkitError(
                f"{path} is not a readable split file: {place}: {one_line(first['msg'])}; make it "
                "with `defectkit data split`."
            ) from error
        if split.fingerprint != dataset.fingerprint:
            raise DefectkitError(
                f"{path} was made for other data ({one_line(split.fingerprint[:12])}...) than this "
                f"{dataset.name} with {len(dataset)} rows ({dataset.fingerprint[:12]}...); clean "
                "the data in the same way or make a new split."
            )
        try:
            _check_arguments(split.kind, split.fold, split.held_out, calibration=0.0)
        except DefectkitError as error:
            raise DefectkitError(f"{path}: {one_line(error, 500)}") from error
        _check_parts(split, dataset, str(path))
        _check_kind(split, dataset, str(path))
        return split


def make_split(
    dataset: Dataset,
    kind: str = "random",
    seed: int = 0,
    fold: int | None = None,
    held_out: str | tuple[str, str] | None = None,
    calibration: float = 0.0,
    groups: pd.Series | None = None,
) -> Split:
    """Split a data set by structure groups.

    Args:
        dataset: what to split.
        kind: "random": 80/10/10. "subset": 70/10/20 in every subset of the data, each
            drawn by itself: alone it is split as among others. "host", "dopant", "pair" (host and
            dopant), "combination" (host, and which elements are removed and added): 5-fold, the
            test part is the hosts (dopants, pairs, combinations) of one fold.
            "leave-one-host-out", "leave-one-formula-out" (all hosts of one formula),
            "leave-one-dopant-out": the test part is what `held_out` names.
            "leave-one-density-out": subsets whose name begins with `held_out`, as "high" of
            "high_MoS2". "block": the test part is one dopant block in one host family.
        seed: of everything drawn at random.
        fold: 0 to 4, for the 5-fold kinds.
        held_out: a host, a dopant, or (family, block) as in ("CdI2 (1T)", "3d").
        calibration: share of all rows for a separate calibration part.
        groups: group id by uid, to spare computing `structure_groups` again.

    A row with the same structure as a held-out row goes to the test part with it. The
    validation part (a tenth of all rows) and the calibration part are drawn from the rest.
    Raises DefectkitError for arguments that do not fit the kind or the data.
    """
    _check_arguments(kind, fold, held_out, calibration)
    frame = dataset.frame.sort_index()
    groups = _aligned(structure_groups(dataset) if groups is None else groups, frame.index)
    rng = np.random.default_rng(seed)
    shares = {"valid": VALID_SHARE, "calibration": calibration}
    if kind == "random":
        part = _draw(groups, {"test": TEST_SHARE, **shares}, len(frame), rng)
    elif kind == "subset":
        shares = {"test": SUBSET_TEST_SHARE, **shares}
        names = frame.subset[groups].set_axis(frame.index)  # a group goes where its name does
        part = pd.concat(
            [
                _draw(some, shares, len(some), np.random.default_rng([seed, crc32(name.encode())]))
                for name, some in groups.groupby(names)
            ]
        ).loc[frame.index]
    else:
        units = _units(dataset, frame, HELD_KINDS.get(kind, kind))
        held = units.isin(_fold_units(units, fold, rng) if kind in FOLD_KINDS else [held_out])
        if not held.any():
            choices = ", ".join(map(str, sorted(set(units))))
            raise DefectkitError(f"{dataset.name} has no {held_out}; hold out one of {choices}.")
        tested = groups.isin(groups[held])
        part = pd.Series("test", frame.index)
        part[~tested] = _draw(groups[~tested], shares, len(frame), rng)
    uids = {name: tuple(part.index[part == name]) for name in PARTS}
    if not uids["train"] or not uids["test"]:
        raise DefectkitError(
            f"{dataset.name} with {len(dataset)} rows in {groups.nunique()} groups cannot be "
            f"split by {kind}: nothing is left to {'train on' if uids['test'] else 'test on'}."
        )
    return Split(kind, seed, fold, held_out, dataset.fingerprint, **uids)


def structure_groups(dataset: Dataset, cache: Path | None = None) -> pd.Series:
    """Group id by uid: rows of one relaxed structure share it (the first uid of the group).

    Compared are rows of one host and composition whose formation energies lie within
    `SAME_ENERGY` and whose cells and distances from the rarest element agree; pymatgen's
    StructureMatcher, without scaling or reduction of the cell, then decides. Structures that were
    not relaxed are told apart by the sites that the defect takes, up to symmetries of the host.

    Args:
        dataset: the rows.
        cache: a folder, where the groups of these very rows are read if they are there, and
            kept if not, as far as it can be used; nothing is where it is not given.
    """
    uids = sorted(dataset.frame.index)
    if cache is None:
        return _find_groups(dataset, uids)
    bounds = f"{SAME_ENERGY}-{SAME_POSITION}"
    path = Path(cache) / f"groups-{bounds}-{dataset.fingerprint[:20]}.csv"
    groups = _read_groups(path, uids)
    if groups is None:
        groups = _find_groups(dataset, uids)
        keep(path, groups.rename_axis("uid").to_csv)
    return groups


def _read_groups(path: Path, uids: list[str]) -> pd.Series | None:
    """Groups that were kept in a file; None where there is no whole file of these rows."""
    try:
        known = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return None
    if list(known) != ["uid", "group"] or list(known.uid) != uids:
        return None
    return pd.Series(known.group.to_numpy(object), uids, name="group")


def _find_groups(dataset: Dataset, uids: list[str]) -> pd.Series:
    buckets: dict[tuple, list[int]] = {}
    for number, uid in enumerate(uids):
        record = dataset[uid]
        key = record.host, np.sort(record.atoms.numbers).tobytes()
        buckets.setdefault(key, []).append(number)
    records = [dataset[uid] for uid in uids]
    atoms, eform = [r.atoms for r in records], np.array([r.eform for r in records])
    pairs: list[tuple[int, int]] = []
    for bucket in buckets.values():
        forms = _lattice_forms([records[k] for k in bucket], dataset.hosts)
        if forms is None:
            pairs += _equal_pairs(bucket, atoms, eform)
        for form in set(forms or ()):
            pairs += _close_pairs([k for k, f in zip(bucket, forms) if f == form], eform)
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(uids), len(uids)))
    labels = connected_components(graph, directed=False)[1]
    ids = pd.Series(uids, index=uids, dtype=object).groupby(labels).transform("min")
    return ids.rename("group")


def dopant_block(dopant: str) -> str:
    """Block of the periodic table, as "s", "p", "3d", "4d", "5d" or "f".

    "none" without a dopant; "mixed" where several dopants are of different blocks.
    """
    from pymatgen.core import Element

    def block(symbol: str) -> str:
        element = Element(symbol)
        return f"{element.row - 1}d" if element.block == "d" else element.block

    blocks = {block(symbol) for symbol in dopant.split(",") if symbol}
    return "mixed" if len(blocks) > 1 else next(iter(blocks), "none")


def _check_arguments(
    kind: str, fold: int | None, held_out: str | tuple[str, str] | None, calibration: float
) -> None:
    if kind not in KINDS:
        raise DefectkitError(f"There is no split '{kind}'; use one of {', '.join(KINDS)}.")
    if (fold is not None) != (kind in FOLD_KINDS) or fold not in (None, *range(FOLDS)):
        needed = f"needs fold=0 to {FOLDS - 1}" if kind in FOLD_KINDS else "takes no fold"
        raise DefectkitError(f"A {kind} split {needed}; fold={fold} was given.")
    if (held_out is not None) != (kind in HELD_KINDS):
        needed = "needs held_out=..." if kind in HELD_KINDS else "takes no held_out"
        raise DefectkitError(f"A {kind} split {needed}.")
    tested = SUBSET_TEST_SHARE if kind == "subset" else TEST_SHARE
    if not 0 <= calibration < 1 - tested - VALID_SHARE:
        raise DefectkitError(f"calibration={calibration} leaves nothing to train on.")


def _check_parts(split: Split, dataset: Dataset, where: str) -> None:
    """DefectkitError where the parts are not disjoint and together all rows."""
    places: dict[str, str] = {}
    for part in PARTS:
        for uid in getattr(split, part):
            if uid in places:
                both = dict.fromkeys((places[uid], part))
                raise DefectkitError(
                    f"{where}: the row {one_line(uid)} stands twice, in {' and in '.join(both)}; "
                    "each row belongs to one part. Make a new split."
                )
            places[uid] = part
    if unknown := sorted(set(places) - set(dataset.frame.index)):
        raise DefectkitError(
            f"{where}: {dataset.name} has no row {one_line(unknown[0])} ({len(unknown)} such ids); "
            "make a new split."
        )
    if missing := sorted(set(dataset.frame.index) - set(places)):
        raise DefectkitError(
            f"{where}: {len(missing)} rows, such as {one_line(missing[0])}, are in no part; "
            "make a new split."
        )


def _check_kind(split: Split, dataset: Dataset, where: str) -> None:
    """DefectkitError where nothing was held out as the kind of the split promises."""
    if split.kind in ("random", "subset"):
        return
    units = _units(dataset, dataset.frame, HELD_KINDS.get(split.kind, split.kind))
    tested = pd.Series(units.index.isin(split.test), units.index)
    held = (
        units.isin([split.held_out])
        if split.kind in HELD_KINDS
        else tested.groupby(units).transform("all")
    )
    if not held.any() or not tested[held].all():
        raise DefectkitError(
            f"{where} is no {split.kind} split: its test part does not hold all rows of what it "
            "holds out. Make a new split."
        )


def _aligned(groups: pd.Series, uids: pd.Index) -> pd.Series:
    missing = uids.difference(groups.index)
    if len(missing):
        raise DefectkitError(f"groups has no entry for {missing[0]}; compute it for this data.")
    return groups.loc[uids]


def _units(dataset: Dataset, frame: pd.DataFrame, by: str) -> pd.Series:
    """What is held out together, by uid; (family, dopant block) for "block"."""
    if by in ("host", "dopant", "formula"):
        return frame[by]
    if by == "density":
        return frame.subset.str.partition("_")[0].rename(by)
    if by == "pair":
        labels = list(zip(frame.host, frame.dopant))
    elif by == "combination":
        removed = frame.removed.map(lambda text: ",".join(sorted(text.split(","))))
        labels = list(zip(frame.host, removed, frame.dopant))
    else:
        blocks = {dopant: dopant_block(dopant) for dopant in frame.dopant.unique()}
        families = frame.host.map(lambda host: dataset.families.get(host, host))
        labels = list(zip(families, frame.dopant.map(blocks)))
    return pd.Series(labels, frame.index, dtype=object)


def _fold_units(units: pd.Series, fold: int, rng: np.random.Generator) -> list:
    """The units of one fold; folds are filled from the largest unit down, ties at random."""
    # GroupKFold of scikit-learn balances folds alike but orders ties otherwise, and the folds that
    # checkpoints, configurations and benchmarks name must stay as they are.
    counts = units.value_counts().sort_index()
    if len(counts) < FOLDS:
        raise DefectkitError(
            f"{FOLDS} folds need at least {FOLDS} different {units.name or 'pair'}s; there are "
            f"{len(counts)}."
        )
    counts = counts.iloc[rng.permutation(len(counts))].sort_values(ascending=False, kind="stable")
    totals = np.zeros(FOLDS, dtype=int)
    chosen = []
    for unit, count in counts.items():
        emptiest = int(totals.argmin())
        totals[emptiest] += count
        if emptiest == fold:
            chosen.append(unit)
    return chosen


def _draw(
    groups: pd.Series, shares: dict[str, float], total: int, rng: np.random.Generator
) -> pd.Series:
    """Name of a part by uid: whole groups in random order fill `shares` of `total`, then train."""
    sizes = groups.value_counts().sort_index()
    order = sizes.iloc[rng.permutation(len(sizes))]
    ends = np.cumsum([np.ceil(share * total) for share in shares.values()])
    starts = order.cumsum() - order  # rows drawn before each group
    parts = np.array([*shares, "train"])[np.searchsorted(ends, starts, side="right")]
    return groups.map(dict(zip(order.index, parts)))


def _equal_pairs(
    bucket: list[int], atoms: list[Atoms], eform: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) of the bucket that are one structure."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    prints: dict[int, np.ndarray] = {}
    for i, j in _close_pairs(bucket, eform):
        if not _same_cell(atoms[i], atoms[j]):
            continue
        for k in (i, j):
            if k not in prints:
                prints[k] = _distance_print(atoms[k])
        if np.abs(prints[i] - prints[j]).max(initial=0.0) > 2 * SAME_POSITION:
            continue
        # The tolerance of StructureMatcher is relative to (volume / atom)^(1/3).
        length = (atoms[i].cell.volume / len(atoms[i])) ** (1 / 3)
        matcher = StructureMatcher(
            ltol=0.01,
            stol=SAME_POSITION / length,
            angle_tol=0.5,
            primitive_cell=False,
            scale=False,
        )
        structures = [
            Structure(a.cell.array, a.numbers, a.positions, coords_are_cartesian=True)
            for a in (atoms[i], atoms[j])
        ]
        if matcher.fit(*structures):
            yield i, j


def _close_pairs(bucket: list[int], eform: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) of the bucket whose energies lie within `SAME_ENERGY`, or are not known."""
    # Rows without an energy come first: they are compared with all.
    bucket = sorted(bucket, key=lambda k: -np.inf if np.isnan(eform[k]) else eform[k])
    for position, i in enumerate(bucket):
        for j in bucket[position + 1 :]:
            if eform[j] - eform[i] > SAME_ENERGY:
                break
            yield i, j


def _lattice_forms(records: list[DefectRecord], hosts: Mapping[str, Atoms]) -> list[bytes] | None:
    """The `lattice_form` of records of one host and composition.

    None where there is one record only, or not all are unrelaxed, in one cell, and on the sites of
    a host that is known.
    """
    if len(records) < 2 or records[0].host not in hosts:
        return None
    host, cell = hosts[records[0].host], records[0].atoms.cell.array
    forms = []
    for record in records:
        relaxed = not np.array_equal(record.unrelaxed, record.atoms.positions)
        if relaxed or np.abs(record.atoms.cell.array[:2] - cell[:2]).max() > 1e-6:
            return None
        form = lattice_form(record.atoms, host)
        if form is None:
            return None
        forms.append(form)
    return forms


def _same_cell(first: Atoms, second: Atoms) -> bool:
    """Whether the in-plane cell vectors have the same lengths."""
    a, b = (np.sort(atoms.cell.lengths()[:2]) for atoms in (first, second))
    return bool(np.abs(a - b).max() <= SAME_POSITION)


def _distance_print(atoms: Atoms) -> np.ndarray:
    """Minimum-image distances (Å) from the atoms of the rarest element to all, sorted.

    The dopant is rarest as a rule, and its surroundings tell structures apart. Sorted by the
    other element first, so that two prints compare like with like.
    """
    kinds, counts = np.unique(atoms.numbers, return_counts=True)
    rare = atoms.positions[atoms.numbers == kinds[counts.argmin()]]
    distances = get_distances(rare, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[1].ravel()
    elements = np.tile(atoms.numbers, len(rare))
    return distances[np.lexsort((distances, elements))]
