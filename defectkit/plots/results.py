"""Figures of models: what layers compute, how models learn, how well they predict, at what cost.

Each takes a table, a few arrays or graphs and returns matplotlib axes. Units stand in every axis
label, beside energies and moments also what computed them.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from defectkit.evaluation.breakdown import errors_by
from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors
from defectkit.plots import style
from defectkit.plots.style import ABOVE, BLUE, GREY, ORANGE
from defectkit.structures.names import in_figure

HORIZONTAL, VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))  # right, up
QUANTITIES = {"eform": ("formation energy", "eV"), "spin": ("magnetic moment", "μB")}


def message_rounds(
    points: np.ndarray, bonds: list[tuple[int, int]], names: list[str], values: np.ndarray
) -> np.ndarray:
    """A small graph after every round of message passing, with the value of each node.

    Args:
        points: (N, 2) Å.
        bonds: pairs of nodes.
        names: (N,).
        values: (rounds, N); nodes that are zero stay white.
    """
    low, high = points.min(axis=0) - 0.5, points.max(axis=0) + 0.5  # Å, room for the discs
    size = 3.2 * np.array([1, (high - low)[1] / (high - low)[0]])
    _, axes = plt.subplots(
        1, len(values), figsize=(len(values) * size[0], size[1] + 0.5), layout="constrained"
    )
    norm = plt.Normalize(0, np.abs(values).max())
    for number, (ax, row) in enumerate(zip(axes, values)):
        lines = [points[list(bond)] for bond in bonds]
        ax.add_collection(LineCollection(lines, colors=GREY, lw=2, zorder=1))
        for point, name, value in zip(points, names, row):
            colour = plt.get_cmap(style.SHARES)(0.15 + 0.4 * norm(abs(value))) if value else "white"
            style.labelled_disc(ax, point, 0.4, f"{name}\n{value:g}", size=9, fc=colour)
        ax.set(
            title=f"after round {number}" if number else "at the start",
            aspect="equal",
            xlim=(low[0], high[0]),
            ylim=(low[1], high[1]),
        )
        ax.axis("off")
    return axes


def surroundings(graphs: dict[str, CrystalGraph], node: int = 0) -> np.ndarray:
    """One node of several graphs with its neighbours, from above; lengths and angles beneath.

    Args:
        graphs: a `CrystalGraph` for every title.
        node: the one in the middle.
    """
    axes = style.row_of_axes(len(graphs), 3.4, 4, sharex=True, sharey=True)
    for ax, (title, graph) in zip(axes, graphs.items()):
        incoming = graph.edge_index[1] == node
        vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift)[incoming]
        vectors, kinds = vectors.numpy(), graph.z[graph.edge_index[0][incoming]].tolist()
        lines = [((0.0, 0.0), vector[:2]) for vector in vectors]
        ax.add_collection(LineCollection(lines, colors=GREY, lw=2, zorder=1))
        shown = [(np.zeros(3), int(graph.z[node])), *zip(vectors, kinds)]
        for place, (point, kind) in enumerate(sorted(shown, key=lambda pair: pair[0][2])):
            radius, face = style.atom_radii(kind, 0.4), style.atom_faces(kind)
            name, zorder = chemical_symbols[kind], 2 + 2 * place
            style.labelled_disc(ax, point[:2], radius, name, fc=face, zorder=zorder)
        ax.set(title=title, aspect="equal", xlabel="x (Å)")
        ax.text(
            0.5,
            -0.24,
            _lengths_and_angles(vectors, kinds),
            transform=ax.transAxes,
            ha="center",
            va="top",
            size=9,
        )
        ax.autoscale_view()
    axes[0].set_ylabel("y (Å)")
    return axes


def _lengths_and_angles(vectors: np.ndarray, kinds: list[int]) -> str:
    """Bonds and angles between them, counted by element."""
    names = [chemical_symbols[kind] for kind in kinds]
    length = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T / np.outer(length, length)).clip(-1, 1)
    bonds = Counter(f"{name} {d:.2f} Å" for name, d in zip(names, length))
    angles = Counter(
        f"{'-'.join(sorted((names[a], names[b])))} {np.degrees(np.arccos(cosines[a, b])):.0f}°"
        for a, b in combinations(range(len(names)), 2)
    )
    first, second = (
        ", ".join(f"{n} {text}" for text, n in sorted(c.items())) for c in (bonds, angles)
    )
    return f"bonds: {first}\nangles: {second}"


def learning_curve(
    metrics: pd.DataFrame, epochs: int | None = None, baseline: float | None = None
) -> np.ndarray:
    """The loss on training rows and the error on validation rows, by epoch.

    Args:
        metrics: columns train_loss and valid_eform_mae (eV), indexed by epoch.
        epochs: where the axis ends; at the last epoch if not given.
        baseline: eV, an error to compare with: that of predicting the mean.
    """
    _, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    epochs = epochs or int(metrics.index.max())
    axes[0].plot(metrics.train_loss, "o-", color=BLUE, ms=4, label="training rows")
    axes[0].set(ylabel="loss")
    axes[1].plot(metrics.valid_eform_mae, "o-", color=ORANGE, ms=4, label="validation rows")
    if baseline is not None:
        axes[1].axhline(baseline, color=GREY, ls="--", label="always the mean")
    axes[1].set(ylabel="mean absolute error (eV)")
    for ax in axes:
        ax.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(**ABOVE, ncols=2)
    return axes


def parity(
    rows: pd.DataFrame, source: str, name: str = "eform", title: str = "", ax: Axes | None = None
) -> Axes:
    """Predictions over labels; on the diagonal both agree.

    Args:
        rows: columns eform and eform_pred (eV), or spin and spin_pred (μB).
        source: what computed the labels.
        name: "eform" or "spin".
        title: written above, before the error.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(5, 5), layout="constrained")[1]
    words, unit = QUANTITIES[name]
    known = rows.dropna(subset=[name])
    label, predicted = known[name], known[f"{name}_pred"]
    ax.scatter(label, predicted, s=12, alpha=0.5, color=BLUE, linewidths=0)
    ends = np.array([min(label.min(), predicted.min()), max(label.max(), predicted.max())])
    ax.plot(ends, ends, "--", color=GREY, lw=1, label="label = prediction")
    error = (predicted - label).abs().mean()
    text = f"{len(known):,} rows, mean absolute error {error:.2f} {unit}"
    ax.set(
        xlabel=f"{words}, {in_figure(source)} ({unit})",
        ylabel=f"predicted {words} ({unit})",
        title=f"{in_figure(title, 120)}\n{text}" if title else text,
        aspect="equal",
    )
    ax.legend(loc="upper left", frameon=False)
    return ax


def error_bars(errors: pd.Series, groups: pd.Series, source: str, ax: Axes | None = None) -> Axes:
    """Mean absolute error of every group with its bootstrap interval (95 %), the worst on top.

    Args:
        errors: eV, one a row, with or without sign.
        groups: the name of each row's group.
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    found = errors_by(errors, groups).sort_values("mae")
    ax = ax or plt.subplots(figsize=(8, 0.24 * len(found) + 1.4), layout="constrained")[1]
    places, reach = range(len(found)), style.whiskers(found, "mae", "mae_lo", "mae_hi")
    ax.barh(places, found.mae, color=style.LIGHT_BLUE, label="mean of a group")
    ax.errorbar(found.mae, places, xerr=reach, fmt="none", ecolor=BLUE, label="interval, 95 %")
    ax.axvline(errors.abs().mean(), color=ORANGE, ls="--", label="mean of all rows")
    ax.set_yticks(places, [f"{in_figure(name)} ({n})" for name, n in found.n.items()])
    ax.set_xlabel(f"mean absolute error, labels {in_figure(source)} (eV)")
    ax.set_ylim(-0.7, len(found) - 0.3)
    ax.tick_params(axis="y", labelsize=9)
    ax.legend(**ABOVE, ncols=3)
    return ax


def error_by_energy(rows: pd.DataFrame, source: str, bins: int = 8, ax: Axes | None = None) -> Axes:
    """Absolute errors over |eform|, with the mean in bins that hold equally many rows.

    Args:
        rows: columns eform and eform_pred (eV).
        source: what computed the labels.
        bins: how many.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6.5, 4), layout="constrained")[1]
    size, error = rows.eform.abs(), (rows.eform_pred - rows.eform).abs()
    ax.scatter(size, error, s=8, alpha=0.3, color=GREY, linewidths=0, label="a row")
    binned_means(ax, size, error, bins, label="mean of a bin, interval 95 %")
    ax.set(xlabel=f"|formation energy|, {in_figure(source)} (eV)", ylabel="absolute error (eV)")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left", frameon=False)
    return ax


def binned_means(ax: Axes, x: pd.Series, error: pd.Series, bins: int, label: str) -> None:
    """Draw the mean absolute error, with its interval (95 %), in bins of equally many rows.

    Args:
        ax: where to draw.
        x: what is binned; a mean error stands at the mean of its bin.
        error: eV, with or without sign.
        bins: how many.
        label: in the legend.
    """
    cut = pd.qcut(x, bins, duplicates="drop")
    found = errors_by(error, cut)
    middles = x.groupby(cut, observed=True).mean()
    reach = style.whiskers(found, "mae", "mae_lo", "mae_hi")
    ax.errorbar(middles, found.mae, yerr=reach, fmt="o-", color=ORANGE, capsize=3, label=label)


def error_by_support(
    errors: pd.Series, groups: pd.Series, training: pd.Series, ax: Axes | None = None
) -> Axes:
    """Mean absolute error of every group over how many training rows it has.

    Args:
        errors: eV, one a row, with or without sign.
        groups: the name of each row's group.
        training: training rows by the name of the group.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6.5, 4), layout="constrained")[1]
    means = errors.abs().groupby(groups).mean()
    places = training.reindex(means.index).fillna(0)
    ax.plot(places, means, "o", color=BLUE)
    ax.set(
        xlabel=f"training rows of the {groups.name}",
        ylabel="mean absolute error (eV)",
        title=f"a point is a {groups.name}",
    )
    ax.set_ylim(bottom=0)
    name_points(ax, places, means, means.nlargest(5).index)
    return ax


def name_points(ax: Axes, x: pd.Series, y: pd.Series, names: Iterable[str] | None = None) -> None:
    """Write names beside points, each on the side where it covers fewest points and other names.

    Args:
        ax: with the points and its limits as they are to stay.
        x: places by name.
        y: places by name.
        names: those to write; all where they are not given.
    """
    ax.figure.draw_without_rendering()  # the layout decides what covers what
    points = ax.transData.transform(np.column_stack([x, y.loc[x.index]]))
    frame, taken = ax.get_window_extent(), []
    for name in x.index if names is None else names:
        own = list(x.index).index(name)
        others = np.delete(points, own, axis=0)

        def covered(text: Text, others: np.ndarray = others) -> int:
            box = text.get_window_extent().padded(2)
            inside = ((others > box.min - 4) & (others < box.max + 4)).all(axis=1).sum()  # markers
            outside = not (frame.contains(*box.min) and frame.contains(*box.max))
            return inside + sum(box.overlaps(one) for one in taken) + outside

        texts = [
            ax.annotate(
                in_figure(name),
                (x[name], y[name]),
                xytext=(away * right, away * up),
                textcoords="offset points",
                ha=HORIZONTAL[right],
                va=VERTICAL[up],
            )
            for away in (7, 16)
            for right, up in SIDES
        ]
        best = min(texts, key=covered)
        taken.append(best.get_window_extent().padded(2))
        for text in texts:
            if text is not best:
                text.remove()


def model_errors(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Test errors of models, a point a seed with its bootstrap interval (95 %), the best on top.

    Args:
        table: columns model, seed, eform_mae, eform_mae_lo, eform_mae_hi (eV).
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    order = table.groupby("model").eform_mae.mean().sort_values(ascending=False).index
    ax = ax or plt.subplots(figsize=(8, 0.5 * len(order) + 1.2), layout="constrained")[1]
    for place, name in enumerate(order):
        rows = table[table.model == name]
        heights = place + 0.22 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        labels = (None, None) if place else ("one seed, interval 95 %", "mean of the seeds")
        reach = style.whiskers(rows, "eform_mae", "eform_mae_lo", "eform_mae_hi")
        seeds = {"fmt": "o", "color": BLUE, "ms": 5, "capsize": 2, "label": labels[0]}
        ax.errorbar(rows.eform_mae, heights, xerr=reach, **seeds)
        mean = {"color": ORANGE, "ms": 22, "mew": 2.5, "label": labels[1]}
        ax.plot(rows.eform_mae.mean(), place, "|", **mean)
    ax.set_yticks(range(len(order)), map(in_figure, order))
    ax.set(xlabel=f"mean absolute error on test rows, labels {in_figure(source)} (eV)")
    ax.set_xlim(left=0)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(**ABOVE, ncols=2)
    return ax


def model_latency(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Milliseconds from atoms to a prediction on one core, the fastest on top.

    Args:
        table: columns model, build_ms, infer_ms_b1 and infer_ms_b64, milliseconds a structure.
        ax: where to draw; a new figure where it is not given.
    """
    parts = ["build_ms", "infer_ms_b1", "infer_ms_b64"]
    times = table.groupby("model")[parts].median()
    times = times.loc[(times.build_ms + times.infer_ms_b1).sort_values(ascending=False).index]
    ax = ax or plt.subplots(figsize=(8, 0.4 * len(times) + 1.3), layout="constrained")[1]
    places = np.arange(len(times))
    ax.barh(places, times.build_ms, color=style.LIGHT_BLUE, label="graph or features")
    ax.barh(
        places, times.infer_ms_b1, left=times.build_ms, color=ORANGE, label="model, one at a time"
    )
    ax.plot(
        times.build_ms + times.infer_ms_b64,
        places,
        "D",
        color="black",
        ms=5,
        label="end, when 64 go together",
    )
    ax.set_yticks(places, times.index)
    ax.set(xlabel="time of a structure on one core (ms)")
    ax.legend(**ABOVE, ncols=3)
    return ax


def echo(
    distance: np.ndarray,
    change: np.ndarray,
    reach: float,
    defect: np.ndarray,
    ax: Axes | None = None,
) -> Axes:
    """How much every node's vector changes when one atom moves.

    Args:
        distance: (N,) Å from the atom that moved.
        change: (N,) length of the change of the node's vector, in any unit.
        reach: Å, layers times cutoff.
        defect: (N,) whether a node is of the defect.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8, 4), layout="constrained")[1]
    felt = change > 0
    floor = change[felt].min() / 30
    for nodes, colour, size, text in (
        (felt & ~defect, BLUE, 10, "changed"),
        (~felt & ~defect, GREY, 10, "exactly as before"),
        (defect, ORANGE, 90, "the defect"),
    ):
        height = np.where(felt, change, floor)[nodes]
        ax.scatter(distance[nodes], height, s=size, color=colour, label=text, linewidths=0)
    ax.axvline(reach, color="black", ls=":", label=f"layers x cutoff = {reach:g} Å")
    ax.axhspan(floor / 3, floor * 3, color=style.BAND, zorder=0)
    ax.text(0.01, floor, " zero", transform=ax.get_yaxis_transform(), va="center", color=GREY)
    ax.set(
        xlabel="distance from the atom that moved (Å)",
        ylabel="change of the node's vector",
        yscale="log",
        ylim=(floor / 3, None),
    )
    ax.legend(loc="upper right", frameon=False)
    return ax
