"""Figures of an evaluation: where errors are, whether intervals hold, what choices cost.

Each takes a table of `evaluate`, `errors`, `decisions`, `uncertainty`, `domain`, `sanity` or
`traps` and returns matplotlib axes. Units stand in every axis label, and beside energies what
computed them. Tables of too few rows for a figure raise a DefectkitError that says so.
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
from defectkit.evaluation import decisions
from defectkit.evaluation.breakdown import size_slope
from defectkit.evaluation.coverage import ranking
from defectkit.evaluation.metrics import interval
from defectkit.plots.database import periodic_table
from defectkit.plots.results import BLUE, GREEN, GREY, ORANGE, name_points
from defectkit.predict.domain import VERDICTS, Guard
from defectkit.structures.names import in_figure

COLOURS = [BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#000000", GREY]  # Okabe and Ito
METHOD_COLOURS = {"absolute": BLUE, "normalised": ORANGE, "gaussian": GREY}
METHOD_NAMES = {
    "absolute": "conformal, one width",
    "normalised": "conformal, scaled by the spread",
    "gaussian": "spread of the seeds as it is",
}
VERDICT_COLOURS = dict(zip(VERDICTS, (GREY, ORANGE, BLUE, "#000000")))
LEAST = 1e-7  # eV, a digit of 32-bit numbers: where differences are drawn if all of them are zero
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}  # of legends


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
    axes[0].set(xlabel=f"formation energy, {in_figure(source)} (eV)",
                ylabel="prediction − label (eV)",
                title=f"{len(known):,} rows, mean {error.mean():+.2f} eV")  # fmt: skip
    axes[1].hist(error, bins=60, orientation="horizontal", color="#9ecae1")
    low, high = error.quantile([0.05, 0.95])
    axes[1].axhspan(low, high, color=ORANGE, alpha=0.15, lw=0,
                    label=f"90 % of the rows:\n{low:+.2f} to {high:+.2f} eV")  # fmt: skip
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
        table: of `evaluate.confusion`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(4.6, 3.8), layout="constrained")[1]
    shares = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    notes = [[f"{n:,}\n{share:.0%}" for n, share in zip(*pair)]
             for pair in zip(table.to_numpy(), shares.to_numpy())]  # fmt: skip
    sns.heatmap(shares, annot=notes, fmt="", cmap="Blues", vmin=0, vmax=1, square=True, ax=ax,
                cbar_kws={"label": "share of the label's rows",
                          "format": PercentFormatter(1, decimals=0)})  # fmt: skip
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
    means = errors.groupby(natoms)
    ends = np.array([interval(values.to_numpy()) for _, values in means]).T
    reach = np.nan_to_num(np.abs(ends - means.mean().to_numpy()))
    ax.errorbar(means.mean().index, means.mean(), yerr=reach, fmt="o", color=BLUE, ms=4,
                label="mean of a size, interval 95 %")  # fmt: skip
    fit = size_slope(errors, natoms, groups)
    if np.isfinite(fit["slope"]):
        ends = np.array([natoms.min(), natoms.max()])
        ax.plot(ends, fit["intercept"] + fit["slope"] * ends, color=ORANGE, lw=2,
                label="line through all rows")  # fmt: skip
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
        table: of `uncertainty.reliability`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(5, 5), layout="constrained")[1]
    ax.plot([0, 1], [0, 1], "--", color="black", lw=1, label="as often as they say")
    for method in table:
        ax.plot(table.index, table[method], "o-", ms=4, color=METHOD_COLOURS[method],
                label=METHOD_NAMES[method])  # fmt: skip
    ax.set(xlabel="confidence", ylabel="share of labels inside the interval", aspect="equal",
           xlim=(0, 1), ylim=(0, 1))  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.text(0.97, 0.05, "below the line: too sure", transform=ax.transAxes, ha="right", color=GREY)
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    return ax


def coverage_width(table: pd.DataFrame) -> np.ndarray:
    """Coverage and mean width of intervals at every confidence, by method.

    Args:
        table: of `uncertainty.coverage`.
    """
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    levels = sorted(table.level.unique())
    methods = list(table.method.unique())
    for number, method in enumerate(methods):
        rows = table[table.method == method].set_index("level").loc[levels]
        places = np.arange(len(levels)) + 0.2 * (number - (len(methods) - 1) / 2)
        reach = np.abs(rows[["lo", "hi"]].T.to_numpy() - rows.coverage.to_numpy())
        style = {"color": METHOD_COLOURS[method], "label": METHOD_NAMES[method]}
        axes[0].errorbar(places, rows.coverage, yerr=reach, fmt="o", capsize=3, **style)
        axes[1].bar(places, rows.width_mean, width=0.18, **style)
    for place, level in enumerate(levels):
        axes[0].hlines(level, place - 0.35, place + 0.35, color="black", ls="--", lw=1,
                       label=None if place else "promised")  # fmt: skip
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
    cut = pd.qcut(sigma, bins, duplicates="drop")
    means = error.groupby(cut, observed=True)
    ends = np.array([interval(values.to_numpy()) for _, values in means]).T
    reach = np.abs(ends - means.mean().to_numpy())
    ax.errorbar(sigma.groupby(cut, observed=True).mean(), means.mean(), yerr=reach, fmt="o-",
                color=ORANGE, capsize=3, label="mean of a bin,\ninterval 95 %")  # fmt: skip
    line = np.array([sigma[sigma > 0].min(), sigma.max()])
    ax.plot(line, np.sqrt(2 / np.pi) * line, "--", color="black", lw=1,
            label="mean of a normal error\nwith this σ")  # fmt: skip
    found = ranking(known)
    ax.set(xscale="log", yscale="log", xlabel="spread of the ensemble, σ (eV)",
           ylabel="absolute error (eV)")  # fmt: skip
    ax.set_ylim(bottom=max(error.quantile(0.01), 1e-4))
    ax.set_title(f"Spearman {found['spearman']:.2f} ({found['lo']:.2f} to {found['hi']:.2f})")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
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
    figure, axes = plt.subplots(
        1, len(limits.distances), figsize=(5 * len(limits.distances), 4.4), sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for ax, (name, limit) in zip(axes[0], limits.distances.items()):
        for verdict in VERDICTS:
            rows = verdicts.index[verdicts == verdict]
            ax.scatter(signs[name][rows], signs.spread[rows], s=3 + 60 * sizes[rows], alpha=0.5,
                       color=VERDICT_COLOURS[verdict], linewidths=0)  # fmt: skip
        ax.axhline(limits.spread, color=ORANGE, ls="--", lw=1)
        ax.axvline(limit, color=BLUE, ls="--", lw=1)
        ax.set(xlabel=f"{name} distance to the training rows\n(median training row = 1)",
               yscale="log")  # fmt: skip
        ax.yaxis.set_major_formatter(ScalarFormatter())
    axes[0, 0].set_ylabel("spread of the ensemble, σ (eV)")
    handles = [
        plt.Line2D([], [], marker="o", ls="", color=VERDICT_COLOURS[verdict],
                   label=f"{verdict}: {len(rows)} rows, mean absolute error {rows.mean():.2f} eV"
                   if len(rows) else f"{verdict}: no row")
        for verdict, rows in ((v, sizes[verdicts == v]) for v in VERDICTS)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return axes[0]


def regret(
    tables: dict[str, pd.DataFrame],
    what: str,
    ax: Axes | None = None,
    groups: pd.Series | None = None,
) -> Axes:
    """Energy lost by choosing with each model, beside a choice at random, the best on top.

    Args:
        tables: of `decisions.choices`, by the name of the model, all over the same units.
        what: is chosen, such as "site of a dopant in a host".
        ax: where to draw; a new figure where it is not given.
        groups: as in `decisions.regret`.
    """
    found = pd.DataFrame(
        {name: decisions.regret(table, groups) for name, table in tables.items()}
    ).T.sort_values("regret", ascending=False)
    if not np.isfinite(found[["lo", "hi"]].to_numpy()).all():
        raise DefectkitError(
            f"{int(found.units.iloc[0])} choices, or those of one group alone, are too few for an "
            "interval."
        )
    ax = ax or plt.subplots(figsize=(8, 0.45 * len(found) + 1.4), layout="constrained")[1]
    places = np.arange(len(found))
    reach = np.abs(found[["lo", "hi"]].T.to_numpy() - found.regret.to_numpy())
    ax.barh(places, found.regret, color="#9ecae1", label="mean regret")
    ax.errorbar(found.regret, places, xerr=reach, fmt="none", ecolor=BLUE, capsize=3,
                label="interval, 95 %")  # fmt: skip
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
        tables: of `decisions.top_k`, by the name of the model.
        what: is chosen, such as "dopant of a host".
        ax: where to draw; a new figure where it is not given.
    """
    tables = {name: table[table.units > 0] for name, table in tables.items()}
    if all(table.empty for table in tables.values()):
        raise DefectkitError("No choice has two options to put in order.")
    ax = ax or plt.subplots(figsize=(7.5, 4), layout="constrained")[1]
    for (name, table), colour in zip(tables.items(), COLOURS):
        ax.plot(table.index, table.recall, "o-", color=colour, label=in_figure(name))
        ax.fill_between(table.index, table.lo, table.hi, color=colour, alpha=0.1, lw=0)
    ax.plot(table.index, table.chance, "--", color=GREY, label="order at random")
    ax.set(
        xlabel=f"k, options tried first ({what})", ylabel="best option among them", ylim=(0, 1.02)
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return ax


def ladder(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Errors of every model on every step of the generalisation ladder.

    Args:
        table: columns split, model, eform_mae, eform_mae_lo, eform_mae_hi (eV); steps and models
            in the order of their first rows.
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    steps, models = list(table.split.unique()), list(table.model.unique())
    ax = ax or plt.subplots(figsize=(1.6 * len(steps) + 3, 4.2), layout="constrained")[1]
    for number, (model, colour) in enumerate(zip(models, COLOURS)):
        rows = table[table.model == model].set_index("split").reindex(steps)
        places = np.arange(len(steps)) + 0.5 * (number - (len(models) - 1) / 2) / len(models)
        reach = np.abs(
            rows[["eform_mae_lo", "eform_mae_hi"]].T.to_numpy() - rows.eform_mae.to_numpy()
        )
        ax.errorbar(places, rows.eform_mae, yerr=reach, fmt="o", color=colour, capsize=3,
                    label=in_figure(model))  # fmt: skip
    ax.set_xticks(range(len(steps)), steps)
    ax.set(
        xlabel="what was held out", ylabel=f"mean absolute error,\nlabels {in_figure(source)} (eV)"
    )
    ax.set_ylim(bottom=0)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(**ABOVE, ncols=min(4, len(models)))
    return ax


def cost_accuracy(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Error over the time of a prediction, a point a model; down and to the left is better.

    Args:
        table: of `defectkit bench models`: model, seed, eform_mae (eV), build_ms, infer_ms_b64.
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6.5, 4.2), layout="constrained")[1]
    times = (table.build_ms + table.infer_ms_b64).groupby(table.model).median()
    times = times.dropna()  # not every model was timed
    errors = table.groupby("model").eform_mae.agg(["mean", "std"]).loc[times.index]
    ax.errorbar(times, errors["mean"], yerr=errors["std"].fillna(0), fmt="o", color=BLUE, capsize=3)
    ax.set(xlabel="time from atoms to prediction on one core, 64 together (ms a structure)",
           ylabel=f"mean absolute error, labels {in_figure(source)} (eV)\n"
                  "± standard deviation of the seeds",
    )  # fmt: skip
    ax.set_ylim(0, 1.08 * errors["mean"].max())
    ax.set_xlim(0.8 * times.min(), 1.15 * times.max())
    name_points(ax, times, errors["mean"])
    return ax


def traps(tables: Sequence[pd.DataFrame], source: str) -> np.ndarray:
    """What a trap claims beside the honest error, a panel a trap.

    Args:
        tables: of the functions in `traps`.
        source: what computed the labels.
    """
    _, axes = plt.subplots(
        1, len(tables), figsize=(4.4 * len(tables), 4.2), sharey=True, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for ax, table in zip(axes[0], tables):
        reach = np.abs(table[["lo", "hi"]].T.to_numpy() - table.eform_mae.to_numpy())
        ax.bar(table.protocol, table.eform_mae, width=0.6, color=[ORANGE, BLUE], alpha=0.6)
        ax.errorbar(table.protocol, table.eform_mae, yerr=reach, fmt="none", ecolor="black",
                    capsize=4)  # fmt: skip
        for place, (end, error) in enumerate(zip(table.hi, table.eform_mae)):
            ax.text(place, end, f"{error:.2f} eV\n", ha="center", va="center")
        trap = table.iloc[0]
        ax.set_title(f"false gain {trap.gain:.2f} eV ({trap.gain_lo:.2f} to {trap.gain_hi:.2f})")
        ax.set_xlabel(f"protocol, {table.n_train.iloc[0]} training rows a fold")
        ax.margins(y=0.12)
    axes[0, 0].set_ylabel(f"mean absolute error, interval 95 %,\nlabels {in_figure(source)} (eV)")
    return axes[0]


def equal_crystals(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """By how much the predictions of equal crystals differ, a point a structure.

    Args:
        table: of `sanity.equal_crystals`.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(9, 3.6), layout="constrained")[1]
    sizes = table.difference.abs()
    least = sizes[sizes > 0].min() if sizes.any() else LEAST  # a logarithmic axis has no zero
    sizes = sizes.clip(lower=least)
    readings = np.where(table.ambiguous, "in several ways", "in one way")
    sns.stripplot(x=sizes, y=table.change, hue=readings, alpha=0.6, size=4, ax=ax,
                  palette={"in one way": BLUE, "in several ways": ORANGE})  # fmt: skip
    largest = table.difference.abs().mask(table.ambiguous).groupby(table.change, sort=False).max()
    texts = largest.map(lambda value: "0" if value == 0 else f"{value:.0e}")
    ax.set_yticks(range(len(largest)), [f"{change}\nlargest in blue {text} eV"
                                        for change, text in texts.items()])  # fmt: skip
    ax.set(xscale="log", ylabel="", xlabel="difference of the predicted energies (eV)",
           title=f"{table.uid.nunique()} structures")  # fmt: skip
    ends = np.log10([least / 1.2, 1.2 * sizes.max()])  # whole decades: ticks between them collide
    ax.set_xlim(10 ** np.floor(ends[0]), 10 ** np.ceil(ends[1]))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9,
              title="defect can be read")  # fmt: skip
    return ax


def displacement(table: pd.DataFrame, cutoff: float, source: str) -> np.ndarray:
    """The predicted energy along a displacement, its slope and its curvature.

    Args:
        table: of `sanity.displacement_curve`.
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
        table: of `sanity.dopant_series`.
        source: what computed the labels.
    """
    places = list(table.place.unique())
    columns = min(3, len(places))
    lines = math.ceil(len(places) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 2.6 * lines + 0.6), sharex=True, sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    dopants = sorted(table.dopant.unique(), key=lambda symbol: atomic_numbers[symbol])
    for ax, place in zip(axes.flat, places):
        rows = table[table.place == place].set_index("dopant")
        at = [dopants.index(symbol) for symbol in rows.index]
        ax.plot(
            at, rows.eform, "o-", color="black", ms=5, lw=1, label=f"computed, {in_figure(source)}"
        )
        ax.plot(at, rows.eform_pred, "s--", color=ORANGE, ms=5, lw=1, mfc="none",
                label="predicted")  # fmt: skip
        ax.set_title(in_figure(place), fontsize=10)
        ax.set_xticks(range(len(dopants)), dopants)
        ax.grid(axis="y", alpha=0.3)
    for ax in axes.flat[len(places) :]:
        ax.remove()
    figure.supxlabel("dopant, in the order of the periodic table", fontsize=10)
    figure.supylabel("formation energy (eV)", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2,
                  frameon=False)  # fmt: skip
    return axes
