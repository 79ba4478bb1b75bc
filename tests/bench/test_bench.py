import numpy as np
import pandas as pd
import pytest
import yaml
from ase.neighborlist import neighbor_list
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner

from defectkit import DefectkitError, bench
from defectkit.bench import measure, models, speed, studies
from defectkit.cli import app
from defectkit.graphs.periodic import nearest_edges
from defectkit.training.config import ModelConfig, RunConfig, save_config
from defectkit.training.pretrained import benchmark, shipped_run
from defectkit.training.run import Run

COLUMNS = [
    "builder",
    "n_atoms",
    "ms_per_structure",
    "peak_mb",
    "versions",
    "machine",
    "command",
    "seed",
]


@pytest.mark.parametrize("n_atoms", speed.BUILDER_SIZES)
def test_structures_have_the_size_asked_for_and_no_overlap(n_atoms):
    atoms = speed.mos2_with_adatoms(n_atoms, seed=0)
    assert len(atoms) == n_atoms
    assert "Au" in atoms.symbols
    assert neighbor_list("d", atoms, 5.0).min() > 2.0
    a, b = atoms.cell.lengths()[:2]
    assert b / a < 4.1
    assert speed.mos2_with_adatoms(n_atoms, seed=0) == atoms
    assert speed.mos2_with_adatoms(n_atoms, seed=1) != atoms


def test_the_plain_loop_finds_the_same_nearest_neighbours():
    atoms = speed.mos2_with_adatoms(28, seed=0)
    pos, cell = atoms.positions, atoms.cell.array
    j, i, vectors = map(np.asarray, speed.nearest_loop(AseAtomsAdaptor.get_structure(atoms)))
    shift = np.rint((vectors - pos[j] + pos[i]) @ np.linalg.inv(cell)).astype(int)
    plain = set(map(tuple, np.column_stack([j, i, shift]).tolist()))
    assert len(plain) == len(vectors)
    (j, i), shift = nearest_edges(pos, cell, atoms.pbc, 12)
    back_and_forth = np.concatenate(
        [np.column_stack([j, i, shift]), np.column_stack([i, j, -shift])]
    )
    assert plain == set(map(tuple, back_and_forth.tolist()))


def test_every_builder_is_measured_in_its_own_process(monkeypatch):
    few = ("vesin", "ase")  # vesin loads torch where it is installed
    monkeypatch.setattr(speed, "BUILDERS", {name: speed.BUILDERS[name] for name in few})
    rows = speed.graph_rows(seed=0, sizes=(10, 7))
    assert [(row["builder"], row["n_atoms"]) for row in rows] == [
        (name, n) for name in few for n in (7, 10)
    ]
    assert all(row["ms_per_structure"] > 0 for row in rows)
    with_torch, without = rows[0], rows[2]
    assert with_torch["peak_mb"] > without["peak_mb"] + 50
    assert "vesin" in with_torch["versions"]


def test_command_writes_the_table(tmp_path, monkeypatch):
    def rows(seed):
        return [
            {"builder": "b", "n_atoms": 3, "ms_per_structure": 1.5, "peak_mb": 9, "versions": "x 1"}
        ]

    monkeypatch.setattr(speed, "graph_rows", rows)
    result = CliRunner().invoke(app, ["bench", "graphs", "--seed", "5", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "graphs.csv")
    assert list(table.columns) == COLUMNS
    assert table.command[0] == "defectkit bench graphs --seed 5"
    assert "1.5" in result.output
    with pytest.raises(DefectkitError, match="choose from graphs"):
        bench.run("nothing", output=tmp_path)


@pytest.mark.parametrize("name", [name for name in bench.BENCHES if name not in bench.ON_DATA])
def test_options_without_a_use_are_refused(name, tmp_path, monkeypatch):
    def rows(*arguments, **given):
        raise AssertionError("nothing is measured")

    module, function = bench.BENCHES[name]
    monkeypatch.setattr(f"defectkit.bench.{module}.{function}", rows)
    table = tmp_path / f"{name}.csv"
    table.write_text("kept\n")
    options = [{"data": "imp2d"}, {"changes": ["epochs=1"]}]
    options += [] if name in (*bench.STUDIES, *measure.REAL) else [{"path": tmp_path}]
    for option in options:
        with pytest.raises(DefectkitError, match=f"`bench {name}` measures .* has no use for"):
            bench.run(name, output=tmp_path, **option)
    assert table.read_text() == "kept\n"
    if name not in bench.STUDIES:
        result = CliRunner().invoke(app, ["bench", name, "--data", "imp2d"])
        assert isinstance(result.exception, DefectkitError)


def test_the_data_that_a_benchmark_knows_may_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "graph_rows", lambda seed: [{"n_atoms": 3}])
    assert bench.run("graphs", output=tmp_path, data="demo").is_file()
    assert measure._own_data("transfer") == "2dmd"


def test_the_table_of_other_data_is_not_overwritten(tmp_path, monkeypatch):
    fingerprints = iter(["one", "one", "other", "other"])
    monkeypatch.setattr(measure, "_fingerprint", lambda data, path: next(fingerprints))
    found = {"n_test": 5, "data_fingerprint": "one"}
    monkeypatch.setattr(models, "model_rows", lambda **given: [found])
    given = {"output": tmp_path / "out", "data": str(tmp_path / "mine")}
    file = bench.run("models", **given)
    assert file == tmp_path / "out" / "models_mine.csv"
    bench.run("models", **given)
    bench.run("models", **given)
    with pytest.raises(DefectkitError, match=r"models_mine\.csv is a table of other data"):
        bench.run("models", **given)
    file.write_text("n_test\n5\n")  # it does not say of what data
    with pytest.raises(DefectkitError, match="other data"):
        bench.run("models", **given)


def run_of(folder, name, uids, **summary) -> Run:
    """The folder of a run as training writes it, with predictions that are off by one."""
    folder = folder / f"{name}-0"
    folder.mkdir()
    save_config(RunConfig(ModelConfig(name)), folder / "config.yaml")
    values = {"seed": 0, "data": "made", "label_source": "made up", "data_fingerprint": "d"}
    values |= {
        "split_fingerprint": "s",
        "rows": {"train": 9, "valid": 0, "test": len(uids)},
        "parameters": 0,
    }
    values |= {"train_s_per_epoch": 1.0, **summary}
    (folder / "summary.yaml").write_text(yaml.safe_dump(values))
    labels = np.array([float(uid[1:]) for uid in uids])
    table = {"part": "test", "eform": labels, "spin": 1.0, "eform_pred": labels + 1 / (labels + 1)}
    pd.DataFrame(table | {"spin_pred": 1.0}, pd.Index(uids, name="uid")).to_csv(
        folder / "predictions.csv"
    )
    return Run(folder)


def test_all_models_of_a_table_are_tested_on_the_same_rows(tmp_path, monkeypatch):
    uids = [f"r{n}" for n in range(9)]
    found = {"ridge": run_of(tmp_path, "ridge", uids), "mean": run_of(tmp_path, "mean", uids[2:])}
    monkeypatch.setattr(models, "runs", lambda *given: iter(found.items()))
    monkeypatch.setattr(models, "in_own_process", lambda *given: {"infer_ms_b64": 1.0})
    table = pd.DataFrame(models.model_rows(0))
    assert table.n_test.tolist() == [7, 7]
    assert table.left_out.tolist() == ["r0; r1"] * 2
    expected = np.mean([1 / (n + 1) for n in range(2, 9)])
    assert table.eform_mae.tolist() == pytest.approx([expected] * 2, abs=1e-4)
    found["forest"] = run_of(tmp_path, "forest", uids, label_source="DFT")
    with pytest.raises(DefectkitError, match="DFT and made up"):
        models.model_rows(0)


def test_both_inputs_are_tested_on_the_same_rows(monkeypatch):
    def predicted(name, seed):
        rows = pd.DataFrame({"eform": [0.0, 5.0], "eform_pred": 1.0, "spin": 0.0, "spin_pred": 0.0})
        yield "relaxed", rows.set_axis(["a", "b"])
        yield "unrelaxed", rows.set_axis(["a", "b"])[:1]

    monkeypatch.setattr(models, "_predicted", predicted)
    monkeypatch.setattr(models, "HYBRIDS", ("hybrid",))
    monkeypatch.setattr(models, "SEEDS", (0,))
    table = pd.DataFrame(models.position_rows(0))
    assert table.n_test.tolist() == [1, 1]
    assert table.eform_mae.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["models_demo", "positions"])
def test_shipped_tables_have_one_set_of_test_rows(name):
    table = benchmark(name)
    assert table.n_test.nunique() == 1
    if name == "models_demo":
        assert table.left_out.nunique() == 1
        assert {"names", "ridge", "hybrid", "hybrid-unrelaxed"} <= set(table.model)
        left_out = shipped_run("hybrid-unrelaxed").summary["left_out"]
        assert set(table.left_out[0].split("; ")) <= set(left_out)


def test_shipped_ladder_has_every_model_on_the_same_rows():
    table = benchmark("ladder")
    assert set(table.model) == set(studies.LADDER_MODELS)
    assert (table.groupby("split")[["rows"]].nunique() == 1).all(axis=None)


def test_predictions_are_timed_part_by_part(monkeypatch):
    from defectkit.bench import speed

    monkeypatch.setattr(speed, "OWN_STRUCTURES", 3)
    measured = speed.measure_predictions(28, 0)
    assert [part for part, *_ in measured] == [
        "read, host found",
        "read, host given",
        "predicted and judged",
        "all, host given",
    ]
    assert all(n == 28 and per_s > 0 and peak > 100 for _, n, per_s, peak in measured)
