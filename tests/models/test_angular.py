import numpy as np
import pytest
import scipy.special
import torch

from defectkit.models.angular import (
    L_MAX,
    AngularTerm,
    FastPower,
    RadialFilter,
    Shell,
    TripletPower,
    legendre,
    spherical_harmonics,
)
from defectkit.models.parts import GaussianBasis

pytestmark = pytest.mark.usefixtures("double_precision")


def unit_vectors(n: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def scipy_harmonics(unit: torch.Tensor) -> np.ndarray:
    """Real harmonics from scipy's complex ones."""
    x, y, z = unit.numpy().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    columns = []
    for degree in range(L_MAX + 1):
        for m in range(-degree, degree + 1):
            value = (-1) ** m * scipy.special.sph_harm_y(degree, abs(m), theta, phi)
            part = value.imag if m < 0 else value.real
            columns.append(part * (np.sqrt(2) if m else 1))
    return np.stack(columns, axis=1)


def test_harmonics_are_those_of_scipy():
    unit = torch.cat([unit_vectors(50), torch.eye(3), -torch.eye(3)])
    assert np.abs(spherical_harmonics(unit).numpy() - scipy_harmonics(unit)).max() < 1e-14


def test_legendre_polynomials_are_those_of_scipy():
    x = torch.linspace(-1, 1, 41)
    expected = [scipy.special.eval_legendre(degree, x.numpy()) for degree in range(L_MAX + 1)]
    assert np.abs(legendre(x).numpy() - np.stack(expected, axis=1)).max() < 1e-14


def test_addition_theorem():
    a, b = unit_vectors(30, 1), unit_vectors(30, 2)
    products = (spherical_harmonics(a) * spherical_harmonics(b)).split([1, 3, 5, 7, 9], dim=1)
    expected = legendre((a * b).sum(dim=1))
    for degree, part in enumerate(products):
        total = 4 * np.pi / (2 * degree + 1) * part.sum(dim=1)
        torch.testing.assert_close(total, expected[:, degree])


def star(n_edges: int = 40, n_nodes: int = 6, seed: int = 0):
    """Unit vectors, receivers in no order (the last node has none) and all ordered pairs."""
    unit = unit_vectors(n_edges, seed)
    generator = torch.Generator().manual_seed(seed)
    receiver = torch.randint(0, n_nodes - 1, (n_edges,), generator=generator)
    same = receiver[:, None] == receiver
    return unit, receiver, (same & ~torch.eye(n_edges, dtype=bool)).nonzero().T


def test_both_forms_give_the_same_numbers_and_gradients():
    unit, receiver, angles = star()
    weights = torch.randn(len(unit), 3, generator=torch.Generator().manual_seed(1))
    mix = torch.randn(6, 3, L_MAX + 1, generator=torch.Generator().manual_seed(2))
    found = []
    for form, extra in ((FastPower, ()), (TripletPower, (angles,))):
        u, w = unit.clone().requires_grad_(), weights.clone().requires_grad_()
        power = form(torch.nn.functional.normalize(u, dim=1), receiver, 6, *extra)(w)
        found.append((power, *torch.autograd.grad((power * mix).sum(), (u, w))))
    for fast, triplets in zip(*found):
        assert fast.abs().max() > 0.1
        torch.testing.assert_close(fast, triplets, rtol=1e-10, atol=1e-12)


def test_two_bonds_by_hand():
    # Weights 2 and 3 at a right angle: P_0 = 25, P_1 = 4 + 9, P_2 = 13 - 2 * 6 / 2.
    unit, receiver = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]), torch.tensor([0, 0])
    power = FastPower(unit, receiver, 1)(torch.tensor([[2.0], [3.0]]))
    torch.testing.assert_close(power[0, 0, :3], torch.tensor([25.0, 13.0, 7.0]))


def test_nodes_without_neighbours_have_zeros():
    none = torch.zeros(0, dtype=torch.long)
    forms = (
        FastPower(torch.zeros(0, 3), none, 2),
        TripletPower(torch.zeros(0, 3), none, 2, none[None].expand(2, 0)),
    )
    for form in forms:
        assert torch.equal(form(torch.zeros(0, 3)), torch.zeros(2, 3, L_MAX + 1))


def test_power_does_not_turn_with_the_crystal():
    unit, receiver, _ = star()
    weights = torch.randn(len(unit), 3, generator=torch.Generator().manual_seed(1))
    matrix, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = unit @ torch.from_numpy(matrix)
    before, after = (FastPower(u, receiver, 6)(weights) for u in (unit, turned))
    torch.testing.assert_close(before, after)


def test_term_tells_angles_apart_that_have_the_same_bonds():
    torch.manual_seed(0)
    term = AngularTerm(hidden=8, radial=4, channels=2)
    h, sender, receiver = torch.randn(3, 8), torch.tensor([1, 2]), torch.tensor([0, 0])
    basis = torch.rand(2, 4)

    def out(cosine: float) -> torch.Tensor:
        unit = torch.tensor([[1.0, 0, 0], [cosine, (1 - cosine**2) ** 0.5, 0]])
        return term(h, Shell(sender, basis, FastPower(unit, receiver, 3)))

    assert (out(0.5)[0] - out(-0.5)[0]).abs().max() > 1e-3
    torch.testing.assert_close(out(0.5)[1:], out(-0.5)[1:])  # no bonds reach the others


def test_radial_filters_begin_with_variance_one_at_every_distance():
    torch.manual_seed(0)
    basis = GaussianBasis(5.0, n=32)(torch.tensor([1.0, 2.2, 3.7]))
    variance = RadialFilter(32, 20_000)(basis).var(dim=1)
    torch.testing.assert_close(variance, torch.ones(3), rtol=0.05, atol=0)
