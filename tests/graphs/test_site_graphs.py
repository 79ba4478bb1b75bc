"""Graphs whose nodes are the defect's own sites, with their bonds in the pristine host."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from crystals import defective, host, unimodular
from model_cases import mapped, reordered
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.graphs import CrystalGraph, GraphConfig, build_graph, load_graphs
from defectkit.graphs import dataset as graph_dataset
from defectkit.graphs.build import MAX_BONDS
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.structures.defects import find_site, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.recognise import Recognition, recognise
from defectkit.structures.record import DefectRecord, SiteKind

SITES = GraphConfig(nodes="defects", angle_cutoff=None)
IMAGES = replace(SITES, image_radius=14.0)
FOUND = recognise(defective(), host())


def sites_of(
    atoms: Atoms, config: GraphConfig = IMAGES, found: Recognition | None = None
) -> CrystalGraph:
    return build_graph(atoms, config, host(), found, dtype=torch.float64)


def views(graph: CrystalGraph) -> list[list[float]]:
    """What each site is and sees, in no order and no frame: its bonds, and its pairs to them."""
    seen = []
    vectors = edge_vectors(graph.pos, graph.cell, graph.pair_index, graph.pair_shift)
    for node in range(graph.num_nodes):
        bonds = graph.host_bonds[node][graph.host_bonds_z[node] > 0]
        mine = (graph.pair_index[1] == node) & (lengths(vectors) > 0)
        sender = graph.pair_index[0, mine]
        distance = lengths(vectors[mine])
        angles = (vectors[mine] @ bonds.T).square().sum(dim=1)  # of the pairs to the bonds
        other = (graph.z[sender] + 1) * distance + 0.1 * angles
        columns = [lengths(bonds), (bonds @ bonds.T).flatten(), distance, other]
        own = torch.stack([graph.z, graph.original_z, graph.site_kind])[:, node].double()
        seen.append(torch.cat([own, *(column.sort().values for column in columns)]).tolist())
    return sorted(seen)


def turned(matrix) -> tuple[Atoms, Recognition]:
    atoms, found = mapped(defective(), FOUND, lambda r: r @ matrix)
    atoms.set_cell(atoms.cell.array @ matrix)
    return atoms, found


def another_cell() -> tuple[Atoms, Recognition]:
    atoms = defective()
    atoms.set_cell(unimodular(np.random.default_rng(0), 2) @ atoms.cell.array)
    return atoms, FOUND


def read_anew(change) -> tuple[Atoms, None]:
    atoms = defective()
    change(atoms)
    return atoms, None


def upside_down(atoms: Atoms) -> None:
    atoms.positions[:, 2] = atoms.cell[2, 2] - atoms.positions[:, 2]


ROTATION, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
SAME = {
    "translation": lambda: mapped(defective(), FOUND, lambda r: r + [3.0, -7.0, 1.0]),
    "rotation or reflection": lambda: turned(ROTATION),
    "the other of the two": lambda: turned(-ROTATION),
    "permutation": lambda: reordered(
        defective(), FOUND, np.random.default_rng(4).permutation(len(defective()))
    ),
    "another cell": another_cell,
    "wrapped, and read anew": lambda: read_anew(Atoms.wrap),
    "turned in the plane, and read anew": lambda: read_anew(
        lambda atoms: atoms.rotate(77.0, "z", rotate_cell=True)
    ),
    "upside down, and read anew": lambda: read_anew(upside_down),
}


@pytest.mark.parametrize("config", [SITES, IMAGES], ids=["minimum images", "all images"])
@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_what_leaves_the_structure_as_it_is_leaves_what_sites_see(change, config):
    atoms, found = change()
    expected = views(sites_of(defective(), config, FOUND))
    for node, other in zip(views(sites_of(atoms, config, found)), expected, strict=True):
        assert node == pytest.approx(other, abs=1e-5)


def test_a_repeated_cell_has_each_site_once_more_and_all_images_are_the_same():
    atoms, expected = defective(), views(sites_of(defective()))
    seen = views(sites_of(atoms.repeat((2, 1, 1))))
    for node, other in zip(seen, sorted(expected * 2), strict=True):
        assert node == pytest.approx(other, abs=1e-5)


def test_minimum_images_belong_to_the_cell_and_not_to_the_crystal():
    twice = sites_of(defective().repeat((2, 1, 1)), SITES)
    assert len(views(twice)[0]) > len(views(sites_of(defective(), SITES))[0])


def test_the_views_tell_structures_apart():
    other = defective()
    other.positions[-1] += [0.1, 0, 0]
    pairs = zip(views(sites_of(other)), views(sites_of(defective())), strict=True)
    assert any(node != pytest.approx(same, abs=1e-2) for node, same in pairs)


def test_nodes_are_the_defects_of_the_full_graph():
    full, sites = (
        build_graph(defective(), replace(SITES, nodes=nodes), host())
        for nodes in ("atoms", "defects")
    )
    for key in ("z", "original_z", "site_kind", "pos", "ideal_pos"):
        assert torch.equal(sites[key], full[key][full.is_defect]), key
    assert sites.site_kind.tolist() == [
        SiteKind.SUBSTITUTION,
        SiteKind.ADSORBATE,
        SiteKind.VACANCY,
    ]
    n = len(full.z)
    where = full.is_defect.nonzero()[:, 0]
    square = full.pair_shift.view(n, n, 3)[where][:, where]
    assert torch.equal(sites.pair_shift, square.flatten(0, 1))
    assert sites.pair_index.shape == (2, 9)
    assert torch.equal(sites.cell, full.cell)
    assert set(sites.keys()) - set(full.keys()) == {"host_bonds", "host_bonds_z"}


def test_bonds_are_those_of_the_pristine_host():
    graph = sites_of(defective())
    counts = (graph.host_bonds_z > 0).sum(dim=1).tolist()
    assert counts[0] == 6  # W on a Mo site
    assert counts[2] == 3  # the missing S
    assert graph.host_bonds_z[0, :6].tolist() == [16] * 6
    assert graph.host_bonds_z[2, :3].tolist() == [42] * 3
    unit = host()
    shortest = unit.get_all_distances(mic=True)[0, 1:].min()
    for node in (0, 2):
        bonds = lengths(graph.host_bonds[node, : counts[node]])
        assert bonds.numpy() == pytest.approx(shortest, abs=0.02)
    assert (graph.host_bonds[graph.host_bonds_z == 0] == 0).all()


@pytest.mark.parametrize("name", HOSTS)
def test_bonds_do_not_depend_on_the_size_of_the_cell(name):
    unit = HOSTS[name].unit_cell()
    site = find_site(unit, "vacancy", unit.get_chemical_symbols()[0])
    found = []
    for repeat in (2, 4):
        atoms = make_defect(unit, (repeat, repeat, 1), site, "").atoms
        graph = build_graph(atoms, SITES, unit, dtype=torch.float64)
        kept = graph.host_bonds_z[0] > 0
        bonds = graph.host_bonds[0, kept]
        assert 1 <= kept.sum() < MAX_BONDS
        found.append((bonds @ bonds.T).flatten().sort().values.numpy())
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_bonds_in_a_cell_of_one_unit():
    unit = host()
    metal = unit.get_chemical_symbols().index("Mo")
    doped = unit.copy()
    doped.symbols[metal] = "W"
    ideal = Recognition(
        site_kind=np.where(np.arange(3) == metal, SiteKind.SUBSTITUTION, SiteKind.HOST),
        original_z=unit.numbers,
        ideal_positions=unit.positions,
        vacancy_positions=np.zeros((0, 3)),
        vacancy_z=np.zeros(0, int),
        ambiguous=False,
        reason="",
        rms=0.0,
        setting=FOUND.setting,
    )
    matrix = np.array([[2, 1, 0], [-1, 1, 0], [0, 0, 1]])
    large = make_supercell(doped, matrix)
    whole = make_supercell(unit, matrix)
    again = replace(
        ideal,
        site_kind=np.where(large.symbols == "W", SiteKind.SUBSTITUTION, SiteKind.HOST),
        original_z=whole.numbers,
        ideal_positions=whole.positions,
    )
    expected = views(sites_of(doped, IMAGES, ideal))
    assert (sites_of(doped, IMAGES, ideal).host_bonds_z > 0).sum() == 6
    for node in views(sites_of(large, IMAGES, again)):
        assert node == pytest.approx(expected[0], abs=1e-5)


def records() -> list[DefectRecord]:
    return [
        DefectRecord(uid, defective(n), host="MoS2", label_source="test", eform=1.0)
        for uid, n in (("a", 3), ("b", 4))
    ]


def test_they_batch_and_come_back_from_the_cache(tmp_path):
    hosts = {"MoS2": host()}
    built = load_graphs(records(), hosts, IMAGES, tmp_path)
    loaded = load_graphs(records(), hosts, IMAGES, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    expected = Batch.from_data_list([built[0], built[1]])
    for batch in (built.batch([0, 1]), loaded.batch([0, 1])):
        for key in set(built[0].keys()) - {"uid"}:
            torch.testing.assert_close(batch[key], expected[key], rtol=0, atol=0, equal_nan=True)


def test_files_of_full_graphs_keep_their_names():
    atoms = Atoms("MoS2", [[0, 0, 5], [1.5, 1, 6.5], [1.5, 1, 3.5]], cell=[4, 4, 20], pbc=True)
    record = DefectRecord("a", atoms, host="MoS2", label_source="test", eform=1.0)
    name = graph_dataset._content_hash([record], {"MoS2": atoms}, GraphConfig())
    assert name == "25bec456af8fbb89a913"  # neither `nodes` nor `pair_nodes` is in it
    other = graph_dataset._content_hash([record], {"MoS2": atoms}, SITES)
    assert other != graph_dataset._content_hash(
        [record], {"MoS2": atoms}, replace(SITES, nodes="atoms")
    )


def test_what_has_no_sites_is_refused():
    for structure in (defective(), host().repeat((3, 3, 1))):
        pristine = host() if len(structure) == 27 and structure.symbols[0] == "Mo" else None
        with pytest.raises(DefectkitError, match="no defect that is known"):
            build_graph(structure, SITES, pristine)
    with pytest.raises(DefectkitError, match="nodes is 'bonds'"):
        GraphConfig(nodes="bonds")
    with pytest.raises(DefectkitError, match="lose the vacancies"):
        GraphConfig(nodes="defects", virtual_nodes=False)


def test_atoms_in_each_other_are_refused_where_they_are_no_nodes_either():
    atoms = defective()
    atoms.positions[4] = atoms.positions[3] + [0.8, 0, 0]
    with pytest.raises(DefectkitError, match=r"0\.80 Å apart"):
        build_graph(atoms, SITES, recognition=FOUND)
