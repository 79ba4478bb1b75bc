"""Choices, their regret and recall, by hand and as properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.data.splits import SAME_ENERGY
from defectkit.evaluation.metrics import DOPANT, choices, regret, top_k


@pytest.fixture
def rows():
    """Cu in MoS2 at three sites, Ag at two, and what leaves no choice."""
    return pd.DataFrame(
        {
            "host": ["MoS2"] * 7 + ["SnS2"],
            "dopant": ["Cu", "Cu", "Cu", "Ag", "Ag", "Au", "", "Cu"],
            "strain": 0.0,
            "eform": [1.0, 2.0, 4.0, 0.5, 0.51, 3.0, -9.0, -5.0],
            "eform_pred": [2.5, 2.0, 5.0, 0.8, 0.7, 0.6, -9.0, -5.0],
        },
        pd.Index(list("abcdefgh"), name="uid"),
    )


def test_sites_by_hand(rows):
    table = choices(rows)
    assert list(table.index) == [("MoS2", "Ag", 0.0), ("MoS2", "Cu", 0.0)]
    copper = table.loc[("MoS2", "Cu", 0.0)]
    assert (copper.chosen, copper.best, copper.options, copper["rank"]) == ("b", "a", 3, 2)
    assert copper.regret == 1.0
    assert copper.chance == pytest.approx((0 + 1 + 3) / 3)
    silver = table.loc[("MoS2", "Ag", 0.0)]  # two sites that relax into one structure
    assert (silver.chosen, silver.best, silver["rank"], silver.ties) == ("e", "d", 1, 2)
    assert silver.regret == pytest.approx(0.01)


def test_dopants_are_judged_by_their_best_site(rows):
    table = choices(rows, DOPANT, "dopant")
    assert list(table.index) == [("MoS2", 0.0)]
    unit = table.iloc[0]
    assert (unit.chosen, unit.best, unit.options) == ("Au", "Ag", 3)
    assert unit.regret == pytest.approx(3.0 - 0.5)
    assert unit["rank"] == 2


def test_regret_of_the_truth_is_zero_and_its_recall_one(rows):
    table = choices(rows.assign(eform_pred=rows.eform))
    assert regret(table)["regret"] == 0
    assert regret(table)["right"] == 1
    assert (top_k(table, (1, 2)).recall == 1).all()


def test_recall_by_hand(rows):
    table = top_k(choices(rows), (1, 2, 3))
    assert table.units.tolist() == [2, 1, 0]
    assert table.recall[1] == 0.5
    assert table.recall[2] == 1.0
    assert table.chance[1] == pytest.approx((1 + 1 / 3) / 2)
    assert table.chance[2] == pytest.approx(2 / 3)


def test_groups_of_units_are_drawn_together(rows):
    table = choices(rows)
    assert np.isnan(regret(table, groups=pd.Series("MoS2", table.index))["lo"])
    two = regret(table, groups=pd.Series(["a", "b"], table.index))
    assert (two["lo"], two["hi"]) == pytest.approx((0.01, 1.0))


def test_nothing_to_choose(rows):
    with pytest.raises(DefectkitError, match="nothing to choose"):
        choices(rows[5:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 5))
def test_regret_is_never_negative_and_a_shared_error_costs_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "host": rng.choice(["A", "B"], 30),
            "dopant": rng.choice(["Cu", "Ag", "Au"], 30),
            "strain": 0.0,
            "eform": rng.normal(size=30),
            "eform_pred": rng.normal(size=30),
        }
    )
    table = choices(rows)
    assert (table.regret >= 0).all()
    assert (table["rank"] <= table.options).all()
    assert (table.regret[table["rank"] == 1] <= SAME_ENERGY + 1e-12).all()
    shifted = choices(rows.assign(eform_pred=rows.eform_pred + shift * (rows.host == "A")))
    assert shifted.regret.tolist() == pytest.approx(table.regret.tolist())
