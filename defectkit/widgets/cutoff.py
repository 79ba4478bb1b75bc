"""A slider for the cutoff radius, and the edges that it gives."""

import ipywidgets
from matplotlib.figure import Figure

from defectkit.plots.graphs import MARGIN, local_edges
from defectkit.widgets.picture import Pictured


class CutoffExplorer(Pictured):
    """Move the slider: the edges to one node are drawn over the crystal, and counted.

    The frame is that of the longest cutoff all along, so that a longer cutoff looks longer.

    Args:
        graph: a `CrystalGraph` whose local edges reach at least as far as the slider.
        node: the node in the middle.
        longest: Å, the end of the slider.

    Attributes:
        slider: its `value` is the cutoff in Å.
        picture: a PNG image widget, drawn anew at each move.
    """

    def __init__(self, graph, node: int, longest: float):
        super().__init__()
        self.graph, self.node = graph, node
        self.slider = ipywidgets.FloatSlider(
            value=min(3.0, longest), min=1.0, max=longest, step=0.1, description="cutoff (Å)",
            continuous_update=False,
        )  # fmt: skip
        self.slider.observe(lambda change: self._draw(), names="value")
        self._draw()
        self.children = [self.slider, self.picture]

    def _draw(self) -> None:
        figure = Figure(figsize=(6, 6), layout="constrained")  # not of pyplot: shown here alone
        ax = figure.subplots()
        local_edges(self.graph, self.node, self.slider.value, ax, reach=self.slider.max + MARGIN)
        self.paint(figure)
