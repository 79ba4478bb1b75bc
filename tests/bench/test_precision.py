"""The benchmark of precisions, on a tiny model that was never trained."""

import pandas as pd
import pytest
import torch
from crystals import defective, host
from model_cases import fresh_model

from defectkit.bench import speed
from defectkit.graphs import GraphConfig, GraphDataset, build_graph

CONFIG = GraphConfig(cutoff=4.0, angle_cutoff=None)


@pytest.fixture(scope="module")
def model():
    return fresh_model("hybrid", CONFIG)


@pytest.fixture(scope="module")
def graphs():
    structures = [defective() for _ in range(4)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=number)
    built = [build_graph(atoms, CONFIG, host()) for atoms in structures]
    for number, graph in enumerate(built):
        graph.uid = f"row{number}"
    return GraphDataset.from_graphs(built)


def test_bytes_are_near_the_floats_and_leave_the_model_alone(model, graphs):
    together = graphs.batch(range(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        eform = model(together).eform
        bytes_eform = speed.quantised(model)(together).eform
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (bytes_eform != eform).any()
    assert torch.allclose(bytes_eform, eform, atol=0.2)


def test_every_precision_has_its_row(model, graphs, monkeypatch):
    monkeypatch.setattr(speed, "in_own_process", lambda work, *given: work(*given))
    labels = pd.DataFrame({"eform": [0.1, 0.5, 0.9, 1.0], "spin": 0.2}, graphs.uids)
    table = pd.DataFrame(speed.compare_precisions(model, graphs, labels)).set_index("precision")
    assert tuple(table.index) == speed.PRECISIONS
    assert (table.n_test == 4).all()
    assert table.loc["FP32", ["change", "change_lo", "change_hi"]].tolist() == [0, 0, 0]
    change = table.eform_mae - table.eform_mae["FP32"]
    assert change.tolist() == pytest.approx(table.change.tolist(), abs=2e-5)
    assert change["bf16"] != 0
    assert change.abs().max() < 0.2
    assert table.weights_kb["INT8"] < table.weights_kb["FP32"] == table.weights_kb["bf16"]
    assert (table[["infer_ms_b1", "infer_ms_b64", "peak_mb"]] > 0).all(axis=None)


def test_a_process_of_its_own_gives_the_same_answer(model, graphs):
    predicted, costs = speed.in_own_process(speed.measure_precision, model, graphs, "FP32")
    with torch.no_grad():
        expected = model(graphs.batch(range(4))).eform
    assert predicted.eform.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert costs["peak_mb"] > 100
