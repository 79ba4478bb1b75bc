"""Point-defect sites of a 2D host and the supercells that hold them.

Adsorption sites come from pymatgen's `AdsorbateSiteFinder`. Interstitial sites are Voronoi
vertices inside the layer, reduced by the host's own symmetry; pymatgen-analysis-defects offers
the same idea for bulk crystals, but its vertices in the vacuum of a slab have to be filtered
anyway and it would bring scikit-image into every installation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list
from scipy.spatial import Voronoi, cKDTree

from defectkit import DefectkitError
from defectkit.structures.files import is_structure, write_structure
from defectkit.structures.hosts import MIN_IMAGE_DISTANCE, supercell_size
from defectkit.structures.names import one_line
from defectkit.structures.writing import make_folder

KINDS = ("adsorbate", "interstitial", "substitution", "vacancy", "complex")
NEIGHBOUR_CUTOFF = 4.2  # Å, the longest distance that still counts as a near-neighbour pair
EQUALLY_FAR = 1.03  # times the distance of the nearest atom
CLEARANCE = 0.9  # Å, the least distance between an interstitial site and an atom
ADSORPTION = ("ontop", "bridge", "hollow")  # in the order of their numbers
SHELL = 12  # nearest atoms that tell places apart
SAME_PLACE = 0.005  # Å, or fraction of a lattice vector: smaller differences are rounding errors


@dataclass(frozen=True)
class DefectSite:
    """One symmetry-distinct place for a defect in a host's unit cell.

    Attributes:
        name: `ads0`, `int1`, `sub0`, `vac1`, `div2` (a pair of vacancies), `cpx0` (a vacancy
            beside a substitution); numbered within a host.
        kind: one of `KINDS`.
        point: where an atom is added, Å in the unit cell; its z is not used for adsorbates.
        side: +1 above the layer, -1 below it, 0 for everything but adsorbates.
        substituted: (atom, image) of the atom that the dopant replaces.
        vacancies: (atom, image) of every atom that is taken out. An image is the integer
            lattice shift of the unit cell that holds the atom.
    """

    name: str
    kind: str
    point: tuple[float, float, float] | None = None
    side: int = 0
    substituted: tuple[int, tuple[int, int, int]] | None = None
    vacancies: tuple[tuple[int, tuple[int, int, int]], ...] = ()

    @property
    def has_dopant(self) -> bool:
        """Whether an impurity atom belongs to the defect."""
        return self.point is not None or self.substituted is not None


@dataclass(frozen=True)
class Defect:
    """An unrelaxed defect supercell.

    Attributes:
        atoms: the supercell; an added atom is the last one, a substituted one keeps its place.
        removed: symbols of the host atoms that were taken out or replaced.
        positions: (k, 3) Å, where the defect is: the added or replaced atom first, then the
            vacated sites.
    """

    atoms: Atoms
    removed: tuple[str, ...]
    positions: np.ndarray


def find_sites(unit: Atoms) -> list[DefectSite]:
    """All symmetry-distinct defect sites of a host's unit cell (a slab in the xy plane)."""
    return [
        *_adsorption_sites(unit),
        *_interstitial_sites(unit),
        *_substitution_sites(unit),
        *_vacancy_sites(unit),
        *_pair_sites(unit),
    ]


def named_sites(unit: Atoms, places: dict[str, np.ndarray]) -> list[DefectSite]:
    """The sites of `find_sites`, under the names that they have in other data.

    Args:
        unit: the host's unit cell.
        places: (k, 3) Å by name, such as "ads0": where that site is, in any cell of the host, as
            `Defect.positions` but with the points of a pair side by side.

    A site that is at none of the places gets a number that none of them has.
    """
    free, named = dict(places), {}
    sites = find_sites(unit)
    for number, site in enumerate(sites):
        own = _points(unit, site)
        for name in [name for name in free if name[:3] == site.name[:3]]:
            place = np.array(free[name], float)
            if site.side:  # the height depends on the dopant
                place[:, 2] = _outside(unit, np.sign(place[0, 2] - _middle(unit)))
            orders = (place, place[::-1]) if site.name.startswith("div") else (place,)
            if any(len(_distinct(unit, [own, order])) == 1 for order in orders):
                named[number] = name
                del free[name]
                break
    for number, site in enumerate(sites):
        names = (f"{site.name[:3]}{k}" for k in count())
        taken = {*places, *named.values()}
        named.setdefault(number, next(name for name in names if name not in taken))
    return [replace(site, name=named[number]) for number, site in enumerate(sites)]


def _points(unit: Atoms, site: DefectSite) -> np.ndarray:
    """(k, 3) Å in the unit cell: the added or replaced atom, then the vacancies."""
    points = [] if site.point is None else [np.array(site.point)]
    atoms = [] if site.substituted is None else [site.substituted]
    points += [
        unit.positions[k] + image @ unit.cell.array for k, image in (*atoms, *site.vacancies)
    ]
    return np.array(points)


def find_site(unit: Atoms, kind: str, removed: str) -> DefectSite:
    """The first site of `find_sites` of a kind that takes out the elements `removed`.

    A site's number does not say which element is missing: `vac0` of MoS2 lacks the metal, `vac0` of
    another host something else.

    Args:
        unit: the host's unit cell.
        kind: one of `KINDS`.
        removed: as in the column of that name, the replaced atom first: "S", or "Mo,S".

    Raises DefectkitError where the host has no such site.
    """
    sites = [site for site in find_sites(unit) if site.kind == kind]
    for site in sites:
        if _removed(unit, site) == removed:
            return site
    choices = sorted({_removed(unit, site) or "nothing" for site in sites})
    raise DefectkitError(
        f"{unit.get_chemical_formula()} has no {kind} that takes out {removed or 'nothing'}; "
        f"choose from {', '.join(choices) or 'another kind'}."
    )


def defects_of(
    unit: Atoms,
    vacancies: Sequence[str] = (),
    substitute: Mapping[str, str] | None = None,
    add: str = "",
    place: str = "",
    least: float = MIN_IMAGE_DISTANCE,
) -> dict[str, Defect]:
    """Unrelaxed cells with a defect on every symmetry-distinct site where it can be.

    One vacancy, two side by side, a substitution, a vacancy beside one, or an added atom.

    Args:
        unit: the host's unit cell.
        vacancies: symbols of what is taken out, two at most.
        substitute: symbol of what takes its place, by that of the atom that is there.
        add: symbol of an added atom.
        place: of the added atom: "ontop", "bridge" or "hollow" for adsorbates, "inside", or the
            name of a site; of another defect the name of a site alone. All where it is not given.
        least: Å between a defect and its periodic image.

    Returns:
        The defects by name of the site.

    Raises DefectkitError for another combination, elements that are not there or unknown, and
    where there is no such site.
    """
    old, new = next(iter((substitute or {}).items()), ("", ""))
    _check_wish(unit, vacancies, substitute or {}, add)
    if add:
        wanted = {"adsorbate": [""], "interstitial": [""]}
    elif old:
        wanted = (
            {"complex": [f"{old},{gap}" for gap in vacancies]}
            if vacancies
            else {"substitution": [old]}
        )
    else:
        wanted = {"vacancy": [",".join(vacancies), ",".join(vacancies[::-1])]}
    repeat = supercell_size(unit, least)
    found = {
        site.name: make_defect(unit, repeat, site, add or new)
        for site in find_sites(unit)
        if _removed(unit, site) in wanted.get(site.kind, ())
        and place in ("", site.name, place_of(unit, site))
    }
    if not found:
        raise DefectkitError(
            f"{unit.symbols.formula.reduce()[0]:metal} has no such site{place and ' ' + place}; "
            f"its sites are {', '.join(site.name for site in find_sites(unit))}."
        )
    return found


def write_defects(defects: Mapping[str, Defect], path: Path) -> list[Path]:
    """Write one defect to a file, or all to a folder, a POSCAR each; the files."""
    if is_structure(path):
        if len(defects) > 1:
            raise DefectkitError(
                f"There are {len(defects)} sites, {', '.join(defects)}; choose one, or name a "
                "folder."
            )
        return [write_structure(one.atoms, path) for one in defects.values()]
    make_folder(path)
    return [
        write_structure(one.atoms, path / f"{one.atoms.symbols.formula:metal}_{name}.vasp")
        for name, one in defects.items()
    ]


def place_of(unit: Atoms, site: DefectSite) -> str:
    """Where an added atom is: ontop, bridge, hollow or inside; empty for other defects.

    The first three by the number of nearest atoms of an adsorbate; an interstitial is inside.
    """
    if site.kind == "interstitial":
        return "inside"
    if site.kind != "adsorbate":
        return ""
    layer = unit.repeat((3, 3, 1))
    point = np.array(site.point) + unit.cell.array[:2].sum(axis=0)
    point[2] = adsorption_height(layer, point[:2], "H", site.side)
    apart = np.linalg.norm(layer.positions - point, axis=1)
    return {1: "ontop", 2: "bridge"}.get(int((apart < EQUALLY_FAR * apart.min()).sum()), "hollow")


def _check_wish(
    unit: Atoms, vacancies: Sequence[str], substitute: Mapping[str, str], add: str
) -> None:
    """DefectkitError for what `defects_of` does not make."""
    single = bool(add) + bool(vacancies or substitute)
    if single != 1 or len(substitute) > 1 or len(vacancies) > 2 - len(substitute):
        raise DefectkitError(
            "Ask for one defect: a vacancy or two, a substitution with a vacancy or without, or an "
            "added atom."
        )
    for symbol in (*vacancies, *substitute):
        if symbol not in unit.symbols:
            raise DefectkitError(
                f"There is no {symbol} in {unit.symbols.formula.reduce()[0]:metal}; its elements "
                f"are {', '.join(sorted(set(unit.symbols)))}."
            )
    for symbol in filter(None, (add, *substitute.values())):
        if symbol not in atomic_numbers or symbol == "X":
            raise DefectkitError(f"There is no element {one_line(symbol)}; give a symbol as Cr.")


def _removed(unit: Atoms, site: DefectSite) -> str:
    places = [site.substituted] if site.substituted is not None else []
    return ",".join(unit.symbols[atom] for atom, _ in [*places, *site.vacancies])


def make_defect(unit: Atoms, repeat: tuple[int, int, int], site: DefectSite, dopant: str) -> Defect:
    """Build the unrelaxed supercell with `dopant` at `site` (ignored where there is none)."""
    atoms = unit.repeat(repeat)
    positions, removed = [], []
    if site.substituted is not None:
        index = supercell_index(unit, repeat, *site.substituted)
        positions.append(atoms.positions[index].copy())
        removed.append(atoms[index].symbol)
        atoms[index].symbol = dopant
    gaps = [supercell_index(unit, repeat, *vacancy) for vacancy in site.vacancies]
    positions.extend(atoms.positions[gaps].copy())
    removed.extend(atoms.symbols[gaps])
    del atoms[gaps]
    if site.point is not None:
        point = np.array(site.point)
        if site.side:
            point[2] = adsorption_height(atoms, point[:2], dopant, site.side)
        positions.append(point)
        atoms += Atoms(dopant, positions=[point])
    return Defect(atoms, tuple(removed), np.array(positions))


def adsorption_height(atoms: Atoms, xy: np.ndarray, dopant: str, side: int) -> float:
    """Height z (Å) at which a dopant above `xy` touches the layer's covalent spheres.

    z = max_i [z_i + sqrt((r_i + r_dopant)^2 - rho_i^2)] over atoms and images whose in-plane
    distance rho_i is shorter than the sum of covalent radii; mirrored for `side` -1. A dopant so
    small that it would fall between the outermost atoms stays level with them.
    """
    lateral = np.array([i * atoms.cell[0] + j * atoms.cell[1] for i in _IMAGES for j in _IMAGES])
    rho2 = ((atoms.positions[:, None, :2] + lateral[:, :2] - xy) ** 2).sum(-1)
    contact2 = (covalent_radii[atoms.numbers] + covalent_radii[atomic_numbers[dopant]]) ** 2
    outward = side * atoms.positions[:, 2]
    atom, image = np.nonzero(contact2[:, None] > rho2)
    touching = outward[atom] + np.sqrt(contact2[atom] - rho2[atom, image])
    return side * float(np.max([outward.max(), *touching]))


_IMAGES = (-1, 0, 1)


def supercell_index(
    unit: Atoms, repeat: tuple[int, int, int], atom: int, image: tuple[int, int, int]
) -> int:
    """Index in `unit.repeat(repeat)` of a unit-cell atom in another cell."""
    i, j, k = (int(s) % r for s, r in zip(image, repeat, strict=True))
    return ((i * repeat[1] + j) * repeat[2] + k) * len(unit) + atom


def _symmetry(unit: Atoms) -> tuple[np.ndarray, np.ndarray]:
    cell = (unit.cell.array, unit.get_scaled_positions(wrap=False), unit.numbers)
    operations = spglib.get_symmetry(cell, symprec=0.05)
    return operations["rotations"], operations["translations"]


def _distinct(unit: Atoms, candidates: list[np.ndarray], tolerance: float = 0.15) -> list[int]:
    """Indices of the candidates, (k, 3) Å each, that no symmetry operation maps onto each other."""
    rotations, translations = _symmetry(unit)
    kept: list[int] = []
    for index, candidate in enumerate(candidates):
        scaled = unit.cell.scaled_positions(candidate)  # (k, 3)
        images = np.einsum("oij,kj->oki", rotations, scaled) + translations[:, None]
        for other in kept:
            gap = images - unit.cell.scaled_positions(candidates[other])
            gap -= np.round(gap[:, :1])  # one lattice vector for the whole group of points
            distances = np.linalg.norm(gap @ unit.cell.array, axis=-1).max(axis=1)
            if distances.min() < tolerance:
                break
        else:
            kept.append(index)
    return kept


def _in_order(unit: Atoms, points: np.ndarray, *first: np.ndarray) -> np.ndarray:
    """The points, (n, 3) Å, moved into the cell and sorted: the same on every processor.

    They are sorted by the integers of `first`, then by distances from the nearest atoms, then by
    their coordinates.
    Triangulations list places in an order that rounding errors choose: the numbers of sites, and
    the place that stands for its symmetric copies, must not depend on them.
    """
    scaled = unit.cell.scaled_positions(points)
    scaled[:, :2] %= 1
    scaled[scaled > 1 - SAME_PLACE] -= 1
    points = scaled @ unit.cell.array
    shifts = np.array([(i, j, 0) for i in range(-3, 4) for j in range(-3, 4)]) @ unit.cell.array
    crystal = (unit.positions[None] + shifts[:, None]).reshape(-1, 3)
    shells = cKDTree(crystal).query(points, k=SHELL)[0]
    keys = [*first, *map(_ranks, shells.T), *map(_ranks, scaled.T)]
    return points[np.lexsort(keys[::-1])].round(6) + 0.0  # no noise, no negative zeros


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value; consecutive values less than `SAME_PLACE` apart share a rank."""
    order = values.argsort()
    ranks = np.empty(len(values), dtype=int)
    ranks[order] = np.cumsum(np.diff(values[order], prepend=values[order][:1]) > SAME_PLACE)
    return ranks


def _adsorption_sites(unit: Atoms) -> Iterator[DefectSite]:
    # Imported where sites are looked for: pymatgen's neighbours take two seconds to load.
    from pymatgen.analysis.adsorption import AdsorbateSiteFinder
    from pymatgen.io.ase import AseAtomsAdaptor

    points, sides = [], []
    for side in (1, -1):
        layer = unit.copy()
        layer.positions[:, 2] = side * (unit.positions[:, 2] - unit.cell[2, 2] / 2)
        layer.positions[:, 2] += unit.cell[2, 2] / 2
        layer.pbc = True
        finder = AdsorbateSiteFinder(AseAtomsAdaptor.get_structure(layer), mi_vec=(0, 0, 1))
        found = finder.find_adsorption_sites(symm_reduce=0, positions=ADSORPTION)
        for place in ADSORPTION:
            above = np.array(found[place]).reshape(-1, 3)
            above[:, 2] = _outside(unit, side)
            points += list(_in_order(unit, above)[:, None])
            sides += [side] * len(above)
    for number, index in enumerate(_distinct(unit, points)):
        yield DefectSite(
            f"ads{number}", "adsorbate", tuple(map(float, points[index][0])), sides[index]
        )


def _outside(unit: Atoms, side: int) -> float:
    """Height (Å) of a point on one side of the layer, to tell the sides apart."""
    z = unit.positions[:, 2]
    return (z.max() if side > 0 else z.min()) + 2.0 * side


def _middle(unit: Atoms) -> float:
    z = unit.positions[:, 2]
    return (z.max() + z.min()) / 2


def _interstitial_sites(unit: Atoms) -> Iterator[DefectSite]:
    shifts = np.array([(i, j, 0) for i in range(-3, 4) for j in range(-3, 4)])
    crystal = (unit.positions[None] + (shifts @ unit.cell.array)[:, None]).reshape(-1, 3)
    if np.ptp(unit.positions[:, 2]) < SAME_PLACE:  # a flat sheet has its places in its plane
        vertices = Voronoi(crystal[:, :2]).vertices
        vertices = np.column_stack([vertices, np.full(len(vertices), unit.positions[0, 2])])
    else:
        vertices = Voronoi(crystal).vertices
    scaled = unit.cell.scaled_positions(vertices)
    z = unit.positions[:, 2]
    room = cKDTree(crystal).query(vertices)[0]
    inside = (
        (np.abs(scaled[:, :2] - 0.5) < 0.5 + 1e-3).all(axis=1)
        & (vertices[:, 2] > z.min() - 1e-3)
        & (vertices[:, 2] < z.max() + 1e-3)
        & (room > CLEARANCE)
    )
    # Vertices of one cavity lie close together: keep the roomiest of each.
    points = _in_order(unit, vertices[inside], _ranks(-room[inside]))[:, None]
    for number, index in enumerate(_distinct(unit, list(points), tolerance=0.6)):
        yield DefectSite(f"int{number}", "interstitial", tuple(map(float, points[index][0])))


def _substitution_sites(unit: Atoms) -> Iterator[DefectSite]:
    for number, atom in enumerate(_distinct(unit, list(unit.positions[:, None]))):
        yield DefectSite(f"sub{number}", "substitution", substituted=(atom, (0, 0, 0)))


def _vacancy_sites(unit: Atoms) -> Iterator[DefectSite]:
    for number, atom in enumerate(_distinct(unit, list(unit.positions[:, None]))):
        yield DefectSite(f"vac{number}", "vacancy", vacancies=((atom, (0, 0, 0)),))


def _pair_sites(unit: Atoms) -> Iterator[DefectSite]:
    """Pairs of near neighbours: two vacancies, or a vacancy beside a substitution."""
    cutoff = min(NEIGHBOUR_CUTOFF, 1.05 * unit.cell.lengths()[:2].min())
    first, second, images, distances = neighbor_list("ijSd", unit, cutoff)
    order = np.lexsort([*images.T, second, _ranks(distances), first])  # on every processor
    first, second, images = first[order], second[order], images[order]
    second_positions = unit.positions[second] + images @ unit.cell.array
    ordered = list(np.stack([unit.positions[first], second_positions], axis=1))
    pairs = _distinct(unit, ordered)
    unordered: list[int] = []
    for index in pairs:
        flipped = ordered[index][::-1]
        others = [ordered[k] for k in unordered]
        if len(_distinct(unit, [*others, flipped])) > len(others):
            unordered.append(index)
    for number, index in enumerate(unordered):
        image = tuple(map(int, images[index]))
        vacancies = ((int(first[index]), (0, 0, 0)), (int(second[index]), image))
        yield DefectSite(f"div{number}", "vacancy", vacancies=vacancies)
    for number, index in enumerate(pairs):
        image = tuple(map(int, images[index]))
        yield DefectSite(
            f"cpx{number}",
            "complex",
            substituted=(int(second[index]), image),
            vacancies=((int(first[index]), (0, 0, 0)),),
        )
