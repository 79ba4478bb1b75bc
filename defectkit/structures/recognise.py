"""Finds the defect of a supercell by matching it to the pristine host.

Atoms are assigned to host sites by the cheapest periodic assignment (the Hungarian method of
`scipy.optimize.linear_sum_assignment`): a match costs its squared distance, plus a fee where
the elements differ; an atom or a site left alone costs a fee too. What is left alone is an
added atom or a vacancy, what is matched across elements is a substitution. Neither the order
of the atoms nor rounded coordinates matter.
"""

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from scipy.optimize import linear_sum_assignment

from defectkit import DefectkitError
from defectkit.records import SiteKind

MATCH_RADIUS = 2.0  # Å: how far an atom may relax from its site
ALONE_FEE = MATCH_RADIUS**2 / 2  # Å², for an atom without site or a site without atom
OTHER_ELEMENT_FEE = 1.0  # Å²: a dopant takes a site rather than push its atom 1 Å further
AMBIGUITY_MARGIN = 0.2  # Å²: readings this close in cost cannot be told apart
MAX_MISFIT = 0.05  # strain between a supercell and the tiled host
GOOD_SHARE, GOOD_RMS = 0.8, 0.7  # of the sites found, and Å: the layer is where it should be
DRIFT_ROUNDS = 10


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
    """

    site_kind: np.ndarray
    original_z: np.ndarray
    ideal_positions: np.ndarray
    vacancy_positions: np.ndarray
    vacancy_z: np.ndarray
    ambiguous: bool
    reason: str

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

    `pristine` is the host's unit cell or a supercell of any size; it is tiled and strained to
    the cell of `atoms`, and a shift between the two is found and taken out. Both are layers in
    the xy plane (`defectkit.structures.files.as_layer`). An added atom is an interstitial where
    it lies within the thickness of the matched layer, else an adsorbate.

    Raises DefectkitError where the cell of `atoms` is no supercell of the host.
    """
    sites = tile_host(pristine, atoms)
    match = _best_match(atoms, sites)
    added = match.atoms_alone
    site_of = np.full(len(atoms), -1)
    site_of[match.rows] = match.columns
    original_z = np.where(site_of >= 0, sites.numbers[site_of], 0)
    replaced = (site_of >= 0) & (original_z != atoms.numbers)

    site_kind = np.full(len(atoms), int(SiteKind.HOST))
    site_kind[replaced] = SiteKind.SUBSTITUTION
    site_kind[added] = np.where(
        _inside_layer(atoms, added, match.rows), SiteKind.INTERSTITIAL, SiteKind.ADSORBATE
    )
    ideal = atoms.positions.copy()
    ideal[match.rows] += match.vectors
    vacant = match.sites_alone
    reason = _doubt(atoms, sites, match)
    return Recognition(
        site_kind=site_kind,
        original_z=original_z,
        ideal_positions=ideal,
        vacancy_positions=sites.positions[vacant] + match.shift,
        vacancy_z=sites.numbers[vacant],
        ambiguous=bool(reason),
        reason=reason,
    )


def tile_host(pristine: Atoms, atoms: Atoms) -> Atoms:
    """`pristine` repeated and strained in the plane to fill the cell of `atoms`; z is kept.

    Raises DefectkitError where no integer repetition comes within `MAX_MISFIT` of that cell.
    """
    cell, unit = _plane(atoms), _plane(pristine)
    repeat = np.rint(cell @ np.linalg.inv(unit))
    misfit = np.linalg.norm(repeat @ unit - cell, axis=1) / np.linalg.norm(cell, axis=1)
    if misfit.max() <= MAX_MISFIT and np.linalg.det(repeat) < 0:
        raise DefectkitError(
            f"The cell of {atoms.symbols} is a mirror image of that of the host "
            f"{pristine.symbols}; exchange its first two vectors, or mirror the host as well."
        )
    if round(np.linalg.det(repeat)) < 1 or misfit.max() > MAX_MISFIT:
        raise DefectkitError(
            f"The cell of {atoms.symbols} ({_lengths(atoms)} Å) is no supercell of the host "
            f"{pristine.symbols} ({_lengths(pristine)} Å): the best fit is {misfit.max():.0%} "
            "off; check the host and the lattice constants."
        )
    matrix = np.eye(3)
    matrix[:2, :2] = repeat
    tiled = make_supercell(pristine, matrix)
    scaled = tiled.cell.scaled_positions(tiled.positions)[:, :2]
    positions = tiled.positions.copy()
    positions[:, :2] = scaled @ atoms.cell.array[:2, :2]
    return Atoms(tiled.numbers, positions=positions, cell=atoms.cell, pbc=(True, True, False))


def _plane(atoms: Atoms) -> np.ndarray:
    """The in-plane cell, (2, 2) Å, turned so that its first vector lies along x."""
    a, b = atoms.cell.array[:2]
    if abs(a[2]) + abs(b[2]) > 1e-3 or np.abs(atoms.cell.array[2, :2]).max() > 1e-3:
        raise DefectkitError(
            f"The cell of {atoms.symbols} is not that of a layer in the xy plane; "
            "pass it through defectkit.structures.files.as_layer first."
        )
    length = np.hypot(*a[:2])
    return np.array([[length, 0.0], [a @ b / length, (a[0] * b[1] - a[1] * b[0]) / length]])


def _lengths(atoms: Atoms) -> str:
    return " x ".join(f"{length:.2f}" for length in atoms.cell.lengths()[:2])


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
        return np.setdiff1d(np.arange(self.gains.shape[0]), self.rows)

    @property
    def sites_alone(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.gains.shape[1]), self.columns)

    @property
    def is_good(self) -> bool:
        """Whether most sites have an atom close by."""
        found = len(self.columns) >= GOOD_SHARE * self.gains.shape[1]
        return found and self.rms < GOOD_RMS

    @property
    def rms(self) -> float:
        """Root mean square distance (Å) of the atoms from their sites."""
        return float(np.sqrt((self.vectors**2).sum(axis=1).mean()))


def _best_match(atoms: Atoms, sites: Atoms) -> _Match:
    """The match with drift taken out; a search over origins where the layer is elsewhere."""
    match = _settled_match(atoms, sites, np.zeros(3))
    if match.is_good:
        return match
    shared = np.isin(sites.numbers, atoms.numbers)
    kinds, counts = np.unique(sites.numbers[shared], return_counts=True)
    if not len(kinds):
        raise DefectkitError(f"{atoms.symbols} has no atom of the host {sites.symbols}.")
    rarest = kinds[counts.argmin()]
    origin = sites.positions[sites.numbers == rarest][0]
    shifts = atoms.positions[atoms.numbers == rarest] - origin
    return max((_settled_match(atoms, sites, s) for s in shifts), key=lambda m: m.gain)


def _settled_match(atoms: Atoms, sites: Atoms, shift: np.ndarray) -> _Match:
    """Match, move the sites by the median displacement, and again until nothing moves."""
    match = _match(atoms, sites, shift)
    for _ in range(DRIFT_ROUNDS):
        if not len(match.rows):
            break
        drift = -_geometric_median(match.vectors)
        if np.abs(drift).max() < 1e-3:
            # Too little to change who stands where.
            return replace(match, vectors=match.vectors + drift, shift=match.shift + drift)
        match = _match(atoms, sites, match.shift + drift)
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


def _inside_layer(atoms: Atoms, added: np.ndarray, matched: np.ndarray) -> np.ndarray:
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
            here, there = _named(atoms, atom), _named(sites, site)
            return f"{here} could as well stand elsewhere than on the site of {there}"
    return ""


_BONUS = 1e4  # Å²: more than any sum of matches, so that a match with it is forced


def _gain(gains: np.ndarray) -> float:
    return float(gains[linear_sum_assignment(gains, maximize=True)].sum())


def _named(atoms: Atoms, index: int) -> str:
    return f"{atoms.symbols[index]} {index}"
