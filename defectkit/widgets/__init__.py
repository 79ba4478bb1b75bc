"""Interactive views for notebooks."""

from defectkit.widgets.structure import view_defect

__all__ = ["view_defect"]
