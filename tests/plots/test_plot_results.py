"""Figures of models and their results: what is drawn, counted and labelled."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Circle, Rectangle
from model_cases import molecule

from defectkit import plots
from defectkit.evaluation.metrics import interval
from defectkit.graphs import GraphConfig, build_graph

SOURCE = "CHGNet-0.3.0"


pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    eform = rng.normal(1, 3, 200)
    return pd.DataFrame(
        {
            "eform": eform,
            "eform_pred": eform + 0.1 * eform * rng.normal(size=200),
            "spin": rng.exponential(1, 200),
            "spin_pred": 0.5,
            "host": rng.choice(["MoS2", "SnS2", "P4"], 200, p=[0.6, 0.3, 0.1]),
        }
    )


@pytest.fixture
def errors(rows):
    return rows.eform_pred - rows.eform


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def names(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def line(ax, label: str):
    return next(one for one in ax.lines if one.get_label() == label)


def test_rounds_write_every_value_and_leave_silent_nodes_white():
    points = np.array([[0.0, 0.0], [1.0, 0.0]])
    values = np.array([[1.0, 0.0], [1.0, 2.5]])
    start, after = plots.results.message_rounds(points, [(0, 1)], ["A", "B"], values)
    assert [text.get_text() for text in after.texts] == ["A\n1", "B\n2.5"]
    assert start.get_title() == "at the start"
    discs = [patch for patch in start.patches if isinstance(patch, Circle)]
    assert [disc.get_facecolor()[:3] == (1, 1, 1) for disc in discs] == [False, True]
    for disc in discs:  # none is cut off
        box = disc.get_extents().transformed(start.transData.inverted())
        assert start.get_xlim()[0] < box.x0
        assert box.y1 < start.get_ylim()[1]


def test_surroundings_count_bonds_and_angles_of_one_atom():
    atoms = molecule([0, 0, 0], [2, 0, 0], [0, 2, 0], [-2.2, 0, 0], symbols="WSSO")
    graph = build_graph(atoms, GraphConfig(cutoff=2.5, angle_cutoff=None), dtype=torch.float64)
    (ax,) = plots.results.surroundings({"bent": graph})
    assert ax.texts[-1].get_text() == (
        "bonds: 1 O 2.20 Å, 2 S 2.00 Å\nangles: 1 O-S 180°, 1 O-S 90°, 1 S-S 90°"
    )
    assert len(ax.collections[0].get_segments()) == 3
    assert [text.get_text() for text in ax.texts[:-1]].count("S") == 2
    assert ax.get_title() == "bent"


def test_learning_curve_keeps_its_axis_while_epochs_come():
    metrics = pd.DataFrame({"train_loss": [3.0, 2.0], "valid_eform_mae": [1.5, 1.2]}, [1, 2])
    loss, error = plots.results.learning_curve(metrics, epochs=10, baseline=1.4)
    assert line(error, "validation rows").get_ydata().tolist() == [1.5, 1.2]
    assert line(loss, "training rows").get_xdata().tolist() == [1, 2]
    assert "always the mean" in legend(error)
    assert "eV" in error.get_ylabel()
    assert loss.get_xlim()[1] == 10.5
    assert "always the mean" not in legend(plots.results.learning_curve(metrics)[1])


def test_parity_says_what_computed_the_labels_and_the_error(rows):
    rows.loc[rows.index[:20], "spin"] = np.nan
    energy = plots.results.parity(rows, SOURCE)
    assert energy.get_xlabel() == f"formation energy, {SOURCE} (eV)"
    mae = (rows.eform_pred - rows.eform).abs().mean()
    assert energy.get_title() == f"200 rows, mean absolute error {mae:.2f} eV"
    moment = plots.results.parity(rows, SOURCE, "spin", "magnets")
    assert moment.get_title().startswith("magnets\n180 rows")
    assert "μB" in moment.get_xlabel()
    assert "μB" in moment.get_ylabel()


def test_error_bars_put_the_worst_group_on_top_with_its_rows(rows, errors):
    ax = plots.results.error_bars(errors, rows.host, SOURCE)
    means = errors.abs().groupby(rows.host).mean().sort_values()
    counts = rows.host.value_counts()
    assert names(ax) == [f"{host} ({counts[host]})" for host in means.index]
    bars = [patch.get_width() for patch in ax.patches if isinstance(patch, Rectangle)]
    assert np.allclose(bars, means)
    worst = errors.abs()[rows.host == means.index[-1]].to_numpy()
    (left, right) = ax.collections[0].get_segments()[-1][:, 0]
    assert (left, right) == pytest.approx(interval(worst))
    assert SOURCE in ax.get_xlabel()
    assert "eV" in ax.get_xlabel()


def test_error_bars_of_a_single_row_have_no_interval(rows, errors):
    ax = plots.results.error_bars(errors[:5], pd.Series(list("aaaab"), errors.index[:5]), SOURCE)
    assert any("b (1)" in name for name in names(ax))


def test_error_by_energy_has_bins_of_equal_size_and_hides_no_row(rows, errors):
    ax = plots.results.error_by_energy(rows, SOURCE, bins=4)
    middles, means = ax.lines[0].get_data()
    order = rows.eform.abs().sort_values().index
    assert middles[0] == pytest.approx(rows.eform.abs()[order[:50]].mean())
    assert means[-1] == pytest.approx(errors.abs()[order[-50:]].mean())
    assert ax.get_ylim()[1] > errors.abs().max()
    assert SOURCE in ax.get_xlabel()


def test_error_by_support_places_each_group_at_its_training_rows(rows, errors):
    training = pd.Series({"MoS2": 50, "SnS2": 20})  # none of P4
    ax = plots.results.error_by_support(errors, rows.host, training)
    means = errors.abs().groupby(rows.host).mean()
    assert ax.lines[0].get_xdata().tolist() == [
        {"MoS2": 50, "SnS2": 20}.get(h, 0) for h in means.index
    ]
    assert np.allclose(ax.lines[0].get_ydata(), means)
    assert {text.get_text() for text in ax.texts} == set(means.index)
    assert "training rows of the host" in ax.get_xlabel()


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "model": ["a", "a", "b"],
            "seed": [0, 1, 0],
            "eform_mae": [0.6, 0.4, 0.3],
            "eform_mae_lo": [0.5, 0.3, 0.2],
            "eform_mae_hi": [0.7, 0.6, 0.4],
            "build_ms": [4.0, 6.0, 5.0],
            "infer_ms_b1": [1.0, 1.0, 10.0],
            "infer_ms_b64": [0.5, 0.5, 2.0],
        }
    )


def test_models_are_sorted_and_every_seed_is_a_point(table):
    ax = plots.results.model_errors(table, SOURCE)
    assert names(ax) == ["a", "b"]  # upwards: the best on top
    points = sorted(x for one in ax.lines if one.get_marker() == "o" for x in one.get_xdata())
    assert points == [0.3, 0.4, 0.6]
    ends = sorted(tuple(s[:, 0].round(3)) for c in ax.collections for s in c.get_segments())
    assert ends == [(0.2, 0.4), (0.3, 0.6), (0.5, 0.7)]
    means = {one.get_ydata()[0]: one.get_xdata()[0] for one in ax.lines if one.get_mew() == 2.5}
    assert means == {0: 0.5, 1: 0.3}
    assert sorted(legend(ax)) == ["mean of the seeds", "one seed, interval 95 %"]


def test_latency_adds_building_and_inference(table):
    ax = plots.results.model_latency(table)
    assert names(ax) == ["b", "a"]  # upwards: the fastest on top
    build, infer = ax.containers
    assert [bar.get_width() for bar in build] == [5.0, 5.0]
    assert [bar.get_width() for bar in infer] == [10.0, 1.0]
    assert [bar.get_x() for bar in infer] == [5.0, 5.0]
    assert ax.lines[0].get_xdata().tolist() == [7.0, 5.5]
    assert "ms" in ax.get_xlabel()


def test_echo_tells_zero_from_small_and_marks_the_defect():
    distance = np.array([0.0, 3.0, 6.0, 9.0])
    change = np.array([1.0, 1e-6, 0.0, 0.0])
    ax = plots.results.echo(distance, change, 5.0, np.array([False, False, False, True]))
    drawn = {c.get_label(): c.get_offsets() for c in ax.collections}
    assert drawn["changed"][:, 0].tolist() == [0.0, 3.0]
    assert drawn["exactly as before"][:, 0].tolist() == [6.0]
    assert drawn["the defect"][:, 0].tolist() == [9.0]
    assert drawn["exactly as before"][0, 1] < 1e-6
    assert "layers x cutoff = 5 Å" in legend(ax)


def test_names_of_near_points_stand_apart():
    x, y = pd.Series({"a": 1.0, "b": 1.02, "c": 1.04}), pd.Series({"a": 1.0, "b": 1.01, "c": 1.0})
    ax = plt.subplots(figsize=(4, 3))[1]
    ax.plot(x, y, "o")
    ax.set(xlim=(0, 2), ylim=(0, 2))
    plots.results.name_points(ax, x, y)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    assert not any(box.overlaps(other) for box in boxes for other in boxes if other is not box)


def test_a_name_at_the_edge_stays_inside():
    x, y = pd.Series({"a long name": 1.0, "b": 0.0}), pd.Series({"a long name": 1.0, "b": 0.0})
    ax = plt.subplots(figsize=(4, 3))[1]
    ax.set(xlim=(0, 1), ylim=(0, 1.2))
    plots.results.name_points(ax, x, y, ["a long name"])
    (text,) = ax.texts
    assert text.get_window_extent().x1 < ax.get_window_extent().x1
