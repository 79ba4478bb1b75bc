"""The exercises on data and graphs: notebooks 00, 01 and 02."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from torch import Tensor

from defectkit.data.cleaning import (
    IDENTITY_TOLERANCE,
    RULES,
    clean,
    energy_rise,
    identity_error,
)
from defectkit.data.dataset import Dataset
from defectkit.data.splits import structure_groups
from defectkit.graphs import periodic
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.graphs.elements import feature_table
from defectkit.models.tabular.features import defect_names
from defectkit.teach.answers import AnyOf, Fault, differs, row_id, seed_and, short
from defectkit.teach.checks import clean_rows, exercise, once


@exercise(
    "00-1",
    hint="The data set is a table, `frame`, with a line for each row.",
    way="len(frame) counts the rows of a table.",
    meaning="{x:,} rows, each of them one supercell with a defect.",
    mistakes={
        "That is how many columns the table has; its rows are wanted.": lambda d: d.frame.shape[1],
        "That counts every cell of the table, rows times columns.": lambda d: d.frame.size,
        "That counts the hosts; every host has many rows.": lambda d: d.frame.host.nunique(),
    },
)
def number_of_rows(data: Dataset) -> int:
    """Rows in the data set."""
    return len(data)


def _no_terms(data: Dataset) -> str:
    complete = identity_error(data.frame).abs() < IDENTITY_TOLERANCE
    return "" if complete.any() else "no row has all four terms of its formation energy"


def _signed(*signs: int) -> Callable[[Dataset, str], float]:
    """The sum of a row's four terms (eV) with these signs: defect, host, added, removed."""
    terms = ["en2", "hostenergy", "dopant_chemical_potential", "removed_chemical_potential"]
    return lambda data, uid: float(np.dot(signs, data.frame.loc[uid, terms].astype(float)))


@exercise(
    "00-2",
    nothing_to_ask=_no_terms,
    given=row_id("row.name", "energy"),
    hint="Mind the signs: what is added costs its reservoir mu, what is removed gives mu back.",
    way="row.en2 - row.hostenergy - row.dopant_chemical_potential"
    " + row.removed_chemical_potential, as in the formula above.",
    meaning="{x:.2f} eV is what this defect costs against the perfect sheet and the elements.",
    mistakes={
        "Both chemical potentials have the wrong sign.": _signed(1, -1, 1, -1),
        "The chemical potential of what is added has the wrong sign: that atom was taken from its"
        " reservoir.": _signed(1, -1, 1, 1),
        "The chemical potential of what is removed has the wrong sign: that atom goes back to its"
        " reservoir.": _signed(1, -1, -1, -1),
        "Where do the atoms come from, and go to? The potentials are missing.": _signed(
            1, -1, 0, 0
        ),
        "That is the total energy of the cell; take off that of the host.": _signed(1, 0, 0, 0),
        "Defect and host are swapped: the defect minus the host.": _signed(-1, 1, -1, 1),
    },
)
def formation_energy(data: Dataset, uid: str) -> float:
    """Formation energy of one row from its four terms."""
    row = data.frame.loc[[uid]]
    expected = (row.eform - identity_error(row)).item()  # what the four terms give
    if np.isnan(expected):
        raise Fault(f"the row {uid!r} does not have all four terms; take the one drawn above.")
    return expected


@exercise(
    "00-3",
    hint="The data set knows what computed its labels, and says so above.",
    way="data.label_source",
    meaning="The labels are those of {x}, and every caption of a figure with labels says so.",
    mistakes={
        "Every energy looks like one of DFT; these were computed by something else.": "DFT",
        "That is the name of the data set, not of what computed its labels.": lambda d: d.name,
        "That is the name of a column of labels, not of what computed them.": "eform",
    },
)
def label_source(data: Dataset) -> str:
    """What computed the labels."""
    return data.label_source


@exercise(
    "00-4",
    hint="A comparison gives True or False for every row, and True counts as one.",
    way='(frame.defecttype == "interstitial").sum()',
    meaning="{x:,} impurities end inside the layer, wherever they started.",
    mistakes={
        "Those end on the layer: adsorbates.": lambda d: (d.frame.defecttype == "adsorbate").sum(),
        "That is where atoms were put before anything moved (`site`); where they end is wanted.": (
            lambda d: d.frame.site.str.startswith("int").sum()
        ),
        "That is the share of the rows; their number is wanted: sum, not mean.": lambda d: (
            d.frame.defecttype == "interstitial"
        ).mean(),
        "Those are all other rows: == and not !=.": lambda d: (
            d.frame.defecttype != "interstitial"
        ).sum(),
    },
)
def interstitials(data: Dataset) -> int:
    """Rows whose impurity ends inside the layer."""
    return int((data.frame.defecttype == "interstitial").sum())


@exercise(
    "01-1",
    hint="np.isfinite(...) is True for a number and False for NaN.",
    way="np.isfinite(frame.eform).sum()",
    meaning="{x:,} rows have an energy to learn from; the others can only be predicted.",
    mistakes={
        "Those are the missing ones.": lambda d: d.frame.eform.isna().sum(),
        "Those are all rows, with an energy and without.": len,
        "That counts converged rows; one may be converged and lack its energy, or the reverse.": (
            lambda d: d.frame.converged.sum()
        ),
        "That adds up the energies; count the rows that have one.": lambda d: d.frame.eform.sum(),
    },
)
def finite_energies(data: Dataset) -> int:
    """Rows with a finite formation energy."""
    return int(np.isfinite(data.frame.eform).sum())


def _spreads(data: Dataset, least: int = 20) -> pd.Series:
    """Standard deviation of eform (eV) by host, of the hosts with so many finite rows."""
    energies = data.frame[np.isfinite(data.frame.eform)].groupby("host").eform
    return energies.std()[energies.size() >= least]


@exercise(
    "01-2",
    nothing_to_ask=lambda data: "" if len(_spreads(data)) else "no host has 20 formation energies",
    hint='Group by "host", take std(), drop small groups, then take the largest.',
    way='g = finite.groupby("host").eform; g.std()[g.size() >= 20].idxmax()',
    meaning="In {x} energies lie farthest apart: there a model has most to learn.",
    mistakes={
        "That one has the narrowest spread.": lambda d: _spreads(d).idxmin(),
        "That one has the largest mean; how far energies lie apart is another matter.": lambda d: (
            d.frame.groupby("host").eform.mean()[_spreads(d).index].idxmax()
        ),
        "That one has the smallest mean; how far energies lie apart is another matter.": (
            lambda d: d.frame.groupby("host").eform.mean()[_spreads(d).index].idxmin()
        ),
        "That one has the most rows.": lambda d: d.frame.host.value_counts().idxmax(),
        "That host has too few rows for its spread to mean much.": lambda d: _spreads(
            d, least=2
        ).idxmax(),
    },
)
def widest_host(data: Dataset) -> str:
    """Host with the widest spread of formation energies."""
    return _spreads(data).idxmax()


def _impurity_energies(data: Dataset) -> pd.Series:
    f = data.frame
    return f[(f.dopant != "") & f.converged & (f.eform.abs() < 20)].set_index("dopant").eform


def _explained(data: Dataset) -> float:
    energy = _impurity_energies(data)
    residual = energy - energy.groupby(level=0).transform("mean")
    return 1 - (residual**2).sum() / ((energy - energy.mean()) ** 2).sum()


@exercise(
    "01-3",
    nothing_to_ask=lambda data: (
        "" if _impurity_energies(data).nunique() > 1 else "no two energies of impurities differ"
    ),
    hint="R2 = 1 - (sum of squared residuals) / (sum of squared deviations from the mean).",
    way='guess = impurities.groupby("dopant").eform.transform("mean"); the residual is eform - '
    "guess, the deviation eform - eform.mean().",
    meaning="R² = {x:.2f}: the name of the dopant alone explains {x:.0%} of the variance.",
    mistakes={
        "That is what the dopant leaves unexplained: take it from one.": (
            lambda d: 1 - _explained(d)
        ),
        "That is a correlation, the root of R².": lambda d: _explained(d) ** 0.5,
        "Standard deviations are not squared: a share of the *variance* is wanted.": (
            lambda d: 1 - (1 - _explained(d)) ** 0.5
        ),
    },
)
def dopant_mean_model(data: Dataset) -> float:
    """R² of predicting the mean of the dopant."""
    return _explained(data)


def _moments(data: Dataset) -> pd.Series:
    return data.frame.spin[np.isfinite(data.frame.spin)]


@exercise(
    "01-4",
    nothing_to_ask=lambda data: "" if data.frame.spin.notna().any() else "no row has a moment",
    hint="A moment may be negative, and a row without one counts on neither side.",
    way="spin = frame.spin[np.isfinite(frame.spin)]; (spin.abs() > 0.5).mean()",
    meaning="{x:.1%} of the rows are magnetic; who always says no is right in all others.",
    mistakes={
        "A negative moment is a moment: take its size, abs().": lambda d: (
            _moments(d) > 0.5
        ).mean(),
        "That is their number; the share is wanted, the mean of True and False.": lambda d: (
            _moments(d).abs() > 0.5
        ).sum(),
        "That is in percent; a share lies between 0 and 1.": lambda d: (
            100 * (_moments(d).abs() > 0.5).mean()
        ),
        "Rows without a moment are among those you divide by.": lambda d: (
            d.frame.spin.abs() > 0.5
        ).mean(),
        "That counts every moment that is not zero; mind the 0.5 μB.": lambda d: (
            _moments(d).abs() > 0
        ).mean(),
        "Those are the rows that are not magnetic.": lambda d: (_moments(d).abs() <= 0.5).mean(),
    },
)
def magnetic_share(data: Dataset) -> float:
    """Share of rows with a moment above 0.5 μB."""
    return float((_moments(data).abs() > 0.5).mean())


# Made-up rows (eV) by what is special about them.
_STAGES = pd.DataFrame(
    {
        "a row that climbs (eform 1.5, en1 -93, en2 -90)": (1.5, -93.0, -90.0),
        "a row that falls (eform 0.5, en1 -90, en2 -92)": (0.5, -90.0, -92.0),
        "a row without en1": (1.0, np.nan, -90.0),
        "a row whose en2 is 0": (1.0, -90.0, 0.0),
        "a row whose en1 is 0": (1.0, 0.0, -90.0),
    },
    index=["eform", "en1", "en2"],
).T


def _known(values: pd.Series) -> pd.Series:
    return values.replace(0, np.nan)


@exercise(
    "01-5",
    cases=[(_STAGES,)],
    takes="frame is a table with the columns eform, en1 and en2, eV.",
    hint="The label grows with the total energy it is made of, one to one.",
    way="frame.eform - last + first, where a 0 of first or last was replaced by np.nan.",
    meaning="Take off the energy that is in the label, add the other: all else cancels.",
    mistakes={
        "The two stages are swapped: en2 is in the label and has to leave it.": lambda frame: (
            frame.eform + _known(frame.en2) - _known(frame.en1)
        ),
        "A last stage may lie below the first: no absolute value.": lambda frame: (
            frame.eform - (_known(frame.en2) - _known(frame.en1)).abs()
        ),
        "A total energy of 0 is a missing one: replace 0 by np.nan before you subtract.": (
            lambda frame: frame.eform - frame.en2 + frame.en1
        ),
        "A 0 of en1 is a missing one too.": lambda frame: (
            frame.eform - _known(frame.en2) + frame.en1
        ),
        "A 0 of en2 is a missing one too.": lambda frame: (
            frame.eform - frame.en2 + _known(frame.en1)
        ),
        "Where an energy is missing the result must be NaN, not the old label.": lambda frame: (
            frame.eform - _known(frame.en2) + _known(frame.en1)
        ).fillna(frame.eform),
    },
)
def first_stage_energies(frame: pd.DataFrame) -> pd.Series:
    """Formation energies that would follow from the energy after the first stage."""
    return frame.eform - energy_rise(frame)


def _removed(data: Dataset) -> pd.Series:
    waterfall = once(data, "strict", lambda: clean(data, rules="strict").waterfall)
    return waterfall.set_index("rule").removed


def _is_rule(found: object, expected: object) -> str:
    if isinstance(found, str) and found.strip() not in RULES:
        return f"{short(found)} is no rule; the names are {', '.join(RULES)}"
    return differs(found, expected)


@exercise(
    "01-6",
    nothing_to_ask=lambda data: "" if _removed(data).any() else "no rule removes a row",
    same=_is_rule,
    hint="Look at the column `removed` of the waterfall.",
    way='strict.waterfall.set_index("rule").removed.idxmax()',
    meaning="{x} takes most: the rule that most deserves to be argued about.",
    mistakes={
        "That rule removes the fewest rows.": lambda d: _removed(d).idxmin(),
        "That one comes first; how many it takes stands in another column.": lambda d: _removed(
            d
        ).index[0],
        "That one comes last; how many it takes stands in another column.": lambda d: _removed(
            d
        ).index[-1],
    },
)
def greediest_rule(data: Dataset) -> AnyOf:
    """Rule of the strict set that removes the most rows."""
    removed = _removed(data)
    return AnyOf(tuple(removed.index[removed == removed.max()]))


def _cut(data: Dataset, seed: int) -> tuple[pd.Series, pd.Series]:
    """Groups of the test rows and of all others, when rows are cut without groups."""
    groups = once(data, "groups", lambda: structure_groups(clean_rows(data, quiet=True)))
    shuffled = np.random.default_rng(seed).permutation(groups.index)
    test = shuffled[-len(shuffled) // 10 :]
    return groups[test], groups[shuffled[: -len(test)]]


@exercise(
    "01-7",
    given=seed_and("answer"),
    hint="For each test row ask whether its group also occurs among the other rows.",
    way="groups[careless_test].isin(set(groups[careless_rest])).sum()",
    meaning="{x} test rows were as good as seen in training: an exam with known questions.",
    mistakes={
        "Those are groups, and a group may have several test rows; count rows.": lambda d, seed: (
            len(set(_cut(d, seed)[0]) & set(_cut(d, seed)[1]))
        ),
        "Those are the other rows that have a twin in the test; the reverse is asked.": (
            lambda d, seed: _cut(d, seed)[1].isin(set(_cut(d, seed)[0])).sum()
        ),
        "That is the share of the test rows; their number is wanted.": lambda d, seed: (
            _cut(d, seed)[0].isin(set(_cut(d, seed)[1])).mean()
        ),
        "Those test rows have no twin among the others.": lambda d, seed: (
            ~_cut(d, seed)[0].isin(set(_cut(d, seed)[1]))
        ).sum(),
    },
)
def twins_in_test(data: Dataset, seed: int) -> int:
    """Test rows with a twin outside the test set, when rows are cut without groups."""
    test, rest = _cut(data, seed)
    return int(test.isin(set(rest)).sum())


def _tells_apart(found: object, expected: pd.DataFrame) -> str:
    """Whether three columns of names put the same rows together, whatever the names are."""
    if not isinstance(found, pd.DataFrame) or found.shape != expected.shape:
        return f"return a table with {len(expected):,} rows and 3 columns, as pd.DataFrame({{...}})"
    if not found.index.equals(expected.index):
        return "keep the rows in their order, with their ids: add up columns of frame"
    for name, column in expected.items():
        if not any(_same_parts(column, found.iloc[:, other]) for other in range(3)):
            return f"no column tells rows apart by {name} alone; join texts by `+`"
    return ""


def _same_parts(one: pd.Series, other: pd.Series) -> bool:
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()


@exercise(
    "01-8",
    cases=lambda data: [(clean_rows(data, quiet=True).frame,)],
    takes="frame is the table of clean rows.",
    same=_tells_apart,
    hint="Sites of two hosts may have one name, so the host has to stand in the name as well.",
    way='pd.DataFrame({"place": frame.host + " " + frame.site, "dopant": frame.dopant, '
    '"loss": frame.host + " " + frame.removed})',
    meaning="Three names for each row: all that a model without structures can know.",
    mistakes={
        "`int0` of one host and `int0` of another are two places: join host and site.": (
            lambda frame: frame[["site", "dopant"]].assign(loss=frame.host + " " + frame.removed)
        ),
        "Sulfur that leaves one host is not sulfur that leaves another: join host and removed.": (
            lambda frame: frame[["removed", "dopant"]].assign(at=frame.host + " " + frame.site)
        ),
        "Host, site and dopant each for itself; host and site have to be joined.": (
            lambda frame: frame[["host", "site", "dopant"]]
        ),
    },
)
def names(frame: pd.DataFrame) -> pd.DataFrame:
    """Three columns of text: host with site, dopant, host with what was removed."""
    columns = ("host and site", "dopant", "host and removed")
    return pd.DataFrame(dict(zip(columns, defect_names(frame).values(), strict=True)))


def _gaps() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(50):
        angle = rng.uniform(np.pi / 3, 2 * np.pi / 3)
        cell = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]) * rng.uniform(3, 9)
        cases.append((rng.uniform(-3, 3, 2) @ cell, cell))
    return cases


def _images(start: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Distances of the nine images around one of them."""
    steps = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    return np.linalg.norm(start + steps @ cell, axis=1)


def _rounded(gap: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return gap - np.rint(gap @ np.linalg.inv(cell)) @ cell


@exercise(
    "02-1",
    cases=lambda data: _gaps(),
    takes="gap is (2,), cell (2, 2).",
    hint="Rounding finds an image near the nearest one; look at those around it.",
    way="gap = gap - np.rint(gap @ np.linalg.inv(cell)) @ cell, then the least norm of gap + steps"
    " @ cell, where steps are the nine pairs of -1, 0 and 1.",
    meaning="Round, then look around: the nearest image also where the cell is hexagonal.",
    mistakes={
        "That is the distance inside the cell; images do not count in it.": lambda gap, cell: (
            np.linalg.norm(gap)
        ),
        "Rounding alone finds the wrong image in an oblique cell; try those around it.": (
            lambda gap, cell: np.linalg.norm(_rounded(gap, cell))
        ),
        "One step around is too few where gap itself spans several cells; round first.": (
            lambda gap, cell: _images(gap, cell).min()
        ),
        "That is the square of the distance.": lambda gap, cell: (
            _images(_rounded(gap, cell), cell).min() ** 2
        ),
    },
)
def shortest(gap: np.ndarray, cell: np.ndarray) -> float:
    """Distance to the nearest image in the plane."""
    full = np.diag([0.0, 0.0, 20.0])
    full[:2, :2] = cell
    pair = np.array([[0.0, 0.0, 0.0], [*gap, 0.0]])
    return float(periodic.minimum_image(pair, full, (True, True, False))[1][0, 1])


def bonds(data: Dataset, uid: str, cutoff: float) -> Tensor:
    """The edges of a record up to a cutoff (Å), (2, E)."""
    record = data[uid]
    config = GraphConfig(cutoff=cutoff, angle_cutoff=None, all_pairs=False)
    return build_graph(record, config, data.hosts.get(record.host)).edge_index


def _edges(data: Dataset, uid: str, cutoff: float) -> int:
    return bonds(data, uid, cutoff).shape[1]


@exercise(
    "02-2",
    given=row_id("record.uid", "number"),
    hint="edge_index has shape (2, E); each bond counts once in either direction.",
    way="build_graph(record, GraphConfig(cutoff=3.5, angle_cutoff=3.5), host).edge_index.shape[1]",
    meaning="{x:,} edges: every bond twice, for a message goes each way.",
    mistakes={
        "Each bond counts twice, once in either direction.": lambda d, uid: (
            _edges(d, uid, 3.5) // 2
        ),
        "That is the number within 5 Å, the usual cutoff.": lambda d, uid: _edges(d, uid, 5.0),
        "That is the number within 4 Å.": lambda d, uid: _edges(d, uid, 4.0),
        "That is the number of atoms.": lambda d, uid: len(d[uid].atoms),
    },
)
def local_edges(data: Dataset, uid: str) -> int:
    """Local edges of one graph with a cutoff of 3.5 Å."""
    return _edges(data, uid, 3.5)


@exercise(
    "02-3",
    hint="Each edge pairs with every other one, in both orders.",
    way="n (n - 1) with n = 12.",
    meaning="{x} angles for 12 bonds: they grow with the square of the neighbours.",
    mistakes={
        "Those are unordered pairs; (a, b) and (b, a) are two.": 12 * 11 // 2,
        "An edge forms no pair with itself.": 12 * 12,
        "That is the number of edges, not of their pairs.": 12,
        "Both errors at once: pairs are ordered, and an edge is none with itself.": 12 * 13 // 2,
    },
)
def ordered_pairs(data: Dataset) -> int:
    """Ordered pairs of twelve edges."""
    return 12 * 11


def _affinities() -> np.ndarray:
    """For every row of the table, whether the affinity is filled in."""
    table = feature_table(["elemental"])
    flag = next(k for k, n in enumerate(table.names) if n.startswith("missing: electron_affinity"))
    return table.values[:, flag]


@exercise(
    "02-4",
    hint='Look for the column whose name begins with "missing: electron_affinity".',
    way="table.values[1:, column].sum(), with the number of that column in table.names.",
    meaning="{x} of 118 elements have no measured affinity, and the model is told so.",
    mistakes={
        "Those are the elements whose affinity is known.": lambda d: (
            118 - int(_affinities()[1:].sum())
        ),
        "Those are the missing values of all features together.": lambda d: sum(
            feature_table(["elemental"]).values[1:, k].sum()
            for k, name in enumerate(feature_table(["elemental"]).names)
            if name.startswith("missing:")
        ),
    },
)
def filled_affinities(data: Dataset) -> int:
    """Elements whose electron affinity is filled in."""
    return int(_affinities()[1:].sum())


def _shells() -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(0)
    shells = np.repeat([2.4, 3.2, 4.0, 5.5], [3, 6, 6, 12])
    return [(rng.permutation(shells + rng.uniform(0, 1e-5, len(shells))), k) for k in (1, 3, 6, 9)]


@exercise(
    "02-5",
    cases=lambda data: _shells(),
    takes="distances is (n,) and in any order, k a whole number.",
    hint="How far away is the k-th nearest? Whoever is no farther, within 0.001 Å, is kept.",
    way="distances <= np.sort(distances)[k - 1] + 1e-3",
    meaning="A whole shell or none of it: the order of the atoms no longer matters.",
    mistakes={
        "Ties are dropped: all that are as near as the k-th, to within 0.001 Å, stay.": (
            lambda distances, k: distances <= np.sort(distances)[k - 1]
        ),
        "The k-th of a sorted array has the index k - 1.": lambda distances, k: (
            distances <= np.sort(distances)[k] + 1e-3
        ),
        "The k-th itself has to stay: <= in place of <.": lambda distances, k: (
            distances < np.sort(distances)[k - 1] - 1e-3
        ),
    },
)
def keep_ties(distances: np.ndarray, k: int) -> np.ndarray:
    """A mask of the k nearest that keeps ties."""
    return periodic.nearest_mask(np.zeros(len(distances), int), distances, k)


@exercise(
    "02-6",
    hint="A crystal may be turned or mirrored as a whole; whatever moves one atom changes lengths.",
    way="Ask of each: does it move all atoms together, as a rigid body?",
    meaning="Only these keep the label exactly; the others are kept small.",
    mistakes={
        "A mirror image has the same distances too.": {"rotation"},
        "A turned crystal has the same distances too.": {"reflection"},
        "Strain stretches the distances, if by little.": {"rotation", "reflection", "strain"},
        "Noise moves every atom in its own way.": {"rotation", "reflection", "noise"},
        "On the way back to the unrelaxed structure every atom moves in its own way.": {
            "rotation",
            "reflection",
            "unrelaxed",
        },
        "An elastic field stretches the sheet around the defect.": {
            "rotation",
            "reflection",
            "elastic",
        },
        "Those are the ones that do change distances.": {"noise", "strain", "unrelaxed", "elastic"},
    },
)
def exact_transforms(data: Dataset) -> set[str]:
    """Transforms that keep all distances."""
    return {"rotation", "reflection"}
