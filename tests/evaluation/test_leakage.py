"""Copies on both sides of a split make errors small, and the honest protocols have none."""

import numpy as np
import pandas as pd
import pytest

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.data.splits import structure_groups
from defectkit.evaluation import leakage


@pytest.fixture(scope="module")
def rows():
    """All rows of a host in which many starts relax into one structure."""
    whole = load("demo")
    chosen = whole.frame[(whole.frame.host == "MoSSe") & whole.frame.converged]
    return whole.subset(chosen.index)


@pytest.fixture(scope="module")
def groups(rows):
    return structure_groups(rows)


def seen(monkeypatch, work) -> list[tuple[set[str], set[str]]]:
    """Uids that every model of `work` trains and is tested on, without training any."""
    calls = []

    class Model:
        def __init__(self, **settings):
            pass

        def fit(self, table, eform, spin):
            self.trained = set(table.index)
            assert spin.isna().all()
            return self

        def predict(self, table):
            calls.append((self.trained, set(table.index)))
            return pd.DataFrame({"eform": 0.0}, table.index)

    with monkeypatch.context() as patch:
        patch.setattr(leakage, "TabularModel", Model)
        work()
    return calls


def structures_of(uids, groups) -> set[str]:
    return {groups[uid.split(", copy")[0]] for uid in uids}


def test_augmenting_first_puts_copies_on_both_sides(rows, groups, monkeypatch):
    folds = seen(monkeypatch, lambda: leakage.augmentation_before_split(rows, n=25, copies=2))
    leaky, honest = folds[:5], folds[5:]
    assert len(honest) == 5
    for train, test in leaky:
        assert not train & test
        assert structures_of(train, groups) & structures_of(test, groups)
    for train, test in honest:
        assert not structures_of(train, groups) & structures_of(test, groups)
        assert all("copy" in uid for uid in train)
        assert not any("copy" in uid for uid in test)
    for protocol, number in ((leaky, 50), (honest, 25)):
        assert len(set.union(*(test for _, test in protocol))) == number  # each row once


def test_twins_are_on_both_sides_of_a_split_by_rows_alone(rows, groups, monkeypatch):
    folds = seen(monkeypatch, lambda: leakage.duplicates_in_split(rows, groups))
    shared = [structures_of(train, groups) & structures_of(test, groups) for train, test in folds]
    assert all(shared[:5])
    assert not any(shared[5:])
    tested = set.union(*(test for _, test in folds[5:]))
    assert tested == set(groups.index[groups.duplicated(keep=False)])


def test_copies_carry_the_label_and_not_the_structure_of_their_row(rows):
    record, rng = rows.records[0], np.random.default_rng(0)
    one, other = leakage.NOISE(record, rng), leakage.NOISE(record, rng)
    assert one.eform == other.eform == record.eform
    assert np.abs(one.atoms.positions - other.atoms.positions).max() > 1e-3
    assert np.abs(one.atoms.cell - other.atoms.cell).max() > 1e-4


@pytest.mark.parametrize("trap", ["augmentation", "duplicates"])
def test_the_leak_makes_the_error_smaller(trap, rows, groups):
    table = (
        leakage.augmentation_before_split(rows, n=60, copies=2)
        if trap == "augmentation"
        else leakage.duplicates_in_split(rows, groups)
    )
    leaky, honest = table.itertuples()
    assert leaky.lo < leaky.eform_mae < leaky.hi < honest.eform_mae
    assert leaky.gain == pytest.approx(honest.eform_mae - leaky.eform_mae)
    assert 0 < leaky.gain_lo < leaky.gain < leaky.gain_hi
    assert honest.gain == 0


def test_what_cannot_leak_is_refused(rows, groups):
    with pytest.raises(DefectkitError, match="at least two copies"):
        leakage.augmentation_before_split(rows, copies=1)
    with pytest.raises(DefectkitError, match=f"from 10 to {len(rows)} rows"):
        leakage.augmentation_before_split(rows, n=10_000)
    alone = groups.drop_duplicates().index[:20]
    with pytest.raises(DefectkitError, match="has 0 structures that occur more than once"):
        leakage.duplicates_in_split(rows.subset(alone), groups)
