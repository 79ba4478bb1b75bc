"""The commands `screen` and `label`, from their options to the files that they leave."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pandas as pd
import pytest
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Workers in this process: what starts others is tested elsewhere."""
    monkeypatch.setattr(
        "defectkit.screening.store.executor",
        lambda workers, scheduler: nullcontext(ThreadPoolExecutor(1)),
    )


def run(*words: str):
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_a_screening_from_the_command_line(tmp_path, monkeypatch):
    options = ["--dopants", "Cr, Li", "--kinds", "substitution,vacancy", "--strains", "0,0.01"]
    result = run("screen", "2H-MoS2", *options, "--length", "3", "--next", "2", "-o", str(tmp_path))
    assert result.exit_code == 0
    assert "on the short list" in result.output
    told = pd.read_csv(tmp_path / "shortlist.csv")
    assert set(told.kind) <= {"substitution", "vacancy"}
    assert set(told.strain) <= {0.0, 0.01}
    assert len(pd.read_csv(tmp_path / "next.csv")) == 2

    asked = []
    monkeypatch.setattr(
        "defectkit.screening.label.label",
        lambda screening, keys, path, workers, progress: asked.append((keys, path)) or {},
    )
    assert run("label", str(tmp_path), "--with", "chgnet").exit_code == 0
    assert asked[0][0] == list(pd.read_csv(tmp_path / "next.csv").key)
    assert asked[0][1] == tmp_path / "labels.db"
    (tmp_path / "next.csv").unlink()
    run("label", str(tmp_path))
    assert sorted(asked[1][0]) == sorted(told.key)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MoS3"], "no host 'MoS3'"),
        (["MoS2", "MoS2"], "MoS2 stands twice"),
        (["MoS2", "--dopants", "Xq"], "no element Xq"),
        (["MoS2", "--kinds", "holes"], "no kind of defect holes"),
        (["MoS2", "--strains", "one"], "strain one is no number"),
        (["MoS2", "--width", "0"], "ask for more"),
    ],
)
def test_what_cannot_be_screened_is_said(words, message, tmp_path):
    with pytest.raises(DefectkitError, match=message):
        run("screen", *words, "-o", str(tmp_path / "none"))
    assert not (tmp_path / "none" / "screen.db").exists()


def test_labels_of_others_are_refused(tmp_path):
    with pytest.raises(DefectkitError, match="Nothing here computes labels of vasp"):
        run("label", str(tmp_path), "--with", "vasp")
    with pytest.raises(DefectkitError, match="holds no screening"):
        run("label", str(tmp_path))
