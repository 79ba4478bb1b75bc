"""Ensemble, intervals and guard in one, on a hundred demo rows and tiny networks."""

import shutil

import numpy as np
import pandas as pd
import pytest
from run_cases import CGCNN
from typer.testing import CliRunner

from defectkit import DefectkitError, predictor
from defectkit.cli import app
from defectkit.config import save_config, with_values
from defectkit.data import load
from defectkit.domain import VERDICTS
from defectkit.predictor import VALID, Predictor
from defectkit.records import to_frame
from defectkit.shipped import CHECKPOINTS
from defectkit.training.runs import Run, train


@pytest.fixture(scope="module")
def runs(rows, split, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTKIT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(predictor, "load_data", lambda config: (rows, split))
        folder = tmp_path_factory.mktemp("runs")
        yield [
            train(CGCNN, rows, split, folder / f"cgcnn-{k}", seed=k, progress=False)
            for k in range(3)
        ]


@pytest.fixture(scope="module")
def fitted(runs):
    return Predictor.fit(runs)


def test_predictions_are_means_of_the_members_with_their_spread(fitted, runs, rows, split):
    table = fitted([rows[uid] for uid in split.test], rows.hosts)
    assert list(table.index) == list(split.test)
    own = [run.part("test").loc[table.index] for run in runs]
    for target in ("eform", "spin"):
        values = np.array([part[f"{target}_pred"] for part in own])
        assert table[target].tolist() == pytest.approx(values.mean(axis=0), abs=2e-5)
        expected = values.std(axis=0, ddof=1)
        assert table[f"{target}_sigma"].tolist() == pytest.approx(expected, abs=2e-5)
    assert (table.eform_lo < table.eform).all()
    assert (table.eform_hi - table.eform).tolist() == pytest.approx(table.eform - table.eform_lo)
    assert set(table.verdict) <= set(VERDICTS)
    assert table.sentence.str.len().min() > 20


def test_intervals_widen_with_confidence_and_cover_the_rows_they_were_made_on(fitted, rows, split):
    records = [rows[uid] for uid in split.valid]
    low, high = (fitted(records, rows.hosts, confidence) for confidence in (0.5, 0.9))
    assert ((high.eform_hi - high.eform_lo) > (low.eform_hi - low.eform_lo)).all()
    label = rows.frame.loc[high.index].eform
    assert label.between(high.eform_lo, high.eform_hi).mean() >= 0.9
    assert 0.4 < label.between(low.eform_lo, low.eform_hi).mean() < 0.8


def test_a_training_row_is_nearer_than_an_unheard_of_one(fitted, rows, split):
    known = rows[split.train[0]]
    strange = [r for r in load("demo").records if r.host not in {o.host for o in rows.records}]
    hosts = load("demo").hosts
    assert strange
    frame = to_frame([known, strange[0]], hosts).set_axis(["known", "strange"])
    near = fitted._nearness["composition"](predictor.composition_vectors(frame))
    assert near["known"] < near["strange"]
    assert fitted(strange[:1], hosts).verdict.iloc[0] in ("unlike", "both")


def test_what_was_saved_is_what_is_loaded(fitted, runs, rows, split):
    path = runs[0].folder.parent / "cgcnn.safetensors"
    fitted.save(path)
    again = Predictor.load(path)
    pd.testing.assert_frame_equal(again.valid, fitted.valid.reset_index(drop=True))
    records = [rows[uid] for uid in split.test]
    pd.testing.assert_frame_equal(again(records, rows.hosts), fitted(records, rows.hosts))


def test_values_that_cannot_be_are_named(fitted, runs, rows, split, tmp_path):
    narrow = tmp_path / "runs"
    shutil.copytree(runs[0].folder.parent, narrow)
    for folder in narrow.glob("cgcnn-*"):
        card = folder / "model.yaml"
        text = card.read_text().split("eform_range:")
        rest = text[1].split("spin_range:")
        card.write_text(f"{text[0]}eform_range: [90.0, 91.0]\nspin_range:{rest[1]}")
    joined = Predictor.fit([Run(narrow / f"cgcnn-{k}") for k in range(3)])
    table = joined([rows[split.test[0]]], rows.hosts)
    assert "outside the training labels, 90.0 to 91.0 eV" in table.impossible.iloc[0]


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    with pytest.raises(DefectkitError, match="two runs at least"):
        Predictor.fit(runs[:1])
    other = tmp_path / "other"
    shutil.copytree(runs[1].folder, other)
    save_config(with_values(CGCNN, {"epochs": 3}), other / "config.yaml")
    with pytest.raises(DefectkitError, match="differ by more than their seed"):
        Predictor.fit([runs[0], Run(other)])
    with pytest.raises(DefectkitError, match="keeps no weights"):
        Predictor.fit([Run(CHECKPOINTS / f"ridge-{k}") for k in range(2)])
    with pytest.raises(DefectkitError, match="folder that holds its members"):
        Predictor.fit(runs).save(tmp_path / "elsewhere.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_a_damaged_file_is_one_sentence(content, tmp_path):
    path = tmp_path / "joined.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DefectkitError, match="missing or holds no predictor"):
        Predictor.load(path)


def test_the_shipped_predictors_belong_to_the_shipped_runs():
    for name in ("hybrid", "hybrid-unrelaxed"):
        shipped = Predictor.load(CHECKPOINTS / f"{name}.safetensors")
        assert [folder.name for folder in shipped.members] == [f"{name}-{k}" for k in range(3)]
        parts = [Run(folder).part("valid") for folder in shipped.members]
        mean = np.mean([part.eform_pred for part in parts], axis=0)
        assert shipped.valid.eform_pred.tolist() == pytest.approx(mean, abs=1e-4)
        assert list(shipped.valid) == VALID


def test_join_writes_the_file_beside_the_runs(runs):
    result = CliRunner().invoke(app, ["join", *(str(run.folder) for run in runs)])
    assert result.exit_code == 0, result.output
    path = runs[0].folder.parent / "cgcnn.safetensors"
    assert str(path) in result.output.replace("\n", "")
    assert len(Predictor.load(path).members) == 3
