"""Tables of errors, checked by hand and against numpy."""

import numpy as np
import pandas as pd
import pytest

from defectkit.evaluation.breakdown import errors_by, ranges, size_slope


def test_errors_by_a_label_by_hand():
    errors = pd.Series([1.0, -3.0, 0.5, -0.5, 0.0])
    table = errors_by(errors, pd.Series(list("aabbb"), name="host"))
    assert list(table.index) == ["a", "b"]  # the worst first
    assert table.index.name == "host"
    assert table.loc["a", ["n", "mae", "bias", "worst"]].tolist() == [2, 2.0, -1.0, 3.0]
    assert table.loc["b", ["n", "bias", "worst"]].tolist() == [3, 0.0, 0.5]
    assert table.loc["b", "mae"] == pytest.approx(1 / 3)
    assert (table.mae_lo <= table.mae).all()
    assert (table.mae <= table.mae_hi).all()


def test_ranges_hold_equally_many_rows_and_keep_their_order():
    values = pd.Series(np.random.default_rng(0).normal(size=100), name="eform")
    label = ranges(values, "eV", 4)
    assert label.value_counts().tolist() == [25, 25, 25, 25]
    table = errors_by(values, label)
    assert list(table.index) == list(label.cat.categories)
    assert (np.diff(table.bias) > 0).all()
    low = values.sort_values().iloc[[0, 24]].to_numpy()
    assert label.cat.categories[0] == f"{low[0]:.1f} to {low[1]:.1f} eV"


def test_ranges_of_few_values():
    natoms = pd.Series([25] * 5 + [28] * 5 + [45])
    assert list(ranges(natoms, "atoms", 2).cat.categories) == ["25 to 28 atoms", "45 atoms"]
    assert list(ranges(natoms, "atoms", 3).cat.categories) == ["25 atoms", "28 atoms", "45 atoms"]


@pytest.fixture
def sizes():
    rng = np.random.default_rng(0)
    hosts = pd.Series(rng.integers(0, 12, 500))
    return hosts, 20 + 3 * hosts, rng.normal(size=12)[hosts] + 0.3 * rng.normal(size=500)


def test_slope_is_that_of_a_line(sizes):
    hosts, natoms, noise = sizes
    errors = pd.Series(0.1 * natoms + noise)
    found = size_slope(errors, natoms, hosts)
    slope, intercept = np.polyfit(natoms, errors, 1)
    assert found["slope"] == pytest.approx(slope)
    assert found["intercept"] == pytest.approx(intercept)
    assert found["lo"] < slope < found["hi"]


def test_hosts_drawn_together_are_less_sure_of_a_slope(sizes):
    hosts, natoms, noise = sizes
    by_row, by_host = (size_slope(pd.Series(noise), natoms, g) for g in (None, hosts))
    assert by_host["hi"] - by_host["lo"] > 2 * (by_row["hi"] - by_row["lo"])
    assert by_host["lo"] < 0 < by_host["hi"]


def test_no_slope_without_two_sizes():
    found = size_slope(pd.Series([0.1, 0.2]), pd.Series([28, 28]))
    assert np.isnan(found["slope"])
    assert found["n"] == 2
