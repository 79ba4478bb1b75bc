"""Figures, one module a subject; `plots.graphs.local_edges` and the like need this import alone."""

from defectkit.plots import (
    attention,
    database,
    evaluation,
    explain,
    forces,
    graphs,
    real,
    results,
    screening,
    studies,
    style,
    vectors,
)
from defectkit.structures import names

__all__ = [
    "attention",
    "database",
    "evaluation",
    "explain",
    "forces",
    "graphs",
    "real",
    "results",
    "screening",
    "studies",
    "style",
    "vectors",
]

# Notebooks import figures: theirs get words for readers who do not see them, their tables show
# names as text.
style.attach_descriptions()
names.attach()
