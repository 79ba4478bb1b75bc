"""What the lessons have in common: `from defectkit.widgets.lesson import *` begins each notebook.

These names are what three notebooks or more use; `contents()` prints what each of them is. What
fewer use, a notebook imports where it uses it.
"""

import inspect
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from defectkit import DefectkitError, plots, teach
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.sources import SOURCES
from defectkit.data.splits import make_split
from defectkit.graphs import periodic
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.defects import find_site, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.names import in_figure
from defectkit.teach import check, checks
from defectkit.training.config import with_values
from defectkit.training.inference import load_model
from defectkit.training.prepared import Prepared
from defectkit.training.pretrained import about, benchmark, data_of, shipped_run
from defectkit.training.train import train
from defectkit.widgets.live import try_out
from defectkit.widgets.picture import LiveCurve

__all__ = [
    "HOSTS",
    "SOURCES",
    "DefectkitError",
    "GraphConfig",
    "LiveCurve",
    "Path",
    "Prepared",
    "about",
    "benchmark",
    "build_graph",
    "check",
    "checks",
    "clean",
    "contents",
    "data_of",
    "display",
    "find_site",
    "in_figure",
    "load",
    "load_model",
    "make_defect",
    "make_split",
    "np",
    "pd",
    "periodic",
    "plots",
    "plt",
    "shipped_run",
    "teach",
    "tempfile",
    "torch",
    "train",
    "try_out",
    "with_values",
]
# Those whose own first line says nothing of what they are here for.
WORDS = {
    "HOSTS": "Pristine 2D hosts of the demo data, by name.",
    "SOURCES": "Data sets that the kit knows, by name.",
    "Path": "A file or folder.",
    "display": "Show something below a cell that is not its last line.",
    "np": "NumPy: arrays of numbers.",
    "pd": "pandas: tables.",
    "plt": "Matplotlib: figures.",
    "tempfile": "Folders that are thrown away.",
    "torch": "PyTorch: tensors, networks and gradients.",
}


def contents() -> None:
    """Print each name that a lesson begins with, and what it is."""
    for name in __all__:
        words = WORDS.get(name) or inspect.getdoc(globals()[name]).splitlines()[0]
        print(f"{name:16}{words}")
