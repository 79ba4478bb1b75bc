"""The model of a defect's own sites: three nodes in place of 190 atoms, and every pair of them.

It reads graphs of `GraphConfig(nodes="defects", image_radius=...)` (sparse representation; Kazeev
et al., npj Comput. Mater. 9, 113, 2023). A pair is told apart by its length and by its direction
against the host's bonds at both ends. Messages are added up, not averaged, and are gated by a
state of the pair that every layer updates: a mean of equals could not tell how far apart two like
vacancies are.

Every image within the radius is a pair of its own, and fades out there. So the answer is that of
the infinite crystal: moving, turning and mirroring it, another order of the sites, another cell
and another choice of images leave it as it is, and a repeated cell has the energy once more for
every repetition. The energy is a smooth function of the positions.

Axes: N sites, E pairs, B graphs, K bonds of a site in the pristine host, F element features, D
hidden, P pair width.
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
from defectkit.models.angular import legendre
from defectkit.models.parts import GaussianBasis, Heads, NodeInputs, Output, envelope, node_batch
from defectkit.structures.record import SiteKind

FEW = 0.3  # of a sum over pairs, which then is of the order of one
USUAL_BOND = 2.3  # Å
RIDGE = 1e-2


class SitePairs(NamedTuple):
    """The pairs of a batch, prepared once for all layers."""

    sender: Tensor  # (E,)
    receiver: Tensor  # (E,)
    features: Tensor  # (E, width of `PairFeatures`)
    fade: Tensor  # (E, 1) envelope at the image radius

    def gather(self, values: Tensor, n: int) -> Tensor:
        """The sum over the pairs that reach each of n sites, (E, D) -> (N, D)."""
        total = values.new_zeros(n, values.shape[1])
        return total.index_add(0, self.receiver, FEW * self.fade * values)


class HostBonds(nn.Module):
    """What a site's bonds in the pristine host say of it, without the host's name.

    Args:
        n_features: F.

    Shapes: graph, element features (119, F) -> unit vectors (N, K, 3), zeros where there is no
    bond, and (N, F + 3): mean features of the other ends, how many and how long the bonds are, and
    how one-sided.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.width = n_features + 3

    def forward(self, graph: CrystalGraph, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K, 3) and (N, width)."""
        there = graph.host_bonds_z > 0
        # An atom without a site in the host moves against it, and its bonds with it.
        moved = (graph.ideal_pos - graph.pos) * (graph.original_z == 0)[:, None]
        vectors = (graph.host_bonds + moved[:, None]) * there[:, :, None]
        length = lengths(vectors)
        unit = vectors / length.masked_fill(~there, 1.0)[:, :, None]
        count = there.sum(dim=1, keepdim=True).to(vectors.dtype)
        ends = (features[graph.host_bonds_z] * there[:, :, None]).sum(dim=1) / count
        long = length.sum(dim=1, keepdim=True) / count - USUAL_BOND
        side = (unit.sum(dim=1) / count).square().sum(dim=1, keepdim=True)
        return unit, torch.cat([ends, count / 6 - 1, long, side], dim=1)


class PairFeatures(nn.Module):
    """Length and direction of every pair, in numbers that do not turn with the crystal.

    Radial basis, length over the sum of the covalent radii, mean Legendre polynomials P_1 to P_4 of
    the angles between the pair and the bonds of each end, and whether the bonds of both ends lie
    to one side of the layer.

    Args:
        reach: Å, the image radius.
        radial: Gaussians of the radial basis.

    Shapes: graph, unit bonds (N, K, 3) -> `SitePairs`.
    """

    def __init__(self, reach: float, radial: int):
        super().__init__()
        self.reach = reach
        self.basis = GaussianBasis(reach, n=radial)
        self.width = radial + 2 + 2 * 4 + 1
        radii = torch.tensor(covalent_radii, dtype=torch.get_default_dtype())
        self.register_buffer("radii", radii, persistent=False)

    def forward(self, graph: CrystalGraph, unit: Tensor) -> SitePairs:
        """All pairs but those of a site with itself."""
        other = (graph.pair_index[0] != graph.pair_index[1]) | graph.pair_shift.any(dim=1)
        index, shift = graph.pair_index[:, other], graph.pair_shift[other]
        vectors = edge_vectors(graph.pos, graph.cell, index, shift, graph.batch)
        distance = lengths(vectors)
        there = (graph.host_bonds_z > 0).to(unit.dtype)
        share = there / there.sum(dim=1, keepdim=True)  # (N, K)
        away = nn.functional.normalize(vectors, dim=1)  # from the receiver to the sender
        angles = []
        for end, direction in ((index[1], away), (index[0], -away)):
            cosine = torch.einsum("ekx,ex->ek", unit[end], direction)
            angles.append((legendre(cosine)[:, 1:] * share[end][:, None]).sum(dim=2))
        mean = (unit * share[:, :, None]).sum(dim=1)
        usual = self.radii[torch.where(graph.is_vacancy, graph.original_z, graph.z)]
        usual = usual[index].sum(dim=0)
        numbers = torch.stack(
            [
                usual / (usual + distance),
                (1 + distance).log() - 2,
                (mean[index[0]] * mean[index[1]]).sum(dim=1),
            ],
            dim=1,
        )
        features = torch.cat([self.basis(distance), numbers, *angles], dim=1)
        return SitePairs(*index, features, envelope(distance, self.reach)[:, None])


class SiteLayer(nn.Module):
    """Additive messages through gates that read the state of the pair, which is updated first.

    p_ij' = p_ij + D silu(A h_i + B h_j + C p_ij),
    h_i' = h_i + f(h_i, sum_j (G p_ij') * (V h_j)), all of normalised inputs.

    Args:
        hidden: D.
        pair: P.
        dropout: of what is added.

    Shapes: h (N, D), p (E, P), `SitePairs` -> the same.
    """

    def __init__(self, hidden: int, pair: int, dropout: float):
        super().__init__()
        self.norm, self.pair_norm = nn.LayerNorm(hidden), nn.LayerNorm(pair)
        self.receiver = nn.Linear(hidden, pair)
        self.sender = nn.Linear(hidden, pair, bias=False)
        self.pair = nn.Linear(pair, pair, bias=False)
        self.update = nn.Sequential(nn.SiLU(), nn.Linear(pair, pair), nn.Dropout(dropout))
        self.gate, self.value = nn.Linear(pair, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Sequential(_mlp(2 * hidden, 2 * hidden, hidden), nn.Dropout(dropout))

    def forward(self, h: Tensor, p: Tensor, pairs: SitePairs) -> tuple[Tensor, Tensor]:
        """(N, D) and (E, P)."""
        x = self.norm(h)
        ends = self.receiver(x)[pairs.receiver] + self.sender(x)[pairs.sender]
        p = p + self.update(ends + self.pair(self.pair_norm(p)))
        heard = pairs.gather(self.gate(p) * self.value(x)[pairs.sender], len(h))
        return h + self.out(torch.cat([x, heard], dim=1)), p


class SiteBaseline(nn.Module):
    """A linear model of the energy per site, fitted once and taken off before the network learns.

    Ridge regression on the mean over sites of what is known of each before any message. It is right
    for sites that do not see each other, whatever their number.

    Args:
        width: W of what is known.

    Shapes: (N, W) -> (N, 1), eV.
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(width + 1))

    def fit(self, known: Tensor, energy: Tensor) -> None:
        """Take the weights from means (n, W) and energies per site (n,) eV; NaN is left out."""
        there = ~energy.isnan()
        known = nn.functional.pad(known[there].double(), (0, 1), value=1.0)
        gram = known.T @ known + RIDGE * torch.eye(known.shape[1], dtype=torch.float64)
        self.weight.copy_(torch.linalg.solve(gram, known.T @ energy[there].double()))

    def forward(self, known: Tensor) -> Tensor:
        """(N, 1) eV."""
        return (known @ self.weight[:-1] + self.weight[-1])[:, None]


class SiteHeads(Heads):
    """`Heads` that speak of one site: eform = n (baseline + mean + scale * f(x)) with n sites.

    The last columns of the vector are the baseline per site and n; mean and scale are those of
    what the baseline leaves per site.

    Shapes: (B, width + 2) -> `Output` of (B,), the energy of the cell.
    """

    def forward(self, x: Tensor) -> Output:
        """(B, width + 2) -> eV and μB."""
        each = super().forward(x[:, :-2])
        return Output(x[:, -1] * (x[:, -2] + each.eform), each.spin)


@dataclass(frozen=True)
class SitesSettings:
    """What can be chosen about a `Sites`.

    Attributes:
        hidden: D.
        pair: P.
        layers: of messages.
        radial: Gaussians of the radial basis.
        dropout: in all layers.
    """

    hidden: int = 48
    pair: int = 32
    layers: int = 3
    radial: int = 32
    dropout: float = 0.0


class Sites(nn.Module):
    """Formation energy and magnetic moment from the sites of the defect and their pairs.

    Energies of sites and of their pairs are averaged over the sites; `eform`, the energy of the
    cell, is this mean times the number of sites. A linear model of what the sites are (`fit`) is
    taken off first.

    Args:
        features: (119, F) standardised element features.
        graph: configuration of the graphs, of nodes="defects" with an `image_radius`.
        settings: those of `SitesSettings`, by name.

    Raises DefectkitError for other graphs.
    """

    Settings = SitesSettings

    def __init__(self, features: Tensor, graph: GraphConfig, **settings: int | float):
        super().__init__()
        if graph.nodes != "defects" or graph.image_radius is None:
            raise DefectkitError(
                "The model sites reads the sites of a defect with all images within a radius; set "
                "GraphConfig(nodes='defects', image_radius=20)."
            )
        use = SitesSettings(**settings)
        hidden, pair = use.hidden, use.pair
        self.inputs = NodeInputs(features)
        self.host = HostBonds(features.shape[1])
        self.pairs = PairFeatures(graph.image_radius, use.radial)
        width = self.inputs.width + self.host.width
        self.embed = _mlp(width, hidden, hidden)
        self.context = nn.Linear(hidden, hidden)
        self.pair_embed = _mlp(self.pairs.width, pair, pair)
        self.layers = nn.ModuleList(SiteLayer(hidden, pair, use.dropout) for _ in range(use.layers))
        self.site_norm, self.pair_norm = nn.LayerNorm(hidden), nn.LayerNorm(pair)
        self.readout = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.pair_readout = nn.Sequential(nn.Linear(pair, pair), nn.SiLU())
        self.ends = nn.Linear(width, 2 * pair)
        self.length = nn.Linear(self.pairs.width, 2 * pair)
        self.baseline = SiteBaseline(width)
        self.heads = SiteHeads(hidden + 3 * pair)

    def fit(self, graph: CrystalGraph) -> None:
        """Take baseline and normalisation from a batch of training graphs with their labels."""
        with torch.no_grad():
            known, n = self._known(graph, self.host(graph, self.inputs.features)[1])
            energy = graph.y_eform / n
            self.baseline.fit(known, energy)
            self.heads.fit(energy - self.baseline(known)[:, 0], graph.y_spin.abs())

    def _known(self, graph: CrystalGraph, host: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, W) of what is known of every site, without learned numbers, and (B,) sites."""
        features = self.inputs.features
        kind = nn.functional.one_hot(graph.site_kind, len(SiteKind)).to(host.dtype)
        known = torch.cat([features[graph.z], features[graph.original_z], kind, host], dim=1)
        batch, size = node_batch(graph), len(graph.cell)
        n = torch.bincount(batch, minlength=size).to(host.dtype)
        return scatter(known, batch, dim_size=size, reduce="mean"), n

    def forward(self, graph: CrystalGraph) -> Output:
        """Energy of the cell in eV and moment in μB, (B,) each."""
        batch, size = node_batch(graph), len(graph.cell)
        unit, host = self.host(graph, self.inputs.features)
        pairs = self.pairs(graph, unit)
        x = torch.cat([self.inputs(graph), host], dim=1)
        h, p = self.embed(x), self.pair_embed(pairs.features)
        h = h + self.context(scatter(h, batch, dim_size=size, reduce="mean"))[batch]
        for layer in self.layers:
            h, p = layer(h, p, pairs)
        # Beside what the layers made of a pair: its two kinds and its geometry, by themselves.
        ends = self.ends(x)
        plain = ends[pairs.receiver] + ends[pairs.sender] + self.length(pairs.features)
        of_pairs = [self.pair_readout(self.pair_norm(p)), nn.functional.silu(plain)]
        around = pairs.gather(torch.cat(of_pairs, dim=1), len(h))
        sites = torch.cat([self.readout(self.site_norm(h)), around], dim=1)
        mean = scatter(sites, batch, dim_size=size, reduce="mean")
        known, n = self._known(graph, host)
        return self.heads(torch.cat([mean, self.baseline(known), n[:, None]], dim=1))


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))
