"""How the atoms of a defect stand to their neighbours, in a few numbers, for the guard.

A network that learned from structures of one origin does not say that a structure of another one
stands otherwise: bonds half as long as usual, an atom above a place where none was ever put.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from ase.data import covalent_radii
from torch import Tensor
from torch_geometric.utils import scatter

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.dataset import GraphDataset
from defectkit.models.parts import local_geometry, node_batch

BATCH = 256  # graphs at a time
BOND = 1.25  # times the sum of covalent radii: up to here two atoms count as bonded
SOFTNESS = 0.1  # of that step, in the same unit
NAMES = ("shortest", "bonds", "side", "height", "near_moved", "most_moved", "nodes")


def surroundings(graphs: GraphDataset, numbers: Sequence[int] | None = None) -> pd.DataFrame:
    """Columns `NAMES`, a row a graph, indexed by uid; of all graphs, or of those of `numbers`.

    Over the atoms of the defect (for vacancies alone zeros): `shortest`, the shortest bond in units
    of the sum of covalent radii, the least of all; `bonds`, how many each has, the mean; `side`,
    0 where they lie evenly around the atom and 1 where all are on one side, the largest; `height`
    (Å) above the outermost atom of the host, the largest. `near_moved` and `most_moved` (Å): how
    far the host's atoms stand from their sites, the mean of the defect's neighbours and the largest
    of all. `nodes`, how many the defect has.
    """
    chosen = range(len(graphs)) if numbers is None else numbers
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    rows = torch.cat([_rows(graphs.batch(part)) for part in parts])
    return pd.DataFrame(rows.numpy(), [graphs.uids[k] for k in chosen], columns=list(NAMES))


def _rows(graph: CrystalGraph) -> Tensor:
    """(B, len(NAMES))."""
    batch, size = node_batch(graph), len(graph.cell)

    def over(values: Tensor, index: Tensor, how: str, n: int = size) -> Tensor:
        return scatter(values, index, dim_size=n, reduce=how)

    atom = graph.z > 0
    own, host = graph.is_defect & atom, atom & ~graph.is_defect
    vectors, distance = local_geometry(graph)
    sender, receiver = graph.edge_index
    bonded = atom[sender]
    sender, receiver = sender[bonded], receiver[bonded]
    vectors, distance = vectors[bonded], distance[bonded]
    radius = torch.tensor(covalent_radii, dtype=distance.dtype)[graph.z]
    relative = distance / (radius[sender] + radius[receiver])
    weight = torch.sigmoid((BOND - relative) / SOFTNESS)
    n = len(graph.z)
    count = over(weight, receiver, "sum", n)
    pull = over(weight[:, None] * vectors / distance[:, None], receiver, "sum", n)
    side = pull.norm(dim=1) / count.clamp(min=0.5)
    shortest = distance.new_full((n,), 2.0).scatter_reduce(0, receiver, relative, "amin")
    z = graph.pos[:, 2]
    high, low = over(z[host], batch[host], "max"), over(z[host], batch[host], "min")
    height = torch.maximum(z - high[batch], low[batch] - z)
    moved = (graph.pos - graph.ideal_pos).norm(dim=1)
    near = over(graph.is_defect[sender].to(z.dtype), receiver, "max", n).bool() & host
    least = distance.new_full((size,), 2.0)
    least = least.scatter_reduce(0, batch[own], shortest[own], "amin")
    return torch.stack(
        [
            least,
            over(count[own], batch[own], "mean"),
            over(side[own], batch[own], "max"),
            over(height[own], batch[own], "max"),
            over(moved[near], batch[near], "mean"),
            over(moved[host], batch[host], "max"),
            over(graph.is_defect.to(z.dtype), batch, "sum"),
        ],
        dim=1,
    )
