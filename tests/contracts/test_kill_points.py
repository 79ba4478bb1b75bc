"""Killed at any moment and begun again, work is lost nowhere, done twice nowhere, torn nowhere."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import killed
import pandas as pd
import pytest
from ase.db import connect

from defectkit.training.engine import METRICS
from defectkit.training.run import PREDICTIONS, Run
from defectkit.training.tune import TRIALS

HERE = Path(__file__).parents[1]
PATIENCE = 240  # s for a job, on a machine that has much else to do

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that fork")


@pytest.fixture
def after(few, tmp_path, monkeypatch) -> Callable[[str], tuple[Path, Path]]:
    """Does a job undisturbed and under kills, and gives the folder of each."""
    (tmp_path / "rows.pickle").write_bytes(pickle.dumps(few))
    data = {"DEFECTKIT_DATA": str(tmp_path / "data")}

    def run(job: str) -> tuple[Path, Path]:
        done = subprocess.run(
            [sys.executable, HERE / "killed.py", job, tmp_path],
            env=os.environ | data | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        print(f"\n{job}: {done.stdout.strip()} killed")
        assert int(done.stdout) > 3
        return tmp_path / "whole", tmp_path / "killed"

    return run


def names(folder: Path) -> list[str]:
    """Of all files, but for parts that a killed writer left."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if ".part" not in path.name)


def test_a_run(after):
    whole, place = after("train")
    for name in (METRICS, PREDICTIONS, "model.safetensors", "model.yaml", "run.json"):
        assert (place / name).read_bytes() == (whole / name).read_bytes(), name
    assert pd.read_csv(place / METRICS).epoch.tolist() == list(range(killed.RUN.epochs))
    first, second = Run(whole).summary, Run(place).summary
    for name in set(first) - {"train_s_per_epoch"}:
        assert first[name] == second[name], name
    assert sorted(p.name for p in place.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_a_search(after):
    whole, place = after("tune")
    first, second = (pd.read_csv(folder / TRIALS) for folder in (whole, place))
    second = second[second.state != "FAIL"]  # what was under way when it was killed
    assert len(second) == killed.SEARCH.trials
    shown = ["value", "model.settings.alpha"]
    assert second[shown].to_numpy().tolist() == first[shown].to_numpy().tolist()
    assert (place / "best.yaml").read_bytes() == (whole / "best.yaml").read_bytes()
    assert names(place) == names(whole)


def test_a_demo_database(after):
    whole, place = after("demo build")
    found = [
        sorted((row.name, row.natoms, row.eform) for row in connect(folder / killed.DEMO).select())
        for folder in (whole, place)
    ]
    assert found[0] == found[1]
    assert len(set(found[1])) == len(found[1]) == killed.DEMO_ROWS
    metadata = connect(place / killed.DEMO).metadata
    assert sum(run["rows"] for run in metadata["runs"]) <= killed.DEMO_ROWS


@pytest.mark.parametrize("job", ["graphs", "split"])
def test_a_file_is_there_whole_or_not_at_all(after, job):
    whole, place = after(job)
    assert names(place) == names(whole)
    for name in names(whole):
        assert (place / name).read_bytes() == (whole / name).read_bytes(), name
