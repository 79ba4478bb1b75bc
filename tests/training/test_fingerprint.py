"""The fingerprint of a data set: sensitive to all that decides, blind to the processor."""

import json

import numpy as np
import pytest
from ase import Atoms

from defectkit.data import Dataset, load
from defectkit.data.cleaning import clean
from defectkit.structures.record import DefectRecord
from defectkit.training.pretrained import CHECKPOINTS, LADDER
from defectkit.training.run import Run

HOST = Atoms("H", positions=[[0.1, 0, 0]], cell=[3, 3, 20], pbc=(1, 1, 0))


def dataset(hosts=None, families=None, **fields) -> Dataset:
    values = {"uid": "a", "atoms": HOST, "host": "H", "label_source": "test", "eform": 1.0}
    values |= {"dopant": "Li", "unrelaxed": HOST.positions}
    record = DefectRecord(**values | fields)
    return Dataset("test", record.label_source, [record], hosts or {"H": HOST}, families or {})


def changed(**values) -> Atoms:
    atoms = HOST.copy()
    for name, value in values.items():
        setattr(atoms, name, value)
    return atoms


def test_all_that_decides_graphs_labels_and_splits_is_seen():
    moved = changed(positions=HOST.positions + 0.001)
    found = [
        dataset(),
        dataset(atoms=moved),
        dataset(atoms=changed(cell=HOST.cell.array * 1.001)),
        dataset(atoms=changed(pbc=True)),
        dataset(atoms=changed(numbers=[3])),
        dataset(unrelaxed=moved.positions),
        dataset(unrelaxed=None),
        dataset(hosts={"H": moved}),
        dataset(hosts={"no": HOST}),
        dataset(families={"H": "AB2 (187)"}),
        dataset(site_magmoms=np.ones(1)),
        dataset(site_magmoms=np.zeros(1)),
        dataset(defect_positions=np.zeros((1, 3))),
        dataset(dopant="Na"),
        dataset(removed=("S", "S")),
        dataset(removed=("S",)),
        dataset(removed=("S,S",)),
        dataset(site="sub1"),
        dataset(defecttype="vacancy"),
        dataset(eform=1.0 + 1e-9),
        dataset(spin=1.0),
        dataset(spin=-1.0),
        dataset(label_source="another"),
    ]
    assert len({one.fingerprint for one in found}) == len(found)


def test_hosts_of_no_row_and_the_last_digit_are_not():
    expected = dataset().fingerprint
    assert dataset(hosts={"H": HOST, "not used": HOST}).fingerprint == expected
    for digit in (1e-14, -1e-14):
        near = changed(positions=HOST.positions + digit, cell=HOST.cell.array + digit)
        again = dataset(hosts={"H": near}, atoms=near, unrelaxed=near.positions)
        assert again.fingerprint == expected


@pytest.mark.parametrize("folder", [CHECKPOINTS, LADDER], ids=lambda path: path.name)
def test_shipped_runs_name_the_shipped_data(folder):
    expected = clean(load("demo")).dataset.fingerprint
    marks = [json.loads(path.read_text()) for path in sorted(folder.glob("*/run.json"))]
    assert len(marks) > 20
    assert {mark["data_fingerprint"] for mark in marks} == {expected}


def test_shipped_runs_on_other_data_hold_no_rows_of_these():
    for path in CHECKPOINTS.glob("*/summary.yaml"):
        run = Run(path.parent)
        if run.summary["data"] != "demo":
            names = {"model.safetensors", "model.yaml", "config.yaml", "summary.yaml"}
            assert {file.name for file in path.parent.iterdir()} == names
            assert run.config.data.path is None
