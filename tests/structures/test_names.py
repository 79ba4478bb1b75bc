"""Names from data are text in every place in which they are shown."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from defectkit import plots
from defectkit.bench import report
from defectkit.evaluation import metrics
from defectkit.structures import names
from defectkit.structures.names import in_figure, in_html, in_terminal

HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "</td></table><script>alert(1)</script>",
    "$x^2$",
    "costs $5",
    r"$\frac{1}{0}$ and $\nonsense{",
    r"a_b^c\d$e",
    "_hidden",
    "\x1b[31mred\x07\r\n\u202egnp.exe",
    "\udcff bytes that are no text",
    "x" * 3000,
    "& &amp; < >",
]
IN_FIGURES = ["$x^2$", r"$\frac{1}{0}$ and $\nonsense{", r"a_b^c\d$e", "_\x1b[31m", "x" * 3000]
drawn = pytest.mark.parametrize("name", IN_FIGURES, ids=lambda name: ascii(name[:20]))
named = pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
pytestmark = pytest.mark.usefixtures("no_windows")


@given(st.text())
def test_a_terminal_gets_printable_characters_only(text):
    shown = in_terminal(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    shown.encode()


@given(st.text())
def test_html_gets_no_markup(text):
    shown = in_html(text).removeprefix('<span class="mathjax_ignore tex2jax_ignore">')
    assert not set(shown.removesuffix("</span>")) & set("<>\"'")


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def assert_drawn(axes, name: str) -> None:
    """The name stands in the figure, as text, and the figure is still of a usual size."""
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()  # a formula with a fault would end here
    assert any(in_figure(name).strip() in text for text in texts(figure))
    assert not any("$" in re.sub(r"\\\$|\$\\mathdefault{.*}\$", "", t) for t in texts(figure))
    assert max(map(len, texts(figure))) < 300


def test_a_sentence_with_an_escaped_dollar_is_drawn_as_it_was_written():
    figure, ax = plt.subplots()
    text = ax.text(0, 0, in_figure(r"$a\$b$"))
    figure.canvas.draw()
    assert text._preprocess_math(text.get_text()) == (r"$a\$b$", False)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    eform = rng.normal(1, 2, 60)
    return pd.DataFrame({"eform": eform, "eform_pred": eform + rng.normal(0, 0.2, 60)})


@drawn
def test_names_of_hosts_and_label_sources(name, rows):
    hosts = pd.Series([name, "MoS2", "SnS2"] * 20, name="host")
    frame = rows.assign(host=hosts, dopant=["Fe", "Li"] * 30)
    assert_drawn(plots.database.host_dopant_map(frame), name)
    errors = rows.eform_pred - rows.eform
    assert_drawn(plots.results.error_bars(errors, hosts, "source"), name)
    assert_drawn(plots.results.error_bars(errors, frame.dopant, name), name)
    training = pd.Series({name: 5, "MoS2": 7, "SnS2": 1})
    assert_drawn(plots.results.error_by_support(errors, hosts, training), name)
    for draw in (plots.results.parity, plots.results.error_by_energy, plots.evaluation.residuals):
        assert_drawn(draw(rows, name), name)
    assert_drawn(plots.results.parity(rows, "source", title=name), name)


@drawn
def test_names_of_rows(name):
    atoms = Atoms("MoS", positions=[[0, 0, 5], [1.6, 0.9, 6.5]], cell=[3.2, 3.2, 10])
    assert_drawn(plots.database.two_views(atoms, [1], name), name)


@drawn
def test_names_of_runs(name):
    table = pd.DataFrame(
        {
            "model": [name, "other"],
            "seed": 0,
            "split": "random",
            "eform_mae": [0.2, 0.3],
            "eform_mae_lo": 0.1,
            "eform_mae_hi": 0.4,
            "build_ms": 1.0,
            "infer_ms_b64": [2.0, 3.0],
        }
    )
    assert_drawn(plots.results.model_errors(table, "source"), name)
    assert_drawn(plots.studies.ladder(table, "source"), name)
    assert_drawn(plots.studies.cost_accuracy(table, "source"), name)
    study = pd.DataFrame({"group": "size", "seed": 0, "n_train": [10, 20], "eform_mae": [0.3, 0.2]})
    assert_drawn(plots.studies.transfer(study, name), name)
    chosen = metrics.choices(
        pd.DataFrame(
            {
                "host": ["a", "a", "b", "b"],
                "dopant": "Fe",
                "strain": 0.0,
                "eform": [0.0, 1.0, 2.0, 3.0],
                "eform_pred": [0.1, 0.9, 3.0, 2.0],
            },
        ),
        metrics.SITE,
    )
    assert_drawn(plots.evaluation.regret({name: chosen, "other": chosen}, "site"), name)
    recalls = {name: metrics.top_k(chosen), "other": metrics.top_k(chosen)}
    assert_drawn(plots.evaluation.recall(recalls, "site"), name)


@named
def test_tables_and_pictures_of_a_report(name):
    table = pd.DataFrame({name: [name]})
    ax = plt.subplots()[1]
    blocks = [("h2", name), ("table", table), ("figure", report._image(ax, name))]
    page = report._page(blocks, title=name, source=name, data=name)
    assert "<script" not in page
    assert page.count("<img") == page.count('<img src="data:') == 1


@named
def test_styled_tables_of_a_notebook_show_text(name, monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    with pd.option_context("display.html.use_mathjax", True, "styler.html.mathjax", True):
        names.attach()
        table = pd.DataFrame({name: [name, ""], "n": [0.123456, np.nan]}, index=[name, "b"])
        shown = shell.display_formatter.format(table.style.format(precision=2))[0]["text/html"]
        plain = shell.display_formatter.format(table)[0]["text/html"]
        objects = pd.DataFrame({"a": {"x": 0.123, "y": name}}).style.format(
            "{:.1f}", subset=("x", "a")
        )
        assert ">0.1<" in shell.display_formatter.format(objects)[0]["text/html"]
    for page in (shown, plain):
        assert "<img" not in page
        assert "<script" not in page
        assert "tex2jax_ignore" in page
    assert ">0.12<" in shown
    assert table.loc["b", "n"] != table.loc["b", "n"], "the table itself has changed"
