"""Lengths and angles from positions, cell and integer shifts, with exact gradients.

Axes: N nodes, E edges, T pairs of edges, B graphs.
"""

import torch
from torch import Tensor

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.periodic import nearest_mask

NEAREST = 6  # neighbours, the coordination of a metal atom in MoS2


def edge_vectors(
    pos: Tensor, cell: Tensor, index: Tensor, shift: Tensor, batch: Tensor | None = None
) -> Tensor:
    """r_j + n L - r_i of every edge j -> i, from the receiver to that image of its neighbour.

    Serves local edges, pairs and lattice self-edges alike.

    Args:
        pos: (N, 3) Å.
        cell: (B, 3, 3) Å, vectors as rows.
        index: (2, E) senders j and receivers i.
        shift: (E, 3) integer image shifts n of the sender.
        batch: (N,) the graph of each node; None where there is one graph.

    Returns:
        (E, 3) Å.
    """
    sender, receiver = index
    shift = shift.to(cell.dtype)
    # Autocast would round the lattice vectors, and images by some hundredths of an Å.
    with torch.autocast(pos.device.type, enabled=False):
        if batch is None:
            image = shift @ cell[0]
        else:
            cells = cell.index_select(0, batch.index_select(0, receiver))
            image = torch.bmm(shift[:, None], cells)[:, 0]
    return pos.index_select(0, sender) - pos.index_select(0, receiver) + image


def lengths(vectors: Tensor) -> Tensor:
    """Length (E,) of each of (E, 3) vectors; its gradient at length zero is zero."""
    return torch.linalg.vector_norm(vectors, dim=-1)


def angle_cosines(vectors: Tensor, angle_index: Tensor) -> Tensor:
    """cos(theta_jik) between two edges j -> i and k -> i.

    Args:
        vectors: (E, 3) Å, of `edge_vectors`.
        angle_index: (2, T) edge numbers.

    Returns:
        (T,), without unit; 0 where an edge has no length.
    """
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    first, second = angle_index
    return (unit[first] * unit[second]).sum(dim=-1)


def strained(
    pos: Tensor, cell: Tensor, strain: Tensor, batch: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positions and cell after a homogeneous deformation r -> r (1 + strain).

    With a `strain` of zeros that requires a gradient, dE/dstrain / volume is the stress.

    Args:
        pos: (N, 3) Å.
        cell: (B, 3, 3) Å.
        strain: (B, 3, 3), without unit.
        batch: (N,) the graph of each node; None where there is one graph.
    """
    if batch is None:
        return pos + pos @ strain[0], cell + cell @ strain
    return pos + torch.einsum("na,nab->nb", pos, strain[batch]), cell + cell @ strain


def bond_strain(graph: CrystalGraph) -> Tensor:
    """(d_ij - d0_ij) / d0_ij of every local edge, (E,), without unit.

    d0 is the length between the two sites in the pristine host (`ideal_pos`); for an atom that
    was added, between itself and the site, so that it sees its neighbours give way.
    """
    geometry = graph.cell, graph.edge_index, graph.edge_shift, graph.batch
    ideal = lengths(edge_vectors(graph.ideal_pos, *geometry))
    return (lengths(edge_vectors(graph.pos, *geometry)) - ideal) / ideal


def local_strain(graph: CrystalGraph, nearest: int = NEAREST) -> tuple[Tensor, Tensor]:
    """Mean strain around every node, and the vector of its imbalance.

    e_i = 1/n sum_j eps_ij and s_i = 1/n sum_j eps_ij r_ij / |r_ij|, over the nearest atoms and
    those as near as the last, vacancies left out; eps is `bond_strain`. e is above zero where
    the surroundings move away; s points to where they move away most, and is zero where the
    site's symmetry forbids a direction.

    Returns:
        e (N,) and s (N, 3), without unit; zeros for a node without neighbours.
    """
    edges, direction = _environment(graph, nearest)
    strain = bond_strain(graph)[edges]
    return _mean(graph, edges, strain[:, None])[:, 0], _mean(
        graph, edges, strain[:, None] * direction
    )


def asymmetry(graph: CrystalGraph, values: Tensor, nearest: int = NEAREST) -> Tensor:
    """Imbalance of the nearest atoms' electronegativity, a dipole of the environment.

    a_i = 1/n sum_j (chi_j - mean chi) r_ij / |r_ij|, over the nearest atoms and those as near as
    the last, vacancies left out. It points to the more electronegative side; zero where all
    neighbours are of one element.

    Args:
        graph: one or a batch.
        values: (119,) chi by atomic number, such as the column `electronegativity` of
            `elements.feature_table(["elemental"])`.
        nearest: n.

    Returns:
        (N, 3) in the unit of `values`; zeros for a node without neighbours.
    """
    edges, direction = _environment(graph, nearest)
    sender, receiver = graph.edge_index[:, edges]
    chi = values[graph.z[sender]].to(direction.dtype)[:, None]
    chi = chi - _mean(graph, edges, chi)[receiver]
    return _mean(graph, edges, chi * direction)


def _environment(graph: CrystalGraph, nearest: int) -> tuple[Tensor, Tensor]:
    """Numbers (e,) of the edges from the nearest atoms, and their unit vectors (e, 3)."""
    vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift, graph.batch)
    sender, receiver = graph.edge_index
    atoms = torch.nonzero(graph.z[sender] > 0)[:, 0]
    distance = lengths(vectors[atoms]).detach().cpu().numpy()
    near = nearest_mask(receiver[atoms].cpu().numpy(), distance, nearest)
    edges = atoms[torch.from_numpy(near).to(atoms.device)]
    return edges, torch.nn.functional.normalize(vectors[edges], dim=-1)


def _mean(graph: CrystalGraph, edges: Tensor, values: Tensor) -> Tensor:
    """(N, c): the mean over the edges that reach each node, zero without one, of (e, c)."""
    receiver = graph.edge_index[1, edges]
    total = values.new_zeros(len(graph.z), values.shape[1]).index_add(0, receiver, values)
    return total / torch.bincount(receiver, minlength=len(graph.z)).clamp(min=1)[:, None]
