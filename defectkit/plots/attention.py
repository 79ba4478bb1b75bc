"""Figures of attention: what lies out of reach, which images count, who listens to whom.

Each takes arrays or graphs and returns matplotlib axes. Units stand in every axis label.
"""

from collections.abc import Callable
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.plots import style
from defectkit.plots.style import ABOVE, BESIDE, BLUE, GREEN, GREY, ORANGE

LARGEST_DENOMINATOR = 60  # of weights written as fractions


def strain_map(
    offset: np.ndarray, strain: np.ndarray, reach: float, ax: Axes | None = None
) -> Axes:
    """A sheet from above with the strain at every atom, and how far its defect hears.

    Args:
        offset: (N, 3) Å, places of the nodes seen from the defect.
        strain: (N,) mean strain of each node's bonds, without unit.
        reach: Å, of the local layers.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6, 5), layout="constrained")[1]
    percent = 100 * strain
    most = max(np.abs(percent).max(), 1e-3)
    order = np.argsort(np.abs(percent))
    dots = ax.scatter(
        *offset[order, :2].T,
        c=percent[order],
        s=14,
        cmap=style.SIGNED,
        vmin=-most,
        vmax=most,
        edgecolors=style.LIGHT_GREY,
        linewidths=0.3,
    )
    ax.scatter(0, 0, s=90, color=ORANGE, label="the defect", zorder=3)
    turn = np.linspace(0, 2 * np.pi, 100)
    ax.plot(reach * np.cos(turn), reach * np.sin(turn), "k:", label=f"local reach, {reach:g} Å")
    ax.figure.colorbar(dots, ax=ax, label="mean bond strain (%)", shrink=0.8)
    ax.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal")
    ax.legend(**ABOVE, ncols=2)
    return ax


def change_by_distance(
    distance: np.ndarray, changes: dict[str, np.ndarray], moved: float
) -> np.ndarray:
    """How much every node's vector changes, over the distance from the defect; a panel a model.

    Args:
        distance: (N,) Å from the defect.
        changes: (N,) length of the change of a node's vector, in any unit, by title.
        moved: Å, the distance beyond which atoms were moved.
    """
    axes = style.row_of_axes(len(changes), 5.5, 3.8, sharex=True, sharey=True)
    felt = np.concatenate([change[change > 0] for change in changes.values()])
    floor = felt.min() / 100
    for ax, (title, change) in zip(axes, changes.items()):
        zero = change == 0
        end = distance.max() * 1.03
        ax.axvspan(moved, end, color=style.MOVED_BAND, zorder=0, label="atoms moved here")
        ax.scatter(distance[~zero], change[~zero], s=10, color=BLUE, linewidths=0, label="changed")
        look = {"s": 10, "color": GREY, "linewidths": 0, "label": "exactly as before"}
        ax.scatter(distance[zero], np.full(zero.sum(), floor), **look)
        nearest = distance.argmin()
        look = {"s": 90, "color": ORANGE, "zorder": 3, "label": "the defect"}
        ax.scatter(distance[nearest], change[nearest] or floor, **look)
        ax.axhspan(floor / 4, floor * 4, color=style.BAND, zorder=0)
        ax.set(xlabel="distance from the defect (Å)", yscale="log", title=title)
        ax.set(xlim=(-0.5, end), ylim=(floor / 4, None))
    axes[0].text(distance.max(), floor, "zero", ha="right", va="center", color=GREY)
    axes[0].set_ylabel("change of the node's vector")
    handles, labels = axes[-1].get_legend_handles_labels()
    first_handles, first_labels = axes[0].get_legend_handles_labels()
    by_label = dict(zip(first_labels, first_handles)) | dict(zip(labels, handles))
    look = {"loc": "outside upper left", "ncols": 4, "frameon": False}
    axes[0].figure.legend(by_label.values(), by_label.keys(), **look)
    return axes


def chain(
    x: np.ndarray, length: float, names: list[str], vacancies: list[int], ax: Axes | None = None
) -> Axes:
    """Atoms of a periodic chain with one cell to either side, and the first atom's distances.

    Args:
        x: (n,) Å.
        length: Å, of the cell.
        names: (n,).
        vacancies: numbers of the places where no atom is.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(11, 2.6), layout="constrained")[1]
    ends = -0.5 - length / 2, 1.5 * length - 0.5
    for image in (-1, 0, 1):
        for number, (place, name) in enumerate(zip(x + image * length, names)):
            if not ends[0] < place < ends[1]:
                continue
            empty = number in vacancies
            style.labelled_disc(
                ax,
                (place, 0),
                0.34,
                name,
                fc="white" if empty else style.LIGHT_BLUE,
                ls="--" if empty else "-",
                alpha=1.0 if image == 0 else 0.3,
            )
    for border in (-0.5, length - 0.5):
        ax.axvline(border, color=GREY, ls="--", lw=1)
    for number in range(1, len(x)):
        nearest = (x[number] - x[0] + length / 2) % length - length / 2
        height = 0.45 + 0.4 * number
        arrow = {"arrowstyle": "->", "color": ORANGE, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x[0] + nearest, height), (x[0], height), arrowprops=arrow)
        ax.text(
            x[0] + nearest / 2,
            height + 0.04,
            f"{abs(nearest):g} Å to {names[number]}",
            ha="center",
            va="bottom",
            color=ORANGE,
        )
    ax.set(xlim=ends, ylim=(-0.5, 0.7 + 0.4 * len(x)), xlabel="x (Å)", aspect="equal", yticks=[])
    ax.spines[["left", "right", "top"]].set_visible(False)
    return ax


def attention_maps(weights: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """Attention between a few atoms, every weight written as a number.

    Args:
        weights: (n, n) by title, rows are queries.
        names: (n,).
    """
    axes = style.row_of_axes(len(weights), 3.7, 3.6)
    for ax, (title, matrix) in zip(axes, weights.items()):
        ax.imshow(matrix, cmap=style.SHARES, vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(matrix):
            ax.text(
                column,
                row,
                _fraction(value),
                ha="center",
                va="center",
                color="white" if value > 0.6 else "black",
            )
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
        ax.set(title=title, xlabel="key: who is heard")
    axes[0].set_ylabel("query: who listens")
    return axes


def _fraction(value: float) -> str:
    near = Fraction(float(value)).limit_denominator(LARGEST_DENOMINATOR)
    return str(near) if abs(near - value) < 1e-6 else f"{value:.2f}"


def images_heard(
    graphs: dict[str, CrystalGraph], node: int, share: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Which images of all atoms one node listens to, from above; a panel a graph.

    Args:
        graphs: a `CrystalGraph` with pairs for every title.
        node: who listens.
        share: from distances (P,) in Å to what an image counts for, between 0 and 1.
    """
    axes = style.row_of_axes(len(graphs), 5.4, 4.8, sharex=True, sharey=True)
    for ax, (title, graph) in zip(axes, graphs.items()):
        incoming = graph.pair_index[1] == node
        vectors = edge_vectors(graph.pos, graph.cell, graph.pair_index, graph.pair_shift)[incoming]
        counts = share(lengths(vectors).numpy())
        places = (graph.pos[node] + vectors).numpy()
        order = counts.argsort()
        dots = ax.scatter(
            *places[order, :2].T,
            c=counts[order],
            cmap=style.SHARES,
            vmin=0,
            vmax=1,
            s=55,
            edgecolors=style.RIM,
            linewidths=0.4,
            zorder=2,
        )
        ax.scatter(*graph.pos[node, :2], s=110, color=ORANGE, zorder=3, label="who listens")
        corners = style.cell_corners(graph.cell[0, :2, :2].numpy())
        style.outline(ax, corners, ec=GREY, ls="--", zorder=1, label="the cell")
        ax.set(title=f"{title}: {len(counts)} terms", xlabel="x (Å)", aspect="equal")
        ax.autoscale_view()
    axes[0].set_ylabel("y (Å)")
    axes[0].legend(loc="lower left", frameon=True)
    axes[0].figure.colorbar(dots, ax=list(axes), label="exp φ", shrink=0.8)
    return axes


def addition_theorem(cosine: torch.Tensor, direct: torch.Tensor, summed: torch.Tensor) -> Axes:
    """Legendre polynomials, and the same as sums over products of spherical harmonics.

    Args:
        cosine: (t,) cosines of angles.
        direct: (t, L) the polynomials.
        summed: (t, L) the sums.
    """
    _, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    order = cosine.argsort()
    for degree in range(direct.shape[1]):
        (line,) = ax.plot(cosine[order], direct[order, degree], lw=1.5, label=f"$P_{degree}$")
        ax.plot(cosine, summed[:, degree], "o", ms=4, mfc="none", color=line.get_color())
    ax.plot([], [], "o", ms=4, mfc="none", color=GREY, label="from harmonics")
    ax.set(xlabel="cosine of the angle", ylabel="value")
    ax.legend(**BESIDE)
    return ax


def model_parts(table: pd.DataFrame) -> Axes:
    """The parts of a model from top to bottom: what comes out of each, and its weights.

    Args:
        table: of `anatomy.part_shapes`.
    """
    _, ax = plt.subplots(figsize=(9, 0.36 * len(table) + 1), layout="constrained")
    places = np.arange(len(table))[::-1]
    colours = [
        ORANGE if "Global" in kind else BLUE if "Local" in kind else GREEN for kind in table.kind
    ]
    ax.barh(places, table.weights, color=colours, alpha=0.75)
    for place, weights, output in zip(places, table.weights, table.output):
        ax.text(weights, place, f"  → {output}", va="center", size=9)
    names = [f"{part}  ({kind})" for part, kind in zip(table.index, table.kind)]
    ax.set_yticks(places, names)
    ax.set(xlabel="weights", xlim=(0, 1.3 * table.weights.max()))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.spines[["right", "top"]].set_visible(False)
    return ax
