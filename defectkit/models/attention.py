"""Self-attention between all nodes of a crystal, with a bias that knows its periodicity.

Attention = softmax(Q K^T / sqrt(d) + phi(d_pbc) + psi(kind_i, kind_j)) V, equations (5) and (11).
Two readings of periodicity: phi of the minimum-image distance, equation (4), or, over all images,
log sum_n exp(phi(|r_j + L n - r_i|)) with a phi that decays, which is attention to every atom of
the infinite crystal (Taniai et al., Crystalformer, ICLR 2024). The first changes when the same
crystal is written as a larger cell, the second does not.

Axes: N nodes, B graphs, n nodes of the largest graph, P pairs, H heads, K basis functions,
D hidden, d = D / H.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.utils import to_dense_batch

from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import edge_vectors
from defectkit.models.parts import GaussianBasis, envelope, node_batch
from defectkit.structures.record import SiteKind


@dataclass(frozen=True)
class Pairs:
    """The pairs of nodes of a batch, prepared once for all layers.

    Attributes:
        nodes: (N,) those that attend, by their number in the graph; None for all nodes.
        sender, receiver: (P,) of them.
        distance: (P,) Å.
        basis: (P, K) radial basis of the distance.
        fade: (P,) logarithm of the envelope at the image radius; None for minimum images.
        mask: (B, n) whether a place of the dense batch holds a node.
        kinds: (B, n, 5) kind of every site, one-hot; zeros where there is no node.
        slot: (N,) place of every node among the B * n.
        entry: (P,) place of every pair among the B * n * n entries of the dense matrices.
    """

    nodes: Tensor | None
    sender: Tensor
    receiver: Tensor
    distance: Tensor
    basis: Tensor
    fade: Tensor | None
    mask: Tensor
    kinds: Tensor
    slot: Tensor
    entry: Tensor

    def pack(self, h: Tensor) -> Tensor:
        """(N, D) -> (B, n, D), zeros where there is no node."""
        dense = h.new_zeros(self.mask.numel(), h.shape[1]).index_copy(0, self.slot, h)
        return dense.view(*self.mask.shape, h.shape[1])

    def unpack(self, dense: Tensor) -> Tensor:
        """(B, n, D) -> (N, D)."""
        return dense.flatten(0, 1).index_select(0, self.slot)

    def matrices(self, scores: Tensor) -> Tensor:
        """Dense matrices from the scores of pairs: (P, H) -> (B, H, n, n).

        Images of one pair are joined by log sum exp. A node scores -inf against padding and
        against nodes of which no image is near; rows of padding are zero, since a row of
        nothing but -inf has no softmax.
        """
        entry = self.entry
        if self.fade is not None:
            entry, image_of = entry.unique(return_inverse=True)
            scores = _log_sum_exp(scores, image_of, len(entry))
        n = self.mask.shape[1]
        empty = scores.new_zeros(*self.mask.shape, n).masked_fill(self.mask[:, :, None], -math.inf)
        heads = scores.shape[1]
        filled = empty.view(1, -1).repeat(heads, 1).index_copy(1, entry, scores.T)
        return filled.view(heads, *empty.shape).transpose(0, 1)

    def entries(self, matrices: Tensor) -> Tensor:
        """Of every pair its entry: (B, H, n, n) -> (P, H)."""
        return matrices.transpose(0, 1).flatten(1).index_select(1, self.entry).T


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
        self.among_defects = graph.pair_nodes == "defects"

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
        nodes, batch, kinds = None, node_batch(graph), graph.site_kind
        if self.among_defects:
            nodes = graph.is_defect.nonzero()[:, 0]
            batch, kinds = batch[nodes], kinds[nodes]
            sender, receiver = (graph.is_defect.cumsum(0) - 1)[graph.pair_index]
        basis = self.basis(distance)
        kinds = nn.functional.one_hot(kinds, len(SiteKind)).to(basis.dtype)
        kinds, mask = to_dense_batch(kinds, batch, batch_size=len(graph.cell))
        slot = mask.flatten().nonzero()[:, 0]
        n = mask.shape[1]
        return Pairs(
            nodes=nodes,
            sender=sender,
            receiver=receiver,
            distance=distance,
            basis=basis,
            fade=fade,
            mask=mask,
            kinds=kinds,
            slot=slot,
            entry=slot[receiver] * n + (slot % n)[sender],
        )


class PairBias(nn.Module):
    """phi(d_pbc) + psi(kind_i, kind_j), equations (5) and (11), for every pair and head.

    phi is a small network on the radial basis. Where pairs are images, it decays: minus
    softplus(a) d plus the logarithm of the envelope, with a learned a for every head.

    Args:
        heads: H.
        radial: K.
        phi: whether the network is there.
        psi: whether the table over kinds is there, (H, 5 kinds of receiver, 5 of sender).
        images: whether pairs are images.
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
        self.decay = nn.Parameter(torch.zeros(heads)) if images else None

    def scores(self, pairs: Pairs) -> Tensor:
        """The score phi of every pair, or of every image, (P, H)."""
        if self.phi is None:
            scores = pairs.basis.new_zeros(len(pairs.sender), self.n_heads)
        else:
            scores = self.phi(pairs.basis)
        if self.decay is not None:
            rate = nn.functional.softplus(self.decay)  # 1/Å
            scores = scores + pairs.fade[:, None] - rate * pairs.distance[:, None]
        return scores

    def forward(self, pairs: Pairs) -> Tensor:
        """(B, H, n, n), see `Pairs.matrices`."""
        bias = pairs.matrices(self.scores(pairs))
        if self.psi is None:
            return bias
        # psi[:, kind_i, kind_j] as matrix products, whose gradients are products too.
        rows = torch.einsum("bik,hkl->bhil", pairs.kinds, self.psi).flatten(1, 2)  # (B, H n, 5)
        return bias + (rows @ pairs.kinds.transpose(1, 2)).view_as(bias)


class PeriodicAttention(nn.Module):
    """Multi-head self-attention between all nodes of one structure, equations (5) to (9).

    Args:
        hidden: D, a multiple of heads.
        heads: H.
        bias: from `Pairs` to (B, H, n, n).
        edge_values: K of the radial basis, where values are modulated by the edge:
            sum_j alpha_ij (W_V h_j * sigma(e_ij)). None where they are not.

    Shapes: h (N, D), `Pairs` -> (N, D).
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
        """(N, D) -> (N, D)."""
        query, key, value = self._projected(h, pairs)
        if self.gate is None:
            # Torch's quick kernels have no second derivative, which training on forces needs.
            with sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext():
                mixed = nn.functional.scaled_dot_product_attention(
                    query, key, value, attn_mask=self.bias(pairs)
                )
            return self.out(pairs.unpack(_joined(mixed)))
        alpha = self._alpha(query, key, pairs)
        return self.out(self._modulated(alpha, pairs.unpack(_joined(value)), pairs))

    def weights(self, h: Tensor, pairs: Pairs) -> Tensor:
        """The alpha of `forward`, (B, H, n, n): rows are queries, zeros where there is no node.

        A node's row sums to one.
        """
        query, key, _ = self._projected(h, pairs)
        return self._alpha(query, key, pairs) * pairs.mask[:, None, :, None]

    def _alpha(self, query: Tensor, key: Tensor, pairs: Pairs) -> Tensor:
        """What `scaled_dot_product_attention` computes on the way and does not tell."""
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        return (scores + self.bias(pairs)).softmax(dim=-1)

    def _modulated(self, alpha: Tensor, value: Tensor, pairs: Pairs) -> Tensor:
        """The sum over senders image by image, of values (N, D) that differ by edge: (N, D)."""
        scores = self.bias.scores(pairs)
        share = (scores - pairs.entries(pairs.matrices(scores))).exp()  # of an image in its pair
        alpha = share * pairs.entries(alpha)  # (P, H)
        sent = value.index_select(0, pairs.sender) * self.gate(pairs.basis).sigmoid()
        message = alpha[:, :, None] * sent.unflatten(1, (self.n_heads, -1))
        return torch.zeros_like(value).index_add(0, pairs.receiver, message.flatten(1))

    def _projected(self, h: Tensor, pairs: Pairs) -> Tensor:
        """Query, key and value, (3, B, H, n, d)."""
        dense = pairs.pack(self.project(h)).unflatten(2, (3, self.n_heads, -1))
        return dense.permute(2, 0, 3, 1, 4)


def _joined(heads: Tensor) -> Tensor:
    """(B, H, n, d) -> (B, n, D)."""
    return heads.transpose(1, 2).flatten(2)


def _log_sum_exp(values: Tensor, group: Tensor, size: int) -> Tensor:
    """The log sum exp of each group of rows, none empty: (P, H), (P,) -> (size, H)."""
    index = group[:, None].expand_as(values)
    top = values.new_empty(size, values.shape[1])
    top = top.scatter_reduce(0, index, values.detach(), "amax", include_self=False)
    total = torch.zeros_like(top).index_add(0, group, (values - top[group]).exp())
    return top + total.log()
