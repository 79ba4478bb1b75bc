"""Figures of vectors of elements: the periodic table, principal components, probes, errors.

Each takes tables of `evaluation.vectors` or `bench.vectors` and returns matplotlib axes.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from defectkit.data.formulas import groups
from defectkit.evaluation.vectors import components, facts, nearest, similarity
from defectkit.plots import style
from defectkit.structures.names import in_figure

LANTHANIDES, ACTINIDES = range(57, 72), range(89, 104)
NOBLE = (2, 10, 18, 36, 54, 86, 118)  # where periods end
COLUMNS, ROWS = 18, 9.5  # of the table, the f block below
LIT = 5  # neighbours of an element that are shown
WORDS = {
    "group": "group (share right)",
    "period": "period (share right)",
    "electronegativity": "electronegativity (R²)",
    "covalent_radius": "covalent radius (R²)",
    "neighbour": "nearest neighbour of the same group (share)",
    "clusters": "clusters against groups (adjusted information)",
    "pc1": "first component against valence electrons (rank correlation)",
}


def cell_of(z: int) -> tuple[int, float]:
    """Column, from 1, and row of an element in the periodic table; the f block is rows 8.5, 9.5."""
    if z in LANTHANIDES:
        return z - 57 + 3, 8.5
    if z in ACTINIDES:
        return z - 89 + 3, 9.5
    return int(groups()[z]), float(np.searchsorted(NOBLE, z) + 1)


def ink(face: Sequence[float]) -> str:
    """The colour of letters that can be read on a face, (r, g, b, ...) from 0 to 1."""
    return style.BLACK if np.dot(face[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"


def periodic_table(
    values: pd.Series,
    label: str,
    limits: tuple[float, float] | None = None,
    marked: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Elements in their places, coloured by a number; those without one are white.

    Args:
        values: by symbol.
        label: what the numbers are.
        limits: of the colours; lowest and highest where they are not given.
        marked: by symbol, the colour of a frame.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(9, 4.6), layout="constrained")[1]
    norm, name = style.colour_scale(values.to_numpy(float), limits)
    colours = plt.get_cmap(name)
    for z in range(1, len(chemical_symbols)):
        symbol, (column, row) = chemical_symbols[z], cell_of(z)
        value = values.get(symbol, np.nan)
        face = colours(norm(value)) if np.isfinite(value) else "white"
        frame = (marked or {}).get(symbol)
        look = {
            "ec": frame or style.STICK,
            "lw": 2.5 if frame else 0.5,
            "zorder": 2 if frame else 1,
        }
        ax.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fc=face, **look))
        colour = ink(face) if np.isfinite(value) else style.NO_VALUE_TEXT
        ax.text(column, row, symbol, ha="center", va="center", size=8, color=colour, zorder=3)
    ax.set(xlim=(0.4, COLUMNS + 0.6), ylim=(ROWS + 0.6, 0.4), aspect="equal", title=label)
    ax.set_axis_off()
    if ax.figure.get_layout_engine() is not None:
        scale = plt.cm.ScalarMappable(norm, colours)
        ax.figure.colorbar(scale, ax=ax, shrink=0.6, label=label)
    return ax


def component_map(vectors: pd.DataFrame, chosen: str | None = None, ax: Axes | None = None) -> Axes:
    """First two principal components; colours are groups, of main-group elements.

    Args:
        vectors: a row an element.
        chosen: an element that is joined to its nearest neighbours in all dimensions.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(7, 5), layout="constrained")[1]
    places, shares = components(vectors)
    known = facts(vectors.index)
    main = known.main_group.to_numpy()
    columns = sorted(known.group[main].unique())
    ax.scatter(*places[~main].to_numpy().T, s=14, color=style.BEFORE, zorder=1)
    ax.plot([], [], "o", ms=4, color=style.BEFORE, label="others")
    for group, colour in zip(columns, style.SERIES):
        here = places[main & (known.group == group).to_numpy()]
        ax.scatter(*here.to_numpy().T, s=26, color=colour, zorder=2)
        ax.plot([], [], "o", ms=5, color=colour, label=f"{group:.0f}")
    near = nearest(vectors, chosen, LIT) if chosen else pd.Series(dtype=float)
    for symbol, place in places.iterrows():
        lit = symbol in near.index or symbol == chosen
        look = {"size": 11, "weight": "bold", "zorder": 5} if lit else {"size": 7, "zorder": 3}
        colour = style.BLACK if lit or not chosen else style.LIGHT_GREY
        ax.text(place.pc1, place.pc2, f" {symbol}", color=colour, va="center", **look)
    for symbol in near.index:
        ends = places.loc[[chosen, symbol]]
        ax.plot(ends.pc1, ends.pc2, color=style.ORANGE, lw=1.5, zorder=4)
    first, second = (f"{share:.0%} of the variance" for share in shares)
    ax.set(xlabel=f"first component, {first}", ylabel=f"second, {second}")
    ax.legend(title="group", fontsize=8, **style.BESIDE)
    return ax


def element_map(
    vectors: pd.DataFrame, chosen: str, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """The periodic table by similarity to one element, and the same element among components."""
    if axes is None:
        size, layout = (13, 4.4), "constrained"
        axes = plt.subplots(1, 2, figsize=size, layout=layout, width_ratios=[1.35, 1])[1]
    near = nearest(vectors, chosen, LIT)
    marked = {chosen: style.BLACK} | dict.fromkeys(near.index, style.ORANGE)
    alike = similarity(vectors)[chosen].rename(index=str)
    periodic_table(alike, f"cosine similarity to {chosen}", (-1, 1), marked, axes[0])
    component_map(vectors, chosen, axes[1])
    return np.array(axes)


def probes(table: pd.DataFrame, kind: str = "probe") -> np.ndarray:
    """What vectors know, a part a property: the mean of the seeds, and each seed.

    Args:
        table: columns vectors, seed, test, property, score and baseline.
        kind: rows of the table with this `test`.
    """
    table = table[table.test == kind]
    names, properties = list(table.vectors.unique()), list(table.property.unique())
    axes = style.row_of_axes(len(properties), 3.1, 0.34 * len(names) + 1.3, sharey=True)
    for ax, name in zip(axes, properties):
        rows = table[table.property == name]
        places = rows.vectors.map({v: len(names) - 1 - k for k, v in enumerate(names)})
        own = rows.seed.groupby(rows.vectors).transform("nunique") > 1
        ax.plot(rows.score[own], places[own], "o", ms=4, color=style.BLUE, alpha=0.4)
        means = rows.groupby("vectors", sort=False).score.mean()
        ax.plot(means, [len(names) - 1 - k for k in range(len(names))], "|", ms=14, mew=3,
                color=style.BLUE)  # fmt: skip
        baseline = rows.baseline.max()
        if np.isfinite(baseline):
            ax.axvline(baseline, color=style.BLACK, ls=":", lw=1)
        ax.set_title(_two_lines(WORDS[name]), size=9.5)
        ax.set(ylim=(-0.6, len(names) - 0.4), xlabel="score")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [in_figure(name) for name in names[::-1]])
    return axes


def _two_lines(words: str) -> str:
    head, _, tail = words.rpartition(" (")
    return f"{head}\n({tail}"


def errors(table: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """Mean absolute errors with intervals by kind of vectors, a colour a model, pale dots seeds.

    Args:
        table: columns vectors, model, mae, mae_lo, mae_hi (eV), several seeds below each other; the
            row whose model is "mean" becomes a dashed line.
        label: of the axis.
        ax: where to draw; a new figure where it is not given.
    """
    mean = table[table.model == "mean"]
    rows = table[table.model != "mean"].groupby(["vectors", "model"], sort=False)
    rows = rows[["mae", "mae_lo", "mae_hi"]].mean().reset_index()
    names, models = list(rows.vectors.unique()), list(rows.model.unique())
    ax = ax or plt.subplots(figsize=(7.5, 0.5 * len(names) + 1.4), layout="constrained")[1]
    for number, (model, colour) in enumerate(zip(models, style.SERIES)):
        part = rows[rows.model == model]
        lift = 0.6 * ((number + 0.5) / len(models) - 0.5)
        places = [len(names) - 1 - names.index(name) - lift for name in part.vectors]
        bars = style.whiskers(part, "mae", "mae_lo", "mae_hi")
        seeds = table[table.model == model]
        each = [len(names) - 1 - names.index(name) - lift for name in seeds.vectors]
        ax.plot(seeds.mae, each, "o", ms=3, color=colour, alpha=0.4)
        ax.errorbar(
            part.mae, places, xerr=bars, fmt="o", ms=5, color=colour, label=in_figure(model)
        )
    if len(mean):
        ax.axvline(mean.mae.mean(), color=style.GREY, ls="--", label="mean of the others")
    ax.set_yticks(range(len(names)), [in_figure(name) for name in names[::-1]])
    ax.set(xlabel=label, ylim=(-0.6, len(names) - 0.4), xlim=(0, None))
    ax.grid(axis="x", alpha=0.3)
    ax.legend(**style.ABOVE, ncols=4)
    return ax


def losses(metrics: pd.DataFrame, guess: float) -> np.ndarray:
    """Both tasks over the epochs: loss of masked elements, and the share of pairs put right.

    Dashed: what the frequency of elements gives, and the more frequent answer.

    Args:
        metrics: `metrics.csv` of a run of `training.vectors`.
        guess: nats a masked element by frequency alone.
    """
    axes = style.row_of_axes(2, 4.5, 3.2)
    epochs = metrics.epoch + 1
    axes[0].plot(epochs, metrics.train_element, "o-", color=style.LIGHT_GREY, label="training")
    axes[0].plot(epochs, metrics.valid_element, "o-", color=style.BLUE, label="formulas kept apart")
    axes[0].axhline(guess, color=style.BLACK, ls="--", label="by frequency alone")
    axes[0].set(ylabel="nats a masked element")
    axes[1].plot(epochs, metrics.valid_groups_right, "o-", color=style.BLUE)
    alike = metrics.valid_alike.mean()
    axes[1].axhline(max(alike, 1 - alike), color=style.BLACK, ls="--")
    axes[1].set(ylabel="pairs put right (share)", ylim=(0.4, 1))
    for ax in axes:
        ax.set(xlabel="epoch")
        ax.set_xticks(epochs)
    axes[0].legend(fontsize=8)
    return axes
