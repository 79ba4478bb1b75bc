"""From a structure to the graph that every model here reads.

Positions, cell and integer image shifts are stored; no length and no angle is (see
`defectkit.graphs.geometry`). Axes: N nodes (the atoms in their order, then the vacancies),
E edges, T pairs of edges, P pairs of nodes, S lattice self-edges, B graphs, K = `MAX_BONDS`.

With `GraphConfig(nodes="defects")` the nodes are the defect's own sites, three instead of 190 in
a cell of 2DMD (sparse representation; Kazeev et al., npj Comput. Mater. 9, 113, 2023). What the
host is, they are told by vectors to their nearest sites of the pristine host, not by its name.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import Tensor
from torch_geometric.data import Data

from defectkit import DefectkitError
from defectkit.graphs import periodic
from defectkit.structures.files import check_atoms, list_atoms
from defectkit.structures.recognise import Recognition, recognise, recognised
from defectkit.structures.record import MOMENT_FLOOR, DefectRecord, SiteKind

MAX_ALL_PAIRS = 2000  # nodes: four million pairs, 150 MB
POSITIONS = ("relaxed", "unrelaxed")
NODES = ("atoms", "defects")
PAIR_NODES = ("all", "defects")
MAX_BONDS = 12  # of a site, as in a close packing
SHELL = 1.2  # bonds up to so many times the shortest; the next are 1.29 times as long or more


@dataclass(frozen=True)
class GraphConfig:
    """What a graph holds.

    Attributes:
        cutoff: Å, the reach of local edges.
        neighbours: where given, local edges lead to this many nearest neighbours and all others
            as near as the last of them, and `cutoff` is not used.
        angle_cutoff: Å, edges shorter than this form angles; None for a graph without angles.
        all_pairs: whether pairs of nodes are listed, each through its minimum image.
        image_radius: Å; where given, pairs are all images within it instead.
        positions: "relaxed", or "unrelaxed" for those before relaxation (records only).
        virtual_nodes: whether a vacancy is a node; False leaves the atom out and no more.
        nodes: "atoms" with the vacancies, or "defects" for the sites of the defect alone.
        pair_nodes: "all", or "defects" for pairs that lead from every node to those of the defect.
    """

    cutoff: float = 5.0
    neighbours: int | None = None
    angle_cutoff: float | None = 4.0
    all_pairs: bool = True
    image_radius: float | None = None
    positions: str = "relaxed"
    virtual_nodes: bool = True
    nodes: str = "atoms"
    pair_nodes: str = "all"

    def __post_init__(self) -> None:
        for name in ("cutoff", "neighbours", "angle_cutoff", "image_radius"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DefectkitError(f"{name} is {value}; it must be above zero.")
        if self.positions not in POSITIONS:
            raise DefectkitError(f"positions is '{self.positions}'; use one of {POSITIONS}.")
        if self.nodes not in NODES:
            raise DefectkitError(f"nodes is '{self.nodes}'; use one of {NODES}.")
        if self.pair_nodes not in PAIR_NODES:
            raise DefectkitError(f"pair_nodes is '{self.pair_nodes}'; use one of {PAIR_NODES}.")
        if self.nodes == "defects" and not self.virtual_nodes:
            raise DefectkitError(
                "nodes='defects' without virtual_nodes would lose the vacancies; set one of "
                "them back."
            )
        longest = np.inf if self.neighbours else self.cutoff
        if self.angle_cutoff is not None and self.angle_cutoff > longest:
            raise DefectkitError(
                f"angle_cutoff is {self.angle_cutoff} Å and cutoff {self.cutoff} Å: angles lie "
                "between local edges; make it no longer than the cutoff."
            )


class CrystalGraph(Data):
    """One structure, or several batched by PyG's `DataLoader` or `Batch`.

    An edge leads from a sender (row 0 of an index) to a receiver (row 1), and its shift tells
    which periodic image of the sender is meant.

    Attributes:
        z: (N,) atomic number, 0 for a vacancy.
        original_z: (N,) what stood there in the host, 0 for an added atom.
        site_kind: (N,) `SiteKind`.
        pos: (N, 3) Å; a vacancy's is the site of the missing atom.
        ideal_pos: (N, 3) Å, the node's site in the pristine host; `pos` for an added atom and
            where no host was given.
        cell: (B, 3, 3) Å, vectors as rows.
        edge_index, edge_shift: (2, E), (E, 3) local edges.
        angle_index: (2, T) pairs of local edges that meet at their receiver.
        pair_index, pair_shift: (2, P), (P, 3) pairs for global attention: each graph's n nodes
            with all of them, or with those of its defect, in row-major order of (receiver,
            sender), a node with itself included; or all images within the radius.
        lattice_index, lattice_shift: (2, S), (S, 3) self-edges that carry the lattice.
        isolated: (N,) whether no local edge reaches the node.
        ambiguous: (B,) whether the defect could be read in another way.
        y_eform: (B,) formation energy in eV, NaN where unknown.
        y_spin: (B,) magnetic moment in μB, NaN where unknown.
        y_site_spin: (N,) size of the node's own moment in μB, zero below `MOMENT_FLOOR` and for a
            vacancy, NaN where unknown. Their sum is `y_spin`, or they are unknown.
        uid: the record's id, a list of them in a batch; empty without a record.

    Without angles or pairs in the `GraphConfig` their keys are absent. Graphs of the defect's
    sites have no `y_site_spin`, and two more:

    * host_bonds: (N, K, 3) Å, from `ideal_pos` to the nearest sites of the pristine host, those
      up to `SHELL` times as far as the nearest; then zeros.
    * host_bonds_z: (N, K) atomic numbers of these sites, then zeros.
    """

    @property
    def is_defect(self) -> Tensor:
        """(N,) whether a node is anything but the host's own atom on its site."""
        return self.site_kind != SiteKind.HOST

    @property
    def is_vacancy(self) -> Tensor:
        """(N,) whether a node is a vacancy, delta_vac of equation (10)."""
        return self.site_kind == SiteKind.VACANCY

    def __inc__(self, key: str, value: object, *args: object, **kwargs: object) -> int:
        if key == "angle_index":  # counts edges, where PyG takes every index to count nodes
            return self.edge_index.shape[1]
        return super().__inc__(key, value, *args, **kwargs)


def build_graph(
    structure: DefectRecord | Atoms,
    config: GraphConfig | None = None,
    host: Atoms | None = None,
    recognition: Recognition | None = None,
    dtype: torch.dtype = torch.float32,
) -> CrystalGraph:
    """The graph of one structure.

    Args:
        structure: a record, or atoms periodic along at least the first two cell vectors.
        config: the defaults of `GraphConfig` where it is not given.
        host: the pristine host, in which the defect is found (`read_defect`).
        recognition: the defect, where it is known already.
        dtype: of positions, cell and labels.

    With neither `host` nor `recognition` every atom counts as the host's own.

    Raises DefectkitError, naming the record and the atoms, for a structure without atoms, with
    an unknown element, a coordinate that is not a number, a cell without volume, no periodicity
    in the plane, atoms nearer than half the sum of their covalent radii, more nodes than
    `MAX_ALL_PAIRS` where all pairs are wanted, or no defect where its sites are to be nodes.
    """
    config = config or GraphConfig()
    record = structure if isinstance(structure, DefectRecord) else None
    atoms = chosen_atoms(structure, config)
    where = record.uid if record else "The structure"
    _check(atoms, where)
    _check_size(len(atoms), config, where)  # before the defect is found, which takes memory too
    if recognition is None and host is not None:
        recognition = read_defect(structure, host, config)
    nodes = _nodes(atoms, recognition, config.virtual_nodes)
    if config.nodes == "defects":
        _check_overlaps(atoms, where)
        nodes = _sites(nodes, atoms, where)
    pos, cell, pbc = nodes["pos"], atoms.cell.array, atoms.pbc
    n = len(pos)

    if config.neighbours:
        edges = periodic.nearest_edges(pos, cell, pbc, config.neighbours)
    else:
        edges = periodic.neighbour_edges(pos, cell, pbc, config.cutoff)
    distance = periodic.distances(pos, cell, *edges)
    if config.nodes == "atoms":
        _check_distances(atoms, nodes["z"], edges[0], distance, where)
    arrays = {"edge_index": edges[0], "edge_shift": edges[1]}
    receiver = edges[0][1]
    arrays["isolated"] = np.bincount(receiver, minlength=n) == 0
    if config.angle_cutoff is not None:
        arrays["angle_index"] = periodic.angle_pairs(receiver, distance < config.angle_cutoff)
    receivers = np.arange(n)
    if config.pair_nodes == "defects":
        receivers = np.flatnonzero(nodes["site_kind"] != SiteKind.HOST)
    arrays |= _pairs(receivers, pos, atoms, config, where)
    shifts = periodic.self_image_edges(cell, pbc)
    arrays["lattice_index"] = np.tile(np.repeat(np.arange(n), len(shifts)), (2, 1))
    arrays["lattice_shift"] = np.tile(shifts, (n, 1))
    arrays |= nodes | {
        "cell": cell[None],
        "ambiguous": np.array([recognition.ambiguous if recognition else False]),
        "y_eform": np.array([record.eform if record else np.nan]),
        "y_spin": np.array([record.spin if record else np.nan]),
    }
    if config.nodes == "atoms":
        arrays["y_site_spin"] = _moments(record, n)
    tensors = {key: torch.tensor(value) for key, value in arrays.items()}  # copies
    return CrystalGraph(
        uid=record.uid if record else "",
        **{key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()},
    )


def _moments(record: DefectRecord | None, n: int) -> np.ndarray:
    """(n,) μB, `CrystalGraph.y_site_spin`: of moments of both signs the sizes do not add up."""
    moments = None if record is None else record.site_magmoms
    if moments is None:
        return np.full(n, np.nan)
    size = np.abs(moments) * (np.abs(moments) >= MOMENT_FLOOR)
    if not abs(size.sum() - abs(record.spin)) < MOMENT_FLOOR:
        return np.full(n, np.nan)
    return np.concatenate([size, np.zeros(n - len(size))])


def read_defect(
    structure: DefectRecord | Atoms, host: Atoms, config: GraphConfig | None = None
) -> Recognition:
    """The defect of a structure against its pristine host, as `build_graph` takes it.

    Where the structure can be read in several ways and the record has unrelaxed positions, these
    decide; the reading stays marked as ambiguous.

    Raises DefectkitError, naming the record, where the structure is no good or not of this host.
    """
    atoms = chosen_atoms(structure, config or GraphConfig())
    record = structure if isinstance(structure, DefectRecord) else None
    where = record.uid if record else "The structure"
    _check(atoms, where)
    if config is not None:
        _check_size(len(atoms), config, where)
    try:
        if record is None:
            return recognise(atoms, host)
        unrelaxed = config is not None and config.positions == "unrelaxed"
        found = recognised(record, host, unrelaxed)
        if not found.ambiguous or record.unrelaxed is None:
            return found
        start = recognised(record, host, unrelaxed=True)
    except DefectkitError as error:
        raise DefectkitError(f"{where}: {error}") from error
    return replace(start, ambiguous=True, reason=found.reason)


def chosen_atoms(structure: DefectRecord | Atoms, config: GraphConfig) -> Atoms:
    """The atoms of a structure in the positions of `config`; DefectkitError without these."""
    if config.positions == "relaxed":
        return structure.atoms if isinstance(structure, DefectRecord) else structure
    if isinstance(structure, DefectRecord):
        return structure.unrelaxed_atoms()
    raise DefectkitError("Unrelaxed positions were asked for, and only a record can have them.")


def _nodes(atoms: Atoms, found: Recognition | None, virtual_nodes: bool) -> dict[str, np.ndarray]:
    """Per node: the atoms in their order, then with `virtual_nodes` one node a vacancy."""
    z, pos = atoms.numbers.astype(np.int64), atoms.positions
    if found is None:
        kind = np.full(len(z), int(SiteKind.HOST), np.int64)
        return {"z": z, "original_z": z, "site_kind": kind, "pos": pos, "ideal_pos": pos}
    k = len(found.vacancy_z) if virtual_nodes else 0
    vacant, vacant_z = found.vacancy_positions[:k], found.vacancy_z[:k]
    on_site = found.original_z[:, None] > 0
    arrays = {
        "z": [z, np.zeros(k)],
        "original_z": [found.original_z, vacant_z],
        "site_kind": [found.site_kind, np.full(k, SiteKind.VACANCY)],
        "pos": [pos, vacant],
        "ideal_pos": [np.where(on_site, found.ideal_positions, pos), vacant],
    }
    return {key: np.concatenate(parts).astype(parts[0].dtype) for key, parts in arrays.items()}


def _sites(nodes: dict[str, np.ndarray], atoms: Atoms, where: str) -> dict[str, np.ndarray]:
    """Of all nodes those of the defect, with their bonds in the pristine host."""
    chosen = nodes["site_kind"] != SiteKind.HOST
    if not chosen.any():
        raise DefectkitError(
            f"{where} has no defect that is known, and a graph of its sites would be empty; give "
            "the pristine host, or use GraphConfig(nodes='atoms')."
        )
    of_host = nodes["original_z"] > 0
    sites, z = nodes["ideal_pos"][of_host], nodes["original_z"][of_host]
    chosen = {key: value[chosen] for key, value in nodes.items()}
    (end, site), vectors = periodic.first_shell(
        chosen["ideal_pos"], sites, atoms.cell.array, atoms.pbc, SHELL
    )
    place = np.arange(len(site)) - site.searchsorted(site)  # among the bonds of its site
    kept = place < MAX_BONDS
    slots = site[kept], place[kept]
    chosen["host_bonds"] = np.zeros((len(chosen["z"]), MAX_BONDS, 3))
    chosen["host_bonds"][slots] = vectors[kept]
    chosen["host_bonds_z"] = np.zeros((len(chosen["z"]), MAX_BONDS), np.int64)
    chosen["host_bonds_z"][slots] = z[end[kept]]
    return chosen


def _pairs(
    receivers: np.ndarray, pos: np.ndarray, atoms: Atoms, config: GraphConfig, where: str
) -> dict[str, np.ndarray]:
    """Pairs that lead to the receivers, index and shift; none where the graph lists none."""
    cell, pbc, n = atoms.cell.array, atoms.pbc, len(pos)
    if config.image_radius is not None:
        index, shift = periodic.images_within(pos, cell, pbc, config.image_radius)
        kept = np.isin(index[1], receivers)
        return {"pair_index": index[:, kept], "pair_shift": shift[kept]}
    if not config.all_pairs:
        return {}
    _check_size(n, config, where)
    if len(receivers) == n:
        shift, _ = periodic.minimum_image(pos, cell, pbc)
    else:
        shift = periodic.images_seen_from(receivers, pos, cell, pbc)
    index = np.stack([np.tile(np.arange(n), len(receivers)), np.repeat(receivers, n)])
    return {"pair_index": index, "pair_shift": shift.reshape(-1, 3)}


def _check_size(n: int, config: GraphConfig, where: str) -> None:
    """DefectkitError where all pairs are wanted of more than `MAX_ALL_PAIRS` nodes."""
    few = config.image_radius is not None or config.pair_nodes == "defects"
    if config.all_pairs and not few and n > MAX_ALL_PAIRS:
        raise DefectkitError(
            f"{where}: {n:,} nodes are too many for all pairs (limit {MAX_ALL_PAIRS:,}). For a "
            "trained model cut a smaller supercell around the defect; a model of your own may do "
            "without pairs, GraphConfig(all_pairs=False), and then has no limit."
        )


def _check(atoms: Atoms, where: str) -> None:
    check_atoms(atoms, where)
    if not atoms.pbc[:2].all():
        raise DefectkitError(
            f"{where} does not repeat in the plane (pbc {atoms.pbc.tolist()}); "
            "set pbc to True along the first two cell vectors."
        )


def _check_overlaps(atoms: Atoms, where: str) -> None:
    """`_check_distances` of all atoms, where not all of them are nodes."""
    reach = float(covalent_radii[atoms.numbers].max())
    index, shift = periodic.neighbour_edges(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    distance = periodic.distances(atoms.positions, atoms.cell.array, index, shift)
    _check_distances(atoms, atoms.numbers, index, distance, where)


def _check_distances(
    atoms: Atoms, z: np.ndarray, index: np.ndarray, distance: np.ndarray, where: str
) -> None:
    """DefectkitError where two atoms (not vacancies) are in each other."""
    ends = z[index]  # (2, E)
    least = np.where(ends.all(axis=0), covalent_radii[ends].sum(axis=0) / 2, 0.0)
    close = np.flatnonzero(distance < least)
    if len(close):
        k = close[distance[close].argmin()]
        raise DefectkitError(
            f"{where}: {list_atoms(atoms, index[:, k])} are {distance[k]:.2f} Å apart, less than "
            f"half the sum of their covalent radii ({least[k]:.2f} Å); remove one or mend the cell."
        )
