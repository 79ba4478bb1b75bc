"""What models share: inputs, bases of distances and angles, the cutoff envelope, read-outs, heads.

Axes: N nodes, E edges, T angles, B graphs, F element features, K basis functions, D hidden.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.structures.record import SiteKind


class Output(NamedTuple):
    """What a model says about B graphs."""

    eform: Tensor  # (B,) formation energy, or the target that a run names in its place, eV
    spin: Tensor  # (B,) magnetic moment, μB, not below zero
    site_spin: Tensor | None = None  # (N,) moments of the nodes, μB, whose sum `spin` is

    @property
    def unit(self) -> Tensor | float:
        """eV, or (B,) of each graph: in this the loss counts an error of eform."""
        return 1.0


def node_batch(graph: CrystalGraph) -> Tensor:
    """(N,) the graph of every node; zeros for a single graph."""
    return graph.z.new_zeros(len(graph.z)) if graph.batch is None else graph.batch


def local_geometry(graph: CrystalGraph) -> tuple[Tensor, Tensor]:
    """Vectors (E, 3) and lengths (E,) of the local edges, Å, with gradients."""
    vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift, graph.batch)
    return vectors, lengths(vectors)


class NodeInputs(nn.Module):
    """Numbers that describe a node: what stands there, what stood there, and its kind.

    A vacancy has a learned vector in place of element features, beside its flag in the kind:
    x_i = e_vac + delta_vac joined end to end, equation (10).

    Args:
        features: (119, F) standardised element features, row 0 for a vacancy (`elements`).
        marks: whether `original_z` and the kind of site are part of the input. Without them a
            node is its element, or a vacancy.

    Attributes:
        width: of the output.

    Shapes: graph -> (N, width).
    """

    def __init__(self, features: Tensor, marks: bool = True):
        super().__init__()
        self.register_buffer("features", torch.as_tensor(features, dtype=torch.get_default_dtype()))
        self.vacancy = nn.Parameter(0.1 * torch.randn(features.shape[1]))
        self.marks = marks
        self.width = 2 * features.shape[1] + len(SiteKind) if marks else features.shape[1]

    def forward(self, graph: CrystalGraph) -> Tensor:
        """(N, width)."""
        here = torch.where(graph.is_vacancy[:, None], self.vacancy, self.features[graph.z])
        if not self.marks:
            return here
        kind = nn.functional.one_hot(graph.site_kind, len(SiteKind)).to(here.dtype)
        return torch.cat([here, self.features[graph.original_z], kind], dim=1)


class Ingredients(nn.Module):
    """Which elements there are, by the part they play, before any message has passed.

    Mean features of the atoms that the defect added, of those that it took away, and of the
    pristine host, zeros where there are none; and how many sites there are of every kind of
    defect. Geometry does not come in.

    Args:
        n_features: F.

    Shapes: graph, element features (119, F) -> (B, width).
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.width = 3 * n_features + len(SiteKind)

    def forward(self, graph: CrystalGraph, features: Tensor) -> Tensor:
        """(B, width)."""
        batch, size = node_batch(graph), len(graph.cell)
        host = graph.original_z > 0
        added, removed = graph.is_defect & (graph.z > 0), graph.is_defect & host
        parts = [(graph.z, added), (graph.original_z, removed), (graph.original_z, host)]
        means = [
            scatter(features[z[chosen]], batch[chosen], dim_size=size, reduce="mean")
            for z, chosen in parts
        ]
        kinds = nn.functional.one_hot(graph.site_kind, len(SiteKind)).to(features.dtype)
        kinds = kinds * graph.is_defect[:, None]
        return torch.cat([*means, scatter(kinds, batch, dim_size=size, reduce="sum")], dim=1)


class MeanPooling(nn.Module):
    """The mean over all nodes of a graph: the read-out of the proposal and of ALIGNN."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, graph: CrystalGraph) -> Tensor:
        """(N, D) -> (B, width)."""
        return scatter(h, node_batch(graph), dim_size=len(graph.cell), reduce="mean")


class SumPooling(MeanPooling):
    """The sum over all nodes of a graph: right for what grows with the crystal."""

    def forward(self, h: Tensor, graph: CrystalGraph) -> Tensor:
        """(N, D) -> (B, width)."""
        return scatter(h, node_batch(graph), dim_size=len(graph.cell), reduce="sum")


class DefectPooling(MeanPooling):
    """The mean over the nodes of the defect; over all nodes where there is none."""

    def forward(self, h: Tensor, graph: CrystalGraph) -> Tensor:
        """(N, D) -> (B, width)."""
        batch, size = node_batch(graph), len(graph.cell)
        pristine = ~scatter(graph.is_defect.long(), batch, dim_size=size, reduce="max").bool()
        weight = (graph.is_defect | pristine[batch]).to(h.dtype)[:, None]
        total = scatter(weight * h, batch, dim_size=size, reduce="sum")
        return total / scatter(weight, batch, dim_size=size, reduce="sum")


class GatedPooling(nn.Module):
    """A mean with learned weights, which know the kind of each site, and beside it the defect's.

    w_i = softmax over the graph of u(h_i) + v(kind_i); out = (sum_i w_i h_i, defect mean).
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = 2 * width
        self.score = nn.Sequential(
            nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1)
        )
        self.kind = nn.Embedding(len(SiteKind), 1)
        self.defect = DefectPooling(width)

    def weights(self, h: Tensor, graph: CrystalGraph) -> Tensor:
        """(N,) w, which sum to 1 over each graph."""
        score = self.score(h) + self.kind(graph.site_kind)
        return softmax(score[:, 0], node_batch(graph), num_nodes=len(graph.cell))

    def forward(self, h: Tensor, graph: CrystalGraph) -> Tensor:
        """(N, D) -> (B, width)."""
        weighted = self.weights(h, graph)[:, None] * h
        total = scatter(weighted, node_batch(graph), dim_size=len(graph.cell), reduce="sum")
        return torch.cat([total, self.defect(h, graph)], dim=1)


POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "mean": MeanPooling,
    "sum": SumPooling,
    "defect": DefectPooling,
    "gated": GatedPooling,
}


def pooling(name: str, width: int) -> nn.Module:
    """The read-out called `name`, for nodes of D = width; DefectkitError for an unknown one."""
    if name not in POOLINGS:
        raise DefectkitError(f"No read-out is called '{name}'; choose from {', '.join(POOLINGS)}.")
    return POOLINGS[name](width)


class Heads(nn.Module):
    """Formation energy and magnetic moment from one vector a graph.

    eform = mean + scale * f(x); spin = scale * softplus(g(x)), which is never negative. The
    means and scales belong to the training set (`fit`) and travel with the weights.

    Args:
        width: of the vector.
        hidden: of the one hidden layer; None for a linear map.

    Shapes: (B, width) -> `Output` of (B,).
    """

    def __init__(self, width: int, hidden: int | None = None):
        super().__init__()
        inner = [nn.Linear(width, hidden), nn.SiLU()] if hidden else []
        self.map = nn.Sequential(*inner, nn.Linear(hidden or width, 2))
        self.register_buffer("eform_mean", torch.zeros(()))
        self.register_buffer("eform_scale", torch.ones(()))
        self.register_buffer("spin_scale", torch.ones(()))

    def fit(self, eform: Tensor, spin: Tensor) -> None:
        """Take the normalisation from training labels, (n,) eV and μB; NaN is left out."""
        eform, spin = eform[~eform.isnan()], spin[~spin.isnan()]
        self.eform_mean.fill_(eform.mean())
        self.eform_scale.fill_(eform.std().clamp(min=1e-3))
        if len(spin):
            self.spin_scale.fill_(spin.abs().mean().clamp(min=1e-3))

    def forward(self, x: Tensor) -> Output:
        """(B, width) -> eV and μB."""
        eform, spin = self.map(x).unbind(dim=1)
        return Output(
            self.eform_mean + self.eform_scale * eform,
            self.spin_scale * nn.functional.softplus(spin),
        )


class SiteHeads(Heads):
    """Formation energy from one vector a graph, and a magnetic moment from every node.

    m_i = scale * sigmoid(a_i) * softplus(b_i), where a_i and b_i come from the node and the whole
    graph; spin = sum_i m_i. A vacancy has no moment. The first factor says whether there is a
    moment, the second how large it is: most atoms have none at all.

    Args:
        width: D of a node.
        total: of the vector of a graph.
        hidden: of the one hidden layer of the energy.

    Shapes: x (B, total), h (N, D), graph -> `Output`.
    """

    def __init__(self, width: int, total: int, hidden: int):
        super().__init__(total, hidden)
        self.node = nn.Linear(width, width)
        self.whole = nn.Linear(total, width, bias=False)
        self.moment = nn.Sequential(nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, h: Tensor, graph: CrystalGraph) -> Output:
        """Energies in eV, moments in μB."""
        eform = self.eform_mean + self.eform_scale * self.map(x)[:, 0]
        batch = node_batch(graph)
        there, size = self.moment(self.node(h) + self.whole(x)[batch]).unbind(dim=1)
        moment = self.spin_scale * torch.sigmoid(there) * nn.functional.softplus(size)
        moment = torch.where(graph.is_vacancy, 0.0, moment)
        spin = moment.new_zeros(len(graph.cell)).index_add(0, batch, moment)
        return Output(eform, spin, moment)


class GaussianBasis(nn.Module):
    """e_k(x) = exp(-gamma (x - mu_k)^2), k = 1..K, equation (2).

    The centres mu_k are evenly spaced over [start, stop], and gamma = 1 / (2 spacing^2): a
    Gaussian's standard deviation is the distance to the next one (SchNet; Schütt et al.,
    J. Chem. Phys. 148, 241722, 2018). For distances [0, cutoff] in Å.

    Args:
        stop: the last centre.
        start: the first centre.
        n: K, at least 2.

    Shapes: x (E,) -> (E, K).
    """

    def __init__(self, stop: float, start: float = 0.0, n: int = 128):
        super().__init__()
        self.start, self.stop, self.n = start, stop, n
        centres = torch.linspace(start, stop, n)
        log_gamma = torch.log(torch.full((n,), 0.5 * ((n - 1) / (stop - start)) ** 2))
        self.register_buffer("centres", centres)
        self.register_buffer("log_gamma", log_gamma)

    def forward(self, x: Tensor) -> Tensor:
        """(E,) -> (E, K)."""
        exponent = -self.log_gamma.exp() * (x[:, None] - self.centres).square()
        # Numbers too small for normal floats make exp ten times slower.
        return exponent.clamp(min=-80.0).exp()

    def extra_repr(self) -> str:  # noqa: D102 - torch's hook for repr
        return f"{self.start:g} to {self.stop:g}, n={self.n}"


class AngularBasis(GaussianBasis):
    """Gaussians over cos(theta), with centres over [-1, 1] (as in ALIGNN).

    The cosine itself is smooth in the positions everywhere; the angle is not at 0 and 180°.

    Args:
        n: K, the number of centres.

    Shapes: cos(theta) (T,) -> (T, K).
    """

    def __init__(self, n: int = 40):
        super().__init__(stop=1.0, start=-1.0, n=n)


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """A smooth step from 1 at distance 0 to 0 at the cutoff, and 0 beyond.

    1 - 28 x^6 + 48 x^7 - 21 x^8 with x = d / cutoff (DimeNet; Gasteiger et al., ICLR 2020,
    p = 6). Value, slope and curvature vanish at the cutoff, so a message multiplied by it
    changes the energy, the forces and their derivatives continuously while an atom comes or
    goes.

    Args:
        distance: (E,) Å.
        cutoff: Å.

    Returns:
        (E,), between 0 and 1.
    """
    x = (distance / cutoff).clamp(max=1.0)
    cube = x * x * x  # powers cost more than all else here
    return 1.0 - cube * cube * (28.0 - x * (48.0 - 21.0 * x))
