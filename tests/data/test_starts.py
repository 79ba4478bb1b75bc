"""Rows that start where no recipe puts them."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
from ase.db import connect
from ase.neighborlist import neighbor_list

from defectkit import DefectkitError
from defectkit.bench.starts import starts, summary
from defectkit.data import demo, load
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.data.starts import KINDS, STARTS, RandomStarts
from defectkit.structures.defects import make_defect
from defectkit.structures.hosts import HOSTS, supercell_size

RANDOM = RandomStarts(CHECKOUT_DATA / "demo2d.db")
HOST_NAMES = ("MoS2", "SnS2", "P4", "Si2")


@pytest.fixture(scope="module")
def hosts():
    units = {name: HOSTS[name].unit_cell() for name in HOST_NAMES}
    return {n: demo.HostReference(u, supercell_size(u), -1.0, 1) for n, u in units.items()}


def test_starts_are_seeded_and_take_turns(hosts):
    first = list(islice(RANDOM.candidates(hosts, 0), 64))
    again = list(islice(RANDOM.candidates(hosts, 0), 64))
    assert first == again != list(islice(RANDOM.candidates(hosts, 1), 64))
    assert len({c.name for c in first}) == 64
    assert {c.host for c in first} == set(HOST_NAMES)
    assert {c.site.kind for c in first} == set(KINDS)
    for one in first:
        assert any(one.shift) == (one.site.kind == "substitution")
        assert not one.strain


def test_an_added_atom_touches_the_layer_and_is_in_none_of_its_atoms(hosts):
    added = [c for c in islice(RANDOM.candidates(hosts, 0), 80) if c.site.point is not None]
    points = []
    for one in added:
        atoms = make_defect(
            hosts[one.host].unit, hosts[one.host].repeat, one.site, one.dopant
        ).atoms
        i, distance = neighbor_list("id", atoms, 6.0)
        nearest = distance[i == len(atoms) - 1].min()
        assert 0.8 < nearest < 5.0, one.name
        points.append(one.site.point)
    assert np.ptp([z for *_, z in points]) > 2.0


def test_the_references_of_another_database_are_taken(tmp_path):
    with pytest.raises(DefectkitError, match="is not there"):
        demo.build(tmp_path / "new.db", 1, other=RandomStarts(tmp_path / "none.db"))


def test_the_shipped_rows_start_elsewhere_than_the_demo_rows():
    random, whole = load("demo", STARTS), load("demo")
    assert len(random) == 300
    assert random.label_source == whole.label_source
    assert not {r.name for r in random.records} & {r.name for r in whole.records}
    assert connect(STARTS).metadata["hosts"] == whole_metadata()["hosts"]
    kept = starts()
    assert 0.8 < len(kept) / len(random) <= 1
    away = [np.linalg.norm(record.displacements(), axis=1).max() for record in kept.records]
    assert np.median(away) > 0.5


def whole_metadata() -> dict:
    return connect(CHECKOUT_DATA / "demo2d.db").metadata


def test_the_numbers_of_a_table_by_hand():
    judged = pd.DataFrame(
        {
            "label": np.zeros(10),
            "eform_lo": [-1.0] * 9 + [0.5],
            "eform_hi": 1.0,
            "error": [0.1] * 8 + [1.0, np.nan],
            "verdict": ["inside"] * 7 + ["unlike", "both", "unread"],
        }
    )
    found = summary(judged, 0)
    assert (found["n"], found["unread"]) == (10, 1)
    assert found["eform_mae"] == pytest.approx(1.8 / 9, abs=1e-4)
    assert (found["coverage"], found["caught"]) == (1.0, 1.0)
    assert found["flagged"] == pytest.approx(2 / 9, abs=1e-4)
