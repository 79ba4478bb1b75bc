"""Figures of graphs, and the cutoff slider: what they show and count."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.patches import Polygon
from matplotlib.quiver import Quiver

from defectkit import plots
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.record import DefectRecord
from defectkit.widgets import CutoffExplorer

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture(scope="module")
def graph():
    unit = HOSTS["MoS2"].unit_cell()
    site = next(s for s in find_sites(unit) if s.name == "vac0")
    atoms = make_defect(unit, (3, 3, 1), site, "").atoms
    return build_graph(atoms, GraphConfig(cutoff=6.0), unit)


def test_image_choice_tells_both_lengths_apart():
    cell = np.array([[3.2, 0.0], [-1.6, 2.77]])
    start, end = np.array([[0.1, 0.5], [0.55, 0.05]]) @ cell
    ax = plots.graphs.image_choice(cell, start, end)
    images = [end + np.array([i, j]) @ cell for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2)]
    nearest = min(np.linalg.norm(image - start) for image in images)
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert f"nearest image: {nearest:.2f} Å" in labels
    assert f"rounded fractional coordinates: {nearest:.2f} Å" not in labels


@pytest.mark.parametrize("cutoff", [2.5, 4.0, 6.0])
def test_local_edges_draws_one_line_an_edge(graph, cutoff):
    vacancy = int(graph.is_vacancy.nonzero()[0])
    ax = plots.graphs.local_edges(graph, vacancy, cutoff)
    pos, shift = graph.pos.numpy(), graph.edge_shift.numpy()
    sender, receiver = graph.edge_index.numpy()
    gap = pos[sender] + shift @ graph.cell[0].numpy() - pos[receiver]
    expected = int(((receiver == vacancy) & (np.linalg.norm(gap, axis=1) <= cutoff)).sum())
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == expected > 0
    assert f"{expected} edges to a vacancy" in ax.get_title()


def test_line_graph_writes_the_angles():
    right_angle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    left, right = plots.graphs.line_graph(right_angle, [(0, 1), (0, 2)], ["A", "B", "C"])
    assert "90°" in [text.get_text() for text in right.texts]
    assert left.get_title() == "graph: 3 atoms, 2 bonds"
    assert right.get_title() == "line graph: 2 bonds, 1 angles"


def test_moved_atoms_enlarges_small_displacements_only():
    unit = HOSTS["MoS2"].unit_cell()
    before = DefectRecord(uid="a", atoms=unit, host="MoS2", label_source="test")
    small, large = unit.copy(), unit.copy()
    small.positions[0, 0] += 0.1
    large.positions[:, 0] += 5.0
    after = [
        DefectRecord(uid="a", atoms=a, host="MoS2", label_source="test") for a in (small, large)
    ]
    axes = plots.graphs.moved_atoms({"small": (before, after[0]), "large": (before, after[1])})
    assert [ax.get_title() for ax in axes[0]] == ["small\narrows x 15", "large"]
    assert all(any(isinstance(c, EllipseCollection) for c in ax.collections) for ax in axes[0])


def test_a_larger_cell_is_drawn_around_its_atoms():
    unit = HOSTS["MoS2"].unit_cell()
    small, large = unit.repeat((2, 2, 1)), unit.repeat((3, 3, 1))
    large.positions[:, :2] -= 40.0  # elsewhere in the crystal, as after padding
    pair = [
        DefectRecord(uid="a", atoms=a, host="MoS2", label_source="test") for a in (small, large)
    ]
    (ax,) = plots.graphs.moved_atoms({"larger": tuple(pair)})[0]
    after = [patch for patch in ax.patches if isinstance(patch, Polygon)][-1]
    inside = after.get_path().contains_points(large.positions[:, :2], radius=0.9)
    assert inside.mean() > 0.8
    assert not any(isinstance(child, Quiver) for child in ax.get_children())


def test_slider_redraws_the_picture(graph):
    explorer = CutoffExplorer(graph, 0, longest=6.0)
    first = bytes(explorer.picture.value)
    assert first.startswith(b"\x89PNG")
    explorer.slider.value = 5.0
    assert bytes(explorer.picture.value) != first
    assert not plt.get_fignums()  # nothing is left for the notebook to show a second time
