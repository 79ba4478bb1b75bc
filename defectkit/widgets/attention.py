"""Attention to be explored: one structure closely, or all heads at a glance."""

from collections.abc import Iterable
from typing import Any, ClassVar

import ipywidgets
import numpy as np
import torch
from matplotlib.colors import Normalize
from traitlets import Bunch

from defectkit.explain import attention_maps, combine, node_table, seen_by
from defectkit.graphs.build import CrystalGraph
from defectkit.plots.explain import (
    RELATIVE,
    head_maps,
    lattice_map,
    scale_of,
    set_bar,
    weight_by_distance,
)
from defectkit.widgets.picture import ROW, Pictured, Sheet
from defectkit.widgets.structure import StructureView

ALL = -1
DEFECT, EVERYONE = -1, -2  # who asks, beside single nodes


class _Explored(Pictured):
    """What both widgets share: structures to choose from, and maps computed once for each."""

    def __init__(self, model: torch.nn.Module, graphs: Iterable[CrystalGraph]) -> None:
        super().__init__()
        self.model = model
        self.graphs = {graph.uid: graph for graph in graphs}
        self.structure = ipywidgets.Dropdown(options=list(self.graphs), description="structure")
        self._maps: dict[str, np.ndarray] = {}

    @property
    def graph(self) -> CrystalGraph:
        """The structure chosen."""
        return self.graphs[self.structure.value]

    @property
    def maps(self) -> np.ndarray:
        """(L, H, n, n) of the structure chosen."""
        uid = self.structure.value
        if uid not in self._maps:
            self._maps[uid] = attention_maps(self.model, self.graphs[uid])
        return self._maps[uid]


class AttentionExplorer(_Explored):
    """Choose a structure, a layer, a head and who asks: in 3D, from above, and by distance.

    The picture holds the map on the lattice and the weights against distance, and stays where
    there is no 3D view. Its scales are those of the largest weight of all layers and heads, so
    that heads can be compared. A click on an atom in 3D lets it ask, where the model lets it.

    Args:
        model: with attention, in evaluation mode.
        graphs: single graphs with a defect, of different uid.
        size: height of the 3D view, CSS.

    Attributes:
        structure, layer, head, query: dropdowns; their `value` may be set.
        crystal: the `StructureView` of the structure chosen.
        picture: a PNG image widget.
        weights: (n,) what is shown, one where attention is uniform.
    """

    SHEET: ClassVar[dict[str, Any]] = {"size": (11, 4), "widths": (1.2, 1), "barred": 1}

    def __init__(
        self, model: torch.nn.Module, graphs: Iterable[CrystalGraph], size: str = "320px"
    ) -> None:
        super().__init__(model, graphs)
        self.size, self._quiet = size, False
        self._sheet = Sheet(**self.SHEET)
        layers, heads = self.maps.shape[:2]
        every = [("all", ALL)]
        self.layer = ipywidgets.Dropdown(options=every + _counted(layers), description="layer")
        self.head = ipywidgets.Dropdown(options=every + _counted(heads), description="head")
        self.query = ipywidgets.Dropdown(description="who asks")
        self.place = ipywidgets.VBox()  # as wide as the page, which a Box is not
        self.structure.observe(lambda change: self._open(), names="value")
        for control in (self.layer, self.head, self.query):
            control.observe(lambda change: self._show(), names="value")
        self._open()
        self.children = [
            ipywidgets.HBox([self.structure, self.query], layout=ROW),
            ipywidgets.HBox([self.layer, self.head], layout=ROW),
            self.place,
            self.picture,
        ]

    def _open(self) -> None:
        """Another structure."""
        symbols = node_table(self.graph).symbol
        able = self.graph.pair_index[1].unique().tolist()  # nodes to which the others answer
        together = [("the defect", DEFECT)]
        if len(able) == len(symbols):
            together.append(("all nodes", EVERYONE))
        self._quiet = True  # or the change of options would draw as well
        self.query.options = together + [(f"{k} {symbols[k]}", k) for k in able]
        self.query.value = DEFECT
        self._quiet = False
        self.crystal = None
        self._show()

    def _show(self) -> None:
        if self._quiet:
            return
        graph, node = self.graph, self.query.value
        matrix = combine(self.maps, layer=_chosen(self.layer), head=_chosen(self.head))
        single = node if node >= 0 else None
        table = node_table(graph, None if single is None else [single])
        asking = {DEFECT: np.flatnonzero(table.defect), EVERYONE: None}.get(node, [node])
        self.weights = seen_by(matrix, asking) * len(table)
        asked = np.array([seen_by(one, asking) for layer in self.maps for one in layer])
        limits = scale_of(asked * len(table), RELATIVE)  # the same for every layer and head
        self._place_crystal(limits)
        centre = "the defect" if single is None else f"node {single}, which asks"
        left, right = self._sheet.wipe()[0]
        lattice_map(graph, self.weights, "", limits, single, ax=left)
        set_bar(self._sheet.bar, self.weights, RELATIVE, limits)
        shown = table.assign(relative=self.weights)
        weight_by_distance(shown, centre=centre, ax=right, scale=limits)
        self.paint(self._sheet)

    def _place_crystal(self, limits: Normalize) -> None:
        if self.crystal is not None:
            self.crystal.colour(self.weights, RELATIVE, limits)
            return
        self.crystal = StructureView(
            self.graph, self.weights, RELATIVE, limits, size=self.size, flat=False
        )
        if self.crystal.view is not None:
            self.crystal.observe(self._clicked, names="selected")
            self.place.children = [self.crystal]

    def _clicked(self, change: Bunch) -> None:
        if change["new"] in [value for _, value in self.query.options]:
            self.query.value = change["new"]


class HeadGallery(_Explored):
    """All heads of all layers as small maps, for one structure after another.

    Args:
        model: with attention, in evaluation mode.
        graphs: single graphs with a defect, of different uid.

    Attributes:
        structure: a dropdown.
        picture: a PNG image widget.
    """

    def __init__(self, model: torch.nn.Module, graphs: Iterable[CrystalGraph]) -> None:
        super().__init__(model, graphs)
        layers, heads = self.maps.shape[:2]
        edges = (0.01, 1.1, 0.02, 1 - 0.1 / layers, 0.06)
        size = 2.6 * heads + 0.9, 2.7 * layers
        self._sheet = Sheet(size, (1,) * heads, layers, edges)
        self.structure.observe(lambda change: self._show(), names="value")
        self._show()
        self.children = [self.structure, self.picture]

    def _show(self) -> None:
        head_maps(self.graph, self.maps, axes=self._sheet.wipe(), bar=self._sheet.bar)
        self.paint(self._sheet)


def _counted(number: int) -> list[tuple[str, int]]:
    return [(str(k), k) for k in range(number)]


def _chosen(control: ipywidgets.Dropdown) -> int | None:
    return None if control.value == ALL else control.value
