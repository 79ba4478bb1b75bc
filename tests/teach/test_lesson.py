"""What notebooks say about data that lack something, and the row that stands in."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from notebook_data import hostless, without_energies, write_folder

from defectkit.data import load
from defectkit.data.folder import read_folder
from defectkit.teach import checks


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return read_folder(write_folder(tmp_path_factory.mktemp("own") / "made_up"))


def test_a_column_without_values_is_said_in_a_sentence(capsys):
    assert checks.has(pd.Series(["", "x"]), "sites")
    assert capsys.readouterr().out == ""
    assert not checks.has(pd.Series([np.nan, np.nan]), "moments")
    assert capsys.readouterr().out == "This data set has no moments: this step is passed over.\n"
    assert not checks.has(pd.Series([1.0, 1.0]), "energies", least=2)
    assert "fewer than 2 different energies" in capsys.readouterr().out


def test_an_example_is_one_of_the_rows_asked_for_in_a_small_cell(capsys):
    data = load("demo")
    rows = data.frame[data.frame.defecttype == "vacancy"]
    chosen = {checks.example(data, rows, "vacancy", seed).uid for seed in range(20)}
    assert len(chosen) > 1
    assert chosen <= set(rows.index[rows.natoms <= checks.EASY_TO_SEE])
    assert capsys.readouterr().out == ""


def test_another_row_stands_in_where_there_is_none(own, capsys):
    record = checks.example(own, own.frame[own.frame.defecttype == "adsorbate"], "adsorbate")
    assert record.uid in own.frame.index
    said = f"This data set has no adsorbate; {record.uid} stands in."
    assert capsys.readouterr().out.strip() == said


def test_without_an_energy_all_rows_are_used(tmp_path, capsys):
    data = read_folder(without_energies(write_folder(tmp_path / "x")))
    assert len(checks.clean_rows(data)) == len(data)
    assert "without energies" in capsys.readouterr().out
    checks.clean_rows(data, quiet=True)
    assert capsys.readouterr().out == ""


def test_where_the_rules_leave_nothing_rows_with_an_energy_are_used(own):
    energies = [50.0, np.nan, 60.0]
    rows = [replace(r, eform=e) for r, e in zip(own.records[:3], energies, strict=True)]
    kept = checks.clean_rows(replace(own, records=rows), quiet=True)
    assert [r.uid for r in kept.records] == [rows[0].uid, rows[2].uid]


def test_the_defect_of_a_row_without_host_stays_open(own, tmp_path, capsys):
    record = own[own.frame.index[own.frame.defecttype == "vacancy"][0]]
    atoms, vacancies = checks.defect_of(own, record)
    assert len(atoms) == 0
    assert vacancies.shape == (1, 3)
    without = read_folder(hostless(write_folder(tmp_path / "x")))
    atoms, vacancies = checks.defect_of(without, without.records[0])
    assert len(atoms) == 0 == len(vacancies)
    assert "its pristine host" in capsys.readouterr().out


def test_captions_name_chemistry_type_and_source(own):
    doped = own[own.frame.index[own.frame.dopant == "Te"][0]]
    assert (
        checks.caption(doped)
        == f"{doped.uid}: Te in {doped.host}, substitution ({doped.label_source})"
    )
    gap = own[own.frame.index[own.frame.defecttype == "vacancy"][0]]
    assert f"{gap.removed[0]} missing in {gap.host}, vacancy" in checks.caption(gap)
    unknown = replace(doped, dopant="", removed=(), host="", defecttype="")
    assert checks.caption(unknown) == f"{doped.uid} ({doped.label_source})"


def test_tables_show_whole_texts_on_the_left():
    long = "a meaning that is longer than fifty letters, which pandas alone would cut"
    html = checks.table(pd.DataFrame({"meaning": [long], "n": [1]})).to_html()
    assert long in html
    assert "text-align: left" in html
