"""From a database file to the table of all models, with one command."""

import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from defectkit.bench import models
from defectkit.cli import app
from defectkit.training.config import load_config

FEW = ("mean", "lightgbm", "hybrid", "hybrid-unrelaxed")


@pytest.fixture
def few_runs(monkeypatch, tmp_path):
    """Some of the configurations with one seed, and their runs in a folder of the test's."""
    monkeypatch.setattr(models, "config_files", lambda: [models.CONFIGS / f"{n}.yaml" for n in FEW])
    monkeypatch.setattr(models, "SEEDS", (0,))
    monkeypatch.setattr(models, "ROOT", tmp_path)
    # A process of its own for each measurement begins with ten seconds of imports.
    monkeypatch.setattr(models, "in_own_process", lambda work, *given: work(*given))
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path / "data"))


def test_one_command_goes_from_the_database_to_the_table(few_runs, trap_database, tmp_path):
    command = ["reproduce", "imp2d", "--path", str(trap_database), "epochs=1"]
    command += ["--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "not_converged" in result.output  # what cleaning removed
    table = pd.read_csv(tmp_path / "out" / "models_imp2d.csv")
    # The rows have no positions before relaxation, so there is nothing to screen with.
    assert table.model.tolist() == ["mean", "lightgbm", "hybrid"]
    assert (table.task == "imp2d").all()
    assert table.eform_mae.notna().all()
    assert re.search(r"\| hybrid +\| relaxed +\|", result.output)
    run = tmp_path / "build" / "runs" / "imp2d" / "hybrid-0"
    assert load_config(run / "config.yaml").epochs == 1
    assert (run / "model.safetensors").is_file()
    again = CliRunner().invoke(app, command)  # all runs are there
    assert again.exit_code == 0, again.output
