"""Measurements of learned vectors: what goes into them, and the tables that are shipped."""

import numpy as np
import pandas as pd
import pytest

from defectkit.bench import vectors as bench
from defectkit.bench.measure import BENCHES, REAL
from defectkit.data import load
from defectkit.evaluation.vectors import known_vectors
from defectkit.training.pretrained import benchmark, published_janus

NAMES = [name for name, (module, _) in BENCHES.items() if module == "vectors"]


def test_all_measurements_of_vectors_are_there():
    assert set(NAMES) == {"corpora", "vectors", "janus", "vectors_dopant", "vectors_hybrid",
                          "vectors_2dmd"}  # fmt: skip
    assert "vectors_2dmd" in REAL
    assert all(callable(getattr(bench, BENCHES[name][1])) for name in NAMES)


def test_elements_of_a_row_appear_as_their_vectors_alone():
    data = load("demo")
    uids = [
        data.frame.index[data.frame.defecttype == kind][0] for kind in ("substitution", "vacancy")
    ]
    some = data.subset(uids)
    table = known_vectors("random")
    features = bench.row_features(some, table)
    assert list(features.index) == uids
    scaled = (table - table.mean()) / table.std(ddof=0)
    row = some.frame.loc[uids[0]]
    added = features.loc[uids[0], [f"added {k}" for k in range(16)]]
    removed = features.loc[uids[0], [f"removed {k}" for k in range(16)]]
    assert np.allclose(added.astype(float), scaled.loc[row.dopant])
    assert np.allclose(removed.astype(float), scaled.loc[row.removed])
    vacancy = features.loc[uids[1], [f"added {k}" for k in range(16)]]
    assert (vacancy == 0).all()


def test_tables_to_compare_are_of_the_same_elements():
    tables = bench.tables(bench.COMPARED)
    rows = {tuple(table.index) for table in tables.values()}
    assert len(rows) == 1
    assert {x for f in published_janus().formula for x in ("I", "Cl", "Bi", "Mo")} <= set(*rows)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_tables_hold_what_notebooks_read(name):
    table = benchmark(name)
    assert len(table) > 1
    errors = [column for column in table if column.startswith("mae")]
    assert not table[errors].isna().any(axis=None)
    if "mae_lo" in table:
        assert table.mae.between(table.mae_lo, table.mae_hi).all()


def test_shipped_janus_errors_of_the_paper_follow_from_its_table():
    table, gaps = benchmark("janus"), published_janus()
    paper = table[table["where"] == "paper"].set_index(["model", "vectors"]).mae
    short = {model: key for key, model in bench.PUBLISHED_COLUMNS.items()}
    for (model, vectors), mae in paper.items():
        error = (gaps[f"{short[model]}_{vectors}"] - gaps.gap).abs().mean()
        assert mae == pytest.approx(error, abs=1e-4)


def test_shipped_tables_compare_the_same_rows():
    for name in ("vectors_dopant", "vectors_2dmd"):
        table = benchmark(name)
        assert table.n_test.nunique() == 1
        counted = table.groupby(["n_train", "model", "vectors"]).size()
        assert isinstance(counted, pd.Series)
        assert counted.min() >= 1
