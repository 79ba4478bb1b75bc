import numpy as np
import pytest
import torch
from ase import Atoms
from crystals import defective, host
from torch_geometric.data import Batch

from defectkit.graphs import build_graph
from defectkit.graphs.elements import feature_table
from defectkit.graphs.geometry import asymmetry, bond_strain, lengths, local_strain

TABLE = feature_table(["elemental"])
CHI = torch.from_numpy(TABLE.values[:, TABLE.names.index("electronegativity")])


def cross(arms=("S", "S", "S", "S"), by=(0.0, 0.0, 0.0, 0.0)):
    """A Mo atom with four neighbours 2.5 Å away along x, -x, y, -y, pushed outwards `by` Å."""
    directions = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    ideal = np.array([[0, 0, 0], *2.5 * directions])
    pos = ideal + np.array([[0, 0, 0], *np.array(by)[:, None] * directions])
    atoms = Atoms(["Mo", *arms], pos + [0, 0, 5.0], cell=[20, 20, 20], pbc=(1, 1, 0))
    graph = build_graph(atoms, dtype=torch.float64)
    graph.ideal_pos = torch.tensor(ideal + [0, 0, 5.0])
    return graph


def test_breathing_has_a_mean_and_no_direction():
    mean, vector = local_strain(cross(by=(0.1,) * 4), nearest=4)
    assert mean[0].item() == pytest.approx(0.1 / 2.5)
    assert vector[0].abs().max() < 1e-12


def test_one_neighbour_that_moves_away_gives_the_direction():
    mean, vector = local_strain(cross(by=(0.2, 0, 0, 0)), nearest=4)
    assert mean[0].item() == pytest.approx(0.2 / 2.5 / 4)
    assert vector[0].tolist() == pytest.approx([0.2 / 2.5 / 4, 0, 0])


def test_asymmetry_points_to_the_electronegative_side():
    vector = asymmetry(cross(("O", "S", "S", "S")), CHI, nearest=4)
    oxygen, sulfur = 3.44, 2.58
    mean = (oxygen + 3 * sulfur) / 4
    expected = ((oxygen - mean) - (sulfur - mean)) / 4
    assert vector[0].tolist() == pytest.approx([expected, 0, 0])
    assert asymmetry(cross(), CHI, nearest=4)[0].abs().max() < 1e-12
    opposite = asymmetry(cross(("O", "O", "S", "S")), CHI, nearest=4)
    assert opposite[0].abs().max() < 1e-12


def test_ties_count_whole():
    # Four equal neighbours: to ask for two of them gives all four.
    vectors = [asymmetry(cross(("O", "S", "S", "S")), CHI, nearest=k)[0] for k in (2, 4)]
    torch.testing.assert_close(*vectors)


def test_descriptors_turn_with_the_crystal_and_their_lengths_do_not():
    atoms, angle = defective(), 37.0
    turned = atoms.copy()
    turned.rotate(angle, "z", rotate_cell=True)
    a, b = (build_graph(x, host=host(), dtype=torch.float64) for x in (atoms, turned))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    for describe in (lambda g: local_strain(g)[1], lambda g: asymmetry(g, CHI)):
        first, second = describe(a), describe(b)
        torch.testing.assert_close(first @ rotation.T, second, atol=1e-6, rtol=0)
        torch.testing.assert_close(lengths(first), lengths(second), atol=1e-6, rtol=0)
        assert lengths(first).max() > 0.01
    torch.testing.assert_close(local_strain(a)[0], local_strain(b)[0], atol=1e-6, rtol=0)


def test_a_pristine_host_shows_nothing():
    graph = build_graph(host().repeat((3, 3, 1)), host=host(), dtype=torch.float64)
    assert bond_strain(graph).abs().max() < 1e-6
    assert lengths(asymmetry(graph, CHI)).max() > 0.01  # an S sees Mo below and S beside
    metals = graph.z == 42
    assert lengths(asymmetry(graph, CHI))[metals].max() < 1e-6


def test_a_vacancy_is_no_neighbour_and_sees_its_own():
    graph = build_graph(defective(), host=host())
    graph.z[graph.z == 42] = 16  # every atom is S but W and Li
    chi = torch.zeros(119)
    chi[0] = 100.0
    assert lengths(asymmetry(graph, chi)).max() == 0.0
    mean, vector = local_strain(graph)
    assert mean[graph.is_vacancy].abs() > 0
    assert lengths(vector[graph.is_vacancy]) > 0


def test_descriptors_have_gradients_and_batch():
    graphs = [build_graph(defective(), host=host()), build_graph(host(), host=host())]
    batch = Batch.from_data_list(graphs)
    batch.pos.requires_grad_()
    mean, vector = local_strain(batch)
    lopsided = asymmetry(batch, CHI)
    alone = [(*local_strain(g), asymmetry(g, CHI)) for g in graphs]
    for together, parts in zip((mean, vector, lopsided), zip(*alone)):
        torch.testing.assert_close(together, torch.cat(parts))
    (mean.sum() + lopsided.square().sum()).backward()
    assert torch.isfinite(batch.pos.grad).all()
    assert batch.pos.grad.abs().max() > 0


def test_a_node_alone_has_zeros():
    graph = build_graph(Atoms("Xe", cell=[16, 16, 20], pbc=(1, 1, 0)))
    mean, vector = local_strain(graph)
    assert mean.tolist() == [0]
    assert vector.tolist() == asymmetry(graph, CHI).tolist() == [[0, 0, 0]]
