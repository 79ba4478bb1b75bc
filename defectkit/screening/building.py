"""Graphs of candidates: what a family has in common is built once.

Candidates of one family differ by an element, and adsorbates by its height too. Where nothing moves
the graph is built once and copied with another element on one node: a hundredth of the time.
"""

from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from defectkit import DefectkitError
from defectkit.data.cleaning import DETACHED_RATIO, loose_atoms
from defectkit.graphs.build import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.periodic import distances
from defectkit.screening.candidates import Chunk, Family
from defectkit.structures.files import list_atoms

SMALLEST = "H"  # where its sphere does not fit, no dopant's does


@dataclass(frozen=True, eq=False)
class Built:
    """A candidate that was made.

    Attributes:
        family: it is of.
        dopant: its own.
        key: its hash.
        atoms: the unrelaxed structure.
        graph: as networks of unrelaxed structures read it, with `key` for its uid; None where it
            has none.
        loose: indices of atoms that nothing holds.
        fault: why it has no graph, in a sentence; else empty.
    """

    family: Family
    dopant: str
    key: str
    atoms: Atoms
    graph: CrystalGraph | None
    loose: tuple[int, ...] = ()
    fault: str = ""

    @property
    def doubt(self) -> str:
        """What speaks against a prediction, in words; empty where nothing does."""
        return f"{list_atoms(self.atoms, self.loose)} without a bond to the rest" * bool(self.loose)


def build(chunk: Chunk, config: GraphConfig) -> Iterator[Built]:
    """Every candidate of a chunk, in order; those whose atoms overlap with a `fault`.

    Args:
        chunk: of candidates.
        config: of the networks, for all atoms. What it says of positions does not count: there are
            unrelaxed ones only.
    """
    config = replace(config, positions="relaxed")
    for family in chunk.families:
        share = None
        # Adsorbates of one site differ in height; of a gap there is one.
        if family.site.has_dopant and not family.site.side:
            with suppress(DefectkitError):
                share = _Shared(family, config)
        for dopant, key in zip(family.dopants, family.keys, strict=True):
            yield share.built(dopant, key) if share else _alone(family, dopant, key, config)


def _alone(family: Family, dopant: str, key: str, config: GraphConfig) -> Built:
    """A candidate whose graph is its own."""
    defect = family.defect(dopant)
    try:
        found = family.recognition(defect)
        graph = build_graph(defect.atoms, config, recognition=found)
    except DefectkitError as error:
        return Built(family, dopant, key, defect.atoms, None, fault=str(error))
    graph.uid = key
    return Built(family, dopant, key, defect.atoms, graph, _loose(defect.atoms, graph))


def _loose(atoms: Atoms, graph: CrystalGraph) -> tuple[int, ...]:
    """Indices of atoms without a bond, or that no edge reaches."""
    isolated = graph.isolated[: len(atoms)].numpy().nonzero()[0]
    return tuple(np.union1d(loose_atoms(atoms), isolated).astype(int).tolist())


class _Shared:
    """The graph of a family whose candidates differ by one element.

    Raises DefectkitError where not even the smallest of atoms has room.
    """

    def __init__(self, family: Family, config: GraphConfig) -> None:
        self.family = family
        defect = family.defect(SMALLEST)
        self.atoms = defect.atoms
        found = family.recognition(defect)
        self.place = int(found.defect_indices[0])  # of the dopant; vacancies follow the atoms
        self.graph = build_graph(self.atoms, config, recognition=found)
        self.near = _neighbours(self.graph, self.place)
        others = np.delete(np.arange(len(self.atoms)), self.place)
        self.unheld = set(others[loose_atoms(self.atoms[others])].tolist())  # but by the dopant
        isolated = self.graph.isolated[: len(self.atoms)].numpy()
        self.isolated = set(isolated.nonzero()[0].tolist())

    def built(self, dopant: str, key: str) -> Built:
        """The candidate with this dopant."""
        atoms = self.atoms.copy()
        z = atomic_numbers[dopant]
        atoms.numbers[self.place] = z
        number, distance = self.near
        reach = covalent_radii[z] + covalent_radii[atoms.numbers[number]]
        if fault := self._overlap(atoms, number, distance, reach / 2):
            return Built(self.family, dopant, key, atoms, None, fault=fault)
        graph = copy(self.graph)
        graph.z = self.graph.z.clone()
        graph.z[self.place] = z
        graph.uid = key
        held = set(number[distance < DETACHED_RATIO * reach].tolist())
        loose = (self.unheld - held) | self.isolated | (set() if held else {self.place})
        return Built(self.family, dopant, key, atoms, graph, tuple(sorted(loose)))

    def _overlap(
        self, atoms: Atoms, number: np.ndarray, distance: np.ndarray, least: np.ndarray
    ) -> str:
        """What `build_graph` would say where an atom is in the dopant; else empty."""
        close = np.flatnonzero(distance < least)
        if not len(close):
            return ""
        k = close[distance[close].argmin()]
        return (
            f"The structure: {list_atoms(atoms, [number[k], self.place])} are {distance[k]:.2f} Å "
            f"apart, less than half the sum of their covalent radii ({least[k]:.2f} Å); remove one "
            "or mend the cell."
        )


def _neighbours(graph: CrystalGraph, node: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) of the atoms with an edge to a node, and their distances (n,) Å."""
    chosen = (graph.edge_index[1] == node) & (graph.z[graph.edge_index[0]] > 0)
    index, shift = graph.edge_index[:, chosen].numpy(), graph.edge_shift[chosen].numpy()
    return index[0], distances(graph.pos.numpy(), graph.cell[0].numpy(), index, shift)
