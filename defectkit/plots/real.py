"""Figures of the notebook on real DFT: sites, published errors, long range, reach, the ladder.

Tables are those of `data/benchmarks`, energies in eV and drawn in meV where they are small.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.path import Path
from matplotlib.ticker import LogLocator
from scipy.interpolate import PchipInterpolator

from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors
from defectkit.plots import style
from defectkit.plots.style import ABOVE, AMBER, BLACK, BLUE, GREEN, GREY, ORANGE
from defectkit.structures.names import in_figure

MEV = 1000.0  # of an eV
ALL_PAIRS = "all pairs"
CUTS = {"cut at 5 Å": ORANGE, "cut at 8 Å": AMBER, "cut at 12 Å": GREEN}
ALL_ATOMS = ("all atoms, local", "all atoms, global without ψ", "all atoms, global")
CUTS_AT = (5.0, 8.0, 12.0)  # Å
FAR = 5.0  # Å, from where on the interaction of vacancies is drawn
SIDES = {
    "same": ("-", BLACK, "DFT, on one side"),
    "other": ((0, (4, 1.2)), "white", "DFT, across the layer"),
}
MEAN_OF = "mean of "
MEAN_OF_ALL = f"{MEAN_OF}8"
FEW_SHOT = "few-shot "
PROMISED = 0.9  # share of the rows that an interval shall hold
LOOKS = {
    "mean": {"marker": "v", "color": GREY},
    "composition": {"marker": "^", "color": GREY},
    "pairs": {"marker": "s", "color": AMBER},
    "lightgbm": {"marker": "P", "color": GREEN},
    "sites x3": {"marker": "o", "color": BLUE},
}


def two_graphs(atoms: CrystalGraph, sites: CrystalGraph, reach: float) -> np.ndarray:
    """One structure as a graph of all atoms and as a graph of its defect's sites, from above.

    Args:
        atoms: a graph of nodes="atoms" with local edges.
        sites: of nodes="defects" with pairs.
        reach: Å, pairs of sites are drawn up to this distance.
    """
    _, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharex=True, sharey=True)
    links = (
        (atoms, atoms.edge_index, atoms.edge_shift, np.inf),
        (sites, sites.pair_index, sites.pair_shift, reach),
    )
    for ax, (graph, index, shift, longest) in zip(axes, links):
        vectors = edge_vectors(graph.pos, graph.cell, index, shift).numpy()
        length = np.linalg.norm(vectors, axis=1)
        shown = (length > 0) & (length <= longest)
        start = graph.pos[index[1]].numpy()[shown]
        ends = np.stack([start, start + vectors[shown]], axis=1)[:, :, :2]
        colour, width = (style.STICK, 0.4) if graph is atoms else (BLUE, 1.4)
        ax.add_collection(LineCollection(ends, colors=colour, lw=width, alpha=0.7))
        corners = style.cell_corners(graph.cell[0, :2, :2].numpy())
        style.outline(ax, corners)
        _nodes(ax, graph)
        words = f"{len(graph.z):,} nodes, {shown.sum():,} directed pairs"
        low, high = corners.min(axis=0) - 2, corners.max(axis=0) + 2  # Å, room for the discs
        ax.set(title=words, aspect="equal", xlabel="x (Å)")
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if graph is sites:
            _lengths(ax, ends, length[shown], corners)
    axes[0].set_ylabel("y (Å)")
    return axes


def _lengths(ax: Axes, ends: np.ndarray, length: np.ndarray, corners: np.ndarray) -> None:
    """The length of every line, (k, 2, 2) Å, that begins and ends in the cell, in its middle."""
    inside = Path(corners).contains_points(ends.reshape(-1, 2)).reshape(-1, 2).all(axis=1)
    for middle, value in zip(ends.mean(axis=1)[inside], length[inside]):
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
        ax.text(*middle, f"{value:.1f} Å", ha="center", va="center", size=9, bbox=box, zorder=4)


def _nodes(ax: Axes, graph: CrystalGraph) -> None:
    """Atoms as discs, vacancies as dashed circles; what is changed is marked."""
    order = graph.pos[:, 2].argsort()
    z, pos, changed = (t[order].numpy() for t in (graph.z, graph.pos, graph.is_defect))
    look = {
        "edgecolors": np.where(z == 0, style.VACANCY, np.where(changed, style.DEFECT, style.RIM)),
        "linestyles": np.where(z == 0, "--", "-").tolist(),
        "linewidths": np.where(changed, 2.0, 0.5),
    }
    radii = style.atom_radii(z, 0.6, vacancy=0.9)
    style.discs(ax, pos[:, :2], radii, style.atom_faces(z), zorder=3, **look)


def published(
    table: pd.DataFrame, others: pd.DataFrame, source: str, ax: Axes | None = None
) -> Axes:
    """Errors of the kit's models by subset beside published ones, which are of another split.

    Args:
        table: columns subset, model, seed, mae, mae_lo, mae_hi (eV), of one task and target.
        others: columns subset, model, mae (eV).
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(11, 5), layout="constrained")[1]
    others = others.pivot(index="subset", columns="model", values="mae").drop(
        index=MEAN_OF_ALL, errors="ignore"
    )
    first = others.mean().idxmin()
    subsets = [name for name in others[first].sort_values().index if name in set(table.subset)]
    others.loc[MEAN_OF_ALL] = others.loc[subsets].mean()
    subsets += [MEAN_OF_ALL]
    places = pd.Series(np.arange(len(subsets), dtype=float), subsets)
    rest = others.columns.drop(first)
    for names, colour, width in ((rest, style.LIGHT_GREY, 1.2), ([first], BLACK, 2.5)):
        words = f"{', '.join(in_figure(n).replace('_', ' ') for n in names)}: another split"
        look = {"ls": "none", "ms": 36, "mew": width, "color": colour, "zorder": 1}
        ax.plot(places, MEV * others.loc[subsets, names], "_", **look)
        ax.plot([], [], "_", ms=14, mew=width, color=colour, label=words)
    drawn = [name for name in LOOKS if name in set(table.model)]
    for number, name in enumerate(drawn):
        rows = table[(table.model == name) & table.subset.isin(subsets)].groupby("subset")
        mean = MEV * rows[["mae", "mae_lo", "mae_hi"]].mean()
        shift = 0.42 * (number / max(len(drawn) - 1, 1) - 0.5)
        reach = style.whiskers(mean, "mae", "mae_lo", "mae_hi")
        size = 8 if name == drawn[-1] else 5.5
        look = {"ls": "none", "ms": size, "capsize": 2, "mec": "white", "mew": 0.6, "zorder": 3}
        look |= LOOKS[name] | {"label": in_figure(name)}
        ax.errorbar(places[mean.index] + shift, mean.mae, yerr=reach, **look)
    ax.axvspan(len(subsets) - 1.5, len(subsets) - 0.5, color=style.BAND, zorder=0)
    ax.set_xticks(places, [in_figure(name).replace("_", "\n") for name in subsets])
    ax.set(
        yscale="log",
        xlim=(-0.5, len(subsets) - 0.5),
        ylabel=f"mean absolute error on test rows,\n{in_figure(source)} (meV)",
    )
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(axis="y", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(**ABOVE, ncols=5)
    return ax


def oscillation(
    table: pd.DataFrame, source: str, held_out: str = "pair", axes: np.ndarray | None = None
) -> np.ndarray:
    """Interaction of two vacancies over their distance: DFT, all pairs, and pairs cut.

    Pairs nearer than `FAR` are left out: their energies are many times as large. Lines between
    the distances of the lattice guide the eye.

    Args:
        table: columns host, held_out, network, seed, side, distance (Å), dft and predicted (eV a
            vacancy).
        source: what computed the labels.
        held_out: rows of the table with this value are drawn.
        axes: where to draw, one a host; a new figure where they are not given.
    """
    table = table[table.held_out == held_out]
    hosts = list(table.host.unique())
    axes = style.row_of_axes(len(hosts), 6.2, 4.8, sharey=True) if axes is None else axes
    for ax, host in zip(axes, hosts):
        rows = table[(table.host == host) & (table.distance > FAR)]
        ax.axhline(0, color=style.SLOPE, lw=0.8, zorder=0)
        for (name, colour), reach in zip(CUTS.items(), CUTS_AT):
            if name in set(rows.network):
                ax.axvline(reach, color=colour, lw=1, ls=":", alpha=0.8, zorder=0)
            _band(ax, rows[rows.network == name], colour, name, 1.8)
        _band(ax, rows[rows.network == ALL_PAIRS], BLUE, ALL_PAIRS, 2.8)
        for side, (_, face, words) in SIDES.items():
            part = rows[rows.side == side].drop_duplicates("distance")
            look = {"mfc": face, "mec": BLACK, "mew": 1.2, "ms": 6.5, "zorder": 5}
            ax.plot(part.distance, MEV * part.dft, "o", label=words, **look)
        ax.set_title(f"two vacancies in {_subscript(host)}", size=12)
        ax.set(xlabel="distance between the vacancies (Å)", xlim=(FAR - 0.1, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"interaction energy a vacancy,\n{in_figure(source)} (meV)")
    handles, labels = axes[0].get_legend_handles_labels()
    look = {"loc": "outside upper center", "ncols": len(labels), "frameon": False}
    axes[0].figure.legend(handles[::-1], labels[::-1], **look)
    return axes


def _band(ax: Axes, rows: pd.DataFrame, colour: str, label: str, width: float) -> None:
    """Mean of the seeds as a line, from the lowest to the highest as a band, for each side."""
    for side, part in rows.groupby("side"):
        seeds = MEV * part.pivot(index="distance", columns="seed", values="predicted")
        x = np.linspace(seeds.index.min(), seeds.index.max(), 400)
        low, high, mean = (
            PchipInterpolator(seeds.index, values)(x)  # monotonous between points: no new extrema
            for values in (seeds.min(axis=1), seeds.max(axis=1), seeds.mean(axis=1))
        )
        ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        words = label if side == "same" else None
        ax.plot(x, mean, color=colour, lw=width, ls=SIDES[side][0], label=words)


def _subscript(formula: str) -> str:
    return re.sub(r"(\d+)", r"$_\1$", in_figure(formula))


def reach(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Errors on ordinary rows of networks that see pairs up to ever larger distances.

    Args:
        table: columns host, network, seed and mae (eV a site).
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8, 4), layout="constrained")[1]
    networks = [name for name in (*CUTS, ALL_PAIRS, *ALL_ATOMS) if name in set(table.network)]
    for (host, rows), colour in zip(table.groupby("host"), (BLUE, ORANGE)):
        seeds = MEV * rows.pivot(index="network", columns="seed", values="mae")
        seeds = seeds.reindex(networks)
        places = np.arange(len(networks))[::-1]
        ax.plot(seeds, places, "o", ms=4, color=colour, alpha=0.4)
        ax.plot(seeds.mean(axis=1), places, "|", ms=18, mew=3, color=colour, label=_subscript(host))
    ax.set_yticks(range(len(networks)), [in_figure(name) for name in networks[::-1]])
    ax.set(
        xlabel=f"mean absolute error a site on validation rows, {in_figure(source)} (meV)",
        xlim=(0, None),
    )
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(title="low density")
    return ax


def rungs(table: pd.DataFrame, source: str) -> np.ndarray:
    """Errors on each step of the ladder, and how often the 90 % intervals hold the label.

    Args:
        table: columns step, model, seed, subset, mae (eV a site) and coverage, a row of the mean of
            all subsets among them; steps of few-shot learning are left out (`few_shot`).
        source: what computed the labels.
    """
    rows = table[~table.step.str.startswith(FEW_SHOT)]
    rows = rows.groupby(["step", "model", "subset"], sort=False)[["mae", "coverage"]].mean()
    rows = rows.assign(mae=MEV * rows.mae, coverage=100 * rows.coverage).reset_index("subset")
    whole = rows.subset.str.startswith(MEAN_OF)
    steps, models = (list(rows.index.unique(level)) for level in ("step", "model"))
    size, layout = (11, 1.1 * len(steps) + 1.4), "constrained"
    axes = plt.subplots(1, 2, figsize=size, layout=layout, sharey=True, width_ratios=[1.6, 1])[1]
    for number, (model, colour) in enumerate(zip(models, style.SERIES)):
        lift = 0.5 * ((number + 0.5) / len(models) - 0.5)
        for place, step in enumerate(steps[::-1]):
            here = (rows.index == (step, model)).nonzero()[0]
            for ax, column in zip(axes, ("mae", "coverage")):
                each = rows[column].iloc[here]
                mean = whole.iloc[here].to_numpy()
                height = np.full(len(each), place - lift)
                ax.plot(each[~mean], height[~mean], "o", ms=4, color=colour, alpha=0.4)
                ax.plot(each[mean], height[mean], "|", ms=16, mew=2.5, color=colour)
        axes[0].plot([], [], "|", ms=10, mew=2.5, color=colour, label=in_figure(model))
    axes[0].plot([], [], "o", ms=4, color=GREY, label="one subset")
    axes[0].set_yticks(range(len(steps)), [in_figure(step) for step in steps[::-1]])
    axes[0].set(xscale="log", xlabel=f"mean absolute error a site, {in_figure(source)} (meV)")
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[1].axvline(100 * PROMISED, color=BLACK, ls=":", label=f"promised: {PROMISED:.0%}")
    axes[1].set(xlabel="rows inside their interval (%)", xlim=(0, 102))
    for ax in axes:
        ax.grid(axis="x", alpha=0.3)
        ax.set_ylim(-0.6, len(steps) - 0.4)
        ax.legend(**ABOVE, ncols=4)
    return axes


def few_shot(table: pd.DataFrame, source: str) -> np.ndarray:
    """Errors on a host over how many rows of it were learned from, a part for each host.

    Args:
        table: that of `rungs`; the steps "few-shot N", and the row of the host in step "host",
            which learned from none.
        source: what computed the labels.
    """
    rows = table[table.step.str.startswith(FEW_SHOT)]
    rows = rows.assign(n=rows.step.str.removeprefix(FEW_SHOT).astype(int), mae=MEV * rows.mae)
    subsets = list(rows.subset.unique())
    _, axes = plt.subplots(1, len(subsets), figsize=(10, 3.8), layout="constrained", squeeze=False)
    for ax, subset in zip(axes[0], subsets):
        for (model, part), colour in zip(
            rows[rows.subset == subset].groupby("model", sort=False), (ORANGE, BLUE)
        ):
            mean = part.groupby("n").mae.mean()
            ax.plot(part.n, part.mae, "o", ms=4, color=colour, alpha=0.4)
            ax.plot(mean.index, mean, "o-", ms=7, lw=2.2, color=colour, label=in_figure(model))
        none = table[(table.step == "host") & (table.subset == subset)]
        none = none[none.model == model.split(",")[0]]
        ax.axhline(MEV * none.mae.mean(), color=GREY, ls="--", label="other hosts alone")
        ax.set(xscale="log", yscale="log", title=_subscript(subset.split("_")[1]))
        ax.set_xticks(mean.index, [f"{n:,}" for n in mean.index])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("rows of the host that were learned from")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"mean absolute error a site,\n{in_figure(source)} (meV)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return axes[0]
