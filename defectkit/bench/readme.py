"""The tables of README, written from the files in `data/benchmarks/`."""

import re
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from defectkit import DefectkitError
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.structures.writing import write_text

README = CHECKOUT_DATA.parent / "README.md"


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
    return f"{_markdown(rows, texts=2)}\n\n{_tested(table)}"


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
    return _markdown(rows)


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
    return _markdown(rows)


def _markdown(rows: list[dict], texts: int = 1) -> str:
    """A table whose first columns are texts, to the left, and whose others are numbers."""
    sides = ["left"] * texts + ["right"] * (len(rows[0]) - texts)
    return tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=sides)


TABLES = {
    "models_demo": models_table,
    "throughput": throughput_table,
    "ladder": ladder_table,
}


def update(readme: Path = README, check: bool = False) -> bool:
    """Write every table between its marks, `<!-- NAME -->` and `<!-- /NAME -->`.

    Args:
        readme: the file.
        check: whether only to compare.

    Returns:
        whether the file was up to date.

    Raises DefectkitError where a mark or a table's file is missing.
    """
    old = readme.read_text(encoding="utf-8")
    new = old
    for name, render in TABLES.items():
        file = readme.parent / "data" / "benchmarks" / f"{name}.csv"
        if not file.is_file():
            raise DefectkitError(f"{file} is missing; run `defectkit bench {name.split('_')[0]}`.")
        block = f"<!-- {name} -->\n{render(pd.read_csv(file))}\n<!-- /{name} -->"
        new, found = re.subn(
            f"<!-- {name} -->.*<!-- /{name} -->", lambda _, b=block: b, new, flags=re.DOTALL
        )
        if found != 1:
            raise DefectkitError(f"{readme} has no place for the table {name}.")
    if not check and new != old:
        write_text(readme, new)
    return new == old
