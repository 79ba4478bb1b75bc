from dataclasses import replace

import pandas as pd
import pytest
from run_cases import HYBRID

from defectkit import DefectkitError, bench
from defectkit.bench import studies
from defectkit.training import pretrained
from defectkit.training.config import load_config, save_config, with_values
from defectkit.training.pretrained import ladder_runs, published_ladder


def test_every_run_has_its_own_folder_and_learns_from_as_many_rows():
    jobs = list(studies.ladder_jobs())
    assert len({folder for folder, _, _ in jobs}) == len(jobs)
    assert {config.model.name for _, config, _ in jobs} == set(studies.LADDER_MODELS)
    for _, config, _ in jobs:
        shipped = load_config(pretrained.CONFIGS / f"{config.model.name}.yaml")
        shipped = with_values(shipped, studies.COMPACT)
        assert replace(config, data=shipped.data) == shipped
        assert config.data.train_rows == shipped.data.train_rows


def test_hosts_and_dopants_are_all_held_out_once():
    for step in ("host", "dopant"):
        folds = [s["data.split.fold"] for s in studies.STEPS[step]]
        assert sorted(folds) == list(range(5))


def test_the_ladder_is_trained_kept_and_judged(tmp_path, monkeypatch):
    save_config(HYBRID, tmp_path / "hybrid.yaml")
    monkeypatch.setattr(studies, "COMPACT", {"data.train_rows": 12, "epochs": 2})
    monkeypatch.setattr(studies, "CONFIGS", tmp_path)
    monkeypatch.setattr(studies, "LADDER", tmp_path / "ladder")
    monkeypatch.setattr(studies, "LADDER_MODELS", ("hybrid",))
    monkeypatch.setattr(studies, "ENSEMBLE", {"pair": (0, 1)})
    monkeypatch.setattr(studies, "STEPS", {"random": [{}], "pair": studies.FOLDS[:1]})
    table = pd.read_csv(bench.run("ladder", output=tmp_path / "out"))
    assert table.split.tolist() == ["random", "pair"]
    assert (table.eform_mae_lo < table.eform_mae).all()
    kept = {path.name for path in (tmp_path / "ladder").rglob("*") if path.is_file()}
    assert {"config.yaml", "predictions.csv", "summary.yaml"} <= kept
    assert "model.safetensors" not in kept
    monkeypatch.setattr(pretrained, "LADDER", tmp_path / "ladder")
    ((first, second),) = ladder_runs("pair", "hybrid")
    assert (first.summary["seed"], second.summary["seed"]) == (0, 1)
    with pytest.raises(DefectkitError, match="bench ladder"):
        ladder_runs("host", "hybrid")


def test_shipped_runs_of_the_ladder_are_all_there():
    for folder, config, seed in studies.ladder_jobs():
        folds = ladder_runs(config.data.split.kind, config.model.name)
        (run,) = (one for seeds in folds for one in seeds if one.folder == folder)
        assert run.config == config
        assert run.summary["seed"] == seed


def test_the_public_ladder_has_every_step_for_every_model():
    table = published_ladder()
    assert set(table.split) == set(studies.STEPS)
    assert not table.duplicated(["model", "split"]).any()
    assert (table.groupby("model").size() == len(studies.STEPS)).all()
