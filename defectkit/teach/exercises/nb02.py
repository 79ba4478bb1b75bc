"""Exercises of notebook 02, build periodic graphs."""

import numpy as np

from defectkit.data.dataset import Dataset
from defectkit.graphs import periodic
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.graphs.elements import feature_table
from defectkit.teach.checks import check_row, exercise, pair_of, same_number


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
