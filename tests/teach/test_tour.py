"""The tour executes notebooks, measures them, makes pages, and says which cell failed."""

import os

import pytest
from page_rules import Seen, assert_site_stands_alone
from typer.testing import CliRunner

from defectkit.cli import app
from defectkit.teach import STRICT, notebooks, site

pytestmark = pytest.mark.slow

PARAMETERS = """# %% [markdown]
# # 0{number} · {title}

# %% tags=["parameters"]
dataset = quick = seed = None

# %%
"""
FINE = """import os
assert (dataset, seed) == ("demo", 0)
assert os.environ["DEFECTKIT_STRICT_CHECKS"]
print("quick is", quick)
block = b"x" * 200_000_000

# %%
import ipywidgets
output = ipywidgets.Output()
with output:
    print("inside")
output
"""
BROKEN = """wanted = 0
# %%
1 / wanted
# %%
print("never reached")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of notebooks in place of the kit's own."""
    (tmp_path / "source").mkdir()
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, number: int, title: str, code: str):
    path = folder / "source" / f"0{number}_{title}.py"
    path.write_text(PARAMETERS.format(number=number, title=title) + code)
    return path


def test_a_notebook_is_executed_measured_and_shown(folder, monkeypatch):
    monkeypatch.delenv(STRICT, raising=False)
    cells = []
    source = write(folder, 0, "fine", FINE)
    visit = notebooks.run(source, folder / "out", on_cell=lambda *call: cells.append(call))
    assert visit.error == ""
    assert visit.title == "00 · fine"
    assert 0.3 < visit.seconds < 120
    assert 220 < visit.peak_mb < 600  # a bare kernel takes about 50 MB
    assert [call[1:3] for call in cells] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert cells[0][::3] == ("00_fine", "00 · fine")
    assert "quick is True" in (folder / "out/00_fine.ipynb").read_text()
    assert STRICT not in os.environ


def test_full_mode_is_handed_to_the_notebook(folder):
    notebooks.run(write(folder, 0, "fine", FINE), folder / "out", full=True)
    assert "quick is False" in (folder / "out/00_fine.ipynb").read_text()


def test_command_line_shows_the_failing_cell_and_goes_on(folder, capfd):
    write(folder, 0, "broken", BROKEN)
    write(folder, 1, "fine", FINE)
    result = CliRunner().invoke(app, ["tour"])
    assert result.exit_code == 1
    assert "1 / wanted" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    cells = capfd.readouterr().out + result.stdout  # of their own processes, where there are two
    assert "00_broken  cell 3/5  00 · broken" in cells
    assert "01_fine  cell 4/4  01 · fine" in cells
    lines = [line.split() for line in result.stdout.splitlines()]
    assert any(line[:1] == ["00_broken"] and line[-1] == "FAILED" for line in lines)
    assert any(line[:1] == ["01_fine"] and line[-1] == "through" for line in lines)
    table = Seen((folder / "build/tour/notebooks.html").read_text())
    assert "00_broken.html" in table.links()
    assert table.prose.count("failed") == 1
    assert "00 · broken" in table.prose
    assert "never reached" in (folder / "build/tour/00_broken.html").read_text()


def test_command_line_runs_the_notebooks_asked_for(folder):
    write(folder, 0, "broken", BROKEN)
    write(folder, 1, "fine", FINE)
    result = CliRunner().invoke(app, ["tour", "01", "--output", "pages"])
    assert result.exit_code == 0, result.output
    names = {path.name for path in (folder / "pages").iterdir()}
    assert {"01_fine.html", "01_fine.ipynb", "index.html"} <= names
    assert not any(name.startswith("00_broken") for name in names)
    assert_site_stands_alone(folder / "pages")


def test_a_kernel_that_dies_is_reported(folder):
    visit = notebooks.run(write(folder, 0, "dead", "import os; os._exit(1)"), folder / "out")
    assert "Kernel died" in visit.error


def test_a_cell_that_takes_too_long_is_stopped(folder, monkeypatch):
    monkeypatch.setitem(notebooks.CELL_SECONDS, "quick", 2)
    visit = notebooks.run(write(folder, 0, "slow", "import time; time.sleep(60)"), folder / "out")
    assert "timed out" in visit.error
    assert visit.seconds < 40
