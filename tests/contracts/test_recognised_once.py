"""The defect of a record is found once, whatever is done with the record afterwards."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from crystals import defective, host
from model_cases import fresh_model

from defectkit import DefectkitError
from defectkit.bench.report import picture
from defectkit.data import Dataset, load
from defectkit.evaluation.breakdown import RULES
from defectkit.graphs import GraphConfig, load_graphs
from defectkit.graphs.build import read_defect
from defectkit.predict import physics
from defectkit.predict.predictor import _Structure
from defectkit.structures import recognise as module
from defectkit.structures.files import write_structure
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord
from defectkit.structures.transforms import OrUnchanged, PadSupercell
from defectkit.teach.checks import defect_of

CONFIG = GraphConfig(cutoff=4.0, angle_cutoff=None)


@pytest.fixture
def count(monkeypatch) -> Counter:
    """How often each structure was matched to a host, by its positions."""
    calls = Counter()
    match = module._best_reading

    def counted(atoms: Atoms, pristine: Atoms):
        calls[atoms.positions.tobytes()] += 1
        return match(atoms, pristine)

    monkeypatch.setattr(module, "_best_reading", counted)
    return calls


def use(dataset: Dataset) -> None:
    """Everything that looks at the defects of a data set."""
    hosts = dataset.hosts
    load_graphs(dataset.records, hosts, CONFIG)
    load_graphs(dataset.records, hosts, replace(CONFIG, cutoff=3.5))
    training = SimpleNamespace(dataset=dataset)
    model = fresh_model("cgcnn", CONFIG)
    pad = OrUnchanged(PadSupercell(hosts, extra=(1, 1)))
    for record in dataset.records:
        RULES["ambiguous"](record, training)
        picture(record, dataset)
        defect_of(dataset, record)
        read_defect(record, hosts[record.host], CONFIG)
        pad(record, np.random.default_rng(0))
        _Structure.of(record, hosts, CONFIG)
        if record.defecttype == "substitution":
            physics.displacement_curve(model, CONFIG, record, hosts, np.array([-0.1, 0.0, 0.1]))


def test_demo_rows_are_recognised_once(count):
    demo = load("demo")
    frame = demo.frame[(demo.frame.natoms < 40) & demo.frame.converged]
    few = demo.subset(frame.groupby("defecttype").head(2).index)
    few.fingerprint  # noqa: B018
    assert not count
    use(few)
    relaxed = {record.atoms.positions.tobytes() for record in few.records}
    unrelaxed = {record.unrelaxed_atoms().positions.tobytes() for record in few.records}
    assert relaxed <= set(count) <= relaxed | unrelaxed
    assert set(count.values()) == {1}
    load_graphs(few.records, few.hosts, replace(CONFIG, positions="unrelaxed"))
    assert relaxed | unrelaxed == set(count)
    assert set(count.values()) == {1}


def test_a_folder_is_recognised_while_it_is_read(tmp_path, count):
    (tmp_path / "hosts").mkdir()
    write_structure(host(), tmp_path / "hosts" / "MoS2.vasp")
    write_structure(defective(), tmp_path / "one.vasp")
    (tmp_path / "targets.csv").write_text("file,host,eform\none.vasp,MoS2,1.0\n")
    own = load(tmp_path)
    assert list(count.values()) == [1]
    use(own)
    assert list(count.values()) == [1]


def test_a_changed_record_is_recognised_anew(count):
    record = DefectRecord("a", defective(), "MoS2", "nobody")
    first = recognised(record, host())
    assert recognised(record, host()) is first
    assert recognised(record, host().repeat((3, 1, 1))) is not first
    moved = replace(record, atoms=defective())
    moved.atoms.positions += 0.01
    assert not moved.recognitions
    assert recognised(moved, host()) is not first
    record.atoms.positions[0] += 0.02  # in place
    again = recognised(record, host())
    assert again.rms != first.rms
    assert sum(count.values()) == 4


def test_a_refusal_is_kept_too(count):
    record = DefectRecord("a", Atoms("Au", cell=host().cell, positions=[[0, 0, 8]]), "MoS2", "x")
    for _ in range(2):
        with pytest.raises(DefectkitError, match="check the host"):
            recognised(record, host())
    assert sum(count.values()) == 1


def test_a_prediction_leaves_nothing_with_the_record(count):
    record = DefectRecord("a", defective(), "MoS2", "nobody")
    _Structure.of(record, {"MoS2": host()}, CONFIG)
    assert not record.recognitions
    known = recognised(record, host())
    assert _Structure.of(record, {"MoS2": host()}, CONFIG).found is known
    assert sum(count.values()) == 2
