"""Views of one structure: in 3D with nglview, and a slider for the edges of its graph.

`Crystal` is what draws in 3D. `view_defect` makes one of plain atoms, `StructureView` one of a
graph with a value for every node.
"""

from collections.abc import Iterable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from IPython.utils.capture import capture_output
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from traitlets import Bunch

from defectkit.graphs.build import CrystalGraph
from defectkit.plots import style
from defectkit.plots.database import two_views
from defectkit.plots.explain import lattice_map, scale_of, set_bar
from defectkit.plots.graphs import MARGIN, local_edges
from defectkit.structures.names import in_html
from defectkit.structures.record import SiteKind
from defectkit.widgets.picture import Pictured, Sheet

BINS = 16  # colours of a scale in the 3D view
# Radii of balls and of the red rim around them: beside sticks (Å), with the colours of a scale (in
# units of the van der Waals radius), of a vacancy (Å).
SMALL_BALL, SMALL_RIM = 0.45, 0.62
BALL, RIM = 0.45, 0.56
GHOST_BALL, GHOST_RIM = 0.9, 1.15
STICK = 0.15
# NGL's camera looks upwards with x to the left. Half a turn about y makes that the view from above
# with x to the right, as in every picture of the kit; a turn mirrors nothing.
TURN = np.array([-1.0, 1.0, -1.0])
# Colours are those of their scale: no fog over what is further away, light from all sides.
STAGE = {"fogNear": 100, "fogFar": 100, "ambientIntensity": 0.9, "lightIntensity": 0.5}
CLOSER = 0.35  # than NGL comes by itself, which leaves room to turn a ball as wide as the sheet
BOND = 1.25  # length, in units of the distance to the nearest atom
REACH = 4.0  # Å, no bond is longer


def bonds(atoms: Atoms) -> np.ndarray:
    """(m, 2) pairs of atoms drawn as bonded; bonds across the edge of the cell are left out.

    A bond is at most `BOND` times as long as the distance from one of its atoms to that atom's
    nearest neighbour. Sums of radii would join the metal atoms of a dichalcogenide, which lie
    hardly further apart than touching spheres and are not bonded.
    """
    first, second, distance, shift = neighbor_list("ijdS", atoms, REACH)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, first, distance)
    short = distance <= BOND * np.maximum(nearest[first], nearest[second])
    drawn = short & (first < second) & (shift == 0).all(axis=1)
    return np.column_stack([first, second])[drawn]


def _mol2(atoms: Atoms, pairs: np.ndarray) -> str:
    """Atoms and bonds as text in Tripos' format, which lets the writer say what is bonded."""
    lines = ["@<TRIPOS>MOLECULE", "crystal", f"{len(atoms)} {len(pairs)}", "SMALL", "NO_CHARGES"]
    lines += ["", "@<TRIPOS>ATOM"]
    for k, (symbol, place) in enumerate(zip(atoms.symbols, atoms.positions * TURN), 1):
        x, y, z = place
        lines.append(f"{k} {symbol}{k} {x:.4f} {y:.4f} {z:.4f} {symbol} 1 ALL 0")
    lines.append("@<TRIPOS>BOND")
    lines += [f"{k} {i + 1} {j + 1} 1" for k, (i, j) in enumerate(pairs, 1)]
    return "\n".join(lines) + "\n"


class Crystal(Pictured):
    """A crystal in 3D, seen from above, its defect with a red rim, vacant sites as ghosts.

    Where nglview is missing, and until a browser with WebGL has drawn the view, the picture is
    shown instead.

    Args:
        atoms: positions in Å; vacant sites are atoms of number 0.
        defect: (n,) bool, whether an atom belongs to the defect.
        size: height of the 3D view, CSS.

    Attributes:
        view: the nglview widget, or None.
    """

    def __init__(self, atoms: Atoms, defect: np.ndarray, size: str = "400px") -> None:
        super().__init__()
        self.defect, self.vacant = defect, atoms.numbers == 0
        self.view = self._new_view(atoms, size)
        if self.view is not None:
            self.view.observe(self._drawn, names="loaded")

    def _new_view(self, atoms: Atoms, size: str) -> ipywidgets.DOMWidget | None:
        """The view of nglview with atoms, bonds and cell; None where nglview is missing."""
        try:
            # Its import shows a widget, which a page without a kernel could not show.
            with capture_output():
                import nglview
        except ImportError:
            return None
        with capture_output():
            view = nglview.NGLWidget()
        solid = np.flatnonzero(atoms.numbers)
        text = _mol2(atoms, solid[bonds(atoms[solid])] if len(solid) else np.zeros((0, 2)))
        structure = nglview.TextStructure(text, ext="mol2")
        view.add_component(structure, default_representation=False)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ atoms.cell.array[:2]
        corners += atoms.positions.mean(axis=0) - corners.mean(axis=0)  # it may begin anywhere
        ends = [(TURN * corner).tolist() for corner in corners]
        edges = [
            ("cylinder", ends[k - 1], ends[k], list(to_rgb(style.CELL)), 0.05) for k in range(4)
        ]
        view._add_shape(edges, name="cell")
        view.stage.set_parameters(**STAGE)
        view.layout.height = size
        view.camera = "orthographic"
        view.center()
        view.control.zoom(CLOSER)
        return view

    def show(self, bins: np.ndarray | None = None, colours: list[str] | None = None) -> None:
        """Colour the atoms: `colours[bins[k]]` is that of atom k; by element where not given."""
        if self.view is None:
            return
        solid, shown = ~self.vacant, []
        sticks = {"sele": _selection(solid)}
        if bins is None:
            bins, colours, rim = np.zeros(len(solid), dtype=int), [style.VACANCY], _size(SMALL_RIM)
            aspect = SMALL_BALL / STICK
            shown.append(("ball+stick", sticks | _size(STICK) | {"aspectRatio": aspect}))
        else:
            rim = {"radiusScale": RIM}
            shown.append(("licorice", sticks | _size(STICK) | {"color": style.STICK}))
            for k in np.unique(bins[solid]):
                sele = _selection((bins == k) & solid)
                shown.append(("spacefill", _ball(sele, colours[k], {"radiusScale": BALL})))
        for k in np.unique(bins[self.vacant]):
            sele = _selection((bins == k) & self.vacant)
            shown.append(("spacefill", _ball(sele, colours[k], _size(GHOST_BALL))))
        # Of a sphere that shows its inside alone, what lies in front hides all but a rim.
        inside = {"side": "back", "disableImpostor": True, "quality": "high"}
        for chosen, radius in ((self.defect & solid, rim), (self.vacant, _size(GHOST_RIM))):
            if chosen.any():
                shell = _ball(_selection(chosen), style.DEFECT, radius)
                shown.append(("spacefill", shell | inside))
        self.view.set_representations(
            [{"type": kind, "params": parameters} for kind, parameters in shown]
        )

    def _drawn(self, change: Bunch) -> None:
        """Hide the picture once the browser has drawn the 3D view."""
        if change["new"]:
            self.picture.layout.display = "none"


def _selection(chosen: np.ndarray) -> str:
    """The atoms of a mask (n,) bool, in NGL's selection language."""
    return "@" + ",".join(map(str, np.flatnonzero(chosen)))


def _size(radius: float) -> dict[str, Any]:
    """NGL's settings for one radius (Å) of all atoms."""
    return {"radiusType": "size", "radiusSize": radius}


def _ball(sele: str, colour: str, radius: dict[str, Any]) -> dict[str, Any]:
    """NGL's settings for dull balls of one colour."""
    return {"sele": sele, "color": colour, "roughness": 1.0, "metalness": 0.0, **radius}


def view_defect(
    atoms: Atoms, defect_indices: Iterable[int], vacancies: ArrayLike = (), size: str = "400px"
) -> Crystal:
    """`atoms` in 3D, coloured by element, with the defect marked.

    Args:
        atoms: structure, positions in Å.
        defect_indices: atoms that belong to the defect.
        vacancies: (k, 3) Å positions of vacant sites, drawn as ghosts.
        size: height of the 3D view, CSS.
    """
    points = np.asarray(vacancies, dtype=float).reshape(-1, 3)
    plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    sites = plain + Atoms("X" * len(points), positions=points)
    defect = np.zeros(len(sites), dtype=bool)
    defect[[int(k) for k in defect_indices]] = True
    shown = Crystal(sites, defect, size=size)
    figure = two_views(atoms, defect_indices, vacancies=points)[0].figure
    shown.paint(figure)
    plt.close(figure)
    shown.show()
    shown.children = [shown.picture] if shown.view is None else [shown.picture, shown.view]
    return shown


class StructureView(Crystal):
    """The crystal of a graph in 3D, atoms coloured by a value. Click an atom to read its values.

    Args:
        graph: a single graph; its nodes are the atoms and then the vacancies.
        values: (n,) of the nodes, NaN where it is not known; None colours atoms by element.
        label: what the values are, with their unit.
        limits: ends of the colour scale; those of the values where not given.
        size: height of the 3D view, CSS.
        flat: whether there is a picture beside the 3D view.

    Attributes:
        selected: the node clicked last, or None; may be set.
        picture: the view from above.
        reading: text about the node selected.
    """

    selected = traitlets.Int(None, allow_none=True)

    def __init__(
        self,
        graph: CrystalGraph,
        values: np.ndarray | None = None,
        label: str = "",
        limits: style.Limits | None = None,
        size: str = "400px",
        flat: bool = True,
    ) -> None:
        sites = Atoms(graph.z.numpy(), graph.pos.numpy(), cell=graph.cell[0].numpy(), pbc=True)
        super().__init__(sites, graph.is_defect.numpy(), size)
        self.picture.layout.display = None if flat else "none"
        self.graph = graph
        self.legend = ipywidgets.HTML()
        self.reading = ipywidgets.HTML("Click an atom to read its values.")
        self._sheet = Sheet((6, 4.6), edges=(0.11, 0.98, 0.11, 0.97, 0)) if flat else None
        self.colour(values, label, limits)
        self.observe(lambda change: self._read(), names="selected")
        if self.view is None:
            self.children = [self.picture, self.reading]
            return
        self.view.observe(self._clicked, names="picked")
        self.children = [self.picture, self.view, self.legend, self.reading]
        self.legend.layout.display = "none"  # the picture has its own

    def colour(
        self,
        values: np.ndarray | None,
        label: str = "",
        limits: style.Limits | None = None,
    ) -> None:
        """Colour the nodes by other values, (n,)."""
        self.values = None if values is None else np.asarray(values, dtype=float)
        self.label = label
        if self.values is None:
            self.show()
        else:
            limits = limits or scale_of(self.values, label)
            norm, cmap = style.colour_scale(self.values, limits)
            self.legend.value = _legend(norm, cmap, label)
            bins = np.nan_to_num(norm(self.values) * BINS).clip(0, BINS - 1).astype(int)
            bins[np.isnan(self.values)] = BINS  # not known
            scale = [to_hex(plt.get_cmap(cmap)((k + 0.5) / BINS)) for k in range(BINS)]
            self.show(bins, [*scale, style.VACANCY])
        if self._sheet and self.picture.layout.display != "none":
            ax, bar = self._sheet.wipe()[0, 0], self._sheet.bar
            bar.ax.set_visible(self.values is not None)
            lattice_map(self.graph, self.values, "", limits, copies=0, ax=ax)
            if self.values is not None:
                set_bar(bar, self.values, label, limits)
            self.paint(self._sheet)
        self._read()

    def _clicked(self, change: Bunch) -> None:
        atom = change["new"].get("atom1") or change["new"].get("atom") or {}
        if "index" in atom:
            self.selected = int(atom["index"])

    def _drawn(self, change: Bunch) -> None:
        super()._drawn(change)
        if change["new"]:
            self.legend.layout.display = None if self.values is not None else "none"

    def _read(self) -> None:
        """Write about the node selected: element, number, kind of site, value."""
        if self.selected is None:
            return
        z, original = (int(t[self.selected]) for t in (self.graph.z, self.graph.original_z))
        name = chemical_symbols[z] if z else f"vacancy ({chemical_symbols[original]} is missing)"
        kind = SiteKind(int(self.graph.site_kind[self.selected])).name.lower()
        lines = [f"<b>{name}</b>, node {self.selected}, {kind}"]
        if self.values is not None:
            lines.append(f"{in_html(self.label)}: {self.values[self.selected]:.3g}")
        self.reading.value = "<br>".join(lines)


def _legend(norm: Normalize, cmap: str, label: str) -> str:
    """A colour bar in HTML, which is there at once: matplotlib takes a tenth of a second."""
    steps = ", ".join(to_hex(plt.get_cmap(cmap)(x)) for x in np.linspace(0, 1, BINS))
    return (
        f'{norm.vmin:.3g} <span style="display: inline-block; width: 220px; height: 12px; '
        f'background: linear-gradient(to right, {steps})"></span> {norm.vmax:.3g} '
        f"&nbsp;{in_html(label)}"
    )


class CutoffExplorer(Pictured):
    """Move the slider: the edges to one node are drawn over the crystal, and counted.

    The frame is that of the longest cutoff all along, so that a longer cutoff looks longer.

    Args:
        graph: its local edges reach at least as far as the slider.
        node: the node in the middle.
        longest: Å, the end of the slider.

    Attributes:
        slider: its `value` is the cutoff in Å.
        picture: a PNG image widget, drawn anew at each move.
    """

    def __init__(self, graph: CrystalGraph, node: int, longest: float) -> None:
        super().__init__()
        self.graph, self.node = graph, node
        self.slider = ipywidgets.FloatSlider(
            value=min(3.0, longest),
            min=1.0,
            max=longest,
            step=0.1,
            description="cutoff (Å)",
            continuous_update=False,
        )
        self.slider.observe(lambda change: self._draw(), names="value")
        self._draw()
        self.children = [self.slider, self.picture]

    def _draw(self) -> None:
        figure = Figure(figsize=(6, 6), layout="constrained")  # pyplot would show it once more
        ax = figure.subplots()
        local_edges(self.graph, self.node, self.slider.value, ax, reach=self.slider.max + MARGIN)
        self.paint(figure)
