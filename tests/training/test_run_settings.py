"""What cannot be trained is said at once: before a graph is built, and without a folder."""

import numpy as np
import pandas as pd
import pytest
from run_cases import CGCNN, HYBRID
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.training import prepared
from defectkit.training.config import (
    RunConfig,
    StudyConfig,
    TuneConfig,
    load_config,
    save_config,
    with_values,
)
from defectkit.training.prepared import check_config, check_rows
from defectkit.training.pretrained import CONFIGS

WRONG = [
    ("model.settings.hidden=-3", "model.settings.hidden is -3"),
    ("model.settings.hidden=1000000", "hidden is 1000000; it should lie from 1 to 10,000"),
    ("model.settings.layers=101", "layers is 101"),
    ("model.settings.hidden=8.5", "hidden is 8.5; it should be a whole number"),
    ("model.settings.hidden=true", "hidden is True; it should be a whole number"),
    ("model.settings.radial=1", "radial is 1"),
    ("model.settings.hiden=8", "did you mean hidden?"),
    ("model.name=cgnn", "cgcnn, alignn"),
    ("model.name=alignn", "model.settings.layers is no setting of alignn"),
    ("optimiser.lr=0", "optimiser.lr is 0"),
    ("optimiser.lr=-1e-3", "optimiser.lr is -0.001"),
    ("optimiser.lr=inf", "optimiser.lr"),
    ("optimiser.lr=.inf", "optimiser.lr is inf"),
    ("optimiser.lr=.nan", "optimiser.lr is nan"),
    ("optimiser.lr=fast", "optimiser.lr is 'fast'"),
    ("optimiser.weight_decay=.inf", "weight_decay"),
    ("optimiser={rate: 1}", "optimiser.rate is no setting"),
    ("optimiser=adam", "optimiser should be a group of values"),
    ("precision=fp16", "32-true"),
    ("precision=32", "precision is 32"),
    ("batch_size=0", "batch_size is 0"),
    ("batch_size=1e12", "batch_size is 1000000000000.0"),
    ("batch_sise=4", "did you mean batch_size?"),
    ("epochs=0", "epochs is 0"),
    ("epochs=2.5", "epochs is 2.5"),
    ("epochs=yes", "epochs is yes or no"),
    ("epochs=1000000000", "epochs is 1000000000"),
    ("optimiser.lr=on", "optimiser.lr is yes or no"),
    ("schedule.milestones=[0.5, 7]", "milestones is 7"),
    ("graph.cutoff=1000", "graph.cutoff is 1000.0 Å; the limit is 50"),
    ("graph.cutoff=.inf", "graph.cutoff is inf"),
    ("graph.neighbours=5000", "graph.neighbours is 5000"),
    ("data.train_rows=1", "data.train_rows is 1"),
    ("data.split.seed=-1", "data.split.seed is -1"),
    ("data.split.calibration=.nan", "calibration"),
    ("features=[]", "No features are called"),
    ("features=[elementary]", "elementary"),
    ("features=[elemental, elemental]", "name each of them once"),
    ("augment=[noise, noise]", "name each of them once"),
    ("augment=[shake]", "augment"),
    ("ema=1", "ema is 1"),
    ("patience=0", "patience is 0"),
    ("devices=0", "devices is 0"),
    ("devices=2", "devices is 2; a run trains on one"),
]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Trains on the command line in a place without data and graphs."""

    def built(*args, **kwargs):
        raise AssertionError("data were read before the settings")

    monkeypatch.setattr(prepared, "load", built)
    monkeypatch.setattr(prepared, "load_graphs", built)
    prepared._cleaned.cache_clear()
    save_config(CGCNN, tmp_path / "run.yaml")

    def run(*words: str):
        output = tmp_path / "out"
        result = CliRunner().invoke(
            app, ["train", str(tmp_path / "run.yaml"), *words, "--output", str(output)]
        )
        assert not output.exists()
        return result.exception

    return run


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[change for change, _ in WRONG])
def test_a_wrong_value_is_said_before_data_are_read(command, change, said):
    error = command(change)
    assert isinstance(error, DefectkitError), repr(error)
    assert said in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(DefectkitError, match=f"seed is {seed}"):
        check_config(CGCNN, seed)


def test_heads_must_divide_the_width():
    with pytest.raises(DefectkitError, match="7 attention heads do not divide"):
        check_config(with_values(HYBRID, {"model.settings.attention_heads": 7}))


def test_a_size_that_no_memory_holds_is_refused_without_being_built():
    with pytest.raises(DefectkitError, match=r"has [\d,]+ weights; the limit is 100,000,000"):
        check_config(with_values(HYBRID, {"model.settings.hidden": 8000}))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("forest", {"n_estimators": 0}, "n_estimators is 0"),
        ("forest", {"max_features": -0.5}, "max_features is -0.5"),
        ("forest", {"max_features": 7.0}, "forest do not fit"),
        ("lightgbm", {"learning_rate": 0.0}, "lightgbm do not fit"),
        ("ridge", {"beta": 1.0}, "it has alpha"),
        ("mean", {"alpha": 1.0}, "it has none"),
    ],
)
def test_table_models_judge_their_settings_at_once(name, settings, said):
    with pytest.raises(DefectkitError, match=said):
        check_config(RunConfig({"name": name, "settings": settings}))


@pytest.mark.parametrize(
    "changes",
    [{"start": "data/checkpoints/hybrid-0"}, {"augment": ["strain"]}, {"also_unrelaxed": True}],
    ids=str,
)
def test_table_models_refuse_what_they_would_not_heed(changes):
    with pytest.raises(DefectkitError, match=f"{next(iter(changes))} is for networks"):
        with_values(CGCNN, {"model": {"name": "lightgbm"}, **changes})


@pytest.mark.parametrize("kind", [RunConfig, TuneConfig, StudyConfig])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds nothing"),
        ("- cgcnn\n", "no names with values"),
        ("cgcnn\n", "no names with values"),
        ("42", "no names with values"),
        ("model: {name: cgcnn}\nepochs: 3\nepochs: 4\n", "line 3 .* 'epochs' stands twice"),
        ("model: {name: cgcnn, name: hybrid}\n", "'name' stands twice"),
        ("model: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("model: !!python/name:os.system\n", "could not determine a constructor"),
        ("epochs: !!int three\n", "is no YAML"),
        ("epochs: !!timestamp three\n", "is no YAML"),
        ("epochs: 2024-99-99\n", "is no YAML"),
        ("model: *nobody\n", "undefined alias"),
        ("model: [1\n", "line 2"),
        ("\tmodel: 1\n", "line 1"),
        ("model: \x00", "is no YAML"),
        ("[" * 5000, "more than 50 deep"),
        ("a" * 300_000, "300,000 characters"),
        ("? {a: b}\n: c\n", "unhashable"),
        ("1: 2\n", "yaml: (model|run) is missing"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, text, said, kind):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(DefectkitError, match=said) as caught:
        load_config(path, kind)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes("model: {name: cgcnn}  # größer".encode("utf-16"))
    with pytest.raises(DefectkitError, match=r"odd\.yaml is no text in UTF-8"):
        load_config(path)
    with pytest.raises(DefectkitError, match="cannot be read"):
        load_config(tmp_path)


def test_numbers_are_read_as_people_write_them():
    changed = with_values(CGCNN, ["optimiser.lr=1e-2", "data.path=rows #2 (v3)", "ema=null"])
    assert (changed.optimiser.lr, changed.data.path, changed.ema) == (0.01, "rows #2 (v3)", None)


@pytest.mark.parametrize("positions", ["relaxed", "unrelaxed"])
@pytest.mark.parametrize("augment", ["noise", "partly-relaxed", "elastic"])
def test_moving_relaxed_atoms_is_refused_where_unrelaxed_ones_are_read(augment, positions):
    changes = {"augment": [augment], "graph.positions": positions}
    if positions == "relaxed":
        changes["also_unrelaxed"] = True
    with pytest.raises(DefectkitError, match=f"augment: {augment}"):
        with_values(CGCNN, changes)


def test_unrelaxed_twice_is_refused():
    with pytest.raises(DefectkitError, match="also_unrelaxed"):
        with_values(CGCNN, {"graph.positions": "unrelaxed", "also_unrelaxed": True})


def labels(*eform: float) -> pd.DataFrame:
    return pd.DataFrame({"eform": eform, "spin": 0.0}, index=[f"r{k}" for k in range(len(eform))])


def test_too_few_rows_are_a_sentence():
    check_rows(labels(1.0, 2.0), labels(1.0))
    for training in ((1.0,), (1.0, np.nan), ()):
        with pytest.raises(DefectkitError, match="training rows with a formation energy, too few"):
            check_rows(labels(*training), labels(1.0))
    for valid in ((), (np.nan,)):
        with pytest.raises(DefectkitError, match="no validation row"):
            check_rows(labels(1.0, 2.0), labels(*valid))
    with pytest.raises(DefectkitError, match="r1: its labels"):
        check_rows(labels(1.0, np.inf, 2.0), labels(1.0))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_accepted(path):
    check_config(load_config(path))
