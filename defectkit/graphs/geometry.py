"""Lengths and angles from positions, cell and integer shifts, with exact gradients.

Axes: N nodes, E edges, T pairs of edges, B graphs.
"""

import torch
from torch import Tensor


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
            image = torch.einsum("ea,eab->eb", shift, cell[batch[receiver]])
    return pos[sender] - pos[receiver] + image


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
