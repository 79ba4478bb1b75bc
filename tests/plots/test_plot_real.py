"""Figures on real DFT labels: what is drawn, told apart and labelled."""

import numpy as np
import pandas as pd
import pytest

from defectkit import plots
from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.periodic import minimum_image
from defectkit.structures.hosts import HOSTS

SOURCE = "DFT-PBE (2DMD)"

pytestmark = pytest.mark.usefixtures("no_windows")


def legend(drawn) -> list[str]:
    return [text.get_text() for text in drawn.get_texts()]


def test_two_graphs_count_nodes_and_measure_pairs_of_sites():
    unit = HOSTS["MoS2"].unit_cell()
    atoms = unit.repeat((5, 5, 1))
    sulfur = np.flatnonzero(atoms.symbols == "S")
    middle = atoms.positions[sulfur] - atoms.get_center_of_mass()
    near = sulfur[np.linalg.norm(middle, axis=1).argsort()[:8]]
    _, apart = minimum_image(atoms.positions[near], atoms.cell.array, atoms.pbc)
    del atoms[near[[0, 5]]]
    every = build_graph(atoms, GraphConfig(angle_cutoff=None), unit)
    few = build_graph(
        atoms, GraphConfig(nodes="defects", image_radius=9.0, angle_cutoff=None), unit
    )
    left, right = plots.real.two_graphs(every, few, 9.0)
    assert left.get_title().startswith("75 nodes, ")
    assert right.get_title() == "2 nodes, 2 directed pairs"
    assert {text.get_text() for text in right.texts} == {f"{apart[0, 5]:.1f} Å"}
    assert not left.texts


@pytest.fixture
def pairs():
    """All pairs of sulfur vacancies in 8 x 8 cells, seen up to 8 Å by one of two networks."""
    atoms = HOSTS["MoS2"].unit_cell().repeat((8, 8, 1))
    atoms = atoms[atoms.symbols == "S"]
    _, apart = minimum_image(atoms.positions, atoms.cell.array, atoms.pbc)
    side = np.where(atoms.positions[:, 2] == atoms.positions[0, 2], "same", "other")
    found = pd.DataFrame({"distance": apart[0].round(4), "side": side})[1:]
    found = found.drop_duplicates("distance").sort_values("distance")
    found["dft"] = 0.1 * np.cos(found.distance) / found.distance
    parts = []
    for name, reach in (("all pairs", 99), ("cut at 8 Å", 8)):
        for seed in range(3):
            said = np.where(found.distance < reach, found.dft + 0.001 * seed, 0.0)
            parts.append(found.assign(network=name, seed=seed, predicted=said))
    table = pd.concat(parts).assign(host="MoS2", held_out="pair")
    return pd.concat([table, table.assign(held_out="shell", dft=9.0)])


def test_oscillation_draws_dft_by_side_and_the_mean_of_the_seeds(pairs):
    (ax,) = plots.real.oscillation(pairs, SOURCE)
    drawn = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert set(drawn) == {"all pairs", "cut at 8 Å", "DFT, on one side", "DFT, across the layer"}
    far = pairs[(pairs.held_out == "pair") & (pairs.distance > 5)].drop_duplicates("distance")
    same = far[far.side == "same"]
    assert drawn["DFT, on one side"].get_xdata().tolist() == same.distance.tolist()
    assert drawn["DFT, on one side"].get_ydata() == pytest.approx(1000 * same.dft)
    assert len(drawn["DFT, across the layer"].get_xdata()) == len(far) - len(same)
    x, y = drawn["all pairs"].get_data()
    assert y[0] == pytest.approx(1000 * same.dft.iloc[0] + 1)
    x, y = drawn["cut at 8 Å"].get_data()
    assert np.all(y[x > same.distance[same.distance > 8].min()] == 0)
    assert ax.get_title() == "two vacancies in MoS$_2$"
    assert SOURCE in ax.get_ylabel()
    assert "meV" in ax.get_ylabel()
    assert "all pairs" in legend(ax.figure.legends[0])


def test_a_network_that_was_not_measured_is_left_out(pairs):
    (ax,) = plots.real.oscillation(pairs[pairs.network == "all pairs"], SOURCE, "shell")
    assert "cut at 8 Å" not in legend(ax.figure.legends[0])


def test_published_stands_beside_ours_in_the_order_of_its_errors():
    table = pd.DataFrame(
        {
            "subset": ["high_A", "low_A", "mean of 8"] * 2,
            "model": ["sites x3"] * 3 + ["mean"] * 3,
            "seed": 0,
            "mae": [0.02, 0.002, 0.011, 0.5, 0.4, 0.45],
        }
    )
    table = table.assign(mae_lo=0.9 * table.mae, mae_hi=1.1 * table.mae)
    others = pd.DataFrame(
        {
            "subset": ["high_A", "low_A", "high_B"] * 2,
            "model": ["Sparse_MEGNet"] * 3 + ["CatBoost"] * 3,
            "mae": [0.03, 0.003, 0.1, 0.06, 0.009, 0.2],
        }
    )
    ax = plots.real.published(table, others, SOURCE)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["low\nA", "high\nA", "mean of 8"]
    assert ax.get_yscale() == "log"
    words = legend(ax.get_legend())
    assert words[:2] == ["CatBoost: another split", "Sparse MEGNet: another split"]
    assert words[2:] == ["mean", "sites x3"]
    bars = [line.get_ydata() for line in ax.lines if line.get_marker() == "_"]
    assert any(np.allclose(bar, [3, 30, 16.5]) for bar in bars if len(bar) == 3)
    assert SOURCE in ax.get_ylabel()


def test_reach_has_a_mark_a_network_and_dots_a_seed():
    columns = ["host", "network", "seed", "mae"]
    rows = [
        (host, name, seed, error * (1 + 0.1 * seed))
        for host in ("MoS2", "WSe2")
        for name, error in (("all pairs", 0.002), ("cut at 5 Å", 0.01))
        for seed in range(2)
    ]
    ax = plots.real.reach(pd.DataFrame(rows, columns=columns), SOURCE)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["all pairs", "cut at 5 Å"]
    dots, _, marks = ax.lines[:3]
    np.testing.assert_allclose(marks.get_xdata(), [10.5, 2.1])  # meV, the longest reach below
    assert dots.get_marker() == "o"
    assert SOURCE in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().texts] == ["MoS$_2$", "WSe$_2$"]


@pytest.fixture
def ladder():
    columns = ["step", "model", "seed", "subset", "mae", "coverage"]
    rows = [
        (step, model, seed, subset, error * factor * (1 + 0.1 * seed), held)
        for step, error, held in (("random", 0.02, 0.9), ("host", 0.5, 0.3))
        for model, factor in (("sites", 1.0), ("lightgbm", 2.0))
        for seed in (0, 1)
        for subset in ("high_P", "high_BN", "mean of 2")
    ]
    rows += [
        (f"few-shot {n}", f"sites, {start}", seed, "high_BN", error * 10 / n, 0.9)
        for n in (10, 200)
        for start, error in (("from scratch", 0.6), ("fine-tuned", 0.3))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows, columns=columns)


def test_rungs_has_a_bar_for_the_mean_and_dots_for_subsets(ladder):
    errors, coverage = plots.real.rungs(ladder, SOURCE)
    assert [tick.get_text() for tick in errors.get_yticklabels()] == ["host", "random"]
    bars = {
        (round(line.get_ydata()[0]), line.get_color()): line.get_xdata().tolist()
        for line in errors.lines
        if line.get_marker() == "|" and len(line.get_xdata())
    }
    assert {key[0]: value for key, value in bars.items() if key[1] == plots.style.BLUE} == {
        0: [pytest.approx(525)],  # meV, the mean of the seeds
        1: [pytest.approx(21)],
    }
    assert len(bars) == 4
    dots = [line for line in coverage.lines if line.get_marker() == "o"]
    assert {len(line.get_xdata()) for line in dots} == {2}
    assert {x for line in dots for x in line.get_xdata()} == {90.0, 30.0}
    assert legend(errors.get_legend()) == ["sites", "lightgbm", "one subset"]
    assert SOURCE in errors.get_xlabel()


def test_few_shot_has_a_line_a_start_beside_what_other_hosts_give(ladder):
    (ax,) = plots.real.few_shot(ladder, SOURCE)
    assert ax.get_title() == "BN"
    drawn = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(drawn) == ["sites, from scratch", "sites, fine-tuned", "other hosts alone"]
    assert drawn["sites, from scratch"].get_xdata().tolist() == [10, 200]
    assert drawn["sites, from scratch"].get_ydata() == pytest.approx([600, 30])
    assert drawn["other hosts alone"].get_ydata()[0] == pytest.approx(525)
    assert SOURCE in ax.get_ylabel()
