"""The engine and the run folder, on a hundred demo rows and a tiny model."""

import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from run_cases import CGCNN, HYBRID
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.data.splits import make_split
from defectkit.graphs.dataset import GraphDataset
from defectkit.training.config import ModelConfig, save_config, with_values
from defectkit.training.inference import check_labels, load_model, predict
from defectkit.training.prepared import Augmented, Prepared, _cleaned, graphs_of
from defectkit.training.run import Run
from defectkit.training.train import train

CONFIG = replace(CGCNN, epochs=3, batch_size=16)

pytestmark = pytest.mark.usefixtures("own_cache")


class Stopped(Exception):  # noqa: N818
    pass


class StopAfter(Callback):
    def __init__(self, epochs: int):
        self.epochs = epochs

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epochs:
            raise Stopped


@pytest.fixture(scope="module")
def finished(rows, split, tmp_path_factory) -> Run:
    return train(
        Prepared(CONFIG, rows, split), tmp_path_factory.mktemp("run"), seed=1, progress=False
    )


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
    again = train(Prepared(CONFIG, rows, split), tmp_path / "a", seed=1, progress=False)
    assert torch.equal(weights(again.folder), weights(finished.folder))
    other = train(Prepared(CONFIG, rows, split), tmp_path / "b", seed=2, progress=False)
    assert not torch.equal(weights(other.folder), weights(finished.folder))


def test_a_run_that_stopped_early_and_was_killed_then_stays_stopped(
    rows, split, tmp_path, monkeypatch
):
    config = with_values(CONFIG, {"patience": 1, "epochs": 9, "optimiser.lr": 1e-12, "ema": None})
    whole = train(Prepared(config, rows, split), tmp_path / "whole", progress=False)
    assert whole.summary["epochs"] < 9
    with monkeypatch.context() as patch:
        patch.setattr("defectkit.training.train.save_model", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    resumed = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    for name in ("metrics.csv", "predictions.csv", "model.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


class Interrupt(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_is_interrupted_and_can_be_again(rows, split, tmp_path):
    for _ in range(2):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(
                Prepared(CONFIG, rows, split),
                tmp_path / "run",
                callbacks=(Interrupt(),),
                progress=False,
            )
        assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_was_killed_ends_like_one_that_was_not(rows, split, tmp_path, optimiser):
    config = with_values(CONFIG, {"optimiser.name": optimiser})
    whole = train(Prepared(config, rows, split), tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        train(
            Prepared(config, rows, split),
            tmp_path / "run",
            progress=False,
            callbacks=(StopAfter(2),),
        )
    assert not Run(tmp_path / "run").finished
    resumed = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    assert torch.equal(weights(resumed.folder), weights(whole.folder))


def test_labels_of_test_rows_change_nothing(finished, rows, split, tmp_path):
    records = [
        replace(r, eform=99.0, spin=50.0) if r.uid in split.test else r for r in rows.records
    ]
    poisoned = replace(rows, records=records)
    other = replace(split, fingerprint=poisoned.fingerprint)
    run = train(Prepared(CONFIG, poisoned, other), tmp_path / "run", seed=1, progress=False)
    assert torch.equal(weights(run.folder), weights(finished.folder))


def test_a_split_of_other_data_is_refused(rows, split, tmp_path):
    with pytest.raises(DefectkitError, match="other data"):
        train(Prepared(CONFIG, rows, replace(split, fingerprint="x")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused(finished, rows, split):
    with pytest.raises(DefectkitError, match="another run"):
        train(Prepared(CONFIG, rows, split), finished.folder, seed=7)
    with pytest.raises(DefectkitError, match="another run"):
        train(Prepared(replace(CONFIG, epochs=4), rows, split), finished.folder, seed=1)
    assert train(Prepared(CONFIG, rows, split), finished.folder, seed=1).summary == finished.summary


def test_another_label_source_is_refused_unless_told(finished, rows, split, tmp_path):
    _, card = load_model(finished.folder)
    with pytest.raises(DefectkitError, match=r"CHGNet.*DFT"):
        check_labels(card, "DFT-PBE (Imp2d)")
    records = [replace(record, label_source="DFT-PBE (Imp2d)") for record in rows.records]
    dft = replace(rows, label_source="DFT-PBE (Imp2d)", records=records)
    split = replace(split, fingerprint=dft.fingerprint)
    config = replace(CONFIG, start=str(finished.folder), epochs=1)
    with pytest.raises(DefectkitError, match="--other-labels"):
        train(Prepared(config, dft, split), tmp_path / "run", progress=False)
    run = train(Prepared(config, dft, split), tmp_path / "run", progress=False, other_labels=True)
    assert load_model(run.folder)[1].label_source == "DFT-PBE (Imp2d)"


def test_a_starting_model_is_where_training_starts(finished, rows, split, tmp_path):
    config = with_values(
        CONFIG, {"start": str(finished.folder), "epochs": 1, "optimiser.lr": 1e-9, "ema": None}
    )
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    assert torch.allclose(weights(run.folder), weights(finished.folder), atol=1e-6)
    same = with_values(config, {"model.settings.marks": True, "model.settings.layers": 1})
    assert train(
        Prepared(same, rows, split), tmp_path / "same", progress=False
    ).finished  # said or by default
    wider = with_values(config, {"model.settings.hidden": 9})
    with pytest.raises(DefectkitError, match=r"model\.settings\.hidden 8 \(here 9\); take over"):
        train(Prepared(wider, rows, split), tmp_path / "wider", progress=False)
    assert not (tmp_path / "wider").exists()


class Modes(Callback):
    """Whether every part of the model is in training mode at each step."""

    def __init__(self, graphs):
        self.graphs, self.training = graphs, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.training.append(all(part.training for part in pl_module.modules()))

    def on_validation_end(self, trainer, pl_module) -> None:
        predict(pl_module.model, self.graphs, [0])  # somebody looks in between


@pytest.mark.parametrize("name", ["norms", "dropout"])
def test_a_starting_model_goes_on_in_training_mode(rows, split, tmp_path, name):
    few = {"data.train_rows": 24, "epochs": 2, "ema": None}
    config = with_values(CONFIG, few)
    if name == "dropout":
        model = {**HYBRID.model.settings, "dropout": 0.5}
        config = with_values(
            HYBRID, few | {"model": {"name": "hybrid", "settings": model}, "batch_size": 16}
        )
    first = train(Prepared(config, rows, split), tmp_path / "first", progress=False)
    modes = Modes(graphs_of(rows, config.graph))
    config = with_values(config, {"start": str(first.folder), "optimiser.lr": 1e-12})
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False, callbacks=(modes,))
    assert len(modes.training) == 4
    assert all(modes.training)
    losses = pd.read_csv(run.folder / "metrics.csv").train_loss
    if name == "dropout":  # the weights stand still, what is dropped does not
        assert losses.nunique() == 2
    before, after = (load_model(r.folder)[0].state_dict() for r in (first, run))
    moved = [key for key in before if not torch.allclose(before[key].double(), after[key].double())]
    assert all("running" in key or "batches" in key for key in moved), moved
    assert bool(moved) == (name == "norms")


@pytest.mark.parametrize("name", ["cutoff", "virtual_nodes", "neighbours"])
def test_a_starting_model_with_other_graphs_is_refused(finished, rows, split, tmp_path, name):
    value = {"cutoff": 4.0, "virtual_nodes": False, "neighbours": 6}[name]
    config = with_values(CONFIG, {"start": str(finished.folder), f"graph.{name}": value})
    with pytest.raises(DefectkitError, match=rf"graph\.{name} .* \(here {value}\)"):
        train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    unrelaxed = with_values(
        CONFIG, {"start": str(finished.folder), "graph.positions": "unrelaxed", "epochs": 1}
    )
    if name == "cutoff":
        run = train(Prepared(unrelaxed, rows, split), tmp_path / "moved", progress=False)
        assert load_model(run.folder)[1].graph.positions == "unrelaxed"


def test_fewer_training_rows_are_a_part_of_more(rows, split, tmp_path):
    config = with_values(CONFIG, {"data.train_rows": 20, "epochs": 1})
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    assert run.summary["rows"]["train"] == 20
    with pytest.raises(DefectkitError, match="training rows"):
        train(
            Prepared(with_values(config, {"data.train_rows": 900}), rows, split), tmp_path / "many"
        )


@pytest.mark.parametrize("augment", ["noise", "pad", "strain", "partly-relaxed", "elastic"])
def test_augmented_structures_are_new_in_every_epoch(rows, split, tmp_path, augment):
    config = replace(CONFIG, augment=(augment,), epochs=2)
    config = with_values(config, {"data.train_rows": 24})
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    tally = run.summary["augment"]
    assert 0 < tally[augment]["changed"] <= 48
    assert tally["graph"]["changed"] + tally["graph"]["refused"] == 48
    plain = train(
        Prepared(replace(config, augment=()), rows, split), tmp_path / "plain", progress=False
    )
    assert not torch.equal(weights(run.folder), weights(plain.folder))
    with pytest.raises(Stopped):
        train(
            Prepared(config, rows, split),
            tmp_path / "again",
            progress=False,
            callbacks=(StopAfter(1),),
        )
    again = train(Prepared(config, rows, split), tmp_path / "again", progress=False)
    assert torch.equal(weights(run.folder), weights(again.folder))
    assert again.summary["augment"] == tally


class Trainer:
    current_epoch = 0


def augmented(config, dataset, graphs, relaxed):
    transform = Augmented(config, dataset, graphs, relaxed, seed=0)
    transform.setup(Trainer, None, "fit")
    return transform


def test_unrelaxed_copies_stay_unrelaxed_when_they_are_transformed(rows):
    few = rows.subset(rows.frame.index[:8])
    relaxed = graphs_of(few, CONFIG.graph)
    start = graphs_of(few, replace(CONFIG.graph, positions="unrelaxed"))
    both = GraphDataset.from_graphs([*relaxed, *start])
    config = replace(CONFIG, augment=("strain",), also_unrelaxed=True)
    transform = augmented(config, few, both, len(relaxed))
    for number in range(len(both)):
        graph = transform([number]).get_example(0)
        # A small strain: fractional coordinates are those before it.
        before = both[number]
        there = torch.linalg.solve(before.cell[0].T, before.pos.T)
        here = torch.linalg.solve(graph.cell[0].T, graph.pos.T)
        assert not torch.equal(graph.cell, before.cell)
        assert torch.allclose(here[:2], there[:2], atol=1e-4), number
    assert transform.tally["strain"] == {"changed": 16, "refused": 0, "first_reason": ""}


def test_no_epoch_and_no_structure_draws_like_another(rows):
    few = rows.subset(rows.frame.index[:4])
    graphs = graphs_of(few, CONFIG.graph)
    transform = augmented(replace(CONFIG, augment=("strain",)), few, graphs, 4)
    first = [transform([k]).cell for k in range(4)]
    assert all(torch.equal(transform([k]).cell, first[k]) for k in range(4))
    transform.setup(type("Later", (), {"current_epoch": 1}), None, "fit")
    assert not any(torch.equal(transform([k]).cell, first[k]) for k in range(4))


def test_what_single_structures_refuse_is_counted_and_said(rows, split, tmp_path, capsys):
    some = set(split.train[:30:2])
    records = [replace(r, unrelaxed=None) if r.uid in some else r for r in rows.records]
    lacking = replace(rows, records=records)
    config = with_values(CONFIG, {"augment": ["partly-relaxed"], "epochs": 2})
    other = replace(split, fingerprint=lacking.fingerprint)
    run = train(Prepared(config, lacking, other), tmp_path / "run", progress=False)
    found = run.summary["augment"]["partly-relaxed"]
    assert (found["refused"], found["changed"]) == (30, 2 * len(split.train) - 30)
    assert "has no unrelaxed positions" in found["first_reason"]
    assert "'partly-relaxed' passed over 30 structures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": ["partly-relaxed"]}, "partly-relaxed' needs the positions before"),
        ({"also_unrelaxed": True}, "also_unrelaxed needs the positions before relaxation"),
        ({"graph.positions": "unrelaxed"}, "graph.positions 'unrelaxed' needs"),
        ({"augment": ["elastic"]}, "needs to know where the defects are"),
    ],
    ids=str,
)
def test_what_the_data_cannot_give_is_refused(rows, split, tmp_path, changes, said):
    records = [replace(r, unrelaxed=None, defect_positions=None) for r in rows.records]
    lacking = replace(rows, records=records)
    other = replace(split, fingerprint=lacking.fingerprint)
    with pytest.raises(DefectkitError, match=said):
        train(
            Prepared(with_values(CONFIG, changes), lacking, other), tmp_path / "run", progress=False
        )
    assert not (tmp_path / "run").exists()


def test_a_transform_that_changes_nothing_at_all_is_refused(rows, split, tmp_path, monkeypatch):
    monkeypatch.setattr("defectkit.structures.transforms.MIN_IMAGE_DISTANCE", 99.0)
    config = with_values(CONFIG, {"augment": ["pad", "strain"], "data.train_rows": 20, "epochs": 9})
    with pytest.raises(DefectkitError, match="augment 'pad' left every training structure"):
        train(Prepared(config, rows, split), tmp_path / "run", progress=False)


def test_both_positions_double_the_training_rows(rows, split, tmp_path):
    config = with_values(CONFIG, {"also_unrelaxed": True, "epochs": 1, "ema": None})
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    metrics = pd.read_csv(run.folder / "metrics.csv")
    unrelaxed = graphs_of(rows, replace(config.graph, positions="unrelaxed"))
    n = len(split.train) + len(unrelaxed.select(split.train))  # some have no graph
    assert metrics.step.max() + 1 == np.ceil(n / config.batch_size)
    assert run.summary["structures"] == n


def test_a_tabular_model_makes_the_same_folder(rows, split, tmp_path):
    config = replace(CONFIG, model=ModelConfig("ridge"))
    run = train(Prepared(config, rows, split), tmp_path / "run", progress=False)
    assert set(run.predictions.part) == {"valid", "test"}
    mean = train(
        Prepared(replace(config, model=ModelConfig("mean")), rows, split), tmp_path / "mean"
    )
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


def test_command_line_trains_and_evaluates(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("defectkit.training.prepared.load", lambda name, path: rows)
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
    run = train(Prepared(config, few, make_split(few)), tmp_path / "run", progress=False)
    assert run.summary["label_source"] == pilot.label_source != "CHGNet-0.3.0"
    assert np.isfinite(run.part("test").eform_pred).all()
