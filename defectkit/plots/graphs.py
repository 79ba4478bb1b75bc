"""Figures of graphs: periodic images, local edges, line graphs, what a transform moves.

All are drawn from above, in Å. Graphs come as `defectkit.graphs.build.CrystalGraph`, whose tensors
become numpy arrays here.
"""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Arc, Circle

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors
from defectkit.plots import style
from defectkit.plots.style import ABOVE
from defectkit.structures.record import DefectRecord

MARGIN = 1.5  # Å around a cutoff


def image_choice(
    cell: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    ax: Axes | None = None,
    reach: float | None = None,
) -> Axes:
    """All images of an atom around another one: the nearest, and what rounding would take.

    Args:
        cell: (2, 2) Å, the two lattice vectors in the plane.
        start: (2,) Å, the atom that looks for its neighbour.
        end: (2,) Å, the neighbour.
        ax: where to draw; a new figure where it is not given.
        reach: Å, half the width of the frame about `start`; as wide as what is drawn if not given.
    """
    ax = ax or plt.subplots(figsize=(5.5, 5))[1]
    steps = np.array(list(product((-1, 0, 1), repeat=2)))
    for step in steps @ cell:
        style.outline(ax, style.cell_corners(cell, step), ec=style.BEFORE)
    images = end + steps @ cell
    ax.plot(*images.T, "o", color=style.GREY, ms=6, label="images of j")
    rounded = end - np.rint((end - start) @ np.linalg.inv(cell)) @ cell
    nearest = images[np.linalg.norm(images - start, axis=1).argmin()]
    for point, colour, line, text in (
        (rounded, style.ROUNDED, "--", "rounded fractional coordinates"),
        (nearest, style.NEAREST, "-", "nearest image"),
    ):
        length = np.linalg.norm(point - start)
        ax.plot(
            *np.array([start, point]).T, line, color=colour, lw=2, label=f"{text}: {length:.2f} Å"
        )
    ax.plot(*start, "s", color="black", ms=8, label="i")
    ax.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)")
    if reach is not None:
        ax.set(xlim=(start[0] - reach, start[0] + reach), ylim=(start[1] - reach, start[1] + reach))
    ax.legend(**ABOVE)
    return ax


def image_distance(
    cell: np.ndarray, end: np.ndarray, found: float | None, reach: float, ax: Axes
) -> Axes:
    """The nearest image of an atom seen from the origin, and how far away somebody says it is.

    Args:
        cell: (2, 2) Å, the two lattice vectors in the plane.
        end: (2,) Å, the other atom, in any cell.
        found: Å, what is said of the distance; None where nothing is.
        reach: Å, half the width of the frame.
        ax: where to draw.
    """
    steps = _steps(cell, 2 * reach) @ cell
    for step in steps[np.abs(steps).max(axis=1) < 1.5 * reach]:
        style.outline(ax, style.cell_corners(cell, step), ec=style.BEFORE)
    images = end + steps
    shown = images[np.abs(images).max(axis=1) < reach]
    away = np.linalg.norm(images, axis=1)
    ax.plot(*shown.T, "o", color=style.LIGHT_GREY, ms=5, label="images of j")
    ax.plot(*end, "o", color="black", ms=11, label="j, as given")
    ax.plot(0, 0, "s", color="black", ms=9, label="i", zorder=3)
    right = np.array([[0.0, 0.0], images[away.argmin()]])
    ax.plot(*right.T, "o-", color=style.NEAREST, lw=3, label="nearest image")
    if found is not None:
        line = {"fill": False, "ec": style.ORANGE, "ls": "--", "lw": 2, "label": "your distance"}
        ax.add_patch(Circle((0, 0), abs(found), **line))
    ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    ax.set(xlabel="x (Å)", ylabel="y (Å)")
    return ax


def local_edges(
    graph: CrystalGraph,
    node: int,
    cutoff: float,
    ax: Axes | None = None,
    reach: float | None = None,
) -> Axes:
    """The edges that lead to one node, seen from above, with the images that they come from.

    Args:
        graph: a `CrystalGraph` whose local edges reach at least as far as the cutoff.
        node: the one in the middle.
        cutoff: Å.
        ax: where to draw; a new figure where it is not given.
        reach: Å, half the width of the frame; a little more than the cutoff where not given.
    """
    ax = ax or plt.subplots(figsize=(6, 6))[1]
    pos, cell = graph.pos.numpy(), graph.cell[0].numpy()
    sender, receiver = graph.edge_index.numpy()
    incoming = receiver == node
    geometry = graph.pos, graph.cell, graph.edge_index, graph.edge_shift
    vectors = edge_vectors(*geometry).numpy()[incoming]
    near = np.linalg.norm(vectors, axis=1) <= cutoff
    ends, kinds = pos[node] + vectors[near], graph.z.numpy()[sender[incoming]][near]
    reach = cutoff + MARGIN if reach is None else reach
    for step in _steps(cell, reach):
        copies = pos + np.array([*step, 0]) @ cell
        shown = np.abs(copies[:, :2] - pos[node, :2]).max(axis=1) < reach
        _atoms(ax, copies[shown], graph.z.numpy()[shown], alpha=0.3)
    lines = [(pos[node, :2], end[:2]) for end in ends]
    ax.add_collection(LineCollection(lines, colors=style.NEAREST, lw=1.2, zorder=2))
    _atoms(ax, ends, kinds, alpha=1.0)
    _atoms(ax, pos[[node]], graph.z.numpy()[[node]], alpha=1.0)
    ax.add_patch(Circle(pos[node, :2], cutoff, fill=False, ec=style.RED, ls=":", lw=1.5))
    style.outline(ax, style.cell_corners(cell[:2, :2]), ls=":")
    ax.set(
        aspect="equal",
        xlabel="x (Å)",
        ylabel="y (Å)",
        xlim=(pos[node, 0] - reach, pos[node, 0] + reach),
        ylim=(pos[node, 1] - reach, pos[node, 1] + reach),
        title=f"cutoff {cutoff:.1f} Å: {len(ends)} edges to {_symbol(graph.z[node])}",
    )
    return ax


def receptive_field(
    graph: CrystalGraph, places: np.ndarray, layer: np.ndarray, most: int, ax: Axes
) -> Axes:
    """Nodes around one of them, coloured by the layer that brings their news, white where none.

    Args:
        graph: a `CrystalGraph`.
        places: (n, 3) Å, from the node in the middle to the nearest image of every node.
        layer: (n,) from 0 for the node in the middle; NaN where its news does not come.
        most: the last layer on the scale of colours.
        ax: where to draw.
    """
    faces = plt.get_cmap(style.SEQUENTIAL)(layer / most)
    faces[np.isnan(layer)] = 1.0
    order = np.argsort(places[:, 2], kind="stable")
    radii = style.atom_radii(graph.z.numpy(), vacancy=0.6)
    style.discs(ax, places[order, :2], radii[order], faces[order])
    reach = np.abs(places[:, :2]).max() + MARGIN
    ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    ax.set(xlabel="x from the node in the middle (Å)", ylabel="y (Å)")
    return ax


def line_graph(points: np.ndarray, bonds: list[tuple[int, int]], names: list[str]) -> np.ndarray:
    """A small molecule beside its line graph: bonds become nodes, angles become edges.

    Args:
        points: (N, 2) Å.
        bonds: pairs of atoms.
        names: (N,) what to write on each atom.
    """
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    middles = np.array([(points[i] + points[j]) / 2 for i, j in bonds])
    axes[0].add_collection(
        LineCollection([points[list(bond)] for bond in bonds], colors=style.CELL, lw=2)
    )
    axes[0].plot(*points.T, "o", ms=26, color=style.LIGHT_BLUE, mec=style.RIM)
    for point, name in zip(points, names, strict=True):
        axes[0].text(*point, name, ha="center", va="center")
    axes[0].set_title(f"graph: {len(points)} atoms, {len(bonds)} bonds")
    angles = 0
    for first, second in ((a, b) for a in range(len(bonds)) for b in range(a)):
        if not (shared := set(bonds[first]) & set(bonds[second])):
            continue
        angles += 1
        centre = shared.pop()
        arms = [points[sum(bonds[k]) - centre] - points[centre] for k in (first, second)]
        cos = arms[0] @ arms[1] / np.prod([np.linalg.norm(arm) for arm in arms])
        pair = middles[[first, second]]
        axes[1].plot(*pair.T, color=style.DEEP_ORANGE, lw=2, zorder=1)
        paper = {"fc": "white", "ec": "none", "pad": 2}  # the line does not cross the number
        axes[1].text(
            *pair.mean(axis=0),
            f"{np.degrees(np.arccos(cos)):.0f}°",
            color=style.RUST,
            ha="center",
            va="center",
            bbox=paper,
        )
        directions = np.degrees(np.arctan2(*np.array(arms).T[::-1]))
        low, high = sorted(directions) if np.ptp(directions) < 180 else sorted(directions % 360)
        across = 0.8 + 0.12 * angles  # arcs of one atom side by side
        axes[0].add_patch(
            Arc(
                points[centre],
                across,
                across,
                theta1=low,
                theta2=high,
                color=style.DEEP_ORANGE,
                lw=2,
            )
        )
    axes[1].plot(*middles.T, "s", ms=24, color=style.LIGHT_ORANGE, mec=style.RIM)
    for middle, (i, j) in zip(middles, bonds, strict=True):
        axes[1].text(*middle, f"{names[i]}{names[j]}", ha="center", va="center", fontsize=9)
    axes[1].set_title(f"line graph: {len(bonds)} bonds, {angles} angles")
    for ax in axes:
        ax.set_aspect("equal")
        ax.margins(0.25)
        ax.axis("off")
    return axes


def moved_atoms(pairs: dict[str, tuple[DefectRecord, DefectRecord]]) -> np.ndarray:
    """What transforms do, one panel each: before in grey, after in colour, from above.

    Displacements shorter than 1 Å are drawn as arrows, enlarged by the factor in the title.
    """
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    _, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3.6 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(pairs) :]:
        ax.axis("off")
    for ax, (name, (before, after)) in zip(axes.flat, pairs.items(), strict=False):
        ax.plot(*before.atoms.positions[:, :2].T, "o", color=style.BEFORE, ms=9, zorder=1)
        _atoms(ax, after.atoms.positions, after.atoms.numbers, alpha=0.8, scale=0.35)
        grown = len(before.atoms) != len(after.atoms)  # the new atoms stand around the defect
        for record, line in ((before, ":"), (after, "-")):
            cell, places = record.atoms.cell.array[:2, :2], record.atoms.positions[:, :2]
            origin = places.mean(axis=0) - cell.sum(axis=0) / 2 if grown else (0.0, 0.0)
            style.outline(ax, style.cell_corners(cell, origin), ls=line)
        ax.set(aspect="equal", title=name, xticks=[], yticks=[])
        if not grown:
            _arrows(ax, before.atoms.positions, after.atoms.positions)
        ax.autoscale_view()
    return axes


def _steps(cell: np.ndarray, reach: float) -> np.ndarray:
    """(k, 2) lattice steps in the plane whose copies of the cell may come within `reach` (Å)."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell[:2, :2]), axis=0)  # between a cell's sides
    most = np.ceil(reach / heights).astype(int) + 1
    return np.array(list(product(*(range(-n, n + 1) for n in most))))


def _arrows(ax: Axes, before: np.ndarray, after: np.ndarray) -> None:
    moved = after[:, :2] - before[:, :2]
    longest = np.linalg.norm(moved, axis=1).max()
    if not 0 < longest < 1.0:
        return
    factor = max(1, round(1.5 / longest))
    ax.quiver(
        *before[:, :2].T,
        *(factor * moved).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        color=style.RED,
        width=0.008,
        zorder=5,
    )
    ax.set_title(f"{ax.get_title()}\narrows x {factor}")


def _atoms(ax: Axes, pos: np.ndarray, z: np.ndarray, alpha: float, scale: float = 0.45) -> None:
    """Discs, the higher ones on top; a vacancy is a dashed circle."""
    order = np.argsort(pos[:, 2])
    places, z = pos[order, :2], z[order]
    atom = z > 0
    style.discs(
        ax,
        places,
        style.atom_radii(z, scale, vacancy=1.2 * scale),
        style.atom_faces(z),
        edgecolors=np.where(atom, style.RIM, style.VACANCY),
        linestyles=np.where(atom, "-", "--").tolist(),
        linewidths=np.where(atom, 0.6, 1.8),
        alpha=alpha,
        zorder=3,
    )


def _symbol(z: int) -> str:
    return chemical_symbols[int(z)] if int(z) else "a vacancy"
