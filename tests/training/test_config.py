import pytest
import yaml

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.training.config import (
    ModelConfig,
    RunConfig,
    TuneConfig,
    load_config,
    save_config,
    with_values,
)

CONFIG = RunConfig(ModelConfig("cgcnn", {"hidden": 8}), graph=GraphConfig(angle_cutoff=None))


def test_a_configuration_comes_back_from_its_file(tmp_path):
    save_config(CONFIG, tmp_path / "run.yaml")
    assert load_config(tmp_path / "run.yaml") == CONFIG
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["model"]["name"] == "cgcnn"


def test_values_are_changed_by_dotted_name():
    changed = with_values(
        CONFIG, ["epochs=3", "optimiser.lr=1e-2", "model.settings.layers=2", "data.split.fold=1"]
    )
    assert (changed.epochs, changed.optimiser.lr, changed.data.split.fold) == (3, 0.01, 1)
    assert changed.model.settings == {"hidden": 8, "layers": 2}
    assert changed.graph == CONFIG.graph
    assert CONFIG.epochs == RunConfig(CONFIG.model).epochs  # the first one is as it was


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("epoch=3", "epoch"),
        ("epochs=-1", "epochs"),
        ("epochs=many", "epochs"),
        ("optimiser.name=lion", "optimiser.name"),
        ("optimiser.rate=1", "optimiser.rate"),
        ("graph.cutof=4", "graph.cutof"),
        ("graph.cutoff=-4", "cutoff"),
        ("epochs.more=3", "epochs.more"),
        ("epochs", "name=value"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, named):
    with pytest.raises(DefectkitError, match=named):
        with_values(CONFIG, [change])


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    with pytest.raises(DefectkitError, match=r"broken\.yaml"):
        load_config(path)
    path.write_text("model: [unclosed")
    with pytest.raises(DefectkitError, match=r"broken\.yaml"):
        load_config(path)
    path.write_text("")
    with pytest.raises(DefectkitError, match=r"broken\.yaml"):
        load_config(path)


def test_a_search_is_a_configuration_of_its_own(tmp_path):
    path = tmp_path / "tune.yaml"
    path.write_text(
        "run: {model: {name: cgcnn}}\n"
        "search: {optimiser.lr: {low: 1e-4, high: 1e-2, log: true}, batch_size: {choices: [8, 16]}}"
    )
    config = load_config(path, TuneConfig)
    assert config.search["optimiser.lr"].low == 1e-4
    assert config.search["batch_size"].choices == (8, 16)
    assert config.run.model.name == "cgcnn"
