"""Published networks to compare with: CGCNN, ALIGNN, Matformer.

CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018) has two-body terms alone; ALIGNN
(Choudhary and DeCost, npj Comput. Mater. 7, 185, 2021) passes messages over bonds and angles;
Matformer (Yan et al., NeurIPS 2022, arXiv:2209.11807) attends over a periodic multigraph.

Axes: N nodes, E edges, T angle pairs, B graphs, H heads, K basis functions, D hidden, F element
features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus
from torch_geometric.utils import scatter

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import angle_cosines, edge_vectors, lengths
from defectkit.models.parts import (
    AngularBasis,
    GaussianBasis,
    Heads,
    NodeInputs,
    Output,
    local_geometry,
    pooling,
)


class EdgeGatedConv(nn.Module):
    """Edge-gated graph convolution (Dwivedi et al., arXiv:2003.00982) as in ALIGNN.

    m_ij = A h_j + B h_i + C e_ij
    h_i' = h_i + SiLU(BN(U h_i + sum_j sigmoid(m_ij) * V h_j / (sum_j sigmoid(m_ij) + 1e-6)))
    e_ij' = e_ij + SiLU(BN(m_ij))

    over edges j -> i; A, B, C, U and V are linear maps with biases.

    Args:
        width: D of nodes and edges.
        update_edges: whether e' is computed; without it the edges come back as they were.

    Shapes: h (N, D), e (E, D), index (2, E) -> (N, D), (E, D).
    """

    def __init__(self, width: int, update_edges: bool = True):
        super().__init__()
        self.nodes = nn.Linear(width, 4 * width)  # A, B, U, V
        self.edges = nn.Linear(width, width)  # C
        self.norm_nodes = nn.BatchNorm1d(width)
        self.norm_edges = nn.BatchNorm1d(width) if update_edges else None

    def forward(self, h: Tensor, e: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D), (E, D) -> (N, D), (E, D)."""
        sender, receiver = index
        from_sender, from_receiver, own, value = self.nodes(h).chunk(4, dim=1)
        # In place: a line graph has some hundred thousand rows, and memory takes the time.
        m = self.edges(e)
        m += from_sender.index_select(0, sender)
        m += from_receiver.index_select(0, receiver)
        gate = m.sigmoid()
        message = gate * value.index_select(0, sender)
        total = scatter(message, receiver, dim_size=len(h), reduce="sum")
        weight = scatter(gate, receiver, dim_size=len(h), reduce="sum")
        h = h + silu(self.norm_nodes(own + total / (weight + 1e-6)))
        if self.norm_edges is not None:
            e = e + silu(self.norm_edges(m))
        return h, e


def mlp_layer(n_in: int, n_out: int) -> nn.Sequential:
    """SiLU(BN(W x + b)), the layer of all embeddings: (M, n_in) -> (M, n_out)."""
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.SiLU())


@dataclass(frozen=True)
class ALIGNNSettings:
    """What can be chosen about an `ALIGNN`; the default values are published ones.

    Attributes:
        marks: whether nodes know what stood there before and their kind (`NodeInputs`).
        hidden: D.
        alignn_layers: layers on both graphs; 0 for a model without angles.
        gcn_layers: layers on the crystal graph alone, at least 1.
        radial: K of distances.
        angular: K of angle cosines.
        embedding: inner width of the embeddings of distances and angles.
    """

    marks: bool = True
    hidden: int = 256
    alignn_layers: int = 4
    gcn_layers: int = 4
    radial: int = 80
    angular: int = 40
    embedding: int = 64


class ALIGNN(nn.Module):
    """Atomistic line graph neural network.

    In the line graph the edges of the crystal are the nodes, and angles join them. An ALIGNN
    layer is a convolution on the crystal graph and then one on the line graph, as in the
    authors' program; layers on the crystal graph alone follow. What the published model computes
    and does not use is left out here: the last angles and the last edges (two batch norms, 4 D
    parameters).

    The published line graph joins the edge k -> i to the edge i -> j. Ours joins k -> i to
    j -> i, which is the same bond the other way, at the same angle; features start alike in
    both directions. So an edge learns of the angles at its receiver, where the published one
    learns of those at its sender. The published line graph also joins a bond to its own
    reverse, at angle zero; ours does not. Only edges below the graph's `angle_cutoff` have
    angles here, and the distance basis ends at the cutoff rather than at 8 Å.

    A sum over gates is divided by their sum, so angles weigh the bonds of an atom against each
    other: where these are all alike, the angles between them change nothing.

    Args:
        features: (119, F) standardised element features.
        graph: the configuration of the graphs; its cutoff ends the distance basis.
        settings: those of `ALIGNNSettings`, by name.

    Raises DefectkitError for graphs without angles, and without a last layer.

    Shapes: graph -> `Output` of (B,).
    """

    Settings = ALIGNNSettings

    def __init__(
        self, features: Tensor, graph: GraphConfig, **settings: int | float | bool | str | None
    ):
        super().__init__()
        use = ALIGNNSettings(**settings)
        if use.alignn_layers and graph.angle_cutoff is None:
            raise DefectkitError("ALIGNN reads angles; give its graphs an angle_cutoff.")
        if use.gcn_layers < 1:
            raise DefectkitError(
                f"gcn_layers is {use.gcn_layers}; ALIGNN needs one at least, or its nodes never "
                "learn of the last angles."
            )
        hidden = use.hidden
        self.inputs = NodeInputs(features, use.marks)
        self.atom_embedding = mlp_layer(self.inputs.width, hidden)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(graph.cutoff, n=use.radial),
            mlp_layer(use.radial, use.embedding),
            mlp_layer(use.embedding, hidden),
        )
        if use.alignn_layers:
            self.angle_embedding = nn.Sequential(
                AngularBasis(use.angular),
                mlp_layer(use.angular, use.embedding),
                mlp_layer(use.embedding, hidden),
            )
        self.crystal_convs = nn.ModuleList(EdgeGatedConv(hidden) for _ in range(use.alignn_layers))
        self.line_convs = nn.ModuleList(
            EdgeGatedConv(hidden, update_edges=left > 0)
            for left in reversed(range(use.alignn_layers))
        )
        self.gcn_convs = nn.ModuleList(
            EdgeGatedConv(hidden, update_edges=left > 0) for left in reversed(range(use.gcn_layers))
        )
        self.pooling = pooling("mean", hidden)
        self.heads = Heads(hidden)

    def forward(self, graph: CrystalGraph) -> Output:
        """Formation energy (B,) in eV and magnetic moment (B,) in μB."""
        vectors, distance = local_geometry(graph)
        h = self.atom_embedding(self.inputs(graph))  # (N, D)
        e = self.edge_embedding(distance)  # (E, D)
        if self.line_convs:
            line_index = graph.angle_index.flip(0)  # edge a of a pair (a, b) receives from b
            t = self.angle_embedding(angle_cosines(vectors, graph.angle_index))  # (T, D)
            for crystal_conv, line_conv in zip(self.crystal_convs, self.line_convs):
                h, e = crystal_conv(h, e, graph.edge_index)
                e, t = line_conv(e, t, line_index)
        for conv in self.gcn_convs:
            h, e = conv(h, e, graph.edge_index)
        return self.heads(self.pooling(h, graph))


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
