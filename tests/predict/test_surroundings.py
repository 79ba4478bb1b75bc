"""The numbers by which the guard knows how atoms stand to their neighbours."""

import numpy as np
import pytest
from ase.data import covalent_radii

from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset
from defectkit.predict.surroundings import NAMES, surroundings
from defectkit.structures.defects import find_site, make_defect
from defectkit.structures.hosts import HOSTS

CONFIG = GraphConfig(cutoff=4.0, angle_cutoff=None, pair_nodes="defects")
UNIT = HOSTS["MoS2"].unit_cell()
SITE = find_site(UNIT, "adsorbate", "")


def row(atoms, uid="x"):
    graph = build_graph(atoms, CONFIG, UNIT)
    graph.uid = uid
    return surroundings(GraphDataset.from_graphs([graph])).loc[uid]


def adatom(lift: float):
    atoms = make_defect(UNIT, (3, 3, 1), SITE, "Li").atoms
    atoms.positions[-1, 2] += lift * np.sign(SITE.side)
    return atoms


def test_an_adatom_by_hand():
    atoms = adatom(0.3)
    found = row(atoms)
    distances = atoms.get_distances(-1, range(len(atoms) - 1), mic=True)
    sums = covalent_radii[atoms.numbers[:-1]] + covalent_radii[3]
    assert found.shortest == pytest.approx((distances / sums).min(), rel=1e-4)
    z = atoms.positions[:-1, 2]
    outside = max(atoms.positions[-1, 2] - z.max(), z.min() - atoms.positions[-1, 2])
    assert found.height == pytest.approx(outside, abs=1e-4)
    assert (found.nodes, found.side > 0.5) == (1, True)
    assert found.near_moved == pytest.approx(0.0, abs=1e-4)


def test_a_higher_atom_has_longer_and_fewer_bonds():
    near, far = row(adatom(0.0)), row(adatom(1.0))
    assert far.height - near.height == pytest.approx(1.0, abs=1e-4)
    assert far.shortest > near.shortest
    assert far.bonds < near.bonds


def test_a_vacancy_has_moved_neighbours_and_no_bonds():
    atoms = make_defect(UNIT, (3, 3, 1), find_site(UNIT, "vacancy", "S"), "X").atoms
    still = row(atoms)
    assert (still.shortest, still.bonds, still.height) == (2.0, 0.0, 0.0)
    atoms.positions[0] += [0.2, 0, 0]
    assert row(atoms).most_moved == pytest.approx(0.2, abs=0.05)
    assert list(still.index) == list(NAMES)


def test_batches_give_the_same_rows(monkeypatch):
    graphs = [build_graph(adatom(lift), CONFIG, UNIT) for lift in (0.0, 0.2, 0.5, 0.8)]
    for k, graph in enumerate(graphs):
        graph.uid = str(k)
    whole = surroundings(GraphDataset.from_graphs(graphs))
    monkeypatch.setattr("defectkit.predict.surroundings.BATCH", 2)
    np.testing.assert_allclose(surroundings(GraphDataset.from_graphs(graphs)), whole, rtol=1e-5)
