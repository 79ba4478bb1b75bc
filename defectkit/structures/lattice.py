"""How the lattice of a host fits the cell of a structure: every supercell, turn and flip.

A host with in-plane vectors U (rows) fills a cell L as L = M U F, with an integer matrix M and a
deformation F, a rotation times a small strain. An F that mirrors the plane stands for a layer that
is turned upside down, about an axis in the plane: with z reversed as well it is a proper rotation,
which every crystal may undergo. A mirror image alone is not among them: that of a chiral host is
another crystal, and that of any other host is one of its rotations.

Which of these settings fits the atoms is looked up by folding all atoms into the host's unit cell
(`FoldedHost`). Where a supercell has hundreds of atoms, its host has a handful; folding needs no
assignment of atoms to sites, and so tells at once which settings and origins are worth one.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
import spglib
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

from defectkit import DefectkitError

MAX_MISFIT = 0.05  # of a cell vector, where host and cell are laid out alike
MAX_STRAIN = 0.08  # mean of the principal strains of a host that is made to fit
MAX_SHEAR = 0.03  # half their difference
MAX_CELLS = 20_000  # host cells in a structure
MAX_SETTINGS = 1000  # that are looked at
USUAL_DEFECT = 4  # atoms that a defect adds or takes away, in small cells
SAME_ORIGIN = 0.5  # Å: origins closer than this lead to one match
MAX_ORIGINS = 12
MAX_TRIED = 40  # origins: more than the atoms of one element in most cells
FEW_TRIED = 4  # in larger ones
FEW = 0.3  # of the atoms that should agree about an origin
AROUND = np.array(list(product((0, -1, 1), repeat=2)))
NEAREST = 8  # sites that an atom may belong to
SYMMETRIC = 0.02  # Å², per atom: a setting that brings the host onto itself
DRIFT_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Setting:
    """How a host lies in a cell.

    Attributes:
        matrix: (2, 2) integers; row k is the cell's vector k in vectors of the host.
        deformation: (2, 2), what takes in-plane vectors of the host (rows) into the cell's frame.
    """

    matrix: np.ndarray
    deformation: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, unit: np.ndarray, cell: np.ndarray) -> "Setting":
        """The setting of `matrix` between in-plane vectors, (2, 2) Å each."""
        return cls(matrix, np.linalg.solve(matrix @ unit, cell))

    @property
    def size(self) -> int:
        """Host cells in the structure."""
        return abs(round(float(np.linalg.det(self.matrix))))

    @property
    def flipped(self) -> bool:
        """Whether the layer lies upside down."""
        return bool(np.linalg.det(self.deformation) < 0)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) proper rotation of row vectors, host to structure, without the strain."""
        left, _, right = np.linalg.svd(self.deformation)
        matrix = np.eye(3)
        matrix[:2, :2] = left @ right
        matrix[2, 2] = -1.0 if self.flipped else 1.0
        return matrix

    @property
    def strain(self) -> np.ndarray:
        """(2,) principal strains of the host, the larger first, without unit."""
        return np.linalg.svd(self.deformation, compute_uv=False) - 1

    def into_cell(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the host, (n, 3) Å, in the frame of the structure."""
        return vectors @ self._linear

    def into_host(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the structure, (n, 3) Å, in the frame of the host."""
        return vectors @ np.linalg.inv(self._linear)

    @property
    def _linear(self) -> np.ndarray:
        matrix = self.rotation
        matrix[:2, :2] = self.deformation
        return matrix


def aligned_setting(pristine: Atoms, atoms: Atoms) -> Setting | None:
    """The setting of a host that lies in the cell as it is written, None where it does not.

    Both first vectors point along one direction, and no vector of the cell is further than
    `MAX_MISFIT` from a repetition of the host's.
    """
    unit, cell = plane(pristine), plane(atoms)
    turned = _along_x(unit)
    target = _along_x(cell)
    repeat = np.rint(target @ np.linalg.inv(turned))
    misfit = np.linalg.norm(repeat @ turned - target, axis=1) / np.linalg.norm(target, axis=1)
    if misfit.max() > MAX_MISFIT or not 1 <= abs(round(np.linalg.det(repeat))) <= MAX_CELLS:
        return None
    return Setting.of(repeat, unit, cell)


def every_setting(pristine: Atoms, atoms: Atoms) -> list[Setting]:
    """All settings within `MAX_STRAIN` and `MAX_SHEAR`, at most `MAX_SETTINGS` of them.

    They are sorted: first those whose number of atoms is that of the structure to within a defect,
    and among these by strain. Rotations of the host's lattice onto itself are settings of
    their own, whether or not they are symmetries of the host.
    """
    unit, unit_steps = _reduced(plane(pristine))
    cell, cell_steps = _reduced(plane(atoms))
    if abs(np.linalg.det(cell) / np.linalg.det(unit)) > MAX_CELLS:
        return []
    reduced = _similar_cells(unit, cell)
    if not len(reduced):
        return []
    deformation = np.linalg.solve(reduced @ unit, np.broadcast_to(cell, reduced.shape))
    strain = np.linalg.svd(deformation, compute_uv=False) - 1
    fits = (np.abs(strain.mean(axis=1)) <= MAX_STRAIN) & (np.ptp(strain, axis=1) <= 2 * MAX_SHEAR)
    reduced, deformation, strain = reduced[fits], deformation[fits], strain[fits]
    matrices = np.rint(np.linalg.inv(cell_steps) @ reduced @ unit_steps).astype(int)
    sizes = np.abs(np.rint(np.linalg.det(matrices)))
    surplus = np.abs(sizes * len(pristine) - len(atoms))
    unlikely = surplus > np.maximum(USUAL_DEFECT, 0.05 * len(atoms))
    # Rounded, so that settings which differ by a symmetry keep the order of their integers.
    largest = np.abs(strain).max(axis=1).round(4)
    order = np.lexsort([*matrices.reshape(-1, 4).T[::-1], largest, unlikely])[:MAX_SETTINGS]
    return [Setting(matrices[k], deformation[k]) for k in order]


def _similar_cells(unit: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Integer matrices (k, 2, 2) whose rows span nearly `cell` in vectors of `unit`, or its mirror.

    All within the bounds on the strain are among them, and some beyond.
    """
    bound = MAX_STRAIN + MAX_SHEAR
    lengths = np.linalg.norm(cell, axis=1)
    steps = _steps_within(unit, lengths.max() / (1 - bound))
    points = (steps @ unit) @ [1, 1j]
    shortest, longest = lengths[0] / (1 + bound), lengths[0] / (1 - bound)
    firsts = np.flatnonzero((np.abs(points) >= shortest) & (np.abs(points) <= longest))
    # Where the second vector should be, were there no shear: on either side of the first.
    a, b = cell @ [1, 1j]
    seconds = np.concatenate([points[firsts] * (b / a), points[firsts] * (b / a).conjugate()])
    tree = cKDTree(np.column_stack([points.real, points.imag]))
    places = np.column_stack([seconds.real, seconds.imag])
    near = tree.query_ball_point(places, 3 * MAX_SHEAR * lengths[1], return_sorted=True)
    rows = [
        (first, second)
        for first, others in zip(np.tile(firsts, 2), near, strict=True)
        for second in others
    ]
    return steps[np.array(rows, dtype=int).reshape(-1, 2)]


def fill(pristine: Atoms, atoms: Atoms, setting: Setting) -> Atoms:
    """`pristine` repeated, turned and strained in the plane to fill the cell of `atoms`.

    Heights above z = 0 stay those of the host, or are reversed where the layer is upside down.
    """
    matrix, cell = np.eye(3), atoms.cell.array[:2, :2]
    matrix[:2, :2] = setting.matrix
    if np.linalg.det(matrix) < 0:  # the vectors of one file in another order
        matrix[:2], cell = matrix[[1, 0]], cell[[1, 0]]
    tiled = make_supercell(pristine, matrix)
    scaled = tiled.cell.scaled_positions(tiled.positions)[:, :2]
    positions = tiled.positions.copy()
    positions[:, :2] = scaled @ cell
    if setting.flipped:
        positions[:, 2] *= -1
    return Atoms(tiled.numbers, positions=positions, cell=atoms.cell, pbc=(True, True, False))


def moved_sites(pristine: Atoms, sites: Atoms, setting: Setting, tolerance: float) -> np.ndarray:
    """Where the symmetries of a host take the sites of `fill`, (g, m, 3) Å.

    These are the operations of its space group, to within `tolerance` (Å), that keep the layer and
    the lattice of the cell, each with all lattice vectors of the host in the cell.
    """
    cell = pristine.cell.array
    scaled = pristine.cell.scaled_positions(pristine.positions)
    group = spglib.get_symmetry_dataset((cell, scaled, pristine.numbers), symprec=tolerance)
    points = setting.into_host(sites.positions) @ np.linalg.inv(cell)
    middle = scaled[:, 2].min() + np.ptp(scaled[:, 2]) / 2
    inverse = np.linalg.inv(setting.matrix)
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) @ np.rint(setting.matrix).astype(int)
    steps = np.array(list(product(*map(range, corners.min(axis=0), corners.max(axis=0) + 1))))
    inside = np.round(steps @ inverse, 6) % 1.0
    steps = steps[np.unique(inside, axis=0, return_index=True)[1]]
    moved = []
    for rotation, translation in zip(group.rotations, group.translations, strict=True):
        turned = setting.matrix @ rotation[:2, :2].T @ inverse
        mixes = rotation[2, :2].any() or rotation[:2, 2].any()
        if mixes or np.abs(turned - np.rint(turned)).max() > 1e-6:
            continue
        images = points @ rotation.T + translation
        images[:, 2] -= np.rint(images[:, 2] - middle)  # the layer as it lies, not one above it
        moved += [images + [*step, 0.0] for step in steps]
    return np.array([setting.into_cell(images @ cell) for images in moved])


def plane(atoms: Atoms) -> np.ndarray:
    """The in-plane cell vectors, (2, 2) Å; DefectkitError unless the layer is in the xy plane."""
    cell = atoms.cell.array
    if np.abs(cell[:2, 2]).sum() > 1e-3 or np.abs(cell[2, :2]).max() > 1e-3:
        raise DefectkitError(
            f"The cell of {atoms.symbols} is not that of a layer in the xy plane; "
            "pass it through defectkit.structures.files.as_layer first."
        )
    return cell[:2, :2]


def _along_x(cell: np.ndarray) -> np.ndarray:
    """In-plane vectors (2, 2) Å, turned so that the first lies along x."""
    a, b = cell
    length = np.hypot(*a)
    return np.array([[length, 0.0], [a @ b / length, (a[0] * b[1] - a[1] * b[0]) / length]])


def _reduced(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shortest vectors (2, 2) Å of a plane lattice, and their (2, 2) integer steps."""
    solid = np.eye(3)
    solid[:2, :2] = cell
    reduced, steps = minkowski_reduce(solid, pbc=[True, True, False])
    return reduced[:2, :2], steps[:2, :2].astype(int)


def _steps_within(unit: np.ndarray, radius: float) -> np.ndarray:
    """(k, 2) integers of the lattice vectors up to `radius` Å, zero left out."""
    # A vector's integer is its length over the spacing of lattice lines, at most.
    most = np.floor(radius * np.linalg.norm(np.linalg.inv(unit), axis=0)).astype(int)
    steps = np.array(list(product(*(range(-n, n + 1) for n in most))))
    length = np.linalg.norm(steps @ unit, axis=1)
    return steps[(length <= radius) & (length > 0)]


class FoldedHost:
    """The sites of a host, periodic in the plane, and what atoms near them gain.

    An atom gains `most` - d² (Å²) at a distance d from a site, less `other` where the elements
    differ, and zero where that is more. The sum over all atoms is no less than what an assignment
    could gain, in which a site takes one atom only.

    Args:
        pristine: the host, a layer in the xy plane.
        most: Å², what an atom on its site gains.
        other: Å², what it loses where the site is another element's.
    """

    def __init__(self, pristine: Atoms, most: float, other: float) -> None:
        self.pristine, self.most, self.other = pristine, most, other

    @cached_property
    def room(self) -> float:
        """Least distance (Å, root mean square over atoms) between two ways to lay the host.

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
        """The gain (Å²) of all atoms, and the origin (3,) Å moved by their mean displacement."""
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
        elements = np.append(self._images.numbers, 0)[near]
        gains = self.most - distance**2 - self.other * (elements != numbers[:, None])
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
