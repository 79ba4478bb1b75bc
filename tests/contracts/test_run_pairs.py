"""Every two settings of a run, together: either one sentence, or a model that keeps its word.

A run that is not refused trains, and what is read back from its folder gives the predictions that
lie beside it.
"""

from dataclasses import replace

import numpy as np
import pytest
from pairs import covering_rows, every_pair
from run_cases import CGCNN

from defectkit import DefectkitError
from defectkit.models.tabular.models import TABULAR
from defectkit.training import prepared
from defectkit.training.config import RunConfig, with_values
from defectkit.training.inference import load_model, predict
from defectkit.training.prepared import Prepared, fit_table, graphs_of, training_rows
from defectkit.training.run import Run
from defectkit.training.train import train

NETWORKS = {
    "cgcnn": {"hidden": 8, "layers": 1, "radial": 8, "readout": 8},
    "alignn": {
        "hidden": 8,
        "alignn_layers": 1,
        "gcn_layers": 1,
        "radial": 8,
        "angular": 8,
        "embedding": 8,
    },
    "matformer": {"hidden": 8, "layers": 1, "heads": 2, "radial": 8},
    "hybrid": {
        "hidden": 8,
        "attention_heads": 2,
        "radial": 8,
        "angular_cutoff": 3.0,
        "dropout": 0.2,
    },
}
SETTINGS = NETWORKS | {"ridge": {}, "lightgbm": {"n_estimators": 5}}
START_DIFFERS = {
    "graph.cutoff": 4.5,
    "graph.neighbours": 8,
    "graph.virtual_nodes": False,
    "graph.all_pairs": False,
    "graph.angle_cutoff": 3.2,
    "features": ("onehot",),
}  # by each of these from the model that `start` names
FACTORS = {  # the first value fits all others
    "model.name": ("cgcnn", "hybrid", "matformer", "alignn", "ridge", "lightgbm"),
    "start": (None, "same"),
    "graph.positions": ("relaxed", "unrelaxed"),
    "augment": (
        (),
        ("strain",),
        ("noise",),
        ("pad",),
        ("partly-relaxed",),
        ("elastic",),
        ("pad", "strain", "noise"),
    ),
    "also_unrelaxed": (False, True),
    "graph.cutoff": (4.0, 4.5),
    "graph.neighbours": (None, 8),
    "graph.virtual_nodes": (True, False),
    "graph.all_pairs": (True, False),
    "graph.angle_cutoff": (3.0, 3.2),
    "features": (("elemental",), ("onehot",)),
    "optimiser.name": ("adamw", "sgd", "adam", "muon"),
    "schedule.name": ("cosine", "constant", "piecewise", "plateau"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
    "ema": (0.99, None),
    "patience": (None, 1),
    "accumulate": (1, 2),
    "batch_size": (5, 1),
    "loss.range": (0.0, 1.0),
    "data.train_rows": (None, 9),
}
BLIND = ("noise", "partly-relaxed", "elastic")  # they move relaxed atoms


def fits(row: dict) -> bool:
    """Whether a run of these values should train, by what the documentation says."""
    model, augment = row.get("model.name"), row.get("augment") or ()
    unrelaxed = row.get("graph.positions") == "unrelaxed"
    if model in TABULAR and (row.get("start") or augment or row.get("also_unrelaxed")):
        return False
    if row.get("also_unrelaxed") and unrelaxed:
        return False
    if set(augment) & set(BLIND) and (unrelaxed or row.get("also_unrelaxed")):
        return False
    if row.get("start") and any(row.get(k, v) == v for k, v in START_DIFFERS.items() if k in row):
        return False
    return model != "hybrid" or not (
        row.get("graph.neighbours") or row.get("graph.all_pairs") is False
    )


ROWS = covering_rows(FACTORS, fits)
REFUSED = [dict(pair) for pair in every_pair(FACTORS) if not fits(dict(pair))]


@pytest.fixture(scope="module", autouse=True)
def _graphs_anew(own_cache):
    prepared.graphs_of.cache_clear()
    yield
    prepared.graphs_of.cache_clear()


@pytest.fixture(scope="module")
def few(few):
    assert len(few[1].train) > 9
    return few


@pytest.fixture(scope="module")
def starts(few, tmp_path_factory):
    """A trained folder for every network."""
    folder = tmp_path_factory.mktemp("starts")
    values = {name: choices[0] for name, choices in FACTORS.items()}
    for name in NETWORKS:
        train(
            Prepared(config_of(values | {"model.name": name}), *few), folder / name, progress=False
        )
    return folder


def config_of(row: dict, starts=None) -> RunConfig:
    full = {name: values[0] for name, values in FACTORS.items()} | row
    name = full.pop("model.name")
    full["model"] = {"name": name, "settings": SETTINGS[name]}
    if full["start"]:
        full["start"] = str(starts / name)
    return with_values(replace(CGCNN, epochs=1), full)


def test_every_pair_of_values_is_met():
    pairs = set(every_pair(FACTORS))
    met = {pair for pair in pairs for row in ROWS if all(row[k] == v for k, v in pair)}
    assert met == {pair for pair in pairs if fits(dict(pair))}
    assert len(pairs) > len(met) > 500
    assert len(ROWS) < 80


def test_what_should_train_keeps_its_word(few, starts, tmp_path):
    dataset, split = few
    for number, row in enumerate(ROWS):
        folder = tmp_path / str(number)
        train(Prepared(config_of(row, starts), dataset, split), folder, progress=False)
        run = Run(folder)
        kept = run.predictions
        if run.config.model.name in TABULAR:
            again = Prepared(run.config, dataset, split)
            learned = training_rows(run.config, split, run.summary["left_out"])
            again = fit_table(again, learned, 0).predict(again.table().loc[kept.index])
        else:
            model, card = load_model(folder)
            graphs = graphs_of(dataset, card.graph)
            again = predict(model, graphs, graphs.select(kept.index))
        for name in ("eform", "spin"):
            error = np.abs(again[name] - kept[f"{name}_pred"]).max()
            assert error < 1e-5, (row, name, error)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_what_cannot_be_is_one_sentence_that_names_both(row, few, starts, tmp_path, monkeypatch):
    def built(*args, **kwargs):
        raise AssertionError("graphs were built before the settings were judged")

    monkeypatch.setattr(prepared, "load_graphs", built)
    monkeypatch.setattr(prepared, "graphs_of", built)
    with pytest.raises(DefectkitError) as caught:
        train(Prepared(config_of(row, starts), *few), tmp_path / "run", progress=False)
    text = str(caught.value)
    assert "\n" not in text
    assert not (tmp_path / "run").exists()
    said = {value if name == "model.name" else name.split(".")[-1] for name, value in row.items()}
    for word in said - {"hybrid"}:  # its own sentences say what it reads
        assert word in text
