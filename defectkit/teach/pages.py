"""HTML pages of executed notebooks.

The files need nothing else: no network, no kernel, no script. Formulas are MathML, which browsers
set themselves. Widgets are the pictures that they left. Pictures have words for readers who do not
see them. Pages for lectures, which a kernel serves, are in `teach.lecture`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import jinja2
import nbformat
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from defectkit import __version__
from defectkit.structures.writing import write_text

INDEX = "index.html"
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Page:
    """One page among others.

    Attributes:
        name: of the notebook, such as "01_explore_imp2d".
        title: its first heading.
    """

    name: str
    title: str


def write(path: Path, pages: Sequence[Page]) -> Path:
    """Write an executed notebook as the page beside it, and return the page's path.

    Args:
        path: of the .ipynb file.
        pages: all that will lie in its folder, in their order, this one among them.
    """
    notebook = _without_widgets(nbformat.read(path, as_version=4))
    exporter = _Exporter(pages=tuple(page.name for page in pages), raw_template=_TEMPLATE)
    own = next(page for page in pages if page.name == path.stem)
    notebook.metadata.title = own.title
    place = list(pages).index(own)
    neighbours = {"before": pages[max(place - 1, 0) : place], "after": pages[place + 1 :][:1]}
    page, _ = exporter.from_notebook_node(notebook, neighbours)
    path = path.with_suffix(".html")
    write_text(path, page)
    return path


def write_index(rows: Sequence[tuple[Page, float, float, bool]], folder: Path) -> Path:
    """Write the contents: of each page its seconds, its peak memory (MB) and whether it failed."""
    template = jinja2.Environment(autoescape=True).from_string(_INDEX)
    path = folder / INDEX
    write_text(path, template.render(rows=rows, version=__version__, day=date.today()))
    return path


def _without_widgets(notebook: NotebookNode) -> NotebookNode:
    """The notebook less its widgets, and of its progress bars what a terminal would keep.

    No kernel answers a widget on a page.
    """
    notebook.metadata.pop("widgets", None)
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _stays(output, heading)]
        elif found := re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE):
            heading = found[-1]
    return notebook


def _stays(output: NotebookNode, heading: str) -> bool:
    """Whether an output has something to show; what it has is made fit for a page."""
    if output.output_type == "stream":
        lines = (re.sub(r".*\r(?=.)", "", line.rstrip("\r")) for line in output.text.split("\n"))
        output.text = "\n".join(lines)
        return bool(output.text.strip())
    data = output.get("data", {})
    if "image/png" in data:
        words = output.metadata.setdefault("image/png", {})
        words.setdefault("alt", f"Picture in the section “{heading}”")
    return data.pop(WIDGET, None) is None or bool(data.keys() - {"text/plain"})


class _Renderer(IPythonRenderer):
    """Markdown with formulas as MathML, and links between notebooks as links between pages."""

    pages: tuple[str, ...] = ()

    def block_math(self, body: str) -> str:
        return mathml(body.strip(), display="block")

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        name = url.removesuffix(".ipynb")
        if name == url or "/" in url:
            return super().link(text, url, title)
        return super().link(text, f"{name}.html", title) if name in self.pages else text


class _Exporter(HTMLExporter):
    def __init__(self, pages: tuple[str, ...], **settings: object) -> None:
        super().__init__(**settings)
        self.register_filter("markdown2html", lambda source: self._markdown(source, pages))

    def _markdown(self, source: str, pages: tuple[str, ...]) -> str:
        renderer = _Renderer(escape=False)
        renderer.pages = pages
        return MarkdownWithMath(renderer=renderer).render(source)


# nbconvert's own page less the scripts that it fetches, with a way to the other pages.
_TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- macro way() -%}
<nav class="way">
{%- for page in resources.before %}
<a rel="prev" href="{{ page.name | e }}.html">← {{ page.title | e }}</a>
{%- endfor %}
<a href="index.html">Contents</a>
{%- for page in resources.after %}
<a rel="next" href="{{ page.name | e }}.html">{{ page.title | e }} →</a>
{%- endfor %}
</nav>
{%- endmacro -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
nav.way { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.5em 2em;
          max-width: 70em; margin: 1em auto; padding: 0 1em; font-family: system-ui, sans-serif }
math[display=block] { margin: 0.8em 0 }
mi[mathvariant^=bold] { font-weight: bold; text-transform: none }
.jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'] { background: none }
.jp-RenderedHTMLCommon { overflow-x: auto }
</style>
{%- endblock -%}
{%- block body_header -%}
{{ super() }}
{{ way() }}
{%- endblock -%}
{%- block body_footer -%}
{{ way() }}
{{ super() }}
{%- endblock -%}
{%- block data_png scoped -%}
<div class="jp-RenderedImage jp-OutputArea-output {{ extra_class }}">
<img alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}"
src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}">
</div>
{%- endblock -%}
"""

_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>defectkit: the notebooks, executed</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 50em; margin: 3em auto; padding: 0 1em }
table { border-collapse: collapse }
th, td { padding: .4em .8em; border-bottom: 1px solid #ddd; text-align: left }
td:nth-child(2), td:nth-child(3), th:nth-child(2), th:nth-child(3) { text-align: right }
</style></head><body>
<h1>The notebooks, executed</h1>
<p>defectkit {{ version }}, {{ day }}. Labels of the demo data set are CHGNet predictions, not DFT.
Beside each page lies its notebook, to be opened in JupyterLab.</p>
<table><tr><th>notebook</th><th>seconds</th><th>peak MB</th><th>result</th></tr>
{%- for page, seconds, peak_mb, failed in rows %}
<tr><td><a href="{{ page.name }}.html">{{ page.title }}</a></td>
<td>{{ "%.0f" | format(seconds) }}</td><td>{{ "%.0f" | format(peak_mb) }}</td>
<td>{{ "failed" if failed else "ran through" }}</td></tr>
{%- endfor %}
</table></body></html>
"""
