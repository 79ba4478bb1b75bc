"""Figures, one module a subject; `plots.graphs.neighbours` and the like need this import alone."""

from defectkit.plots import attention, database, evaluation, explain, graphs, results, studies

__all__ = ["attention", "database", "evaluation", "explain", "graphs", "results", "studies"]
