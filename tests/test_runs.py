"""The engine and the run folder, on a hundred demo rows and a tiny model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from run_cases import CGCNN
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.checkpoint import load_model
from defectkit.cli import app
from defectkit.config import Choice, ModelConfig, TuneConfig, save_config, with_values
from defectkit.data.splits import make_split
from defectkit.predict import check_labels, predict
from defectkit.training.runs import Run, _cleaned, graphs_of, train
from defectkit.training.tune import tune

CONFIG = replace(CGCNN, epochs=3, batch_size=16)


class Stopped(Exception):  # noqa: N818
    pass


class StopAfter(Callback):
    def __init__(self, epochs: int):
        self.epochs = epochs

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epochs:
            raise Stopped


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTKIT_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def finished(rows, split, tmp_path_factory) -> Run:
    return train(CONFIG, rows, split, tmp_path_factory.mktemp("run"), seed=1, progress=False)


def weights(folder) -> torch.Tensor:
    return torch.cat([p.flatten() for p in load_model(folder)[0].parameters()])


def test_the_folder_tells_the_whole_run(finished, rows, split):
    run = Run(finished.folder)
    assert run.finished
    assert run.config == CONFIG
    assert run.summary["seed"] == 1
    assert run.summary["data_fingerprint"] == rows.fingerprint
    assert run.summary["rows"] == {n: len(getattr(split, n)) for n in ("train", "valid", "test")}
    assert run.summary["epochs"] == 3
    metrics = pd.read_csv(run.folder / "metrics.csv")
    assert {"train_loss", "train_spin_term", "valid_eform_mae"} <= set(metrics)
    assert metrics.valid_eform_mae.dropna().min() == pytest.approx(run.summary["valid_eform_mae"])
    table = run.predictions
    assert set(table.index[table.part == "test"]) == set(split.test)
    assert set(table.index[table.part == "valid"]) == set(split.valid)
    assert table.eform.tolist() == pytest.approx(
        rows.frame.loc[table.index].eform.tolist(), abs=1e-5
    )
    assert not list(run.folder.glob("*.ckpt"))


def test_the_kept_model_gives_the_kept_predictions(finished, rows, split):
    model, card = load_model(finished.folder)
    assert card.label_source == rows.label_source
    graphs = graphs_of(rows, card.graph)
    table = predict(model, graphs, graphs.select(split.test))
    kept = finished.predictions.loc[list(split.test)]
    assert np.allclose(table.eform, kept.eform_pred, atol=1e-4)
    assert np.allclose(table.spin, kept.spin_pred, atol=1e-4)
    valid = finished.predictions.query("part == 'valid'")
    best = (valid.eform - valid.eform_pred).abs().mean()
    assert best == pytest.approx(finished.summary["valid_eform_mae"], abs=1e-4)


def test_normalisation_comes_from_the_training_rows(finished, rows, split):
    model, card = load_model(finished.folder)
    labels = rows.frame.loc[list(split.train)].eform
    assert model.heads.eform_mean.item() == pytest.approx(labels.mean(), abs=1e-4)
    assert card.eform_range == pytest.approx((labels.min(), labels.max()), abs=1e-4)


def test_same_seed_same_numbers(finished, rows, split, tmp_path):
    again = train(CONFIG, rows, split, tmp_path / "a", seed=1, progress=False)
    assert torch.equal(weights(again.folder), weights(finished.folder))
    other = train(CONFIG, rows, split, tmp_path / "b", seed=2, progress=False)
    assert not torch.equal(weights(other.folder), weights(finished.folder))


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_was_killed_ends_like_one_that_was_not(rows, split, tmp_path, optimiser):
    config = with_values(CONFIG, {"optimiser.name": optimiser})
    whole = train(config, rows, split, tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        train(config, rows, split, tmp_path / "run", progress=False, callbacks=(StopAfter(2),))
    assert not Run(tmp_path / "run").finished
    resumed = train(config, rows, split, tmp_path / "run", progress=False)
    assert torch.equal(weights(resumed.folder), weights(whole.folder))


def test_labels_of_test_rows_change_nothing(finished, rows, split, tmp_path):
    records = [replace(r, eform=99.0, spin=50.0) if r.uid in split.test else r
               for r in rows.records]  # fmt: skip
    poisoned = replace(rows, records=records)
    other = replace(split, fingerprint=poisoned.fingerprint)
    run = train(CONFIG, poisoned, other, tmp_path / "run", seed=1, progress=False)
    assert torch.equal(weights(run.folder), weights(finished.folder))


def test_a_split_of_other_data_is_refused(rows, split, tmp_path):
    with pytest.raises(DefectkitError, match="other data"):
        train(CONFIG, rows, replace(split, fingerprint="x"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused(finished, rows, split):
    with pytest.raises(DefectkitError, match="another run"):
        train(CONFIG, rows, split, finished.folder, seed=7)
    with pytest.raises(DefectkitError, match="another run"):
        train(replace(CONFIG, epochs=4), rows, split, finished.folder, seed=1)
    assert train(CONFIG, rows, split, finished.folder, seed=1).summary == finished.summary


def test_another_label_source_is_refused_unless_told(finished, rows, split, tmp_path):
    _, card = load_model(finished.folder)
    with pytest.raises(DefectkitError, match=r"CHGNet.*DFT"):
        check_labels(card, "DFT-PBE (Imp2d)")
    records = [replace(record, label_source="DFT-PBE (Imp2d)") for record in rows.records]
    dft = replace(rows, label_source="DFT-PBE (Imp2d)", records=records)
    config = replace(CONFIG, start=str(finished.folder), epochs=1)
    with pytest.raises(DefectkitError, match="--other-labels"):
        train(config, dft, split, tmp_path / "run", progress=False)
    run = train(config, dft, split, tmp_path / "run", progress=False, other_labels=True)
    assert load_model(run.folder)[1].label_source == "DFT-PBE (Imp2d)"


def test_a_starting_model_is_where_training_starts(finished, rows, split, tmp_path):
    config = with_values(
        CONFIG, {"start": str(finished.folder), "epochs": 1, "optimiser.lr": 1e-9, "ema": None}
    )
    run = train(config, rows, split, tmp_path / "run", progress=False)
    assert torch.allclose(weights(run.folder), weights(finished.folder), atol=1e-6)
    wider = with_values(config, {"model.settings.hidden": 9})
    with pytest.raises(DefectkitError, match="take over its settings"):
        train(wider, rows, split, tmp_path / "wider", progress=False)


def test_fewer_training_rows_are_a_part_of_more(rows, split, tmp_path):
    config = with_values(CONFIG, {"data.train_rows": 20, "epochs": 1})
    run = train(config, rows, split, tmp_path / "run", progress=False)
    assert run.summary["rows"]["train"] == 20
    with pytest.raises(DefectkitError, match="training rows"):
        train(with_values(config, {"data.train_rows": 900}), rows, split, tmp_path / "many")


@pytest.mark.parametrize("augment", ["noise", "pad", "strain", "partly-relaxed", "elastic"])
def test_augmented_structures_are_new_in_every_epoch(rows, split, tmp_path, augment):
    config = replace(CONFIG, augment=(augment,), epochs=2)
    config = with_values(config, {"data.train_rows": 24})
    run = train(config, rows, split, tmp_path / "run", progress=False)
    plain = train(replace(config, augment=()), rows, split, tmp_path / "plain", progress=False)
    assert not torch.equal(weights(run.folder), weights(plain.folder))
    again = train(config, rows, split, tmp_path / "again", progress=False)
    assert torch.equal(weights(run.folder), weights(again.folder))


def test_both_positions_double_the_training_rows(rows, split, tmp_path):
    config = with_values(CONFIG, {"also_unrelaxed": True, "epochs": 1, "ema": None})
    run = train(config, rows, split, tmp_path / "run", progress=False)
    metrics = pd.read_csv(run.folder / "metrics.csv")
    n = 2 * len(split.train)
    assert metrics.step.max() + 1 == pytest.approx(np.ceil(n / config.batch_size), abs=1)


def test_a_tabular_model_makes_the_same_folder(rows, split, tmp_path):
    config = replace(CONFIG, model=ModelConfig("ridge"))
    run = train(config, rows, split, tmp_path / "run", progress=False)
    assert set(run.predictions.part) == {"valid", "test"}
    mean = train(replace(config, model=ModelConfig("mean")), rows, split, tmp_path / "mean")
    assert mean.predictions.eform_pred.nunique() == 1


def test_damaged_checkpoints_are_refused(finished, tmp_path):
    card = (finished.folder / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(card)
    with pytest.raises(DefectkitError, match="missing or damaged"):
        load_model(tmp_path)
    whole = (finished.folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(DefectkitError, match="missing or damaged"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    (tmp_path / "model.yaml").write_text(card.replace("hidden: 8", "hidden: 9"))
    with pytest.raises(DefectkitError, match="do not belong together"):
        load_model(tmp_path)


def test_search_is_blind_to_test_rows_and_resumes(rows, split, tmp_path):
    search = {"optimiser.lr": Choice(choices=(1e-3, 1e-2)), "model.settings.layers": Choice((1, 2))}
    config = TuneConfig(replace(CONFIG, epochs=1), search, trials=2, sampler="grid")
    assert len(tune(config, rows, split, tmp_path)) == 2
    trials = tune(replace(config, trials=4), rows, split, tmp_path)
    assert len(trials) == 4
    assert len(trials[["optimiser.lr", "model.settings.layers"]].drop_duplicates()) == 4
    best = trials.loc[trials.value.idxmin()]
    chosen = Run(tmp_path).folder / "best.yaml"
    assert f"lr: {best['optimiser.lr']}" in chosen.read_text()


def test_command_line_trains_and_evaluates(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("defectkit.training.runs.load", lambda name, path: rows)
    _cleaned.cache_clear()
    save_config(CONFIG, tmp_path / "run.yaml")
    command = ["train", str(tmp_path / "run.yaml"), "epochs=1", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "validation: MAE" in result.output
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "eform_mae" in result.output
    assert Run(tmp_path / "out").config.epochs == 1
    _cleaned.cache_clear()


def test_real_dft_rows_train_like_the_demo(pilot, tmp_path):
    few = pilot.subset(pilot.frame.sample(30, random_state=0).index)
    config = with_values(CONFIG, {"epochs": 1, "data.name": "2dmd"})
    run = train(config, few, make_split(few), tmp_path / "run", progress=False)
    assert run.summary["label_source"] == pilot.label_source != "CHGNet-0.3.0"
    assert np.isfinite(run.part("test").eform_pred).all()
