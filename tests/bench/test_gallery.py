"""The figures of README and of the architecture: they are there, small, and made by the command."""

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from defectkit import cli
from defectkit.bench import figures

LARGEST = 300_000  # bytes


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_page_shows_a_figure_that_is_there_and_small(name):
    path = figures.FOLDER / f"{name}.png"
    assert path.stat().st_size <= LARGEST
    pages = [figures.ROOT / "README.md", figures.ROOT / "docs" / "architecture.md"]
    shown = [f"({path.relative_to(page.parent)})" in page.read_text("utf-8") for page in pages]
    assert shown.count(True) == 1


def test_no_other_file_lies_beside_them():
    assert {path.stem for path in figures.FOLDER.iterdir()} == set(figures.NAMES)


@pytest.mark.slow
@pytest.mark.usefixtures("no_windows")
def test_the_command_makes_them(tmp_path):
    result = CliRunner().invoke(cli.app, ["figures", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.exception
    for name in figures.NAMES:
        path = tmp_path / f"{name}.png"
        assert path.stat().st_size <= LARGEST
        assert plt.imread(path).shape == plt.imread(figures.FOLDER / f"{name}.png").shape
