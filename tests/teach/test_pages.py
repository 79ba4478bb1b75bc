"""Pages of executed notebooks: alone in the world, whatever their outputs hold."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from page_rules import Seen, assert_page_stands_alone

from defectkit.teach import notebooks, pages

PNG = base64.b64encode(b"\x89PNG, or as good as one").decode()
THREE = [pages.Page(f"0{k}_page", f"0{k} · Page <{k}>") for k in range(3)]
BAR = "\rgraphs:   0%|          | 0/9\rgraphs: 100%|##########| 9/9"


def written(tmp_path, *cells, page=THREE[1], among=THREE):
    path = tmp_path / f"{page.name}.ipynb"
    nbformat.write(new_notebook(cells=list(cells), metadata=notebooks.METADATA), path)
    return pages.write(path, among)


def output_cell(*outputs):
    return new_code_cell("1", execution_count=1, outputs=list(outputs))


def shown(data: dict, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


def test_formulas_are_mathml(tmp_path):
    text = r"With $\mu_k$ and $a<b$:" "\n\n" r"$$\sum_{j} \mathbf h_j \frac12$$" "\n\nand 3 $ or 4."
    seen = assert_page_stands_alone(written(tmp_path, new_markdown_cell(text)))
    assert [a.get("display") for tag, a in seen.tags if tag == "math"] == [
        "inline",
        "inline",
        "block",
    ]
    assert "3 $ or 4" in seen.prose


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_every_formula_of_the_notebooks_is_one_that_pages_can_show(source, tmp_path):
    cells = [cell for cell in notebooks.solved(source).cells if cell.cell_type == "markdown"]
    seen = assert_page_stands_alone(written(tmp_path, *cells))
    assert "merror" not in {tag for tag, _ in seen.tags}


def test_of_a_widget_its_picture_stays(tmp_path):
    path = written(
        tmp_path,
        new_markdown_cell("## Heads"),
        output_cell(shown({pages.WIDGET: {"model_id": "1"}, "text/plain": "VBox(children=())"})),
        output_cell(shown({"image/png": PNG}, **{"image/png": {"alt": 'seen "from" above'}})),
        output_cell(shown({pages.WIDGET: {"model_id": "2"}, "image/png": PNG})),
    )
    seen = assert_page_stands_alone(path)
    assert "VBox" not in seen.prose
    words = [a["alt"] for tag, a in seen.tags if tag == "img"]
    assert words == ['seen "from" above', "Picture in the section “Heads”"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{BAR}\r" + " " * 30 + "\r", None),  # a bar that clears itself
        (f"{BAR}\n", "graphs: 100%|##########| 9/9"),
        ("a real warning\n", "a real warning"),
        (f"{BAR}\r{' ' * 30}\rthen a warning\n", "then a warning"),
    ],
)
def test_of_progress_bars_stays_what_a_terminal_would_keep(text, kept, tmp_path):
    page = written(
        tmp_path, output_cell(new_output("stream", name="stderr", text=text))
    ).read_text()
    assert "0%|" not in page.replace("100%|", "")
    if kept is None:
        assert 'vnd.jupyter.stderr"' not in page
    else:
        assert kept in page


def test_pages_know_the_way_to_each_other(tmp_path):
    for page, around in zip(THREE, ([THREE[1]], THREE[::2], [THREE[1]])):
        seen = assert_page_stands_alone(written(tmp_path, page=page))
        links = [a["href"] for tag, a in seen.tags if tag == "a" and a.get("rel")]
        assert links == 2 * [f"{other.name}.html" for other in around]
        assert all(other.title in seen.prose for other in around)


def test_links_to_notebooks_lead_to_their_pages(tmp_path):
    text = "[here](02_page.ipynb), [nowhere](09_gone.ipynb), [out](https://example.org/x.ipynb)"
    seen = Seen(written(tmp_path, new_markdown_cell(text)).read_text())
    links = [a["href"] for tag, a in seen.tags if tag == "a"]
    assert links.count("02_page.html") == 3  # the ways above and below, and the text
    assert not any("09_gone" in link for link in links)
    assert "https://example.org/x.ipynb" in links


def test_the_contents_name_every_page(tmp_path):
    rows = [(page, 1.0, 2.0, k == 1) for k, page in enumerate(THREE)]
    seen = Seen(pages.write_index(rows, tmp_path).read_text())
    assert [a["href"] for tag, a in seen.tags if tag == "a"] == [f"{p.name}.html" for p in THREE]
    assert all(page.title in seen.prose for page in THREE)
    assert seen.prose.count("failed") == 1
