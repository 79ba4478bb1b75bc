"""All atoms of a structure folded into the unit cell of its host: a quick look at a fit.

Where a supercell has hundreds of atoms, its host has a handful. Folding needs no assignment of
atoms to sites, and so tells at once which settings and origins of the host are worth one.
"""

from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

from defectkit.structures.lattice import Setting, every_setting, plane

SAME_ORIGIN = 0.5  # Å: origins closer than this lead to one match
MAX_ORIGINS = 12
MAX_TRIED = 40  # origins: more than the atoms of one element in most cells
FEW_TRIED = 4  # in larger ones
FEW = 0.3  # of the atoms that should agree about an origin
AROUND = np.array(list(product((0, -1, 1), repeat=2)))
NEAREST = 8  # sites that an atom may belong to
SYMMETRIC = 0.02  # Å², per atom: a setting that brings the host onto itself
DRIFT_ROUNDS = 3


class FoldedHost:
    """The sites of a host, periodic in the plane, and what atoms near them gain.

    An atom gains `most` - d² (Å²) at a distance d from a site, less `other` where the elements
    differ, and zero where that is more. The sum over all atoms is no less than what an assignment
    could gain, in which a site takes one atom only.

    Args:
        pristine: the host.
        most: Å².
        other: Å².
    """

    def __init__(self, pristine: Atoms, most: float, other: float):
        self.pristine, self.most, self.other = pristine, most, other

    @cached_property
    def room(self) -> float:
        """How far apart (Å, root mean square over atoms) two ways to lay the host are at least.

        It is laid over itself in every setting that its lattice allows and at every origin that
        brings an atom of the rarest element onto another; ways that are its symmetries do not
        count. Infinite where all are.
        """
        atoms = self.pristine
        arrays = (atoms.numbers.tobytes(), atoms.positions.tobytes(), atoms.cell.array.tobytes())
        return _room(*arrays, self.most, self.other)

    def origins(self, atoms: Atoms, setting: Setting) -> list[np.ndarray]:
        """Where the host's origin may be, (3,) Å in its own frame, the likeliest first.

        They bring a site of the host's rarest element onto atoms of this element. Of many atoms
        some are tried; none is returned where the others hardly agree with any of these.
        """
        kinds, counts = np.unique(self.pristine.numbers, return_counts=True)
        shared = np.isin(kinds, atoms.numbers)
        kind = kinds[shared][counts[shared].argmin()]
        site = self.pristine.positions[self.pristine.numbers == kind][0]
        shifts = setting.into_host(atoms.positions[atoms.numbers == kind]) - site
        shifts[:, :2] = self._wrapped(shifts[:, :2])
        number, groups = len(shifts), []
        most = MAX_TRIED if number <= MAX_TRIED else FEW_TRIED
        while len(shifts) and len(groups) < most:
            gap = shifts - shifts[0]
            gap[:, :2] = self._shortest(gap[:, :2])
            same = (gap**2).sum(axis=1) < SAME_ORIGIN**2
            groups.append((-int(same.sum()), shifts[0] + gap[same].mean(axis=0)))
            shifts = shifts[~same]
        groups.sort(key=lambda group: group[0])
        if number > MAX_TRIED and -groups[0][0] * counts[kinds == kind][0] < FEW * number:
            return []
        return [shift for _, shift in groups[:MAX_ORIGINS]]

    def fit(self, atoms: Atoms, setting: Setting, origin: np.ndarray) -> tuple[float, np.ndarray]:
        """What all atoms gain (Å²) from the sites, and the origin with their drift taken out."""
        points = setting.into_host(atoms.positions)
        best = -np.inf, origin
        for _ in range(DRIFT_ROUNDS):
            gain, drift = self._gains(points - origin, atoms.numbers)
            if gain <= best[0]:
                break
            best = gain, origin
            origin = origin + drift
        return best

    def _gains(self, points: np.ndarray, numbers: np.ndarray) -> tuple[float, np.ndarray]:
        points = points.copy()
        points[:, :2] = self._wrapped(points[:, :2])
        distance, near = self._tree.query(points, NEAREST, distance_upper_bound=self.most**0.5)
        there = np.append(self._images.numbers, 0)[near]
        gains = self.most - distance**2 - self.other * (there != numbers[:, None])
        choice = gains.argmax(axis=1)[:, None]
        gain = np.take_along_axis(gains, choice, axis=1)[:, 0]
        kept = gain > 0
        if not kept.any():
            return 0.0, np.zeros(3)
        site = self._images.positions[np.take_along_axis(near, choice, axis=1)[kept, 0]]
        return float(gain[kept].sum()), (points[kept] - site).mean(axis=0)

    @cached_property
    def _cell(self) -> np.ndarray:
        reduced, _ = minkowski_reduce(self.pristine.cell.array, pbc=[True, True, False])
        return reduced[:2, :2]

    def _wrapped(self, points: np.ndarray) -> np.ndarray:
        """In-plane points (n, 2) Å, inside the cell."""
        return points - np.floor(points @ np.linalg.inv(self._cell)) @ self._cell

    def _shortest(self, vectors: np.ndarray) -> np.ndarray:
        """The shortest images of in-plane vectors, (n, 2) Å."""
        vectors = vectors - np.rint(vectors @ np.linalg.inv(self._cell)) @ self._cell
        images = vectors + (AROUND @ self._cell)[:, None]
        nearest = (images**2).sum(axis=2).argmin(axis=0)
        return images[nearest, np.arange(len(vectors))]

    @cached_property
    def _images(self) -> Atoms:
        """The sites in the cell and in all cells that reach into it."""
        sites = self.pristine.copy()
        sites.positions[:, :2] = self._wrapped(sites.positions[:, :2])
        area = abs(np.linalg.det(self._cell))
        heights = area / np.linalg.norm(self._cell, axis=1)[::-1]
        most = np.ceil(self.most**0.5 / heights).astype(int)
        steps = np.array(list(product(*(range(-n, n + 1) for n in most)))) @ self._cell
        positions = np.tile(sites.positions, (len(steps), 1))
        positions[:, :2] += np.repeat(steps, len(sites), axis=0)
        return Atoms(np.tile(sites.numbers, len(steps)), positions=positions)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._images.positions)


@lru_cache(maxsize=256)
def _room(numbers: bytes, positions: bytes, cell: bytes, most: float, other: float) -> float:
    host = Atoms(
        np.frombuffer(numbers, int),
        positions=np.frombuffer(positions).reshape(-1, 3),
        cell=np.frombuffer(cell).reshape(3, 3),
    )
    plane(host)
    folded = FoldedHost(host, most, other)
    lost = []
    for setting in every_setting(host, host):
        fits = (folded.fit(host, setting, origin)[0] for origin in folded.origins(host, setting))
        lost += [most - gain / len(host) for gain in fits]
    return min((loss for loss in lost if loss > SYMMETRIC), default=np.inf) ** 0.5
