"""A slider for the cutoff radius, and the edges that it gives."""

import io

import ipywidgets
import matplotlib.pyplot as plt

from defectkit.graph_plots import local_edges


class CutoffExplorer(ipywidgets.VBox):
    """Move the slider: the edges to one node are drawn over the crystal, and counted.

    Args:
        graph: a `CrystalGraph` whose local edges reach at least as far as the slider.
        node: the node in the middle.
        longest: Å, the end of the slider.

    Attributes:
        slider: its `value` is the cutoff in Å.
        picture: a PNG image widget, drawn anew at each move.
    """

    def __init__(self, graph, node: int, longest: float):
        self.graph, self.node = graph, node
        self.slider = ipywidgets.FloatSlider(
            value=min(3.0, longest), min=1.0, max=longest, step=0.1, description="cutoff (Å)",
            continuous_update=False,
        )  # fmt: skip
        self.picture = ipywidgets.Image(format="png", width=480)
        self.slider.observe(lambda change: self._draw(), names="value")
        self._draw()
        super().__init__([self.slider, self.picture])

    def _draw(self) -> None:
        figure, ax = plt.subplots(figsize=(6, 6))
        local_edges(self.graph, self.node, self.slider.value, ax)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
        plt.close(figure)  # else the notebook shows it a second time
        self.picture.value = buffer.getvalue()
