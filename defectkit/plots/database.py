"""Figures of the notebooks: each takes a table or a structure and returns matplotlib axes.

Units stand in every axis label. Structures are drawn flat, from above and from the side, so
that a page without a running kernel still shows them.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from numpy.typing import ArrayLike

from defectkit.data.cleaning import EFORM_BOUND, EXTENSION_BOUND, RISE_BOUND, SETTLED, energy_rise
from defectkit.plots import style
from defectkit.plots.style import ABOVE
from defectkit.structures.names import in_figure

EFORM = "formation energy (eV)"
SPIN = "magnetic moment (μB)"
MOST_NAMES = 24  # ticks with names that have room below an axis


def each_dopant(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with a dopant; a row with several, "Se,W", once for each, and none without."""
    rows = frame[frame.dopant != ""]
    return rows.assign(dopant=rows.dopant.str.split(",")).explode("dopant")


def periodic_table(values: pd.Series, label: str, ax: Axes | None = None, fmt: str = ".1f") -> Axes:
    """A periodic table coloured by `values`, a series indexed by element symbol."""
    ax = ax or plt.subplots(figsize=(12, 5))[1]
    places = {symbol: _table_place(symbol) for symbol in chemical_symbols[1:104]}
    low, high = values.quantile([0.02, 0.98])
    norm = plt.Normalize(low, high)
    cmap = plt.get_cmap(style.SEQUENTIAL)
    for symbol, (row, column) in places.items():
        known = symbol in values.index and np.isfinite(values[symbol])
        face = cmap(norm(values[symbol])) if known else style.NO_VALUE
        ax.add_patch(plt.Rectangle((column, row), 0.94, 0.94, facecolor=face, edgecolor="none"))
        ink = ("white" if norm(values[symbol]) < 0.6 else "black") if known else style.NO_VALUE_TEXT
        look = {"ha": "center", "va": "center", "color": ink}
        ax.text(column + 0.47, row + 0.36, symbol, size=10, **look)
        if known:
            ax.text(column + 0.47, row + 0.74, format(values[symbol], fmt), size=7, **look)
    ax.set(xlim=(1, 19), ylim=(10.2, 1), aspect="equal")
    ax.axis("off")
    colours = plt.cm.ScalarMappable(norm, cmap)
    ax.figure.colorbar(colours, ax=ax, shrink=0.7, pad=0.01, label=label, extend="both")
    return ax


def _table_place(symbol: str) -> tuple[float, int]:
    """Row and column of an element, lanthanoids and actinoids below the others."""
    from pymatgen.core import Element

    element = Element(symbol)
    if element.is_lanthanoid:
        return 8.2, element.Z - 57 + 3
    if element.is_actinoid:
        return 9.2, element.Z - 89 + 3
    return element.row, element.group


def eform_by_type(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Distribution of the formation energy for each type of defect, with medians."""
    others = sorted({*frame.defecttype} - {*style.TYPES, ""})  # words of the user's own
    colours = style.TYPES | dict.fromkeys(others, style.LIGHT_GREY)
    order = [kind for kind in colours if (frame.defecttype == kind).any()]
    ax = ax or plt.subplots(figsize=(8, 0.6 * len(order) + 1))[1]
    types = {"y": "defecttype", "hue": "defecttype", "order": order, "hue_order": order}
    look = {"palette": colours, "inner": "quart", "cut": 0, "density_norm": "width"}
    sns.violinplot(frame, x="eform", **types, **look, legend=False, ax=ax)
    counts = frame.defecttype.value_counts()
    ax.set_yticks(range(len(order)), [f"{kind}\n({counts[kind]} rows)" for kind in order])
    ax.set(xlabel=EFORM, ylabel="")
    return ax


def host_dopant_map(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean formation energy of each host and dopant; empty squares hold no row.

    A row with several dopants counts for each of them.
    """
    from pymatgen.core import Element

    table = each_dopant(frame).pivot_table(index="host", columns="dopant", values="eform")
    table = table.loc[table.mean(axis=1).sort_values().index]
    table = table[sorted(table.columns, key=lambda symbol: Element(symbol).mendeleev_no)]
    ax = ax or plt.subplots(figsize=(14, max(0.24 * len(table) + 1.5, 3)))[1]
    low, high = np.nanquantile(table, [0.02, 0.98])
    sns.heatmap(
        table,
        cmap=style.SEQUENTIAL,
        vmin=low,
        vmax=high,
        ax=ax,
        xticklabels=True,
        yticklabels=[in_figure(host) for host in table.index],
        cbar_kws={"label": f"mean {EFORM}", "extend": "both", "pad": 0.01},
    )
    ax.set(
        xlabel="dopant, in Mendeleev order", ylabel="host, by mean energy", facecolor=style.NO_VALUE
    )
    ax.tick_params(labelsize=8)
    return ax


def spin_by_dopant(frame: pd.DataFrame, top: int = 20, ax: Axes | None = None) -> Axes:
    """Magnetic moments of the `top` dopants with the largest mean moment.

    A row with several dopants counts for each of them.
    """
    ax = ax or plt.subplots(figsize=(10, 3.8))[1]
    moments = each_dopant(frame).assign(spin=lambda f: f.spin.abs())
    order = moments.groupby("dopant").spin.mean().nlargest(top).index
    look = {"color": style.LIGHT_BLUE, "fliersize": 2, "linewidth": 0.8}
    sns.boxplot(moments, x="dopant", y="spin", order=order, ax=ax, **look)
    ax.set(xlabel=f"dopant (the {len(order)} with the largest mean)", ylabel=f"|{SPIN}|")
    return ax


def traps(frame: pd.DataFrame) -> dict[str, Axes]:
    """Looks for bad rows, by letter: a energies, b convergence, c thickness of the layer.

    Red lines are the bounds of the cleaning rules. A panel whose columns hold no number is left
    out; there is one at least, or an empty dictionary.
    """
    panels = {
        "a": (_energies, ["eform"]),
        "b": (_convergence, ["conv1", "conv2"]),
        "c": (_thickness, ["extension_factor"]),
    }
    shown = {k: draw for k, (draw, names) in panels.items() if frame[names].notna().all(1).any()}
    if not shown:
        return {}
    axes = style.row_of_axes(len(shown), 4.7, 3.8)
    for ax, (letter, draw) in zip(axes, shown.items(), strict=True):
        draw(frame, ax)
        ax.set_title(letter, loc="left", weight="bold")
    sns.despine(axes[0].figure)
    return dict(zip(shown, axes, strict=True))


def _energies(frame: pd.DataFrame, ax: Axes) -> None:
    low, high = -EFORM_BOUND / 2, 1.5 * EFORM_BOUND
    sns.histplot(frame.eform.clip(low, high), bins=np.linspace(low, high, 61), ax=ax)
    ax.axvline(EFORM_BOUND, color=style.BOUND, lw=1)
    ax.set(xlabel=f"{EFORM}, clipped to {low:g} … {high:g}", ylabel="rows", yscale="symlog")


def _convergence(frame: pd.DataFrame, ax: Axes) -> None:
    tiny = 1e-6  # eV: a logarithm has no place for zero
    ax.loglog(frame.conv1.abs() + tiny, frame.conv2.abs() + tiny, ".", ms=3, alpha=0.4)
    ax.axvline(SETTLED, color=style.BOUND, lw=1)
    ax.axhline(SETTLED, color=style.BOUND, lw=1)
    ax.set(xlabel="|conv1| (eV)", ylabel="|conv2| (eV)")


def _thickness(frame: pd.DataFrame, ax: Axes) -> None:
    high = 2 * EXTENSION_BOUND
    sns.histplot(frame.extension_factor.clip(0, high), bins=np.linspace(0, high, 61), ax=ax)
    ax.axvline(EXTENSION_BOUND, color=style.BOUND, lw=1)
    ax.set(xlabel=f"extension factor, clipped to 0 … {high:g}", ylabel="rows", yscale="symlog")


def stages(frame: pd.DataFrame) -> list[Axes]:
    """How far the last stage ends above the first, over the formation energy and over the moment.

    The red line is the bound of the cleaning rule `energy_rise`. The scale is linear within 0.1 eV
    of zero and logarithmic beyond. A panel without a row that has what it shows is left out.
    """
    table = frame.assign(rise=energy_rise(frame), spin=frame.spin.abs())
    columns = {"eform": EFORM, "spin": f"|{SPIN}|"}
    shown = {k: v for k, v in columns.items() if table[[k, "rise"]].notna().all(axis=1).any()}
    if not shown:
        return []
    axes = style.row_of_axes(len(shown), 5, 3.8, sharey=True)
    high = table.rise > RISE_BOUND
    points = {"color": style.DEEP_BLUE, "marker": ".", "ms": 5, "alpha": 0.4, "ls": ""}
    diamonds = {"color": style.DEEP_ORANGE, "marker": "D", "ms": 6, "ls": ""}
    for ax, (name, label) in zip(axes, shown.items(), strict=True):
        for rows, look, kind in ((table[~high], points, "below"), (table[high], diamonds, "above")):
            words = f"{kind} the bound ({len(rows[[name, 'rise']].dropna()):,})"
            ax.plot(rows[name], rows.rise, label=words, **look)
        ax.axhline(RISE_BOUND, color=style.BOUND, lw=1)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_xlabel(label)
        ax.legend(**ABOVE)
    axes[0].set_ylabel("last stage above the first,\nen2 − en1 (eV)")
    sns.despine(axes[0].figure)
    return list(axes)


def series(energies: pd.Series, label: str, ax: Axes | None = None) -> Axes:
    """Formation energies (eV) in order, indexed by what to write at each point.

    The red line is the bound of the cleaning rule `eform_outlier`, where energies come near it.
    """
    ax = ax or plt.subplots(figsize=(8, 3.2))[1]
    ordered = energies.sort_values()
    ax.plot(range(len(ordered)), ordered, "o", color=style.DEEP_BLUE)
    if ordered.max() > EFORM_BOUND / 2:
        ax.axhline(EFORM_BOUND, color=style.BOUND, lw=1)
    if len(ordered) <= MOST_NAMES:
        ax.set_xticks(range(len(ordered)), ordered.index)
    ax.set(xlabel=label, ylabel=EFORM)
    return ax


def two_views(
    atoms: Atoms, defect: np.ndarray, title: str = "", vacancies: ArrayLike = ()
) -> np.ndarray:
    """A structure from above and from the side, defect atoms circled, vacancies as dashed rings.

    Args:
        atoms: the structure (Å).
        defect: indices of the atoms to mark.
        title: written above both views.
        vacancies: (k, 3) Å positions of vacant sites.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=[1.3, 1], layout="compressed")
    radii = style.atom_radii(atoms.numbers, scale=1.0)
    for ax, (right, up, depth) in zip(axes, ((0, 1, 2), (0, 2, 1)), strict=True):
        _draw_atoms(ax, atoms, right, up, depth)
        marks = [(atoms.positions[i], radii[i], "-") for i in defect]
        marks += [(np.asarray(point), 0.9, "--") for point in vacancies]
        for point, radius, line in marks:
            look = {"fill": False, "ec": style.DEFECT, "lw": 2, "ls": line}
            ax.add_patch(Circle(point[[right, up]], radius * 0.8 + 0.35, **look))
        ax.set(aspect="equal", xlabel="x (Å)", ylabel=f"{'xyz'[up]} (Å)")
        ax.autoscale_view()
    style.outline(axes[0], style.cell_corners(atoms.cell.array[:2, :2]), ls=":")
    axes[0].autoscale_view()
    symbols = sorted(set(atoms.symbols), key=list(atoms.symbols).index)
    handles = [
        plt.Line2D(
            [],
            [],
            marker="o",
            ls="",
            ms=8,
            mfc=style.atom_faces(chemical_symbols.index(s)),
            mec=style.RIM,
            label=s,
        )
        for s in symbols
    ]
    handles.append(
        plt.Line2D([], [], marker="o", ls="", ms=11, mfc="none", mec=style.DEFECT, label="defect")
    )
    axes[1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    figure.suptitle(in_figure(title, 120))
    return axes


def _draw_atoms(ax: Axes, atoms: Atoms, right: int, up: int, depth: int) -> None:
    """Discs of all atoms, those nearer to the reader on top."""
    order = np.argsort(atoms.positions[:, depth] * (1 if depth == 2 else -1))
    places, z = atoms.positions[order][:, [right, up]], atoms.numbers[order]
    style.discs(ax, places, style.atom_radii(z), style.atom_faces(z))


def waterfall(table: pd.DataFrame, start: int, ax: Axes | None = None) -> Axes:
    """Rows left after each cleaning rule; `table` has the columns rule, removed, left."""
    ax = ax or plt.subplots(figsize=(9, 0.45 * len(table) + 1.6))[1]
    labels = ["all rows", *table.rule]
    left = [start, *table.left]
    removed = [0, *table.removed]
    places = np.arange(len(labels))
    ax.barh(places, left, color=style.DEEP_BLUE, label="left")
    ax.barh(places, removed, left=left, color=style.DEEP_ORANGE, label="removed by this rule")
    for place, stays, goes in zip(places, left, removed, strict=True):
        note = f" {stays:,}" + (f"  (−{goes:,})" if goes else "")
        ax.text(stays + goes, place, note, va="center", size=9)
    ax.set_yticks(places, map(in_figure, labels))
    ax.invert_yaxis()
    ax.set(xlabel="rows", xlim=(0, start * 1.18))
    ax.legend(**ABOVE, ncols=2)
    return ax


def split_sizes(splits: dict[str, object], ax: Axes | None = None) -> Axes:
    """Stacked bars of training, validation and test rows, one bar a split."""
    ax = ax or plt.subplots(figsize=(8, 0.5 * len(splits) + 1.2))[1]
    parts = ("train", "valid", "test")
    sizes = pd.DataFrame({n: [len(getattr(s, p)) for p in parts] for n, s in splits.items()}, parts)
    sizes.T.plot.barh(
        stacked=True, ax=ax, color=[style.DEEP_BLUE, style.LIGHT_BLUE, style.DEEP_ORANGE], width=0.7
    )
    ax.invert_yaxis()
    ax.set(xlabel="rows", ylabel="")
    ax.legend(**ABOVE, ncols=3)
    return ax


ROUTE = (
    ("database row", "Imp2d, demo,\nyour files"),
    ("cleaning", "named rules,\ncounted"),
    ("DefectRecord", "atoms, labels,\nunits"),
    ("CrystalGraph", "bonds, angles,\nvacancy nodes"),
    ("model", "local + global\nattention"),
    ("Prediction", "eV, μB,\ninterval"),
    ("Explanation", "attention maps,\nattribution"),
)


def route(ax: Axes | None = None) -> Axes:
    """The way of the data through the kit, from a database row to an explanation."""
    ax = ax or plt.subplots(figsize=(13, 2.2))[1]
    colours = sns.color_palette("crest", len(ROUTE))
    for place, ((title, detail), colour) in enumerate(zip(ROUTE, colours, strict=True)):
        box = FancyBboxPatch(
            (place * 2, 0), 1.5, 1, boxstyle="round,pad=0.08", fc=colour, ec="none"
        )
        ax.add_patch(box)
        ink = {"ha": "center", "va": "center", "color": "white"}
        ax.text(place * 2 + 0.75, 0.74, title, weight="bold", size=10, **ink)
        ax.text(place * 2 + 0.75, 0.3, detail, size=8.5, **ink)
        if place:
            ends = (place * 2 - 0.42, 0.5), (place * 2 - 0.08, 0.5)
            look = {"arrowstyle": "-|>", "mutation_scale": 14, "color": style.CELL}
            ax.add_patch(FancyArrowPatch(*ends, **look))
    ax.set(xlim=(-0.2, len(ROUTE) * 2 - 0.3), ylim=(-0.2, 1.2), aspect="equal")
    ax.axis("off")
    return ax
