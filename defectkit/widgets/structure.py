"""3D views of a defect structure."""

import html

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import traitlets
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib.colors import to_hex

from defectkit.explain_plots import colours_of, lattice_map
from defectkit.graph_plots import GHOST
from defectkit.graphs.build import CrystalGraph
from defectkit.plots import DEFECT_COLOUR
from defectkit.records import SiteKind
from defectkit.widgets.picture import Pictured, Sheet


def view_defect(atoms: Atoms, defect_indices, vacancies=(), size: str = "400px"):
    """An nglview widget of `atoms` with its defect marked by translucent red spheres.

    Args:
        atoms: structure, positions in Å.
        defect_indices: atoms that belong to the defect.
        vacancies: (k, 3) Å positions of vacant sites, drawn as ghost spheres.
        size: height of the widget, CSS.

    nglview reads the structure through PDB text, which turns the cell to its standard form; the
    same turn is applied here first, so that ghost spheres sit where their atoms would.
    """
    import nglview

    turned, vacancies = _standard_form(atoms, np.asarray(vacancies, dtype=float).reshape(-1, 3))
    view = nglview.show_ase(turned)
    view.clear_representations()
    view.add_representation("ball+stick", aspectRatio=3)
    view.add_unitcell()
    if len(defect_indices):
        view.add_representation(
            "spacefill", selection=[int(i) for i in defect_indices], color=DEFECT_COLOUR,
            opacity=0.5, radiusScale=0.7,
        )  # fmt: skip
    colour = [int(DEFECT_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    for point in vacancies:
        view.shape.add_sphere(point.tolist(), colour, 0.8, "vacancy")
    view.layout.height = size
    view.camera = "orthographic"
    return view


def _standard_form(atoms: Atoms, points: np.ndarray) -> tuple[Atoms, np.ndarray]:
    """Atoms and points turned together so that cell vector a lies along x, b in the xy plane."""
    _, rotation = atoms.cell.standard_form()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T, scale_atoms=False)
    turned.positions = atoms.positions @ rotation.T
    return turned, points @ rotation.T


BINS = 16  # colours of a scale in the 3D view


class StructureView(Pictured):
    """A crystal in 3D with its defect marked, vacancies as ghosts, atoms coloured by a value.

    Where nglview is missing, and until a browser with WebGL has drawn the view, the picture of
    the same from above is shown instead. Click an atom to read its values.

    Args:
        graph: a single graph; its nodes are the atoms and then the vacancies.
        values: (n,) of the nodes, NaN where it is not known; None colours atoms by element.
        label: what the values are, with their unit.
        limits: ends of the colour scale; those of the values where not given.
        table: more to read of a clicked atom, a row a node.
        copies: of the cell along a and b.
        size: height of the 3D view, CSS.
        flat: whether there is a picture beside the 3D view.

    Attributes:
        selected: the node clicked last, or None; may be set.
        view: the nglview widget, or None.
        picture: the view from above.
        reading: text about the node selected.
    """

    selected = traitlets.Int(None, allow_none=True)

    def __init__(
        self,
        graph: CrystalGraph,
        values: np.ndarray | None = None,
        label: str = "",
        limits: tuple[float, float] | None = None,
        table: pd.DataFrame | None = None,
        copies: tuple[int, int] = (1, 1),
        size: str = "400px",
        flat: bool = True,
    ):
        super().__init__()
        self.picture.layout.display = None if flat else "none"
        self.graph, self.table, self.copies = graph, table, copies
        self.legend = ipywidgets.HTML()
        self.reading = ipywidgets.HTML("Click an atom to read its values.")
        self._sheet = Sheet((6, 4.6), edges=(0.11, 0.98, 0.11, 0.97, 0)) if flat else None
        self.view = self._new_view(size)
        self.colour(values, label, limits)
        self.observe(lambda change: self._read(), names="selected")
        if self.view is None:
            self.children = [self.picture, self.reading]
            return
        self.view.observe(self._clicked, names="picked")
        self.view.observe(self._drawn, names="loaded")
        self.children = [self.picture, self.view, self.legend, self.reading]
        self.legend.layout.display = "none"  # the picture has its own

    def colour(
        self,
        values: np.ndarray | None,
        label: str = "",
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Colour the nodes by other values, (n,)."""
        self.values = None if values is None else np.asarray(values, dtype=float)
        self.label = label
        norm = cmap = None
        if self.values is not None:
            norm, cmap = colours_of(self.values, limits)
            self.legend.value = _legend(norm, cmap, label)
        if self.view is not None:
            self.view.set_representations(self._representations(norm, cmap))
        if self._sheet and self.picture.layout.display != "none":
            ax, copies = self._sheet.wipe()[0, 0], int(max(self.copies) > 1)
            self._sheet.bar.ax.set_visible(self.values is not None)
            lattice_map(
                self.graph, self.values, label, limits, copies=copies, ax=ax, bar=self._sheet.bar
            )
            self.picture.value = self._sheet.png()
        self._read()

    def _new_view(self, size: str):
        try:
            import nglview
        except ImportError:
            return None
        graph = self.graph
        atoms = Atoms(graph.z.numpy(), graph.pos.numpy(), cell=graph.cell[0].numpy(), pbc=True)
        turned, _ = _standard_form(atoms, np.zeros((0, 3)))
        repeated = turned.repeat((*self.copies, 1))
        repeated.set_cell(turned.cell)  # one cell is outlined, however many copies there are
        view = nglview.show_ase(repeated)
        view.layout.height = size
        view.camera = "orthographic"
        return view

    def _representations(self, norm, cmap) -> list[dict]:
        """Bonds, atoms by colour, red shells around the defect, ghosts at its vacancies."""
        defect = self.graph.is_defect.numpy()
        vacant = self.graph.is_vacancy.numpy()
        bonds = {"aspectRatio": 3, "sele": self._selection(~vacant)}
        if norm is None:
            shown = [("ball+stick", bonds)]
            bins = np.zeros(len(vacant), dtype=int)
            colours = [GHOST]
        else:
            shown = [("licorice", bonds | {"color": "#bbbbbb", "radiusScale": 0.4})]
            bins = np.nan_to_num(norm(self.values) * BINS).clip(0, BINS - 1).astype(int)
            bins[np.isnan(self.values)] = BINS  # not known
            colours = [to_hex(plt.get_cmap(cmap)((k + 0.5) / BINS)) for k in range(BINS)] + [GHOST]
            for k in np.unique(bins[~vacant]):
                sele = self._selection((bins == k) & ~vacant)
                shown.append(
                    ("spacefill", {"sele": sele, "color": colours[k], "radiusScale": 0.45})
                )
        if (defect & ~vacant).any():
            sele = self._selection(defect & ~vacant)
            shown.append(
                ("spacefill", {"sele": sele, "color": DEFECT_COLOUR, "opacity": 0.4,
                               "radiusScale": 0.7})
            )  # fmt: skip
        if vacant.any():
            shown.append(
                ("spacefill", {"sele": self._selection(vacant), "color": DEFECT_COLOUR,
                               "opacity": 0.4, "depthWrite": False, "radiusType": "size",
                               "radiusSize": 1.2})
            )  # fmt: skip
        for k in np.unique(bins[vacant]):
            sele = self._selection((bins == k) & vacant)
            shown.append(
                ("spacefill", {"sele": sele, "color": colours[k], "opacity": 0.5,
                               "radiusType": "size", "radiusSize": 0.9})
            )  # fmt: skip
        shown.append(("unitcell", {"sele": "all"}))
        return [{"type": kind, "params": parameters} for kind, parameters in shown]

    def _selection(self, chosen: np.ndarray) -> str:
        """Of (n,) bool nodes, in all copies, in NGL's language."""
        return "@" + ",".join(map(str, np.flatnonzero(np.tile(chosen, np.prod(self.copies)))))

    def _clicked(self, change) -> None:
        atom = change["new"].get("atom1") or change["new"].get("atom") or {}
        if "index" in atom:
            self.selected = int(atom["index"]) % len(self.graph.z)

    def _drawn(self, change) -> None:
        """The 3D view stands: the picture is not needed any more."""
        if change["new"]:
            self.view.control.spin([0, 1, 0], np.pi)  # NGL looks from below, the picture from above
            self.picture.layout.display = "none"
            self.legend.layout.display = None if self.values is not None else "none"

    def _read(self) -> None:
        if self.selected is None:
            return
        z, original = (int(t[self.selected]) for t in (self.graph.z, self.graph.original_z))
        name = chemical_symbols[z] if z else f"vacancy ({chemical_symbols[original]} is missing)"
        kind = SiteKind(int(self.graph.site_kind[self.selected])).name.lower()
        lines = [f"<b>{name}</b>, node {self.selected}, {kind}"]
        if self.values is not None:
            lines.append(f"{html.escape(self.label)}: {self.values[self.selected]:.3g}")
        if self.table is not None:
            row = self.table.iloc[self.selected]
            lines += [
                f"{html.escape(str(key))}: {value:.3g}"
                for key, value in row.items()
                if isinstance(value, float)
            ]
        self.reading.value = "<br>".join(lines)


def _legend(norm, cmap: str, label: str) -> str:
    """A colour bar in HTML, which is there at once: matplotlib takes a tenth of a second."""
    steps = ", ".join(to_hex(plt.get_cmap(cmap)(x)) for x in np.linspace(0, 1, BINS))
    return (
        f'{norm.vmin:.3g} <span style="display: inline-block; width: 220px; height: 12px; '
        f'background: linear-gradient(to right, {steps})"></span> {norm.vmax:.3g} '
        f"&nbsp;{html.escape(label)}"
    )
