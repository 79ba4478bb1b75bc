"""ALIGNN (Choudhary and DeCost, npj Comput. Mater. 7, 185, 2021): messages over bonds and angles.

Axes: N nodes, E edges, T angle pairs, B graphs, K basis functions, D hidden, F element features.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.utils import scatter

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import angle_cosines
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
