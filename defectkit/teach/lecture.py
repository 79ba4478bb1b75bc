"""Pages for lectures, served by Voila: a start page, and each page of one concept on one screen.

The start page needs no kernel. A page is the notebook of `write`, which looks up in its link what
to show; links carry presets. A kernel that has imported everything waits for the next page, since
imports are most of the time that a page takes. Nothing is fetched from any network: Voila's own
template would ask for icons.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from defectkit.structures.writing import make_folder, write_text

FOLDER = Path("build/present")
NOTEBOOK = "page.ipynb"
PAGE = "{{ base_url }}voila/render/" + NOTEBOOK  # Voila fills in where it serves
TEMPLATE = "defectkit"
# By the name in links: title, and what is asked. All but the last stand on one screen.
PAGES = {
    "minimum-image": ("The nearest image", "Where is my neighbour, if the crystal repeats?"),
    "cutoff": ("Cutoff and receptive field", "How far does a graph network hear?"),
    "chain": ("Attention on a chain", "Who listens to whom, and why?"),
    "intervals": ("Two intervals", "How sure is a mean, how sure a single prediction?"),
    "leakage": ("The leakage trap", "Why is this error too good to be true?"),
    "attention": ("Whom does a defect listen to?", "Attention of the shipped hybrid model."),
    "upload": ("Your own structure", "What the shipped networks say of a file of yours."),
}
# Two cells: the first one runs before anybody asks.
CODE = (
    "import torch\n\nfrom defectkit.widgets.lecture import page\n\ntorch.set_num_threads(1)",
    "from voila.utils import get_query_string\n\npage(get_query_string() or '')",
)
DELAY = 4  # s until the next kernel begins, so that a page is there first
# What Voila's page may load beside itself; the extensions of JupyterLab take seconds.
EXTENSIONS = (
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "nglview-js-widgets",
)


def write(folder: Path = FOLDER) -> Path:
    """Write the notebook and the template of the pages, and return the notebook's path."""
    import jinja2  # not above: a page takes titles from here, and would wait for seconds
    import nbformat

    from defectkit.teach.notebooks import METADATA, as_text

    cells = [
        nbformat.v4.new_code_cell(code, id=name) for name, code in zip(("begin", "page"), CODE)
    ]
    path = make_folder(folder / "pages") / NOTEBOOK
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    write_text(path, as_text(notebook))
    template = make_folder(_templates(folder) / TEMPLATE)
    start = jinja2.Environment(autoescape=True).from_string(_START)
    *cards, own = PAGES.items()
    write_text(template / "tree-lab.html", start.render(cards=cards, own=own, page=PAGE))
    write_text(template / "index.html.j2", _TEMPLATE)
    write_text(template / "conf.json", json.dumps({"base_template": "lab"}))
    return path


def _templates(folder: Path) -> Path:
    return folder / "jupyter" / "voila" / "templates"


def command(path: Path, port: int) -> list[str]:
    """The command that serves the pages on this machine only, until it is stopped."""
    voila = [sys.executable, "-m", "voila", str(path.parent), "--no-browser", f"--port={port}"]
    allowed = [f"--VoilaConfiguration.extension_allowlist={name}" for name in EXTENSIONS]
    warm = ["--preheat_kernel=True", "--pool_size=1", f"--VoilaKernelManager.fill_delay={DELAY}"]
    return [*voila, f"--template={TEMPLATE}", *warm, *allowed]


def environment(path: Path) -> dict[str, str]:
    """The variables of that command: where its template is, and no proxy for this machine."""
    own = path.parents[1].resolve() / "jupyter"
    places = [str(own), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    here = "127.0.0.1,localhost"
    near = [*filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy")]), here]
    return os.environ | {
        "JUPYTER_PATH": os.pathsep.join(places),
        "NO_PROXY": ",".join(near),
        "no_proxy": ",".join(near),
    }


def serve(port: int) -> None:
    """Write the pages and serve them until Ctrl-C."""
    path = write()
    print(f"The pages are at http://localhost:{port}/ until Ctrl-C.")
    subprocess.run(command(path, port), env=environment(path), check=True)


# Text has 20 pixels on a screen of 1280 x 800, and grows with the screen as the pictures do.
_LOOK = """
:root { --text: max(20px, min(1.5625vw, 2.5vh)) }
body { margin: 0; font: var(--text)/1.35 system-ui, sans-serif; color: #222; background: #fff }
a { color: #0072b2 }
"""

_START = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>defectkit: pages for lectures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>"""
    + _LOOK
    + """
main { max-width: 60em; margin: auto; padding: 3vh 2em }
h1 { font-size: 1.8em; margin: 0 0 0.3em }
ul { list-style: none; padding: 0; margin: 3vh 0; display: grid; gap: 1em;
     grid-template-columns: repeat(auto-fit, minmax(16em, 1fr)) }
li a { display: block; height: 100%; box-sizing: border-box; padding: 4vh 1.2em; color: inherit;
       text-decoration: none; border: 2px solid #0072b2; border-radius: 8px }
li a:hover, li a:focus { background: #eaf3fa }
li b { display: block; font-size: 1.2em; color: #0072b2; margin-bottom: 0.3em }
</style></head><body><main>
<h1>Machine learning for point defects in 2D materials</h1>
<p>One concept a page. Links keep what is set on a page, so that a lecture can begin there.</p>
<ul>
{%- for name, (title, asked) in cards %}
<li><a href="{{ page }}?app={{ name }}"><b>{{ title }}</b>{{ asked }}</a></li>
{%- endfor %}
</ul>
<p>And a place for files: <a href="{{ page }}?app={{ own[0] }}">{{ own[1][0] }}</a>.
{{ own[1][1] }} Labels and errors of the demo data are CHGNet's, never DFT.</p>
</main></body></html>
"""
)

# Voila's page for JupyterLab's widgets, less the icons from a network.
_TEMPLATE = (
    """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
<style>"""
    + _LOOK
    + """
.jp-mod-noOutputs.jp-mod-noInput { display: none }
body { --jp-widgets-font-size: var(--text); --jp-ui-font-size1: var(--text);
       --jp-content-font-size1: var(--text); --jp-content-line-height: 1.35;
       --jp-widgets-inline-height: 1.7em; --jp-widgets-inline-width: 19em;
       --jp-widgets-inline-label-width: 5em }
body.jp-Notebook, #rendered_cells { overflow: visible; padding: 0; margin: 0 }
#rendered_cells .jp-Cell, #rendered_cells .jp-Cell-outputWrapper, #rendered_cells .jp-OutputArea,
#rendered_cells .jp-OutputArea-child, #rendered_cells .jp-OutputArea-output {
  padding: 0; margin: 0; border: 0; overflow: visible; font-size: var(--text) }
.jp-OutputPrompt { display: none }
.defectkit-page { height: 100vh; box-sizing: border-box; padding: 0.5em 1em; overflow: visible;
                  gap: 0.3em }
.defectkit-page .jupyter-widgets { font-size: var(--text) }
.defectkit-page .widget-html .widget-html-content { line-height: 1.35; font-size: var(--text) }
.defectkit-page .widget-label { margin-right: 0.6em }
.defectkit-page .widget-readout { min-width: 3em }
.defectkit-page .slider-container { margin: 0 0.6em }
.defectkit-page .noUi-target { background: #bbb !important }
.defectkit-page .noUi-handle { background: #0072b2 !important }
.defectkit-page .widget-dropdown select { border: 1px solid #999 !important }
.defectkit-page :is(select, button, input) { font-size: var(--text) }
.defectkit-page .widget-button { width: auto; height: auto; border: 1px solid #999 }
.defectkit-page .widget-toggle-button { border: 1px solid #999 }
.defectkit-page .widget-toggle-button.mod-active { background: #0072b2; color: white }
.defectkit-head .widget-html-content { display: flex; gap: 1.5em; align-items: baseline }
.defectkit-head h1 { font-size: 1.4em; margin: 0; flex: 1 }
.defectkit-body { flex: 1 1 0; min-height: 0; overflow: visible; gap: 0.3em }
.defectkit-body > * { flex-shrink: 0 }
.defectkit-sentence { min-height: 4.2em }
.defectkit-sentence + .widget-image { flex: 1 1 0; min-height: 0; width: 100%; object-fit: contain;
                                      align-self: center !important }
.defectkit-long { height: auto }
.defectkit-long .defectkit-body { flex: none }
</style>
{%- endblock -%}
"""
)
