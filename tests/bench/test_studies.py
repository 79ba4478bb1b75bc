from types import SimpleNamespace

import pandas as pd
import pytest
from run_cases import HYBRID

from defectkit import bench
from defectkit.bench import speed, studies
from defectkit.evaluation.leakage import augmentation_before_split
from defectkit.training.config import StudyConfig, load_config, save_config

VARIANTS = {
    "reference": {"full": {}},
    "attention": {
        "no phi": {"model.settings.phi": False},
        "none": {"model.settings.global_layers": 0},
    },
}


@pytest.mark.parametrize("name", bench.STUDIES)
def test_every_variant_of_a_shipped_study_is_a_valid_configuration(name, tmp_path):
    study = load_config(studies.STUDIES / f"{name}.yaml", StudyConfig)
    jobs = studies.jobs_of(study, tmp_path)
    assert len(study.seeds) >= 3
    assert len({job[-1] for job in jobs}) == len(jobs)  # each has its own folder
    settings = [(str(config), seed) for _, _, seed, config, _ in jobs]
    assert len(set(settings)) == len(jobs), "two variants are the same"


def test_all_variants_of_one_seed_come_before_the_next(tmp_path):
    jobs = studies.jobs_of(StudyConfig(HYBRID, VARIANTS, seeds=(3, 5), splits=True), tmp_path)
    assert [(variant, seed) for _, variant, seed, _, _ in jobs] == [
        (variant, seed) for seed in (3, 5) for variant in ("full", "no phi", "none")
    ]
    assert [job[3].data.split.seed for job in jobs] == [3, 3, 3, 5, 5, 5]
    assert jobs[1][3].model.settings["phi"] is False
    assert jobs[0][3].model.settings == HYBRID.model.settings


def test_a_study_trains_without_the_test_rows_and_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", tmp_path)
    monkeypatch.setattr(studies, "FOLDER", tmp_path / "runs")
    save_config(
        StudyConfig(HYBRID, {"reference": {"full": {}}}, seeds=(0,)), tmp_path / "optim.yaml"
    )
    table = pd.read_csv(bench.run("optim", output=tmp_path / "out"))
    row = table.iloc[0]
    assert (row.group, row.variant, row.seed, row.n_train) == ("reference", "full", 0, 12)
    assert row.eform_mae_lo < row.eform_mae < row.eform_mae_hi
    parts = pd.read_csv(tmp_path / "runs" / "optim" / "reference-full-0" / "predictions.csv").part
    assert set(parts) == {"valid"}


def test_throughput_counts_whole_steps(monkeypatch):
    monkeypatch.setattr(speed, "TRAIN_BATCH", 2)
    monkeypatch.setattr(speed, "INFER_BATCH", 2)
    found = speed.measure_network(HYBRID, seed=0)
    assert found["train_ms"] > found["infer_ms"] > 0
    assert found["edges"] > 50
    assert found["angles"] == 0


def test_parts_of_a_prediction_are_measured_by_size():
    table = pd.DataFrame(speed.measure_parts("hybrid", 0, (50, 28)))
    assert table.part.tolist() == 2 * ["graph", "local", "global", "whole"]
    assert table.n_atoms.tolist() == 4 * [28] + 4 * [50]
    times = table.set_index(["n_atoms", "part"]).ms
    assert times[50, "whole"] > times[50, "global"] > 0
    assert speed.measure_parts("alignn", 0, (28,))[0]["part"] == "alignn"


def test_leakage_rows_are_those_of_the_library_for_every_seed(rows, monkeypatch):
    cleaned = SimpleNamespace(dataset=rows)
    monkeypatch.setattr(studies, "load", lambda name: rows)
    monkeypatch.setattr(studies, "clean", lambda dataset, rules: cleaned)
    for name, value in (("LEAK_ROWS", (20, 30)), ("LEAK_COPIES", (2,)), ("LEAKS", 2)):
        monkeypatch.setattr(studies, name, value)
    table = pd.DataFrame(studies.leakage_rows(5))
    assert list(zip(table.seed, table.n))[::2] == [(5, 20), (5, 30), (6, 20), (6, 30)]
    assert set(table.label_source) == {rows.label_source}
    one = augmentation_before_split(rows, 30, 2, 6).round(4)
    assert one.to_dict("records") == table[-2:][list(one)].to_dict("records")
