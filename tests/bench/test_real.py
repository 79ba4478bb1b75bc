"""The benchmark of 2DMD on a few of its rows, and its table in README."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from real_rows import some_rows

from defectkit import DefectkitError, bench
from defectkit.bench import measure, real
from defectkit.bench.tables import COLUMNS_2DMD, interval_table, real_table
from defectkit.training.config import load_config
from defectkit.training.pretrained import CONFIGS, published_2dmd

ROWS = {"high_MoS2": 90, "low_WSe2": 40}
COLUMNS = (
    "task target subset model seed n_train n_test mae mae_lo mae_hi "
    "coverage train_s infer_ms n_params"
).split()
FEW = {"lightgbm": "{n_estimators: 20}", "sites": "{hidden: 8, pair: 4, layers: 1}"}


@pytest.fixture(scope="module")
def folder(real_data, tmp_path_factory, own_cache) -> Path:
    """Some rows of two subsets, in the layout of the complete data."""
    return some_rows(real_data, tmp_path_factory.mktemp("2dmd"), ROWS)


@pytest.fixture(scope="module")
def table(folder, tmp_path_factory) -> pd.DataFrame:
    """The benchmark with small models, one of which learns from one subset."""
    place = tmp_path_factory.mktemp("bench")
    (place / "configs" / "2dmd").mkdir(parents=True)
    graph = "graph: {nodes: defects, image_radius: 20.0, angle_cutoff: null}\n"
    for name in ("mean", "composition", "pairs", "lightgbm", "sites"):
        settings = f", settings: {FEW[name]}" if name in FEW else ""
        text = "data: {name: 2dmd, split: {kind: subset}}\n" + graph
        text += f"model: {{name: {name}{settings}}}\nepochs: 1\n"
        (place / "configs" / "2dmd" / f"{name}.yaml").write_text(text)
    one = "data: {name: 2dmd, path: high_MoS2, split: {kind: subset}}\nmodel: {name: pairs}\n"
    (place / "configs" / "2dmd" / "alone.yaml").write_text(one + graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real, "CONFIGS", place / "configs")
        patch.setattr(real, "FOLDER", place / "runs")
        patch.setattr(real, "SEEDS", (0, 1))
        file = bench.run("models_2dmd", output=place, path=folder)
        runs = {run.name: run.stat().st_mtime_ns for run in (place / "runs").glob("*/run.json")}
        table = pd.read_csv(file)
        bench.run("models_2dmd", output=place, path=folder)
        assert runs == {r.name: r.stat().st_mtime_ns for r in (place / "runs").glob("*/run.json")}
    assert len(list((place / "runs").iterdir())) == (5 * 2 + 1) * 2  # alone has no gap
    return table


def test_a_row_a_target_subset_model_and_seed(table):
    assert list(table)[: len(COLUMNS)] == COLUMNS
    assert {"data_fingerprint", "machine", "command"} < set(table)
    whole = ["composition", "lightgbm", "mean", "pairs", "sites", "sites x2"]
    for target, part in table.groupby("target"):
        everywhere = part[part.model != "alone"]
        counts = everywhere.groupby("model").subset.value_counts().unstack()
        assert counts.index.tolist() == whole
        assert counts.columns.tolist() == ["high_MoS2", "low_WSe2", "mean of 2"]
        assert (counts.drop("sites x2") == 2).all(axis=None)
        assert (counts.loc["sites x2"] == 1).all()
        alone = part[part.model == "alone"]
        assert alone.subset.unique().tolist() == ["high_MoS2"] * (target == "eform")
        assert set(alone.n_train) <= {63}
        assert (everywhere.n_train == 63 + 28).all()
    assert table.n_test.unique().tolist() == [18, 8, 26]
    assert table.seed.isna().sum() == 2 * 3
    assert ((table.mae_lo < table.mae) & (table.mae < table.mae_hi)).all()
    assert (table.n_params > 0).eq(table.model.str.startswith("sites")).all()


def test_a_subset_alone_is_judged_on_the_rows_that_all_are_judged_on(table):
    """A model that reads each host by itself has the same error alone."""
    errors = table[table.subset == "high_MoS2"].set_index(["target", "seed", "model"]).mae
    alone, whole = errors["eform", 0, "alone"], errors["eform", 0, "pairs"]
    assert alone == pytest.approx(whole, abs=2e-5)


def test_the_mean_of_subsets_weighs_them_alike(table):
    for _, rows in table.groupby(["target", "model", "seed"]):
        mae = rows.set_index("subset").mae
        if "mean of 2" in mae:
            expected = (mae["high_MoS2"] + mae["low_WSe2"]) / 2
            assert mae["mean of 2"] == pytest.approx(expected, abs=2e-5)


def test_a_gap_does_not_grow_with_the_defect():
    folder = Path("data")
    sites, pairs = CONFIGS / "2dmd" / "sites.yaml", CONFIGS / "2dmd" / "pairs.yaml"
    assert real.configured(sites, folder, "gap").model.settings["extensive"] is False
    assert "extensive" not in real.configured(sites, folder, "eform").model.settings
    assert real.configured(pairs, folder, "gap").model == load_config(pairs).model
    assert real.configured(pairs, folder, "gap").data.target == "gap"


def test_the_table_is_not_overwritten_by_that_of_all_atoms(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefectkitError, match="bench models_2dmd"):
        bench.run("models", data="2dmd", path=tmp_path)
    with pytest.raises(DefectkitError, match="no use for --data demo"):
        bench.run("models_2dmd", data="demo")
    assert not list(tmp_path.rglob("*.csv"))
    assert measure.BENCHES["models_2dmd"] == ("real", "model_rows")


def test_published_errors_are_of_every_subset():
    published = published_2dmd()
    assert set(published.subset) == set(COLUMNS_2DMD)
    assert set(published.split) == {"another split"}
    by_model = published.pivot(index="model", columns="subset", values="mae")
    mean = by_model.pop("mean of 8")
    np.testing.assert_allclose(by_model.mean(axis=1), mean, atol=1e-4)
    assert mean["sparse MEGNet"] == mean.min() == pytest.approx(0.0371)


def test_readme_shows_published_errors_beside_ours():
    rows = [
        {"target": target, "subset": subset, "model": model, "seed": seed, "mae": error}
        for target in real.TARGETS
        for model, error in (("mean", 1.0), ("sites", 0.03), ("hybrid", 0.02))
        for seed in (0, 1)
        for subset in (COLUMNS_2DMD if model != "hybrid" else COLUMNS_2DMD[:1])
    ]
    table = pd.DataFrame(rows).assign(n_params=0, train_s=61.4, infer_ms=0.0512)
    table = table.assign(mae_lo=table.mae - 0.01, mae_hi=table.mae + 0.01)
    table.loc[table.model == "sites", "n_params"] = 1234
    eform, gap = real_table(table).split("Gap between")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in eform.splitlines()
        if line.startswith("|")
    ]
    assert lines[0][:4] == ["model", "split", "low MoS2", "low WSe2"]
    by_model = {cells[0]: cells[1:] for cells in lines[2:]}
    models = list(by_model)
    assert models[0] == "hybrid"
    assert models[-2:] == ["sparse MEGNet", "sites"]
    assert by_model["sites"][0] == "this"
    assert by_model["sites"][-4:] == ["20.0–40.0", "1,234", "61", "0.051"]
    assert by_model["sparse MEGNet"][:2] == ["another split", "3.9"]
    assert by_model["sparse MEGNet"][-5:] == ["37.1", "–", "–", "–", "–"]
    assert by_model["hybrid"][1:3] == ["20.0", "–"]
    assert "MEGNet" not in gap


def test_intervals_of_the_shipped_networks_subset_by_subset(folder, tmp_path):
    table = pd.read_csv(bench.run("intervals_2dmd", output=tmp_path, path=folder))
    assert table.groupby("target").subset.agg(list).to_dict() == {
        target: ["high_MoS2", "low_WSe2"] for target in ("eform", "gap")
    }
    assert table.n_test.tolist() == 2 * [18, 8]
    assert table.by_kind.between(0.5, 1).all()
    wider = table.by_kind_width > table.together_width
    assert wider.tolist() == 2 * [True, False]
    few, more = interval_table(table.iloc[2:]).splitlines()[2:]
    assert "all rows together" in few
    assert more.split("|")[1:3] == few.split("|")[1:2] + [" kind by kind, as shipped "]
