"""Corpora of formulas: made up, from libraries, from a file."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from ase.data import atomic_numbers
from pymatgen.core import Element

from defectkit import DefectkitError
from defectkit.data.formulas import (
    LONGEST,
    MOST,
    corpus_of,
    from_libraries,
    groups,
    invented,
    library_texts,
    named,
    read_formulas,
)

ROWS = 3000


@pytest.fixture(scope="module")
def made():
    return invented(ROWS, seed=0)


def written(corpus, row):
    return "".join(corpus.sentence(row))


def test_made_up_formulas_are_many_different_and_the_same_for_a_seed(made):
    texts = [written(made, row) for row in range(ROWS)]
    assert len(set(texts)) == ROWS
    again, other = invented(ROWS, seed=0), invented(ROWS, seed=1)
    assert (again.z == made.z).all()
    assert (again.amount == made.amount).all()
    assert not (other.z == made.z).all()
    assert set((made.z > 0).sum(axis=1)) == {2, 3, 4}


def test_made_up_formulas_balance_charges_of_common_states_and_order_electronegativity(made):
    for row in range(0, ROWS, 10):
        elements = [Element.from_Z(int(z)) for z in made.z[row] if z]
        amounts = made.amount[row][made.z[row] > 0]
        allowed = [
            states
            for states in product(*(e.common_oxidation_states for e in elements))
            if np.dot(states, amounts) == 0
            and all(states)
            and max(e.X for e, q in zip(elements, states) if q > 0)
            < min(e.X for e, q in zip(elements, states) if q < 0)
        ]
        assert allowed, written(made, row)
        assert [e.X for e in elements] == sorted(e.X for e in elements)
        assert amounts.max() <= MOST
        assert np.gcd.reduce(amounts) == 1


def test_no_made_up_formula_has_an_element_without_a_stable_isotope(made):
    assert not set(np.unique(made.z)) & {0 + z for z in (43, 61, *range(84, 119))}


def test_libraries_give_what_they_ship_and_each_formula_once():
    texts = library_texts()
    assert all(len(some) > 100 for some in texts.values())
    corpus = from_libraries()
    rows = {tuple(z) + tuple(n) for z, n in zip(corpus.z, corpus.amount)}
    assert len(rows) == len(corpus) > 30_000
    assert corpus.z.shape[1] <= LONGEST
    assert {z for z in np.unique(corpus.z) if z} > {atomic_numbers[x] for x in ("Mo", "S", "U")}


def test_texts_become_sets_of_elements_with_whole_amounts():
    corpus = corpus_of(["S4Mo2", "MoS2", "Na0.5Cl0.5", "Ca(OH)2", "Fe0.95O", "O2", "Zz3", ""])
    assert [written(corpus, row) for row in range(len(corpus))] == ["MoS2", "CaH2O2"]
    assert corpus.skipped == 5


def test_parts_of_a_corpus_are_disjoint_and_the_same_for_a_seed(made):
    train, valid = made.parts(0.1, seed=0)
    assert (len(train), len(valid)) == (ROWS - ROWS // 10, ROWS // 10)
    rows = [{(*z, *n) for z, n in zip(part.z, part.amount)} for part in (train, valid)]
    assert not rows[0] & rows[1]
    assert (made.parts(0.1, seed=0)[1].z == valid.z).all()


@pytest.mark.parametrize("column", ["formula", "formula_pretty", "composition"])
def test_a_file_of_formulas_is_read_and_its_bad_rows_counted(tmp_path, column):
    path = tmp_path / "export.csv"
    pd.DataFrame({"id": range(4), column: ["NaCl", "GaAs", "no formula", None]}).to_csv(path)
    corpus = read_formulas(path)
    assert [written(corpus, row) for row in (0, 1)] == ["NaCl", "GaAs"]
    assert corpus.skipped == 1
    assert len(named(str(path), rows=1)) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,energy\nNaCl,1\n", "no column 'formula'; its columns are name, energy"),
        (b"formula\n?\n", "holds 0 different formulas"),
        (b"", "no CSV table that can be read"),
        (b"\xff\xfe\x00\x01", "no CSV table that can be read"),
        (None, "There is no file"),
    ],
)
def test_a_bad_file_is_one_clear_sentence(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DefectkitError, match=words) as fault:
        read_formulas(path)
    assert "\n" not in str(fault.value)


def test_more_rows_than_there_are_is_said(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("formula\nNaCl\nGaAs\n")
    with pytest.raises(DefectkitError, match="holds 2 formulas"):
        named(str(path), rows=3)


def test_groups_are_those_of_the_periodic_table():
    known = {"H": 1, "Na": 1, "Mo": 6, "S": 16, "Cl": 17, "Ce": 3, "Zn": 12, "He": 18}
    assert {x: groups()[atomic_numbers[x]] for x in known} == known
    assert groups()[0] == 0
