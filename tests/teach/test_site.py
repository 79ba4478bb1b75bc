"""The site of a tour: alone in the world, whatever its notebooks hold, and whole."""

import base64
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from page_rules import Seen, assert_site_stands_alone

from defectkit.teach import notebooks, site
from defectkit.teach.notebooks import Visit

PNG = base64.b64encode(b"\x89PNG, or as good as one").decode()
BAR = "\rgraphs:   0%|          | 0/9\rgraphs: 100%|##########| 9/9"
FORMULAS = r"""With $\mu_k$ and $a<b$:

$$\sum_{j} \mathbf h_j \frac12$$

and 3 $ or 4, [a guide](../docs/one.md#a-part-of-it), [a notebook](02_second.ipynb),
[gone](09_gone.ipynb), [code](../defectkit), [out](https://example.org/x.ipynb)."""
GUIDE = """# One

[second](../notebooks/02_second.ipynb#heads) and [the tests](../tests); `[a](b.md)` is code.

## A part of it
"""


def shown(data: dict, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


def save(folder, name: str, *cells) -> None:
    notebook = new_notebook(cells=list(cells), metadata=notebooks.METADATA)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def output_cell(*outputs):
    return new_code_cell("1", execution_count=1, outputs=list(outputs))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A site of four notebooks, one of them empty, and one page; and what Sphinx said."""
    root = tmp_path_factory.mktemp("root")
    (root / "docs").mkdir()
    (root / "docs" / "one.md").write_text(GUIDE)
    folder = root / "tour"
    folder.mkdir()
    save(folder, "01_first", new_markdown_cell("# 01 · Page <1>"), new_markdown_cell(FORMULAS))
    save(
        folder,
        "02_second",
        new_markdown_cell("# 02 · Page <2>\n\n## Heads"),
        output_cell(shown({site.WIDGET: {"model_id": "1"}, "text/plain": "VBox(children=())"})),
        output_cell(shown({"image/png": PNG}, **{"image/png": {"alt": 'seen "from" above'}})),
        output_cell(shown({site.WIDGET: {"model_id": "2"}, "image/png": PNG})),
    )
    save(
        folder,
        "02b_bars",
        new_markdown_cell("# 02b · Bars"),
        *(output_cell(new_output("stream", name="stderr", text=text)) for text, _ in BARS),
    )
    save(folder, "03_empty")
    visits = [
        Visit("01_first", "01 · Page <1>", 1.0, 2.0, ""),
        Visit("02_second", "02 · Page <2>", 3.0, 4.0, "it said no"),
        Visit("03_empty", "03 · Nothing", 5.0, 6.0, "Kernel died"),
    ]
    return folder, site.build(visits, folder, root)


BARS = [
    (f"{BAR}\r" + " " * 30 + "\r", None),  # a bar that clears itself
    (f"{BAR}\n", "graphs: 100%|##########| 9/9"),
    ("a real warning\n", "a real warning"),
    (f"{BAR}\r{' ' * 30}\rthen a warning\n", "then a warning"),
]


def seen(built, name: str) -> Seen:
    return Seen((built[0] / f"{name}.html").read_text(encoding="utf-8"))


def test_the_site_is_whole_and_asks_for_nothing(built):
    folder, faults = built
    assert faults == []
    assert_site_stands_alone(folder)


def test_formulas_are_mathml(built):
    page = seen(built, "01_first")
    formulas = [a.get("display") for tag, a in page.tags if tag == "math"]
    assert formulas == ["inline", "inline", "block"]
    assert "3 $ or 4" in page.prose


def test_links_lead_to_pages_and_those_that_leave_the_site_are_words(built):
    page = seen(built, "01_first")
    for link in ("docs/one.html#a-part-of-it", "02_second.html", "https://example.org/x.ipynb"):
        assert link in page.links()
    assert not any("gone" in link or "defectkit" in link for link in page.links())
    assert "gone, code, out" in " ".join(page.prose.split())
    assert "../02_second.html#heads" in seen(built, "docs/one").links()


def test_pages_know_the_way_to_each_other(built):
    page = seen(built, "02_second")
    way = [
        a["href"] for tag, a in page.tags if (a.get("class") or "") in ("left-prev", "right-next")
    ]
    assert way == ["01_first.html", "02b_bars.html"]


def test_of_a_widget_its_picture_stays(built):
    page = seen(built, "02_second")
    assert "VBox" not in page.prose
    words = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert words == ['seen "from" above', "Picture in the section “Heads”"]


def test_of_progress_bars_stays_what_a_terminal_would_keep(built):
    page = (built[0] / "02b_bars.html").read_text(encoding="utf-8")
    assert "0%|" not in page.replace("100%|", "")
    kept = [text for _, text in BARS if text]
    assert len(re.findall("output stderr", page)) == len(kept)
    assert all(text in re.sub("<[^>]+>", "", page) for text in kept)


def test_the_table_tells_what_was_measured(built):
    page = seen(built, "notebooks")
    assert page.prose.count("failed") == 2
    assert page.prose.count("ran through") == 1
    for words in ("01 · Page <1>", "03 · Nothing"):
        assert words in page.prose


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_every_formula_of_the_notebooks_is_one_that_pages_can_show(source):
    cells = [cell for cell in notebooks.solved(source).cells if cell.cell_type == "markdown"]
    text = "\n\n".join(re.sub(r"(?s)```.*?```|`[^`\n]*`", "", cell.source) for cell in cells)
    for block, inline in re.findall(r"(?s)\$\$(.+?)\$\$|\$([^\s$][^$\n]*?)\$(?!\d)", text):
        assert "merror" not in site.mathml(block or inline)


@pytest.mark.slow
def test_the_guide_and_all_docstrings_make_a_whole_site(tmp_path):
    assert site.build([], tmp_path) == []
    assert_site_stands_alone(tmp_path)
    assert (tmp_path / "docs" / "architecture.html").exists()
    assert "DefectRecord" in (tmp_path / "reference" / "structures.html").read_text("utf-8")
