"""A run folder under two at once, full disks, damage and failure; kills: test_kill_points.py."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from run_cases import CGCNN

from defectkit import DefectkitError
from defectkit.evaluation.metrics import scores
from defectkit.training import engine
from defectkit.training import train as training
from defectkit.training.config import with_values
from defectkit.training.engine import METRICS, Diverged
from defectkit.training.inference import load_model
from defectkit.training.prepared import Prepared
from defectkit.training.run import LOCK, PREDICTIONS, SUMMARY, Run, held
from defectkit.training.train import train

CONFIG = replace(CGCNN, epochs=2, batch_size=8)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def finished(few, tmp_path_factory) -> Run:
    return train(Prepared(CONFIG, *few), tmp_path_factory.mktemp("run"), progress=False)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    for path in finished.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_finished_folder_holds_what_it_should_and_no_more(finished):
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "config.yaml",
        "metrics.csv",
        "model.safetensors",
        "model.yaml",
        "predictions.csv",
        "run.json",
        "summary.yaml",
        "tensorboard",
    ]


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
def test_files_follow_the_umask(few, tmp_path):
    before = os.umask(0o027)
    try:
        train(Prepared(CONFIG, *few), tmp_path / "run", progress=False)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert set(modes.values()) == {0o640}, modes


def test_metrics_have_a_row_an_epoch(finished):
    table = pd.read_csv(finished.folder / METRICS)
    assert table.epoch.tolist() == [0, 1]
    assert table.notna().all(axis=None)
    assert table.valid_eform_mae.min() == pytest.approx(finished.summary["valid_eform_mae"])


def test_the_second_process_is_refused_and_changes_nothing(few, tmp_path):
    with held(tmp_path / "run"):
        with pytest.raises(DefectkitError, match="in use"):
            train(Prepared(CONFIG, *few), tmp_path / "run", progress=False)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert train(Prepared(CONFIG, *few), tmp_path / "run", progress=False).finished


def test_a_finished_run_is_read_without_a_lock(finished, few, copied):
    with held(copied):
        assert train(Prepared(CONFIG, *few), copied).summary == finished.summary


def test_a_finished_run_outlives_the_model_that_it_started_from(finished, few, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(finished.folder, start)
    config = with_values(CONFIG, {"start": str(start), "epochs": 1})
    run = train(Prepared(config, *few), tmp_path / "run", progress=False)
    shutil.rmtree(start)
    assert train(Prepared(config, *few), tmp_path / "run").summary == run.summary
    with pytest.raises(DefectkitError, match="start holds no trained network"):
        train(Prepared(config, *few), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_interrupt_behind_the_end_leaves_the_finished_run(finished, few, tmp_path, monkeypatch):
    def interrupted(folder):
        for name in ("last.ckpt", "best.ckpt"):
            (folder / name).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_remove_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(Prepared(CONFIG, *few), tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert run.finished
    assert run.predictions.equals(finished.predictions)


def test_training_that_diverges_stops_and_leaves_nothing(few, tmp_path):
    wild = with_values(CONFIG, {"optimiser.lr": 1e30, "optimiser.name": "sgd", "epochs": 50})
    with pytest.raises(Diverged, match=r"in epoch \d+; make optimiser\.lr \(1e\+30\) smaller"):
        train(Prepared(wild, *few), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert train(Prepared(CONFIG, *few), tmp_path / "run", progress=False).finished


def test_training_that_diverges_late_leaves_nothing_either(few, tmp_path, monkeypatch):
    terms = engine.loss_terms

    def lost(output, *args):
        broken = float("nan") if torch.is_grad_enabled() and lost.calls > 5 else 1.0
        lost.calls += 1
        return {name: broken * term for name, term in terms(output, *args).items()}

    lost.calls = 0
    monkeypatch.setattr(engine, "loss_terms", lost)
    with pytest.raises(Diverged, match="the training loss is nan in epoch 4"):
        train(Prepared(replace(CONFIG, epochs=5), *few), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_before_its_first_epoch_does_not_block(few, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def broken(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(training, "new_model", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        train(Prepared(replace(CONFIG, epochs=9), *few), tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert list((tmp_path / "run").iterdir()) == []
    assert train(Prepared(CONFIG, *few), tmp_path / "run", progress=False).finished


def test_what_a_killed_start_left_does_not_block(few, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"seed": 7}))
    (folder / METRICS).write_text("epoch\n0\n")
    (folder / ".summary-0a1b2c3d.part.yaml").write_text("hal")
    run = train(Prepared(CONFIG, *few), folder, progress=False)
    assert run.summary["seed"] == 0
    assert not list(folder.glob(".*"))


def test_files_of_somebody_else_are_not_overwritten(few, tmp_path):
    (tmp_path / "config.yaml").write_text("mine: true\n")
    with pytest.raises(DefectkitError, match=r"config\.yaml would be overwritten"):
        train(Prepared(CONFIG, *few), tmp_path, progress=False)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [
        ("config.yaml", "mine: true\n")
    ]


def test_an_output_that_is_a_file_is_one_sentence(few, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DefectkitError, match="cannot be written"):
            train(Prepared(CONFIG, *few), folder, progress=False)


@pytest.mark.parametrize("name", ["last.ckpt", METRICS, "model.safetensors", PREDICTIONS, SUMMARY])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    few, finished, tmp_path, monkeypatch, name
):
    """Renaming is what fails here, as writing would; the part file is removed."""
    replace_file = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DefectkitError, match="disk is full") as caught:
        train(Prepared(CONFIG, *few), tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert f"{name} cannot be written" in str(caught.value)
    assert not Run(tmp_path / "run").finished
    assert not list(tmp_path.rglob(".*"))
    run = train(Prepared(CONFIG, *few), tmp_path / "run", progress=False)
    for file in (METRICS, PREDICTIONS, "model.safetensors"):
        assert (run.folder / file).read_bytes() == (finished.folder / file).read_bytes()


GOOD = "uid,part,eform,spin,eform_pred,spin_pred\na,test,1,0,1,2\nb,test,2,,1,2\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (SUMMARY, "", "empty or cut"),
        (SUMMARY, "seed: 0\nrows: {tr", "line 2"),
        (SUMMARY, "- 1\n", "empty or cut"),
        (SUMMARY, "data: demo\n", "has no 'seed'"),
        (PREDICTIONS, "", "is no table"),
        (PREDICTIONS, GOOD.replace("spin_pred", "spins"), "has no column spin_pred"),
        (PREDICTIONS, GOOD.replace("uid", "id"), "has no column uid"),
        (PREDICTIONS, GOOD[:-3], "cut in its last line"),
        (PREDICTIONS, GOOD[:-5] + "\n", "line 3: eform_pred is"),
        (PREDICTIONS, GOOD.replace("1,2\nb", "x,2\nb"), "line 2: eform_pred is 'x'"),
        (PREDICTIONS, GOOD.replace("1,2\nb", "nan,2\nb"), "line 2: eform_pred is 'nan'"),
        (PREDICTIONS, GOOD.replace("1,2\nb", "inf,2\nb"), "line 2: eform_pred is 'inf'"),
        (PREDICTIONS, GOOD.replace("2,,1", "2;5,,1"), "line 3: eform is '2;5'"),
        (PREDICTIONS, GOOD.replace("b,test", "a,test"), "a stands twice"),
        (PREDICTIONS, GOOD.replace("b,test", "b,tset"), "part is 'tset'"),
        (PREDICTIONS, "\x00\x01\n", "has no column"),
    ],
)
def test_damaged_files_are_named(copied, name, text, said):
    (copied / name).write_text(text)
    reading = {
        SUMMARY: lambda: Run(copied).summary["seed"],
        PREDICTIONS: lambda: scores(Run(copied).part("test")),
    }
    with pytest.raises(DefectkitError, match=said) as caught:
        reading[name]()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_labels_are_no_damage(copied):
    (copied / PREDICTIONS).write_text(GOOD)
    table = Run(copied).predictions
    assert table.spin.isna().tolist() == [False, True]
    assert table.eform_pred.tolist() == [1.0, 1.0]


def test_a_damaged_mark_is_named(copied, few):
    (copied / "run.json").write_text('{"seed": 0')
    with pytest.raises(DefectkitError, match=r"run\.json cannot be read"):
        train(Prepared(CONFIG, *few), copied)


def test_a_damaged_state_is_named(few, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(training, "save_model", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(Prepared(CONFIG, *few), folder, progress=False)
    state = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(state[: len(state) // 2])
    with pytest.raises(DefectkitError, match=r"last\.ckpt is damaged"):
        train(Prepared(CONFIG, *few), folder, progress=False)


def test_a_card_that_does_not_fit_is_told_shape_by_shape(copied):
    card = (copied / "model.yaml").read_text()
    (copied / "model.yaml").write_text(card.replace("hidden: 8", "hidden: 9"))
    with pytest.raises(DefectkitError, match="do not belong together") as caught:
        load_model(copied)
    assert "convs.0.full.bias is 18 by the card and 16 in the file" in str(caught.value)
    assert "\n" not in str(caught.value)
    for wrong, said in (("hidden: 1000000", "hidden is 1000000"), ("hiden: 8", "hidden?")):
        (copied / "model.yaml").write_text(card.replace("hidden: 8", wrong))
        with pytest.raises(DefectkitError, match=said) as caught:
            load_model(copied)
        assert "model.yaml" in str(caught.value)
    (copied / "model.yaml").unlink()
    with pytest.raises(DefectkitError, match="holds no trained network"):
        load_model(copied)


def test_weights_that_are_no_numbers_are_refused(copied):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copied / "model.safetensors")
    tensors["embedding.bias"][0] = torch.nan
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(DefectkitError, match=r"embedding\.bias holds numbers that are not finite"):
        load_model(copied)
