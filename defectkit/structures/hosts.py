"""Pristine 2D hosts: nine prototype families, built from published lattice constants.

Every host is a slab in the xy plane with its layer centred along z. The lattice constants are
PBE values of the Computational 2D Materials Database (Haastrup et al., 2D Mater. 5, 042002,
2018; Gjerding et al., 2D Mater. 8, 044002, 2021), rounded to 0.01 Å. They are starting points:
`defectkit.data.demo` relaxes each host with the potential that labels the defects.

`hosts_2dmd` are the six hosts of 2DMD as its labels were computed, in their own lattice constants.

`named_host` and `majority_host` find the host that a person or a structure means.

`twin_structures` are pairs of structures that bond lengths cannot tell apart.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from ase.build import graphene, mx2
from ase.geometry import find_mic, minkowski_reduce
from ase.spacegroup import crystal
from matscipy.neighbours import neighbour_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from defectkit import DefectkitError
from defectkit.structures.names import one_line

VACUUM = 16.0  # Å of empty space between a layer and its image along z
MIN_IMAGE_DISTANCE = 9.0  # Å between a defect and its periodic image
MIN_ATOMS = 24
MOST_REPEATS = 24  # of a unit cell, along each vector
PHASE = re.compile(r"^[12][ht](?=-|[a-z])|-[12][ht]$")
EVERYDAY = {  # names that are no formula
    "hbn": "bn",
    "h-bn": "bn",
    "boron nitride": "bn",
    "graphene": "c",
    "phosphorene": "p",
    "black phosphorus": "p",
    "silicene": "si",
    "arsenene": "as",
    "germanane": "geh",
}
MOST_PARTS = 12  # of a supercell along each vector
MOST_SHARE = 0.7  # of the parts of a supercell, and of its atoms, decide what the host is
LEAST_VOTES = 4  # parts of a supercell that can outvote a defect
MOST_PROBES = 200  # atoms that tell whether a supercell can be divided
SAME_SITE = 0.5  # Å: atoms of two parts nearer than this stand on one site
PLATINUM_BONDS = {"Cl": 2.33, "N": 2.05}  # Å


@dataclass(frozen=True)
class Host:
    """A pristine 2D material.

    Attributes:
        name: formula as Imp2d spells it in its `host` key.
        family: prototype name.
        build: makes the unit cell, an `ase.Atoms` in the xy plane (Å).
    """

    name: str
    family: str
    build: Callable[[], Atoms]

    def unit_cell(self) -> Atoms:
        """The unrelaxed unit cell, pbc along the two in-plane vectors."""
        return as_slab(self.build())


def as_slab(atoms: Atoms, vacuum: float = VACUUM) -> Atoms:
    """Centre a layer along z between `vacuum` Å of empty space; periodic in the plane only."""
    atoms = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell)
    thickness = np.ptp(atoms.positions[:, 2])
    cell = atoms.cell.array.copy()
    cell[2] = 0.0, 0.0, thickness + vacuum
    atoms.set_cell(cell)
    atoms.positions[:, 2] += cell[2, 2] / 2 - atoms.positions[:, 2].min() - thickness / 2
    atoms.pbc = True, True, False
    return atoms


def stretched(unit: Atoms, strain: float) -> Atoms:
    """A unit cell stretched by `strain` along both in-plane vectors, and its atoms with it."""
    unit = unit.copy()
    cell = unit.cell.array.copy()  # the array itself is the cell, and would change with it
    cell[:2] *= 1 + strain
    unit.set_cell(cell, scale_atoms=True)
    return unit


def shortest_translation(cell: np.ndarray) -> float:
    """Length (Å) of the shortest non-zero in-plane lattice vector of a 3 x 3 `cell`."""
    reduced, _ = minkowski_reduce(np.asarray(cell, float), pbc=(True, True, False))
    return float(np.linalg.norm(reduced[:2], axis=1).min())


def supercell_size(unit: Atoms, least: float = MIN_IMAGE_DISTANCE) -> tuple[int, int, int]:
    """Smallest n x m x 1 cell with `MIN_ATOMS` atoms and images at least `least` (Å) apart.

    Raises DefectkitError where it would be longer than `MOST_REPEATS` cells.
    """
    a, b = unit.cell.lengths()[:2]
    sizes = []
    for n, m in product(range(1, MOST_REPEATS + 1), repeat=2):
        if abs(a - b) < 1e-3 and n != m:  # keep a hexagonal supercell hexagonal
            continue
        repeated = unit.cell.array * np.array([[n], [m], [1]])
        apart = shortest_translation(repeated) > least - 1e-6  # rounding errors
        if apart and n * m * len(unit) >= MIN_ATOMS:
            sizes.append((n * m, (n, m, 1)))
    if not sizes:
        raise DefectkitError(
            f"No cell of up to {MOST_REPEATS} x {MOST_REPEATS} has images {least:g} Å apart; ask "
            "for less."
        )
    return min(sizes)[1]


def _transition_metal(formula: str, kind: str, a: float, thickness: float) -> Callable[[], Atoms]:
    return lambda: mx2(formula, kind=kind, a=a, thickness=thickness)


def _janus(
    metal: str, top: str, bottom: str, kind: str, a: float, thickness: float
) -> Callable[[], Atoms]:
    def build() -> Atoms:
        atoms = mx2(f"{metal}S2", kind=kind, a=a, thickness=thickness)
        upper = atoms.positions[:, 2] > atoms.positions[0, 2] + 0.1
        atoms.symbols[1:] = [top if up else bottom for up in upper[1:]]
        return atoms

    return build


def _honeycomb(element: str, a: float, buckling: float) -> Callable[[], Atoms]:
    return lambda: graphene(f"{element}2", a=a, thickness=buckling)


def _hydrogenated(element: str, a: float, buckling: float, bond: float) -> Callable[[], Atoms]:
    def build() -> Atoms:
        sheet = graphene(f"{element}2", a=a, thickness=buckling)
        up = np.sign(sheet.positions[:, 2] - sheet.positions[:, 2].mean())
        hydrogen = sheet.positions + np.outer(up * bond, [0, 0, 1])
        return sheet + Atoms("H2", positions=hydrogen)

    return build


def _trihalide(
    metal: str, halogen: str, a: float, half_thickness: float, x: float
) -> Callable[[], Atoms]:
    c = 20.0

    def build() -> Atoms:
        # Layer group p-31m: metal on 2d, halogen on 6k.
        return crystal(
            [metal, halogen],
            [(1 / 3, 2 / 3, 0.5), (x, 0, 0.5 + half_thickness / c)],
            spacegroup=162,
            cellpar=[a, a, c, 90, 90, 120],
        )

    return build


def _phosphorene(a: float, b: float, pucker: float, x: float) -> Callable[[], Atoms]:
    # Rows along b; two puckered half-layers shifted by half a cell.
    scaled = np.array([(x, 0.0), (0.5 - x, 0.5), (0.5 + x, 0.5), (1.0 - x, 0.0)])
    heights = np.array([pucker, pucker, 0.0, 0.0])
    positions = np.column_stack([scaled * [a, b], heights])
    return lambda: Atoms("P4", positions=positions, cell=[a, b, 20.0])


def _monochalcogenide(
    metal: str, chalcogen: str, a: float, inner: float, outer: float
) -> Callable[[], Atoms]:
    """Both metals above each other, `inner` Å apart, and so the chalcogens, `outer` Å."""

    def build() -> Atoms:
        atoms = mx2(f"{metal}{chalcogen}2", kind="2H", a=a, thickness=outer, vacuum=10.0)
        atoms += Atoms(metal, positions=atoms.positions[:1])
        atoms.positions[[0, 3], 2] += inner / 2, -inner / 2
        return atoms

    return build


def _nitride(a: float) -> Atoms:
    atoms = graphene("C2", a=a)
    atoms.symbols = "BN"
    return atoms


def _mxene(metal: str, a: float, metal_height: float, oxygen_height: float) -> Callable[[], Atoms]:
    def build() -> Atoms:
        atoms = graphene("C2", a=a)
        cell = atoms.cell.array.copy()
        cell[2] = 0, 0, 20.0
        third = (cell[0] + 2 * cell[1]) / 3
        other = 2 * third
        up = np.array([0, 0, 1.0])
        return Atoms(
            f"{metal}2CO2",
            cell=cell,
            positions=[
                third + metal_height * up,
                other - metal_height * up,
                0 * up,
                other + oxygen_height * up,
                third - oxygen_height * up,
            ],
        )

    return build


_2H = [
    ("MoS2", 3.18, 3.13),
    ("MoSe2", 3.32, 3.34),
    ("MoTe2", 3.55, 3.61),
    ("WS2", 3.18, 3.14),
    ("WSe2", 3.32, 3.36),
    ("WTe2", 3.55, 3.62),
    ("NbS2", 3.34, 3.12),
    ("NbSe2", 3.47, 3.36),
    ("TaS2", 3.34, 3.12),
]
_1T = [
    ("SnS2", 3.70, 2.96),
    ("SnSe2", 3.86, 3.19),
    ("TiS2", 3.41, 2.85),
    ("ZrS2", 3.68, 2.89),
    ("ZrSe2", 3.79, 3.16),
    ("HfS2", 3.65, 2.89),
    ("HfSe2", 3.77, 3.15),
    ("PtS2", 3.57, 2.46),
    ("PtSe2", 3.75, 2.65),
    ("NiSe2", 3.54, 2.46),
    ("TiO2", 2.99, 1.93),
    ("PbI2", 4.66, 3.72),
]

HOSTS: dict[str, Host] = {
    host.name: host
    for host in [
        *(Host(f, "MoS2 (2H)", _transition_metal(f, "2H", a, t)) for f, a, t in _2H),
        *(Host(f, "CdI2 (1T)", _transition_metal(f, "1T", a, t)) for f, a, t in _1T),
        Host("MoSSe", "MoSSe (Janus 2H)", _janus("Mo", "Se", "S", "2H", 3.25, 3.24)),
        Host("BiITe", "BiTeI (Janus 1T)", _janus("Bi", "I", "Te", "1T", 4.42, 3.80)),
        Host("Si2", "silicene", _honeycomb("Si", 3.85, 0.45)),
        Host("As2", "silicene", _honeycomb("As", 3.61, 1.40)),
        Host("Ge2H2", "graphane", _hydrogenated("Ge", 4.07, 0.73, 1.56)),
        Host("CrI3", "BiI3", _trihalide("Cr", "I", 7.00, 1.57, 0.350)),
        Host("BiI3", "BiI3", _trihalide("Bi", "I", 7.83, 1.80, 0.345)),
        Host("P4", "phosphorene", _phosphorene(4.63, 3.30, 2.10, 0.088)),
        Host("Ti2CO2", "MXene", _mxene("Ti", 3.03, 1.10, 2.23)),
    ]
}

# PBE, rounded to 0.0001 Å, of the pristine cells published with 2DMD (P. Huang et al., npj 2D
# Mater. Appl. 7, 6, 2023). The cells of its two densities are one but for the vacuum.
_2DMD = (
    Host("MoS2", "MoS2 (2H)", _transition_metal("MoS2", "2H", 3.1903, 3.1298)),
    Host("WSe2", "MoS2 (2H)", _transition_metal("WSe2", "2H", 3.3271, 3.3624)),
    Host("BN", "BN", lambda: _nitride(2.5124)),
    Host("GaSe", "GaSe", _monochalcogenide("Ga", "Se", 3.8191, 2.4709, 4.8174)),
    Host("InSe", "GaSe", _monochalcogenide("In", "Se", 4.0965, 2.8341, 5.3691)),
    Host("P", "phosphorene", _phosphorene(4.6009, 3.2999, 2.1062, 0.08856)),
)


def hosts_2dmd() -> dict[str, Atoms]:
    """Unit cells of the six hosts of 2DMD by name, from which its defects are made."""
    return {host.name: host.unit_cell() for host in _2DMD}


def named_host(name: str, known: Mapping[str, Atoms]) -> str:
    """The key of a host that a person names: MoS2, mos2, 2H-MoS2, hBN, phosphorene, ...

    Args:
        name: in any everyday form, with or without the phase (1H and 2H are one in a monolayer).
        known: hosts by name.

    Raises DefectkitError where none is meant, or the phase is another than that of the host.
    """
    text = name.lower().replace("monolayer", "").replace("_", "-").strip(" -")
    phase = PHASE.search(text)
    plain = PHASE.sub("", text).strip(" -")
    wanted = {text, plain, EVERYDAY.get(text), EVERYDAY.get(plain)}
    key = next((key for key, host in known.items() if wanted & _spellings(key, host)), None)
    if key is None:
        raise DefectkitError(
            f"There is no host '{one_line(name)}' here; give its pristine cell as a file, or one "
            f"of {', '.join(known)}."
        )
    family = HOSTS[key].family if key in HOSTS else ""
    if phase and "(" in family:
        meant = phase.group().strip("-").replace("1h", "2h").upper()
        if meant not in family:
            raise DefectkitError(
                f"{key} here is {family}, and {one_line(name)} is not; give the host as a file."
            )
    return key


def _spellings(key: str, host: Atoms) -> set[str]:
    """A host's name and formula, in small letters and in the usual orders."""
    reduced = host.symbols.formula.reduce()[0]
    return {key.lower(), *(reduced.format(order).lower() for order in ("metal", "hill", "reduce"))}


def majority_host(atoms: Atoms) -> Atoms | None:
    """The unit cell of the lattice that most atoms of a supercell follow; None where none is.

    The cell is divided along its two vectors into as many equal parts as its atoms bear: laid over
    each other, at every site of the host most parts have one atom, of one element. Atoms that were
    moved by a defect are outvoted.

    Args:
        atoms: (N,) a layer in the xy plane with a defect; parts are at most `MOST_PARTS` a vector.
    """
    parts = [_parts(atoms, axis) for axis in (0, 1)]
    sizes = [(n, m) for n, m in product(*parts) if n * m >= LEAST_VOTES]
    for n, m in sorted(sizes, key=lambda size: -size[0] * size[1]):
        if (unit := _voted(atoms, n, m)) is not None:
            return unit
    return None


def _parts(atoms: Atoms, axis: int) -> list[int]:
    """Into how many parts a vector can be divided: most atoms then have a like one a part on."""
    scaled = atoms.cell.scaled_positions(atoms.positions)
    probes = slice(None, None, 1 + len(atoms) // MOST_PROBES)
    alike = atoms.numbers[probes, None] == atoms.numbers
    found = [1]
    for n in range(2, MOST_PARTS + 1):
        moved = scaled[probes, None] - scaled
        moved[..., axis] += 1 / n
        moved[..., :2] -= np.round(moved[..., :2])
        near = (np.linalg.norm(moved @ atoms.cell.array, axis=-1) < SAME_SITE) & alike
        if near.any(axis=1).mean() >= MOST_SHARE:
            found.append(n)
    return found


def _voted(atoms: Atoms, n: int, m: int) -> Atoms | None:
    """The unit cell that fills a cell n x m times, as most of its parts have it."""
    cell = atoms.cell.array / [[n], [m], [1]]
    folded = Atoms(atoms.numbers, positions=atoms.positions, cell=cell, pbc=(True, True, False))
    first, second = neighbour_list("ij", folded, SAME_SITE)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms),) * 2)
    numbers, places, votes = [], [], 0
    labels = connected_components(graph, directed=False)[1]
    for label in range(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        kinds, counts = np.unique(atoms.numbers[members], return_counts=True)
        members = members[atoms.numbers[members] == kinds[counts.argmax()]]
        away = atoms.positions[members] - atoms.positions[members[0]]
        away = find_mic(away, cell, pbc=(True, True, False))[0]
        middle = np.median(away, axis=0)
        near = (np.linalg.norm(away - middle, axis=1) < SAME_SITE).sum()
        if near < MOST_SHARE * n * m:  # a chain of places, not one
            continue
        numbers.append(kinds[counts.argmax()])
        places.append(atoms.positions[members[0]] + middle)
        votes += near
    if not numbers or votes < MOST_SHARE * len(atoms):
        return None
    return Atoms(numbers, positions=places, cell=cell, pbc=(True, True, False))


def twin_structures() -> dict[str, Atoms]:
    """Cis and trans, 1H and 1T: pairs with all first neighbours at the same distances.

    Platinum in a square of two chlorines and two nitrogens, which are neighbours (cis) or opposite
    (trans); and unit cells of MoS2 with the lower sulfur in either hollow (1H and 1T). Atom 0 is
    the metal.
    """
    octahedral = HOSTS["MoS2"].unit_cell()
    octahedral.positions[2, :2] *= -1  # atom 0 is at the origin, atom 2 the lower sulfur
    return {
        "cis": _square_of("Cl", "Cl", "N", "N"),
        "trans": _square_of("Cl", "N", "Cl", "N"),
        "1H": HOSTS["MoS2"].unit_cell(),
        "1T": octahedral,
    }


def _square_of(*ligands: str) -> Atoms:
    arms = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    ends = arms * [[PLATINUM_BONDS[symbol]] for symbol in ligands]
    return Atoms(["Pt", *ligands], [[0, 0, 0], *ends], cell=[20, 20, 20], pbc=[True, True, False])
