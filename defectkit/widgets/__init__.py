"""Interactive views for notebooks."""

from defectkit.widgets.attention import AttentionExplorer, HeadGallery
from defectkit.widgets.browser import DatabaseBrowser
from defectkit.widgets.elements import ElementMap
from defectkit.widgets.picture import LiveCurve
from defectkit.widgets.sandbox import Sandbox
from defectkit.widgets.structure import CutoffExplorer, StructureView, view_defect
from defectkit.widgets.upload import UploadView

__all__ = [
    "AttentionExplorer",
    "CutoffExplorer",
    "DatabaseBrowser",
    "ElementMap",
    "HeadGallery",
    "LiveCurve",
    "Sandbox",
    "StructureView",
    "UploadView",
    "view_defect",
]
