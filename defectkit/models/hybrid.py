"""The hybrid model: local where chemistry is local, global where physics is global.

Blocks of message passing inside a cutoff, equation (3), and after them blocks of self-attention
with a bias that knows periodicity and defects, equations (4), (5) and (11): all nodes are heard, by
all or, as shipped, by those of the defect.
All blocks are residual with their normalisation first (Xiong et al., ICML 2020). Every part can
be switched off. The energy is a smooth function of positions and cell.

Axes: N nodes, E edges, e edges below the angular cutoff, B graphs, H attention heads, K basis
functions, D hidden.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from ase.data import covalent_radii
from torch import Tensor, nn
from torch_geometric.utils import scatter

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph, GraphConfig
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.models.angular import AngularTerm, FastPower, RadialFilter, Shell, TripletPower
from defectkit.models.attention import PairBias, PairInputs, Pairs, PeriodicAttention
from defectkit.models.parts import (
    GaussianBasis,
    Ingredients,
    NodeInputs,
    Output,
    SiteHeads,
    envelope,
    local_geometry,
    node_batch,
    pooling,
)

LATTICE_RANGE = 30.0  # Å, of the basis for lengths of cell vectors
RELATIVE_RANGE = 2.0, 0.5  # longest and shortest bond, over the sum of covalent radii


class Local(NamedTuple):
    """The local edges, prepared once for all layers."""

    sender: Tensor  # (E,)
    receiver: Tensor  # (E,)
    basis: Tensor  # (E, K) radial basis times the envelope of the cutoff
    shell: Shell | None


class Geometry(NamedTuple):
    """What members of an ensemble share of a graph, as nothing that they learned comes in."""

    local: Local
    pairs: Pairs | None  # None without global layers


class BondBasis(nn.Module):
    """The radial basis of a bond's length in Å, and of its length relative to what is usual.

    The second is d_ij / (r_i + r_j) with covalent radii (Cordero et al., Dalton Trans. 2832,
    2008), about one for a single bond whatever the elements. A vacancy has the radius of the
    atom that is missing.

    Args:
        cutoff: Å.
        radial: K of each.
        relative: whether the second is there.

    Shapes: graph, distance (E,) -> (E, width).
    """

    def __init__(self, cutoff: float, radial: int, relative: bool = True):
        super().__init__()
        self.absolute = GaussianBasis(cutoff, n=radial)
        self.relative = GaussianBasis(*RELATIVE_RANGE, n=radial) if relative else None
        self.width = 2 * radial if relative else radial
        radii = torch.tensor(covalent_radii, dtype=torch.get_default_dtype())
        self.register_buffer("radii", radii, persistent=False)

    def forward(self, graph: CrystalGraph, distance: Tensor) -> Tensor:
        """(E, width)."""
        basis = self.absolute(distance)
        if self.relative is None:
            return basis
        radius = self.radii[torch.where(graph.is_vacancy, graph.original_z, graph.z)]
        usual = radius[graph.edge_index].sum(dim=0)  # (E,) Å
        return torch.cat([basis, self.relative(distance / usual)], dim=1)


class LocalBlock(nn.Module):
    """h_i' = h_i + sigma(sum_j f_bond(h_i, h_j, d_ij) + sum_jk f_angle(theta_jik)), equation (3).

    f_bond = silu(A h_i + B h_j + C e(d_ij)) * (F e(d_ij)): a bond's message and its gate, a
    radial filter that vanishes at the cutoff with the envelope in e. A message has half the
    width of a node: the cost of a layer is that of its edges.

    Args:
        hidden: D.
        radial: K.
        angles: whether the angular term is there.
        dropout: of what is added to h.

    Shapes: h (N, D), `Local` -> (N, D).
    """

    def __init__(self, hidden: int, radial: int, angles: bool = True, dropout: float = 0.0):
        super().__init__()
        width = hidden // 2
        self.norm = nn.LayerNorm(hidden)
        self.receiver = nn.Linear(hidden, width)
        self.sender = nn.Linear(hidden, width, bias=False)
        self.bond = RadialFilter(radial, width)
        self.gate = RadialFilter(radial, width)
        self.gather = nn.Linear(width, hidden)
        self.angular = AngularTerm(hidden, radial) if angles else None
        self.out = nn.Sequential(nn.SiLU(), _small(nn.Linear(hidden, hidden)), nn.Dropout(dropout))

    def forward(self, h: Tensor, local: Local) -> Tensor:
        """(N, D) -> (N, D)."""
        x = self.norm(h)
        # Maps of nodes come before the gathering: there are far fewer nodes than edges.
        ends = self.receiver(x).index_select(0, local.receiver)
        ends = ends + self.sender(x).index_select(0, local.sender)
        bond = torch.addmm(ends, local.basis, self.bond.weight.T)
        message = nn.functional.silu(bond) * self.gate(local.basis)  # (E, D / 2)
        total = message.new_zeros(len(h), message.shape[1]).index_add(0, local.receiver, message)
        total = self.gather(total)
        if self.angular is not None:
            total = total + self.angular(x, local.shell)
        return h + self.out(total)


class GlobalBlock(nn.Module):
    """Attention, then a network on each node that received; both residual, normalised first.

    Args:
        attention: `PeriodicAttention`.
        hidden: D.
        dropout: of what is added to h.

    Shapes: h (N, D), `Pairs` -> (N, D).
    """

    def __init__(self, attention: PeriodicAttention, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.attention = attention
        _small(attention.out)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 2 * hidden),
            nn.SiLU(),
            _small(nn.Linear(2 * hidden, hidden)),
            nn.Dropout(dropout),
        )

    def forward(self, h: Tensor, pairs: Pairs) -> Tensor:
        """(N, D) -> (N, D)."""
        heard = pairs.receiving(h) + self.dropout(self.attention(self.norm(h), pairs))
        return pairs.updated(h, heard + self.feed_forward(heard))

    def weights(self, h: Tensor, pairs: Pairs) -> Tensor:
        """(H, Q, N), see `PeriodicAttention.weights`."""
        return self.attention.weights(self.norm(h), pairs)


class LatticeInputs(nn.Module):
    """What a node's edges to its own images say about the cell, one vector a graph.

    The mean over the graph's self-edges of a network on their lengths: in two dimensions the
    three lengths fix the lattice.

    Args:
        hidden: D.
        radial: K.

    Shapes: graph -> (B, D).
    """

    def __init__(self, hidden: int, radial: int):
        super().__init__()
        self.network = nn.Sequential(
            GaussianBasis(LATTICE_RANGE, n=radial),
            nn.Linear(radial, radial),
            nn.SiLU(),
            nn.Linear(radial, hidden),
        )

    def forward(self, graph: CrystalGraph) -> Tensor:
        """(B, D)."""
        batch = node_batch(graph)
        # All nodes of a graph have the same self-edges; its first node's are enough.
        first = batch.diff(prepend=batch.new_full((1,), -1)) > 0
        chosen = first[graph.lattice_index[1]]
        index, shift = graph.lattice_index[:, chosen], graph.lattice_shift[chosen]
        length = lengths(edge_vectors(graph.pos, graph.cell, index, shift, graph.batch))
        size = len(graph.cell)
        return scatter(self.network(length), batch[index[1]], dim_size=size, reduce="mean")


def _small(linear: nn.Linear) -> nn.Linear:
    """The map with a tenth of its first weights: a residual block begins near the identity."""
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.zero_()
    return linear


@dataclass(frozen=True)
class HybridSettings:
    """What can be chosen about a `Hybrid`.

    Attributes:
        hidden: D.
        local_layers: blocks of message passing.
        global_layers: blocks of attention; 0 for a purely local model.
        attention_heads: H.
        radial: K of the radial basis, for edges and for pairs.
        relative: whether edges know their length in units of the covalent radii as well.
        angles: "fast", "triplets" (the same numbers, slower) or None.
        angular_cutoff: Å, edges shorter than this form angles.
        reach: Å, the range of phi.
        phi: whether attention knows the distance.
        psi: whether attention knows the kinds of sites.
        images: "minimum", or "sum" over all images within the graph's `image_radius`.
        edge_values: whether the edge modulates the values of attention: a mean of equal values is
            the same however its weights are, so weights alone cannot tell how far apart two like
            defects are.
        marks: whether nodes know their kind and what stood there (`NodeInputs`).
        lattice: whether edges to an atom's own images say what the cell is.
        readout: "mean", "sum", "defect" or "gated" (`parts.pooling`).
        ingredients: whether the read-out is told which elements there are (`parts.Ingredients`).
        dropout: in all residual blocks.
    """

    hidden: int = 64
    local_layers: int = 2
    global_layers: int = 1
    attention_heads: int = 4
    radial: int = 16
    relative: bool = True
    angles: str | None = "fast"
    angular_cutoff: float = 4.0
    reach: float = 15.0
    phi: bool = True
    psi: bool = True
    images: str = "minimum"
    edge_values: bool = True
    marks: bool = True
    lattice: bool = True
    readout: str = "gated"
    ingredients: bool = True
    dropout: float = 0.0

    def check(self, graph: GraphConfig) -> None:
        """DefectkitError for settings that do not fit each other or the graphs."""
        if graph.neighbours:
            raise DefectkitError(
                "Hybrid reads graphs with a cutoff: its energy is smooth while an atom comes "
                "or goes. Leave GraphConfig(neighbours=None)."
            )
        if self.hidden % self.attention_heads:
            raise DefectkitError(
                f"hidden is {self.hidden}, which {self.attention_heads} attention heads do not "
                "divide."
            )
        if self.angles not in ("fast", "triplets", None):
            raise DefectkitError(f"angles is {self.angles!r}; use 'fast', 'triplets' or None.")
        if self.angular_cutoff > graph.cutoff:
            raise DefectkitError(
                f"angular_cutoff is {self.angular_cutoff} Å and the graph's cutoff "
                f"{graph.cutoff} Å; make it no longer than the cutoff."
            )
        if self.angles == "triplets" and not (
            graph.angle_cutoff and graph.angle_cutoff >= self.angular_cutoff
        ):
            raise DefectkitError(
                f"angles='triplets' reads angles up to {self.angular_cutoff} Å from the graph; set "
                "GraphConfig(angle_cutoff) to this."
            )
        if self.images not in ("minimum", "sum"):
            raise DefectkitError(f"images is {self.images!r}; use 'minimum' or 'sum'.")
        if self.global_layers and (self.images == "sum") != (graph.image_radius is not None):
            raise DefectkitError(
                f"images='{self.images}' and GraphConfig(image_radius={graph.image_radius}) do not "
                "fit: the sum needs a radius, minimum images need None."
            )
        if self.global_layers and self.images == "minimum" and not graph.all_pairs:
            raise DefectkitError("Attention needs pairs; set GraphConfig(all_pairs=True).")


class Hybrid(nn.Module):
    """Local message passing, then periodic attention; formation energy and magnetic moment.

    Args:
        features: (119, F) standardised element features.
        graph: configuration of the graphs; they need a cutoff, pairs where there are global
            layers (images within `image_radius` for images="sum"), and angles for
            angles="triplets".
        settings: those of `HybridSettings`, by name.

    Raises DefectkitError for settings that do not fit each other or the graphs.
    """

    Settings = HybridSettings

    def __init__(
        self,
        features: Tensor,
        graph: GraphConfig,
        **settings: int | float | bool | str | None,
    ):
        super().__init__()
        use = HybridSettings(**settings)
        use.check(graph)
        hidden, radial = use.hidden, use.radial
        self.cutoff, self.angular_cutoff, self.angles = graph.cutoff, use.angular_cutoff, use.angles
        self.inputs = NodeInputs(features, use.marks)
        self.embed = nn.Linear(self.inputs.width, hidden)
        self.lattice = LatticeInputs(hidden, radial) if use.lattice else None
        self.basis = BondBasis(graph.cutoff, radial, use.relative)
        self.pairs = PairInputs(use.reach, radial, graph)
        self.local_blocks = nn.ModuleList(
            LocalBlock(hidden, self.basis.width, use.angles is not None, use.dropout)
            for _ in range(use.local_layers)
        )
        self.global_blocks = nn.ModuleList()
        for _ in range(use.global_layers):
            bias = PairBias(use.attention_heads, radial, use.phi, use.psi, use.images == "sum")
            gate = radial if use.edge_values else None
            attention = PeriodicAttention(hidden, use.attention_heads, bias, gate)
            self.global_blocks.append(GlobalBlock(attention, hidden, use.dropout))
        self.norm = nn.LayerNorm(hidden)
        self.readout = pooling(use.readout, hidden)
        self.ingredients = Ingredients(features.shape[1]) if use.ingredients else None
        width = self.readout.width + (self.ingredients.width if use.ingredients else 0)
        self.mix = nn.Sequential(nn.Linear(width, 2 * hidden), nn.SiLU())
        self.heads = SiteHeads(hidden, 2 * hidden, hidden)

    def forward(self, graph: CrystalGraph, geometry: Geometry | None = None) -> Output:
        """Energy in eV and moment in μB, (B,) each; the moments of the nodes.

        `geometry` is that of the graph, where another network of the same settings made it.
        """
        geometry = geometry or self.geometry(graph)
        h = self.global_states(self.local_states(graph, geometry), graph, geometry.pairs)
        h = self.norm(h)
        x = self.readout(h, graph)
        if self.ingredients is not None:
            x = torch.cat([x, self.ingredients(graph, self.inputs.features)], dim=1)
        return self.heads(self.mix(x), h, graph)

    def geometry(self, graph: CrystalGraph) -> Geometry:
        """Of a graph, for this network and all of its settings."""
        pairs = self.pairs(graph) if self.global_blocks else None
        return Geometry(self._local(graph), pairs)

    def attention(self, graph: CrystalGraph) -> list[Tensor]:
        """The attention of every global layer, (H, Q, N) each.

        Entry [:, i, j] is the weight that node i gives to node j, in the order of the graph's
        nodes; a row sums to one. Where the defect alone asks, i counts its nodes. The list is
        empty without global layers.
        """
        maps: list[Tensor] = []
        if not self.global_blocks:
            return maps
        pairs, h = self.pairs(graph), self.local_states(graph)
        for block in self.global_blocks:
            maps.append(block.weights(h, pairs))
            h = block(h, pairs)
        return maps

    def local_states(self, graph: CrystalGraph, geometry: Geometry | None = None) -> Tensor:
        """(N, D) the nodes after the local blocks."""
        local = geometry.local if geometry else self._local(graph)
        h = self.embed(self.inputs(graph))
        if self.lattice is not None:
            h = h + self.lattice(graph).index_select(0, node_batch(graph))
        for block in self.local_blocks:
            h = block(h, local)
        return h

    def global_states(self, h: Tensor, graph: CrystalGraph, pairs: Pairs | None = None) -> Tensor:
        """(N, D) the nodes after the global blocks, from those after the local ones."""
        if not self.global_blocks:
            return h
        pairs = pairs or self.pairs(graph)
        for block in self.global_blocks:
            h = block(h, pairs)
        return h

    def _local(self, graph: CrystalGraph) -> Local:
        vectors, distance = local_geometry(graph)
        sender, receiver = graph.edge_index
        basis = self.basis(graph, distance) * envelope(distance, self.cutoff)[:, None]
        if self.angles is None:
            return Local(sender, receiver, basis, None)
        near = (distance < self.angular_cutoff).nonzero()[:, 0]
        unit = nn.functional.normalize(vectors[near], dim=1)
        ends = unit, receiver[near], len(graph.z)
        if self.angles == "fast":
            power = FastPower(*ends)
        else:
            number = torch.full_like(receiver, -1)  # of an edge among the near ones
            number[near] = torch.arange(len(near), device=near.device)
            angles = number[graph.angle_index]
            power = TripletPower(*ends, angles[:, (angles >= 0).all(dim=0)])
        short = basis[near] * envelope(distance[near], self.angular_cutoff)[:, None]
        return Local(sender, receiver, basis, Shell(sender[near], short, power))
