"""CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018): the baseline of two-body terms.

Axes: N nodes, E edges, B graphs, K basis functions, D hidden, F element features.
"""

from torch import Tensor, nn
from torch.nn.functional import linear, softplus
from torch_geometric.utils import scatter

from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.models.layers import GaussianBasis
from defectkit.models.parts import Heads, NodeInputs, Output, local_geometry, pooling


class GatedConv(nn.Module):
    """h_i' = softplus(h_i + BN(sum_j sigmoid(f_ij) * softplus(s_ij))).

    (f_ij, s_ij) = BN(W (h_i, h_j, e_ij) + b). This is equation (5) of the paper with the batch
    norms of the authors' program.

    Args:
        width: D of the nodes.
        edge_width: K of the edges.

    Shapes: h (N, D), e (E, K), index (2, E) -> (N, D).
    """

    def __init__(self, width: int, edge_width: int):
        super().__init__()
        self.parts = [width, width, edge_width]
        self.full = nn.Linear(sum(self.parts), 2 * width)
        self.norm_messages = nn.BatchNorm1d(2 * width)
        self.norm_sum = nn.BatchNorm1d(width)

    def forward(self, h: Tensor, e: Tensor, index: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        sender, receiver = index
        # W (h_i, h_j, e_ij) in three parts: nodes are fewer than edges.
        own, other, edge = self.full.weight.split(self.parts, dim=1)
        z = linear(e, edge, self.full.bias)  # (E, 2D)
        z = z + linear(h, own).index_select(0, receiver) + linear(h, other).index_select(0, sender)
        gate, core = self.norm_messages(z).chunk(2, dim=1)
        total = scatter(gate.sigmoid() * softplus(core), receiver, dim_size=len(h), reduce="sum")
        return softplus(h + self.norm_sum(total))


class CGCNN(nn.Module):
    """Crystal graph convolutional neural network.

    The default settings are the authors'. Their basis ends at 8 Å, here at the cutoff.

    Args:
        features: (119, F) standardised element features.
        graph: the configuration of the graphs; its cutoff ends the basis.
        marks: whether nodes know what stood there before and their kind (`NodeInputs`).
        hidden: D.
        layers: number of convolutions.
        radial: K, basis functions of the distance.
        readout: width of the layer after the pooling.

    Shapes: graph -> `Output` of (B,).
    """

    def __init__(
        self,
        features: Tensor,
        graph: GraphConfig,
        marks: bool = True,
        hidden: int = 64,
        layers: int = 3,
        radial: int = 41,
        readout: int = 128,
    ):
        super().__init__()
        self.inputs = NodeInputs(features, marks)
        self.embedding = nn.Linear(self.inputs.width, hidden)
        self.basis = GaussianBasis(graph.cutoff, n=radial)
        self.convs = nn.ModuleList(GatedConv(hidden, radial) for _ in range(layers))
        self.pooling = pooling("mean", hidden)
        self.readout = nn.Sequential(nn.Softplus(), nn.Linear(hidden, readout), nn.Softplus())
        self.heads = Heads(readout)

    def forward(self, graph: CrystalGraph) -> Output:
        """Formation energy (B,) in eV and magnetic moment (B,) in μB."""
        _, distance = local_geometry(graph)
        h, e = self.embedding(self.inputs(graph)), self.basis(distance)
        for conv in self.convs:
            h = conv(h, e, graph.edge_index)
        return self.heads(self.readout(self.pooling(h, graph)))
