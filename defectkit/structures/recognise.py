"""Finds the defect of a supercell by matching it to the pristine host.

The host may be written in any setting, turned, upside down, and be strained a little against the
structure (`structures.lattice`). Most files are laid out alike, which is tried first; where that
leaves doubt, every way in which the host's lattice fits the cell is compared by the atoms.

Atoms are assigned to host sites by the cheapest periodic assignment (the Hungarian method of
`scipy.optimize.linear_sum_assignment`): a match costs its squared distance, plus a fee where
the elements differ; an atom or a site left alone costs a fee too. What is left alone is an
added atom or a vacancy, what is matched across elements is a substitution. Neither the order
of the atoms nor rounded coordinates matter.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from defectkit import DefectkitError
from defectkit.structures import lattice
from defectkit.structures.lattice import FoldedHost, Setting
from defectkit.structures.record import DefectRecord, SiteKind

MATCH_RADIUS = 2.0  # Å: how far an atom may relax from its site
ALONE_FEE = MATCH_RADIUS**2 / 2  # Å², for an atom without site or a site without atom
OTHER_ELEMENT_FEE = 1.0  # Å²: a dopant takes a site rather than push its atom 1 Å further
AMBIGUITY_MARGIN = 0.2  # Å²: readings this close in cost cannot be told apart
GOOD_SHARE, GOOD_RMS = 0.8, 0.7  # of the sites found, and Å: the layer is where it should be
HOST_SHARE = 0.5  # of the host's atoms that a structure must hold
LARGE_RMS, LARGE_STRAIN = 0.5, 0.05  # Å and no unit: a reading near its bounds
DRIFT_ROUNDS = 10
CLEAR_GAIN = 0.9 * 2 * ALONE_FEE  # Å² an atom
ON_SITE = 0.05  # Å: how near an atom stands to its site before any relaxation
MOST_FORM_SITES = 600  # in the cell of a `lattice_form`: its table of symmetries grows with square
MAX_READINGS = 16  # that are matched atom by atom where the layout of the files leaves doubt


@dataclass(frozen=True, eq=False)
class Recognition:
    """The defect of a cell with N atoms, in the frame of that cell.

    Attributes:
        site_kind: (N,) `SiteKind` of every atom; the k vacancies follow below.
        original_z: (N,) atomic number of the host site that an atom stands on, 0 for an
            added atom.
        ideal_positions: (N, 3) Å, that site; the atom itself where it was added.
        vacancy_positions: (k, 3) Å, the sites without an atom.
        vacancy_z: (k,) atomic numbers of the atoms that are missing.
        ambiguous: whether another reading fits about as well.
        reason: what makes it ambiguous, in words; empty otherwise.
        rms: Å, how far the atoms stand from their sites, root mean square.
        setting: how the host lies in the cell: supercell matrix, rotation, flip and strain.
    """

    site_kind: np.ndarray
    original_z: np.ndarray
    ideal_positions: np.ndarray
    vacancy_positions: np.ndarray
    vacancy_z: np.ndarray
    ambiguous: bool
    reason: str
    rms: float
    setting: Setting

    @property
    def doubt(self) -> str:
        """Why not to rely on the reading: `reason`, or a fit near its bounds; empty if neither."""
        strain = float(np.abs(self.setting.strain).max())
        if self.reason:
            return self.reason
        if self.rms > LARGE_RMS:
            return (
                f"the atoms are {self.rms:.2f} Å from the sites of the host (root mean square; "
                f"{GOOD_RMS} Å is the bound)"
            )
        if strain > LARGE_STRAIN:
            return f"the host fits the cell with a strain of {strain:.1%} only"
        return ""

    @property
    def defect_indices(self) -> np.ndarray:
        """Indices of the atoms that are not the host's own on their site."""
        return np.flatnonzero(self.site_kind != SiteKind.HOST)

    @property
    def defect_positions(self) -> np.ndarray:
        """(d + k, 3) Å: the defect's atoms (their sites), then the vacancies."""
        return np.concatenate([self.ideal_positions[self.defect_indices], self.vacancy_positions])

    @property
    def removed(self) -> tuple[str, ...]:
        """Symbols of the host atoms that were replaced, then of those that are missing."""
        replaced = self.original_z[self.site_kind == SiteKind.SUBSTITUTION]
        return tuple(chemical_symbols[z] for z in [*replaced, *self.vacancy_z])

    @property
    def defecttype(self) -> str:
        """adsorbate, interstitial, substitution, vacancy, complex; empty for a pristine cell."""
        kinds = {SiteKind(k) for k in self.site_kind[self.defect_indices]}
        if len(self.vacancy_z):
            kinds.add(SiteKind.VACANCY)
        if not kinds:
            return ""
        return kinds.pop().name.lower() if len(kinds) == 1 else "complex"


def recognise(atoms: Atoms, pristine: Atoms) -> Recognition:
    """Find what is added, replaced and missing in `atoms`, (N,), against the host `pristine`.

    `pristine` is the host's unit cell or a supercell of any size. It is repeated, turned in the
    plane or about an axis in it, shifted, and strained within `lattice.MAX_STRAIN` and
    `lattice.MAX_SHEAR`, until its atoms and those of `atoms` match best. Both are layers in the xy
    plane (`defectkit.structures.files.as_layer`). An added atom is an interstitial where it lies
    within the thickness of the matched layer, else an adsorbate.

    Raises DefectkitError where the cell of `atoms` is no supercell of the host, or where most
    atoms of the host are not there.
    """
    reading = _best_reading(atoms, pristine)
    return _recognition(atoms, reading, _doubt(atoms, reading.sites, reading.match))


def recognise_unrelaxed(atoms: Atoms, pristine: Atoms) -> Recognition:
    """What `recognise` finds, many times faster where every atom stands on a site of the host.

    The nearest sites are the cheapest assignment then, and a clear one: an atom on any other site
    loses the squared distance between two sites, and an element's fee is all that it could win.
    Where an atom is further than `ON_SITE` from its site, or the host laid out as it is written
    does not explain the composition, `recognise` finds the defect. The positions agree with its
    own to within rounding (1e-9 Å).
    """
    sites = _sites_in(atoms, pristine)
    reading = sites.reading(atoms) if sites else None
    return recognise(atoms, pristine) if reading is None else _recognition(atoms, reading, "")


def lattice_form(atoms: Atoms, pristine: Atoms) -> bytes | None:
    """What is the same for structures that a symmetry of the host brings onto each other.

    It says which sites are not held by their own element, of all ways to move the host onto itself
    in the cell the one that comes first. Structures of one host and cell, before relaxation, are
    the same where their forms are equal. None where an atom is not on a site (`ON_SITE`) of its
    own, or for more than `MOST_FORM_SITES`.
    """
    if len(atoms) > MOST_FORM_SITES:
        return None
    sites = _sites_in(atoms, pristine)
    nearest = sites.nearest(atoms) if sites else None
    if nearest is None:
        return None
    held = np.zeros(len(sites.sites), int)
    held[nearest[0]] = atoms.numbers
    changed = np.flatnonzero(held != sites.sites.numbers)
    codes = sites.symmetries[:, changed] * len(chemical_symbols) + held[changed]
    # A sum of random numbers does not depend on the order, so that only one way is to be sorted.
    first = sites.marks[codes].sum(axis=1).argmin()
    return np.sort(codes[first]).tobytes()


def _recognition(atoms: Atoms, reading: "_Reading", reason: str) -> Recognition:
    """The reading in the frame of `atoms`; `reason` is what makes it ambiguous."""
    sites, match = reading.sites, reading.match
    added = match.atoms_alone
    site_of = np.full(len(atoms), -1)
    site_of[match.rows] = match.columns
    original_z = np.where(site_of >= 0, sites.numbers[site_of], 0)
    replaced = (site_of >= 0) & (original_z != atoms.numbers)

    site_kind = np.full(len(atoms), int(SiteKind.HOST))
    site_kind[replaced] = SiteKind.SUBSTITUTION
    site_kind[added] = np.where(
        inside_layer(atoms, added, match.rows), SiteKind.INTERSTITIAL, SiteKind.ADSORBATE
    )
    ideal = atoms.positions.copy()
    ideal[match.rows] += match.vectors
    vacant = match.sites_alone
    return Recognition(
        site_kind=site_kind,
        original_z=original_z,
        ideal_positions=ideal,
        vacancy_positions=sites.positions[vacant] + match.shift,
        vacancy_z=sites.numbers[vacant],
        ambiguous=bool(reason),
        reason=reason,
        rms=match.rms,
        setting=reading.setting,
    )


def recognised(record: DefectRecord, host: Atoms, unrelaxed: bool = False) -> Recognition:
    """The defect of a record against its pristine host: found once, then kept with the record.

    Every later call returns the same object, so do not change its arrays. The defect is found at
    the first call and not when a data set is read, as that takes milliseconds a row, which would
    add up to minutes for a large set, of which most uses need a few rows. What is kept takes
    40 bytes an atom and 1.6 kB a record: 28 MB for 10,000 records of 30 atoms. It belongs to the
    positions, elements and cells of both structures: after a change of one of these, and in a
    record that `dataclasses.replace` made, the defect is found anew.

    Args:
        record: the defect supercell.
        host: the pristine unit cell or supercell.
        unrelaxed: whether to look at the positions before relaxation.

    Raises DefectkitError as `recognise`, at every call, and where the record has no unrelaxed
    positions.
    """
    atoms = record.unrelaxed_atoms() if unrelaxed else record.atoms
    key = _key(atoms, host)
    if key not in record.recognitions:
        try:
            record.recognitions[key] = recognise(atoms, host)
        except DefectkitError as error:
            record.recognitions[key] = str(error)
    found = record.recognitions[key]
    if isinstance(found, str):
        raise DefectkitError(found)
    return found


def keep_recognition(record: DefectRecord, host: Atoms, found: Recognition) -> None:
    """Let a record carry what `recognise(record.atoms, host)` returned, for `recognised`."""
    record.recognitions[_key(record.atoms, host)] = found


def _key(atoms: Atoms, host: Atoms) -> bytes:
    """What decides a recognition, as a digest."""
    digest = hashlib.blake2b(digest_size=16)
    for one in (atoms, host):
        for array in (one.numbers, one.positions, one.cell.array, one.pbc):
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.digest()


@dataclass(frozen=True, eq=False)
class _Match:
    """An assignment of n atoms to m sites: `rows[k]` stands on `columns[k]`.

    Attributes:
        vectors: (matches, 3) Å from the atom to its site, the shift included.
        gains: (n, m) Å², what each match saves against leaving both alone; 0 where it does not.
        shift: (3,) Å, added to the sites.
    """

    rows: np.ndarray
    columns: np.ndarray
    vectors: np.ndarray
    gains: np.ndarray
    shift: np.ndarray

    @property
    def gain(self) -> float:
        return float(self.gains[self.rows, self.columns].sum())

    @property
    def atoms_alone(self) -> np.ndarray:
        return np.flatnonzero(np.bincount(self.rows, minlength=self.gains.shape[0]) == 0)

    @property
    def sites_alone(self) -> np.ndarray:
        return np.flatnonzero(np.bincount(self.columns, minlength=self.gains.shape[1]) == 0)

    @property
    def is_good(self) -> bool:
        """Whether most sites have an atom close by."""
        found = len(self.columns) >= GOOD_SHARE * self.gains.shape[1]
        return found and self.rms < GOOD_RMS

    @property
    def rms(self) -> float:
        """Root mean square distance (Å) of the atoms from their sites."""
        return float(np.sqrt((self.vectors**2).sum(axis=1).mean()))


@dataclass(frozen=True, eq=False)
class _Reading:
    """A setting of the host, its sites in the cell, and the match of the atoms to them."""

    setting: Setting
    sites: Atoms
    match: _Match

    @classmethod
    def of(cls, atoms: Atoms, pristine: Atoms, setting: Setting, shift: np.ndarray) -> "_Reading":
        sites = lattice.fill(pristine, atoms, setting)
        return cls(setting, sites, _settled_match(partial(_match, atoms, sites), shift))

    @property
    def saving(self) -> float:
        """What the match saves (Å²) against leaving every atom and every site alone."""
        return self.match.gain - ALONE_FEE * len(self.sites)

    def leaves_doubt(self, atoms: Atoms, room: float) -> bool:
        """Whether another setting may fit better, with `room` (Å) between those of the host."""
        good = self.match.is_good and not _more_than_needed(atoms, self.sites, self.match)
        return not good or self.match.rms > min(room / 2, LARGE_RMS)


@dataclass(frozen=True, eq=False)
class _Sites:
    """The sites of a host in a cell that is laid out alike, and which of them a point is on.

    Attributes:
        pristine: the host.
        setting: of the host in the cell.
        sites: (m,) atoms on all sites.
        apart: Å, the least distance between two sites.
        room: Å, `FoldedHost.room` of the host.
        tree: of the sites, periodic in the plane.
    """

    pristine: Atoms
    setting: Setting
    sites: Atoms
    apart: float
    room: float
    tree: cKDTree

    def nearest(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray] | None:
        """The site (n,) of each atom, and the vectors (n, 3) Å to it; None if two have one.

        Or if one is further than `ON_SITE` from any.
        """
        columns = self.tree.query(_upright(self.sites, atoms.positions))[1]
        vectors = self.sites.positions[columns] - atoms.positions
        cell = self.sites.cell.array[:2, :2]
        vectors[:, :2] -= np.rint(vectors[:, :2] @ np.linalg.inv(cell)) @ cell
        taken = np.bincount(columns, minlength=1)
        if taken.max() > 1 or (vectors**2).sum(axis=1).max(initial=0.0) > ON_SITE**2:
            return None
        return columns, vectors

    def reading(self, atoms: Atoms) -> "_Reading | None":
        """The reading in which each atom is on the nearest site; None where it is not certain."""
        nearest = self.nearest(atoms)
        if nearest is None:
            return None
        columns, vectors = nearest
        off = np.sqrt((vectors**2).sum(axis=1).max(initial=0.0))
        lost = (self.apart - off) ** 2 - off**2 - OTHER_ELEMENT_FEE  # Å², by another assignment
        own = np.count_nonzero(self.sites.numbers[columns] == atoms.numbers)
        if lost < 2 * AMBIGUITY_MARGIN or own < GOOD_SHARE * len(self.sites):
            return None
        match = _settled_match(partial(self._match, atoms, columns, vectors), np.zeros(3))
        reading = _Reading(self.setting, self.sites, match)
        return None if reading.leaves_doubt(atoms, self.room) else reading

    def _match(
        self, atoms: Atoms, columns: np.ndarray, vectors: np.ndarray, shift: np.ndarray
    ) -> "_Match":
        """That assignment, with only its own gains."""
        rows, vectors = np.arange(len(atoms)), vectors + shift
        gains = np.zeros((len(atoms), len(self.sites)))
        fee = OTHER_ELEMENT_FEE * (atoms.numbers != self.sites.numbers[columns])
        gains[rows, columns] = 2 * ALONE_FEE - (vectors**2).sum(axis=1) - fee
        return _Match(rows, columns, vectors, gains, shift)

    @cached_property
    def symmetries(self) -> np.ndarray:
        """(g, m) where each of g symmetries of the host that keep the cell takes the m sites."""
        moved = lattice.moved_sites(self.pristine, self.sites, self.setting, ON_SITE)
        places = self.tree.query(_upright(self.sites, moved.reshape(-1, 3)))[1]
        places = places.reshape(len(moved), len(self.sites))
        return places[(np.sort(places, axis=1) == np.arange(len(self.sites))).all(axis=1)]

    @cached_property
    def marks(self) -> np.ndarray:
        """A random number for every site with every element, always the same ones."""
        most = len(self.sites) * len(chemical_symbols)
        return np.random.default_rng(0).integers(2**63, size=most, dtype=np.uint64)


def _upright(sites: Atoms, positions: np.ndarray) -> np.ndarray:
    """Positions (n, 3) Å in a right-angled box that is periodic as the cell of `sites` is.

    Distances are distorted, but points that coincide still do.
    """
    points = positions.copy()
    lengths = np.linalg.norm(sites.cell.array[:2, :2], axis=1)
    scaled = positions[:, :2] @ np.linalg.inv(sites.cell.array[:2, :2]) % 1.0
    points[:, :2] = np.where(scaled < 1.0, scaled, 0.0) * lengths
    return points


def _sites_in(atoms: Atoms, pristine: Atoms) -> _Sites | None:
    return _sites_of(
        *(array.tobytes() for one in (pristine, atoms) for array in (one.cell.array, one.pbc)),
        pristine.numbers.tobytes(),
        pristine.positions.tobytes(),
    )


@lru_cache(maxsize=256)
def _sites_of(
    host_cell: bytes, host_pbc: bytes, cell: bytes, pbc: bytes, numbers: bytes, positions: bytes
) -> _Sites | None:
    """The sites of a host in a cell; None where the host as it is written does not fill it."""
    pristine = Atoms(
        np.frombuffer(numbers, int),
        positions=np.frombuffer(positions).reshape(-1, 3),
        cell=np.frombuffer(host_cell).reshape(3, 3),
        pbc=np.frombuffer(host_pbc, bool),
    )
    empty = Atoms(cell=np.frombuffer(cell).reshape(3, 3), pbc=np.frombuffer(pbc, bool))
    setting = lattice.aligned_setting(pristine, empty)
    if setting is None:
        return None
    sites = lattice.fill(pristine, empty, setting)
    apart = neighbour_list("d", sites, 2 * MATCH_RADIUS).min(initial=2 * MATCH_RADIUS)
    lengths = np.linalg.norm(sites.cell.array[:2, :2], axis=1)
    tree = cKDTree(_upright(sites, sites.positions), boxsize=[*lengths, 0.0])
    room = FoldedHost(pristine, 2 * ALONE_FEE, OTHER_ELEMENT_FEE).room
    return _Sites(pristine, setting, sites, float(apart), room, tree)


def _best_reading(atoms: Atoms, pristine: Atoms) -> _Reading:
    """The host as both files are laid out, unless another setting or origin fits better."""
    folded = FoldedHost(pristine, 2 * ALONE_FEE, OTHER_ELEMENT_FEE)
    best = None
    aligned = lattice.aligned_setting(pristine, atoms)
    if aligned is not None and _share(atoms, pristine, aligned) >= HOST_SHARE:
        best = _Reading.of(atoms, pristine, aligned, np.zeros(3))
        if not best.leaves_doubt(atoms, folded.room):
            return best
    settings = lattice.every_setting(pristine, atoms)
    filled = [s for s in settings if _share(atoms, pristine, s) >= HOST_SHARE]
    if best is None and not filled:
        raise DefectkitError(_refusal(atoms, pristine, settings[0] if settings else aligned))
    for most, setting, shift in _promising(atoms, folded, filled)[:MAX_READINGS]:
        if best is not None and most <= best.saving + AMBIGUITY_MARGIN:
            break
        other = _Reading.of(atoms, pristine, setting, shift)
        if best is None or other.saving > best.saving + AMBIGUITY_MARGIN:
            best = other
    if best is None or not (aligned or best.match.is_good):
        raise DefectkitError(_no_supercell(atoms, pristine))
    return best


def _promising(
    atoms: Atoms, folded: FoldedHost, settings: list[Setting]
) -> list[tuple[float, Setting, np.ndarray]]:
    """Bounds on what readings save (Å²), their settings, and the shifts (3,) Å of their sites."""
    found, best, strain = [], 0.0, 0.0
    for setting in settings:
        # All of one strain are looked at, as they differ by a turn; then a clear fit is enough.
        if best > CLEAR_GAIN * len(atoms) and np.abs(setting.strain).max() > strain + 1e-3:
            break
        alone = ALONE_FEE * setting.size * len(folded.pristine)
        for origin in folded.origins(atoms, setting):
            gain, origin = folded.fit(atoms, setting, origin)
            if gain > best:
                best, strain = gain, np.abs(setting.strain).max()
            found.append((gain - alone, setting, setting.into_cell(origin[None])[0]))
    # Rounded: symmetric settings are equally good, and the first of them is taken everywhere.
    return sorted(found, key=lambda entry: -round(entry[0], 2))


def _share(atoms: Atoms, pristine: Atoms, setting: Setting) -> float:
    """Fraction of the host's atoms in a setting for which `atoms` has one of the element."""
    return _held(atoms, pristine, setting) / (setting.size * len(pristine))


def _held(atoms: Atoms, pristine: Atoms, setting: Setting) -> int:
    """How many of the host's atoms in a setting could be among `atoms`, going by elements."""
    kinds, counts = np.unique(pristine.numbers, return_counts=True)
    held = (atoms.numbers == kinds[:, None]).sum(axis=1)
    return int(np.minimum(held, setting.size * counts).sum())


def _refusal(atoms: Atoms, pristine: Atoms, setting: Setting | None) -> str:
    if setting is None:
        return _no_supercell(atoms, pristine)
    held, wanted = _held(atoms, pristine, setting), setting.size * len(pristine)
    name, host = atoms.get_chemical_formula(), pristine.symbols
    if not held:
        return f"{name} has no atom of the host {host}; check the host."
    return (
        f"{name} has {held} of the {wanted} atoms that the host {host} has in this cell, less than "
        "half; check the host."
    )


def _no_supercell(atoms: Atoms, pristine: Atoms) -> str:
    name, host = atoms.get_chemical_formula(), pristine.symbols
    return (
        f"{name} ({_lengths(atoms)} Å) is no supercell of the host {host} "
        f"({_lengths(pristine)} Å), however turned: none fits its cell and its atoms within "
        f"{lattice.MAX_STRAIN:.0%} of strain and {lattice.MAX_SHEAR:.0%} of shear; check the host "
        "and the lattice constants."
    )


def _lengths(atoms: Atoms) -> str:
    return " x ".join(f"{length:.2f}" for length in atoms.cell.lengths()[:2])


def _more_than_needed(atoms: Atoms, sites: Atoms, match: _Match) -> bool:
    """Whether more sites are without their own atom than the composition explains.

    This happens where a shift by part of a lattice vector brings most atoms onto other sites of
    their element: in CrI3 all iodine, and a third of the chromium into the hollows.
    """
    kinds = np.unique(sites.numbers)
    held, wanted = ((a.numbers == kinds[:, None]).sum(axis=1) for a in (atoms, sites))
    replaced = atoms.numbers[match.rows] != sites.numbers[match.columns]
    without = len(match.sites_alone) + replaced.sum()
    return bool(without > (wanted - held).clip(min=0).sum())


def _settled_match(match_at: Callable[[np.ndarray], _Match], shift: np.ndarray) -> _Match:
    """Match, move the sites by the median displacement, and again until nothing moves."""
    match = match_at(shift)
    for _ in range(DRIFT_ROUNDS):
        if not len(match.rows):
            break
        drift = -_geometric_median(match.vectors)
        if np.abs(drift).max() < 1e-3:
            # Too little to change who stands where.
            return replace(match, vectors=match.vectors + drift, shift=match.shift + drift)
        match = match_at(match.shift + drift)
    return match


def _geometric_median(points: np.ndarray) -> np.ndarray:
    """The point with the least sum of distances to `points`, (n, 3) Å; Weiszfeld's iteration.

    It ignores the few atoms that moved far, as the median of each coordinate would, but turns
    with the crystal, as that would not.
    """
    middle = np.median(points, axis=0)
    for _ in range(200):
        # A little softness, 1e-6 Å, for a middle that is one of the points.
        weights = 1 / np.sqrt(((points - middle) ** 2).sum(axis=1) + 1e-12)
        before, middle = middle, weights @ points / weights.sum()
        if np.abs(middle - before).max() < 1e-9:
            break
    return middle


def _match(atoms: Atoms, sites: Atoms, shift: np.ndarray) -> _Match:
    n, m = len(atoms), len(sites)
    both = Atoms(
        np.concatenate([atoms.numbers, sites.numbers]),
        positions=np.concatenate([atoms.positions, sites.positions + shift]),
        cell=atoms.cell,
        pbc=(True, True, False),
    )
    i, j, distance, vector = neighbour_list("ijdD", both, MATCH_RADIUS)
    across = np.flatnonzero((i < n) & (j >= n))
    across = across[np.argsort(-distance[across])]  # the nearest image is written last
    i, j = i[across], j[across] - n
    vectors = np.zeros((n, m, 3))
    gains = np.zeros((n, m))
    vectors[i, j] = vector[across]
    fee = OTHER_ELEMENT_FEE * (atoms.numbers[i] != sites.numbers[j])
    gains[i, j] = np.clip(2 * ALONE_FEE - distance[across] ** 2 - fee, 0.0, None)
    rows, columns = linear_sum_assignment(gains, maximize=True)
    kept = gains[rows, columns] > 0
    rows, columns = rows[kept], columns[kept]
    return _Match(rows, columns, vectors[rows, columns], gains, shift)


def inside_layer(atoms: Atoms, added: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """Whether the depth 2 |z - z_mid| / thickness is under 1, per added atom."""
    if not len(matched):
        return np.zeros(len(added), dtype=bool)
    layer = atoms.positions[matched, 2]
    z = atoms.positions[added, 2]
    return (z > layer.min()) & (z < layer.max())


def _doubt(atoms: Atoms, sites: Atoms, match: _Match) -> str:
    """Why the reading is ambiguous; empty where every other one costs clearly more.

    Each part of the reading is forbidden in turn and the rest assigned anew.
    """
    if not match.is_good:
        return (
            f"{len(match.columns)} of {len(sites)} host sites have an atom near them, on average "
            f"{match.rms:.2f} Å away: the layer was rebuilt, or this is not its host"
        )
    for atom in match.atoms_alone:
        gains = match.gains.copy()
        gains[atom] += _BONUS * (gains[atom] > 0)
        if _gain(gains) - _BONUS > match.gain - AMBIGUITY_MARGIN:
            return f"another atom than {_named(atoms, atom)} could as well be the added one"
    for site in match.sites_alone:
        gains = match.gains.copy()
        gains[:, site] += _BONUS * (gains[:, site] > 0)
        if _gain(gains) - _BONUS > match.gain - AMBIGUITY_MARGIN:
            return f"another site than that of {_named(sites, site)} could as well be vacant"
    differs = atoms.numbers[match.rows] != sites.numbers[match.columns]
    for atom, site in zip(match.rows[differs], match.columns[differs], strict=True):
        gains = match.gains.copy()
        gains[atom, site] = 0.0
        if _gain(gains) > match.gain - AMBIGUITY_MARGIN:
            return (
                f"{_named(atoms, atom)} could as well stand elsewhere than on the site of "
                f"{_named(sites, site)}"
            )
    return ""


_BONUS = 1e4  # Å²: more than any sum of matches, so that a match with it is forced


def _gain(gains: np.ndarray) -> float:
    return float(gains[linear_sum_assignment(gains, maximize=True)].sum())


def _named(atoms: Atoms, index: int) -> str:
    return f"{atoms.symbols[index]} {index}"
