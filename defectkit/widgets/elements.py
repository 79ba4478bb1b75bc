"""Vectors of the elements to be explored: a periodic table of buttons beside a map."""

from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from ase.data import atomic_names, chemical_symbols
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from defectkit import DefectkitError
from defectkit.evaluation.vectors import nearest, similarity
from defectkit.plots import style
from defectkit.plots.vectors import LIT, cell_of, component_map, element_map, ink
from defectkit.widgets.picture import DPI, LINE, Pictured, png

SIDE = "34px"  # of a button
TABLE = {
    "grid_template_columns": f"repeat(18, {SIDE})",
    "grid_template_rows": f"repeat(7, {SIDE}) 8px repeat(2, {SIDE})",
    "grid_gap": "2px",
    "width": "max-content",
}
LIT_FRAME = f"3px solid {style.ORANGE}"
LIMITS = (-1.0, 1.0)  # of a cosine


class ElementMap(Pictured):
    """Click an element: all others take the colour of their likeness, the nearest light up.

    Args:
        vectors: a row an element (its symbol), a column a dimension.
        element: the first one chosen.

    Attributes:
        chosen: symbol of the element chosen; see `choose`.
        near: cosine similarities of its nearest neighbours, the nearest first.
        buttons: by symbol, one an element that has a vector.
        words: neighbours in words.
        plot: a PNG image widget, the elements by their first two principal components.
        picture: table and plot in one, for pages without a kernel; painted when it is shown.

    Raises DefectkitError for an element without a vector.
    """

    def __init__(self, vectors: pd.DataFrame, element: str = "Mo") -> None:
        super().__init__()
        self.vectors, self._alike = vectors, similarity(vectors)
        self.buttons: dict[str, ipywidgets.Button] = {}
        for symbol in vectors.index:
            column, row = cell_of(chemical_symbols.index(symbol))
            # Not grid_row and grid_column: the browser drops them with the area that is not set.
            layout = {"grid_area": f"{int(row + 0.5)} / {column}", "width": SIDE, "height": SIDE}
            layout |= {"padding": "0", "margin": "0"}
            button = ipywidgets.Button(description=symbol, layout=layout)
            button.on_click(lambda pressed: self.choose(pressed.description))
            self.buttons[symbol] = button
        self.words = ipywidgets.HTML(layout=LINE)
        layout = {"align_self": "flex-start", "max_width": "100%", "height": "auto"}
        self.plot = ipywidgets.Image(format="png", layout=layout)
        table = ipywidgets.GridBox(list(self.buttons.values()), layout=TABLE)
        self.children = [ipywidgets.HBox([table], layout=LINE), self.words, self.plot]
        self.choose(element)

    def choose(self, element: str) -> None:
        """Show another element; DefectkitError for one without a vector."""
        if element not in self.buttons:
            raise DefectkitError(f"There is no vector of {element} here; choose another element.")
        self.chosen, self.near = element, nearest(self.vectors, element, LIT)
        norm, name = style.colour_scale(self._alike[element].to_numpy(), LIMITS)
        colours = plt.get_cmap(name)
        for symbol, button in self.buttons.items():
            alike = self._alike.loc[element, symbol]
            face = colours(norm(alike))
            button.style.button_color, button.style.text_color = to_hex(face), ink(face)
            lit = {element: "3px solid black"} | dict.fromkeys(self.near.index, LIT_FRAME)
            button.layout.border = lit.get(symbol, "1px solid transparent")
            button.style.font_weight = "bold" if symbol in lit else "normal"
            full = atomic_names[chemical_symbols.index(symbol)]
            button.tooltip = f"{full}, cosine {alike:.2f} with {element}"
        names = ", ".join(f"<b>{symbol}</b> {value:.2f}" for symbol, value in self.near.items())
        self.words.value = f"nearest to <b>{element}</b>, by cosine: {names}"
        figure = Figure(figsize=(8, 4.6), dpi=DPI, layout="constrained")
        component_map(self.vectors, element, figure.subplots())
        self.plot.value = png(figure)

    def _ipython_display_(self, **settings: Any) -> None:
        """Show the widget, and keep a picture of table and plot as they are now."""
        both = Figure(figsize=(13, 4.4), dpi=DPI, layout="constrained")
        element_map(self.vectors, self.chosen, both.subplots(1, 2, width_ratios=[1.35, 1]))
        self.paint(both)
        super()._ipython_display_(**settings)
