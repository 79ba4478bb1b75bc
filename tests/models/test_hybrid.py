import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.data import covalent_radii
from crystals import host, unimodular
from model_cases import (
    CONFIG,
    SMALL,
    feature_table,
    graph_of,
    known_defect,
    mixed_batch,
    mixed_graphs,
    molecule,
)
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.explain.attention import attention_maps
from defectkit.graphs import GraphConfig
from defectkit.models.hybrid import BondBasis, Hybrid, LatticeInputs

IMAGES = GraphConfig(cutoff=4.7, angle_cutoff=3.5, image_radius=6.0)


pytestmark = pytest.mark.usefixtures("double_precision")


def model_of(config: GraphConfig = CONFIG, **settings) -> Hybrid:
    torch.manual_seed(0)
    return Hybrid(feature_table(), config, **SMALL["hybrid"] | settings).eval()


def like(other: Hybrid, config: GraphConfig = CONFIG, **settings) -> Hybrid:
    """Another model with the weights that it has in common with `other`."""
    model = model_of(config, **settings)
    own, given = model.state_dict(), other.state_dict()
    common = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(common, strict=False)
    return model


def predict(model: Hybrid, graph) -> torch.Tensor:
    """(2, B)."""
    with torch.no_grad():
        return torch.stack(model(graph)[:2])


def names(model: Hybrid) -> str:
    return " ".join(key for key, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"angles": None}, ".angular."),
        ({"phi": False}, ".phi."),
        ({"psi": False}, ".psi"),
        ({"edge_values": False}, "attention.gate."),
        ({"lattice": False}, "lattice."),
        ({"global_layers": 0}, "global_blocks."),
        ({"local_layers": 0}, "local_blocks."),
    ],
)
def test_what_is_switched_off_is_gone_and_missed(settings, part):
    full = model_of()
    less = like(full, **settings)
    assert part in names(full)
    assert part not in names(less)
    batch = mixed_batch()
    assert predict(less, batch).isfinite().all()
    assert (predict(less, batch) - predict(full, batch))[:, 0].abs().min() > 1e-7


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"readout": "mean"}, "heads."),
        ({"readout": "defect"}, "heads."),
        ({"marks": False}, "embed."),
        ({"ingredients": False}, "mix."),
        ({"relative": False}, ".bond."),
    ],
)
def test_other_settings_give_other_models(settings, part):
    full = model_of()
    other = like(full, **settings)
    assert part in names(other)
    assert predict(other, mixed_batch()).isfinite().all()
    assert (predict(other, mixed_batch()) - predict(full, mixed_batch())).abs().max() > 1e-4


def test_both_forms_of_the_angles_predict_the_same():
    fast = model_of()
    # The graph's angles may reach farther than the model's.
    wide = GraphConfig(cutoff=4.7, angle_cutoff=4.2)
    for config in (CONFIG, wide):
        triplets = like(fast, config, angles="triplets")
        batch = mixed_batch(config)
        torch.testing.assert_close(predict(triplets, batch), predict(fast, batch))
    assert names(triplets) == names(fast)


def test_the_fast_form_needs_no_angles_in_the_graph():
    model = model_of()
    graph = mixed_batch(GraphConfig(cutoff=4.7, angle_cutoff=None))
    assert "angle_index" not in graph
    torch.testing.assert_close(predict(model, graph), predict(model, mixed_batch()))


def test_dropout_acts_in_training_only():
    plain, model = model_of(), model_of(dropout=0.5)
    assert torch.equal(predict(model, mixed_batch()), predict(plain, mixed_batch()))
    model.train()
    first, second = (predict(model, mixed_batch()) for _ in range(2))
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("config", "settings"),
    [(IMAGES, {"images": "sum"}), (CONFIG, {"edge_values": False}), (CONFIG, {"readout": "mean"})],
    ids=str,
)
def test_batch_equals_singles_for_other_settings(config, settings):
    model = model_of(config, **settings)
    apart = torch.cat([predict(model, graph) for graph in mixed_graphs(config)], dim=1)
    torch.testing.assert_close(predict(model, mixed_batch(config)), apart)


def test_attention_of_every_layer_is_laid_out_by_node():
    model = model_of(global_layers=2)
    maps, graphs = model.attention(mixed_batch()), mixed_graphs()
    total = sum(graph.num_nodes for graph in graphs)
    assert [weights.shape for weights in maps] == 2 * [(2, total, total)]
    for weights in maps:
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, total))
    # Alone, each graph has the same maps.
    first = 0
    for graph in graphs:
        own = slice(first, first := first + graph.num_nodes)
        for alone, weights in zip(model.attention(graph), maps):
            torch.testing.assert_close(alone, weights[:, own, own])
    assert (maps[0] - maps[1]).abs().max() > 1e-3


TO_DEFECTS = replace(CONFIG, pair_nodes="defects")


def test_attention_of_the_defect_leaves_the_other_nodes_as_they_are():
    model = model_of(TO_DEFECTS)
    for graph in (*mixed_graphs(TO_DEFECTS), mixed_batch(TO_DEFECTS)):
        before = model.local_states(graph)
        after = model.global_states(before, graph)
        changed = (before != after).any(dim=1)
        assert changed.equal(graph.is_defect)


def test_the_defect_hears_what_it_hears_where_all_nodes_ask():
    atoms, found = known_defect()
    few, every = model_of(TO_DEFECTS), model_of(CONFIG)
    graph, whole = graph_of(atoms, TO_DEFECTS, found), graph_of(atoms, CONFIG, found)
    h, chosen = few.local_states(graph), graph.is_defect
    torch.testing.assert_close(
        few.global_states(h, graph)[chosen], every.global_states(h, whole)[chosen]
    )
    (alpha,), (beta,) = few.attention(graph), every.attention(whole)
    assert alpha.shape == (2, 3, graph.num_nodes)
    torch.testing.assert_close(alpha, beta[:, chosen])
    maps = attention_maps(few, graph)
    assert maps.shape == (1, 2, graph.num_nodes, graph.num_nodes)
    np.testing.assert_allclose(maps.sum(axis=3), 1.0)
    assert (maps[0, 0].diagonal()[~chosen.numpy()] == 1).all()
    np.testing.assert_allclose(maps[0][:, chosen], alpha.detach().numpy())


def test_attention_begins_at_the_defect():
    atoms, found = known_defect()
    graph = graph_of(atoms, TO_DEFECTS, found)
    (alpha,) = model_of(TO_DEFECTS).attention(graph)
    assert alpha[:, :, graph.is_defect].sum(dim=2).min() > 0.9


def test_batch_equals_singles_where_the_defect_asks_and_without_one():
    model = model_of(TO_DEFECTS)
    graphs = [*mixed_graphs(TO_DEFECTS), graph_of(host() * (3, 3, 1), TO_DEFECTS)]
    singles = torch.cat([predict(model, graph) for graph in graphs], dim=1)
    torch.testing.assert_close(predict(model, Batch.from_data_list(graphs)), singles)


def test_only_attention_reaches_beyond_the_cutoff():
    far, farther = (molecule([0, 0, 0], [x, 0, 0], symbols="WS") for x in (9.0, 9.5))
    for layers, seen in ((1, True), (0, False)):
        model = model_of(global_layers=layers)
        a, b = (predict(model, graph_of(atoms)) for atoms in (far, farther))
        assert bool((a - b).abs().max() > 1e-7) == seen


def slope(model: Hybrid, graph) -> torch.Tensor:
    graph.pos.requires_grad_()
    return torch.autograd.grad(model(graph).eform.sum(), graph.pos)[0]


@pytest.mark.parametrize("radius", ["cutoff", "angle_cutoff"])
def test_forces_and_energy_pass_smoothly_through_the_cutoffs(radius):
    model, distance = model_of(), getattr(CONFIG, radius)
    energies, slopes = [], []
    for d in (distance - 1e-6, distance + 1e-6):
        atoms = molecule([0, 0, 0], [2.3, 0, 0], [-2.4, 0, 0], [0, d, 0], symbols="WOSF")
        graph = graph_of(atoms)
        energies.append(predict(model, graph)[0])
        slopes.append(slope(model, graph))
    assert slopes[0].abs().max() > 1e-4
    torch.testing.assert_close(*energies, rtol=0, atol=1e-5 * slopes[0].abs().max().item())
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (CONFIG, {"angles": "triplets"}),
        (CONFIG, {"edge_values": False}),
        (CONFIG, {"phi": False, "psi": False}),
        (IMAGES, {"images": "sum"}),
    ],
    ids=str,
)
def test_forces_of_other_settings_are_slopes_too(config, settings):
    model, graph = model_of(config, **settings), mixed_graphs(config)[0].clone()
    direction = torch.randn(graph.pos.shape, generator=torch.Generator().manual_seed(2))
    expected = (slope(model, graph.clone()) * direction).sum()
    energies = []
    for step in (1e-4, -1e-4):
        moved = graph.clone()
        moved.pos = graph.pos + step * direction
        energies.append(predict(model, moved)[0, 0])
    assert ((energies[0] - energies[1]) / 2e-4 - expected).abs() < 1e-5 * expected.abs()


def test_force_on_an_added_atom_holds_when_the_graph_is_built_anew():
    # It takes no part in the strain, which knows no ideal site of it.
    model, (atoms, found) = model_of(), known_defect()
    added = len(atoms) - 1
    expected = slope(model, mixed_graphs()[0].clone())[added, 2]
    energies = []
    for step in (1e-4, -1e-4):
        moved = atoms.copy()
        moved.positions[added, 2] += step
        energies.append(predict(model, graph_of(moved, recognition=found))[0, 0])
    assert ((energies[0] - energies[1]) / 2e-4 - expected).abs() < 1e-5 * expected.abs()


def test_forces_of_all_nodes_sum_to_zero():
    graph, model = mixed_graphs()[0].clone(), model_of()
    graph.pos.requires_grad_()
    (forces,) = torch.autograd.grad(-model(graph).eform.sum(), graph.pos)
    assert forces.sum(dim=0).abs().max() < 1e-12 < forces.abs().max()


def test_stress_is_the_slope_of_the_energy_of_a_strained_cell():
    model, graph = model_of(), mixed_graphs()[0]

    def energy(strain: torch.Tensor) -> torch.Tensor:
        strained = graph.clone()
        deform = torch.eye(3) + strain
        strained.pos, strained.ideal_pos = graph.pos @ deform, graph.ideal_pos @ deform
        strained.cell = graph.cell @ deform
        return model(strained).eform[0]

    strain = torch.zeros(3, 3, requires_grad=True)
    (stress,) = torch.autograd.grad(energy(strain), strain)
    step = torch.zeros(3, 3)
    step[0, 0], step[0, 1] = 1e-5, 2e-5
    with torch.no_grad():
        difference = (energy(step) - energy(-step)) / 2
    torch.testing.assert_close(difference, (stress * step).sum(), rtol=1e-5, atol=1e-12)
    assert stress.abs().max() > 1e-3


def test_training_on_forces_has_gradients():
    model, graph = model_of(), mixed_batch()
    graph.pos.requires_grad_()
    (forces,) = torch.autograd.grad(-model(graph).eform.sum(), graph.pos, create_graph=True)
    forces.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    for part in ("phi", "gate", "angular.radial", "lattice", "embed"):
        gradients = [p.grad for k, p in model.named_parameters() if part in k]
        assert part == "lattice" or any(g is not None and g.any() for g in gradients), part


def test_the_moments_of_the_atoms_add_up_and_a_vacancy_has_none():
    graph = mixed_batch()
    output = model_of()(graph)
    assert (output.site_spin >= 0).all()
    assert (output.site_spin[graph.is_vacancy] == 0).all()
    assert (output.site_spin[~graph.is_vacancy] > 0).all()
    total = torch.stack([output.site_spin[graph.batch == k].sum() for k in range(len(graph.cell))])
    torch.testing.assert_close(output.spin, total)


def test_lattice_inputs_see_strain_and_not_the_choice_of_the_cell():
    torch.manual_seed(0)
    lattice = LatticeInputs(8, 20)
    crystal = host().repeat((3, 3, 1))
    strained, other = crystal.copy(), crystal.copy()
    strained.set_cell(crystal.cell.array * [1.01, 1.01, 1], scale_atoms=True)
    other.set_cell(unimodular(np.random.default_rng(0), 2) @ crystal.cell.array)
    before, after, same = (lattice(graph_of(a)) for a in (crystal, strained, other))
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(same, before)
    # One vector a graph, however many nodes it has.
    batch = Batch.from_data_list([graph_of(strained), graph_of(crystal)])
    torch.testing.assert_close(lattice(batch), torch.cat([after, before]))


def test_strain_of_a_lone_atoms_cell_is_seen_by_the_lattice_alone():
    graphs = [graph_of(molecule([0, 0, 0], symbols="W", cell=cell)) for cell in (9.0, 9.1)]
    for seen in (True, False):
        a, b = (predict(model_of(lattice=seen), graph) for graph in graphs)
        assert bool((a - b).abs().max() > 1e-6) == seen


def test_prediction_for_a_host_changes_with_strain_and_not_with_the_choice_of_the_cell():
    crystal = host().repeat((2, 2, 1))
    strained, other = crystal.copy(), crystal.copy()
    strained.set_cell(crystal.cell.array * [1.01, 1.01, 1], scale_atoms=True)
    other.set_cell(unimodular(np.random.default_rng(1), 2) @ crystal.cell.array)
    before, after, same = (predict(model_of(), graph_of(a)) for a in (crystal, strained, other))
    assert (before - after).abs().max() > 1e-4
    torch.testing.assert_close(same, before)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 2, 1)])
def test_sum_over_images_predicts_the_same_for_a_repeated_cell(repeat):
    unit = host().repeat((2, 2, 1))
    unit.rattle(0.1, seed=0)
    settings = {"lattice": False, "readout": "mean"}
    change = {}
    for config, images in ((CONFIG, "minimum"), (IMAGES, "sum")):
        model = model_of(config, images=images, **settings)
        one, many = (predict(model, graph_of(a, config)) for a in (unit, unit.repeat(repeat)))
        change[images] = (one[0] - many[0]).abs().max()
    torch.testing.assert_close(many[1], np.prod(repeat) * one[1])  # moments add up
    assert change["sum"] < 1e-12
    assert change["minimum"] > 1e-7


def test_bonds_of_usual_length_look_alike_whatever_the_elements():
    basis = BondBasis(4.7, 8)
    graph = graph_of(*known_defect()[:1], recognition=known_defect()[1])
    own = torch.where(graph.is_vacancy, graph.original_z, graph.z)
    radii = torch.tensor(covalent_radii)[own][graph.edge_index].sum(dim=0)
    found = basis(graph, 1.1 * radii)
    assert found.shape == (graph.num_edges, basis.width) == (graph.num_edges, 16)
    torch.testing.assert_close(found[:, 8:], found[:1, 8:].expand(len(found), -1))
    assert found[:, :8].std(dim=0).max() > 0.1
    assert BondBasis(4.7, 8, relative=False)(graph, radii).shape == (graph.num_edges, 8)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (GraphConfig(neighbours=6, angle_cutoff=None), {}, "graphs with a cutoff"),
        (CONFIG, {"hidden": 10, "attention_heads": 4}, "10, which 4 attention heads"),
        (CONFIG, {"angles": "slow"}, "'slow'; use"),
        (CONFIG, {"images": "all"}, "'all'; use"),
        (CONFIG, {"readout": "median"}, "No read-out"),
        (CONFIG, {"angular_cutoff": 5.0}, "angular_cutoff is 5.0 Å"),
        (CONFIG, {"angular_cutoff": 4.0, "angles": "triplets"}, "angles up to 4.0 Å"),
        (CONFIG, {"images": "sum"}, "do not fit"),
        (IMAGES, {}, "do not fit"),
        (GraphConfig(cutoff=4.7, all_pairs=False), {}, "Attention needs pairs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, settings, message):
    with pytest.raises(DefectkitError, match=message):
        model_of(config, **settings)


def test_a_local_model_needs_no_pairs():
    config = GraphConfig(cutoff=4.7, angle_cutoff=None, all_pairs=False)
    model = model_of(config, global_layers=0)
    assert predict(model, mixed_batch(config)).isfinite().all()
    assert model.attention(mixed_batch(config)) == []


def test_default_size():
    model = Hybrid(torch.zeros(119, 200), GraphConfig())
    assert 2e5 < sum(p.numel() for p in model.parameters()) < 1e6


THOUSAND = """
import torch
from crystals import host
from defectkit.bench import peak_mb
from defectkit.graphs import GraphConfig, build_graph
from defectkit.models.hybrid import Hybrid

torch.set_num_threads(2)
config = GraphConfig(angle_cutoff=None)
graph = build_graph(host().repeat((19, 18, 1)), config)
model = Hybrid(torch.randn(119, 40), config).eval()
with torch.no_grad():
    out = model(graph)
assert graph.num_nodes == 1026 and out.eform.isfinite().all()
print(round(peak_mb()))
"""


@pytest.mark.slow
def test_a_thousand_atoms_pass_within_two_gigabytes():
    result = subprocess.run(
        [sys.executable, "-c", THOUSAND], cwd="tests", capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 2000
