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
LEAST_UNIT = 1e-3  # eV
CROWD = 6.0  # sites near by, from where a scale depends on their number


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

    def near(self, n: int) -> Tensor:
        """How many others each of n sites has near by, (N,); one counts less the farther it is."""
        return self.fade.new_zeros(n).index_add(0, self.receiver, self.fade[:, 0])


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

    def bare(self, graph: CrystalGraph) -> SitePairs:
        """All pairs but those of a site with itself, their vectors (E, 3) for features."""
        other = (graph.pair_index[0] != graph.pair_index[1]) | graph.pair_shift.any(dim=1)
        index, shift = graph.pair_index[:, other], graph.pair_shift[other]
        vectors = edge_vectors(graph.pos, graph.cell, index, shift, graph.batch)
        return SitePairs(*index, vectors, envelope(lengths(vectors), self.reach)[:, None])

    def forward(self, graph: CrystalGraph, unit: Tensor) -> SitePairs:
        """All pairs but those of a site with itself."""
        pairs = self.bare(graph)
        index, vectors = torch.stack([pairs.sender, pairs.receiver]), pairs.features
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
        return pairs._replace(features=features)


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


class Linear(nn.Module):
    """Ridge regression, fitted once before the network learns.

    Args:
        width: W of what is known.

    Shapes: (B, W) -> (B,).
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(width + 1))

    def fit(self, known: Tensor, values: Tensor) -> None:
        """Take the weights from rows (n, W) and their values (n,); NaN is left out."""
        there = ~values.isnan()
        known = nn.functional.pad(known[there].double(), (0, 1), value=1.0)
        gram = known.T @ known + RIDGE * torch.eye(known.shape[1], dtype=torch.float64)
        self.weight.copy_(torch.linalg.solve(gram, known.T @ values[there].double()))

    def forward(self, known: Tensor) -> Tensor:
        """(B,)."""
        return known @ self.weight[:-1] + self.weight[-1]


class Scale(Linear):
    """A size: the exponential of a ridge regression, within the range of the rows it was fitted to.

    An exponential of what was never seen can be any number, infinity among them.

    Shapes: (B, W) -> (B,), positive.
    """

    def __init__(self, width: int):
        super().__init__(width)
        self.register_buffer("least", torch.zeros(()))
        self.register_buffer("most", torch.zeros(()))

    def fit(self, known: Tensor, values: Tensor) -> None:
        """Take the weights from rows (n, W) and values (n,) of any sign; NaN is left out."""
        super().fit(known, values.abs().clamp(min=LEAST_UNIT).log())
        fitted = super().forward(known[~values.isnan()])
        self.least.copy_(fitted.min())
        self.most.copy_(fitted.max())

    def forward(self, known: Tensor) -> Tensor:
        """(B,)."""
        return super().forward(known).clamp(self.least, self.most).exp()


class SiteOutput(Output):
    """`Output` whose graphs have units of their own.

    Args:
        eform, spin: see `Output`.
        unit: (B,) eV.
    """

    unit = None

    def __new__(cls, eform: Tensor, spin: Tensor, unit: Tensor) -> "SiteOutput":
        """A pair with an attribute."""
        output = super().__new__(cls, eform, spin)
        output.unit = unit
        return output


class SiteHeads(Heads):
    """`Heads` whose energy is n (baseline + scale * (mean + spread * f(x))).

    n is the number of sites, or 1 for what does not grow with them. The last columns of the vector
    are baseline, scale and unit, all per site, and n. Mean and spread are those of what the
    baseline leaves, over the scale.

    Shapes: (B, width + 4) -> `SiteOutput` of (B,).
    """

    def forward(self, x: Tensor) -> SiteOutput:
        """(B, width + 4) -> eV and μB."""
        each = super().forward(x[:, :-4])
        baseline, scale, unit, n = x[:, -4:].unbind(dim=1)
        return SiteOutput(n * (baseline + scale * each.eform), each.spin, n * unit)


@dataclass(frozen=True)
class SitesSettings:
    """What can be chosen about a `Sites`.

    Attributes:
        hidden: D.
        pair: P.
        layers: of messages.
        radial: Gaussians of the radial basis.
        dropout: in all layers.
        extensive: whether the target grows with the number of sites, as a formation energy does
            and a gap does not.
    """

    hidden: int = 48
    pair: int = 32
    layers: int = 3
    radial: int = 32
    dropout: float = 0.0
    extensive: bool = True


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
        self.extensive = use.extensive
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
        known = 2 * features.shape[1] + len(SiteKind) * (self.host.width + 1)
        self.baseline, self.unit = Linear(known), Scale(known + 1)
        self.scale = Scale(features.shape[1] + 1)
        self.heads = SiteHeads(hidden + 3 * pair)

    def fit(self, graph: CrystalGraph) -> None:
        """Take linear models and normalisation from a batch of training graphs with labels."""
        with torch.no_grad():
            host = self.host(graph, self.inputs.features)[1]
            pairs = self.pairs.bare(graph)
            known, crowded, elements, n = self._known(graph, host, pairs.near(len(graph.z)))
            energy = graph.y_eform / n
            self.baseline.fit(known, energy)
            left = energy - self.baseline(known)
            self.unit.fit(crowded, left)
            self.scale.fit(elements, left)
            self.heads.fit(left / self.scale(elements), graph.y_spin.abs())

    def _known(self, graph: CrystalGraph, host: Tensor, near: Tensor) -> tuple[Tensor, ...]:
        """What is known without learned numbers, means over the sites of a graph.

        Args:
            graph: B graphs with N sites.
            host: (N, width of `HostBonds`).
            near: (N,) how many sites are near each.

        Returns:
            (B, W) of sites by themselves; (B, W + 1) with how crowded they are; (B, F + 1) features
            of the elements of the host with the same; and (B,) the number of sites, or 1 where the
            target does not grow with them.
        """
        features = self.inputs.features
        here, before = features[graph.z], features[graph.original_z]
        kind = nn.functional.one_hot(graph.site_kind, len(SiteKind)).to(host.dtype)
        place = torch.einsum("nk,nf->nkf", kind, nn.functional.pad(host, (0, 1), value=1.0))
        known = torch.cat([here, before, place.flatten(1)], dim=1)
        # An atom without a site in the host stands for none of its elements.
        on_site = (graph.original_z > 0)[:, None]
        ends = host[:, : features.shape[1]]
        elements = torch.where(on_site, (before + ends) / 2, ends)
        batch, size = node_batch(graph), len(graph.cell)
        n = torch.bincount(batch, minlength=size).to(host.dtype)
        known, near, elements = (
            scatter(values, batch, dim_size=size, reduce="mean")
            for values in (known, _crowded(near)[:, None], elements)
        )
        n = n if self.extensive else torch.ones_like(n)
        return known, torch.cat([known, near], dim=1), torch.cat([elements, near], dim=1), n

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
        known, crowded, elements, n = self._known(graph, host, pairs.near(len(h)))
        numbers = [self.baseline(known), self.scale(elements), self.unit(crowded), n]
        return self.heads(torch.cat([mean, torch.stack(numbers, dim=1)], dim=1))


def _crowded(near: Tensor) -> Tensor:
    """(N,) about zero for sites with fewer others near by than `CROWD`: few are as good as none."""
    return nn.functional.softplus(near - CROWD).log1p()


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))
