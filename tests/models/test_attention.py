import math

import numpy as np
import pytest
import torch
from crystals import defective, host
from torch_geometric.data import Batch

from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.models.attention import PairBias, PairInputs, PeriodicAttention

WIDTH, HEADS, RADIAL = 12, 3, 10
RADIUS = 7.0
IMAGES = GraphConfig(image_radius=RADIUS)


pytestmark = pytest.mark.usefixtures("double_precision")


def graph_of(atoms, config=None, pristine=None):
    return build_graph(atoms, config, pristine, dtype=torch.float64)


def batch_of(config=None):
    """Two graphs of 28 and 12 nodes."""
    graphs = [
        graph_of(defective(), config, host()),
        graph_of(host().repeat((2, 2, 1)), config, host()),
    ]
    return Batch.from_data_list(graphs)


def attention(images: bool = False, **settings) -> PeriodicAttention:
    torch.manual_seed(0)
    gate = RADIAL if settings.pop("edge_values", False) else None
    bias = PairBias(HEADS, RADIAL, images=images, **settings)
    with torch.no_grad():
        for parameter in bias.parameters():
            parameter.normal_()
    return PeriodicAttention(WIDTH, HEADS, bias, gate)


def prepared(graph, images: bool = False):
    pairs = PairInputs(15.0, RADIAL, GraphConfig(image_radius=RADIUS if images else None))(graph)
    h = torch.randn(len(graph.z), WIDTH, generator=torch.Generator().manual_seed(1))
    return h, pairs


BOTH = pytest.mark.parametrize("images", [False, True], ids=["minimum", "sum"])


@BOTH
def test_rows_sum_to_one_within_a_graph_and_give_nothing_to_another(images):
    h, pairs = prepared(batch_of(IMAGES if images else None), images)
    weights = attention(images).weights(h, pairs)
    assert weights.shape == (HEADS, 40, 40)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(HEADS, 40))
    assert not weights[:, :28, 28:].any()
    assert not weights[:, 28:, :28].any()


@BOTH
def test_output_is_the_values_in_the_shares_of_the_weights(images):
    h, pairs = prepared(batch_of(IMAGES if images else None), images)
    layer = attention(images)
    value = layer.project(h)[:, 2 * WIDTH :].unflatten(1, (HEADS, -1)).transpose(0, 1)
    mixed = layer.weights(h, pairs) @ value
    torch.testing.assert_close(layer(h, pairs), layer.out(mixed.transpose(0, 1).flatten(1)))


def test_two_nodes_by_hand():
    graph = graph_of(host().repeat((2, 2, 1))[[0, 3]])  # Mo and Mo
    graph.site_kind = torch.tensor([0, 4])
    h, pairs = prepared(graph)
    layer = attention()
    distance = lengths(
        edge_vectors(graph.pos, graph.cell, graph.pair_index, graph.pair_shift)
    ).view(2, 2)
    assert distance[0].tolist() == pytest.approx([0.0, distance[1, 0].item()])
    query, key, value = (layer.project(h)[:, k * WIDTH : (k + 1) * WIDTH] for k in range(3))
    d = WIDTH // HEADS
    basis = PairInputs(15.0, RADIAL).basis
    for head in range(HEADS):
        part = slice(head * d, (head + 1) * d)
        for i in range(2):
            score = []
            for j in range(2):
                phi = layer.bias.phi(basis(distance[i, j][None]))[0, head]
                psi = layer.bias.psi[head, graph.site_kind[i], graph.site_kind[j]]
                score.append((query[i, part] @ key[j, part] / math.sqrt(d) + phi + psi).exp())
            expected = torch.stack(score) / sum(score)
            torch.testing.assert_close(layer.weights(h, pairs)[head, i], expected)
    mixed = torch.cat(
        [w @ value[:, k * d : (k + 1) * d] for k, w in enumerate(layer.weights(h, pairs))], dim=1
    )
    torch.testing.assert_close(layer(h, pairs), layer.out(mixed))


@BOTH
def test_gates_that_are_open_change_nothing_and_others_do(images):
    h, pairs = prepared(batch_of(IMAGES if images else None), images)
    plain, gated = attention(images), attention(images, edge_values=True)
    gated.load_state_dict(plain.state_dict(), strict=False)
    assert (gated(h, pairs) - plain(h, pairs)).abs().max() > 0.01
    with torch.no_grad():
        gated.gate.bias.fill_(100.0)
    torch.testing.assert_close(gated(h, pairs), plain(h, pairs))


@pytest.mark.parametrize("part", ["phi", "psi"])
def test_without_phi_or_psi_attention_is_blind_to_distance_or_kind(part):
    first, second = batch_of(), batch_of()
    if part == "phi":
        second.pos = second.pos + 0.1 * torch.randn_like(second.pos)
    else:
        second.site_kind = torch.zeros_like(second.site_kind)
    for present in (True, False):
        layer = attention(**{part: present})
        a, b = (layer(*prepared(graph)) for graph in (first, second))
        assert torch.allclose(a, b) != present


def test_sum_over_images_by_hand():
    graph = graph_of(host(), IMAGES)
    _, pairs = prepared(graph, images=True)
    bias = attention(images=True).bias
    distance = lengths(edge_vectors(graph.pos, graph.cell, graph.pair_index, graph.pair_shift))
    sender, receiver = graph.pair_index
    x = distance / RADIUS
    step = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    phi = bias.phi(pairs.basis)
    rate = torch.nn.functional.softplus(bias.decay)
    for i in range(3):
        for j in range(3):
            pair = (receiver == i) & (sender == j)
            assert pair.sum() > 5
            terms = step[pair, None] * (phi[pair] - rate * distance[pair, None]).exp()
            expected = terms.sum(dim=0).log() + bias.psi[:, 0, 0]
            found = bias(pairs)[pair].exp().sum(dim=0).log()
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 2, 1)])
def test_only_the_sum_over_images_does_not_see_how_often_the_cell_is_repeated(repeat):
    unit = host().repeat((2, 2, 1))
    unit.rattle(0.1, seed=0)
    change = {}
    for images in (False, True):
        config = IMAGES if images else None
        layer = attention(images)
        h, pairs = prepared(graph_of(unit, config), images)
        _, repeated = prepared(graph_of(unit.repeat(repeat), config), images)
        copies = int(np.prod(repeat))
        one, many = layer(h, pairs), layer(h.repeat(copies, 1), repeated)
        change[images] = (many - one.repeat(copies, 1)).abs().max() / one.abs().max()
    assert change[True] < 1e-12
    assert change[False] > 0.02


def test_an_image_fades_before_it_leaves():
    # One atom moves out of the radius of another.
    outputs = []
    for d in (RADIUS - 1e-4, RADIUS + 1e-4):
        atoms = host()[[0, 1]]
        atoms.set_cell([30, 30, 30])
        atoms.positions = [[5, 5, 5], [5 + d, 5, 5]]
        h, pairs = prepared(graph_of(atoms, IMAGES), images=True)
        outputs.append(attention(images=True)(h, pairs))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-9)
    assert len(pairs.sender) == 2  # each atom with itself


@BOTH
@pytest.mark.parametrize("settings", [{}, {"phi": False, "psi": False}, {"edge_values": True}])
def test_second_derivatives_are_numbers(images, settings):
    graph = batch_of(IMAGES if images else None)
    graph.pos.requires_grad_()
    h, pairs = prepared(graph, images)
    h.requires_grad_()
    layer = attention(images, **settings)
    out = layer(h, pairs).square().sum()
    inputs = (h,) if not images and not settings.get("phi", True) else (h, graph.pos)
    slopes = torch.autograd.grad(out, inputs, create_graph=True)
    sum(slope.square().sum() for slope in slopes).backward()
    for value in (*inputs, *slopes):
        assert value.isfinite().all()
        assert value.any()
    for key, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), key
