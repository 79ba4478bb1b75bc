"""Exercises of notebooks 00 to 02 on data of a reader's own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from notebook_data import bare, first_only, write_folder

from defectkit import teach
from defectkit.data.folder import read_folder
from defectkit.teach import check

TERMS = {
    "en2": -90.0,
    "hostenergy": -95.0,
    "dopant_chemical_potential": -2.0,
    "removed_chemical_potential": -4.0,
}
ENERGY = -90.0 + 95.0 + 2.0 - 4.0


@pytest.fixture
def own(tmp_path, monkeypatch):
    data = read_folder(write_folder(tmp_path / "made_up"))
    monkeypatch.setattr(teach.checks, "_dataset", data)
    return data


def use(data, monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", data)
    return data


def test_a_formation_energy_is_asked_where_its_terms_are(own, monkeypatch):
    uid = own.records[0].uid
    verdict = check("00-2", (uid, np.nan))
    assert verdict.right
    assert "no row has all four terms" in verdict.message
    first = replace(own.records[0], eform=ENERGY, **TERMS)
    use(replace(own, records=[first, *own.records[1:]]), monkeypatch)
    assert check("00-2", (uid, ENERGY)).right
    assert not check("00-2", (uid, ENERGY + 0.1)).right
    assert "does not have all four" in check("00-2", (own.records[1].uid, 1.0)).message


def test_the_four_terms_decide_also_where_the_label_disagrees(own, monkeypatch):
    rows = [replace(r, eform=e, **TERMS) for r, e in zip(own.records, (ENERGY, ENERGY + 0.5))]
    use(replace(own, records=rows), monkeypatch)
    assert check("00-2", (rows[1].uid, ENERGY)).right


def test_exercises_with_nothing_to_ask_say_so_even_without_an_answer(tmp_path, monkeypatch):
    use(read_folder(bare(first_only(write_folder(tmp_path / "x")))), monkeypatch)
    for number, why in [
        ("01-2", "20 formation energies"),
        ("01-3", "no two energies"),
        ("01-4", "no row has a moment"),
        ("01-6", "no rule removes"),
    ]:
        verdict = check(number, ...)
        assert verdict.right
        assert why in verdict.message
    assert not check("01-1", ...).right


def test_answers_are_judged_by_the_readers_own_rows(own):
    spread = own.frame.groupby("host").eform.std()
    assert (own.frame.host.value_counts() >= 20).all()
    assert check("01-2", spread.idxmax()).right
    assert not check("01-2", spread.idxmin()).right


def test_an_energy_of_the_first_stage_knows_signs_and_gaps(own):
    def known(values):
        return values.replace(0, np.nan)

    assert check("01-5", lambda f: f.eform - known(f.en2) + known(f.en1)).right
    turned = check("01-5", lambda f: f.eform + known(f.en2) - known(f.en1))
    assert "two stages are swapped" in turned.message
    absolute = check("01-5", lambda f: f.eform - (known(f.en2) - known(f.en1)).abs())
    assert "no absolute value" in absolute.message
    half = check("01-5", lambda f: f.eform - (known(f.en2) - known(f.en1)) / 2)
    assert "climbs (eform 1.5, en1 -93, en2 -90) gives 0 and not -1.5" in half.message
    gaps = check("01-5", lambda f: f.eform - f.en2 + f.en1)
    assert "replace 0" in gaps.message
    assert "0 of en1" in check("01-5", lambda f: f.eform - known(f.en2) + f.en1).message
    assert (
        "not the old label"
        in check("01-5", lambda f: (f.eform - known(f.en2) + known(f.en1)).fillna(f.eform)).message
    )
    assert "shape (5,)" in check("01-5", lambda f: f.eform.mean()).message
    assert "answer with a function" in check("01-5", 0.84).message


def test_each_rule_that_removes_the_most_is_a_right_answer(own, monkeypatch):
    loose, wild = replace(own.records[0], eform=np.nan), replace(own.records[1], eform=30.0)
    use(replace(own, records=[loose, wild, *own.records[2:]]), monkeypatch)
    assert check("01-6", "missing_eform").right
    assert check("01-6", "eform_outlier").right
    assert not check("01-6", "detached_atom").right


def test_names_may_be_spelt_in_any_way_that_tells_rows_apart(own):
    def names(frame):
        return pd.DataFrame(
            {
                1: frame.site + "@" + frame.host,
                2: frame.removed + frame.host,
                3: frame.dopant.str.lower(),
            }
        )

    assert check("01-8", names).right
    assert (
        "by dopant"
        in check("01-8", lambda f: names(f).assign(**{"3": "x"}).drop(columns=3)).message
    )
    assert "3 columns" in check("01-8", lambda f: f[["host", "dopant"]]).message
    assert "keep the rows" in check("01-8", lambda f: names(f)[::-1]).message
    assert "answer with a function" in check("01-8", "host").message


def test_edges_are_counted_without_a_host_too(tmp_path, monkeypatch):
    data = use(read_folder(bare(write_folder(tmp_path / "x"))), monkeypatch)
    uid = data.records[0].uid
    assert "too low" in check("02-2", (uid, 1)).message
    assert "no row" in check("02-2", ("nothing", 1)).message
