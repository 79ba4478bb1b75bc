"""What moving, turning, renumbering and rewriting a structure leave as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from crystals import SEEDS, defective, host, unimodular
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit.graphs import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.geometry import angle_cosines, edge_vectors, lengths, local_strain
from defectkit.structures.files import read_structure, write_structure
from defectkit.structures.recognise import recognise

CONFIG = GraphConfig(cutoff=4.7, angle_cutoff=3.5)  # between the shells of MoS2
FEW = settings(deadline=None, max_examples=15)


def graph_of(atoms: Atoms, config: GraphConfig = CONFIG) -> CrystalGraph:
    return build_graph(atoms, config, host(), dtype=torch.float64)


def gathered(receiver, n: int, *columns) -> list[np.ndarray]:
    """For each of n nodes what it receives, every column sorted by itself."""
    table = torch.stack([column.double() for column in columns], dim=1)
    parts = table[receiver.argsort()].split(receiver.bincount(minlength=n).tolist())
    return [part.sort(dim=0).values.numpy() for part in parts]


def views(graph: CrystalGraph) -> list[dict[str, np.ndarray]]:
    """What each node is and sees, in no order and no frame.

    A product in the last column ties together what stands in the others.
    """
    n, z = graph.num_nodes, graph.z
    kinds = torch.stack([z, graph.original_z, graph.site_kind], dim=1).numpy()
    strains = local_strain(graph)[0].numpy()
    seen = [{"node": kind, "strain": strain} for kind, strain in zip(kinds, strains)]
    for shape in ("edge", "pair", "lattice"):
        sender, receiver = graph[f"{shape}_index"]
        vectors = edge_vectors(
            graph.pos, graph.cell, graph[f"{shape}_index"], graph[f"{shape}_shift"]
        )
        d = lengths(vectors)
        for node, rows in zip(seen, gathered(receiver, n, z[sender], d, (z[sender] + 1) * d)):
            node[shape] = rows
        if shape == "edge":
            first, second = graph.angle_index
            cosine = angle_cosines(vectors, graph.angle_index)
            together = (z[sender[first]] + 3 * z[sender[second]]) * d[first] * (2 + cosine)
            for node, rows in zip(seen, gathered(receiver[first], n, d[first], cosine, together)):
                node["angle"] = rows
    return seen


def assert_same_views(first: list[dict], second: list[dict], atol: float = 1e-5, leave_out=()):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        for key in a.keys() - set(leave_out):
            assert np.shape(a[key]) == np.shape(b[key]), key
            scale = np.maximum(1.0, np.abs(a[key]))
            assert (np.abs(a[key] - b[key]) < atol * scale).all(), key


REFERENCE = views(graph_of(defective()))


def test_the_views_tell_structures_apart():
    other = defective()
    other.positions[4] += [0.01, 0, 0]
    with pytest.raises(AssertionError):
        assert_same_views(views(graph_of(other)), REFERENCE)
    other = defective()
    other.symbols[3] = "W"
    with pytest.raises(AssertionError):
        assert_same_views(views(graph_of(other)), REFERENCE)


@FEW
@given(seed=SEEDS)
def test_permutation(seed):
    order = np.random.default_rng(seed).permutation(len(defective()))
    seen = views(graph_of(defective()[order]))
    assert_same_views([*np.array(seen[:-1])[np.argsort(order)], seen[-1]], REFERENCE)


@FEW
@given(x=st.floats(-20, 20), y=st.floats(-20, 20), z=st.floats(-3, 3), wrap=st.booleans())
def test_translation_and_wrapping(x, y, z, wrap):
    atoms = defective()
    atoms.positions += [x, y, z]
    if wrap:
        atoms.wrap()
    assert_same_views(views(graph_of(atoms)), REFERENCE)


@FEW
@given(seed=SEEDS)
def test_choice_of_images(seed):
    atoms = defective()
    shifts = np.random.default_rng(seed).integers(-3, 4, (len(atoms), 3)) * [1, 1, 0]
    atoms.positions += shifts @ atoms.cell.array
    assert_same_views(views(graph_of(atoms)), REFERENCE)


@FEW
@given(angle=st.floats(-180, 180))
def test_rotation_in_the_plane(angle):
    atoms = defective()
    atoms.rotate(angle, "z", rotate_cell=True)
    assert_same_views(views(graph_of(atoms)), REFERENCE)


@FEW
@given(seed=SEEDS)
def test_any_rotation_or_reflection_of_a_known_defect(seed):
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    atoms, found = defective(), recognise(defective(), host())
    atoms.set_cell(atoms.cell.array @ matrix, scale_atoms=True)
    found = replace(
        found,
        ideal_positions=found.ideal_positions @ matrix,
        vacancy_positions=found.vacancy_positions @ matrix,
    )
    turned = build_graph(atoms, CONFIG, recognition=found, dtype=torch.float64)
    assert_same_views(views(turned), REFERENCE)


def test_layer_upside_down():
    atoms = defective()
    atoms.positions[:, 2] = atoms.cell[2, 2] - atoms.positions[:, 2]
    assert_same_views(views(graph_of(atoms)), REFERENCE)


@FEW
@given(seed=SEEDS)
def test_choice_of_the_unit_cell(seed):
    atoms, found = defective(), recognise(defective(), host())
    atoms.set_cell(unimodular(np.random.default_rng(seed), 2) @ atoms.cell.array)
    other = build_graph(atoms, CONFIG, recognition=found, dtype=torch.float64)
    assert_same_views(views(other), REFERENCE)


@pytest.mark.parametrize("matrix", [np.diag([2, 3, 1]), [[2, 1, 0], [-1, 1, 0], [0, 0, 1]]])
@pytest.mark.parametrize("config", [CONFIG, GraphConfig(neighbours=4, angle_cutoff=3.5)])
def test_sites_of_a_repeated_host_are_equal(matrix, config):
    unit = host()
    repeated = make_supercell(unit, matrix)
    small, large = (views(build_graph(a, config, dtype=torch.float64)) for a in (unit, repeated))
    first_of = {node["node"][0]: node for node in small}
    expected = [first_of[z] for z in repeated.numbers]
    # Pairs and lattice vectors are those of the supercell.
    assert_same_views(large, expected, leave_out=("pair", "lattice"))


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.extxyz"])
def test_files(tmp_path, name):
    again = read_structure(write_structure(defective(), tmp_path / name))
    assert_same_views(by_node(graph_of(again)), by_node(graph_of(defective())), atol=1e-4)


def by_node(graph: CrystalGraph) -> list[dict]:
    """The views in an order that does not depend on that of the atoms."""
    return sorted(views(graph), key=lambda v: [*v["node"], *v["pair"][:, 2].round(3)])
