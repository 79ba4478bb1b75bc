"""Three-body terms: what the angles between an atom's bonds say, in two forms.

The sum over all pairs of neighbours j, k of an atom i,

    P_l = sum_jk w_ij w_ik P_l(cos theta_jik),    j = k included,

is computed as it stands ("triplets"), which grows with the square of the number of neighbours,
or through the addition theorem of the spherical harmonics ("fast"),

    P_l = 4 pi / (2l + 1) sum_m | sum_j w_ij Y_lm(r_ij / |r_ij|) |^2,

which grows with their number. The numbers are the same. They are the power spectrum of the
neighbour density (Bartók, Kondor and Csányi, Phys. Rev. B 87, 184115, 2013), here with learned
weights w in several channels.

Axes: N nodes, e short edges, t pairs of them, n neighbours at most, K basis functions, C channels,
D hidden, L = l_max + 1 degrees, M = L^2 harmonics.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

L_MAX = 4


def spherical_harmonics(unit: Tensor) -> Tensor:
    """Real orthonormal spherical harmonics Y_lm, l = 0..4, as polynomials of the unit vector.

    In the order (l, m) = (0, 0), (1, -1), (1, 0), (1, 1), ..., (4, 4), without the
    Condon-Shortley phase: l = 1 is proportional to y, z, x.

    Args:
        unit: (e, 3).

    Returns:
        (e, 25).
    """
    x, y, z = unit.unbind(dim=1)
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz, minus = x * y, x * z, y * z, xx - yy
    columns = [
        torch.ones_like(x),
        y,
        z,
        x,
        xy,
        yz,
        3 * zz - 1,
        xz,
        minus,
        y * (3 * xx - yy),
        xy * z,
        y * (5 * zz - 1),
        z * (5 * zz - 3),
        x * (5 * zz - 1),
        z * minus,
        x * (xx - 3 * yy),
        xy * minus,
        yz * (3 * xx - yy),
        xy * (7 * zz - 1),
        yz * (7 * zz - 3),
        zz * (35 * zz - 30) + 3,
        xz * (7 * zz - 3),
        minus * (7 * zz - 1),
        xz * (xx - 3 * yy),
        xx * (xx - 3 * yy) - yy * (3 * xx - yy),
    ]
    return torch.stack(columns, dim=1) * unit.new_tensor(NORMS)


# The square of each norm times pi; see for example Görller-Walrand and Binnemans, Handbook on the
# Physics and Chemistry of Rare Earths 23, 121 (1996).
SQUARES = (
    *(1 / 4,),
    *(3 / 4, 3 / 4, 3 / 4),
    *(15 / 4, 15 / 4, 5 / 16, 15 / 4, 15 / 16),
    *(35 / 32, 105 / 4, 21 / 32, 7 / 16, 21 / 32, 105 / 16, 35 / 32),
    *(315 / 16, 315 / 32, 45 / 16, 45 / 32, 9 / 256, 45 / 32, 45 / 64, 315 / 32, 315 / 256),
)
NORMS = tuple(math.sqrt(square / math.pi) for square in SQUARES)
DEGREES = [degree for degree in range(L_MAX + 1) for _ in range(2 * degree + 1)]


def legendre(x: Tensor) -> Tensor:
    """Legendre polynomials P_0..P_4: (t,) -> (t, 5)."""
    columns = [torch.ones_like(x), x]
    for degree in range(2, L_MAX + 1):
        before, last = columns[-2:]
        columns.append(((2 * degree - 1) * x * last - (degree - 1) * before) / degree)
    return torch.stack(columns, dim=1)


class FastPower:
    """P_l of every node by the addition theorem, prepared once for all layers.

    Args:
        unit: (e, 3) unit vectors of short edges.
        receiver: (e,) the node that each one reaches.
        n_nodes: N.

    Shapes: weights (e, C) -> (N, C, L).
    """

    def __init__(self, unit: Tensor, receiver: Tensor, n_nodes: int):
        # Edges as (node, neighbour number): the sum over neighbours is then a matrix product.
        order = receiver.argsort(stable=True)
        count = torch.bincount(receiver, minlength=n_nodes)
        number = torch.arange(len(receiver), device=receiver.device)
        number = number - (count.cumsum(0) - count)[receiver[order]]
        self.shape = n_nodes, int(count.max())
        self.slot = torch.empty_like(receiver)
        self.slot[order] = receiver[order] * self.shape[1] + number
        self.harmonics = self._dense(spherical_harmonics(unit))  # (N, n, M)
        degree = torch.tensor(DEGREES, device=unit.device)
        factor = 4 * math.pi / (2 * degree + 1)
        self.sum_m = (nn.functional.one_hot(degree) * factor[:, None]).to(unit.dtype)  # (M, L)

    def __call__(self, weights: Tensor) -> Tensor:
        """(e, C) -> (N, C, L)."""
        density = self._dense(weights).transpose(1, 2) @ self.harmonics  # (N, C, M)
        return density.square() @ self.sum_m

    def _dense(self, values: Tensor) -> Tensor:
        """(e, c) -> (N, n, c)."""
        empty = values.new_zeros(self.shape[0] * self.shape[1], values.shape[1])
        return empty.index_copy(0, self.slot, values).view(*self.shape, values.shape[1])


class TripletPower:
    """P_l of every node as the sum over pairs of its edges: the definition, to read and to test.

    Args:
        unit: (e, 3) unit vectors of short edges.
        receiver: (e,) the node that each one reaches.
        n_nodes: N.
        angles: (2, t) all ordered pairs of short edges that meet at a node.

    Shapes: weights (e, C) -> (N, C, L).
    """

    def __init__(self, unit: Tensor, receiver: Tensor, n_nodes: int, angles: Tensor):
        first, second = angles
        self.angles, self.receiver, self.n_nodes = angles, receiver, n_nodes
        self.polynomials = legendre((unit[first] * unit[second]).sum(dim=1))  # (t, L)

    def __call__(self, weights: Tensor) -> Tensor:
        """(e, C) -> (N, C, L)."""
        first, second = self.angles
        pairs = (weights[first] * weights[second])[:, :, None] * self.polynomials[:, None]
        alone = weights.square()[:, :, None].expand(-1, -1, L_MAX + 1)  # j = k, P_l(1) = 1
        total = weights.new_zeros(self.n_nodes, *alone.shape[1:])
        return total.index_add(0, self.receiver[first], pairs).index_add(0, self.receiver, alone)


class Shell(NamedTuple):
    """The edges shorter than the angular cutoff, prepared once for all layers."""

    sender: Tensor  # (e,)
    basis: Tensor  # (e, K) radial basis times the envelope of the angular cutoff
    power: Callable[[Tensor], Tensor]  # `FastPower` or `TripletPower`


class AngularTerm(nn.Module):
    """sum_jk f_angle(theta_jik) of equation (3): P_l with learned weights, then a linear map.

    w_ij = (A e(d_ij)) * (B h_j) in C channels; the envelope in e takes a neighbour's weight
    smoothly to zero.

    Args:
        hidden: D.
        radial: K.
        channels: C.

    Shapes: h (N, D), `Shell` -> (N, D).
    """

    def __init__(self, hidden: int, radial: int, channels: int = 16):
        super().__init__()
        self.radial = RadialFilter(radial, channels)
        self.neighbour = nn.Linear(hidden, channels)
        self.out = nn.Linear(channels * (L_MAX + 1), hidden)

    def forward(self, h: Tensor, shell: Shell) -> Tensor:
        """(N, D) -> (N, D)."""
        weights = self.radial(shell.basis) * self.neighbour(h).index_select(0, shell.sender)
        return self.out(shell.power(weights).flatten(1))


class RadialFilter(nn.Linear):
    """A linear map of the radial basis without bias, so that it vanishes where the basis does.

    Its weights begin with a variance of 1 / sqrt(pi), the inverse of sum_k e_k(d)^2 of
    `GaussianBasis`: what it gives then has variance one at every distance.
    """

    def __init__(self, radial: int, width: int):
        super().__init__(radial, width, bias=False)

    def reset_parameters(self) -> None:  # noqa: D102 - torch's hook for the first values
        nn.init.normal_(self.weight, std=math.pi**-0.25)
