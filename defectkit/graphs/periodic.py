"""Edges of periodic structures: which atoms are joined, and through which image.

An edge points from a neighbour j to the atom i that receives its message: column (j, i) of an
`index`, with a row n of the `shift` beside it, and the vector r_j + n L - r_i from i to that
image of j. The rows of L are the cell vectors. Everything here is integer; lengths and angles
follow from positions in `defectkit.graphs.geometry`, where they have gradients.

The neighbour list is vesin's. `defectkit bench graphs` sets it beside matscipy's, pymatgen's and
ASE's (`data/benchmarks/graphs.csv`): the same edges, and the fastest of the four at every size.
It loads torch where that is installed, which graphs need anyway.

Axes: n atoms, E edges, T pairs of edges.
"""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from ase.geometry import minkowski_reduce
from vesin import NeighborList

from defectkit import DefectkitError

TIE = 1e-3  # Å: neighbours whose distances differ by less are equally near


def neighbour_edges(
    pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs nearer than `cutoff` (Å), every image of an atom and its own images included.

    N(i) = {(j, n) : |r_j + n L - r_i| < r_cut}, equation (1).

    Args:
        pos: (n, 3) Å, wrapped or not.
        cell: (3, 3) Å, one vector a row, of any shape and also thinner than the cutoff.
        pbc: (3,) whether the structure repeats along each vector.
        cutoff: Å.

    Returns:
        index (2, E) and shift (E, 3), int64, sorted by receiver, then sender and shift.
    """
    neighbours = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    i, j, shift = neighbours.compute(
        points=pos, box=cell, periodic=np.asarray(pbc, bool), quantities="ijS"
    )
    index = np.stack([j, i]).astype(np.int64)
    return _sorted(index, shift.astype(np.int64))


def nearest_edges(
    pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest neighbours of every atom, and all others as near as the k-th.

    Neighbours within `TIE` of the k-th distance are kept: to stop at k would take some of a
    shell and leave the rest, and which ones would depend on the order of the atoms and on the
    choice of unit cell. An atom can therefore have more than k neighbours. Arguments and
    returns as in `neighbour_edges`; DefectkitError where an atom has fewer than k neighbours.
    """
    if not any(pbc) and k >= len(pos):
        raise DefectkitError(
            f"{k} nearest neighbours were asked of {len(pos)} atoms that do not repeat; ask fewer."
        )
    radius = 4.0
    while True:
        index, shift = neighbour_edges(pos, cell, pbc, radius)
        distance = distances(pos, cell, index, shift)
        near = nearest_mask(index[1], distance, k)
        complete = np.bincount(index[1], minlength=len(pos)).min() >= k
        if complete and distance[near].max() + TIE < radius:
            return index[:, near], shift[near]
        radius *= 1.5


def nearest_mask(receiver: np.ndarray, distance: np.ndarray, k: int) -> np.ndarray:
    """Which of E edges are among the k shortest of their receiver, ties (`TIE`) kept.

    Args:
        receiver: (E,) the atom that an edge points at.
        distance: (E,) Å.
        k: how many.

    Returns:
        (E,) bool; all edges of a receiver that has no more than k.
    """
    if not len(receiver):
        return np.zeros(0, bool)
    order = np.lexsort([distance, receiver])
    count = np.bincount(receiver)
    start = np.cumsum(count) - count
    last = np.where(count > 0, start + np.minimum(count, k) - 1, 0)
    reach = distance[order][last] + TIE  # per receiver
    return distance <= reach[receiver]


def minimum_image(
    pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest image of every atom seen from every other, equation (4).

    d(i, j) = min over n of |r_j + n L - r_i|. Rounding fractional coordinates finds it in
    orthogonal cells only. Here the lattice is Minkowski-reduced first, where the nearest image
    is at most one step from the rounded one (Nguyen and Stehlé, ACM Trans. Algorithms 5, 46,
    2009), and all steps are tried: exact for every cell. Where several images are equally near
    (an atom half a cell away) the choice among them is arbitrary, but shift[j, i] is always
    -shift[i, j].

    Args:
        pos: (n, 3) Å, wrapped or not.
        cell: (3, 3) Å.
        pbc: (3,) bool.

    Returns:
        shift (n, n, 3) int64 and distance (n, n) Å: [i, j] leads from atom i to the image of
        atom j; the diagonal is zero.
    """
    n = len(pos)
    i, j = np.triu_indices(n, 1)
    upper, length = _nearest(pos[j] - pos[i], cell, pbc)
    shift = np.zeros((n, n, 3), np.int64)
    shift[i, j], shift[j, i] = upper, -upper
    distance = np.zeros((n, n))
    distance[i, j] = distance[j, i] = length
    return shift, distance


def images_seen_from(
    seen_from: np.ndarray, pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> np.ndarray:
    """The nearest image of every atom seen from a few, as `minimum_image` finds it from all.

    Args:
        seen_from: (m,) numbers of atoms.
        pos: (n, 3) Å, wrapped or not.
        cell: (3, 3) Å.
        pbc: (3,) bool.

    Returns:
        shift (m, n, 3) int64; an atom's own is zero.
    """
    gap = pos[None] - pos[seen_from, None]
    shift, _ = _nearest(gap.reshape(-1, 3), cell, pbc)
    return shift.reshape(gap.shape)


def _nearest(gap: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (p, 3) that make the vectors `gap` (p, 3) shortest, and lengths (p,) with them."""
    vectors, steps, inverse, around = _reduced(cell, pbc)
    rounded = -np.rint(gap @ inverse).astype(np.int64)
    gap = gap + rounded @ vectors
    offset = around @ vectors  # (3^p, 3)
    best = (2 * gap @ offset.T + (offset**2).sum(axis=1)).argmin(axis=1)
    return (rounded + around[best]) @ steps, np.linalg.norm(gap + offset[best], axis=1)


def first_shell(
    pos: np.ndarray, others: np.ndarray, cell: np.ndarray, pbc: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest images of other positions around some, and all that are about as near.

    Searched one step around the rounded image in the reduced cell (`minimum_image`), where a
    shell lies whose radius is shorter than the cell's vectors.

    Args:
        pos: (n, 3) Å.
        others: (m, 3) Å; one that lies at a position (nearer than `TIE`) is that position itself
            and does not count, its images do.
        cell: (3, 3) Å.
        pbc: (3,) bool.
        share: how many times as far as the nearest the last of the shell may be.

    Returns:
        index (2, E) of `others` and of `pos`, and vectors (E, 3) Å from the latter to that image,
        sorted by `pos` and then by length.
    """
    vectors, _, inverse, around = _reduced(cell, pbc)
    gap = others - pos[:, None]  # (n, m, 3)
    gap -= np.rint(gap @ inverse) @ vectors
    offset = around @ vectors  # (3^p, 3)
    square = (gap**2).sum(axis=2)[:, :, None] + 2 * gap @ offset.T + (offset**2).sum(axis=1)
    square[square < TIE**2] = np.inf
    i, j, image = (square < share**2 * square.min(axis=(1, 2), keepdims=True)).nonzero()
    order = np.lexsort([square[i, j, image], i])
    i, j, image = i[order], j[order], image[order]
    return np.stack([j, i]), gap[i, j] + offset[image]


def images_within(
    pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Every image of every atom nearer than `radius`, each atom itself (shift 0) included.

    For attention that sums over images. Arguments and returns as in `neighbour_edges`.
    """
    index, shift = neighbour_edges(pos, cell, pbc, radius)
    itself = np.arange(len(pos))
    index = np.concatenate([index, np.stack([itself, itself])], axis=1)
    return _sorted(index, np.concatenate([shift, np.zeros((len(pos), 3), np.int64)]))


def self_image_edges(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Shifts to an atom's own images that carry the lattice.

    For two periodic directions a, b and the shorter of a + b and a - b; for three, the three
    vectors and the shorter diagonal of each face (Yan et al., Matformer, NeurIPS 2022). They
    are taken from the Minkowski-reduced lattice, so that their lengths do not depend on the
    choice of the unit cell (in three directions: unless several reduced cells exist, as in fcc).

    Args:
        cell: (3, 3) Å.
        pbc: (3,) bool.

    Returns:
        (s, 3) int64 shifts of `cell`, s = 1, 3, 6 for one, two, three periodic directions.
    """
    vectors, steps, _, _ = _reduced(cell, pbc)
    diagonals = []
    for a, b in [(0, 1), (0, 2), (1, 2)][: len(vectors) * (len(vectors) - 1) // 2]:
        sign = -1 if vectors[a] @ vectors[b] > 0 else 1
        diagonals.append(steps[a] + sign * steps[b])
    return np.array([*steps, *diagonals], dtype=np.int64).reshape(-1, 3)


def angle_pairs(receiver: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Ordered pairs of edges (j -> i, k -> i) that meet at an atom i: the line graph.

    The number of pairs grows with the square of the number of neighbours, so only the `chosen`
    edges take part: those below a shorter cutoff, or those of `nearest_mask`. Among these no
    pair is left out.

    Args:
        receiver: (E,) the atom that an edge points at.
        chosen: (E,) bool.

    Returns:
        (2, T) int64 edge numbers, both orders of each pair, sorted by receiver.
    """
    edges = np.flatnonzero(chosen)
    edges = edges[np.argsort(receiver[edges], kind="stable")]
    count = np.bincount(receiver[edges])
    partners = count[receiver[edges]]  # edges at the same atom, per edge
    first = np.repeat(np.arange(len(edges)), partners)
    # Within its atom's block of edges the second one runs from 0 to the number of partners.
    run = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
    block = np.cumsum(count) - count
    second = block[receiver[edges]][first] + run
    differ = first != second
    return np.stack([edges[first[differ]], edges[second[differ]]])


def distances(
    pos: np.ndarray, cell: np.ndarray, index: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Length (E,) Å of every edge, without gradients."""
    return np.linalg.norm(pos[index[0]] + shift @ cell - pos[index[1]], axis=1)


class _Reduced(NamedTuple):
    """A lattice after Minkowski reduction, with p periodic vectors."""

    vectors: np.ndarray  # (p, 3) Å
    steps: np.ndarray  # (p, 3) the shifts of the cell that they are
    inverse: np.ndarray  # (3, p) from Å to these vectors
    around: np.ndarray  # (3^p, p) one step to every side of them, and none first


def _reduced(cell: np.ndarray, pbc: np.ndarray) -> _Reduced:
    """The reduced lattice of a cell."""
    return _reduction(np.asarray(cell, float).tobytes(), np.asarray(pbc, bool).tobytes())


@lru_cache(maxsize=256)
def _reduction(cell: bytes, pbc: bytes) -> _Reduced:
    """`_reduced`, kept, as thousands of rows have one cell and every graph asks several times."""
    periodic = np.frombuffer(pbc, bool)
    reduced, steps = minkowski_reduce(np.frombuffer(cell).reshape(3, 3), pbc=periodic)
    vectors, steps = reduced[periodic], steps[periodic].astype(np.int64)
    around = np.array(list(product((0, -1, 1), repeat=len(vectors))), dtype=np.int64)
    found = _Reduced(vectors, steps, np.linalg.pinv(vectors), around)
    for array in found:
        array.setflags(write=False)
    return found


def _sorted(index: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges sorted by receiver, sender and shift, whatever the neighbour list's own order."""
    width = 2 * np.abs(shift).max(initial=0) + 1
    n = index.max(initial=0) + 1
    key = index[1] * n + index[0]
    for axis in range(3):
        key = key * width + shift[:, axis] + width // 2
    order = np.argsort(key)
    return index[:, order], shift[order]
