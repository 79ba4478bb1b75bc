"""Figures of an evaluation: where errors are, whether intervals hold, what choices cost.

Each takes labelled predictions or a table of `defectkit.evaluation`, `predict.domain` or
`predict.physics` and returns matplotlib axes. Units stand in every axis label, and beside energies
what computed them. Tables of too few rows for a figure raise a DefectkitError that says so.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from ase.data import atomic_numbers, chemical_symbols
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, ScalarFormatter

from defectkit import DefectkitError
from defectkit.evaluation import metrics
from defectkit.evaluation.breakdown import size_slope
from defectkit.evaluation.coverage import ranking
from defectkit.evaluation.metrics import interval
from defectkit.plots import style
from defectkit.plots.database import periodic_table
from defectkit.plots.results import binned_means
from defectkit.plots.style import ABOVE, BESIDE_TOP, BLACK, BLUE, GREY, ORANGE, SERIES
from defectkit.predict.domain import VERDICTS, Guard
from defectkit.structures.names import in_figure

METHOD_COLOURS = {"absolute": BLUE, "normalised": ORANGE, "gaussian": GREY}
METHOD_NAMES = {
    "absolute": "conformal, one width",
    "normalised": "conformal, scaled by the spread",
    "gaussian": "spread of the seeds as it is",
}
VERDICT_COLOURS = dict(zip(VERDICTS, (GREY, ORANGE, BLUE, BLACK)))
LEAST = 1e-7  # eV, a digit of 32-bit numbers: where differences are drawn if all of them are zero


def residuals(rows: pd.DataFrame, source: str) -> np.ndarray:
    """Signed errors over the label, and how they are distributed.

    Args:
        rows: columns eform and eform_pred (eV).
        source: what computed the labels.
    """
    known = rows.dropna(subset=["eform"])
    error = known.eform_pred - known.eform
    _, axes = plt.subplots(
        1, 2, figsize=(10, 4), width_ratios=[2, 1], sharey=True, layout="constrained"
    )
    axes[0].scatter(known.eform, error, s=12, alpha=0.5, color=BLUE, linewidths=0)
    axes[0].set(
        xlabel=f"formation energy, {in_figure(source)} (eV)",
        ylabel="prediction − label (eV)",
        title=f"{len(known):,} rows, mean {error.mean():+.2f} eV",
    )
    axes[1].hist(error, bins=60, orientation="horizontal", color=style.LIGHT_BLUE)
    low, high = error.quantile([0.05, 0.95])
    axes[1].axhspan(
        low,
        high,
        color=ORANGE,
        alpha=0.15,
        lw=0,
        label=f"90 % of the rows:\n{low:+.2f} to {high:+.2f} eV",
    )
    axes[1].set(xlabel="rows", xscale="log")
    axes[1].legend(loc="upper right", frameon=False)
    for ax in axes:
        ax.axhline(0, color=GREY, ls="--", lw=1)
    return axes


def error_map(errors: pd.Series, dopants: pd.Series, source: str, ax: Axes | None = None) -> Axes:
    """Mean absolute error of every dopant on a periodic table; grey elements have no row.

    Args:
        errors: eV, one a row, with or without sign.
        dopants: the symbol of each row, empty where there is none.
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    means = errors.abs().groupby(dopants).mean()
    means = means[means.index.isin(chemical_symbols[1:])]
    if means.empty:
        raise DefectkitError("No row has a single dopant to stand for on a periodic table.")
    ax = ax or plt.subplots(figsize=(12, 5), layout="constrained")[1]
    label = f"mean absolute error, labels {in_figure(source)} (eV)"
    return periodic_table(means, label, ax, ".2f")


def confusion_matrix(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Rows of every label, down, that are called what, across.

    Args:
        table: of `metrics.confusion`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(4.6, 3.8), layout="constrained")[1]
    shares = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    notes = [
        [f"{n:,}\n{share:.0%}" for n, share in zip(*pair)]
        for pair in zip(table.to_numpy(), shares.to_numpy())
    ]
    sns.heatmap(
        shares,
        annot=notes,
        fmt="",
        cmap=style.SHARES,
        vmin=0,
        vmax=1,
        square=True,
        ax=ax,
        cbar_kws={"label": "share of the label's rows", "format": PercentFormatter(1, decimals=0)},
    )
    ax.set(xlabel="prediction", ylabel="label")
    return ax


def size_errors(
    errors: pd.Series, natoms: pd.Series, groups: pd.Series | None = None, ax: Axes | None = None
) -> Axes:
    """Signed errors against the number of atoms, with the slope that an extensive model shows.

    Args:
        errors: signed, eV.
        natoms: number of atoms of each row.
        groups: of the bootstrap, such as the host.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6.5, 4), layout="constrained")[1]
    ax.scatter(natoms, errors, s=10, alpha=0.3, color=GREY, linewidths=0, label="a row")
    sizes = errors.groupby(natoms)
    means = sizes.mean()
    ends = np.array([interval(values.to_numpy()) for _, values in sizes]).T
    reach = np.nan_to_num(np.abs(ends - means.to_numpy()))
    look = {"fmt": "o", "color": BLUE, "ms": 4, "label": "mean of a size, interval 95 %"}
    ax.errorbar(means.index, means, yerr=reach, **look)
    fit = size_slope(errors, natoms, groups)
    if np.isfinite(fit["slope"]):
        ends = np.array([natoms.min(), natoms.max()])
        line = fit["intercept"] + fit["slope"] * ends
        ax.plot(ends, line, color=ORANGE, lw=2, label="line through all rows")
        ax.set_title(
            f"slope {1e3 * fit['slope']:+.1f} meV an atom ({1e3 * fit['lo']:+.1f} to "
            f"{1e3 * fit['hi']:+.1f})"
        )
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="number of atoms", ylabel="prediction − label (eV)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best", frameon=False, fontsize=9)
    return ax


def reliability(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How often intervals cover the label, over how often they say so; honest on the diagonal.

    Args:
        table: of `coverage.reliability`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(5, 5), layout="constrained")[1]
    ax.plot([0, 1], [0, 1], "--", color="black", lw=1, label="as often as they say")
    for method in table:
        ax.plot(
            table.index,
            table[method],
            "o-",
            ms=4,
            color=METHOD_COLOURS[method],
            label=METHOD_NAMES[method],
        )
    ax.set(
        xlabel="confidence",
        ylabel="share of labels inside the interval",
        aspect="equal",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.text(0.97, 0.05, "below the line: too sure", transform=ax.transAxes, ha="right", color=GREY)
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    return ax


def coverage_width(table: pd.DataFrame) -> np.ndarray:
    """Coverage and mean width of intervals at every confidence, by method.

    Args:
        table: of `coverage.coverage`.
    """
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    levels = sorted(table.level.unique())
    methods = list(table.method.unique())
    for number, method in enumerate(methods):
        rows = table[table.method == method].set_index("level").loc[levels]
        places = np.arange(len(levels)) + 0.2 * (number - (len(methods) - 1) / 2)
        reach = style.whiskers(rows, "coverage")
        look = {"color": METHOD_COLOURS[method], "label": METHOD_NAMES[method]}
        axes[0].errorbar(places, rows.coverage, yerr=reach, fmt="o", capsize=3, **look)
        axes[1].bar(places, rows.width_mean, width=0.18, **look)
    for place, level in enumerate(levels):
        look = {"color": "black", "ls": "--", "lw": 1, "label": None if place else "promised"}
        axes[0].hlines(level, place - 0.35, place + 0.35, **look)
    axes[0].set(ylabel="share of labels inside (interval 95 %)")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set(ylabel="mean width of the interval (eV)")
    for ax in axes:
        ax.set_xticks(range(len(levels)), [f"{level:.0%}" for level in levels])
        ax.set(xlabel="confidence")
    axes[0].legend(**ABOVE, ncols=2, fontsize=9)
    return axes


def sigma_errors(rows: pd.DataFrame, bins: int = 8, ax: Axes | None = None) -> Axes:
    """Absolute errors over the spread of the ensemble; on the line a spread is an error bar.

    Args:
        rows: columns eform, eform_pred and eform_sigma (eV).
        bins: how many, with equally many rows each.
        ax: where to draw; a new figure where it is not given.
    """
    known = rows.dropna(subset=["eform"])
    if known.eform_sigma.nunique() < 2:
        raise DefectkitError(f"The spread of {len(known)} rows does not vary.")
    ax = ax or plt.subplots(figsize=(8.5, 4.2), layout="constrained")[1]
    sigma, error = known.eform_sigma, (known.eform_pred - known.eform).abs()
    ax.scatter(sigma, error, s=10, alpha=0.35, color=GREY, linewidths=0, label="a row")
    binned_means(ax, sigma, error, bins, label="mean of a bin,\ninterval 95 %")
    line = np.array([sigma[sigma > 0].min(), sigma.max()])
    label = "mean of a normal error\nwith this σ"
    ax.plot(line, np.sqrt(2 / np.pi) * line, "--", color="black", lw=1, label=label)
    found = ranking(known)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="spread of the ensemble, σ (eV)",
        ylabel="absolute error (eV)",
    )
    ax.set_ylim(bottom=max(error.quantile(0.01), 1e-4))
    ax.set_title(f"Spearman {found['spearman']:.2f} ({found['lo']:.2f} to {found['hi']:.2f})")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    ax.legend(**BESIDE_TOP, fontsize=9)
    return ax


def guard(signs: pd.DataFrame, limits: Guard, errors: pd.Series) -> np.ndarray:
    """The signs of the out-of-domain guard, a panel a distance; an area is an absolute error.

    Args:
        signs: columns spread (eV) and the guard's distances, by uid.
        limits: the guard that was fitted.
        errors: eV, with or without sign, by uid.
    """
    sizes = errors.abs()
    verdicts = limits.verdict(signs).verdict.loc[sizes.index]
    axes = style.row_of_axes(len(limits.distances), 5, 4.4, sharey=True)
    for ax, (name, limit) in zip(axes, limits.distances.items()):
        for verdict in VERDICTS:
            rows = verdicts.index[verdicts == verdict]
            look = {"alpha": 0.5, "color": VERDICT_COLOURS[verdict], "linewidths": 0}
            ax.scatter(signs[name][rows], signs.spread[rows], s=3 + 60 * sizes[rows], **look)
        ax.axhline(limits.spread, color=ORANGE, ls="--", lw=1)
        ax.axvline(limit, color=BLUE, ls="--", lw=1)
        ax.set_xlabel(f"{name} distance to the training rows\n(median training row = 1)")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(ScalarFormatter())
    axes[0].set_ylabel("spread of the ensemble, σ (eV)")
    handles = []
    for verdict in VERDICTS:
        rows = sizes[verdicts == verdict]
        found = f"{len(rows)} rows, mean absolute error {rows.mean():.2f} eV"
        label = f"{verdict}: {found if len(rows) else 'no row'}"
        colour = VERDICT_COLOURS[verdict]
        handles.append(plt.Line2D([], [], marker="o", ls="", color=colour, label=label))
    look = {"ncols": 2, "frameon": False, "fontsize": 9}
    axes[0].figure.legend(handles=handles, loc="outside upper left", **look)
    return axes


def regret(
    tables: dict[str, pd.DataFrame],
    what: str,
    ax: Axes | None = None,
    groups: pd.Series | None = None,
) -> Axes:
    """Energy lost by choosing with each model, beside a choice at random, the best on top.

    Args:
        tables: of `metrics.choices`, by the name of the model, all over the same units.
        what: is chosen, such as "site of a dopant in a host".
        ax: where to draw; a new figure where it is not given.
        groups: as in `metrics.regret`.
    """
    found = pd.DataFrame(
        {name: metrics.regret(table, groups) for name, table in tables.items()}
    ).T.sort_values("regret", ascending=False)
    if not np.isfinite(found[["lo", "hi"]].to_numpy()).all():
        raise DefectkitError(
            f"{int(found.units.iloc[0])} choices, or those of one group alone, are too few for an "
            "interval."
        )
    ax = ax or plt.subplots(figsize=(8, 0.45 * len(found) + 1.4), layout="constrained")[1]
    places = np.arange(len(found))
    reach = style.whiskers(found, "regret")
    ax.barh(places, found.regret, color=style.LIGHT_BLUE, label="mean regret")
    ax.errorbar(
        found.regret, places, xerr=reach, fmt="none", ecolor=BLUE, capsize=3, label="interval, 95 %"
    )
    for place, (end, share) in enumerate(zip(found.hi, found.right)):
        ax.text(end, place, f"  right in {share:.0%}", va="center", size=9)
    ax.axvline(found.chance.mean(), color=ORANGE, ls="--", label="choice at random")
    ax.set_yticks(places, map(in_figure, found.index))
    ax.set(xlabel=f"formation energy lost, {what}, {int(found.units.iloc[0])} choices (eV)")
    ax.set_xlim(0, 1.2 * max(found.hi.max(), found.chance.mean()))
    ax.legend(**ABOVE, ncols=3)
    return ax


def recall(tables: dict[str, pd.DataFrame], what: str, ax: Axes | None = None) -> Axes:
    """How often the best option is among the k that a model puts first, over k.

    Args:
        tables: of `metrics.top_k`, by the name of the model.
        what: is chosen, such as "dopant of a host".
        ax: where to draw; a new figure where it is not given.
    """
    tables = {name: table[table.units > 0] for name, table in tables.items()}
    if all(table.empty for table in tables.values()):
        raise DefectkitError("No choice has two options to put in order.")
    ax = ax or plt.subplots(figsize=(7.5, 4), layout="constrained")[1]
    for (name, table), colour in zip(tables.items(), SERIES):
        ax.plot(table.index, table.recall, "o-", color=colour, label=in_figure(name))
        ax.fill_between(table.index, table.lo, table.hi, color=colour, alpha=0.1, lw=0)
    ax.plot(table.index, table.chance, "--", color=GREY, label="order at random")
    ax.set(
        xlabel=f"k, options tried first ({what})", ylabel="best option among them", ylim=(0, 1.02)
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(**BESIDE_TOP, fontsize=9)
    return ax


def traps(tables: Sequence[pd.DataFrame], source: str) -> np.ndarray:
    """What a trap claims beside the honest error, a panel a trap.

    Args:
        tables: of the functions in `evaluation.leakage`.
        source: what computed the labels.
    """
    axes = style.row_of_axes(len(tables), 4.4, 4.2, sharey=True)
    for ax, table in zip(axes, tables):
        reach = style.whiskers(table, "eform_mae")
        ax.bar(table.protocol, table.eform_mae, width=0.6, color=[ORANGE, BLUE], alpha=0.6)
        look = {"fmt": "none", "ecolor": "black", "capsize": 4}
        ax.errorbar(table.protocol, table.eform_mae, yerr=reach, **look)
        for place, (end, error) in enumerate(zip(table.hi, table.eform_mae)):
            ax.text(place, end, f"{error:.2f} eV\n", ha="center", va="center")
        trap = table.iloc[0]
        ax.set_title(f"false gain {trap.gain:.2f} eV ({trap.gain_lo:.2f} to {trap.gain_hi:.2f})")
        ax.set_xlabel(f"protocol, {table.n_train.iloc[0]} training rows a fold")
        ax.margins(y=0.12)
    axes[0].set_ylabel(f"mean absolute error, interval 95 %,\nlabels {in_figure(source)} (eV)")
    return axes


def equal_crystals(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """By how much the predictions of equal crystals differ, a point a structure.

    Args:
        table: of `physics.equal_crystals`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(9, 3.6), layout="constrained")[1]
    sizes = table.difference.abs()
    least = sizes[sizes > 0].min() if sizes.any() else LEAST  # a logarithmic axis has no zero
    sizes = sizes.clip(lower=least)
    readings = np.where(table.ambiguous, "in several ways", "in one way")
    palette = {"in one way": BLUE, "in several ways": ORANGE}
    look = {"alpha": 0.6, "size": 4, "palette": palette}
    sns.stripplot(x=sizes, y=table.change, hue=readings, ax=ax, **look)
    largest = table.difference.abs().mask(table.ambiguous).groupby(table.change, sort=False).max()
    texts = largest.map(lambda value: "0" if value == 0 else f"{value:.0e}")
    names = [f"{change}\nlargest in blue {text} eV" for change, text in texts.items()]
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", ylabel="", xlabel="difference of the predicted energies (eV)")
    ax.set_title(f"{table.uid.nunique()} structures")
    ends = np.log10([least / 1.2, 1.2 * sizes.max()])  # whole decades: ticks between them collide
    ax.set_xlim(10 ** np.floor(ends[0]), 10 ** np.ceil(ends[1]))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(**BESIDE_TOP, fontsize=9, title="defect can be read")
    return ax


def displacement(table: pd.DataFrame, cutoff: float, source: str) -> np.ndarray:
    """The predicted energy along a displacement, its slope and its curvature.

    Args:
        table: of `physics.displacement_curve`.
        cutoff: Å, of the graphs.
        source: what computed the labels that the model learned.
    """
    _, axes = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True, layout="constrained")
    changes = table.displacement[table.neighbours.diff().fillna(0) != 0]
    names = {
        "eform": f"predicted energy,\nlabels {in_figure(source)} (eV)",
        "slope": "slope (eV/Å)",
        "curvature": "curvature (eV/Å²)",
    }
    for ax, (column, name) in zip(axes, names.items()):
        for number, place in enumerate(changes):
            name_once = None if number else f"an atom crosses the cutoff of {cutoff:g} Å"
            ax.axvline(place, color=GREY, lw=0.8, ls=":", label=name_once)
        ax.plot(table.displacement, table[column], color=BLUE)
        ax.set_ylabel(name)
    axes[-1].set_xlabel("displacement of the atom of the defect (Å)")
    if len(changes):
        axes[0].legend(**ABOVE)
    return axes


def dopant_series(table: pd.DataFrame, source: str) -> np.ndarray:
    """Computed and predicted energies along a row of dopants, a panel a host.

    Args:
        table: of `physics.dopant_series`.
        source: what computed the labels.
    """
    places = list(table.place.unique())
    columns = min(3, len(places))
    lines = math.ceil(len(places) / columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.6 * columns, 2.6 * lines + 0.6),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    dopants = sorted(table.dopant.unique(), key=lambda symbol: atomic_numbers[symbol])
    for ax, place in zip(axes.flat, places):
        rows = table[table.place == place].set_index("dopant")
        at = [dopants.index(symbol) for symbol in rows.index]
        ax.plot(
            at, rows.eform, "o-", color="black", ms=5, lw=1, label=f"computed, {in_figure(source)}"
        )
        ax.plot(at, rows.eform_pred, "s--", color=ORANGE, ms=5, lw=1, mfc="none", label="predicted")
        ax.set_title(in_figure(place), fontsize=10)
        ax.set_xticks(range(len(dopants)), dopants)
        ax.grid(axis="y", alpha=0.3)
    for ax in axes.flat[len(places) :]:
        ax.remove()
    figure.supxlabel("dopant, in the order of the periodic table", fontsize=10)
    figure.supylabel("formation energy (eV)", fontsize=10)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False
    )
    return axes
