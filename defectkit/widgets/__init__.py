"""Interactive views for notebooks."""

from defectkit.widgets.cutoff import CutoffExplorer
from defectkit.widgets.structure import view_defect

__all__ = ["CutoffExplorer", "view_defect"]
