"""Benchmarks of screening on a few candidates, and the page and table that are made of them."""

import numpy as np
import pandas as pd
import pytest

from defectkit.bench import readme, screen
from defectkit.bench.measure import OUTPUT
from defectkit.data.readers import load


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


def test_strategies_stand_in_the_order_of_their_errors():
    curves = pd.read_csv(OUTPUT / "choice.csv")
    lines = readme.choice_table(curves).splitlines()[2:]
    assert lines[0].split("|")[1].strip() == "unlike"
    assert len(lines) == curves.strategy.nunique()
