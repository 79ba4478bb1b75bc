"""Figures as pictures inside widgets, and for pages on which no widget can live."""

import io

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

DPI = 80


def png(figure: Figure) -> bytes:
    """The figure as PNG; it is closed, or the notebook would show it a second time."""
    buffer = io.BytesIO()
    # Hard compression takes longer than the way of a larger file to the browser.
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    return buffer.getvalue()


class Pictured(ipywidgets.VBox):
    """A box with a `picture`, which a page that knows no widgets shows in its place.

    Attributes:
        picture: a PNG image widget.
    """

    def __init__(self, children=(), **settings):
        self.picture = ipywidgets.Image(format="png")
        super().__init__(children, **settings)

    def _repr_mimebundle_(self, **settings):
        """What a notebook keeps of it: the widget, and the picture as it is now."""
        bundle = super()._repr_mimebundle_(**settings) or {}
        if self.picture.value:
            bundle["image/png"] = bytes(self.picture.value)
        return bundle
