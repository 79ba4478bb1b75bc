"""One home for colours and atoms, figures in words, and in a notebook those of its picture."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from defectkit import plots
from defectkit.plots import style

pytestmark = pytest.mark.usefixtures("no_windows")


def test_titles_axes_and_legends_are_named():
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([0, 1], [0, 1], label="MoS$_2$")
    left.set(xlabel="x (Å)", ylabel="energy (eV)", title="a sheet")
    left.legend()
    right.set_title("b", loc="left")
    figure.suptitle("Two panels")
    assert style.describe(figure) == "Two panels. a sheet: energy (eV) over x (Å); with MoS2. b"


def test_a_drawing_says_its_words_and_an_empty_figure_something():
    assert "database row" in style.describe(plots.database.route().figure)
    assert style.describe(plt.figure())
    ax = plt.subplots()[1]
    ax.set_title("word " * 500)
    assert len(style.describe(ax.figure)) < 510


def test_a_notebook_keeps_the_words_beside_the_picture(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    style.attach_descriptions()
    figure, ax = plt.subplots()
    ax.set_xlabel("rows")
    data, about = shell.display_formatter.format(figure)
    assert about["image/png"] == {"alt": "rows"}
    assert "image/png" not in data  # which the inline backend adds


def test_outside_of_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    style.attach_descriptions()


PACKAGE = Path(style.__file__).parents[1]
DRAWING = [
    path
    for folder in ("plots", "widgets", "bench")
    for path in sorted((PACKAGE / folder).glob("*.py"))
    if path != Path(style.__file__)
]


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_colours_and_radii_of_atoms_have_one_home(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"#[0-9a-fA-F]{6}\b|jmol_colors|covalent_radii", text) == []


def test_discs_lie_where_they_should_and_within_the_axes():
    ax = plt.subplots()[1]
    places, z = np.array([[0.0, 0.0], [4.0, 1.0]]), np.array([42, 0])
    radii = style.atom_radii(z, scale=0.5, vacancy=0.9)
    drawn = style.discs(ax, places, radii, style.atom_faces(z))
    ax.autoscale_view()
    assert radii.tolist() == [0.5 * 1.54, 0.9]  # Å, molybdenum by Cordero et al. (2008)
    assert drawn.get_facecolors()[1, :3].tolist() == [1.0, 1.0, 1.0]
    assert np.allclose(drawn.get_offsets(), places)
    assert ax.get_xlim()[0] < -0.77
    assert ax.get_xlim()[1] > 4.9
