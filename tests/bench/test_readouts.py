from dataclasses import replace

import pandas as pd
from run_cases import HYBRID

from defectkit import bench
from defectkit.bench import studies
from defectkit.training.config import StudyConfig, load_config, save_config
from defectkit.training.prepared import prepare


def test_the_ablation_has_every_read_out():
    study = load_config(studies.STUDIES / "ablation.yaml", StudyConfig)
    variants = {name for group in study.variants.values() for name in group}
    assert set(studies.READOUTS) <= variants


def test_a_sum_over_atoms_grows_with_the_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", tmp_path)
    monkeypatch.setattr(studies, "FOLDER", tmp_path / "runs")
    variants = {"read-out": {n: {"model.settings.readout": n} for n in ("sum", "defect")}}
    save_config(StudyConfig(HYBRID, variants, seeds=(0,)), tmp_path / "ablation.yaml")
    whole = prepare(HYBRID)
    few = replace(whole.split, valid=whole.split.valid[::14])
    monkeypatch.setattr(studies, "prepare", lambda config: replace(whole, config=config, split=few))
    table = pd.read_csv(bench.run("readouts", output=tmp_path / "out")).set_index("readout")
    assert set(table.index) == {"sum", "defect"}
    assert 10 < table.n.iloc[0] < len(few.valid)
    assert (table.natoms_larger > 1.5 * table.natoms).all()
    assert abs(table.change["sum"]) > 10 * abs(table.change["defect"])
    assert (table.lo <= table.slope).all()
    assert (table.slope <= table.hi).all()
