"""Figures in words: those of the figure, and in a notebook those of its picture."""

import matplotlib.pyplot as plt
import pytest
from IPython.core.interactiveshell import InteractiveShell

from defectkit import plots
from defectkit.plots import alt

pytestmark = pytest.mark.usefixtures("no_windows")


def test_titles_axes_and_legends_are_named():
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([0, 1], [0, 1], label="MoS$_2$")
    left.set(xlabel="x (Å)", ylabel="energy (eV)", title="a sheet")
    left.legend()
    right.set_title("b", loc="left")
    figure.suptitle("Two panels")
    assert alt.describe(figure) == "Two panels. a sheet: energy (eV) over x (Å); with MoS2. b"


def test_a_drawing_says_its_words_and_an_empty_figure_something():
    assert "database row" in alt.describe(plots.database.route().figure)
    assert alt.describe(plt.figure())
    ax = plt.subplots()[1]
    ax.set_title("word " * 500)
    assert len(alt.describe(ax.figure)) < 510


def test_a_notebook_keeps_the_words_beside_the_picture(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    alt.attach()
    figure, ax = plt.subplots()
    ax.set_xlabel("rows")
    data, about = shell.display_formatter.format(figure)
    assert about["image/png"] == {"alt": "rows"}
    assert "image/png" not in data  # which the inline backend adds


def test_outside_of_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    alt.attach()
