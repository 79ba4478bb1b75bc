"""Shipped runs and tables: found by name, missed with a clear sentence."""

import json
from types import SimpleNamespace

import pytest

from defectkit import DefectkitError
from defectkit.training import pretrained
from defectkit.training.run import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(pretrained, "BENCHMARKS", tmp_path)
    return tmp_path


def finished(folder, fingerprint="abc"):
    folder.mkdir()
    (folder / "summary.yaml").write_text(json.dumps({"data_fingerprint": fingerprint}))


def test_a_run_is_found_by_name_and_seed(elsewhere):
    finished(elsewhere / "alignn-2")
    assert pretrained.shipped_run("alignn", 2).folder == elsewhere / "alignn-2"


def test_a_missing_and_an_unfinished_run_are_named(elsewhere):
    (elsewhere / "alignn-0").mkdir()
    for name in ("alignn", "ridge"):
        with pytest.raises(DefectkitError, match=f"'{name}' with seed 0"):
            pretrained.shipped_run(name)


def test_data_in_use_are_kept_where_they_are_the_runs_own(elsewhere, monkeypatch):
    finished(elsewhere / "alignn-0", "abc")
    run = pretrained.shipped_run("alignn")
    monkeypatch.setattr(Run, "config", "its configuration")
    monkeypatch.setattr(
        pretrained, "prepare", lambda config: SimpleNamespace(dataset=f"data of {config}")
    )
    same = SimpleNamespace(fingerprint="abc")
    assert pretrained.data_of(run, same) is same
    other = SimpleNamespace(fingerprint="xyz")
    assert pretrained.data_of(run, other) == "data of its configuration"


def test_whose_labels_a_run_knows_is_said(elsewhere):
    folder = elsewhere / "alignn-0"
    folder.mkdir()
    summary = {"data_fingerprint": "abc", "data": "demo", "label_source": "a potential"}
    (folder / "summary.yaml").write_text(json.dumps(summary))
    run = pretrained.shipped_run("alignn")
    same = SimpleNamespace(fingerprint="abc", name="demo", label_source="a potential")
    assert pretrained.about(run, same) == (
        "The shipped models learned from these rows, labels a potential."
    )
    other = SimpleNamespace(fingerprint="xyz", name="mine", label_source="DFT")
    for words in ("No model of 'mine' is shipped", "rows of 'demo', labels a potential", "DFT"):
        assert words in pretrained.about(run, other)


def test_a_benchmark_is_read_or_missed_by_name(elsewhere):
    (elsewhere / "models_demo.csv").write_text("model,seed\nmean,0\n")
    assert pretrained.benchmark("models_demo").model.tolist() == ["mean"]
    with pytest.raises(DefectkitError, match=r"nothing\.csv is missing"):
        pretrained.benchmark("nothing")
