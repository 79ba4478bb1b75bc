"""A database to leaf through: filter rows, click one, see its structure."""

import ipywidgets
import numpy as np
import pandas as pd

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.explain import relaxation
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.widgets.picture import Pictured
from defectkit.widgets.structure import StructureView

ANY = "any"
FILTERS = ("host", "dopant", "defecttype")
LISTED = 200  # rows shown at a time
GRAPH = GraphConfig(cutoff=4.0, angle_cutoff=None, all_pairs=False)


class DatabaseBrowser(Pictured):
    """Filter the rows of a data set, click one, see its structure.

    Atoms are coloured by how far they moved in the relaxation, where the source says so.

    Args:
        dataset: cleaned or not.
        size: height of the 3D view, CSS.

    Attributes:
        filters: a dropdown for each of `FILTERS`.
        energy: a slider for the range of formation energies, eV.
        rows: the list of rows; its `value` is the uid that is shown.
        found: the table of the rows that the filters leave.
        crystal: the `StructureView` of the row chosen, or None.
        picture: of that structure, for pages without widgets.
    """

    def __init__(self, dataset: Dataset, size: str = "360px"):
        self.dataset, self.size = dataset, size
        frame = dataset.frame
        self.filters = {
            name: ipywidgets.Dropdown(
                options=[ANY, *sorted({text for text in frame[name] if text})], description=name
            )
            for name in FILTERS
        }
        low, high = float(np.floor(frame.eform.min())), float(np.ceil(frame.eform.max()))
        self.energy = ipywidgets.FloatRangeSlider(
            value=(low, high), min=low, max=high, step=0.1, description="energy (eV)",
            continuous_update=False,
        )  # fmt: skip
        self.count = ipywidgets.HTML()
        self.rows = ipywidgets.Select(rows=10, layout={"width": "420px"})
        self.place = ipywidgets.VBox()  # as wide as the page, which a Box is not
        self.crystal = None
        for control in (*self.filters.values(), self.energy):
            control.observe(lambda change: self._filter(), names="value")
        self.rows.observe(lambda change: self._show(), names="value")
        super().__init__(
            [
                ipywidgets.HBox(list(self.filters.values())),
                self.energy,
                self.count,
                self.rows,
                self.place,
            ]
        )
        self._filter()

    def _filter(self) -> None:
        frame = self.dataset.frame
        keep = pd.Series(True, frame.index)
        for name, control in self.filters.items():
            if control.value != ANY:
                keep &= frame[name] == control.value
        keep &= frame.eform.between(*self.energy.value) | frame.eform.isna()
        self.found = frame[keep]
        listed = self.found.head(LISTED)
        more = f", the first {LISTED} are listed" if len(self.found) > LISTED else ""
        self.count.value = f"{len(self.found):,} of {len(frame):,} rows{more}"
        self.rows.options = [
            (f"{row.name or uid}   {row.defecttype}   {row.eform:.2f} eV", uid)
            for uid, row in zip(listed.index, listed.itertuples(index=False))
        ]

    def _show(self) -> None:
        uid = self.rows.value
        if uid is None:
            self.crystal, self.place.children, self.picture.value = None, [], b""
            return
        record = self.dataset[uid]
        try:
            graph = build_graph(record, GRAPH, self.dataset.hosts.get(record.host))
        except DefectkitError as error:
            self.crystal, self.place.children = None, [ipywidgets.HTML(str(error))]
            self.picture.value = b""
            return
        values, label = None, ""
        if record.unrelaxed is not None:
            moved = relaxation(record)
            values = np.concatenate([moved, np.full(len(graph.z) - len(moved), np.nan)])
            label = "moved in the relaxation (Å)"
        self.crystal = StructureView(graph, values, label, size=self.size)
        self.picture.value = self.crystal.picture.value
        self.place.children = [self.crystal]
