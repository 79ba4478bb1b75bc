"""The out-of-domain guard and its two signs, by hand and against the model's own heads."""

import numpy as np
import pandas as pd
import pytest
import torch
from ase.build import mx2

from defectkit import DefectkitError
from defectkit.evaluation.coverage import guard_table
from defectkit.graphs import GraphConfig, GraphDataset, build_graph
from defectkit.graphs.elements import feature_table
from defectkit.models import MODELS, build_model
from defectkit.models.parts import SiteHeads
from defectkit.predict.domain import Guard, Nearness, composition_vectors, predict_with_vectors
from defectkit.training.inference import predict


@pytest.mark.parametrize("name", MODELS)
def test_heads_read_the_latent_vector_of_every_model(name):
    sites = GraphConfig(nodes="defects", image_radius=9.0, angle_cutoff=None)
    config = sites if name == "sites" else GraphConfig()
    graphs = []
    for number, dopant in enumerate(("Cu", "Ag", "Au")):
        host = mx2("MoS2", vacuum=8.0)
        atoms = host.repeat((2, 2, 1))
        atoms.append(dopant)
        atoms.positions[-1] = atoms.positions[0] + [0, 0, 3.2]
        graph = build_graph(atoms, config, host if name == "sites" else None)
        graph.uid = str(number)
        graphs.append(graph)
    graphs = GraphDataset.from_graphs(graphs)
    torch.manual_seed(0)
    features = torch.tensor(feature_table(("onehot",)).values, dtype=torch.float32)
    model = build_model(name, features, config).train()
    predicted, vectors = predict_with_vectors(model, graphs, [2, 0, 1])
    assert model.training  # as it was
    assert not model.heads._forward_pre_hooks
    assert list(vectors.index) == ["2", "0", "1"]
    heads, x = model.heads, torch.tensor(vectors.to_numpy())
    if isinstance(heads, SiteHeads):  # its moments need the nodes as well
        eform = heads.eform_mean + heads.eform_scale * heads.map(x)[:, 0]
    else:
        eform = heads(x).eform
    expected = predict(model, graphs, [2, 0, 1])
    assert eform.tolist() == pytest.approx(expected.eform.tolist(), abs=1e-5)
    pd.testing.assert_frame_equal(predicted, expected)


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["formula", "dopant", "removed"])


def test_composition_tells_chemical_likeness():
    table = frame(
        ("MoS2", "Co", "S"),
        ("MoS2", "Ni", "S"),
        ("MoS2", "Cs", "S"),
        ("WS2", "Co", "S"),
        ("P4", "Co", "P"),
        ("MoS2", "", "Mo"),
        ("MoS2", "Co", "S"),
        ("MoS2", "Li,Na", ""),
    )
    vectors = composition_vectors(table).to_numpy()
    assert np.isfinite(vectors).all()
    to_first = np.linalg.norm(vectors - vectors[0], axis=1)
    assert to_first[6] == 0
    assert to_first[1] < to_first[2]  # cobalt is more like nickel than like caesium
    assert to_first[3] < to_first[4]  # and tungsten sulphide like the molybdenum one
    both = composition_vectors(frame(("MoS2", "Li", ""), ("MoS2", "Na", ""))).to_numpy()
    assert np.allclose(vectors[7][:-2], both.mean(axis=0)[:-2])
    assert vectors[7][-2:].tolist() == [2, 0]


def test_hosts_must_be_formulas():
    with pytest.raises(DefectkitError, match="my layer"):
        composition_vectors(frame(("my layer", "Co", "")))


def test_nearness_by_hand():
    line = pd.DataFrame({"x": np.arange(10.0), "same": 1.0})
    nearness = Nearness(line, k=1)
    asked = pd.DataFrame({"x": [3.0, 3.5, 12.0], "same": 1.0}, list("abc"))
    assert nearness(asked).to_dict() == pytest.approx({"a": 0.0, "b": 0.5, "c": 3.0})
    assert Nearness(line, k=2)(asked)["c"] == pytest.approx(3.5)
    with pytest.raises(DefectkitError, match="too few"):
        Nearness(line, k=10)


@pytest.fixture
def signs():
    return pd.DataFrame(
        {"spread": [0.1, 0.9, 0.1, 0.9], "latent": [1.0, 1.0, 3.0, 3.0], "composition": 1.0},
        list("abcd"),
    )


def test_verdicts_and_their_sentences(signs):
    guard = Guard(0.5, {"latent": 2.0, "composition": 2.0})
    table = guard.verdict(signs)
    assert table.verdict.tolist() == ["inside", "spread", "unlike", "both"]
    assert "similar defects" in table.sentence["a"]
    assert "0.90 eV" in table.sentence["b"]
    assert "0.50 eV" in table.sentence["b"]
    assert "nothing similar in latent" in table.sentence["c"]
    assert "do not rely" in table.sentence["d"]
    assert " and the training set" in table.sentence["d"]


def test_a_large_error_to_expect_is_a_reason_of_its_own(signs):
    guard = Guard(5.0, {"latent": 5.0, "composition": 5.0}, expected=0.4)
    table = guard.verdict(signs.assign(expected=[0.1, 0.9, 0.1, 0.3]))
    assert table.verdict.tolist() == ["inside", "spread", "inside", "inside"]
    assert "n error of 0.90 eV is usual" in table.sentence["b"]
    assert "less than 0.40 eV" in table.sentence["b"]
    assert "disagree" not in table.sentence["b"]
    rng = np.random.default_rng(0)
    many = pd.DataFrame(rng.random((1000, 3)), columns=["spread", "latent", "expected"])
    verdicts = Guard.fit(many).verdict(many).verdict
    assert (verdicts != "inside").mean() == pytest.approx(0.13 + 0.02, abs=0.01)


def test_thresholds_flag_their_share_of_validation_rows():
    rng = np.random.default_rng(0)
    signs = pd.DataFrame({"spread": rng.random(400), "latent": rng.random(400)})
    verdicts = Guard.fit(signs, 0.9).verdict(signs).verdict
    assert verdicts.isin(["spread", "both"]).mean() == pytest.approx(0.1)
    assert verdicts.isin(["unlike", "both"]).mean() == pytest.approx(0.1)


def test_guard_table_by_hand():
    verdicts = pd.Series(["inside"] * 38 + ["both", "spread"])
    errors = pd.Series([0.1] * 38 + [-5.0, 7.0])
    table = guard_table(verdicts, errors)
    assert table.n.tolist() == [38, 1, 0, 1]
    assert table.mae["inside"] == pytest.approx(0.1)
    assert table.caught.tolist() == [0, 0.5, 0, 0.5]
