"""Tables of README in Markdown, each from one file of `data/benchmarks/`."""

import numpy as np
import pandas as pd
from tabulate import tabulate

from defectkit import DefectkitError
from defectkit.screening.choose import against_random
from defectkit.training.pretrained import benchmark, published_2dmd

TARGETS = {
    "eform": "Formation energy, meV by site of the defect",
    "gap": "Gap between the highest occupied and the lowest empty state, meV",
}
COLUMNS_2DMD = (
    *(f"{density}_{host}" for density in ("low", "high") for host in ("MoS2", "WSe2")),
    *(f"high_{host}" for host in ("InSe", "GaSe", "P", "BN")),
    "mean of 8",
)
REPLAYED = ("demo", "2dmd")  # data sets on which the choice of what to compute was replayed
VECTOR_WORDS = {
    "neighbour": "nearest of the same group",
    "clusters": "clusters against groups",
    "pc1": "first component against valence electrons",
    "group": "probe: group",
    "period": "probe: period",
    "electronegativity": "probe: electronegativity, R²",
    "covalent_radius": "probe: radius, R²",
}


def models_table(table: pd.DataFrame) -> str:
    """Markdown: a row a model and input, mean and spread over seeds, best last.

    Args:
        table: `data/benchmarks/models_*.csv`.

    Raises DefectkitError where not all models were tested on the same rows.
    """
    same = ["n_test", "left_out", "data_fingerprint"]
    if not set(same) <= set(table) or len(table[same].drop_duplicates()) > 1:
        raise DefectkitError(
            "The models of the table were tested on different rows; make it again with `defectkit "
            "bench models`."
        )
    rows = []
    groups = table.groupby(["model", "input"], sort=False)
    for (model, place), seeds in sorted(groups, key=lambda item: -item[1].eform_mae.mean()):
        mean = seeds.mean(numeric_only=True)
        spread = f" ± {seeds.eform_mae.std(ddof=1):.3f}" if len(seeds) > 1 else ""
        rows.append(
            {
                "model": model,
                "input": place,
                "MAE (eV)": f"{mean.eform_mae:.3f}{spread}",
                "95 % interval": f"{mean.eform_mae_lo:.3f}–{mean.eform_mae_hi:.3f}",
                "RMSE (eV)": f"{mean.eform_rmse:.3f}",
                "R²": f"{mean.eform_r2:.3f}",
                "spin MAE (μB)": f"{mean.spin_mae:.3f}",
                "magnetic F1": f"{mean.mag_f1:.3f}",
                "parameters": f"{mean.n_params:,.0f}" if mean.n_params else "–",
                "training, s/epoch": f"{mean.train_s_per_epoch:.1f}",
                "prediction, ms": f"{mean.infer_ms_b64:.2f}",
            }
        )
    return f"{markdown(rows, texts=2)}\n\n{_tested(table)}"


def _tested(table: pd.DataFrame) -> str:
    """Which rows all models of the table were tested on."""
    n, missing = int(table.n_test.iloc[0]), table.left_out.fillna("").iloc[0]
    if not missing:
        return f"All models were tested on the same {n:,} rows."
    names = missing.split("; ")
    return (
        f"All models were tested on the same {n:,} of {n + len(names):,} rows. Not every model can "
        f"read the others: {', '.join(f'`{name}`' for name in names)}."
    )


def throughput_table(table: pd.DataFrame) -> str:
    """Markdown: a row a network, slowest first, with its times in those of the hybrid.

    Args:
        table: `data/benchmarks/throughput.csv`.
    """
    own = table.set_index("model").loc["hybrid"]
    rows = [
        {
            "model": row.model,
            "hidden width": row.hidden,
            "parameters": f"{row.n_params:,}",
            "angles a structure": f"{row.angles:,.0f}",
            "training step, ms": f"{row.train_ms:.1f}",
            "prediction, ms": f"{row.infer_ms:.1f}",
            "times the hybrid's": (
                f"{row.train_ms / own.train_ms:.1f} and {row.infer_ms / own.infer_ms:.1f}"
            ),
        }
        for row in table.sort_values("train_ms", ascending=False).itertuples()
    ]
    return markdown(rows)


def choice_table(demo: pd.DataFrame) -> str:
    """Markdown: a row a strategy, its errors beside those of rows at random, and what it finds.

    Args:
        demo: `data/benchmarks/choice.csv`; the table of 2DMD stands beside it.
    """
    curves = pd.concat([demo, benchmark("choice_2dmd")])
    found = against_random(curves)
    ends = curves[curves.labelled == curves.labelled.max()].groupby(["strategy", "data"])
    worst = found.ratio.groupby(level="strategy").max().sort_values()
    rows = []
    for name in worst.index:
        row = {"strategy": name}
        for data in REPLAYED:
            own = found.loc[data, name]
            row[f"{data}: error / random"] = f"{own.ratio:.2f} ± {own.half:.2f}"
        for data in REPLAYED:
            row[f"{data}: of the lowest found"] = f"{ends.found.mean()[name, data]:.0%}"
        rows.append(row)
    return markdown(rows)


def interval_table(table: pd.DataFrame) -> str:
    """Markdown: a row a target and calibration, a column a subset, shares of labels inside.

    Args:
        table: `data/benchmarks/intervals_2dmd.csv`.
    """
    words = {"eform": "formation energy", "gap": "gap"}
    order = {subset: place for place, subset in enumerate(COLUMNS_2DMD)}
    table = table.sort_values("subset", key=lambda names: names.map(order))
    ways = {"together": "all rows together", "by_kind": "kind by kind, as shipped"}
    rows = [
        {"target": words[target], "calibrated on": words_of_way}
        | {
            subset.replace("_", " "): f"{share:.0%}"
            for subset, share in own.set_index("subset")[way].items()
        }
        for target, own in table.groupby("target", sort=False)
        for way, words_of_way in ways.items()
    ]
    return markdown(rows, texts=2)


def screen_table(table: pd.DataFrame) -> str:
    """Markdown: a row a way to an energy, its speed and how it agrees with relaxation.

    Args:
        table: `data/benchmarks/screen.csv`.
    """
    own = table.set_index("method").loc["CHGNet relaxation"]
    rows = [
        {
            "method": row.method,
            "candidates": f"{row.n_candidates:,}",
            "a second": f"{row.candidates_per_s:.1f}",
            "times relaxation": f"{row.candidates_per_s / own.candidates_per_s:,.0f}",
            "Spearman": f"{row.spearman_vs_relaxed:.2f}",
            "MAE (eV)": f"{row.mae_vs_relaxed:.2f}",
            "of the 20 lowest found": f"{row.top20_recall:.0%}",
            "peak memory (MB)": f"{row.peak_mb:,.0f}",
        }
        for row in table.sort_values("candidates_per_s").itertuples()
    ]
    return markdown(rows)


def vectors_table(table: pd.DataFrame) -> str:
    """Markdown: a row a kind of vectors, a column a property; means over seeds.

    Args:
        table: `data/benchmarks/vectors.csv`.
    """
    score = table.pivot_table(index="vectors", columns="property", values="score", sort=False)
    sizes = table.groupby("vectors").dimensions.first()
    rows = [
        {"vectors": name, "dimensions": f"{sizes[name]}"}
        | {VECTOR_WORDS[key]: f"{values[key]:.2f}" for key in VECTOR_WORDS}
        for name, values in score.iterrows()
    ]
    return markdown(rows)


def ladder_table(table: pd.DataFrame) -> str:
    """Markdown: a row a model, a column a step, mean absolute errors with their intervals.

    Args:
        table: `data/benchmarks/ladder.csv`.
    """
    rows = [
        {
            "model": model,
            **{
                row.split: f"{row.eform_mae:.3f} ({row.eform_mae_lo:.3f}–{row.eform_mae_hi:.3f})"
                for row in steps.itertuples()
            },
        }
        for model, steps in table.groupby("model", sort=False)
    ]
    return markdown(rows)


def starts_table(table: pd.DataFrame) -> str:
    """Markdown: a row a predictor and origin of its structures, all kinds of defects together.

    Args:
        table: `data/benchmarks/starts.csv`.
    """
    rows = [
        {
            "predictor": row.model,
            "input": row.input,
            "starts": row.starts,
            "structures": row.n,
            "unread": row.unread,
            "MAE (eV)": f"{row.eform_mae:.3f}",
            "95 % interval": f"{row.eform_mae_lo:.3f}–{row.eform_mae_hi:.3f}",
            "in the 90 % interval": f"{row.coverage:.0%}",
            "called doubtful": f"{row.flagged:.0%}",
            "of the worst tenth": f"{row.caught:.0%}",
        }
        for row in table[table.kind == "all"].itertuples()
    ]
    return markdown(rows, texts=3)


def real_table(table: pd.DataFrame) -> str:
    """Markdown: a table a target, a row a model and a column a subset, best last, in meV.

    Means over seeds; the interval is that of the mean of all subsets, its bounds means as well.
    Published errors stand among them, as of another split.

    Args:
        table: `data/benchmarks/models_2dmd.csv`.
    """
    published = published_2dmd()
    texts = []
    for target, title in TARGETS.items():
        ours = table[table.target == target].assign(split="this")
        both = pd.concat([ours, published[published.target == target]])
        rows = [
            _real_row(model, split, seeds.groupby("subset").mean(numeric_only=True))
            for (model, split), seeds in both.groupby(["model", "split"])
        ]
        rows.sort(key=lambda row: row.pop("order"))
        texts.append(f"{title}:\n\n{markdown(rows, texts=2)}")
    return "\n\n".join(texts)


def _real_row(model: str, split: str, means: pd.DataFrame) -> dict:
    """One model: errors by subset (eV) and cost, as texts, and what it is ordered by."""
    errors = means.mae.reindex(COLUMNS_2DMD)
    row = {"model": model, "split": split}
    row |= {
        subset.replace("_", " "): "–" if np.isnan(error) else f"{1e3 * error:.1f}"
        for subset, error in errors.items()
    }
    known = means.iloc[0] if "n_params" in means else pd.Series(dtype=float)
    whole = means.reindex(COLUMNS_2DMD[-1:]).iloc[0]
    has_bounds = not np.isnan(whole.get("mae_lo", np.nan))
    row["95 % interval"] = (
        f"{1e3 * whole.mae_lo:.1f}–{1e3 * whole.mae_hi:.1f}" if has_bounds else "–"
    )
    for column, name, form in (
        ("n_params", "parameters", ",.0f"),
        ("train_s", "training, s", ",.0f"),
        ("infer_ms", "prediction, ms", ".3f"),
    ):
        value = known.get(column, np.nan)
        missing = np.isnan(value) or (column == "n_params" and not value)
        row[name] = "–" if missing else format(value, form)
    return row | {"order": -np.nan_to_num(whole.mae, nan=np.inf)}


def markdown(rows: list[dict], texts: int = 1) -> str:
    """A table whose first columns are texts, to the left, and whose others are numbers."""
    sides = ["left"] * texts + ["right"] * (len(rows[0]) - texts)
    return tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=sides)
