"""Benchmarks of screening on a few candidates, and the page and table that are made of them."""

import numpy as np
import pandas as pd
import pytest
from real_rows import some_rows

from defectkit.bench import measure, readme, screen
from defectkit.bench.measure import OUTPUT
from defectkit.data.readers import load
from defectkit.screening.choose import BEST, STRATEGIES


@pytest.fixture(scope="module")
def chunks():
    return screen.drawn(0, 6)


def test_drawn_candidates_are_no_rows_of_the_data(chunks):
    assert sum(map(len, chunks)) == 6
    rows = {}
    for record in load("demo").records:
        rows.setdefault((record.host, record.dopant or "X", len(record.atoms)), []).append(record)
    for chunk in chunks:
        for family in chunk.families:
            for dopant in family.dopants:
                atoms = family.defect(dopant).atoms
                for record in rows.get((family.host, dopant, len(atoms)), ()):
                    away = np.abs(atoms.positions - record.unrelaxed).max()
                    assert (
                        record.strain
                        or away > 1e-3
                        or (atoms.numbers != record.atoms.numbers).any()
                    )


def test_three_methods_are_compared_on_the_same_candidates(chunks, monkeypatch):
    def relaxed(candidate, host, mu):  # CHGNet's relaxation takes too long for a test
        return candidate, ({}, {"eform": float(len(candidate.name))}, {}), ""

    monkeypatch.setattr("defectkit.data.demo.try_row", relaxed)
    monkeypatch.setattr(screen, "drawn", lambda seed, count: chunks)
    monkeypatch.setattr(screen, "in_own_process", lambda work, *arguments: work(*arguments))
    table = pd.DataFrame(screen.screen_rows(0, 6, 4)).set_index("method")
    assert list(table.n_candidates) == [4, 6, 6]
    assert (table.candidates_per_s > 0).all()
    assert table.spearman_vs_relaxed["CHGNet relaxation"] == 1
    assert table.mae_vs_relaxed["CHGNet relaxation"] == 0
    assert table.top20_recall.between(0, 1).all()


def test_the_plan_counts_with_what_was_measured():
    table = pd.read_csv(OUTPUT / "scale.csv")
    page = readme.scale_page(table)
    value = table.set_index("what").value
    assert f"{value.candidates:,.0f} candidates of the hosts" in page
    assert "{" not in page
    twice = table.assign(value=table.value.where(table.what != "candidates_per_s", 2 * table.value))
    assert readme.scale_page(twice) != page


def test_of_those_that_choose_the_best_where_it_is_worst_is_used():
    curves = pd.read_csv(OUTPUT / "choice.csv")

    def names(curves):
        lines = readme.choice_table(curves).splitlines()[2:]
        return [line.split("|")[1].strip() for line in lines]

    assert next(name for name in names(curves) if name != "random") == BEST
    assert sorted(names(curves)) == sorted(curves.strategy.unique())
    worse = curves.assign(mae=curves.mae.where(curves.strategy != BEST, 2 * curves.mae))
    assert names(worse)[-1] == BEST


def test_rows_of_dft_are_replayed_and_say_whose_they_are(real_data, tmp_path, monkeypatch):
    folder = some_rows(real_data, tmp_path, {"high_MoS2": 60, "high_BN": 60, "low_WSe2": 20})
    for name, value in {"BATCH": 10, "ROUNDS": 3, "SEEDS": 2}.items():
        monkeypatch.setattr(screen, name, value)
    file = measure.run("choice_2dmd", output=tmp_path / "tables", path=folder)
    curves = pd.read_csv(file)
    assert set(curves.data) == {"2dmd"}
    assert curves.data_fingerprint.nunique() == 1
    assert len(curves) == len(STRATEGIES) * 2 * 4
    assert curves.mae.between(0, 10).all()
    assert str(folder) not in file.read_text()
    pool = load("2dmd", folder).frame.query("subset.str.startswith('high')").eform_per_site
    assert curves.mae.max() < 3 * pool.std()  # by site, and no row of low density


def test_methods_stand_by_speed_beside_relaxation():
    columns = "method n_candidates candidates_per_s spearman_vs_relaxed mae_vs_relaxed"
    columns = [*columns.split(), "top20_recall", "peak_mb"]
    rows = [["networks", 2000, 50.0, 0.9, 0.4, 0.8, 600], ["CHGNet relaxation", 9, 0.5, 1, 0, 1, 7]]
    slow, fast = readme.screen_table(pd.DataFrame(rows, columns=columns)).splitlines()[2:]
    assert "CHGNet relaxation" in slow
    assert "100%" in slow
    assert "| 2,000 " in " ".join(fast.split())
    assert " 100 | " in " ".join(fast.split())
