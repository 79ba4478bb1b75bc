"""The site that a tour leaves: executed notebooks, pages of docs/, and what docstrings say.

Sphinx builds it. The pages need no network and no kernel, and open as files. Formulas are MathML,
which browsers set themselves. Widgets are the pictures that they left. Pictures have words for
readers who do not see them. Pages for lectures, which a kernel serves, are in `teach.lecture`.
"""

import html
import io
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import nbformat
from latex2mathml.converter import convert as mathml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from defectkit import __version__
from defectkit.structures.writing import make_folder
from defectkit.teach.notebooks import Visit

if TYPE_CHECKING:  # Sphinx takes a second to import
    from docutils.nodes import Element
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

INDEX = "index.html"
ROOT = Path(__file__).resolve().parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"
GUIDE = ("README.md", "docs/*.md", "data/README.md")  # pages that stand in the checkout
PICTURES = "docs/figures/*.png"
ROOMS = (
    "structures data graphs models training predict screening evaluation explain plots teach"
    " widgets bench"
).split()
SETTINGS = {
    "project": "defectkit",
    "extensions": [
        "myst_nb",
        "sphinx.ext.autodoc",
        "sphinx.ext.napoleon",
        "defectkit.teach.site",
    ],
    "html_theme": "pydata_sphinx_theme",
    "html_theme_options": {
        "show_prev_next": True,
        "navbar_align": "left",
        "header_links_before_dropdown": 4,
        "footer_start": [],
        "footer_end": [],
        "secondary_sidebar_items": ["page-toc"],
    },
    "html_sidebars": {"index": []},
    "html_title": f"defectkit {__version__}",
    "html_static_path": ["style"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "html_show_search_summary": False,  # it fetches pages, which files may not
    "html_math_renderer": "mathml",
    "html_context": {"default_mode": "auto"},
    "default_role": "literal",  # docstrings write `name` as Markdown does
    "napoleon_use_ivar": True,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "myst_enable_extensions": ["amsmath", "dollarmath"],
    "myst_dmath_allow_space": False,
    "myst_dmath_allow_digits": False,
    "myst_heading_anchors": 6,
    "autodoc_default_options": {
        "exclude-members": "set_fit_request, set_predict_request, set_score_request",
        "ignore-module-all": True,  # each thing where it is defined
    },
    "autodoc_member_order": "bysource",
    "autodoc_typehints_format": "short",
    "suppress_warnings": [
        "myst.header",
        "ref.python",
        "mystnb.unknown_mime_type",
        "toc.not_included",
    ],
}
STYLE = """math[display=block] { margin: 0.8em 0; overflow-x: auto; overflow-y: hidden }
mi[mathvariant^=bold] { font-weight: bold; text-transform: none }
.bd-main .bd-content .bd-article-container { max-width: 60em; min-width: 0 }
.cell_output, table { display: block; max-width: 100%; overflow-x: auto }
dt.sig { overflow-wrap: anywhere }
.cell_output img { max-width: 100%; height: auto }
"""


def build(
    visits: Sequence[Visit], output: Path, root: Path | None = None, reference: bool = True
) -> list[str]:
    """Write the site of all executed notebooks in `output` beside them; its first page is `INDEX`.

    Args:
        visits: what the tour measured, shown as a table.
        output: folder of the executed .ipynb files.
        root: checkout whose `GUIDE` and package are shown, the kit's own where it is not given;
            what it lacks is left out.
        reference: whether docstrings are read as well, which takes longer than all other pages.

    Returns:
        what Sphinx found fault with, a sentence each.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        _write_sources(visits, output, root or ROOT, source, ROOMS if reference else ())
        return _build(source, make_folder(output))


def _build(source: Path, output: Path) -> list[str]:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    faults = io.StringIO()
    with patch_docutils(), docutils_namespace():
        Sphinx(
            source,
            None,
            output,
            source.parent / "trees",
            "html",
            confoverrides=SETTINGS,
            status=None,
            warning=faults,
            freshenv=True,
        ).build()
    (output / ".buildinfo").unlink(missing_ok=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", faults.getvalue()).splitlines()
    return [line.replace(f"{source}/", "") for line in lines]


def setup(app: "Sphinx") -> dict[str, bool]:
    """Sphinx's hook: formulas as MathML, and bars of docstrings as bars."""
    app.connect("autodoc-process-docstring", _keep_bars)
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keep_bars(app: "Sphinx", what: str, name: str, thing: object, *rest: object) -> None:
    """Docstrings write |error| for an absolute value, which is a reference to Sphinx."""
    lines = rest[-1]
    lines[:] = [line.replace("|", r"\|") for line in lines]


def _formula(translator: "HTML5Translator", node: "Element") -> NoReturn:
    from docutils import nodes

    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(mathml(node.astext().strip(), display=display))
    raise nodes.SkipNode


def _write_sources(
    visits: Sequence[Visit], output: Path, root: Path, source: Path, rooms: Sequence[str]
) -> None:
    """What Sphinx reads: notebooks, pages of the checkout, a page a room, and the contents."""
    notebooks = sorted(path for path in output.glob("*.ipynb") if not path.name.startswith("."))
    guide = [path for pattern in GUIDE for path in sorted(root.glob(pattern))]
    pictures = sorted(root.glob(PICTURES))
    places = {f"notebooks/{path.name}" for path in notebooks}
    places |= {path.relative_to(root).as_posix() for path in [*guide, *pictures]}
    (source / "style").mkdir(parents=True)
    (source / "style" / "site.css").write_text(STYLE, encoding="utf-8")
    for path in notebooks:
        notebook = _for_a_page(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _links(cell.source, "notebooks", places)
        if not any(re.search(r"(?m)^# ", cell.source) for cell in notebook.cells):
            notebook.cells.insert(0, new_markdown_cell(f"# {path.stem}"))  # pages need a title
        nbformat.write(notebook, source / path.name)
    for path in guide:
        place = path.relative_to(root)
        text = _links(path.read_text(encoding="utf-8"), place.parent.as_posix(), places)
        make_folder((source / place).parent)
        (source / place).write_text(text, encoding="utf-8")
    for path in pictures:
        make_folder((source / path.relative_to(root)).parent)
        shutil.copy(path, source / path.relative_to(root))
    titles = {visit.name: visit.title for visit in visits}
    shown = [f"{titles[p.stem]} <{p.stem}>" if p.stem in titles else p.stem for p in notebooks]
    pages = {
        "notebooks": _contents("The notebooks, executed", _table(visits), shown, "hidden:"),
        "guide": _contents(
            "Guide", "", [path.relative_to(root).with_suffix("").as_posix() for path in guide]
        ),
        "reference": _contents("Reference", REFERENCE, list(_write_rooms(root, source, rooms))),
    }
    filled = [name for name, text in pages.items() if "{toctree}" in text]
    for name in filled:
        (source / f"{name}.md").write_text(pages[name], encoding="utf-8")
    text = WELCOME.format(version=__version__, day=date.today())
    (source / "index.md").write_text(
        _contents("defectkit", text, filled, "maxdepth: 2"), encoding="utf-8"
    )


WELCOME = """Machine learning for point defects in two-dimensional materials: the notebooks as
executed, the pages of the kit, and a reference from its docstrings.

Version {version}, {day}. Labels of the demo data set are CHGNet predictions, not DFT. Beside each
page of a notebook lies the notebook itself, to be opened in JupyterLab."""
REFERENCE = """A page a folder of the library, in the order in which a row of a database passes
through them, written from the docstrings."""


def _contents(title: str, text: str, pages: Iterable[str], shown: str = "maxdepth: 1") -> str:
    """A page that tells which pages lie below it."""
    listed = "\n".join(pages)
    below = f"```{{toctree}}\n:{shown}\n\n{listed}\n```\n" if listed else ""
    return f"# {title}\n\n{text}\n\n{below}"


def _table(visits: Sequence[Visit]) -> str:
    """Of each notebook its seconds, its peak memory, and whether it failed."""
    lines = [
        f"| [{html.escape(visit.title)}]({visit.name}.ipynb) | {visit.seconds:.0f}"
        f" | {visit.peak_mb:.0f} | {'failed' if visit.error else 'ran through'} |"
        for visit in visits
    ]
    return "\n".join(["| notebook | seconds | peak MB | result |", "|:--|--:|--:|:--|", *lines])


def _write_rooms(root: Path, source: Path, rooms: Sequence[str]) -> Iterable[str]:
    """Write a page for each of these folders of the library with its modules' docstrings."""
    for room in rooms:
        modules = sorted((root / "defectkit" / room).rglob("[!_]*.py"))
        if not modules:
            continue
        lines = [f"# {room}\n"]
        for path in modules:
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            lines.append(f"## {name.removeprefix(f'defectkit.{room}.')}\n")
            lines.append(f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n")
        make_folder(source / "reference")
        (source / "reference" / f"{room}.md").write_text("\n".join(lines), encoding="utf-8")
        yield f"reference/{room}"


def _links(text: str, folder: str, places: set[str]) -> str:
    """Markdown whose links lead to pages of the site; of those that leave it the words stay.

    Args:
        text: of a page in `folder` of the checkout; code is left as it is.
        folder: relative to the checkout, "." for the checkout itself.
        places: files of the checkout that the site has; notebooks lie at its root.
    """

    def place(path: str) -> str:
        return path.removeprefix("notebooks/")

    def page(found: re.Match) -> str:
        words, target = found["words"], found["target"]
        if words is None or re.match(r"[a-z]+:|#", target):
            return found[0]
        path, mark, anchor = target.partition("#")
        whole = posixpath.normpath(posixpath.join(folder, path))
        if whole not in places:
            return words
        here = posixpath.dirname(place(posixpath.join(folder, "page")))
        return f"[{words}]({posixpath.relpath(place(whole), here or '.')}{mark}{anchor})"

    link = r"(?<!!)\[(?P<words>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)"
    return re.sub(rf"(?s)```.*?```|`[^`\n]+`(?!\])|{link}", page, text)


def _for_a_page(notebook: NotebookNode) -> NotebookNode:
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
    if "image/png" in data:  # as HTML, for MyST-NB drops the words that a picture brings
        words = output.metadata.get("image/png", {}).get("alt")
        words = html.escape(words or f"Picture in the section “{heading}”")
        picture = "".join(data["image/png"].split())
        output.data = {"text/html": f'<img alt="{words}" src="data:image/png;base64,{picture}">'}
        return True
    return data.pop(WIDGET, None) is None or bool(data.keys() - {"text/plain"})
