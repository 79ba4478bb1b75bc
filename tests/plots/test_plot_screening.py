"""Figures of a screening: what is drawn, counted, marked and labelled."""

import numpy as np
import pandas as pd
import pytest

from defectkit import plots
from defectkit.graphs import GraphConfig, build_graph
from defectkit.screening.choose import over_seeds
from defectkit.screening.funnel import funnel
from defectkit.structures.hosts import HOSTS

SOURCE = "CHGNet-0.3.0"

pytestmark = pytest.mark.usefixtures("no_windows")


def legend(drawn) -> list[str]:
    return [text.get_text() for text in drawn.get_texts()]


def line(ax, label: str):
    return next(one for one in ax.lines if one.get_label() == label)


@pytest.fixture
def table() -> pd.DataFrame:
    """Two hosts, two sites, four dopants of three periods, and a vacancy."""
    rng = np.random.default_rng(0)
    rows = [
        (host, dopant, kind, site, removed)
        for host in ("WSe2", "MoS2")
        for kind, site, removed in (("adsorbate", "ads0", ""), ("complex", "cpx0", "S,Mo"))
        for dopant in ("Fe", "H", "Na", "Cr")
    ] + [("MoS2", "X", "vacancy", "vac0", "S")]
    table = pd.DataFrame(rows, columns=["host", "dopant", "kind", "site", "removed"])
    table["name"] = table.host + "_" + table.dopant + "_" + table.site
    table["eform"] = rng.normal(1, 2, len(table))
    table = table.assign(eform_lo=table.eform - 0.5, eform_hi=table.eform + 0.5, margin_site=-1.0)
    table = table.assign(spin=rng.exponential(1, len(table)), stage="weak", place=0)
    table.loc[0, ["stage", "eform"]] = "overlap", np.nan  # Fe on WSe2
    table.loc[1, "stage"] = "unfamiliar"  # H on WSe2
    table.loc[2, ["stage", "margin_site", "place"]] = "chosen", 0.3, 1  # Na on WSe2
    return table.set_index("name", drop=False)


def test_the_funnel_draws_what_is_left_and_stopped_and_says_why(table):
    counts = funnel(table)
    ax = plots.screening.funnel(counts)
    left, stopped = ax.containers
    assert [bar.get_width() for bar in left] == counts.left.tolist()
    assert [bar.get_width() for bar in stopped] == counts.stopped.tolist()
    assert [bar.get_x() for bar in stopped] == counts.left.tolist()
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names[0] == "overlap  16"
    assert names[-1] == "chosen  1"
    assert "−1: atoms lie in each other before relaxation" in [t.get_text() for t in ax.texts]
    assert ax.get_yticks()[0] > ax.get_yticks()[-1]  # from above
    assert "17" in ax.get_xlabel()


def test_the_map_puts_elements_in_order_and_marks_what_to_know(table):
    upper, lower = plots.screening.energy_map(table, SOURCE)
    assert (upper.get_title("left"), lower.get_title("left")) == ("MoS2", "WSe2")
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["H", "Na", "Cr", "Fe"]
    assert [tick.get_text() for tick in lower.get_yticklabels()] == [
        "adsorbate (ads0)",
        "on S, Mo missing (cpx0)",
    ]
    values = lower.images[0].get_array()
    assert values.mask[0].tolist() == [False, False, False, True]
    assert values[0, 1] == table.eform["WSe2_Na_ads0"]
    crossed, dotted, ringed = lower.lines[:3]
    assert sorted(crossed.get_xdata()) == [0, 3]
    assert dotted.get_xdata().tolist() == ringed.get_xdata().tolist() == [1]
    periods = [one.get_xdata()[0] for one in lower.lines[3:]]
    assert periods == [0.5, 1.5]
    assert legend(upper.get_legend())[0] == "on the short list"
    label = upper.figure.axes[-1].get_ylabel()
    assert SOURCE in label
    assert "eV" in label


def test_the_front_has_two_views_of_the_same_rows(table):
    known = table.dropna(subset=["eform"])
    best = np.arange(len(known)) % 5 == 0
    left, right = plots.screening.front(known, best, SOURCE)
    for ax, value in ((left, known.spin), (right, known.eform_hi - known.eform_lo)):
        rest, shown = (c.get_offsets() for c in ax.collections)
        assert np.allclose(shown, np.column_stack([known.eform, value])[best])
        assert len(rest) == (~best).sum()
        assert SOURCE in ax.get_xlabel()
    assert "μB" in left.get_ylabel()
    assert {text.get_text() for text in left.texts} == set(known[best].nlargest(4, "spin").name)


def test_cards_say_who_they_are_in_numbers(table):
    unit = HOSTS["MoS2"].unit_cell().repeat((3, 3, 1))
    graph = build_graph(unit, GraphConfig(angle_cutoff=None))
    rows = table.dropna(subset=["eform"]).head(4)
    axes = plots.screening.cards(rows, [graph] * 4)
    assert axes.shape == (2, 3)
    titles = [ax.get_title() for ax in axes.flat]
    row = rows.iloc[1]
    assert titles[1].split("\n")[0] == f"1  {row['name']}"
    assert f"{row.eform:.2f} eV ({row.eform_lo:.2f} to {row.eform_hi:.2f})" in titles[1]
    assert titles[4:] == ["", ""]


def test_what_is_asked_for_stands_on_the_map():
    points = np.random.default_rng(0).normal(size=(30, 2))
    known, sigma = np.zeros((3, 2)), np.linspace(0.1, 1, 30)
    chosen = {"random": np.array([1, 2]), "unlike": np.array([7])}
    axes = plots.screening.asked(points, sigma, known, chosen)
    for ax, (name, numbers) in zip(axes, chosen.items()):
        assert ax.get_title() == name
        assert np.allclose(np.transpose(line(ax, "asked for next").get_data()), points[numbers])
        assert ax.collections[0].get_array().tolist() == sigma.tolist()
    assert "eV" in axes[0].figure.axes[-1].get_ylabel()


def test_learning_curves_have_a_panel_a_data_set_and_a_band_a_strategy():
    rng = np.random.default_rng(0)
    rows = [
        {"data": data, "strategy": name, "seed": seed, "labelled": n, "mae": rng.uniform(1, 2)}
        for data in ("a", "b")
        for name in ("random", "unlike")
        for seed in range(3)
        for n in (10, 20)
    ]
    curves = pd.DataFrame(rows)
    axes = plots.screening.learning(curves, {"b": "second", "a": "first"})
    assert [ax.get_title() for ax in axes] == ["second", "first"]
    own = curves[(curves.data == "b") & (curves.strategy == "unlike")]
    mean, half = over_seeds(own.pivot(index="seed", columns="labelled", values="mae"))
    assert line(axes[0], "unlike").get_ydata() == pytest.approx(mean)
    band = axes[0].collections[1].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx((mean + half).max())
    assert legend(axes[0].figure.legends[0]) == ["random", "unlike"]
    assert "eV" in axes[0].get_ylabel()


def test_energy_lost_is_a_line_a_model():
    table = pd.DataFrame({"good": [0.1, 0.0], "poor": [0.5, 0.2]}, index=[1, 2])
    ax = plots.screening.lost(table, "site")
    assert line(ax, "poor").get_ydata().tolist() == [0.5, 0.2]
    assert "site" in ax.get_xlabel()
    assert "eV" in ax.get_ylabel()


def test_what_was_promised_stands_beside_what_was_computed(table):
    rows = table.dropna(subset=["eform"]).head(3).assign(computed=[5.0, 6.0, 7.0])
    ax = plots.screening.promised(rows, SOURCE)
    computed = line(ax, f"computed, {SOURCE}")
    assert computed.get_xdata().tolist() == [5.0, 6.0, 7.0]
    assert computed.get_ydata()[0] > computed.get_ydata()[-1]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert np.allclose(ends, rows[["eform_lo", "eform_hi"]])
    assert [t.get_text() for t in ax.get_yticklabels()] == rows.name.tolist()
