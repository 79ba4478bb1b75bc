"""Published networks to compare with.

CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018) has two-body terms alone; Matformer
(Yan et al., NeurIPS 2022, arXiv:2209.11807) has attention over a periodic multigraph.

Axes: N nodes, E edges, B graphs, H heads, K basis functions, D hidden, F element features.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus
from torch_geometric.utils import scatter

from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.models.parts import GaussianBasis, Heads, NodeInputs, Output, local_geometry, pooling


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


class EdgeAttention(nn.Module):
    """Attention of a node over its edges, a gate for every component in place of a softmax.

    alpha_ij = (q_i, q_i, q_i) * (k_i, k_j, e_ij) / sqrt(3 D)
    msg_ij = LN(W' (sigmoid(LN(alpha_ij)) * (W (v_i, v_j, e_ij) + b)) + b')
    h_i' = U h_i + SiLU(BN(W_o (sum_j msg_ij of all heads)))

    in every head, over edges j -> i; W, W' and the layer norms (LN) are shared by the heads. A
    softmax could not tell a crystal from one with every edge doubled; a sum of gates can.

    Args:
        width: D of nodes, edges and every head.
        heads: H.

    Shapes: h (N, D), e (E, D), index (2, E) -> (N, D).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.width, self.heads = width, heads
        self.query, self.key, self.value = (nn.Linear(width, heads * width) for _ in range(3))
        self.edge = nn.Linear(width, heads * width, bias=False)
        self.norm_alpha = nn.LayerNorm(3 * width)
        self.mix = nn.Linear(3 * width, 3 * width)  # W
        self.message = nn.Sequential(nn.Linear(3 * width, width), nn.LayerNorm(width))  # W'
        self.join = nn.Linear(heads * width, width)  # W_o
        self.norm = nn.BatchNorm1d(width)
        self.skip = nn.Linear(width, width)  # U

    def forward(self, h: Tensor, e: Tensor, index: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        sender, receiver = index
        maps = (self.query, self.key, self.value)
        query, key, value = (f(h).view(-1, self.heads, self.width) for f in maps)  # (N, H, D)
        query = query / (3 * self.width) ** 0.5
        edge = self.edge(e).view(-1, self.heads, self.width)  # (E, H, D)
        query_i = query.index_select(0, receiver)
        own = (query * key).index_select(0, receiver)
        alpha = torch.cat([own, query_i * key.index_select(0, sender), query_i * edge], dim=2)
        # W (v_i, v_j, e_ij) in three parts: nodes are fewer than edges.
        of_i, of_j, of_edge = self.mix.weight.chunk(3, dim=1)
        mixed = linear(edge, of_edge, self.mix.bias)  # (E, H, 3D)
        mixed = mixed + linear(value, of_i).index_select(0, receiver)
        mixed = mixed + linear(value, of_j).index_select(0, sender)
        message = self.message(self.norm_alpha(alpha).sigmoid() * mixed)  # (E, H, D)
        total = scatter(message.flatten(1), receiver, dim_size=len(h), reduce="sum")
        return self.skip(h) + silu(self.norm(self.join(total)))


class Matformer(nn.Module):
    """Periodic graph transformer.

    Every node sends messages to itself along the lattice vectors, beside those of its
    neighbours. The default settings are the authors'. Two things differ from their model: edges
    are all within the cutoff, not the twelve nearest; and the basis is one of the inverse
    distance, as in their later ComFormer (Yan et al., ICLR 2024), because lattice vectors of a
    supercell are longer than any cutoff, where a basis of the distance is blind.

    Args:
        features: (119, F) standardised element features.
        graph: the configuration of the graphs; not used, the basis reaches all distances.
        marks: whether nodes know what stood there before and their kind (`NodeInputs`).
        hidden: D.
        layers: number of attention layers.
        heads: H.
        radial: K, basis functions of the inverse distance, from 0 to 1 / Å.

    Shapes: graph -> `Output` of (B,).
    """

    def __init__(
        self,
        features: Tensor,
        graph: GraphConfig,
        marks: bool = True,
        hidden: int = 128,
        layers: int = 5,
        heads: int = 4,
        radial: int = 128,
    ):
        super().__init__()
        self.inputs = NodeInputs(features, marks)
        self.embedding = nn.Linear(self.inputs.width, hidden)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(1.0, n=radial),
            nn.Linear(radial, hidden),
            nn.Softplus(),
            nn.Linear(hidden, hidden),
        )
        self.layers = nn.ModuleList(EdgeAttention(hidden, heads) for _ in range(layers))
        self.pooling = pooling("mean", hidden)
        self.heads = Heads(hidden, hidden)

    def forward(self, graph: CrystalGraph) -> Output:
        """Formation energy (B,) in eV and magnetic moment (B,) in μB."""
        _, local = local_geometry(graph)
        index, shift = graph.lattice_index, graph.lattice_shift
        lattice = lengths(edge_vectors(graph.pos, graph.cell, index, shift, graph.batch))
        e = self.edge_embedding(1.0 / torch.cat([local, lattice]))
        index = torch.cat([graph.edge_index, index], dim=1)
        h = self.embedding(self.inputs(graph))
        for layer in self.layers:
            h = layer(h, e, index)
        return self.heads(self.pooling(h, graph))
