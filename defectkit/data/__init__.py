"""Data sets of point defects: sources, readers, cleaning, splits."""

from defectkit.data.dataset import Dataset
from defectkit.data.readers import load

__all__ = ["Dataset", "load"]
