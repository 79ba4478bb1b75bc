"""Figures of explanations: what is drawn, coloured and labelled."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

from defectkit import explain, plots
from defectkit.graphs import GraphConfig, build_graph
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture(scope="module")
def graph():
    unit = HOSTS["MoS2"].unit_cell()
    site = next(s for s in find_sites(unit) if s.name == "vac1")
    return build_graph(make_defect(unit, (3, 3, 1), site, "").atoms, GraphConfig(), unit)


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def decaying(graph) -> pd.DataFrame:
    table = explain.node_table(graph)
    return table.assign(relative=4 * np.exp(-table.distance / 2))


def test_the_curve_is_the_fitted_one(graph):
    table = decaying(graph)
    fit = explain.decay_length(table)
    ax = plots.explain.weight_by_distance(table, fit=fit)
    curve = next(line for line in ax.lines if str(line.get_label()).startswith("decay"))
    assert np.allclose(curve.get_ydata(), 4 * np.exp(-curve.get_xdata() / 2), atol=1e-3)
    assert "decay over 2 Å, not settled" in labels(ax)  # one structure has no interval
    assert "uniform" in labels(ax)
    assert "Å" in ax.get_xlabel()


def test_without_a_fit_there_is_no_curve(graph):
    table = decaying(graph).assign(relative=1.0)
    fit = explain.decay_length(table)
    ax = plots.explain.weight_by_distance(table, fit=fit)
    assert not any("decay" in text for text in labels(ax))


def test_the_map_colours_atoms_by_value_and_marks_the_vacancy(graph):
    values = np.zeros(len(graph.z))
    values[4] = 1.0
    ax = plots.explain.lattice_map(graph, values, "eV", query=2)
    discs = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    assert 1 < len(discs) <= 9
    own = discs[-1]  # drawn last, opaque
    assert len(own.get_offsets()) == len(graph.z)
    assert own.get_alpha() == 1.0
    assert all(disc.get_alpha() < 1.0 for disc in discs[:-1])
    bright = own.get_facecolors()[:, 0] > 0.9  # the yellow end
    order = np.argsort(graph.pos[:, 2].numpy(), kind="stable")
    assert order[bright].tolist() == [4]
    crosses = next(line for line in ax.lines if line.get_marker() == "x")
    assert np.allclose(crosses.get_xydata(), graph.pos[graph.is_vacancy, :2].numpy())
    square = next(line for line in ax.lines if line.get_marker() == "s")
    assert np.allclose(square.get_xydata(), graph.pos[[2], :2].numpy())
    assert ax.figure.axes[1].get_ylabel() == "eV"


def test_values_below_zero_have_a_scale_around_it():
    norm, cmap = plots.style.colour_scale(np.array([-1.0, 3.0]))
    assert (norm.vmin, norm.vmax, cmap) == (-3.0, 3.0, plots.style.SIGNED)
    norm, cmap = plots.style.colour_scale(np.array([1.0, 3.0]), (0.0, 4.0))
    assert (norm.vmin, norm.vmax, cmap) == (0.0, 4.0, plots.style.SEQUENTIAL)


def test_the_scale_of_attention_shows_the_host_beside_the_defect(graph):
    relative = plots.explain.RELATIVE
    assert plots.explain.scale_of(np.ones(3), "change (eV)") is None
    weights = np.full(len(graph.z), 0.2)
    weights[graph.is_defect.numpy()] = 20.0
    norm = plots.explain.scale_of(weights, relative)
    assert (norm.vmin, norm.vmax) == pytest.approx((0.2, 20.0))
    assert norm(2.0) == pytest.approx(0.5)
    weights[0] = 1e-9  # one node that nobody hears takes no colours from the others
    assert plots.explain.scale_of(weights, relative).vmin == pytest.approx(0.02)
    assert plots.explain.scale_of(np.ones(3), relative)(1.0) == 1.0
    plain = plots.explain.lattice_map(graph, weights, "eV").collections[-1].get_facecolors()
    spread = plots.explain.lattice_map(graph, weights).collections[-1].get_facecolors()
    host = ~graph.is_defect.numpy()[np.argsort(graph.pos[:, 2].numpy(), kind="stable")]
    assert np.ptp(plain[host], axis=0).max() < 0.05 < np.ptp(spread[host], axis=0).max()


def test_every_head_has_its_map(graph):
    n = len(graph.z)
    maps = np.full((2, 3, n, n), 1 / n)
    axes = plots.explain.head_maps(graph, maps)
    assert axes.shape == (2, 3)
    assert axes[1, 2].get_title() == "layer 1, head 2"


def test_dots_stand_where_the_means_are():
    table = pd.DataFrame(
        {
            "first": ["attention"] * 2,
            "second": ["occlusion", "gradient"],
            "mean": [0.1, 0.5],
            "lo": [0.0, 0.4],
            "hi": [0.2, 0.7],
            "structures": [200, 199],
        }
    )
    ax = plots.explain.agreement_dots(
        {"plain": table, "given": table[:1]}, {"attention": "looked at"}
    )
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "looked at – occlusion",
        "looked at – gradient",
    ]
    assert labels(ax) == ["plain, 200 structures", "given, 200 structures"]
    assert ax.containers[0].lines[0].get_xdata().tolist() == [0.1, 0.5]


def test_share_bars_add_up(graph):
    shares = explain.shares(decaying(graph), "relative")
    ax = plots.explain.share_bars({"by hand": shares})
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(shares.near.iloc[0])


def test_rings_count_every_structure_once(graph):
    tables = []
    for number in range(6):
        table = explain.node_table(graph).assign(uid=f"s{number}")
        tables.append(table.assign(relative=np.where(table.distance < 3, 1.0 + number, 1.0)))
    ax = plots.explain.rings({"all": pd.concat(tables)})
    line = ax.containers[0].lines[0]
    assert line.get_xdata()[0] == pytest.approx(2.5)
    assert line.get_ydata()[0] == pytest.approx(3.5)
    assert labels(ax) == ["uniform", "all, 6 structures"]


def test_scores_stand_side_by_side_and_the_unknown_is_white(graph):
    values = np.ones(len(graph.z))
    values[3] = np.nan
    axes = plots.explain.score_maps(graph, {"one (eV)": np.arange(len(graph.z)), "two": values})
    discs = next(c for c in reversed(axes[1].collections) if isinstance(c, EllipseCollection))
    order = np.argsort(graph.pos[:, 2].numpy(), kind="stable")
    white = (discs.get_facecolors()[:, :3] == 1).all(axis=1)
    assert order[white].tolist() == [3]


def test_every_element_has_its_place(graph):
    ax = plots.explain.by_element(decaying(graph))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Mo", "S", "V_S"]
    assert len(ax.lines[0].get_xdata()) == len(graph.z) - 1
