"""Self-attention between the nodes of a crystal, with a bias that knows its periodicity.

Attention = softmax(Q K^T / sqrt(d) + phi(d_pbc) + psi(kind_i, kind_j)) V, equations (5) and (11).
Two readings of periodicity: phi of the minimum-image distance, equation (4), or, over all images,
log sum_n exp(phi(|r_j + L n - r_i|)) with a phi that decays, which is attention to every atom of
the infinite crystal (Taniai et al., Crystalformer, ICLR 2024). The first changes when the same
crystal is written as a larger cell, the second does not.

Scores belong to the pairs of a sender and a receiver that the graph lists: all nodes send, and all
or those of the defect receive. The softmax is over the pairs of a receiver; two images of one
sender are two pairs, and their weights add up.

Axes: N nodes, Q of them that receive, P pairs, H heads, K basis functions, D hidden, d = D / H.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.utils import softmax

from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import edge_vectors
from defectkit.models.parts import GaussianBasis, envelope
from defectkit.structures.record import SiteKind

AT_DEFECT = 6.0  # a node of the defect begins with e^6 = 400 times the weight of a host's atom


@dataclass(frozen=True)
class Pairs:
    """The pairs of nodes of a graph or a batch, prepared once for all layers.

    Attributes:
        nodes: (Q,) those that receive, by their number in the graph; None for all nodes.
        sender: (P,) number of a node.
        receiver: (P,) place among `nodes`.
        distance: (P,) Å.
        basis: (P, K) radial basis of the distance.
        fade: (P,) logarithm of the envelope at the image radius; None for minimum images.
        kinds: (P, 25) kinds of receiver and sender as one of five times five, one-hot.
    """

    nodes: Tensor | None
    sender: Tensor
    receiver: Tensor
    distance: Tensor
    basis: Tensor
    fade: Tensor | None
    kinds: Tensor

    def receiving(self, h: Tensor) -> Tensor:
        """Of all nodes (N, D) those that receive, (Q, D)."""
        return h if self.nodes is None else h.index_select(0, self.nodes)

    def updated(self, h: Tensor, received: Tensor) -> Tensor:
        """(N, D) with the rows (Q, D) of those that receive in place of theirs."""
        return received if self.nodes is None else h.index_copy(0, self.nodes, received)


class PairInputs(nn.Module):
    """From a graph to its `Pairs`.

    Args:
        reach: Å, the range of the radial basis; beyond it phi is constant.
        radial: K.
        graph: configuration of the graphs, which says what their pairs are; the defaults of
            `GraphConfig` where it is not given.
    """

    def __init__(self, reach: float, radial: int, graph: GraphConfig | None = None):
        super().__init__()
        graph = graph or GraphConfig()
        self.basis = GaussianBasis(reach, n=radial)
        self.image_radius = graph.image_radius
        self.to_defects = graph.pair_nodes == "defects"

    def forward(self, graph: CrystalGraph) -> Pairs:
        """`Pairs` of one graph or a batch."""
        sender, receiver = graph.pair_index
        vectors = edge_vectors(
            graph.pos, graph.cell, graph.pair_index, graph.pair_shift, graph.batch
        )
        # A node's distance from itself is taken out, for its second derivative is not a number.
        square = vectors.square().sum(dim=1)
        itself = square == 0
        distance = square.masked_fill(itself, 1.0).sqrt().masked_fill(itself, 0.0)
        fade = None
        if self.image_radius is not None:
            step = envelope(distance, self.image_radius)
            fade = step.clamp(min=torch.finfo(step.dtype).eps).log()  # rounding goes below zero
        kinds = graph.site_kind[receiver] * len(SiteKind) + graph.site_kind[sender]
        nodes = None
        if self.to_defects:
            nodes = graph.is_defect.nonzero()[:, 0]
            receiver = (graph.is_defect.cumsum(0) - 1)[receiver]
        basis = self.basis(distance)
        kinds = nn.functional.one_hot(kinds, len(SiteKind) ** 2).to(basis.dtype)
        return Pairs(nodes, sender, receiver, distance, basis, fade, kinds)


class PairBias(nn.Module):
    """phi(d_pbc) + psi(kind_i, kind_j), equations (5) and (11), for every pair and head.

    phi is a small network on the radial basis. Where pairs are images, it decays: minus
    softplus(a) d plus the logarithm of the envelope, with a learned a for every head.

    psi begins with attention at the defect: among 190 atoms the two or three that matter would
    share a hundredth of it, and a network that begins so hardly learns to tell how far apart they
    are.

    Args:
        heads: H.
        radial: K.
        phi: whether the network is there.
        psi: whether the table over kinds is there, (H, 5 kinds of receiver, 5 of sender).
        images: whether pairs are images.

    Shapes: `Pairs` -> (P, H).
    """

    def __init__(
        self, heads: int, radial: int, phi: bool = True, psi: bool = True, images: bool = False
    ):
        super().__init__()
        self.n_heads, kinds = heads, len(SiteKind)
        # No bias at the end: a softmax does not see it.
        self.phi = (
            nn.Sequential(nn.Linear(radial, 16), nn.SiLU(), nn.Linear(16, heads, bias=False))
            if phi
            else None
        )
        self.psi = nn.Parameter(0.1 * torch.randn(heads, kinds, kinds)) if psi else None
        if psi:
            with torch.no_grad():
                self.psi[:, :, [kind for kind in SiteKind if kind != SiteKind.HOST]] += AT_DEFECT
        self.decay = nn.Parameter(torch.zeros(heads)) if images else None

    def forward(self, pairs: Pairs) -> Tensor:
        """(P, H)."""
        if self.phi is None:
            scores = pairs.basis.new_zeros(len(pairs.sender), self.n_heads)
        else:
            scores = self.phi(pairs.basis)
        if self.psi is not None:  # a product, whose gradient is one too
            scores = scores + pairs.kinds @ self.psi.flatten(1).T
        if self.decay is not None:
            rate = nn.functional.softplus(self.decay)  # 1/Å
            scores = scores + pairs.fade[:, None] - rate * pairs.distance[:, None]
        return scores


class PeriodicAttention(nn.Module):
    """Multi-head self-attention between the nodes of one structure, equations (5) to (9).

    Args:
        hidden: D, a multiple of heads.
        heads: H.
        bias: from `Pairs` to (P, H).
        edge_values: K of the radial basis, where values are modulated by the edge:
            sum_j alpha_ij (W_V h_j * sigma(e_ij)). None where they are not.

    Shapes: h (N, D), `Pairs` -> (Q, D).
    """

    def __init__(self, hidden: int, heads: int, bias: PairBias, edge_values: int | None = None):
        super().__init__()
        self.n_heads = heads
        # No bias here either: that of the keys adds the same to all scores of a query.
        self.project = nn.Linear(hidden, 3 * hidden, bias=False)
        self.bias = bias
        self.gate = nn.Linear(edge_values, hidden) if edge_values else None
        self.out = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, pairs: Pairs) -> Tensor:
        """(N, D) -> (Q, D)."""
        alpha, value = self._heard(h, pairs)
        sent = value.index_select(0, pairs.sender)
        if self.gate is not None:
            sent = sent * self.gate(pairs.basis).sigmoid()
        message = alpha[:, :, None] * sent.unflatten(1, (self.n_heads, -1))
        mixed = torch.zeros_like(pairs.receiving(h))
        return self.out(mixed.index_add(0, pairs.receiver, message.flatten(1)))

    def weights(self, h: Tensor, pairs: Pairs) -> Tensor:
        """The alpha of `forward`, (H, Q, N): a row is what a node gives to all; it sums to one."""
        alpha, _ = self._heard(h, pairs)
        size = len(pairs.receiving(h)), len(h)
        entry = pairs.receiver * size[1] + pairs.sender
        dense = alpha.new_zeros(size[0] * size[1], self.n_heads).index_add(0, entry, alpha)
        return dense.T.unflatten(1, size)

    def _heard(self, h: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Alpha of every pair, (P, H), and the values of all nodes, (N, D)."""
        query, key, value = self.project(h).chunk(3, dim=1)
        query = pairs.receiving(query)
        product = query.index_select(0, pairs.receiver) * key.index_select(0, pairs.sender)
        product = product.unflatten(1, (self.n_heads, -1))  # (P, H, d)
        scores = product.sum(dim=2) / math.sqrt(product.shape[2]) + self.bias(pairs)
        return softmax(scores, pairs.receiver, num_nodes=len(query)), value
