"""A page for lectures: the attention explorer alone, served by Voila from a notebook made here."""

import subprocess
import sys
from pathlib import Path

import nbformat

from defectkit.structures.writing import make_folder, write_text
from defectkit.teach import notebooks

FOLDER = Path("build/present")
TITLE = """# Whom does a defect listen to?

Attention of the shipped hybrid model on test structures, one of each type of defect. Choose a
layer, a head and who asks; one is uniform. Mind notebook 06: in this model, attention is not
explanation.
"""
PAGE = """import torch

from defectkit.training.inference import load_model
from defectkit.graphs.build import build_graph
from defectkit.training.pretrained import benchmark, shipped_run
from defectkit.training.prepared import prepare
from defectkit.widgets import AttentionExplorer

torch.set_num_threads(1)
run = shipped_run("hybrid")
model, card = load_model(run.folder)
data = prepare(run.config).dataset
chosen = benchmark("attention").groupby("defecttype").uid.first()
records = [data[uid] for uid in chosen[::-1]]
graphs = [build_graph(one, card.graph, data.hosts[one.host]) for one in records]
AttentionExplorer(model, graphs, size="420px")
"""


def write(folder: Path = FOLDER) -> Path:
    """Write the notebook of the page, and return its path."""
    cells = [nbformat.v4.new_markdown_cell(TITLE, id="title"),
             nbformat.v4.new_code_cell(PAGE, id="page")]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA)
    path = make_folder(folder) / "attention.ipynb"
    write_text(path, notebooks.as_text(notebook))
    return path


def command(path: Path, port: int) -> list[str]:
    """What serves the page, on this machine only, until it is stopped."""
    return [sys.executable, "-m", "voila", str(path), "--no-browser", f"--port={port}",
            "--strip_sources=True"]  # fmt: skip


def serve(port: int) -> None:
    """Write the page and serve it until Ctrl-C."""
    subprocess.run(command(write(), port), check=True)
