"""Training-time transforms of defect records.

A transform is a small frozen dataclass, called with a record and a `numpy.random.Generator`; it
returns a new record. Apply them to training records only, after the split and anew in every epoch:

    augment = Compose((Rotation(), Reflection("x"), CoordinateNoise()))
    record = augment(record, rng)

Two of them are symmetries and keep every label exactly (`Rotation`, `Reflection`). The others
move atoms or add some, and each docstring says why, and how far, the label still holds; where it
does not, `LabelNotKept` is raised. Fields of a record that are not mentioned stay those of the
labelled row. Transforms that move atoms away from where they relaxed without changing the energy
teach a model a flat energy surface: leave them out where its gradients shall serve as forces.

A cell repeated as a whole, n defects in n cells, is not offered: it is the same crystal, so an
exactly periodic model learns nothing from it, and a record holds one defect.

Units: Å, eV, radians.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic, get_distances
from matscipy.neighbours import neighbour_list

from defectkit import DefectkitError
from defectkit.structures.hosts import MIN_IMAGE_DISTANCE, shortest_translation
from defectkit.structures.recognise import Recognition, recognised
from defectkit.structures.record import DefectRecord

STIFFNESS = 10.0  # eV/Å²: an atom of 32 u on such a spring vibrates with 36 meV
MIN_CONTACT = 0.65  # of the sum of covalent radii; the demo's relaxed cells stay above 0.73
TRIES = 20  # draws before the screens give up
MAX_STRAIN = 0.01
BORDER = 0.8  # atoms this share of half the image distance away from the defect, or further
HOST_MOMENT = 0.1  # μB: a border atom below it belongs to a non-magnetic host
SAME_SITE = 0.1  # Å: sites of an ideal lattice coincide or are much further apart

Transform = Callable[[DefectRecord, np.random.Generator], DefectRecord]


class LabelNotKept(DefectkitError):  # noqa: N818 (it reads as what happened)
    """The transform would leave the record with a label that no longer describes it."""


@dataclass(frozen=True)
class Compose:
    """Apply `transforms` one after the other."""

    transforms: tuple[Transform, ...]

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The record after all of them."""
        for transform in self.transforms:
            record = transform(record, rng)
        return record


@dataclass(frozen=True)
class OrUnchanged:
    """Apply `transform` to the records that allow it, and pass the others on as they are.

    Only `LabelNotKept` is passed over; every other error is one to mend.
    """

    transform: Transform

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The transformed record, or a copy where the label would not be kept."""
        try:
            return self.transform(record, rng)
        except LabelNotKept:
            return _displaced(record, 0.0)


@dataclass(frozen=True)
class Rotation:
    """Turn the crystal in its plane, the cell along with it.

    Keeps all distances, angles and the order of the atoms. Changes coordinates and the direction
    of the cell's vectors. The label is exact: the energy does not depend on orientation, and a
    moment is given without a direction.

    Attributes:
        angle: radians, drawn uniformly between these two.
    """

    angle: tuple[float, float] = (0.0, 2 * np.pi)

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The turned record."""
        angle = rng.uniform(*self.angle)
        cos, sin = np.cos(angle), np.sin(angle)
        return _mapped(record, np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]))


@dataclass(frozen=True)
class Reflection:
    """Mirror the crystal: x -> -x, y -> -y (in-plane mirrors) or z -> -z (top and bottom).

    Keeps all distances and the order of the atoms. Changes the handedness of the crystal; the
    cell stays right-handed by reversing one of its vectors, which spans the same lattice, so a
    120 degree cell becomes a 60 degree one in the plane. The label is exact: the energy does not
    know left from right. Compare the result with a host that was mirrored in the same way: a
    Janus layer is upside down after "z".

    Attributes:
        axis: "x", "y" or "z", the direction that is reversed.
        probability: how often.
    """

    axis: str
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y", "z"):
            raise DefectkitError(f"There is no mirror across {self.axis!r}; use x, y or z.")

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The mirrored record, or a copy."""
        if rng.random() >= self.probability:
            return _displaced(record, 0.0)
        sign = np.where(np.array(["x", "y", "z"]) == self.axis, -1.0, 1.0)
        cell = record.atoms.cell.array * sign
        turned = 2 if self.axis == "z" else 0
        cell[turned] *= -1
        # By one lattice vector along, so that atoms inside the old cell are inside the new one.
        return _mapped(record, np.diag(sign), shift=cell[turned], cell=cell)


@dataclass(frozen=True)
class PadSupercell:
    """Set the defect into a larger supercell by laying pristine host cells around it.

    An n x m cell becomes an (n + k) x (m + k) one. Every atom is kept, in its order, at its
    image nearest to the defect; the new atoms follow, exactly on the host's sites.

    Keeps the defect, its relaxation and the lattice. Changes the distance between the defect and
    its images. The formation energy is kept in the dilute limit only, where it no longer depends
    on the cell: the border between the old cell and the new atoms must be pristine already. So
    `LabelNotKept` is raised where
    - the defect and its nearest image are less than `hosts.MIN_IMAGE_DISTANCE` (9 Å) apart;
    - a host atom of the border stands more than `tolerance` from its site;
    - the defect cannot be told from its host with certainty (see `recognise`).
    This bounds the strain that is cut off at the seam, but not charge that reaches further than the
    displacements, nor a rearrangement that only the larger cell permits: with the demo's potential
    most padded cells keep their label to hundredths of an eV, and a few relax to another minimum.

    The total energies en1, en2 and hostenergy grow by the host cells that were added, max_force
    is unknown afterwards (NaN). The moment of the cell is kept where the border carries none
    (`HOST_MOMENT`), else `spin` is NaN and `site_magmoms` None: the added cells of a magnetic
    host have moments of their own.

    Attributes:
        hosts: pristine unit cell by host name; a pristine supercell serves too, then n, m and k
            count in these.
        extra: k is drawn from the integers between these two, both included; 0 adds nothing.
        tolerance: Å, how far an atom of the border may stand from its site.
    """

    hosts: Mapping[str, Atoms]
    extra: tuple[int, int] = (0, 1)
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.extra[0] <= self.extra[1]:
            raise DefectkitError(f"extra is {self.extra}; give two integers from 0, in order.")

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The record in the larger cell; DefectkitError where its host is not in `hosts`."""
        extra = int(rng.integers(*self.extra, endpoint=True))
        if extra == 0:
            return _displaced(record, 0.0)
        if record.host not in self.hosts:
            raise DefectkitError(f"{record.uid}: no pristine cell of {record.host} was given.")
        pristine = self.hosts[record.host]
        found = recognised(record, pristine)
        border = _dilute_border(record, found, self.tolerance)
        return _padded(record, found, border, pristine, extra)


@dataclass(frozen=True)
class CoordinateNoise:
    """Displace every atom by Gaussian noise, u ~ N(0, sigma²) along x, y and z.

    Keeps the cell, the order of the atoms and `unrelaxed`. Changes the positions. The label is
    kept to within `max_energy`: a relaxed structure is a minimum, so small displacements cost
    about E = k/2 sum_i |u_i|² with k = `STIFFNESS` and no first-order term. Draws above that
    bound are rejected, and so are those with two atoms closer than `MIN_CONTACT` of the sum of
    their covalent radii (or closer than in the input, where that is closer already).
    `LabelNotKept` after `TRIES` rejections.

    The cost grows with the number of atoms, about 3/2 N k sigma²: choose `sigma` for the largest
    cells in use.

    Attributes:
        sigma: Å.
        max_energy: eV.
    """

    sigma: float = 0.01
    max_energy: float = 0.1

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The noisy record."""
        shape = record.atoms.positions.shape
        return _screened(record, lambda: rng.normal(0.0, self.sigma, shape), self.max_energy)


@dataclass(frozen=True)
class AffineStrain:
    """Strain cell and positions in the plane: x' = (1 + e) x, e symmetric, 2 x 2; z stays.

    Keeps fractional coordinates in the plane and heights. Changes lengths and angles of the cell
    and distances; `strain` becomes (1 + strain)(1 + (e_xx + e_yy) / 2) - 1, its biaxial part.
    The label is kept to zeroth order in e. The first order is -sum_ab P_ab e_ab with the elastic
    dipole P of the defect (Clouet, Varvenne and Jourdan, Comput. Mater. Sci. 147, 49, 2018),
    which is not known here. Where the demo holds one defect at several strains, the slope is of
    the order of 5 to 15 eV: half a per cent of biaxial strain shifts the true formation energy by
    some hundredths of an eV. Limits above `MAX_STRAIN` are refused.

    Attributes:
        limit: e_xx, e_yy and e_xy are drawn uniformly from [-limit, limit].
    """

    limit: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= MAX_STRAIN:
            raise DefectkitError(
                f"A strain of {self.limit} changes the formation energy by more than its label "
                f"is good for; keep the limit between 0 and {MAX_STRAIN}."
            )

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The strained record."""
        xx, yy, xy = rng.uniform(-self.limit, self.limit, 3)
        deformation = np.eye(3) + np.array([[xx, xy, 0.0], [xy, yy, 0.0], [0.0, 0.0, 0.0]])
        strain = (1 + record.strain) * (1 + (xx + yy) / 2) - 1
        return replace(_mapped(record, deformation), strain=strain)


@dataclass(frozen=True)
class PartlyRelaxed:
    """Take the structure back towards where its relaxation started.

    x_i = x_i(relaxed) - (1 - t) d_i, where d_i is the minimum-image displacement of atom i from its
    unrelaxed position: t = 1 is relaxed, t = 0 unrelaxed up to lattice vectors.

    Keeps the cell, the order of the atoms and `unrelaxed`. Changes the positions. The label stays
    that of the relaxed row, and means: the energy to which this structure relaxes (the task
    "initial structure to relaxed energy" of Chanussot et al., ACS Catal. 11, 6059, 2021). It is
    exact at t = 0 and 1; in between it assumes that the path does not lead into another minimum.

    DefectkitError where the record lacks unrelaxed positions.

    Attributes:
        t: drawn uniformly between these two, within [0, 1].
    """

    t: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.t[0] <= self.t[1] <= 1:
            raise DefectkitError(f"t is {self.t}; give two numbers within [0, 1], in order.")

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The record, partly relaxed."""
        displacements = record.displacements()  # raises before a number is drawn
        return _displaced(record, -(1 - rng.uniform(*self.t)) * displacements)


@dataclass(frozen=True)
class ElasticField:
    """Add the elastic displacement field of a point defect in a 2D sheet.

    In an isotropic sheet a centre of dilation displaces its surroundings by u = A r / r², which
    solves the Navier equation: outside the centre it has neither rotation nor dilation. In a
    periodic cell of fixed shape the images add up like the fields of point charges on a
    neutralising background, so that Ewald's sum applies (Lechner and Dellago, Soft Matter, 2009;
    arXiv:0806.3570). With the centre spread over a Gaussian core of radius c, which turns 1 / r
    into (1 - exp(-r² / c²)) / r, only its reciprocal part is left:

        u(r) = 2 pi A / S sum_{G != 0} G / G² exp(-G² c² / 4) sin(G . r)

    with the in-plane reciprocal vectors G and the area S of the cell. One centre stands at each
    defect position; heights do not change. As that paper finds, the continuum is right some
    distance away from the defect and a caricature beside it, for vacancies above all.

    Keeps the cell, the order of the atoms and `unrelaxed`. Changes the positions. The label is
    kept as in `CoordinateNoise`, through the bound on the harmonic energy and the screen for
    overlap; after `PartlyRelaxed(t=(0, 0))` it is again the energy to which the structure relaxes.

    Attributes:
        strength: A in Å², drawn uniformly between these two; above 0 pushes outwards.
        core: c in Å.
        max_energy: eV.
    """

    strength: tuple[float, float] = (-0.1, 0.1)
    core: float = 1.5
    max_energy: float = 0.1

    def __call__(self, record: DefectRecord, rng: np.random.Generator) -> DefectRecord:
        """The displaced record; DefectkitError where it has no defect positions."""
        if record.defect_positions is None or not len(record.defect_positions):
            raise DefectkitError(
                f"{record.uid} does not say where its defect is; set defect_positions to those "
                "that defectkit.structures.recognise finds."
            )
        field = sum(
            dilation_field(record.atoms.positions - centre, record.atoms.cell.array, self.core)
            for centre in record.defect_positions
        )
        return _screened(record, lambda: rng.uniform(*self.strength) * field, self.max_energy)


def dilation_field(points: np.ndarray, cell: np.ndarray, core: float) -> np.ndarray:
    """Displacement per strength A, (N, 3) 1/Å, at `points` (N, 3) Å from a centre of dilation.

    The equation is that of `ElasticField`; `cell` (3, 3) Å is that of a layer in the xy plane.
    """
    plane = cell[:2, :2]
    reciprocal = 2 * np.pi * np.linalg.inv(plane).T
    longest = 2 * np.sqrt(-np.log(1e-10)) / core  # terms beyond it are cut off
    # |G . a| = 2 pi n <= |G| |a| says how many vectors can matter.
    reach = np.floor(longest * np.linalg.norm(plane, axis=1) / (2 * np.pi)).astype(int)
    counts = product(*(range(-n, n + 1) for n in reach))
    waves = np.array([n for n in counts if n > (0, 0)]) @ reciprocal  # G and -G give the same
    squares = (waves**2).sum(axis=1)
    weights = 2 * np.exp(-squares * core**2 / 4) / squares
    field = np.zeros((len(points), 3))
    field[:, :2] = np.sin(points[:, :2] @ waves.T) @ (weights[:, None] * waves)
    return 2 * np.pi / abs(np.linalg.det(plane)) * field


def _mapped(
    record: DefectRecord,
    matrix: np.ndarray,
    shift: np.ndarray | float = 0.0,
    cell: np.ndarray | None = None,
) -> DefectRecord:
    """The record with all positions, (n, 3) Å, mapped to positions @ matrix + shift, and the cell.

    `cell` (3, 3) Å, where given, describes the same lattice by other vectors.
    """
    atoms = record.atoms.copy()
    atoms.set_cell(atoms.cell.array @ matrix if cell is None else cell)
    atoms.positions = atoms.positions @ matrix + shift
    moved = {
        name: None if places is None else places @ matrix + shift
        for name in ("unrelaxed", "defect_positions")
        for places in [getattr(record, name)]
    }
    return replace(record, atoms=atoms, **moved)


def _displaced(record: DefectRecord, by: np.ndarray | float) -> DefectRecord:
    """A copy with its atoms displaced `by` (N, 3) Å."""
    atoms = record.atoms.copy()
    atoms.positions = atoms.positions + by
    return replace(record, atoms=atoms)


def _screened(
    record: DefectRecord, draw: Callable[[], np.ndarray], max_energy: float
) -> DefectRecord:
    """The first of `TRIES` drawn displacements, (N, 3) Å, that is cheap and overlaps nothing."""
    closest_allowed = min(MIN_CONTACT, _closest_contact(record.atoms))
    for _ in range(TRIES):
        displacement = draw()
        energy = STIFFNESS / 2 * (displacement**2).sum()
        moved = _displaced(record, displacement)
        contact = _closest_contact(moved.atoms)
        if energy <= max_energy and contact >= closest_allowed:
            return moved
    raise LabelNotKept(
        f"{record.uid}: {TRIES} draws were rejected; the last one cost {energy:.3f} eV (bound "
        f"{max_energy:.3f}) and its closest pair was at {contact:.2f} of the sum of covalent radii "
        f"(bound {closest_allowed:.2f}); make the displacements smaller."
    )


def _closest_contact(atoms: Atoms) -> float:
    """Least distance over the sum of covalent radii; `MIN_CONTACT` where no pair is closer."""
    radii = covalent_radii[atoms.numbers]
    i, j, distance = neighbour_list("ijd", atoms, MIN_CONTACT * 2 * radii.max())
    return float(np.min(distance / (radii[i] + radii[j]), initial=MIN_CONTACT))


def _dilute_border(record: DefectRecord, found: Recognition, tolerance: float) -> np.ndarray:
    """(N,) whether a host atom is of the border; LabelNotKept where it is not pristine."""
    atoms = record.atoms
    image_distance = shortest_translation(atoms.cell.array)
    if image_distance < MIN_IMAGE_DISTANCE - 1e-3:
        raise LabelNotKept(
            f"{record.uid}: its images are {image_distance:.2f} Å apart; {MIN_IMAGE_DISTANCE:.0f} "
            "are needed for the formation energy to hold in another cell."
        )
    if found.ambiguous or not len(found.defect_positions):
        raise LabelNotKept(
            f"{record.uid}: its defect is not clear: {found.reason or 'none found'}."
        )
    distances = get_distances(
        found.ideal_positions, found.defect_positions, cell=atoms.cell, pbc=atoms.pbc
    )[1].min(axis=1)
    border = (found.original_z > 0) & (distances >= BORDER * image_distance / 2)
    displaced = np.linalg.norm(atoms.positions - found.ideal_positions, axis=1)
    furthest = np.max(displaced, initial=0.0, where=border)
    if furthest > tolerance:
        raise LabelNotKept(
            f"{record.uid}: atoms far from the defect stand up to {furthest:.2f} Å from their "
            f"sites (tolerance {tolerance:.2f}): the cell is not in the dilute limit."
        )
    return border


def _padded(
    record: DefectRecord, found: Recognition, border: np.ndarray, pristine: Atoms, extra: int
) -> DefectRecord:
    """The record with `extra` more cells of `pristine` along both in-plane vectors."""
    old, centre = record.atoms, found.defect_positions[0]
    size = np.rint(old.cell.lengths() / pristine.cell.lengths()).astype(int)
    size[2] = 1
    larger = size + [extra, extra, 0]
    new = _new_atoms(old, found, size, larger)
    if len(new) != (larger.prod() - size.prod()) * len(pristine):
        raise LabelNotKept(
            f"{record.uid}: its cell is not {size[0]} x {size[1]} times that of the host."
        )

    atoms = old.copy()
    atoms.set_cell(new.cell)
    relaxation = old.positions - found.ideal_positions
    atoms.positions = _nearest_images(found.ideal_positions, centre, old.cell.array) + relaxation
    unrelaxed = places = None
    if record.unrelaxed is not None:
        moved = record.displacements()
        drift = np.median(moved[found.original_z > 0], axis=0)  # of the layer as a whole
        unrelaxed = np.concatenate([atoms.positions - moved, new.positions - drift])
    if record.defect_positions is not None:
        places = _nearest_images(record.defect_positions, centre, old.cell.array)

    magmoms, spin = record.site_magmoms, record.spin
    if magmoms is not None and np.abs(magmoms[border]).max(initial=0.0) < HOST_MOMENT:
        magmoms = np.concatenate([magmoms, np.zeros(len(new), dtype=magmoms.dtype)])
    else:
        magmoms, spin = None, np.nan
    added_energy = record.hostenergy * (larger.prod() / size.prod() - 1)
    return replace(
        record,
        atoms=atoms + new,
        unrelaxed=unrelaxed,
        defect_positions=places,
        site_magmoms=magmoms,
        spin=spin,
        en1=record.en1 + added_energy,
        en2=record.en2 + added_energy,
        hostenergy=record.hostenergy + added_energy,
        max_force=np.nan,
        supercell=_larger_supercell(record.supercell, size, larger),
    )


def _new_atoms(old: Atoms, found: Recognition, size: np.ndarray, larger: np.ndarray) -> Atoms:
    """Host atoms that fill `larger` (3,) unit cells around the `size` (3,) ones of `old`.

    The host's sites are those of the old cell, told apart modulo the unit cell and repeated;
    what does not coincide with one of the old cell's is new.
    """
    centre = found.defect_positions[0]
    hosted = found.original_z > 0
    sites = np.concatenate([found.ideal_positions[hosted], found.vacancy_positions])
    numbers = np.concatenate([found.original_z[hosted], found.vacancy_z])
    unit = old.cell.array / size[:, None]
    same = get_distances(sites, cell=unit, pbc=old.pbc)[1] < SAME_SITE
    basis = np.unique(same.argmax(axis=1))  # the first of each
    cell = unit * larger[:, None]
    steps = np.array(list(product(*map(range, larger)))) @ unit
    every = _nearest_images((steps[:, None] + sites[basis]).reshape(-1, 3), centre, cell)
    taken = _nearest_images(sites, centre, old.cell.array)
    new = (get_distances(every, taken, cell=cell, pbc=old.pbc)[1] > SAME_SITE).all(axis=1)
    return Atoms(np.tile(numbers[basis], len(steps))[new], positions=every[new], cell=cell)


def _nearest_images(points: np.ndarray, centre: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The in-plane periodic images of `points` (n, 3) Å that are nearest to `centre`."""
    return centre + find_mic(points - centre, cell, (True, True, False))[0]


def _larger_supercell(supercell: int, size: np.ndarray, larger: np.ndarray) -> int:
    """The record's `supercell` after the cell grew: 331 becomes 441; 0 where it is unknown."""
    digits = [int(digit) for digit in str(supercell)]
    if len(digits) != 3:
        return 0
    return int("".join(str(d * new // old) for d, old, new in zip(digits, size, larger)))
