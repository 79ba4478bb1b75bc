import numpy as np
import pytest
import torch
from crystals import defective, host, random_crystal
from torch_geometric.data import Batch

from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.geometry import angle_cosines, edge_vectors, lengths, strained
from defectkit.models.parts import AngularBasis, GaussianBasis, envelope


def graphs() -> Batch:
    """A defective layer and a skewed crystal, in float64."""
    config = GraphConfig(cutoff=4.0, angle_cutoff=3.0)
    small = random_crystal(1, pbc=True)
    small.set_scaled_positions(np.random.default_rng(0).random((len(small), 3)))
    small.set_cell(small.cell * 2, scale_atoms=True)
    return Batch.from_data_list(
        [
            build_graph(defective(), config, host(), dtype=torch.float64),
            build_graph(small, config, dtype=torch.float64),
        ]
    )


def energy(batch, pos, strain):
    """A sum over edges, angles, pairs and lattice edges that depends on all of the geometry."""
    pos, cell = strained(pos, batch.cell, strain, batch.batch)
    edges = edge_vectors(pos, cell, batch.edge_index, batch.edge_shift, batch.batch)
    pairs = edge_vectors(pos, cell, batch.pair_index, batch.pair_shift, batch.batch)
    lattice = edge_vectors(pos, cell, batch.lattice_index, batch.lattice_shift, batch.batch)
    torch.manual_seed(0)
    radial = GaussianBasis(4.0, n=8).double()(lengths(edges)) @ torch.randn(8).double()
    angular = AngularBasis(n=6).double()(angle_cosines(edges, batch.angle_index))
    return (
        (radial * envelope(lengths(edges), 4.0)).sum()
        + 0.1 * (angular @ torch.randn(6).double()).sum()
        + torch.exp(-lengths(pairs)).sum()
        + torch.log(lengths(lattice)).sum()
    )


def test_gradients_against_finite_differences():
    batch = graphs()
    pos = batch.pos.clone().requires_grad_()
    strain = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    energy(batch, pos, strain).backward()
    generator = torch.Generator().manual_seed(1)
    step = 1e-5
    for x, gradient in ((batch.pos, pos.grad), (torch.zeros_like(strain), strain.grad)):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        for which in (
            direction,
            torch.nn.functional.one_hot(torch.tensor(3), x.numel()).view(x.shape),
        ):
            up, down = x + step * which, x - step * which
            zero = torch.zeros_like(strain)
            pair = [(v, zero) if x is batch.pos else (batch.pos, v) for v in (up, down)]
            numeric = (energy(batch, *pair[0]) - energy(batch, *pair[1])) / (2 * step)
            assert numeric.item() == pytest.approx(
                (gradient * which).sum().item(), rel=1e-5, abs=1e-7
            )


def test_a_node_and_itself_have_a_finite_gradient():
    pos = torch.zeros(1, 3, requires_grad=True)
    zero = torch.zeros(2, 1, dtype=torch.long)
    vectors = edge_vectors(pos, torch.eye(3)[None], zero, torch.zeros(1, 3, dtype=torch.long))
    lengths(vectors).sum().backward()
    assert torch.equal(pos.grad, torch.zeros(1, 3))


def test_four_atoms_by_hand():
    # A square of side 1 that repeats along x every 3 Å.
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    cell = torch.diag(torch.tensor([3.0, 9.0, 9.0]))[None]
    index = torch.tensor([[1, 3, 1], [0, 0, 0]])
    shift = torch.tensor([[0, 0, 0], [0, 0, 0], [-1, 0, 0]])
    vectors = edge_vectors(pos, cell, index, shift)
    assert vectors.tolist() == [[1, 0, 0], [0, 1, 0], [-2, 0, 0]]
    cosines = angle_cosines(vectors, torch.tensor([[0, 0], [1, 2]]))
    assert cosines.tolist() == [0, -1]


def test_geometry_of_a_batch_is_that_of_its_graphs():
    batch = graphs()
    for shape in ("edge", "pair", "lattice"):
        index, shift = batch[f"{shape}_index"], batch[f"{shape}_shift"]
        together = edge_vectors(batch.pos, batch.cell, index, shift, batch.batch)
        alone = [
            edge_vectors(g.pos, g.cell, g[f"{shape}_index"], g[f"{shape}_shift"])
            for g in batch.to_data_list()
        ]
        torch.testing.assert_close(together, torch.cat(alone))


def test_autocast_leaves_images_where_they_are():
    config = GraphConfig(cutoff=4.0, angle_cutoff=None)
    one = build_graph(defective(), config, host())
    for graph in (one, Batch.from_data_list([one, one])):
        given = (graph.pos, graph.cell, graph.edge_index, graph.edge_shift, graph.batch)
        plain = edge_vectors(*given)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(edge_vectors(*given), plain)
