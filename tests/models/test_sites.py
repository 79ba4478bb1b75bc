"""The model of a defect's sites: what every model has to keep to, and what is its own.

The tests of `test_models` run over models that read graphs of all atoms, pristine cells and
molecules among them; here is asked the same of graphs of sites, which these have not.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from crystals import defective, host, unimodular
from model_cases import SMALL, feature_table, known_defect, mapped, reordered
from safetensors.torch import load_file, save_file
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.explain import attention
from defectkit.graphs import CrystalGraph, GraphConfig, GraphDataset, build_graph, load_graphs
from defectkit.models import build_model
from defectkit.models.sites import Linear, Sites
from defectkit.structures.defects import find_site, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.training.config import LossConfig, ModelConfig, OptimiserConfig, RunConfig
from defectkit.training.engine import Part, fit
from defectkit.training.objectives import loss_terms

pytestmark = pytest.mark.usefixtures("double_precision")

CONFIG = GraphConfig(nodes="defects", image_radius=12.0, angle_cutoff=None)
FAR = replace(CONFIG, image_radius=20.0)


@pytest.fixture
def model() -> Sites:
    return small_model()


def small_model(seed: int = 0, config: GraphConfig = CONFIG, **settings) -> Sites:
    torch.manual_seed(seed)
    model = build_model("sites", feature_table(), config, **SMALL["sites"] | settings)
    model.heads.fit(torch.tensor([-1.0, 0.5, 4.0]), torch.tensor([0.0, 1.0, 2.5]))
    return model.eval()


def graph_of(atoms, found=None, config: GraphConfig = CONFIG) -> CrystalGraph:
    return build_graph(atoms, config, host(), found, dtype=torch.float64)


@cache
def mixed_graphs() -> tuple[CrystalGraph, ...]:
    """A complex, a vacancy in another host, and one that sees no image of itself."""
    unit = HOSTS["WSe2"].unit_cell()
    site = find_site(unit, "vacancy", "Se")
    small, large = (make_defect(unit, (n, n, 1), site, "").atoms for n in (3, 5))
    return (
        graph_of(*known_defect()),
        build_graph(small, CONFIG, unit, dtype=torch.float64),
        build_graph(large, CONFIG, unit, dtype=torch.float64),
    )


def mixed_batch() -> CrystalGraph:
    return Batch.from_data_list(mixed_graphs())


def predict(model, graph) -> torch.Tensor:
    """(2, B) eform and spin."""
    with torch.no_grad():
        return torch.stack(model(graph)[:2])


def turned(matrix):
    atoms, found = mapped(*known_defect(), lambda r: r @ matrix)
    atoms.set_cell(atoms.cell.array @ matrix)
    return atoms, found


def another_cell():
    atoms, found = mapped(*known_defect(), lambda r: r)
    atoms.set_cell(unimodular(np.random.default_rng(1), 2) @ atoms.cell.array)
    return atoms, found


def other_images():
    atoms, found = known_defect()
    shifts = np.random.default_rng(6).integers(-3, 4, (len(atoms), 3)) * [1, 1, 0]
    atoms = atoms.copy()
    atoms.positions += shifts @ atoms.cell.array
    ideal = found.ideal_positions + shifts @ atoms.cell.array
    return atoms, replace(found, ideal_positions=ideal)


ROTATION, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
SAME = {
    "translation": lambda: mapped(*known_defect(), lambda r: r + [3.0, -7.0, 1.0]),
    "rotation or reflection": lambda: turned(ROTATION),
    "the other of the two": lambda: turned(-ROTATION),
    "order of the atoms": lambda: reordered(
        *known_defect(), np.random.default_rng(4).permutation(len(known_defect()[0]))
    ),
    "another cell": another_cell,
    "other images": other_images,
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_what_leaves_the_structure_as_it_is_leaves_the_answer(model, change):
    expected = predict(model, mixed_graphs()[0])
    actual = predict(model, graph_of(*change()))
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 2, 1)])
def test_a_repeated_cell_has_the_energy_of_each_copy_and_the_same_moment_a_site(model, repeat):
    once = predict(model, graph_of(defective()))[:, 0]
    copies = np.prod(repeat)
    more = predict(model, graph_of(defective().repeat(repeat)))[:, 0]
    torch.testing.assert_close(more[0], once[0] * copies, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(more[1], once[1], rtol=1e-4, atol=1e-4)


def test_output_depends_on_positions_elements_kind_and_host(model):
    before = predict(model, mixed_graphs()[0])
    for key, change in {
        "pos": 0.1,
        "z": 5,
        "original_z": 5,
        "site_kind": 1,
        "host_bonds_z": 3,
        "host_bonds": 0.1,
    }.items():
        graph = mixed_graphs()[0].clone()
        graph[key][0] += change * (graph[key][0] != 0)
        assert (predict(model, graph) - before).abs().min() > 1e-7, key


@pytest.mark.parametrize("apart", [(1, 2), (2, 3)])
def test_two_like_vacancies_tell_how_far_apart_they_are(model, apart):
    unit = host()
    sulfur = int(np.flatnonzero(unit.symbols == "S")[0])
    energies = []
    for steps in apart:
        atoms = unit.repeat((7, 7, 1))
        del atoms[[sulfur, sulfur + 7 * steps * len(unit)]]
        graph = graph_of(atoms)
        assert graph.z.tolist() == [0, 0]
        energies.append(predict(model, graph)[0, 0])
    assert (energies[0] - energies[1]).abs() > 1e-6


def test_batch_equals_singles(model):
    together = predict(model, mixed_batch())
    apart = torch.cat([predict(model, graph) for graph in mixed_graphs()], dim=1)
    assert together.shape == (2, 3)
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


def test_a_site_without_any_pair(model):
    graph = mixed_graphs()[-1]
    assert graph.pair_index.shape[1] == 1  # with itself
    assert predict(model.train(), graph).isfinite().all()


def test_inputs_are_not_changed(model):
    graph = mixed_batch()
    before = graph.clone()
    model.train()(graph)
    assert set(graph.keys()) == set(before.keys())
    for key in set(before.keys()) - {"uid"}:
        torch.testing.assert_close(graph[key], before[key], rtol=0, atol=0, equal_nan=True)


def test_every_parameter_gets_a_gradient(model):
    out = model.train()(mixed_batch())
    (out.eform.square() + out.spin).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def test_forces_are_the_slope_of_the_energy(model):
    graph = mixed_graphs()[0].clone()
    graph.pos.requires_grad_()
    (forces,) = torch.autograd.grad(-model(graph).eform.sum(), graph.pos)
    graph.pos = graph.pos.detach()
    step, size = 1e-4, forces.abs().max()
    assert size > 1e-5
    for node, axis in [(0, 0), (1, 1), (1, 2), (2, 2)]:  # 1 has no site in the host
        energy = []
        for sign in (1, -1):
            moved = graph.clone()
            moved.pos[node, axis] += sign * step
            energy.append(predict(model, moved)[0, 0])
        slope = (energy[0] - energy[1]) / (2 * step)
        assert (forces[node, axis] + slope).abs() < 1e-5 * size


@pytest.mark.parametrize("radius", [5.0, 9.0])
def test_the_energy_does_not_jump_while_a_pair_crosses_the_radius(radius):
    config = replace(CONFIG, image_radius=radius)
    model, energy = small_model(config=config), []
    atoms, found = known_defect()
    for sign in (-1, 1):
        moved, away = atoms.copy(), found
        vector = moved.positions[-1] - moved.positions[0]
        flat = np.sqrt((radius + sign * 1e-9) ** 2 - vector[2] ** 2)
        vector[:2] *= flat / np.linalg.norm(vector[:2])
        new = moved.positions[0] + vector
        moved.positions[-1], away = (
            new,
            replace(found, ideal_positions=found.ideal_positions.copy()),
        )
        away.ideal_positions[-1] = new
        energy.append(
            predict(model, build_graph(moved, config, recognition=away, dtype=torch.float64))
        )
    assert (energy[0] - energy[1]).abs().max() < 1e-7


def test_reference_output(model):
    actual = predict(model, mixed_graphs()[0])[:, 0]
    torch.testing.assert_close(actual, torch.tensor(REFERENCE), rtol=1e-6, atol=1e-6)


# As in test_models: another number here is another model.
REFERENCE = (0.894059708, 0.682142302)


def test_weights_come_back_from_a_file(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = small_model(seed=1)
    expected = predict(model, mixed_batch())
    assert not predict(again, mixed_batch()).equal(expected)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert predict(again, mixed_batch()).equal(expected)


class Known(NamedTuple):
    """What the linear models read, (B, ...), and the number of sites, (B,)."""

    alone: torch.Tensor
    crowded: torch.Tensor
    elements: torch.Tensor
    n: torch.Tensor


def known_of(model, batch: CrystalGraph) -> Known:
    _, host = model.host(batch, model.inputs.features)
    return Known(*model._known(batch, host, model.pairs.bare(batch).near(len(batch.z))))


def labelled(*energies: float) -> CrystalGraph:
    """The batch with labels, eV for the cell."""
    batch = mixed_batch()
    batch.y_eform, batch.y_spin = torch.tensor(energies), torch.ones(len(energies))
    return batch


def test_heads_speak_of_a_site_and_eform_of_the_cell(model):
    model.fit(labelled(9.0, 3.0, 3.0))
    with torch.no_grad():
        model.heads.map[-1].weight.zero_()
        model.heads.map[-1].bias.zero_()
    # Three eV a site everywhere, which the baseline knows, whatever the network says.
    assert predict(model, mixed_batch())[0].tolist() == pytest.approx([9.0, 3.0, 3.0], abs=0.03)
    assert (predict(model, mixed_batch())[1] >= 0).all()


def test_the_baseline_tells_sites_apart_and_leaves_out_what_has_no_label():
    known = torch.eye(4)
    energy = torch.tensor([1.0, 2.0, 4.0, float("nan")])
    model = Linear(4)
    model.fit(known, energy)
    assert model(known)[:3].tolist() == pytest.approx([1.0, 2.0, 4.0], abs=0.05)
    both = known[:2].mean(dim=0, keepdim=True)
    assert model(both).item() == pytest.approx(1.5, abs=0.05)


def test_normalisation_is_that_of_what_the_baseline_leaves(model):
    batch = labelled(9.0, 2.0, float("nan"))
    model.fit(batch)
    units = model.unit(known_of(model, batch).crowded)[:2]
    assert (units < 0.02).all()  # eV: two labels, and it knows both
    before = model.baseline.weight.clone()
    batch.y_eform = 2 * batch.y_eform
    model.fit(batch)
    torch.testing.assert_close(model.baseline.weight, 2 * before, rtol=1e-6, atol=1e-9)


def test_it_learns_what_pairs_do_with_the_engine_of_all(tmp_path):
    graphs = GraphDataset.from_graphs(list(pair_graphs()))
    settings = SMALL["sites"] | {"radial": 24}
    model = small_model(config=FAR, **settings)
    model.float().fit(graphs.batch(range(len(graphs))))
    config = RunConfig(
        ModelConfig("sites", settings),
        graph=FAR,
        optimiser=OptimiserConfig("muon", lr=0.01),
        epochs=60,
        batch_size=2,
        ema=None,
    )
    part = Part(len(graphs), graphs.batch)
    first = predict(model, graphs.batch(range(len(graphs))))[0]
    labels = graphs.tensors["y_eform"]
    fit(model, config, (part, part), (0.0, 10.0), 0, tmp_path)
    last = predict(model, graphs.batch(range(len(graphs))))[0]
    assert (last - labels).abs().mean() < 0.2 * (first - labels).abs().mean()


def pair_graphs() -> Iterator[CrystalGraph]:
    """Two missing S at all distances of a cell, with an energy that oscillates."""
    unit = host()
    sulfur = int(np.flatnonzero(unit.symbols == "S")[0])
    for i, j in [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]:
        atoms = unit.repeat((6, 6, 1))
        pair = [sulfur, sulfur + (6 * i + j) * len(unit)]
        distance = atoms.get_distance(*pair, mic=True)
        del atoms[pair]
        graph = build_graph(atoms, FAR, unit)
        graph.y_eform = torch.tensor([5 + np.cos(2 * distance) / distance], dtype=torch.float32)
        yield graph


def test_it_can_be_looked_into_like_the_others(model):
    batch = mixed_batch()
    table = attention.part_shapes(model, batch)
    assert table.weights.sum() == sum(p.numel() for p in model.parameters())
    assert table.output.iloc[-1] == "(3) and (3)"
    assert attention.node_vectors(model, batch).shape == (batch.num_nodes, 12)


@pytest.mark.parametrize(
    "config", [GraphConfig(), GraphConfig(nodes="defects"), GraphConfig(image_radius=9.0)]
)
def test_other_graphs_are_refused(config):
    with pytest.raises(DefectkitError, match="nodes='defects', image_radius=20"):
        build_model("sites", feature_table(), config)


@pytest.fixture(scope="module")
def real_graphs(pilot) -> GraphDataset:
    """The 200 real rows of 2DMD."""
    return load_graphs(pilot.records, pilot.hosts, FAR)


def test_graphs_of_real_rows_are_what_the_rows_say(pilot, real_graphs):
    for record, graph in zip(pilot.records, real_graphs, strict=True):
        assert sorted(chemical_symbols[z] for z in graph.original_z) == sorted(record.removed)
        present = {chemical_symbols[z] for z in graph.z[graph.z > 0]}
        assert present == set(filter(None, record.dopant.split(",")))
        counts = (graph.host_bonds_z > 0).sum(dim=1)
        assert counts.tolist() == [6 if z == 42 else 3 for z in graph.original_z]


def test_on_real_rows_it_learns_more_than_its_baseline(real_graphs, tmp_path):
    order = np.random.default_rng(0).permutation(len(real_graphs)).tolist()
    parts = order[:150], order[150:]
    config = RunConfig(
        ModelConfig("sites"),
        graph=FAR,
        optimiser=OptimiserConfig("muon", lr=0.005, weight_decay=0.3),
        epochs=12,
        batch_size=8,
    )
    table = feature_table().float()
    torch.manual_seed(0)
    model = build_model("sites", table, FAR).float()
    model.fit(real_graphs.batch(parts[0]))
    training, held_out = (
        Part(len(part), lambda numbers, part=part: real_graphs.batch([part[k] for k in numbers]))
        for part in parts
    )
    batch = real_graphs.batch(parts[1])
    sites = torch.bincount(batch.batch)
    with torch.no_grad():
        known = known_of(model, batch)
        linear = (model.baseline(known.alone) - batch.y_eform / known.n).abs().mean()
    fit(model, config, (training, held_out), (0.0, 20.0), 0, tmp_path)
    learned = ((predict(model, batch)[0] - batch.y_eform) / sites).abs().mean()
    print(f"held-out rows: {1000 * linear:.1f} and {1000 * learned:.1f} meV a site")
    assert linear < 0.2
    assert learned < 0.8 * linear


@pytest.mark.parametrize("name", ["cgcnn", "matformer", "hybrid"])
def test_models_of_all_atoms_read_graphs_of_sites_too(name):
    config = replace(CONFIG, image_radius=None, cutoff=6.0)
    model = build_model(name, feature_table(), config, **SMALL[name]).eval()
    graph = build_graph(defective(), config, host(), dtype=torch.float64)
    assert graph.num_nodes == 3
    assert predict(model, graph).isfinite().all()


def test_an_intensive_target_is_that_of_one_site():
    batch = labelled(2.0, 2.0, 2.0)
    model = build_model("sites", feature_table(), CONFIG, **SMALL["sites"], extensive=False).eval()
    model.fit(batch)
    with torch.no_grad():
        model.heads.map[-1].weight.zero_()
        model.heads.map[-1].bias.zero_()
    assert predict(model, batch)[0].tolist() == pytest.approx([2.0, 2.0, 2.0], abs=0.03)


def test_errors_count_in_units_of_what_the_linear_models_leave(model):
    batch = labelled(9.0, 2.0, 4.0)
    model.fit(batch)
    with torch.no_grad():
        output = model(batch)
        known = known_of(model, batch)
    assert output.unit.allclose(known.n * model.unit(known.crowded))
    terms = loss_terms(output, batch.y_eform, batch.y_spin, LossConfig())
    expected = ((output.eform - batch.y_eform).abs() / output.unit).mean()
    assert terms["eform"].item() == pytest.approx(expected.item())


def test_the_scale_belongs_to_the_host_while_sites_are_few(model):
    """Two sites far apart and three have one scale: what a pair does must carry over."""
    batch = labelled(9.0, 2.0, 4.0)
    model.fit(batch)
    unit = HOSTS["WSe2"].unit_cell()
    site = find_site(unit, "vacancy", "Se")
    graphs = [
        build_graph(make_defect(unit, (n, n, 1), site, "").atoms, CONFIG, unit, dtype=torch.float64)
        for n in (6, 8)
    ]
    with torch.no_grad():
        scales = [model.scale(known_of(model, graph).elements) for graph in graphs]
    assert scales[0].item() == pytest.approx(scales[1].item(), rel=0.05)
