"""Graphs of defect structures: periodic edges, defect-aware nodes, differentiable geometry."""

from defectkit.graphs.build import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset, load_graphs

__all__ = ["CrystalGraph", "GraphConfig", "GraphDataset", "build_graph", "load_graphs"]
