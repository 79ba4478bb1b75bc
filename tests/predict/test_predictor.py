"""Ensemble, intervals and guard in one, on a hundred demo rows and tiny networks."""

import json
import shutil
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from pydantic import RootModel
from run_cases import CGCNN
from safetensors.numpy import save_file
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.data import load
from defectkit.predict import predictor
from defectkit.predict.domain import VERDICTS, Learned
from defectkit.predict.intervals import Magnetism, ensemble
from defectkit.predict.predictor import (
    COLUMNS,
    DISTANCES,
    EXPECTED,
    NUMBERS,
    UNREAD,
    VALID,
    Predictor,
)
from defectkit.structures.recognise import LARGE_RMS
from defectkit.structures.record import to_frame
from defectkit.training import prepared
from defectkit.training.config import save_config, with_values
from defectkit.training.prepared import Prepared
from defectkit.training.pretrained import CHECKPOINTS
from defectkit.training.run import Run
from defectkit.training.train import train


@pytest.fixture(scope="module")
def runs(rows, split, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTKIT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(prepared, "prepare", lambda config: Prepared(config, rows, split))
        folder = tmp_path_factory.mktemp("runs")
        yield [
            train(Prepared(CGCNN, rows, split), folder / f"cgcnn-{k}", seed=k, progress=False)
            for k in range(3)
        ]


def arrays_of(fitted: Predictor) -> dict:
    """What its file holds."""
    learned = RootModel[Learned](fitted.learned).model_dump_json().encode()
    return {
        **fitted.training,
        "valid": fitted.valid.to_numpy(np.float32),
        "learned": np.frombuffer(learned, np.uint8),
        "expected": np.array(
            [fitted.expected.constant, fitted.expected.slope, *fitted.expected.weights]
        ),
    }


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
    told = replace(fitted, magnetism=Magnetism(1.0, 2.0, 0.5))
    told.save(path)
    table = Predictor.load(path)(records, rows.hosts)
    logit = 1 + 2 * np.log(table.spin + 0.01) + 0.5 * np.log(table.spin_sigma + 0.01)
    assert table.magnetic.tolist() == pytest.approx(1 / (1 + np.exp(-logit)))


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


def test_a_run_joined_with_itself_or_its_copy_is_refused(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0].folder, copy)
    for other in (runs[0], Run(copy)):
        with pytest.raises(DefectkitError, match=r"are the same run \(seed 0\)"):
            Predictor.fit([runs[0], other])
    summary = copy / "summary.yaml"
    text = summary.read_text()
    summary.write_text(text.replace("seed: 0", "seed: 7"))
    with pytest.raises(DefectkitError, match="are the same run"):
        Predictor.fit([runs[0], Run(copy)])
    (copy / "model.safetensors").write_bytes((runs[1].folder / "model.safetensors").read_bytes())
    for claim in ("data_fingerprint", "split_fingerprint", "label_source"):
        value = Run(copy).summary[claim]
        summary.write_text(text.replace("seed: 0", "seed: 7").replace(value, "another"))
        with pytest.raises(DefectkitError, match=f"differ in their {claim.replace('_', ' ')}"):
            Predictor.fit([runs[0], Run(copy)])
    summary.unlink()
    with pytest.raises(DefectkitError, match="no finished run"):
        Predictor.fit([runs[0], Run(copy)])


def test_only_rows_that_were_trained_on_are_near(rows, split, runs, tmp_path):
    config = with_values(CGCNN, {"data.train_rows": 12})
    few = [
        train(Prepared(config, rows, split), tmp_path / f"cgcnn-{k}", k, progress=False)
        for k in (0, 1)
    ]
    joined = Predictor.fit(few)
    assert {len(values) for values in joined.training.values()} == {12}
    used = prepared.learned_from(few[0])[1]
    assert len(set(used) & set(split.train)) == 12
    expected = predictor.composition_vectors(rows.frame.loc[used]).to_numpy(np.float16)
    assert np.array_equal(joined.training["composition"], expected)


def test_a_predictor_of_other_members_is_not_overwritten_unasked(fitted, runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs[0].folder.parent, folder)
    here = [folder / run.folder.name for run in runs]
    three, two = (replace(fitted, members=tuple(some)) for some in (here, here[:2]))
    path = folder / "joined.safetensors"
    three.save(path)
    three.save(path)  # of the same members
    before = path.read_bytes()
    with pytest.raises(DefectkitError, match="predictor of cgcnn-0, cgcnn-1, cgcnn-2; say"):
        two.save(path)
    assert path.read_bytes() == before
    two.save(path, replace=True)
    assert [one.name for one in Predictor.load(path).members] == ["cgcnn-0", "cgcnn-1"]
    path.write_text("my notes")
    with pytest.raises(DefectkitError, match="holds no predictor"):
        two.save(path)
    assert path.read_text() == "my notes"
    assert not list(folder.glob("*.part"))


def test_a_predictor_file_is_tied_to_the_weights_of_its_members(fitted, runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs[0].folder.parent, folder)
    path = folder / "joined.safetensors"
    replace(fitted, members=tuple(folder / run.folder.name for run in runs)).save(path)
    weights = folder / "cgcnn-1" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes((folder / "cgcnn-2" / "model.safetensors").read_bytes())
    with pytest.raises(DefectkitError, match=r"other weights than .*cgcnn-1"):
        Predictor.load(path)
    weights.unlink()
    with pytest.raises(DefectkitError, match=r"cgcnn-1.* is missing"):
        Predictor.load(path)
    weights.write_bytes(kept)
    card = folder / "cgcnn-1" / "model.yaml"
    text = card.read_text()
    card.write_text(text.replace("label_source: CHGNet-0.3.0", "label_source: DFT"))
    assert card.read_text() != text
    with pytest.raises(DefectkitError, match=r"cgcnn-1.* other labels"):
        _ = Predictor.load(path).card


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"../cgcnn-0": "a", "cgcnn-1": "b"}, "plain names"),
        ({"/cgcnn-0": "a", "cgcnn-1": "b"}, "plain names"),
        ({"..": "a", "cgcnn-1": "b"}, "plain names"),
        ({"cgcnn-0": "a", "cgcnn-1": "a"}, "two different runs"),
        ({"cgcnn-0": "a"}, "two different runs"),
        ({}, "two different runs"),
        (["cgcnn-0", "cgcnn-1"], "no predictor"),
        ({"cgcnn-0": 1, "cgcnn-1": 2}, "no predictor"),
        ({"cgcnn-0": "a", "cgcnn-1": "b"}, "other weights"),
    ],
    ids=str,
)
def test_members_elsewhere_or_alike_are_refused(fitted, runs, tmp_path, members, words):
    shutil.copytree(runs[0].folder.parent, tmp_path / "runs")
    path = tmp_path / "runs" / "joined.safetensors"
    arrays = arrays_of(fitted)
    save_file(
        {key: np.ascontiguousarray(values) for key, values in arrays.items()},
        path,
        {"members": json.dumps(members)},
    )
    with pytest.raises(DefectkitError, match=words) as error:
        Predictor.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"latent": np.zeros((3, 2), np.float16)},
        {"valid": np.zeros((4, 2), np.float32)},
        {"magnetism": np.zeros(2)},
        {"expected": np.zeros(2)},
        {
            "composition": np.full((3, 2), np.nan, np.float16),
            "latent": np.zeros((3, 2), np.float16),
        },
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(fitted, tmp_path, change):
    arrays = arrays_of(fitted)
    arrays = {key: np.ascontiguousarray(values) for key, values in (arrays | change).items()}
    path = tmp_path / "joined.safetensors"
    save_file(arrays, path, {"members": json.dumps({"a": "1", "b": "2"})})
    with pytest.raises(DefectkitError, match="holds no predictor"):
        Predictor.load(path)


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
        # Those of further rows follow, where there are any.
        assert shipped.valid.eform_pred[: len(mean)].tolist() == pytest.approx(mean, abs=1e-4)
        assert (len(shipped.valid) > len(mean)) == bool(Run(shipped.members[0]).config.data.more)
        assert list(shipped.valid) == [*VALID, *DISTANCES, EXPECTED]
        if not Run(shipped.members[0]).config.data.more:
            again = Magnetism.fit(ensemble(parts))
            assert astuple(shipped.magnetism) == pytest.approx(astuple(again), abs=1e-3)


def test_join_writes_the_file_beside_the_runs(runs):
    result = CliRunner().invoke(app, ["join", *(str(run.folder) for run in runs)])
    assert result.exit_code == 0, result.output
    path = runs[0].folder.parent / "cgcnn.safetensors"
    assert str(path) in result.output.replace("\n", "")
    assert len(Predictor.load(path).members) == 3


@pytest.fixture(scope="module")
def sheet(rows, split):
    """A row that can be predicted, and the same with one atom far above the layer."""
    record = rows[split.test[0]]
    atoms = record.atoms.copy()
    atoms += Atoms("Li", [[0.0, 0.0, atoms.positions[:, 2].max() + 8.0]])
    return record, replace(record, uid="far", atoms=atoms, unrelaxed=None, site_magmoms=None)


def test_a_detached_atom_is_never_inside(fitted, rows, sheet):
    table = fitted(sheet, rows.hosts)
    assert table.verdict["far"] in ("unlike", "both")
    assert "without a bond" in table.reading["far"]
    assert table.reading["far"] in table.sentence["far"]


def test_a_poor_reading_is_never_inside(fitted, rows, sheet):
    record = sheet[0]
    atoms = record.atoms.copy()
    atoms.positions += np.random.default_rng(1).normal(0, 0.4, (len(atoms), 3))
    table = fitted([replace(record, atoms=atoms, unrelaxed=None)], rows.hosts)
    assert table.fit.iloc[0] > LARGE_RMS
    assert table.reading.iloc[0]
    assert table.verdict.iloc[0] in ("unlike", "both")


def test_one_structure_that_cannot_be_read_does_not_end_the_others(fitted, rows, split):
    good = [rows[uid] for uid in split.test[:5]]
    close = good[0].atoms.copy()
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    bad = [
        replace(good[0], uid="close", atoms=close),
        replace(good[1], uid="homeless", host="Unobtainium"),
        replace(
            good[2],
            uid="stretched",
            atoms=Atoms(
                good[2].atoms.numbers,
                positions=good[2].atoms.positions,
                cell=good[2].atoms.cell.array * [[1.17], [1.0], [1.0]],
                pbc=(1, 1, 0),
            ),
        ),
        replace(good[3], uid="odd", dopant="Qq"),
    ]
    mixed = [good[0], bad[0], bad[1], good[1], bad[2], good[2], bad[3], *good[3:]]
    table = fitted(mixed, rows.hosts)
    assert list(table.index) == [record.uid for record in mixed]
    assert list(table) == list(COLUMNS)
    alone = fitted(good, rows.hosts)
    pd.testing.assert_frame_equal(table.loc[alone.index], alone, atol=1e-5, rtol=0)
    unread = table[table.verdict == UNREAD]
    assert list(unread.index) == ["close", "homeless", "stretched", "odd"]
    assert unread[list(NUMBERS)].isna().all(axis=None)
    for uid, word in zip(unread.index, ("apart", "Unobtainium", "supercell", "Qq"), strict=True):
        assert word in unread.reading[uid]
        assert unread.sentence[uid] == unread.reading[uid]
    only = fitted(bad, rows.hosts)
    assert (only.verdict == UNREAD).all()


def test_chunks_do_not_change_predictions(fitted, rows, split, monkeypatch):
    records = [rows[uid] for uid in split.test]
    whole = fitted(records, rows.hosts)
    monkeypatch.setattr(predictor, "CHUNK", 3)
    pd.testing.assert_frame_equal(fitted(records, rows.hosts), whole, atol=1e-5, rtol=1e-4)


def test_what_a_predictor_is_asked_must_make_sense(fitted, rows, split):
    empty = fitted([], rows.hosts)
    assert (len(empty), list(empty), empty.index.name) == (0, list(COLUMNS), "uid")
    record = rows[split.test[0]]
    with pytest.raises(DefectkitError, match=f"{record.uid} stands twice"):
        fitted([record, record], rows.hosts)
    for confidence in (0, 1, 2, -0.5, float("nan")):
        with pytest.raises(DefectkitError, match="confidence"):
            fitted([record], rows.hosts, confidence)


def test_hosts_may_have_any_name_and_defects_may_be_unsaid(fitted, rows, split):
    record = next(rows[uid] for uid in split.test if rows[uid].dopant and rows[uid].removed)
    want = fitted([record], rows.hosts)
    unsaid = replace(record, host="1T", dopant="", removed=(), defecttype="")
    table = fitted([unsaid], {"1T": rows.hosts[record.host]})
    assert table.composition.iloc[0] == pytest.approx(want.composition.iloc[0], abs=1e-6)
    assert table.eform.iloc[0] == pytest.approx(want.eform.iloc[0], abs=1e-6)
