from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from crystals import defective, host
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from defectkit import DefectkitError
from defectkit.graphs import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.structures.hosts import HOSTS
from defectkit.structures.recognise import recognise
from defectkit.structures.record import DefectRecord, SiteKind


def record(**values) -> DefectRecord:
    values = {"uid": "row 7", "host": "MoS2", "label_source": "test", "eform": 1.5} | values
    return DefectRecord(**({"atoms": defective()} | values))


def keys(graph: CrystalGraph) -> set[str]:
    return set(graph.keys())


def test_nodes_say_what_they_are():
    graph = build_graph(record(spin=1.0), host=host())
    atoms = defective()
    assert graph.num_nodes == len(atoms) + 1
    assert graph.z.tolist() == [*atoms.numbers, 0]
    kinds = dict.fromkeys(range(len(atoms) + 1), SiteKind.HOST) | {
        0: SiteKind.SUBSTITUTION,
        len(atoms) - 1: SiteKind.ADSORBATE,
        len(atoms): SiteKind.VACANCY,
    }
    assert graph.site_kind.tolist() == list(kinds.values())
    assert graph.original_z[[0, 1, -2, -1]].tolist() == [42, 16, 0, 16]
    assert graph.is_defect.nonzero().ravel().tolist() == [0, len(atoms) - 1, len(atoms)]
    assert graph.is_vacancy.nonzero().ravel().tolist() == [len(atoms)]
    # The vacancy stands at the ideal site of the S that was taken out, up to the layer's drift.
    missing = host().repeat((3, 3, 1)).positions[13]
    assert np.linalg.norm(graph.pos[-1].numpy() - missing) < 0.05
    assert (graph.pos[:-1] - graph.ideal_pos[:-1]).norm(dim=1).max() < 0.2
    assert torch.equal(graph.ideal_pos[-2], graph.pos[-2])
    assert (graph.uid, graph.y_eform.item(), graph.y_spin.item()) == ("row 7", 1.5, 1.0)
    assert not graph.ambiguous.item()


def test_moments_of_the_sites_are_labels_where_they_add_up():
    n = len(defective())
    moments = np.zeros(n)
    moments[:3] = 1.0, -0.05, 0.5
    unsigned = build_graph(record(spin=1.5, site_magmoms=moments), host=host())
    assert unsigned.y_site_spin.tolist() == [1.0, 0.0, 0.5] + [0.0] * (n - 3) + [0.0]
    moments[2] = -0.5
    mixed = build_graph(record(spin=0.5, site_magmoms=moments), host=host())
    silent = build_graph(record(spin=1.5), host=host())
    assert mixed.y_site_spin.isnan().all()
    assert silent.y_site_spin.isnan().all()
    assert len(silent.y_site_spin) == silent.num_nodes


def test_a_vacancy_has_edges_pairs_and_self_images_like_an_atom():
    graph = build_graph(defective(), host=host())
    vacancy = graph.num_nodes - 1
    for shape in ("edge", "pair", "lattice"):
        sender, receiver = graph[f"{shape}_index"]
        assert (sender == vacancy).sum() == (receiver == vacancy).sum() > 0
    met = graph.edge_index[1, graph.angle_index]
    assert torch.equal(met[0], met[1])
    assert (met == vacancy).any()


def test_without_virtual_nodes_a_vacancy_is_a_missing_atom():
    graph = build_graph(record(), GraphConfig(virtual_nodes=False), host())
    full = build_graph(record(), host=host())
    n = len(defective())
    assert graph.num_nodes == n == full.num_nodes - 1
    assert not graph.is_vacancy.any()
    for key in ("z", "original_z", "site_kind", "pos", "ideal_pos"):
        assert torch.equal(graph[key], full[key][:-1]), key
    among_atoms = (full.edge_index < n).all(dim=0)
    assert torch.equal(graph.edge_index, full.edge_index[:, among_atoms])
    assert graph.pair_index.shape == (2, n * n)


def test_shapes_types_and_what_the_edges_are():
    graph = build_graph(defective(), GraphConfig(cutoff=4.5, angle_cutoff=3.0), host())
    n = graph.num_nodes
    assert graph.cell.shape == (1, 3, 3)
    assert graph.pair_index.shape == (2, n * n)
    assert graph.lattice_index.shape == (2, 3 * n)
    for key in keys(graph) - {"uid"}:
        value = graph[key]
        assert value.dtype in (torch.int64, torch.float32, torch.bool), key
        if key.endswith("_shift"):
            assert value.shape == (graph[key.replace("shift", "index")].shape[1], 3)
    vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift)
    assert lengths(vectors).max() < 4.5
    in_angles = graph.angle_index.unique()
    assert torch.equal(in_angles, (lengths(vectors) < 3.0).nonzero().ravel())
    # Pairs are ordered as the rows and columns of a matrix (receiver, sender).
    square = graph.pair_index.view(2, n, n)
    assert torch.equal(square[1], square[0].T)
    assert square[0, 3].tolist() == list(range(n))
    assert build_graph(defective(), dtype=torch.float64).pos.dtype == torch.float64


def test_parts_that_are_not_asked_for_are_absent():
    local = build_graph(defective(), GraphConfig(angle_cutoff=None, all_pairs=False))
    assert not keys(local) & {"angle_index", "pair_index", "pair_shift"}
    far = build_graph(defective(), GraphConfig(image_radius=9.0))
    vectors = edge_vectors(far.pos, far.cell, far.pair_index, far.pair_shift)
    assert far.pair_index.shape[1] > far.num_nodes**2
    assert lengths(vectors).max() < 9.0
    assert (lengths(vectors) == 0).sum() == far.num_nodes
    nearest = build_graph(host(), GraphConfig(neighbours=3))
    assert nearest.edge_index[1].bincount().tolist() == [6, 3, 3]


def test_without_a_host_every_atom_is_the_hosts_own():
    graph = build_graph(defective())
    assert not graph.is_defect.any()
    assert torch.equal(graph.z, graph.original_z)
    assert torch.isnan(graph.y_eform).all()
    assert graph.uid == ""
    graph.z[0] = 1
    assert graph.original_z[0] != 1


def test_inputs_are_left_alone():
    atoms, pristine = defective(), host()
    before = atoms.copy(), pristine.copy()
    graph = build_graph(atoms, host=pristine, dtype=torch.float64)
    graph.pos += 1.0
    graph.cell *= 2.0
    assert (atoms, pristine) == before


def different_graphs() -> list[CrystalGraph]:
    """Two graphs with another number of everything."""
    config = GraphConfig(cutoff=4.0)
    first = build_graph(record(spin=0.0), config, host())
    second = build_graph(record(uid="row 8", atoms=host().repeat((2, 2, 1))), config, host())
    return [first, second]


@pytest.mark.parametrize("key", sorted(keys(build_graph(defective()))))
def test_every_key_batches(key):
    graphs = different_graphs()
    batch = next(iter(DataLoader(graphs, batch_size=2)))
    first, second = (graph[key] for graph in graphs)
    if key == "uid":
        assert batch.uid == ["row 7", "row 8"]
    elif key == "angle_index":
        assert torch.equal(batch[key], torch.cat([first, second + graphs[0].num_edges], dim=1))
    elif key.endswith("_index"):
        assert torch.equal(batch[key], torch.cat([first, second + graphs[0].num_nodes], dim=1))
    else:
        torch.testing.assert_close(batch[key], torch.cat([first, second]), equal_nan=True)


def test_a_batch_comes_apart_again():
    graphs = different_graphs()
    batch = Batch.from_data_list(graphs)
    assert batch.is_vacancy.sum() == 1
    assert batch.is_defect.sum() == 3
    for graph, again in zip(graphs, batch.to_data_list()):
        assert keys(graph) == keys(again)
        for key in keys(graph) - {"uid"}:
            torch.testing.assert_close(graph[key], again[key], equal_nan=True)


def test_unrelaxed_positions():
    unrelaxed = defective().positions + 0.01
    moved = record(unrelaxed=unrelaxed)
    graph = build_graph(moved, GraphConfig(positions="unrelaxed"), host(), dtype=torch.float64)
    assert np.allclose(graph.pos[:-1], unrelaxed)
    with pytest.raises(DefectkitError, match="row 7 has no unrelaxed"):
        build_graph(record(), GraphConfig(positions="unrelaxed"))
    with pytest.raises(DefectkitError, match="only a record"):
        build_graph(defective(), GraphConfig(positions="unrelaxed"))


def test_unrelaxed_positions_decide_what_the_relaxed_ones_leave_open():
    # A vacancy whose neighbour has moved half way into the hole.
    atoms = host().repeat((3, 3, 1))
    del atoms[13]
    relaxed = atoms.copy()
    hole = host().repeat((3, 3, 1)).positions[13]
    mover = int(np.argsort(np.linalg.norm(atoms.positions - hole, axis=1))[3])
    relaxed.positions[mover] = (relaxed.positions[mover] + hole) / 2
    assert recognise(relaxed, host()).ambiguous
    graph = build_graph(record(atoms=relaxed, unrelaxed=atoms.positions), host=host())
    assert graph.ambiguous.item()
    assert np.allclose(graph.pos[-1], hole, atol=1e-3)
    assert np.allclose(graph.pos[:-1], relaxed.positions, atol=1e-5)
    assert build_graph(record(atoms=relaxed), host=host()).ambiguous.item()


def test_isolated_atoms_are_flagged():
    atoms = Atoms("MoSXe", [[0, 0, 5], [2, 0, 5], [8, 8, 5]], cell=[16, 16, 20], pbc=(1, 1, 0))
    graph = build_graph(atoms)
    assert graph.isolated.tolist() == [False, False, True]
    assert graph.edge_index.shape == (2, 2)
    lonely = build_graph(Atoms("Xe", cell=[16, 16, 20], pbc=(1, 1, 0)))
    assert lonely.edge_index.shape == lonely.angle_index.shape == (2, 0)
    assert (
        Batch.from_data_list([lonely, graph]).edge_index.tolist() == (graph.edge_index + 1).tolist()
    )


def broken(change) -> Atoms:
    atoms = host().repeat((2, 2, 1))
    change(atoms)
    return atoms


def place(atoms: Atoms, value: float) -> None:
    atoms.positions[4, 1] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.__delitem__(slice(None)), "no atoms"),
        (lambda a: place(a, np.nan), r"atom S \(number 4\) is not a number"),
        (lambda a: place(a, np.inf), r"atom S \(number 4\) is not a number"),
        (lambda a: a.set_cell(np.zeros((3, 3))), "no cell with a volume"),
        (lambda a: a.set_cell([a.cell[0], 2 * a.cell[0], a.cell[2]]), "no cell with a volume"),
        (lambda a: a.numbers.__setitem__(3, 0), r"atom X \(number 3\) of no known element"),
        (lambda a: a.numbers.__setitem__(3, 130), r"atom Z = 130 \(number 3\) of no known element"),
        (lambda a: a.set_pbc((True, False, True)), "does not repeat in the plane"),
        (lambda a: a.positions.__setitem__(4, a.positions[3] + [1.2, 0, 0]), "1.20 Å apart"),
    ],
)
def test_bad_structures_are_named(change, message):
    with pytest.raises(DefectkitError, match=message):
        build_graph(broken(change))
    with pytest.raises(DefectkitError, match="row 7"):
        build_graph(record(atoms=broken(change)))


def test_atoms_may_be_as_near_as_half_their_radii_and_a_vacancy_nearer():
    atoms = broken(lambda a: a.positions.__setitem__(4, a.positions[3] + [1.31, 0, 0]))
    build_graph(atoms)  # (1.54 + 1.05) / 2 = 1.295 Å
    found = recognise(defective(), host())
    near = replace(found, vacancy_positions=defective().positions[[5]] + 0.01)
    assert build_graph(defective(), recognition=near).num_nodes == len(defective()) + 1


def test_all_pairs_have_a_limit_and_the_local_graph_has_none():
    atoms = host().repeat((26, 26, 1))
    with pytest.raises(DefectkitError, match=r"2,028 nodes.*all_pairs=False"):
        build_graph(atoms)
    graph = build_graph(atoms, GraphConfig(all_pairs=False, angle_cutoff=None))
    assert graph.num_nodes == 2028


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cutoff": 0.0}, "cutoff is 0.0"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"neighbours": -1}, "neighbours is -1"),
        ({"cutoff": 3.0}, "angle_cutoff is 4.0 Å and cutoff 3.0 Å"),
        ({"positions": "ideal"}, "positions is 'ideal'"),
    ],
)
def test_configurations_that_make_no_sense(values, message):
    with pytest.raises(DefectkitError, match=message):
        GraphConfig(**values)


def test_a_cell_beyond_the_limit_is_refused_before_its_defect_is_looked_for(monkeypatch):
    from defectkit.graphs import build

    monkeypatch.setattr(build, "recognise", None)
    unit = HOSTS["MoS2"].unit_cell()
    large = unit.repeat((30, 30, 1))
    for look in (build.read_defect, lambda atoms, host, config: build_graph(atoms, config, host)):
        with pytest.raises(DefectkitError, match=r"2,700 nodes .*limit 2,000"):
            look(large, unit, GraphConfig())
