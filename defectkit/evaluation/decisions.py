"""Regret: how much energy is lost by choosing a site or a dopant with the model.

The rows of one unit, such as all sites of a dopant in a host, compete, and the lowest formation
energy wins. Regret is the true energy of the model's choice minus the lowest true energy: zero
for the right choice, and for a wrong one between equals. An error that all options of a unit
share costs nothing here, so a model with larger errors can choose better.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from defectkit import DefectkitError
from defectkit.data.splits import SAME_ENERGY
from defectkit.evaluation.metrics import mean_interval

SITE = ("host", "dopant", "strain")  # a unit whose options are the sites of a dopant in a host
DOPANT = ("host", "strain")  # a unit whose options are the dopants of a host


def choices(
    rows: pd.DataFrame, unit: Sequence[str] = SITE, option: str | None = None
) -> pd.DataFrame:
    """What the model chooses in every unit that leaves a choice.

    Args:
        rows: columns eform and eform_pred (eV), those of `unit` and `option`; a row a structure.
            Rows without a label or a dopant are left out.
        unit: columns; rows that agree in all of them compete.
        option: column that names an option, such as "dopant": its energy is that of its best
            row, by label for the truth and by prediction for the choice. Every row for itself
            where it is not given.

    Returns:
        A row a unit, indexed by `unit`: `options`, how many; `chosen`, `best`, the option's name
        (the uid where `option` is not given); `regret` (eV); `chance` (eV), the regret of a
        choice at random; `rank` of the first of the best options in the model's order, 1 for a
        right choice; `ties`, how many options lie within `SAME_ENERGY` of the best.

    Raises DefectkitError where no unit has two options.
    """
    usable = rows.dropna(subset=["eform", "eform_pred"])
    usable = usable[usable.dopant != ""]
    keys = [*unit, option] if option else [*unit, usable.index.name or "uid"]
    usable = usable.rename_axis(usable.index.name or "uid").reset_index()
    energies = usable.groupby(keys, observed=True)[["eform", "eform_pred"]].min()
    table = {
        name: _choice(group.droplevel(list(unit)))
        for name, group in energies.groupby(list(unit), observed=True)
        if len(group) > 1
    }
    if not table:
        raise DefectkitError(
            f"No two of these {len(rows)} rows share {', '.join(unit)}, so there is nothing to "
            "choose; take more rows."
        )
    return pd.DataFrame(table).T.rename_axis(list(unit)).infer_objects()


def _choice(energies: pd.DataFrame) -> dict:
    """The row of one unit; `energies`: columns eform, eform_pred (eV), indexed by option."""
    lowest = energies.eform.min()
    order = energies.eform_pred.sort_values(kind="stable").index
    tied = energies.eform <= lowest + SAME_ENERGY
    return {
        "options": len(energies),
        "chosen": order[0],
        "best": energies.eform.idxmin(),
        "regret": energies.eform[order[0]] - lowest,
        "chance": energies.eform.mean() - lowest,
        "rank": int(np.argmax(tied[order])) + 1,
        "ties": int(tied.sum()),
    }


def regret(table: pd.DataFrame, groups: pd.Series | None = None, seed: int = 0) -> dict[str, float]:
    """Mean regret over units with its interval, beside that of choosing at random.

    Args:
        table: of `choices`.
        groups: what was held out together, a value a unit; every unit for itself where it is
            not given.
        seed: of the bootstrap.

    Returns:
        `regret`, `lo`, `hi`, `chance` (eV); `right`, the share of units with a right choice;
        `units`.
    """
    low, high = mean_interval(table.regret, groups, seed)
    return {
        "regret": float(table.regret.mean()),
        "lo": low,
        "hi": high,
        "chance": float(table.chance.mean()),
        "right": float((table["rank"] == 1).mean()),
        "units": len(table),
    }


def top_k(
    table: pd.DataFrame,
    ks: Sequence[int] = (1, 2, 3, 5),
    groups: pd.Series | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of units whose best option is among the k that the model puts first.

    Only units with more than k options count: among the rest nothing can be missed. Options
    within `SAME_ENERGY` of the best are as good as it.

    Args:
        table: of `choices`.
        ks: numbers of options that one would compute or try.
        groups: as in `regret`.
        seed: of the bootstrap.

    Returns:
        By `k`: `units` that count, `recall` with `lo` and `hi`, `chance`, the recall of an order
        at random.
    """
    rows = {}
    for k in ks:
        eligible = table[table.options > k]
        found = (eligible["rank"] <= k).astype(float)
        low, high = mean_interval(found, groups, seed)
        random = hypergeom.sf(0, eligible.options.astype(int), eligible.ties.astype(int), k)
        rows[k] = {
            "units": len(eligible),
            "recall": found.mean(),
            "lo": low,
            "hi": high,
            "chance": float(random.mean()) if len(eligible) else np.nan,
        }
    return pd.DataFrame(rows).T.rename_axis("k").astype({"units": int})
