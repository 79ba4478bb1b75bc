"""The report on runs: one page without links, one table, sentences for what cannot be compared."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import mx2
from typer.testing import CliRunner

from defectkit import DefectkitError, cli
from defectkit.bench import judge, report
from defectkit.data.dataset import Dataset
from defectkit.evaluation.metrics import compare, scores
from defectkit.structures.record import DefectRecord
from defectkit.training.config import RunConfig, save_config, with_values
from defectkit.training.run import Run

pytestmark = pytest.mark.usefixtures("no_windows")

HOSTS = {name: mx2(name, vacuum=8.0, size=(3, 3, 1)) for name in ("MoS2", "WS2", "WSe2")}
DOPANTS = ("Li", "Cu", "Ag", "Au")


def record(number: int) -> DefectRecord:
    host = list(HOSTS)[number % 3]
    atoms = HOSTS[host].copy()
    atoms.append(DOPANTS[number % 4])
    atoms.positions[-1] = HOSTS[host][0].position + [0, 0, 3.0 + 0.01 * number]
    return DefectRecord(
        uid=f"r{number}",
        atoms=atoms,
        host=host,
        label_source="made up",
        dopant=atoms[-1].symbol,
        defecttype="adsorbate",
        site=f"ads{number}",
        eform=np.sin(number),
        spin=number % 2,
        unrelaxed=atoms.positions + 0.1,
    )


@pytest.fixture
def data(monkeypatch):
    dataset = Dataset("made", "made up", [record(n) for n in range(90)], HOSTS)
    uids = [r.uid for r in dataset.records]
    monkeypatch.setattr(judge, "learned_from", lambda run: (dataset, uids[60:]))
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
        summary |= {
            "data_fingerprint": "d",
            "split_fingerprint": str(with_values(config, changes).data.split),
        }
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
    assert "Left out" not in text
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
    judged = [judge.Judged(run("ridge", 0, 0.3), "test")]
    judged.append(judge.Judged(run("forest", 0, 0.3, **changes), "test"))
    assert judged[0].groups is None
    assert set(judged[1].groups) == set(HOSTS)
    assert judged[1].split == "host fold 0"
    table = judge.errors_by_split(judged)
    assert table.split.tolist() == ["random", "host"]
    assert table.rows.tolist() == [30, 30]
    assert table.eform_mae.tolist() == pytest.approx([scores(j.rows)["eform_mae"] for j in judged])


def test_folds_and_seeds_of_a_model_are_one_row_of_the_ladder(run):
    judged = [judge.Judged(run("ridge", seed, 0.3), "test") for seed in (0, 1)]
    table = judge.errors_by_split(judged)
    assert table.rows.tolist() == [30]
    both = np.mean([scores(j.rows)["eform_mae"] for j in judged])
    assert table.eform_mae.tolist() == pytest.approx([both])
    fast = run("fast", 0, 0.3, **{"model.name": "ridge", "model.settings": {"alpha": 2.0}})
    table = judge.errors_by_split([*judged, judge.Judged(fast, "test")])
    assert table.model.tolist() == ["ridge", "fast"]


def test_the_ladder_compares_models_on_the_same_rows(run):
    noise = {"ridge": 0.3, "forest": 0.3, "mean": 1.5}
    judged = [judge.Judged(run(name, 0, size), "test") for name, size in noise.items()]
    table = judge.errors_by_split(judged, reference="ridge").set_index("model")
    assert np.isnan(table.difference["ridge"])
    for name in ("forest", "mean"):
        gap = table.eform_mae[name] - table.eform_mae["ridge"]
        assert table.difference[name] == pytest.approx(gap)
        assert table.difference_lo[name] <= gap <= table.difference_hi[name]
    assert table.difference_lo["mean"] > 0


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


def keep(run: Run, *parts: tuple[str, int]) -> Run:
    """The run with the first so many predictions of each part."""
    table = pd.read_csv(run.folder / "predictions.csv", index_col="uid")
    some = pd.concat([table[table.part == part][:n] for part, n in parts])
    some.to_csv(run.folder / "predictions.csv")
    return run


def test_runs_of_a_split_are_judged_on_the_rows_that_all_of_them_predict(run, tmp_path):
    whole, fewer = run("ridge", 0, 0.3), keep(run("forest", 0, 0.1), ("test", 25), ("valid", 30))
    judged = judge.judge([whole, fewer])
    assert [one.left_out for one in judged] == [5, 0]
    table = judge.metrics(judged).set_index("run")
    assert table.rows.tolist() == [25, 25]
    expected = scores(whole.part("test").loc[fewer.part("test").index])
    assert table.eform_mae["ridge-0"] == pytest.approx(expected["eform_mae"])
    assert np.isfinite(table.difference["forest-0"])
    assert "5 of ridge-0" in report.write([whole, fewer], tmp_path / "out").read_text()
    ladder = judge.errors_by_split([judge.Judged(one, "test") for one in (whole, fewer)])
    assert ladder.rows.tolist() == [25, 25]
    other = run("mean", 0, 0.1, **{"data.split.seed": 1})
    assert [one.left_out for one in judge.judge([whole, other])] == [0, 0]
    result = CliRunner().invoke(cli.app, ["evaluate", str(whole.folder), str(fewer.folder)])
    assert "5 of ridge-0" in result.output


@pytest.mark.parametrize("kind", ["host", "dopant", "pair", "leave-one-host-out", "block"])
def test_intervals_of_a_group_split_are_drawn_by_groups_everywhere(run, kind, monkeypatch):
    changes = {"data.split.kind": kind}
    if kind in ("host", "dopant", "pair"):
        changes["data.split.fold"] = 0
    one = judge.Judged(run("ridge", 0, 0.3, **changes), "test")
    assert one.groups is not None
    expected = scores(one.rows, groups=one.groups)
    words = [f"{expected[name]:.3f}" for name in ("eform_mae", "eform_mae_lo", "eform_mae_hi")]
    by_rows = scores(one.rows)
    assert words[1:] != [f"{by_rows[name]:.3f}" for name in ("eform_mae_lo", "eform_mae_hi")]
    result = CliRunner().invoke(cli.app, ["evaluate", str(one.run.folder)])
    assert result.exit_code == 0, result.output
    head, line = result.output.split("\n")[0].split(), result.output.split("\n")[2].split()
    assert {"rows", "groups"} < set(head)
    assert set(words) <= set(line)
    assert {"30", str(one.groups.nunique())} <= set(line)


def test_one_held_out_host_has_no_interval(run, data):
    one = run("ridge", 0, 0.3, **{"data.split.kind": "leave-one-host-out"})
    rows = pd.read_csv(one.folder / "predictions.csv", index_col="uid")
    rows[data.frame.host[rows.index] == "MoS2"].to_csv(one.folder / "predictions.csv")
    table = judge.metrics(judge.judge([one]))
    assert table.groups.tolist() == [1]
    assert table.eform_mae_lo.isna().all()


def test_validation_rows_do_not_judge_what_they_calibrated(run, tmp_path):
    runs = [run("ridge", seed, 0.3) for seed in (0, 1)]
    text = report.write(runs, tmp_path / "valid", "valid").read_text()
    assert "cannot judge them" in text
    for words in ("Out-of-domain guard", "reliability", "coverage"):
        assert words not in text
        assert words in report.write(runs, tmp_path / "test").read_text()


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_have_a_page_that_says_what_is_left_out(run, tmp_path, n):
    runs = [keep(run("ridge", seed, 0.3), ("test", n), ("valid", n)) for seed in (0, 1)]
    text = report.write(runs, tmp_path / "out").read_text()
    assert "30 training rows" in text
    assert "Left out: choice of a dopant of a host" in text
    assert ("Left out: errors over the spread" in text) == (n == 1)


def test_a_run_given_twice_is_no_ensemble(run):
    one, other = (run("ridge", seed, 0.3) for seed in (0, 1))
    judged = judge.judge([one, one, other])
    assert [len(seeds) for seeds in judge.by_model(judged)] == [2, 1]


def test_costs_are_shown_beside_runs_on_the_same_data_only(run, monkeypatch):
    one = run("ridge", 0, 0.3)
    costs = pd.DataFrame({"data_fingerprint": ["d", "d"], "model": ["a", "b"]})
    monkeypatch.setattr(report, "benchmark", lambda name: costs)
    assert report._costs(one) is costs
    costs.data_fingerprint = "other"
    assert report._costs(one) is None
