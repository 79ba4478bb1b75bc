import numpy as np
import pytest
import torch
from ase import Atoms

from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.models.parts import AngularBasis, GaussianBasis, envelope


def test_gaussians_follow_equation_2():
    basis = GaussianBasis(5.0)
    assert basis.n == 128
    assert basis.centres[0] == 0.0
    assert basis.centres[-1] == 5.0
    x = torch.tensor([0.0, 1.234, 5.0])
    spacing = 5.0 / 127
    expected = torch.exp(-((x[:, None] - basis.centres) ** 2) / (2 * spacing**2))
    torch.testing.assert_close(basis(x), expected)
    # Neighbouring Gaussians overlap: every distance within the range is seen.
    assert basis(torch.linspace(0, 5, 999)).sum(dim=1).min() > 1.0


def test_angular_basis_covers_the_cosines():
    basis = AngularBasis()
    assert basis(torch.tensor([-1.0, 0.0, 1.0])).argmax(dim=1)[[0, 2]].tolist() == [0, 39]


def test_gradients_of_the_bases():
    x = torch.tensor([-0.9, 0.3, 0.8], dtype=torch.float64, requires_grad=True)
    radial = GaussianBasis(2.0, n=5).double()
    assert torch.autograd.gradcheck(radial, (x.abs() * 2,))
    assert torch.autograd.gradcheck(AngularBasis(5).double(), (x,))
    assert torch.autograd.gradgradcheck(lambda d: envelope(d, 2.0), (x + 1.0,))


def test_envelope_ends_smoothly():
    d = torch.tensor([0.0, 5.0, 5.5, 99.0], dtype=torch.float64, requires_grad=True)
    value = envelope(d, 5.0)
    assert value.tolist() == pytest.approx([1, 0, 0, 0])
    (slope,) = torch.autograd.grad(value.sum(), d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), d)
    assert slope.abs().max() < 1e-12
    assert curvature.abs().max() < 1e-12
    inside = envelope(torch.linspace(0, 5, 100), 5.0)
    assert (inside.diff() < 1e-6).all()


def test_energy_is_continuous_when_an_atom_crosses_the_cutoff():
    torch.manual_seed(0)
    basis, weights = GaussianBasis(5.0).double(), torch.randn(128).double()

    def energy(distance: float) -> tuple[int, float]:
        atoms = Atoms("MoS", [[0, 0, 0], [0, 0, distance]], cell=[20, 20, 20], pbc=(1, 1, 0))
        graph = build_graph(atoms, GraphConfig(all_pairs=False), dtype=torch.float64)
        d = lengths(edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift))
        return len(d), (basis(d) @ weights * envelope(d, 5.0)).sum().item()

    distances = 5.0 + np.array([-1e-4, -1e-6, 1e-6])
    counts, energies = zip(*map(energy, distances))
    assert counts == (2, 2, 0)
    assert energies[2] == 0.0
    # Of third order in the distance to the cutoff.
    assert abs(energies[0]) < 1e-9
    assert abs(energies[1]) < 1e-12
    assert abs(energy(4.5)[1]) > 1e-4
