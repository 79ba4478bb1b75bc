"""ALIGNN beside its published equations, in plain loops and with NumPy alone."""

import numpy as np
import pytest
import torch
from crystals import host
from model_cases import CONFIG, feature_table, graph_of, molecule, small_model

from defectkit import DefectkitError
from defectkit.graphs import CrystalGraph, GraphConfig
from defectkit.models import build_model
from defectkit.models.baselines import EdgeGatedConv

PUBLISHED = 4_026_753  # parameters, with 92 atom features and one output


pytestmark = pytest.mark.usefixtures("double_precision")


def weights(module: torch.nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v.numpy() for k, v in module.state_dict().items() if prefix in k}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def norm(w: dict, name: str, x):
    """Batch norm with its running statistics."""
    scaled = (x - w[f"{name}.running_mean"]) / np.sqrt(w[f"{name}.running_var"] + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def looped_conv(w: dict, h, e, edges, update_edges: bool = True):
    """The published layer, edge by edge; `edges` lists (sender, receiver)."""
    matrices, biases = np.split(w["nodes.weight"], 4), np.split(w["nodes.bias"], 4)
    src_gate, dst_gate, src_update, dst_update = (
        lambda x, m=m, b=b: m @ x + b for m, b in zip(matrices, biases)
    )
    total, weight = np.zeros_like(h), np.zeros_like(h)
    new_e = e.copy()
    for number, (j, i) in enumerate(edges):
        m = src_gate(h[j]) + dst_gate(h[i]) + w["edges.weight"] @ e[number] + w["edges.bias"]
        total[i] += sigmoid(m) * dst_update(h[j])
        weight[i] += sigmoid(m)
        if update_edges:
            new_e[number] = e[number] + silu(norm(w, "norm_edges", m))
    new_h = h.copy()
    for i in range(len(h)):
        x = src_update(h[i]) + total[i] / (weight[i] + 1e-6)
        new_h[i] = h[i] + silu(norm(w, "norm_nodes", x))
    return new_h, new_e


def looped_mlp(w: dict, x):
    return silu(norm(w, "1", w["0.weight"] @ x + w["0.bias"]))


def gaussians(x, start, stop, n):
    centres = np.linspace(start, stop, n)
    return np.exp(-((x - centres) ** 2) / (2 * (centres[1] - centres[0]) ** 2))


def looped_alignn(model, graph: CrystalGraph, cutoff: float) -> float:
    """The whole network up to the mean over nodes: (D,)."""
    w = [weights(model, f"edge_embedding.{k}.") for k in (1, 2)]
    pos, cell = graph.pos.numpy(), graph.cell[0].numpy()
    edges = graph.edge_index.T.tolist()
    vectors = [
        pos[j] + shift @ cell - pos[i] for (j, i), shift in zip(edges, graph.edge_shift.numpy())
    ]
    features = model.inputs(graph).detach().numpy()
    h = np.array([looped_mlp(weights(model, "atom_embedding."), x) for x in features])
    basis = [gaussians(np.linalg.norm(v), 0, cutoff, 10) for v in vectors]
    e = np.array([looped_mlp(w[1], looped_mlp(w[0], x)) for x in basis])
    # The line graph by its meaning: two bonds shorter than the angular cutoff at one receiver.
    short = [np.linalg.norm(v) < CONFIG.angle_cutoff for v in vectors]
    pairs, t = [], []
    w = [weights(model, f"angle_embedding.{k}.") for k in (1, 2)]
    for a in range(len(edges)):
        for b in range(len(edges)):
            if a != b and edges[a][1] == edges[b][1] and short[a] and short[b]:
                lengths = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
                cosine = vectors[a] @ vectors[b] / lengths
                pairs.append((b, a))
                t.append(looped_mlp(w[1], looped_mlp(w[0], gaussians(cosine, -1, 1, 6))))
    t = np.array(t)
    for layer in range(2):
        h, e = looped_conv(weights(model, f"crystal_convs.{layer}."), h, e, edges)
        e, t = looped_conv(weights(model, f"line_convs.{layer}."), e, t, pairs, layer == 0)
    h, e = looped_conv(weights(model, "gcn_convs.0."), h, e, edges, False)
    return h.mean(axis=0)


def test_layer_is_the_published_one():
    torch.manual_seed(0)
    conv = EdgeGatedConv(3)
    index = torch.tensor([[0, 1, 2, 2, 0], [1, 1, 1, 0, 0]])  # nothing reaches nodes 2 and 3
    h, e = torch.randn(4, 3), torch.randn(5, 3)
    conv(h, e, index)  # running statistics that are not 0 and 1
    new_h, new_e = conv.eval()(h, e, index)
    loop_h, loop_e = looped_conv(weights(conv), h.numpy(), e.numpy(), index.T.tolist())
    np.testing.assert_allclose(new_h.detach(), loop_h, rtol=1e-12)
    np.testing.assert_allclose(new_e.detach(), loop_e, rtol=1e-12)


def test_network_is_the_published_one():
    model = small_model("alignn")
    graph = graph_of(host())
    pooled = []
    model.heads.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    model(graph)
    expected = looped_alignn(model, graph, CONFIG.cutoff)
    np.testing.assert_allclose(pooled[0][0].detach(), expected, rtol=1e-10)


def test_number_of_parameters_is_the_published_one():
    model = build_model("alignn", feature_table(92), GraphConfig(), marks=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    second_output = 256 + 1
    vacancy = 92
    unused_norms = 2 * (256 + 256)  # of the last angles and of the last edges
    assert count == PUBLISHED + second_output + vacancy - unused_norms


def test_angles_tell_apart_what_bond_lengths_do_not():
    """Three bonds of 2 Å, 80 or 110 degrees between; their ends are beyond the cutoff."""
    config = GraphConfig(cutoff=2.5, angle_cutoff=2.5)

    def graph(degrees: float):
        angles = np.radians(degrees) * np.arange(3)
        ends = 2 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        return graph_of(molecule([0, 0, 0], *ends, symbols="WOSF"), config)

    def difference(model) -> float:
        with torch.no_grad():
            energy = [model(graph(degrees)).eform for degrees in (80, 110)]
        return (energy[0] - energy[1]).abs().item()

    assert difference(small_model("alignn", config)) > 1e-6
    assert difference(small_model("alignn", config, alignn_layers=0)) < 1e-12


def test_model_without_angles_reads_graphs_without():
    config = GraphConfig(cutoff=4.7, angle_cutoff=None)
    model = small_model("alignn", config, alignn_layers=0)
    assert model(graph_of(host(), config)).eform.isfinite().all()
    with pytest.raises(DefectkitError, match="angle_cutoff"):
        build_model("alignn", feature_table(), config)


def test_a_last_layer_is_needed():
    with pytest.raises(DefectkitError, match="gcn_layers is 0"):
        build_model("alignn", feature_table(), CONFIG, gcn_layers=0)
