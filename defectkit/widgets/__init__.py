"""Interactive views for notebooks."""

from defectkit.widgets.cutoff import CutoffExplorer
from defectkit.widgets.structure import view_defect
from defectkit.widgets.training import LiveCurve

__all__ = ["CutoffExplorer", "LiveCurve", "view_defect"]
