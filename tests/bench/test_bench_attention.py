"""The table behind notebook 06: what ships is what the benchmark writes."""

import pytest

from defectkit import explain
from defectkit.bench import studies
from defectkit.training.pretrained import benchmark, shipped_run


@pytest.fixture(scope="module")
def table():
    return benchmark("attention")


def test_enough_structures_of_the_test_part(table):
    counts = table.groupby("model").uid.nunique()
    nulls = {"untrained", "without phi", "without psi", "without content"}
    assert set(counts.index) == {"trained"} | nulls
    assert (counts == studies.STRUCTURES).all()
    assert studies.STRUCTURES >= 200
    assert not table.duplicated(["model", "uid"]).any()


def test_predictions_are_those_of_the_shipped_run(table):
    trained = table[table.model == "trained"].set_index("uid")
    test = shipped_run(studies.MODEL).part("test")
    assert set(trained.index) <= set(test.index)
    known = test.loc[trained.index]
    assert (trained.predicted - known.eform_pred).abs().max() < 0.01
    assert (trained.label - known.eform).abs().max() < 0.001


def test_shares_and_correlations_are_possible(table):
    for name, rows in table.groupby("model"):
        for shares in explain.near(rows.set_index("uid")).values():
            assert shares.near.dropna().between(0, 1.002).all(), name
    rho = explain.correlations(table[table.model == "trained"].set_index("uid")).rho
    assert rho.dropna().between(-1, 1).all()
    assert rho.notna().mean() > 0.98
