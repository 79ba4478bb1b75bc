"""Interactive views for notebooks."""

from defectkit.widgets.attention import AttentionExplorer, HeadGallery
from defectkit.widgets.browser import DatabaseBrowser
from defectkit.widgets.structure import CutoffExplorer, StructureView, view_defect
from defectkit.widgets.training import LiveCurve

__all__ = [
    "AttentionExplorer",
    "CutoffExplorer",
    "DatabaseBrowser",
    "HeadGallery",
    "LiveCurve",
    "StructureView",
    "view_defect",
]
