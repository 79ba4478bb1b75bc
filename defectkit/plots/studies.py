"""Figures of studies: what changes a model's error, and what it costs.

Each takes a table of `data/benchmarks` and returns matplotlib axes. A mean over seeds is a bar
or a line, every seed a dot: where the dots of two variants mix, the difference may be luck. Units
stand in every axis label.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from defectkit.plots import style
from defectkit.plots.results import name_points
from defectkit.plots.style import ABOVE, BESIDE, BLUE, GREEN, GREY, ORANGE, PINK, SERIES
from defectkit.structures.names import in_figure

REFERENCE = "full"  # the variant that all others are compared with
BETTER, WORSE, SAME = "better", "worse", "no clear difference"
ENERGY_AIM = 0.2  # eV, of the mean absolute error on test rows
POWERS = {1: "linear", 2: "square", 3: "cube"}
COLOURS = (BLUE, ORANGE, GREEN, GREY, PINK)


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """What every variant of a study does to the error, compared with the reference.

    A variant is called better or worse where the two means differ by more than two standard
    errors. The spread over seeds is the study's: the median of its variants' standard deviations,
    since that of three seeds alone is hardly known.

    Args:
        table: columns group, variant, seed, eform_mae (eV), with a variant "full".

    Returns:
        Columns group, eform_mae, change (eV), percent and verdict, indexed by variant, from the
        best to the worst.
    """
    by_variant = table.groupby("variant").eform_mae
    means, counts, spread = by_variant.mean(), by_variant.size(), by_variant.std(ddof=1).median()
    found = pd.DataFrame({"group": table.groupby("variant").group.first(), "eform_mae": means})
    found["change"] = means - means[REFERENCE]
    found["percent"] = 100 * found.change / means[REFERENCE]
    error = spread * np.sqrt(1 / counts + 1 / counts[REFERENCE])
    found["verdict"] = SAME
    found.loc[found.change > 2 * error, "verdict"] = WORSE
    found.loc[found.change < -2 * error, "verdict"] = BETTER
    return found.drop(REFERENCE).sort_values("eform_mae")


def verdicts(table: pd.DataFrame) -> pd.Series:
    """The names of a study's variants by what they do to the error, see `changes`."""
    found = changes(table).reset_index()
    return found.groupby("verdict").variant.agg(", ".join)


def variants(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Errors of all variants of a study by group, in each the best on top; beside the reference.

    Args:
        table: columns group, variant, seed, eform_mae (eV), with a variant "full".
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    reference = table[table.variant == REFERENCE].eform_mae
    found = changes(table)
    height = len(found) + 0.8 * found.group.nunique()
    ax = ax or plt.subplots(figsize=(9, 0.33 * height + 1.3), layout="constrained")[1]
    ax.axvline(reference.mean(), color=GREY, ls="--", label="the full model")
    ax.axvspan(reference.min(), reference.max(), color=style.SEED_BAND, label="its seeds", zorder=0)
    colours = {BETTER: GREEN, WORSE: ORANGE, SAME: BLUE}
    place, ticks, names = 0.0, [], []
    for group, rows in found.groupby("group", sort=False):
        ax.text(
            0.01,
            place - 0.05,
            group,
            transform=ax.get_yaxis_transform(),
            va="center",
            style="italic",
            color=GREY,
        )
        for variant, row in rows.iterrows():
            place -= 1
            values = table[table.variant == variant].eform_mae
            ax.plot(values, np.full(len(values), place), "o", ms=4, color=colours[row.verdict])
            ax.plot(values.mean(), place, "|", ms=16, mew=2.5, color=colours[row.verdict])
            ticks.append(place)
            names.append(variant)
        place -= 1.2
    for verdict, colour in colours.items():
        if (found.verdict == verdict).any():
            ax.plot([], [], "|", ms=10, mew=2.5, color=colour, label=verdict)
    ax.set_yticks(ticks, names)
    every = table.eform_mae
    margin = 0.05 * (every.max() - every.min() or every.max())
    ax.set(
        xlabel=f"mean absolute error on validation rows, labels {in_figure(source)} (eV)",
        xlim=(every.min() - 4 * margin, every.max() + margin),
        ylim=(place + 0.5, 0.6),
    )
    ax.grid(axis="x", alpha=0.3)
    ax.legend(**ABOVE, ncols=5)
    return ax


def sizes(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Errors of models of several sizes, the smallest on top.

    Args:
        table: columns variant, seed, eform_mae (eV), n_params.
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    means = table.groupby("variant")[["n_params", "eform_mae"]].mean().sort_values("n_params")
    ax = ax or plt.subplots(figsize=(9, 0.35 * len(means) + 1.2), layout="constrained")[1]
    for place, (variant, row) in enumerate(means[::-1].iterrows()):
        colour = GREY if variant == REFERENCE else BLUE
        values = table[table.variant == variant].eform_mae
        ax.plot(values, np.full(len(values), place), "o", ms=4, color=colour)
        ax.plot(row.eform_mae, place, "|", ms=16, mew=2.5, color=ORANGE)
    names = [f"{variant}, {row.n_params:,.0f} weights" for variant, row in means[::-1].iterrows()]
    ax.set_yticks(range(len(means)), names)
    ax.plot([], [], "o", ms=4, color=BLUE, label="one seed")
    ax.plot([], [], "|", ms=10, mew=2.5, color=ORANGE, label="mean of the seeds")
    ax.set(
        xlabel=f"mean absolute error on validation rows, labels {in_figure(source)} (eV)",
        ylim=(-0.6, len(means) - 0.4),
    )
    ax.grid(axis="x", alpha=0.3)
    ax.legend(**ABOVE, ncols=2)
    return ax


def transfer(table: pd.DataFrame, source: str, ax: Axes | None = None) -> Axes:
    """Errors over the number of training rows, from scratch and from a pretrained model.

    Args:
        table: columns group, seed, n_train, eform_mae (eV).
        source: what computed the labels.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8, 4), layout="constrained")[1]
    for colour, (group, rows) in zip(COLOURS, table.groupby("group", sort=False)):
        means = rows.groupby("n_train").eform_mae.mean()
        ax.plot(rows.n_train, rows.eform_mae, "o", ms=4, color=colour, alpha=0.5)
        ax.plot(means.index, means, "o-", ms=7, color=colour, label=f"{group}, mean of the seeds")
    counts = sorted(table.n_train.unique())
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="training rows",
        ylabel=f"mean absolute error on\nvalidation rows, {in_figure(source)} (eV)",
    )
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.grid(alpha=0.3)
    ax.legend(**ABOVE, ncols=2)
    return ax


def cost(
    table: pd.DataFrame, size: str, label: str, slopes: tuple[int, ...] = (), ax: Axes | None = None
) -> Axes:
    """Milliseconds over the size of the problem, a line a part, both axes logarithmic.

    Args:
        table: columns part, ms and `size`.
        size: name of the column with the size.
        label: of the axis.
        slopes: powers of the size that are drawn as dotted lines, to compare with.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(8, 4.2), layout="constrained")[1]
    for colour, (part, rows) in zip(COLOURS, table.groupby("part", sort=False)):
        line = rows.groupby(size).ms.median()
        ax.plot(line.index, line, "o-", ms=5, color=colour, label=part)
    ends = np.array([table[size].min(), table[size].max()], float)
    top = table.ms.max()
    for slope, dashes in zip(slopes, (":", "--", "-.")):
        height = top * (ends / ends[1]) ** slope
        ax.plot(ends, height, dashes, color=style.SLOPE, lw=1.5, label=POWERS[slope])
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=label,
        ylabel="time (ms)",
        ylim=(0.6 * table.ms.min(), 1.6 * top),
    )
    ax.set_xticks(table[size].unique(), [f"{n:,}" for n in table[size].unique()])
    ax.set_xticks([], minor=True)
    ax.grid(alpha=0.3)
    ax.legend(**BESIDE)
    return ax


def throughput(table: pd.DataFrame) -> np.ndarray:
    """Milliseconds a structure, in training and in prediction, the fastest on top.

    Args:
        table: columns model, hidden, train_ms and infer_ms, milliseconds a structure.
    """
    rows = table.groupby(["model", "hidden"], as_index=False)[["train_ms", "infer_ms"]].median()
    rows = rows.sort_values("train_ms", ascending=False)
    _, axes = plt.subplots(
        1, 2, figsize=(11, 0.4 * len(rows) + 1.2), layout="constrained", sharey=True
    )
    places = np.arange(len(rows))
    colours = [ORANGE if name.startswith("hybrid") else style.LIGHT_BLUE for name in rows.model]
    for ax, column, words in zip(axes, ("train_ms", "infer_ms"), ("training", "prediction")):
        ax.barh(places, rows[column], color=colours)
        for place, value in zip(places, rows[column]):
            ax.text(value, place, f" {value:.3g}", va="center", size=9)
        ax.set(xlabel=f"{words}, a structure (ms)", xlim=(0, 1.15 * rows[column].max()))
        ax.spines[["right", "top"]].set_visible(False)
    axes[0].set_yticks(
        places, [f"{name}, {width} wide" for name, width in zip(rows.model, rows.hidden)]
    )
    return axes


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
    for number, (model, colour) in enumerate(zip(models, SERIES)):
        rows = table[table.model == model].set_index("split").reindex(steps)
        places = np.arange(len(steps)) + 0.5 * (number - (len(models) - 1) / 2) / len(models)
        reach = style.whiskers(rows, "eform_mae", "eform_mae_lo", "eform_mae_hi")
        look = {"fmt": "o", "color": colour, "capsize": 3, "label": in_figure(model)}
        ax.errorbar(places, rows.eform_mae, yerr=reach, **look)
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
    ax.set(
        xlabel="time from atoms to prediction on one core, 64 together (ms a structure)",
        ylabel=f"mean absolute error, labels {in_figure(source)} (eV)\n"
        "± standard deviation of the seeds",
    )
    ax.set_ylim(0, 1.08 * errors["mean"].max())
    ax.set_xlim(0.8 * times.min(), 1.15 * times.max())
    name_points(ax, times, errors["mean"])
    return ax


def aims(models: pd.DataFrame, speed: pd.DataFrame, ladder: pd.DataFrame) -> pd.DataFrame:
    """What was wanted of the hybrid model, what was reached, and by how much it was missed.

    Args:
        models: the table `models_demo`: columns model, input, split, eform_mae (eV), n_params.
        speed: the table `throughput`: columns model, hidden, train_ms, infer_ms.
        ladder: the table `ladder`: columns split, model, eform_mae (eV).

    Returns:
        Columns wanted, reached and verdict, indexed by aim. An aim without rows to judge it by is
        called "not measured". Speeds are compared at equal width only.
    """
    relaxed = models[models.input == "relaxed"]
    seen = relaxed.groupby("model").eform_mae.mean()
    unseen = ladder[ladder.split == "host"].set_index("model").eform_mae
    weights = relaxed[relaxed.model == "hybrid"].n_params.mean() / 1e6
    rows = [
        ("error, share of ALIGNN's", "at most", 0.6, _ratio(seen)),
        ("error (eV)", "at most", ENERGY_AIM, seen.get("hybrid", np.nan)),
        ("error on a host never seen, share of ALIGNN's", "at most", 0.7, _ratio(unseen)),
        *_speed_ups(speed),
        ("weights (millions)", "at most", 1.0, weights),
    ]
    return pd.DataFrame(
        [
            (aim, f"{words} {wanted:g}", reached, _verdict(words, wanted, reached))
            for aim, words, wanted, reached in rows
        ],
        columns=["aim", "wanted", "reached", "verdict"],
    ).set_index("aim")


def _ratio(error: pd.Series) -> float:
    return error.get("hybrid", np.nan) / error.get("alignn", np.nan)


def _speed_ups(speed: pd.DataFrame) -> list[tuple]:
    """How often the hybrid is done when each ALIGNN of its width is once; a row an aim."""
    own = speed[speed.model == "hybrid"].groupby("hidden")[["train_ms", "infer_ms"]].median()
    rows = []
    for column, words in (("train_ms", "training"), ("infer_ms", "prediction")):
        for name, part in speed[speed.model.str.startswith("alignn")].groupby("model"):
            times = (part.groupby("hidden")[column].median() / own[column]).min()
            rows.append((f"{words}, times as fast as {name}", "at least", 5.0, times))
    return rows


def _verdict(words: str, wanted: float, reached: float) -> str:
    if np.isnan(reached):
        return "not measured"
    share = reached / wanted if words == "at most" else wanted / reached
    return "met" if share <= 1 else f"missed by {100 * abs(reached / wanted - 1):.1f} %"
