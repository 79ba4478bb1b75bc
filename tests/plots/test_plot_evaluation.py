"""Figures of an evaluation: what is drawn, counted and labelled."""

import numpy as np
import pandas as pd
import pytest

from defectkit import plots
from defectkit.evaluation import coverage, metrics
from defectkit.evaluation.breakdown import size_slope
from defectkit.evaluation.metrics import confusion
from defectkit.predict.domain import Guard

SOURCE = "CHGNet-0.3.0"

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    eform, sigma = rng.normal(1, 3, 200), rng.uniform(0.05, 1, 200)
    return pd.DataFrame(
        {
            "eform": eform,
            "eform_pred": eform + sigma * rng.normal(size=200),
            "eform_sigma": sigma,
            "spin": rng.exponential(1, 200),
            "spin_pred": 0.6,
            "host": rng.choice(["MoS2", "SnS2", "P4"], 200),
            "dopant": rng.choice(["Cu", "Ag", "Au", ""], 200),
            "strain": 0.0,
            "natoms": rng.choice([28, 37, 45], 200),
        },
        pd.Index([f"r{k}" for k in range(200)], name="uid"),
    )


@pytest.fixture
def errors(rows):
    return rows.eform_pred - rows.eform


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend(owner) -> list[str]:
    one = owner.get_legend() if hasattr(owner, "get_legend") else owner.legends[0]
    return [text.get_text() for text in one.get_texts()]


def line(ax, label: str):
    return next(one for one in ax.lines if one.get_label() == label)


def test_residuals(rows, errors):
    rows.loc["r0", "eform"] = np.nan
    scatter, counts = plots.evaluation.residuals(rows, SOURCE)
    assert scatter.get_title() == f"199 rows, mean {errors[1:].mean():+.2f} eV"
    assert SOURCE in scatter.get_xlabel()
    assert "eV" in scatter.get_ylabel()
    low, high = errors[1:].quantile([0.05, 0.95])
    assert legend(counts) == [f"90 % of the rows:\n{low:+.2f} to {high:+.2f} eV"]


def test_error_map_shows_the_mean_of_every_dopant(rows, errors):
    ax = plots.evaluation.error_map(errors, rows.dopant, SOURCE)
    means = errors.abs().groupby(rows.dopant).mean()
    shown = texts(ax)
    assert {f"{means[one]:.2f}" for one in ("Cu", "Ag", "Au")} <= set(shown)
    assert sum("." in text for text in shown) == 3


def test_confusion_writes_counts_and_shares_of_the_label(rows):
    table = confusion(rows)
    ax = plots.evaluation.confusion_matrix(table)
    n = table.loc["magnetic", "magnetic"]
    assert f"{n}\n100%" in texts(ax)  # all are called magnetic
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("prediction", "label")


def test_size_errors_draw_the_slope(rows, errors):
    ax = plots.evaluation.size_errors(errors, rows.natoms, rows.host)
    fit = size_slope(errors, rows.natoms, rows.host)
    x, y = line(ax, "line through all rows").get_data()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(fit["slope"])
    assert f"{1e3 * fit['slope']:+.1f} meV" in ax.get_title()
    one = plots.evaluation.size_errors(errors, rows.natoms * 0 + 28)
    assert not one.get_title()


def test_reliability_has_every_method_and_the_diagonal(rows):
    table = coverage.reliability(rows[:100], rows[100:])
    ax = plots.evaluation.reliability(table)
    assert len(legend(ax)) == 4
    drawn = line(ax, plots.evaluation.METHOD_NAMES["gaussian"])
    assert drawn.get_ydata().tolist() == table.gaussian.tolist()


def test_coverage_and_width(rows):
    table = coverage.coverage(rows[:100], rows[100:])
    share, width = plots.evaluation.coverage_width(table)
    heights = sorted(bar.get_height() for bar in width.patches)
    assert heights == pytest.approx(sorted(table.width_mean))
    assert [tick.get_text() for tick in share.get_xticklabels()] == ["80%", "90%", "95%"]
    assert "eV" in width.get_ylabel()


def test_sigma_errors_show_the_rank_correlation(rows):
    ax = plots.evaluation.sigma_errors(rows, bins=4)
    assert f"Spearman {coverage.ranking(rows)['spearman']:.2f}" in ax.get_title()
    assert "eV" in ax.get_xlabel()
    assert "eV" in ax.get_ylabel()


def test_guard_counts_verdicts_in_a_panel_a_distance(errors):
    rng = np.random.default_rng(1)
    signs = pd.DataFrame(
        {"spread": rng.random(200), "latent": rng.random(200), "composition": rng.random(200)},
        errors.index,
    )
    limits = Guard(0.9, {"latent": 0.9, "composition": 2.0})
    axes = plots.evaluation.guard(signs, limits, errors)
    counts = limits.verdict(signs).verdict.value_counts()
    assert len(axes) == 2
    shown = legend(axes[0].figure)
    assert shown[0].startswith(f"inside: {counts['inside']} rows")
    assert "composition" in axes[1].get_xlabel()


def test_regret_and_recall(rows):
    good, blind = (
        metrics.choices(table, metrics.DOPANT, "dopant")
        for table in (rows, rows.assign(eform_pred=0.0))
    )
    ax = plots.evaluation.regret({"blind": blind, "good": good}, "dopant of a host")
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [blind.regret.mean(), good.regret.mean()]  # upwards: the best on top
    assert "3 choices (eV)" in ax.get_xlabel()
    ax = plots.evaluation.recall({"good": metrics.top_k(good, (1, 2, 3))}, "dopant of a host")
    assert line(ax, "good").get_xdata().tolist() == [1, 2]  # of three, three miss nothing
    assert "order at random" in legend(ax)


def test_traps_show_what_is_claimed_and_what_holds():
    table = pd.DataFrame(
        {
            "protocol": ["trap", "honest"],
            "n_train": [80, 81],
            "eform_mae": [0.1, 0.5],
            "lo": [0.05, 0.4],
            "hi": [0.2, 0.6],
            "gain": [0.4, 0.0],
            "gain_lo": [0.3, 0.0],
            "gain_hi": [0.5, 0.0],
        }
    )
    axes = plots.evaluation.traps([table, table], SOURCE)
    assert len(axes) == 2
    assert [bar.get_height() for bar in axes[0].patches] == [0.1, 0.5]
    assert axes[1].get_title() == "false gain 0.40 eV (0.30 to 0.50)"
    assert SOURCE in axes[0].get_ylabel()
    assert "eV" in axes[0].get_ylabel()


def test_equal_crystals_name_the_largest_difference():
    table = pd.DataFrame(
        {
            "uid": ["a", "b"] * 2,
            "change": ["rotated"] * 2 + ["translated"] * 2,
            "difference": [0.0, 2e-6, -3e-5, 0.7],
            "ambiguous": [False, True] * 2,
        }
    )
    ax = plots.evaluation.equal_crystals(table)
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["rotated\nlargest in blue 0 eV", "translated\nlargest in blue 3e-05 eV"]
    assert "eV" in ax.get_xlabel()
    left, right = ax.get_xlim()
    assert (left, right) == (1e-6, 1.0)
    assert not any(tick.get_text() for tick in ax.get_xticklabels(minor=True))


def test_equal_crystals_without_any_difference_still_have_an_axis():
    table = pd.DataFrame(
        {"uid": ["a", "b"], "change": ["rotated", "moved"], "difference": 0.0, "ambiguous": True}
    )
    ax = plots.evaluation.equal_crystals(table)
    assert len(ax.get_yticklabels()) == 2
    assert np.isfinite(ax.get_xlim()).all()


def test_displacement_marks_where_neighbours_change():
    x = np.linspace(0, 1, 5)
    table = pd.DataFrame(
        {"displacement": x, "eform": x, "slope": 1.0, "curvature": 0, "neighbours": [3, 3, 2, 2, 1]}
    )
    axes = plots.evaluation.displacement(table, 4.0, SOURCE)
    assert [one.get_xdata()[0] for one in axes[0].lines[:2]] == [0.5, 1.0]
    assert legend(axes[0]) == ["an atom crosses the cutoff of 4 Å"]
    assert SOURCE in axes[0].get_ylabel()


def test_dopant_series_has_a_panel_a_place():
    table = pd.DataFrame(
        {
            "place": ["Mo of MoS2"] * 2 + ["Sn of SnS2"] * 2,
            "dopant": ["Ti", "Fe", "V", "Fe"],
            "eform": [1.0, 2.0, 3.0, 4.0],
            "eform_pred": 2.5,
        }
    )
    axes = plots.evaluation.dopant_series(table, SOURCE)
    assert [ax.get_title() for ax in axes[0]] == ["Mo of MoS2", "Sn of SnS2"]
    assert [tick.get_text() for tick in axes[0, 0].get_xticklabels()] == ["Ti", "V", "Fe"]
    assert axes[0, 1].lines[0].get_xdata().tolist() == [1, 2]
    assert legend(axes[0, 0].figure) == [f"computed, {SOURCE}", "predicted"]
