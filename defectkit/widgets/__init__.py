"""Interactive views for notebooks."""

from defectkit.widgets.attention import AttentionExplorer, HeadGallery
from defectkit.widgets.browser import DatabaseBrowser
from defectkit.widgets.cards import ShortList
from defectkit.widgets.concepts import (
    AttentionChain,
    Intervals,
    LeakageTrap,
    MinimumImage,
    ReceptiveField,
)
from defectkit.widgets.elements import ElementMap
from defectkit.widgets.live import try_out
from defectkit.widgets.picture import LiveCurve
from defectkit.widgets.sandbox import Sandbox
from defectkit.widgets.structure import CutoffExplorer, StructureView, view_defect
from defectkit.widgets.upload import UploadView

__all__ = [
    "AttentionChain",
    "AttentionExplorer",
    "CutoffExplorer",
    "DatabaseBrowser",
    "ElementMap",
    "HeadGallery",
    "Intervals",
    "LeakageTrap",
    "LiveCurve",
    "MinimumImage",
    "ReceptiveField",
    "Sandbox",
    "ShortList",
    "StructureView",
    "UploadView",
    "try_out",
    "view_defect",
]
