"""The first of a short list as cards: each in 3D, with its numbers and why it was chosen."""

import ipywidgets
import matplotlib.pyplot as plt

from defectkit.plots.screening import cards, in_numbers
from defectkit.screening.building import build
from defectkit.screening.candidates import Chunk
from defectkit.screening.handover import families_of
from defectkit.screening.store import Engine, Screening
from defectkit.structures.names import in_html
from defectkit.widgets.picture import Pictured
from defectkit.widgets.structure import StructureView

WIDTH = "320px"


class ShortList(Pictured):
    """Cards of the best candidates of a screening; atoms are where the recipe puts them.

    Args:
        screening: finished.
        length: how many cards.

    Attributes:
        views: a `StructureView` a card.
        picture: all of them from above.
    """

    def __init__(self, screening: Screening, length: int = 6) -> None:
        super().__init__()
        rows = screening.table("chosen").head(length)
        config = Engine().load().card.graph
        made = {
            one.key: one.graph
            for _, family in families_of(screening, rows.index)
            for one in build(Chunk((family,)), config)
        }
        graphs = [made[key] for key in rows.index]
        self.views = [StructureView(graph, size="240px", flat=False) for graph in graphs]
        if graphs:
            figure = cards(rows, graphs)[0, 0].figure
            self.paint(figure)
            plt.close(figure)  # else a notebook would show it once more
        boxes = [
            ipywidgets.VBox([ipywidgets.HTML(_told(row)), view], layout={"width": WIDTH})
            for row, view in zip(rows.itertuples(), self.views)
        ]
        flat = not graphs or self.views[0].view is None
        self.children = [self.picture] * flat + [
            ipywidgets.HBox(boxes, layout={"flex_flow": "row wrap"})
        ]


def _told(row: tuple) -> str:
    """A card's text as HTML."""
    lines = (f"<b>{row.place} · {in_html(row.name)}</b>", in_numbers(row), in_html(row.reason))
    return f'<div style="line-height: 1.4; margin: 0.6em 0 0">{"<br>".join(lines)}</div>'
