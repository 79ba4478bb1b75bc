"""Building blocks of the models: bases of distances and angles, the cutoff envelope.

Axes: E edges, T angles, K basis functions.
"""

import torch
from torch import Tensor, nn


class GaussianBasis(nn.Module):
    """e_k(x) = exp(-gamma (x - mu_k)^2), k = 1..K, equation (2).

    The centres mu_k are evenly spaced over [start, stop], and gamma = 1 / (2 spacing^2): a
    Gaussian's standard deviation is the distance to the next one (SchNet; Schütt et al.,
    J. Chem. Phys. 148, 241722, 2018). For distances [0, cutoff] in Å.

    Args:
        stop: the last centre.
        start: the first centre.
        n: K, at least 2.
        learnable: whether the centres and each one's gamma are parameters.

    Shapes: x (E,) -> (E, K).
    """

    def __init__(self, stop: float, start: float = 0.0, n: int = 128, learnable: bool = False):
        super().__init__()
        self.start, self.stop, self.n = start, stop, n
        centres = torch.linspace(start, stop, n)
        # The logarithm keeps gamma positive while it is learned.
        log_gamma = torch.log(torch.full((n,), 0.5 * ((n - 1) / (stop - start)) ** 2))
        if learnable:
            self.centres, self.log_gamma = nn.Parameter(centres), nn.Parameter(log_gamma)
        else:
            self.register_buffer("centres", centres)
            self.register_buffer("log_gamma", log_gamma)

    def forward(self, x: Tensor) -> Tensor:
        """(E,) -> (E, K)."""
        exponent = -self.log_gamma.exp() * (x[:, None] - self.centres) ** 2
        # Numbers too small for normal floats make exp ten times slower.
        return exponent.clamp(min=-80.0).exp()

    def extra_repr(self) -> str:  # noqa: D102 - torch's hook for repr
        return f"{self.start:g} to {self.stop:g}, n={self.n}"


class AngularBasis(GaussianBasis):
    """Gaussians over cos(theta), with centres over [-1, 1] (as in ALIGNN).

    The cosine itself is smooth in the positions everywhere; the angle is not at 0 and 180°.

    Args:
        n: K, the number of centres.
        learnable: as in `GaussianBasis`.

    Shapes: cos(theta) (T,) -> (T, K).
    """

    def __init__(self, n: int = 40, learnable: bool = False):
        super().__init__(stop=1.0, start=-1.0, n=n, learnable=learnable)


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
    return 1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8
