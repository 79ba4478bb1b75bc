"""Figures of attention and reach: what is drawn, counted and labelled."""

import numpy as np
import pandas as pd
import pytest
import torch
from crystals import host
from matplotlib.patches import Circle, FancyArrowPatch

from defectkit import plots
from defectkit.graphs import GraphConfig, build_graph

pytestmark = pytest.mark.usefixtures("no_windows")


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_strain_map_shows_percent_evenly_about_zero_and_the_reach():
    offset = np.array([[0.0, 0, 0], [3, 0, 0], [0, 9, 0]])
    ax = plots.attention.strain_map(offset, np.array([0.0, 0.01, -0.03]), reach=5.0)
    dots = ax.collections[0]
    assert sorted(dots.get_array()) == [-3.0, 0.0, 1.0]
    assert dots.get_clim() == (-3.0, 3.0)
    ring = next(line for line in ax.lines if line.get_label() == "local reach, 5 Å")
    assert np.allclose(np.hypot(*ring.get_data()), 5.0)
    assert "(%)" in ax.figure.axes[1].get_ylabel()
    assert "Å" in ax.get_xlabel()


def test_changes_that_are_zero_stand_apart_from_small_ones():
    distance = np.array([0.0, 5.0, 20.0])
    changes = {"local": np.array([0.0, 1e-6, 1.0]), "global": np.array([0.1, 0.2, 1.0])}
    first, second = plots.attention.change_by_distance(distance, changes, moved=12.0)
    drawn = {c.get_label(): c.get_offsets() for c in first.collections}
    assert drawn["exactly as before"][:, 0].tolist() == [0.0]
    assert drawn["exactly as before"][0, 1] < 1e-7
    assert drawn["the defect"][0, 1] < 1e-7
    assert drawn["changed"][:, 0].tolist() == [5.0, 20.0]
    assert not len(
        {c.get_label(): c.get_offsets() for c in second.collections}["exactly as before"]
    )
    assert first.get_title() == "local"
    words = [text.get_text() for text in first.figure.legends[0].get_texts()]
    assert words == ["atoms moved here", "changed", "exactly as before", "the defect"]


def test_chain_measures_to_the_nearest_image():
    ax = plots.attention.chain(np.array([0.0, 1.0, 4.0]), 6.0, list("ABD"), vacancies=[2])
    assert {"1 Å to B", "2 Å to D"} < set(texts(ax))
    arrows = [t for t in ax.texts if getattr(t, "arrow_patch", None)]
    assert len(arrows) == 2
    assert isinstance(arrows[0].arrow_patch, FancyArrowPatch)
    left, right = ax.get_xlim()
    for disc in (p for p in ax.patches if isinstance(p, Circle)):
        assert left < disc.center[0] < right
    empty = [p for p in ax.patches if p.get_linestyle() == "--"]
    assert {p.center[0] for p in empty} == {4.0, -2.0}


def test_attention_maps_write_small_fractions_as_such():
    first, second = plots.attention.attention_maps(
        {"one": np.array([[0.5, 0.5], [2 / 7, 5 / 7]]), "two": np.array([[0.123, 0.877]] * 2)},
        list("AB"),
    )
    assert texts(first) == ["1/2", "1/2", "2/7", "5/7"]
    assert texts(second)[0] == "0.12"
    assert first.get_ylabel().startswith("query")
    assert [label.get_text() for label in first.get_xticklabels()] == ["A", "B"]


def test_images_are_counted_and_placed_around_the_listener():
    crystal = host().repeat((2, 2, 1))
    graphs = {
        "nearest": build_graph(crystal, GraphConfig()),
        "all": build_graph(crystal, GraphConfig(image_radius=9.0)),
    }
    nearest, every = plots.attention.images_heard(graphs, 3, lambda d: 2.0**-d)
    n = int((graphs["all"].pair_index[1] == 3).sum())
    assert nearest.get_title() == "nearest: 12 terms"
    assert every.get_title() == f"all: {n} terms"
    places = every.collections[0].get_offsets()
    here = graphs["all"].pos[3, :2].numpy()
    assert np.linalg.norm(places - here, axis=1).max() < 9.0
    assert every.collections[0].get_array().max() == pytest.approx(1.0)  # itself


def test_theorem_draws_a_line_and_its_points_for_each_degree():
    cosine = torch.linspace(-1, 1, 5)
    direct = torch.stack([torch.ones(5), cosine], dim=1)
    ax = plots.attention.addition_theorem(cosine, direct, direct)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["$P_0$", "$P_1$", "from harmonics"]
    assert ax.lines[2].get_ydata().tolist() == ax.lines[3].get_ydata().tolist()


def test_parts_of_a_model_go_from_top_to_bottom_with_what_comes_out():
    table = pd.DataFrame(
        {
            "kind": ["NodeInputs", "GlobalBlock"],
            "output": ["(5, 7)", "(5, 16)"],
            "weights": [7, 90],
        },
        ["inputs", "global_blocks.0"],
    )
    ax = plots.attention.model_parts(table)
    labels = {tick.get_text(): place for tick, place in zip(ax.get_yticklabels(), ax.get_yticks())}
    assert labels["inputs  (NodeInputs)"] > labels["global_blocks.0  (GlobalBlock)"]
    assert [text.strip() for text in texts(ax)] == ["→ (5, 7)", "→ (5, 16)"]
    assert [bar.get_width() for bar in ax.patches] == [7, 90]
