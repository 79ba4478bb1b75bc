"""Figures of a screening: the funnel, maps, the front, what is asked for next and what it teaches.

Each takes a table of `defectkit.screening` and returns matplotlib axes. Units stand in every axis
label, beside energies also what the networks learned from.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase.data import atomic_numbers
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from defectkit.data.demo import NO_DOPANT
from defectkit.graphs.build import CrystalGraph
from defectkit.plots import style
from defectkit.plots.explain import lattice_map
from defectkit.plots.results import name_points
from defectkit.plots.style import ABOVE, BLACK, BLUE, GREEN, GREY, ORANGE
from defectkit.screening.choose import over_seeds
from defectkit.structures.names import in_figure

NOBLE = (2, 10, 18, 36, 54, 86)  # atomic numbers, after which a period begins
UNRELIABLE = ("overlap", "impossible", "unfamiliar")  # stages that no number survives
LOOKS = {
    "random": {"color": GREY, "ls": "--"},
    "uncertain": {"color": style.AMBER},
    "unlike": {"color": GREEN},
    "uncertain and unlike": {"color": BLUE},
    "improving": {"color": ORANGE},
}


def funnel(counts: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How many candidates each stage of a screening lets through and how many it stops.

    Args:
        counts: `Screening.funnel`, columns stage, reason, stopped and left.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(11, 0.42 * len(counts) + 1.3), layout="constrained")[1]
    total = counts.left.iloc[0] + counts.stopped.iloc[0]
    places = np.arange(len(counts))[::-1]
    ax.barh(places, counts.left, color=style.LIGHT_BLUE, label="left")
    ax.barh(places, counts.stopped, left=counts.left, color=style.LIGHT_ORANGE, label="stopped")
    for place, row in zip(places, counts.itertuples()):
        words = f"−{row.stopped:,}: {row.reason}" if row.stopped else row.reason
        dull = not row.stopped and row.stage != "chosen"
        ax.text(1.02 * total, place, words, va="center", size=9, color=GREY if dull else BLACK)
    names = [f"{row.stage}  {row.left:,}" for row in counts.itertuples()]
    ax.set_yticks(places, names)
    ax.set(xlabel=f"candidates, of {total:,}", xlim=(0, 1.02 * total))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(**ABOVE, ncols=2)
    return ax


def energy_map(table: pd.DataFrame, source: str) -> np.ndarray:
    """Formation energies of every dopant on every site of each host, in the order of the elements.

    A white line begins a period. Crossed values are not to be relied on, the dot is the best site
    of a dopant, the ring a place on the short list. What has no value is grey: its atoms overlap,
    or the dopant is what stands there anyway. Candidates without a dopant are not drawn.

    Args:
        table: of `Screening.table`, of one strain.
        source: what computed the labels that were learned from.
    """
    table = table[table.dopant != NO_DOPANT]
    hosts = sorted(table.host.unique())
    known = table.eform[~table.stage.isin(UNRELIABLE)]
    norm = plt.Normalize(*known.quantile([0.02, 0.98])) if len(known) else None
    tall = 0.24 * table.groupby("host").site.nunique().sum() + 1.1 * len(hosts)
    _, axes = plt.subplots(
        len(hosts), 1, figsize=(13, tall), layout="constrained", squeeze=False, sharex=True
    )
    dopants = sorted(table.dopant.unique(), key=atomic_numbers.get)
    for ax, host in zip(axes[:, 0], hosts):
        image = _map_of(ax, table[table.host == host], dopants, norm)
        ax.set_title(in_figure(host), loc="left")
    _legend_of_map(axes[0, 0])
    label = f"formation energy,\nlearned from {in_figure(source)} (eV)"
    axes[0, 0].figure.colorbar(image, ax=axes, label=label, extend="both", pad=0.01)
    return axes[:, 0]


def _map_of(
    ax: Axes, table: pd.DataFrame, dopants: list[str], norm: plt.Normalize | None
) -> plt.cm.ScalarMappable:
    """The map of one host."""
    sites = table.drop_duplicates("site").sort_values(["kind", "site"])
    column = {symbol: k for k, symbol in enumerate(dopants)}
    row = {name: k for k, name in enumerate(sites.site)}
    values = np.full((len(row), len(column)), np.nan)
    x, y = table.dopant.map(column).to_numpy(), table.site.map(row).to_numpy()
    values[y, x] = table.eform
    image = ax.imshow(values, norm=norm, cmap=style.SEQUENTIAL, aspect="auto")
    ax.set_facecolor(style.NO_VALUE)
    doubtful = table.stage.isin(UNRELIABLE).to_numpy()
    best = (table.margin_site > 0).to_numpy() & ~doubtful
    chosen = (table.stage == "chosen").to_numpy()
    ax.plot(x[doubtful], y[doubtful], "x", color="white", ms=4, mew=0.8)
    ax.plot(x[best], y[best], ".", color="white", ms=6)
    ax.plot(x[chosen], y[chosen], "o", mfc="none", mec=style.RED, ms=10, mew=2)
    periods = [np.searchsorted(NOBLE, atomic_numbers[symbol]) for symbol in dopants]
    for k, (one, other) in enumerate(pairwise(periods)):
        if one != other:
            ax.axvline(k + 0.5, color="white", lw=2.5)
    ax.set_xticks(range(len(dopants)), dopants, size=8)
    ax.set_yticks(range(len(row)), map(_place, sites.itertuples()), size=9)
    ax.tick_params(labelbottom=True, length=0)
    return image


def _legend_of_map(ax: Axes) -> None:
    look = {"ls": "none", "mec": style.RIM, "color": style.RIM}
    handles = [
        plt.Line2D([], [], marker="o", mfc="none", mec=style.RED, mew=2, ms=9, ls="none"),
        plt.Line2D([], [], marker=".", ms=6, **look),
        plt.Line2D([], [], marker="x", ms=5, **look),
    ]
    words = ["on the short list", "best site of the dopant", "not to be relied on"]
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "frameon": False}
    ax.legend(handles, words, ncols=3, **place)


def _place(site: tuple) -> str:
    """A site in words, as "on S, Mo missing (cpx0)"."""
    words = site.kind
    if site.removed:
        first, *gone = site.removed.split(",")
        words = f"on {first}" + (f", {' '.join(gone)} missing" if gone else "")
    return f"{in_figure(words)} ({in_figure(site.site)})"


def front(table: pd.DataFrame, on_front: np.ndarray, source: str) -> np.ndarray:
    """Energy against moment and against uncertainty; whom nobody beats in all three stands out.

    Args:
        table: columns name, eform, eform_lo, eform_hi (eV) and spin (μB).
        on_front: (n,) bool, of `funnel.front`.
        source: what computed the labels that were learned from.
    """
    axes = style.row_of_axes(2, 6.4, 4.4)
    moment = (table.spin, "magnetic moment of the cell (μB)")
    width = (table.eform_hi - table.eform_lo, "width of the interval (eV)")
    for ax, (up, label), (third, words) in zip(axes, (moment, width), (width, moment)):
        rest = {"s": 12, "color": style.LIGHT_GREY, "lw": 0, "alpha": 0.6}
        ax.scatter(table.eform[~on_front], up[~on_front], label="beaten by another", **rest)
        best = {"s": 44, "cmap": style.SEQUENTIAL, "ec": BLACK, "lw": 1.0, "zorder": 3}
        shown = table.eform[on_front], up[on_front]
        found = ax.scatter(*shown, c=third[on_front], label="beaten by nobody", **best)
        ax.figure.colorbar(found, ax=ax, label=words, pad=0.01)
        ax.set(xlabel=f"formation energy, learned from {in_figure(source)} (eV)", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(0.08)
    axes[0].legend(**ABOVE, ncols=2)
    named = table[on_front].nlargest(4, "spin").set_index("name")
    name_points(axes[0], named.eform, named.spin)
    return axes


def cards(rows: pd.DataFrame, graphs: list[CrystalGraph]) -> np.ndarray:
    """Candidates from above, each with its place, energy, interval and moment.

    Args:
        rows: of a short list, in its order.
        graphs: of the same.
    """
    columns = min(3, len(graphs))
    lines = -(-len(graphs) // columns)
    size, layout = (4 * columns, 3.3 * lines), "constrained"
    _, axes = plt.subplots(lines, columns, figsize=size, layout=layout, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, row, graph in zip(axes.flat, rows.itertuples(), graphs):
        lattice_map(graph, None, "", ax=ax)
        ax.set_title(f"{row.place}  {in_figure(row.name)}\n{in_numbers(row)}", size=10)
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    return axes


def in_numbers(row: tuple) -> str:
    """Energy, interval and moment of a candidate."""
    return f"{row.eform:.2f} eV ({row.eform_lo:.2f} to {row.eform_hi:.2f}), {row.spin:.2f} μB"


def asked(points: np.ndarray, sigma: np.ndarray, known: np.ndarray, chosen: dict) -> np.ndarray:
    """Which rows each strategy asks for, on a map of all; colour is the uncertainty.

    Args:
        points: (n, 2) of the rows without a label, the first two axes of their descriptors.
        sigma: (n,) eV.
        known: (m, 2) of those with one.
        chosen: numbers of rows by the name of the strategy.
    """
    axes = style.row_of_axes(len(chosen), 3.1, 3.4, sharex=True, sharey=True)
    bar = plt.cm.ScalarMappable(plt.Normalize(sigma.min(), sigma.max()), style.SEQUENTIAL)
    for ax, (name, numbers) in zip(axes, chosen.items()):
        ax.scatter(*points.T, c=sigma, cmap=bar.cmap, norm=bar.norm, s=9, lw=0, label="no label")
        ax.plot(*known.T, "s", color=BLACK, ms=4, label="with a label")
        look = {"mfc": "none", "mec": style.RED, "ms": 9, "mew": 1.6}
        ax.plot(*points[numbers].T, "o", label="asked for next", **look)
        ax.set(title=in_figure(name), xticks=[], yticks=[], xlabel="first component")
    axes[0].set_ylabel("second component")
    axes[0].figure.colorbar(bar, ax=axes, label="uncertainty, σ (eV)", pad=0.01)
    handles, words = axes[0].get_legend_handles_labels()
    look = {"loc": "outside upper left", "ncols": 3, "frameon": False}
    axes[0].figure.legend(handles, words, **look)
    return axes


def learning(curves: pd.DataFrame, titles: dict[str, str]) -> np.ndarray:
    """Error over the number of labels for each strategy, a panel a data set.

    Bands are 95 % intervals of the mean over seeds.

    Args:
        curves: of `choose.replay`, with the name of the data in column data.
        titles: by this name, with the unit of `mae` and what computed the labels.
    """
    axes = style.row_of_axes(len(titles), 6, 4.2, sharey=False)
    for ax, (data, title) in zip(axes, titles.items()):
        rows = curves[curves.data == data]
        for name, look in LOOKS.items():
            part = rows[rows.strategy == name].pivot(index="seed", columns="labelled", values="mae")
            if part.empty:
                continue
            mean, half = over_seeds(part)
            ax.plot(mean.index, mean, label=in_figure(name), **look)
            ax.fill_between(mean.index, mean - half, mean + half, color=look["color"], alpha=0.15)
        ax.set(title=title, xlabel="rows with a label", ylabel="mean absolute error (eV)")
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    handles, words = axes[0].get_legend_handles_labels()
    look = {"loc": "outside upper center", "ncols": len(words), "frameon": False}
    axes[0].figure.legend(handles, words, **look)
    return axes


def lost(table: pd.DataFrame, what: str, ax: Axes | None = None) -> Axes:
    """Energy that is lost where the first k of a model's order are computed and the best kept.

    Args:
        table: mean regret (eV), a row a k, a column a model.
        what: is chosen, such as "site of a dopant in a host".
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(7, 3.8), layout="constrained")[1]
    for name, colour in zip(table, style.SERIES):
        ax.plot(table.index, table[name], "o-", color=colour, label=in_figure(name))
    ax.set(xlabel=f"k, options computed ({what})", ylabel="formation energy lost (eV)")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def promised(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Predictions with their intervals beside what was computed afterwards.

    Args:
        table: columns name, eform, eform_lo, eform_hi and computed (eV).
        source: what computed.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(7, 0.5 * len(table) + 1.3), layout="constrained")[1]
    places = np.arange(len(table))[::-1]
    reach = style.whiskers(table, "eform", "eform_lo", "eform_hi")
    look = {"fmt": "o", "color": BLUE, "capsize": 4, "label": "predicted, 90 % interval"}
    ax.errorbar(table.eform, places, xerr=reach, **look)
    ax.plot(table.computed, places, "D", color=ORANGE, label=f"computed, {in_figure(source)}")
    ax.set_yticks(places, map(in_figure, table.name))
    ax.set(xlabel="formation energy (eV)", ylim=(-0.6, len(table) - 0.4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(**ABOVE, ncols=2)
    return ax
