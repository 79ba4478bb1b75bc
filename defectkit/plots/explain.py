"""Figures of explanations: weight against distance, maps on the crystal, heads, agreement.

Each takes a table of `defectkit.explain` or a graph with values of its nodes, and returns
matplotlib axes. Maps are drawn from above, in Å, with periodic copies and the cell's outline.
"""

from collections.abc import Mapping
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from torch import nn

from defectkit import explain
from defectkit.explain import summary
from defectkit.graphs.build import CrystalGraph
from defectkit.plots import style
from defectkit.plots.style import ABOVE, BESIDE, BLUE, DEFECT, GREY, ORANGE, SERIES
from defectkit.structures.names import in_figure

VACANCY_RADIUS = 0.9  # Å, of the ring that stands for a vacancy
RELATIVE = "attention relative to uniform"
WITHOUT = "change without the atom (eV)"
ROOM = 1.5  # times the smallest and the largest weight, where a figure ends
MOST_APART = 1e3  # the largest weight over the smallest that has a colour of its own
MOST_OCCLUDED = 200  # nodes: their time grows with the square


def weight_by_distance(
    table: pd.DataFrame,
    fit: Mapping[str, float] | None = None,
    centre: str = "the defect",
    ax: Axes | None = None,
    scale: Normalize | None = None,
) -> Axes:
    """Attention against the distance from the defect, with means of rings and the fitted decay.

    The scale of attention is logarithmic.

    Args:
        table: columns distance (Å), defect and relative (one if uniform), a row a node.
        fit: of `explain.decay_length`; no curve where it is not given or found none.
        centre: what distances are measured from.
        ax: where to draw; a new figure where it is not given.
        scale: whose ends the frame has; `scale_of` all nodes where it is not given.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2), layout="constrained")[1]
    host, defect = table[~table.defect], table[table.defect]
    alpha = float(np.clip(60 / max(len(host), 1) ** 0.5 / 4, 0.12, 0.7))
    size = plt.rcParams["lines.markersize"]
    look = {
        "ms": 0.6 * size,
        "mew": 0,
        "color": GREY,
        "alpha": alpha,
        "label": "an atom of the host",
    }
    ax.plot(host.distance, host.relative, "o", **look)
    look = {"ms": 0.85 * size, "mew": 0, "color": DEFECT, "alpha": min(1.0, 2 * alpha)}
    ax.plot(defect.distance, defect.relative, "D", label="a node of the defect", **look)
    means = host.groupby(np.floor(host.distance))[["distance", "relative"]].mean()
    ax.plot(
        means.distance,
        means.relative,
        "s-",
        ms=0.85 * size,
        color=BLUE,
        label="mean of a ring of 1 Å",
    )
    if fit is not None and np.isfinite(fit["length"]):
        d = np.linspace(host.distance.min(), host.distance.max(), 200)
        text = f"decay over {fit['length']:.2g} Å"
        if np.isfinite(fit["lo"]):
            text += f" ({fit['lo']:.2g}–{fit['hi']:.2g})"
        if not fit["settled"]:
            text += ", not settled"
        curve = fit["amplitude"] * np.exp(-d / fit["length"]) + fit["floor"]
        ax.plot(d, curve, color=ORANGE, lw=2, label=text)
    ax.axhline(1, color="black", ls=":", lw=1, label="uniform")
    ax.set(xlabel=f"distance from {centre}, nearest image (Å)", ylabel=RELATIVE, yscale="log")
    scale = scale or scale_of(table.relative.to_numpy(), RELATIVE)
    ax.set_ylim(scale.vmin / ROOM, scale.vmax * ROOM)
    ax.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
    return ax


def lattice_map(
    graph: CrystalGraph,
    values: np.ndarray | None,
    label: str = RELATIVE,
    limits: style.Limits | None = None,
    query: int | None = None,
    copies: int = 1,
    ax: Axes | None = None,
) -> Axes:
    """Atoms seen from above, coloured by a value; those of lower layers are drawn first.

    Defects have a red rim; a vacancy is a dashed ring with a cross. Periodic copies
    are paler, the dotted line is the cell.

    Args:
        graph: a single graph.
        values: (n,) of its nodes, those not known (NaN) are white; None colours atoms by element,
            without a colour bar.
        label: what the values are, with their unit; no colour bar where it is empty.
        limits: ends of the colour scale, or a scale; from the values where not given
            (`scale_of`).
        query: a node to mark by a square, the one that asks.
        copies: of the cell on every side, of which the figure shows the nearest part.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6, 5), layout="constrained")[1]
    pos, cell = graph.pos.detach().numpy(), graph.cell[0].detach().numpy()
    corners = style.cell_corners(cell[:2, :2])
    corners += pos[:, :2].mean(axis=0) - corners.mean(axis=0)  # the cell may begin anywhere
    low, high = _frame(np.concatenate([pos[:, :2], corners]), 0.2 if copies else 0.0)
    if values is None:
        faces = style.atom_faces(graph.z.numpy())
    else:
        values = np.asarray(values, dtype=float)
        norm, cmap = style.colour_scale(values, limits or scale_of(values, label))
        faces = plt.get_cmap(cmap)(norm(values))
        faces[np.isnan(values)] = 1.0
    steps = np.array(list(product(range(-copies, copies + 1), repeat=2)))
    own = (steps == 0).all(axis=1)
    for shifts, alpha, zorder in ((steps[~own], 0.45, 2), (steps[own], 1.0, 3)):
        _atoms(ax, graph, faces, (shifts @ cell[:2, :2], low, high), alpha=alpha, zorder=zorder)
    if query is not None:
        ax.plot(*pos[query, :2], "s", ms=15, mfc="none", mec="black", mew=1.8, zorder=5)
    vacant = pos[graph.is_vacancy.numpy(), :2]
    ax.plot(*vacant.T, "x", ms=9, mew=2, color=DEFECT, zorder=5)
    style.outline(ax, corners, ls=":", lw=1.2, zorder=4)
    ax.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)")
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if label and values is not None:
        colours = plt.cm.ScalarMappable(norm, cmap)
        ax.figure.colorbar(colours, ax=ax, shrink=0.85, pad=0.02).set_label(label)
    return ax


def _atoms(
    ax: Axes,
    graph: CrystalGraph,
    faces: np.ndarray,
    copies: tuple[np.ndarray, np.ndarray, np.ndarray],
    **look: float,
) -> None:
    """Discs of all nodes, from the lowest to the highest, with red rims for those of the defect.

    Args:
        ax: where to draw.
        graph: a single graph.
        faces: (n, 3 or 4) colours of its nodes.
        copies: (k, 2) Å, shifts of the copies of the cell, and the lower left and upper right
            corner (2,) Å of the part that is shown.
        look: alpha and zorder.
    """
    shifts, low, high = copies
    pos, defect = graph.pos.detach().numpy(), graph.is_defect.numpy()
    order = np.argsort(pos[:, 2], kind="stable")
    # Layer by layer: all copies of a lower atom come before a higher one.
    places = (pos[order, None, :2] + shifts).reshape(-1, 2)
    nodes = np.repeat(order, len(shifts))
    inside = ((places > low - 1) & (places < high + 1)).all(axis=1)
    places, nodes = places[inside], nodes[inside]
    z = graph.z.numpy()[nodes]
    style.discs(
        ax,
        places,
        style.atom_radii(z, vacancy=VACANCY_RADIUS),
        faces[nodes],
        edgecolors=np.where(defect[nodes], DEFECT, style.RIM),
        linewidths=np.where(defect[nodes], 2.2, 0.5),
        linestyles=np.where(z > 0, "-", "--").tolist(),
        **look,
    )


def scale_of(values: np.ndarray, label: str) -> Normalize | None:
    """The scale of attention, which is logarithmic: nodes of the defect get many times as much.

    Three powers of ten are told apart below the largest value. None for anything else.
    """
    if label != RELATIVE:
        return None
    high = float(np.nanmax(values))
    low = max(float(np.nanmin(values)), high / MOST_APART)
    return LogNorm(min(low, 0.9 * high), high, clip=True)


def set_bar(
    bar: Colorbar, values: np.ndarray, label: str, limits: style.Limits | None = None
) -> None:
    """Let a colour bar show the scale of other values; arguments as in `lattice_map`."""
    limits = limits or scale_of(values, label)
    bar.update_normal(plt.cm.ScalarMappable(*style.colour_scale(values, limits)))
    bar.set_label(label)


def _frame(points: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner (2,) Å of (k, 2) points, and `margin` of their extent."""
    room = 1.0 + margin * np.ptp(points, axis=0)
    return points.min(axis=0) - room, points.max(axis=0) + room


def head_maps(
    graph: CrystalGraph,
    maps: np.ndarray,
    query: int | None = None,
    axes: np.ndarray | None = None,
    bar: Colorbar | None = None,
) -> np.ndarray:
    """All heads as small maps, a row a layer, with one scale of colours for all.

    Args:
        graph: a single graph.
        maps: (L, H, n, n), of `explain.attention_maps`.
        query: the node that asks; the mean over the defect's nodes where it is not given.
        axes: (L, H), where to draw; a new figure where they are not given.
        bar: the colour bar of those axes.
    """
    rows, columns, n, _ = maps.shape
    asking = np.flatnonzero(graph.is_defect.numpy()) if query is None else [query]
    shown = maps[:, :, asking].mean(axis=2) * n  # (L, H, n)
    limits = scale_of(shown, RELATIVE)
    if axes is None:
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.6 * columns + 0.9, 2.7 * rows),
            layout="constrained",
            squeeze=False,
        )
        bar = figure.colorbar(plt.cm.ScalarMappable(), ax=axes, shrink=0.8, pad=0.01)
    for layer, head in np.ndindex(rows, columns):
        ax = axes[layer, head]
        lattice_map(graph, shown[layer, head], "", limits, query, copies=0, ax=ax)
        ax.set(title=f"layer {layer}, head {head}", xlabel="", ylabel="", xticks=[], yticks=[])
    set_bar(bar, shown, RELATIVE, limits)
    return axes


def agreement_dots(
    groups: Mapping[str, pd.DataFrame],
    names: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean rank correlations of pairs of scores, with intervals over structures.

    Args:
        groups: by the group's name the columns first, second, mean, lo, hi, structures, as
            `explain.summary` gives them; the groups stand beside each other in their colours.
        names: what to write for a score.
        ax: where to draw; a new figure where it is not given.
    """
    names = names or {}
    found = pd.concat([table[["first", "second"]] for table in groups.values()])
    pairs = list(found.drop_duplicates().itertuples(index=False, name=None))
    ax = ax or plt.subplots(figsize=(8.5, 0.42 * len(pairs) + 1.4), layout="constrained")[1]
    for place, ((name, table), colour) in enumerate(zip(groups.items(), SERIES)):
        rows = table.set_index(["first", "second"]).reindex(pairs)
        heights = np.arange(len(pairs)) + 0.2 * (place - (len(groups) - 1) / 2)
        reach = style.whiskers(rows)
        ax.errorbar(
            rows["mean"],
            heights,
            xerr=reach,
            fmt="o",
            ms=5,
            capsize=2,
            color=colour,
            label=f"{name}, {rows.structures.max():.0f} structures",
        )
    ax.axvline(0, color="black", lw=1, ls=":")
    labels = [f"{names.get(one, one)} – {names.get(other, other)}" for one, other in pairs]
    ax.set_yticks(range(len(pairs)), labels)
    ax.invert_yaxis()
    ax.set(xlabel="rank correlation within a structure: mean and interval (95 %)")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(**ABOVE, ncols=2)
    return ax


def share_bars(shares: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Mean share of scores on the defect and its first shell, and what uniform scores would have.

    Args:
        shares: by the score's name what `explain.shares` gives.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8, 0.4 * len(shares) + 1.4), layout="constrained")[1]
    means = pd.DataFrame({name: table.mean() for name, table in shares.items()}).T
    places = np.arange(len(means))
    ax.barh(places, means.defect, color=ORANGE, label="the defect")
    ax.barh(places, means.first_shell, left=means.defect, color=BLUE, label="its first shell")
    ax.plot(
        means.uniform_near, places, "|", color="black", ms=20, mew=2.5, label="both, if uniform"
    )
    ax.set_yticks(places, means.index)
    ax.invert_yaxis()
    ax.set(xlabel="share of the score, mean over structures", xlim=(0, 1))
    ax.legend(**ABOVE, ncols=3)
    return ax


def rings(tables: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Mean attention of the host's atoms by their distance from the defect, a line a table.

    Every structure counts once in a ring of 1 Å; the bars are intervals (95 %) over structures.
    Rings that fewer than five structures reach are left out.

    Args:
        tables: by name; columns uid, distance (Å), defect and relative (one if uniform).
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8.5, 3.8), layout="constrained")[1]
    for place, ((name, table), colour) in enumerate(zip(tables.items(), SERIES)):
        host = table[~table.defect].assign(ring=lambda t: np.floor(t.distance))
        single = host.groupby(["uid", "ring"]).relative.mean().reset_index()
        found = summary(single, "relative", "ring").sort_values("ring")
        found = found[found.structures >= 5]
        reach = style.whiskers(found)
        shift = 0.5 + 0.06 * (place - (len(tables) - 1) / 2)  # bars would hide each other
        ax.errorbar(
            found.ring + shift,
            found["mean"],
            yerr=reach,
            marker="o",
            ms=4,
            capsize=2,
            color=colour,
            label=f"{name}, {table.uid.nunique()} structures",
        )
    ax.axhline(1, color="black", ls=":", lw=1, label="uniform")
    ax.set(xlabel="distance from the defect, nearest image (Å)", ylabel=RELATIVE)
    ax.set_ylim(bottom=0)
    ax.legend(**BESIDE)
    return ax


def by_element(table: pd.DataFrame) -> Axes:
    """Attention of the nodes of one structure, element by element.

    Args:
        table: of one structure; columns symbol, defect and relative (one if uniform).
    """
    symbols = sorted(table.symbol.unique())
    ax = plt.subplots(figsize=(7, 3.2), layout="constrained")[1]
    rng = np.random.default_rng(0)  # spread sideways, or equal values would be one point
    for defect, colour, marker in ((False, BLUE, "o"), (True, DEFECT, "D")):
        rows = table[table.defect == defect]
        x = rows.symbol.map(symbols.index) + rng.uniform(-0.2, 0.2, len(rows))
        name = "a node of the defect" if defect else "an atom of the host"
        ax.plot(x, rows.relative, marker, ms=6, mew=0, color=colour, alpha=0.7, label=name)
    ax.axhline(1, color="black", ls=":", lw=1, label="uniform")
    ax.set_xticks(range(len(symbols)), symbols)
    ax.set(ylabel=RELATIVE, xlim=(-0.5, len(symbols) - 0.5))
    ax.set_ylim(bottom=0)
    ax.legend(**BESIDE)
    return ax


def prediction_map(model: nn.Module, graph: CrystalGraph, title: str) -> np.ndarray:
    """What one prediction looked at (`looked_at`), side by side.

    Args:
        model: a network of all atoms with attention, in evaluation mode.
        graph: a single graph.
        title: of the figure.
    """
    axes = score_maps(graph, looked_at(model, graph))
    axes[0].figure.suptitle(in_figure(title))
    return axes


def looked_at(model: nn.Module, graph: CrystalGraph) -> dict[str, np.ndarray]:
    """Attention of the defect, and what leaving an atom out changes: (n,) each, by what they are.

    Where the defect's nodes attend to each other alone, attention says nothing of the others, and
    only the second is there. That is left out for more than `MOST_OCCLUDED` nodes: it is a
    prediction a node, and takes minutes there.

    Args:
        model: a network of all atoms with attention, in evaluation mode.
        graph: a single graph.
    """
    few, scores = len(graph.z) <= MOST_OCCLUDED, {}
    if not few or graph.pair_index.shape[1] >= len(graph.z) ** 2:
        scores[RELATIVE] = explain.attention_table(model, [graph]).relative.to_numpy()
    if few:
        with torch.no_grad():
            scores[WITHOUT] = explain.occlusion(model, graph)
    return scores


def score_maps(graph: CrystalGraph, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Several scores of one structure side by side, each with a scale of its own.

    Args:
        graph: a single graph.
        scores: (n,) of its nodes, by what they are with their unit.
    """
    axes = style.row_of_axes(len(scores), 3.4, 3, sharey=True)
    for ax, (label, values) in zip(axes, scores.items()):
        values = np.asarray(values, dtype=float)
        limits = scale_of(values, label)
        lattice_map(graph, values, "", limits, copies=0, ax=ax)
        colours = plt.cm.ScalarMappable(*style.colour_scale(values, limits))
        ax.figure.colorbar(colours, ax=ax, label=label, location="top", shrink=0.85)
        ax.set(ylabel="")
    axes[0].set_ylabel("y (Å)")
    # The first layout puts bars where maps of another shape would leave room, and cuts labels off.
    axes[0].figure.draw_without_rendering()
    return axes
