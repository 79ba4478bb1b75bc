"""Why predictions fail: every rule on a row made for it, and what the rules explain."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase.build import mx2

from defectkit.data.dataset import Dataset
from defectkit.evaluation.breakdown import (
    NO_REASON,
    RULES,
    Training,
    reasons,
    relaxation,
    rule_errors,
    worst,
)
from defectkit.structures.record import DefectRecord

HOST = mx2("MoS2", vacuum=8.0, size=(3, 3, 1))


def record(uid: str, dopant: str = "Cu", eform: float = 1.0, moved: float = 0.0, **fields):
    atoms = HOST.copy()
    atoms.append(dopant)
    atoms.positions[-1] = HOST[0].position + [0, 0, 3.2]
    start = atoms.positions.copy()
    start[-1, 2] += moved
    return DefectRecord(
        uid=uid,
        atoms=atoms,
        host="MoS2",
        label_source="made up",
        dopant=dopant,
        eform=eform,
        spin=0.0,
        unrelaxed=start,
        **fields,
    )


@pytest.fixture
def training():
    known = [record(f"t{k}", "Cu", 1.0 + 0.01 * k, 0.01 * k) for k in range(40)]
    known += [record(f"a{k}", "Ag", 2.0) for k in range(40)] + [record("rare", "Au", 1.5)]
    asked = [
        record("usual", "Cu", 1.2),
        record("high", "Cu", 9.0),
        record("moved", "Cu", 1.2, 3.0),
        record("new", "Pt", 1.2),
        record("gold", "Au", 1.5),
        replace(record("magnet", "Cu", 1.2), spin=3.0),
        record("unknown", "Cu", np.nan),
    ]
    data = Dataset("made", "made up", known + asked, {"MoS2": HOST})
    return Training(data, [r.uid for r in known])


def test_every_rule_finds_its_row_and_no_other(training):
    uids = ["usual", "high", "moved", "new", "gold", "magnet", "unknown"]
    table = reasons(uids, training)
    assert list(table) == list(RULES)
    found = {uid: set(table.columns[table.loc[uid] != ""]) for uid in uids}
    assert found == {
        "usual": set(),
        "high": {"extreme energy", "unlike its pair"},
        "moved": {"large relaxation"},
        "new": {"rare dopant", "unseen pair"},
        "gold": {"rare dopant"},
        "magnet": {"magnetic"},
        "unknown": set(),
    }
    assert "1 training rows, where others have 40" in table.loc["gold", "rare dopant"]
    assert (
        "40 training rows with Cu in MoS2 lie between 1.0 and 1.4 eV"
        in (table.loc["high", "unlike its pair"])
    )
    assert "moved 3.0 Å" in table.loc["moved", "large relaxation"]


def test_a_rebuilt_layer_is_ambiguous(training):
    broken = record("broken")
    broken.atoms.positions[:12] += np.random.default_rng(0).normal(0, 1.5, (12, 3))
    data = replace(training.dataset, records=[*training.dataset.records, broken])
    table = reasons(["broken"], Training(data, training.frame.index))
    assert table.loc["broken", "ambiguous"]


def test_relaxation_knows_periodicity_and_shifts():
    one = record("a", moved=0.7)
    assert relaxation(one) == pytest.approx(0.7)
    one.atoms.positions += [0.3, 0.0, 0.2]  # the layer as a whole
    assert relaxation(one) == pytest.approx(0.7)
    one.atoms.wrap()
    one.atoms.positions += one.atoms.cell[0]
    assert relaxation(one) == pytest.approx(0.7)
    assert np.isnan(relaxation(replace(one, unrelaxed=None)))


@pytest.fixture
def sentences():
    table = pd.DataFrame("", list("abcd"), list(RULES))
    table.loc["a", "extreme energy"] = "it is extreme"
    table.loc[["a", "b"], "magnetic"] = "it is magnetic"
    return table


def test_rules_are_weighed_by_what_they_explain(sentences):
    errors = pd.Series([-4.0, 1.0, 1.0, 3.0], list("abcd"))
    table = rule_errors(errors, sentences)
    assert list(table.index[:2]) == ["extreme energy", "magnetic"]
    assert table.loc["extreme energy", ["n", "mae", "ratio"]].tolist() == [
        1,
        4.0,
        pytest.approx(4.0 / (5 / 3)),
    ]
    assert table.loc["magnetic", ["mae", "mae_else"]].tolist() == [2.5, 2.0]
    assert np.isnan(table.loc["ambiguous", "mae"])


def test_the_worst_rows_with_the_strongest_reasons_first(sentences):
    rows = pd.DataFrame({"error": [-4.0, 1.0, 0.5, 3.0]}, list("abcd"))
    table = worst(rows, sentences, n=3)
    assert table.reason.to_dict() == {
        "a": "it is extreme; it is magnetic",
        "d": NO_REASON,
        "b": "it is magnetic",
    }
    assert worst(rows, sentences, n=1, most=1).reason.tolist() == ["it is extreme"]
