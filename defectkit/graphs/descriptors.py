"""Two local descriptors of a defect: the strain around it, and how lopsided its neighbours are.

Both are computed in torch from a graph's positions, so they have gradients; both are vectors that
turn with the crystal, and their lengths (`geometry.lengths`) do not change when it turns.

Axes: N nodes, E edges.
"""

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import Tensor

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.graphs.periodic import nearest_mask
from defectkit.structures.transforms import dilation_field

NEAREST = 6  # neighbours, the coordination of a metal atom in MoS2


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


def elastic_positions(
    atoms: Atoms, centres: np.ndarray, strength: float, core: float = 1.5
) -> np.ndarray:
    """Where the atoms stood before a point defect pushed them, by linear elasticity.

    For a graph's `ideal_pos` where no pristine host is known: r - A u(r) with the periodic field u
    of a centre of dilation in a sheet (`structures.augment.dilation_field`), to first order.

    Args:
        atoms: N atoms of a relaxed layer in the xy plane.
        centres: (k, 3) Å, positions of the defect.
        strength: A in Å², above zero where the defect pushes outwards (`misfit_strength`).
        core: Å, the radius inside which the field is smoothed.

    Returns:
        (N, 3) Å.
    """
    cell = atoms.cell.array
    field = sum(dilation_field(atoms.positions - centre, cell, core) for centre in centres)
    return atoms.positions - strength * field


def misfit_strength(dopant: int, removed: int, bond: float, poisson: float = 0.25) -> float:
    """A (Å²) of a substitution, from the misfit of its covalent radius.

    A disc of radius R that wants to be larger by the strain e* pushes a sheet around it by
    u = A r / r² with A = (1 + nu) / 2 e* R² (Eshelby's inclusion in plane stress; Mura,
    Micromechanics of Defects in Solids, 1987). Here R is the bond length and
    e* = (r_dopant - r_removed) / R.

    Args:
        dopant: atomic number.
        removed: atomic number of the atom that it replaces.
        bond: R in Å.
        poisson: nu of the sheet.
    """
    return (1 + poisson) / 2 * float(covalent_radii[dopant] - covalent_radii[removed]) * bond


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
