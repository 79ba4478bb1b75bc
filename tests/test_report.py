"""The report on runs: one page without links, one table, sentences for what cannot be compared."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import mx2
from typer.testing import CliRunner

from defectkit import DefectkitError, cli, report
from defectkit.config import RunConfig, save_config, with_values
from defectkit.data.dataset import Dataset
from defectkit.data.splits import Split
from defectkit.evaluate import compare, scores
from defectkit.records import DefectRecord
from defectkit.training.runs import Run

pytestmark = pytest.mark.usefixtures("no_windows")

HOSTS = {name: mx2(name, vacuum=8.0, size=(3, 3, 1)) for name in ("MoS2", "WS2", "WSe2")}
DOPANTS = ("Li", "Cu", "Ag", "Au")


def record(number: int) -> DefectRecord:
    host = list(HOSTS)[number % 3]
    atoms = HOSTS[host].copy()
    atoms.append(DOPANTS[number % 4])
    atoms.positions[-1] = HOSTS[host][0].position + [0, 0, 3.0 + 0.01 * number]
    return DefectRecord(
        uid=f"r{number}", atoms=atoms, host=host, label_source="made up", dopant=atoms[-1].symbol,
        defecttype="adsorbate", site=f"ads{number}", eform=np.sin(number), spin=number % 2,
        unrelaxed=atoms.positions + 0.1,
    )  # fmt: skip


@pytest.fixture
def data(monkeypatch):
    dataset = Dataset("made", "made up", [record(n) for n in range(90)], HOSTS)
    uids = [r.uid for r in dataset.records]
    split = Split("random", 0, None, None, "", tuple(uids[60:]), tuple(uids[30:60]),
                  tuple(uids[:30]), ())  # fmt: skip
    monkeypatch.setattr(report, "load_data", lambda config: (dataset, split))
    return dataset


@pytest.fixture
def run(data, tmp_path):
    """Writes the folder of a run as training would."""

    def write(name: str, seed: int, noise: float, source: str = "made up", **changes) -> Run:
        folder = tmp_path / f"{name}-{seed}"
        folder.mkdir()
        config = RunConfig(model={"name": name})
        save_config(with_values(config, changes), folder / "config.yaml")
        summary = {"seed": seed, "data": "made", "label_source": source}
        (folder / "summary.yaml").write_text(yaml.safe_dump(summary))
        rng = np.random.default_rng(seed)
        table = data.frame[["eform", "spin"]][:60].assign(
            part=["test"] * 30 + ["valid"] * 30,
            eform_pred=lambda t: t.eform + noise * rng.normal(size=60),
            spin_pred=lambda t: t.spin,
        )
        table.to_csv(folder / "predictions.csv")
        return Run(folder)

    return write


def test_the_page_stands_alone_and_the_table_has_the_numbers(run, tmp_path):
    runs = [run("ridge", 0, 0.3), run("ridge", 1, 0.3), run("forest", 0, 0.1)]
    page = report.write(runs, tmp_path / "out")
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing is fetched
    assert "ridge, 2 seeds together" in text
    assert text.count("worst rows") == 2  # of the first seed of each model
    assert "labels of made up" in text
    for words in ("Decisions", "Out-of-domain guard", "What large errors go with", "likely reason"):
        assert words in text
    table = pd.read_csv(tmp_path / "out" / report.TABLE).set_index("run")
    assert list(table.index) == ["ridge-0", "ridge-1", "forest-0"]
    tested = runs[2].part("test")
    assert table.eform_mae["forest-0"] == pytest.approx(scores(tested)["eform_mae"], rel=1e-4)
    expected = compare(tested, runs[0].part("test"))["difference"]
    assert table.difference["forest-0"] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(table.difference["ridge-0"])
    pictures = re.findall(r'alt="([^"]*)"', text)
    assert all(pictures)
    assert sum(one.startswith("the structure of") for one in pictures) == 20


def test_a_single_run_without_moments_has_a_report(run, data, tmp_path):
    only = run("ridge", 0, 0.3)
    path = only.folder / "predictions.csv"
    pd.read_csv(path).assign(spin=np.nan).to_csv(path, index=False)
    text = report.write([only], tmp_path / "out").read_text()
    assert "seeds together" not in text
    assert "magnetic or not" not in text


def test_held_out_hosts_are_drawn_together(run):
    changes = {"data.split.kind": "host", "data.split.fold": 0}
    judged = [report.Judged(run("ridge", 0, 0.3), "test")]
    judged.append(report.Judged(run("forest", 0, 0.3, **changes), "test"))
    assert judged[0].groups is None
    assert set(judged[1].groups) == set(HOSTS)
    assert judged[1].split == "host fold 0"
    table = report.ladder_table(judged)
    assert table.split.tolist() == ["random", "host"]
    assert table.rows.tolist() == [30, 30]
    assert table.eform_mae.tolist() == pytest.approx([scores(j.rows)["eform_mae"] for j in judged])


def test_folds_and_seeds_of_a_model_are_one_row_of_the_ladder(run):
    judged = [report.Judged(run("ridge", seed, 0.3), "test") for seed in (0, 1)]
    table = report.ladder_table(judged)
    assert table.rows.tolist() == [30]
    both = np.mean([scores(j.rows)["eform_mae"] for j in judged])
    assert table.eform_mae.tolist() == pytest.approx([both])
    fast = run("fast", 0, 0.3, **{"model.name": "ridge", "model.settings": {"alpha": 2.0}})
    table = report.ladder_table([*judged, report.Judged(fast, "test")])
    assert table.model.tolist() == ["ridge", "fast"]


def test_other_label_sources_and_unfinished_runs_are_refused(run, tmp_path):
    one, other = run("ridge", 0, 0.3), run("forest", 0, 0.3, source="DFT")
    with pytest.raises(DefectkitError, match=r"DFT and made up.*a report for each"):
        report.write([one, other], tmp_path / "out")
    (one.folder / "summary.yaml").unlink()
    with pytest.raises(DefectkitError, match="no finished run"):
        report.write([one], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DefectkitError, match="cannot be written"):
        report.write([run("ridge", 0, 0.3)], tmp_path / "file")


def test_the_command_line_writes_it(run, tmp_path):
    folder = run("ridge", 0, 0.3).folder
    words = ["evaluate", str(folder), "--report", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "eform_mae" in result.output
    assert str(Path("out") / report.PAGE) in result.output.replace("\n", "")
