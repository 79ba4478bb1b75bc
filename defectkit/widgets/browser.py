"""A database to leaf through: filter rows, click one, see its structure."""

import ipywidgets
import numpy as np
import pandas as pd

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.explain import relaxation
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.names import in_html, in_terminal
from defectkit.structures.record import DefectRecord
from defectkit.widgets.picture import LINE, ROW, Pictured
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
        energy: a slider for the range of formation energies, eV; not shown where no row has one.
        rows: the list of rows; its `value` is the uid that is shown.
        found: the table of the rows that the filters leave.
        crystal: the `StructureView` of the row chosen, or None.
        picture: of that structure, for pages without widgets.
    """

    def __init__(self, dataset: Dataset, size: str = "360px") -> None:
        self.dataset, self.size = dataset, size
        frame = dataset.frame
        self.filters = {
            name: ipywidgets.Dropdown(
                options=[ANY, *sorted({text for text in frame[name] if text})], description=name
            )
            for name in FILTERS
        }
        self.energy = _energy_slider(frame.eform)
        self.count = ipywidgets.HTML()
        self.rows = ipywidgets.Select(rows=10, layout={"width": "100%", "max_width": "560px"})
        self.place = ipywidgets.VBox()  # as wide as the page, which a Box is not
        self.crystal = None
        for control in (*self.filters.values(), self.energy):
            control.observe(lambda change: self._filter(), names="value")
        self.rows.observe(lambda change: self._show(), names="value")
        super().__init__(
            [
                ipywidgets.HBox(list(self.filters.values()), layout=ROW),
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
        keep &= frame.eform.between(*self.energy.value) | ~np.isfinite(frame.eform.astype(float))
        self.found = frame[keep]
        listed = self.found.head(LISTED)
        more = f", the first {LISTED} are listed" if len(self.found) > LISTED else ""
        self.count.value = f"{len(self.found):,} of {len(frame):,} rows{more}"
        self.rows.options = [
            (_line(row), uid) for uid, row in zip(listed.index, listed.itertuples(index=False))
        ]

    def _show(self) -> None:
        self.crystal, self.place.children, self.picture.value, self.alt = None, [], b"", ""
        if (uid := self.rows.value) is None:
            return
        record = self.dataset[uid]
        title = ipywidgets.HTML(f"<b>{in_html(record.name or uid)}</b>", layout=LINE)
        try:
            self.crystal = self._crystal(record)
        except DefectkitError as error:
            self.place.children = [title, ipywidgets.HTML(in_html(error), layout=LINE)]
            return
        self.picture.value, self.alt = self.crystal.picture.value, self.crystal.alt
        self.place.children = [title, self.crystal]

    def _crystal(self, record: DefectRecord) -> StructureView:
        """The view of one row; DefectkitError where its structure cannot be drawn."""
        graph = build_graph(record, GRAPH, self.dataset.hosts.get(record.host))
        values, label = None, ""
        if record.unrelaxed is not None:
            moved = relaxation(record)
            values = np.concatenate([moved, np.full(len(graph.z) - len(moved), np.nan)])
            label = "moved in the relaxation (Å)"
        return StructureView(graph, values, label, size=self.size)


def _energy_slider(eform: pd.Series) -> ipywidgets.FloatRangeSlider:
    """A slider over the finite energies: JSON has neither NaN nor infinity."""
    finite = eform[np.isfinite(eform.astype(float))]  # without rows, the dtype is object
    low, high = (np.floor(finite.min()), np.ceil(finite.max())) if len(finite) else (0.0, 0.0)
    high = max(high, low + 1)  # a slider without a length cannot be drawn
    return ipywidgets.FloatRangeSlider(
        value=(low, high),
        min=low,
        max=high,
        step=max(0.1, (high - low) / 1000),
        description="energy (eV)",
        continuous_update=False,
        readout_format=".1f",
        layout={"width": "100%", "max_width": "560px", "display": None if len(finite) else "none"},
    )


def _line(row: tuple) -> str:
    """One row of the list, in the words of the filters; `row` is a named tuple of the frame."""
    words = [row.host, row.dopant, row.defecttype, row.site]
    words += [f"{row.strain:+.1%} strain"] if row.strain else []
    words += [f"{row.eform:.2f} eV" if np.isfinite(row.eform) else "energy not known"]
    return "   ".join(in_terminal(word) for word in words if word)
