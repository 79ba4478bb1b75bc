"""Judges of the exercises on data and graphs: notebooks 00, 01 and 02."""

import numpy as np
import pandas as pd

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
from defectkit.teach.checks import (
    check_row,
    clean_rows,
    exercise,
    pair_of,
    result_of,
    same_number,
    same_text,
)


@exercise("00-1")
def number_of_rows(data: Dataset, answer: object) -> str | None:
    """Rows in the data set."""
    return same_number(answer, len(data), "len(frame) counts the rows of a table.", rel=0)


def _no_terms(data: Dataset) -> str:
    complete = identity_error(data.frame).abs() < IDENTITY_TOLERANCE
    return "" if complete.any() else "no row has all four terms of its formation energy"


@exercise("00-2", _no_terms)
def formation_energy(data: Dataset, answer: object) -> str | None:
    """Formation energy of one row from its four terms."""
    uid, energy = pair_of(answer, "answer with a pair in round brackets: (row.name, energy).")
    check_row(data, uid, "row.name")
    row = data.frame.loc[[uid]]
    expected = (row.eform - identity_error(row)).item()  # what the four terms give
    if np.isnan(expected):
        return f"the row {uid!r} does not have all four terms; take the one drawn above."
    hint = "Mind the signs: what is added costs its reservoir mu, what is removed gives mu back."
    return same_number(energy, expected, hint)


@exercise("00-3")
def label_source(data: Dataset, answer: object) -> str | None:
    """What computed the labels."""
    return same_text(answer, data.label_source, "The data set knows: data.label_source.")


@exercise("00-4")
def interstitials(data: Dataset, answer: object) -> str | None:
    """Rows whose impurity ends inside the layer."""
    expected = (data.frame.defecttype == "interstitial").sum()
    return same_number(answer, expected, 'Compare a column with "interstitial", then sum.', rel=0)


@exercise("01-1")
def finite_energies(data: Dataset, answer: object) -> str | None:
    """Rows with a finite formation energy."""
    expected = np.isfinite(data.frame.eform).sum()
    return same_number(answer, expected, "np.isfinite(...) is True for a number.", rel=0)


def _spreads(data: Dataset) -> pd.Series:
    """Standard deviation of eform (eV) by host, of the hosts with 20 finite rows."""
    energies = data.frame[np.isfinite(data.frame.eform)].groupby("host").eform
    return energies.std()[energies.size() >= 20]


@exercise("01-2", lambda data: "" if len(_spreads(data)) else "no host has 20 formation energies")
def widest_host(data: Dataset, answer: object) -> str | None:
    """Host with the largest standard deviation of eform, among those with 20 finite rows."""
    hint = 'Group by "host", take std(), drop small groups, then take the largest.'
    return same_text(answer, _spreads(data).idxmax(), hint)


def _impurity_energies(data: Dataset) -> pd.Series:
    f = data.frame
    return f[(f.dopant != "") & f.converged & (f.eform.abs() < 20)].set_index("dopant").eform


@exercise(
    "01-3",
    lambda data: (
        "" if _impurity_energies(data).nunique() > 1 else "no two energies of impurities differ"
    ),
)
def dopant_mean_model(data: Dataset, answer: object) -> str | None:
    """R2 of predicting the mean of the dopant."""
    energy = _impurity_energies(data)
    residual = energy - energy.groupby(level=0).transform("mean")
    expected = 1 - (residual**2).sum() / ((energy - energy.mean()) ** 2).sum()
    hint = "R2 = 1 - (sum of squared residuals) / (sum of squared deviations from the mean)."
    return same_number(answer, expected, hint)


@exercise("01-4", lambda data: "" if data.frame.spin.notna().any() else "no row has a moment")
def magnetic_share(data: Dataset, answer: object) -> str | None:
    """Share of rows with a moment above 0.5 Bohr magnetons."""
    spin = data.frame.spin[np.isfinite(data.frame.spin)]
    hint = "A moment may be negative: compare its absolute value with 0.5."
    return same_number(answer, (spin.abs() > 0.5).mean(), hint)


# Made-up rows (eV) by what is special about them, and what to say of a wrong answer for each.
_STAGES = pd.DataFrame(
    {
        "a row that climbs": (1.5, -93.0, -90.0),
        "a row that falls": (0.5, -90.0, -92.0),
        "a row without en1": (1.0, np.nan, -90.0),
        "a row whose en2 is 0": (1.0, -90.0, 0.0),
        "a row whose en1 is 0": (1.0, 0.0, -90.0),
    },
    index=["eform", "en1", "en2"],
).T


@exercise("01-5")
def first_stage_energies(data: Dataset, answer: object) -> str | None:
    """Formation energies that would follow from the total energy after the first stage."""
    shapes = "frame is a table with the columns eform, en1 and en2, eV."
    found = result_of(answer, "(frame)", shapes, _STAGES.copy())
    if not isinstance(found, pd.Series) or not found.index.equals(_STAGES.index):
        return "return one energy for each row: a sum of columns of frame does."
    expected = _STAGES.eform - energy_rise(_STAGES)
    for name, energy in expected.items():
        if not np.isclose(found[name], energy, equal_nan=True):
            hint = (
                "Replace 0 by np.nan before you subtract."
                if np.isnan(energy)
                else "The label grows with the total energy it is made of, one to one."
            )
            numbers = ", ".join(f"{k} = {v:g}" for k, v in _STAGES.loc[name].items())
            return f"{name} ({numbers} eV) gives {found[name]:g} instead of {energy:g} eV. {hint}"
    return None


def _removed(data: Dataset) -> pd.Series:
    return clean(data, rules="strict").waterfall.set_index("rule").removed


@exercise("01-6", lambda data: "" if _removed(data).any() else "no rule removes a row")
def greediest_rule(data: Dataset, answer: object) -> str | None:
    """Rule of the strict set that removes the most rows."""
    removed = _removed(data)
    if isinstance(answer, str) and answer not in RULES:
        return f"{answer!r} is no rule; the names are {', '.join(RULES)}."
    if isinstance(answer, str) and removed.get(answer) == removed.max():
        return None  # one of several that remove as many
    return same_text(answer, removed.idxmax(), "Look at the column `removed` of the waterfall.")


@exercise("01-7")
def twins_in_test(data: Dataset, answer: object) -> str | None:
    """Test rows with a twin outside the test set, when rows are cut without groups."""
    seed, count = answer
    if count is ...:
        return "no answer yet: replace the three dots by your code, then run both cells again."
    groups = structure_groups(clean_rows(data, quiet=True))
    shuffled = np.random.default_rng(seed).permutation(groups.index)
    test = shuffled[-len(shuffled) // 10 :]
    rest = set(groups[shuffled[: -len(test)]])
    hint = "For each test row ask whether its group also occurs among the other rows."
    return same_number(count, groups[test].isin(rest).sum(), hint, rel=0)


@exercise("01-8")
def names_of_rows(data: Dataset, answer: object) -> str | None:
    """Three columns of text: host with site, dopant, host with what was removed."""
    frame = clean_rows(data, quiet=True).frame
    found = result_of(answer, "(frame)", "frame is the table of clean rows.", frame)
    if not isinstance(found, pd.DataFrame) or found.shape != (len(frame), 3):
        return f"return a table with {len(frame):,} rows and 3 columns, as pd.DataFrame({{...}})."
    if not found.index.equals(frame.index):
        return "keep the rows in their order, with their ids: add up columns of frame."
    words = ("host and site", "dopant", "host and removed")
    for name, column in zip(words, defect_names(frame).values(), strict=True):
        if not any(_same_parts(column, found[other]) for other in found):
            return f"no column tells rows apart by {name} alone; join texts by `+`."
    return None


def _same_parts(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns of names put the same rows together, whatever the names are."""
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()


@exercise("02-1")
def shortest_image(data: Dataset, answer: object) -> str | None:
    """A function that finds the nearest image in the plane."""
    if not callable(answer):
        return "answer with a function of (gap, cell)."
    rng = np.random.default_rng(0)
    for _ in range(50):
        angle = rng.uniform(np.pi / 3, 2 * np.pi / 3)
        cell = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]) * rng.uniform(3, 9)
        gap = rng.uniform(-3, 3, 2) @ cell
        full = np.diag([0.0, 0.0, 20.0])
        full[:2, :2] = cell
        pair = np.array([[0.0, 0.0, 0.0], [*gap, 0.0]])
        expected = periodic.minimum_image(pair, full, (True, True, False))[1][0, 1]
        try:
            found = float(answer(gap, cell))
        except (TypeError, ValueError) as error:
            return f"your function stopped: {error}. It takes arrays (2,) and (2, 2)."
        if not np.isclose(found, expected):
            return (
                f"for gap {gap.round(2)} and cell {cell.round(2).tolist()} it gives {found:.3f} Å; "
                f"an image at {expected:.3f} Å exists. Try the images around the rounded one."
            )
    return None


@exercise("02-2")
def local_edges(data: Dataset, answer: object) -> str | None:
    """Local edges of one graph with a cutoff of 3.5 angstrom."""
    uid, number = pair_of(answer, "answer with a pair in round brackets: (record.uid, number).")
    check_row(data, uid, "record.uid")
    record = data[uid]
    config = GraphConfig(cutoff=3.5, angle_cutoff=None, all_pairs=False)
    expected = build_graph(record, config, data.hosts.get(record.host)).edge_index.shape[1]
    hint = "edge_index has shape (2, E); each bond counts once in either direction."
    return same_number(number, expected, hint, rel=0)


@exercise("02-3")
def ordered_pairs(data: Dataset, answer: object) -> str | None:
    """Ordered pairs of twelve edges."""
    return same_number(answer, 12 * 11, "Each edge pairs with every other one, in both orders.", 0)


@exercise("02-4")
def filled_affinities(data: Dataset, answer: object) -> str | None:
    """Elements whose electron affinity is filled in."""
    table = feature_table(["elemental"])
    flag = next(k for k, n in enumerate(table.names) if n.startswith("missing: electron_affinity"))
    hint = 'Look for the column whose name begins with "missing: electron_affinity".'
    return same_number(answer, table.values[1:, flag].sum(), hint, rel=0)


@exercise("02-5")
def keep_ties(data: Dataset, answer: object) -> str | None:
    """A mask of the k nearest that keeps ties."""
    if not callable(answer):
        return "answer with a function of (distances, k)."
    rng = np.random.default_rng(0)
    for k in (1, 3, 6, 9):
        shells = np.repeat([2.4, 3.2, 4.0, 5.5], [3, 6, 6, 12])
        distance = rng.permutation(shells + rng.uniform(0, 1e-5, len(shells)))
        expected = periodic.nearest_mask(np.zeros(len(distance), int), distance, k)
        found = np.asarray(answer(distance, k))
        if found.dtype != bool or found.shape != distance.shape:
            return "return one True or False for every neighbour."
        if (found != expected).any():
            return (
                f"with k = {k} it keeps {found.sum()} of {len(distance)} neighbours; "
                f"the whole shell of the k-th makes {expected.sum()}."
            )
    return None


@exercise("02-6")
def exact_transforms(data: Dataset, answer: object) -> str | None:
    """Transforms that keep all distances."""
    if not isinstance(answer, set):
        return 'answer with a set in curly brackets, such as {"noise"}.'
    if answer == {"rotation", "reflection"}:
        return None
    return (
        "A crystal may be turned or mirrored as a whole; whatever moves one atom changes lengths."
    )
