"""Everything asked of scores, one row a structure: small enough to keep, enough for intervals."""

from itertools import combinations

import pandas as pd

from defectkit.evaluation.metrics import interval
from defectkit.explain.agreement import element_shares, rank_correlations, shares

SURVEYED = ("attention", "asked_by_all", "occlusion", "gradient", "relaxation")
WAYS = {"all": ("all", False), "given": ("host", True)}  # part, given_distance


def survey(table: pd.DataFrame) -> pd.DataFrame:
    """Shares, elements and agreement of every score that a table of nodes holds.

    Args:
        table: of `score_table`, or of `attention_table` with its weight called "attention".

    Returns:
        One row a structure, indexed by uid: for every score S of `SURVEYED` that is there
        `defect S` and `first_shell S` with `uniform_defect` and `uniform_first_shell` (see
        `shares`) and `element S` with `chance` (see `element_shares`); for every pair S and T of
        them the rank correlation `rho all S T` of all nodes, and `rho given S T` of host atoms
        at equal distance (see `rank_correlations`).
    """
    scores = [score for score in SURVEYED if score in table]
    columns = {}
    for score in scores:
        found = shares(table, score)
        columns |= {f"{part} {score}": found[part] for part in ("defect", "first_shell")}
        columns |= {name: found[name] for name in ("uniform_defect", "uniform_first_shell")}
        element = element_shares(table, score)
        columns |= {f"element {score}": element.element, "chance": element.chance}
    for way, (part, given) in WAYS.items():
        for one, other in combinations(scores, 2):
            rho = rank_correlations(table, [one], [other], part, given).set_index("uid").rho
            columns[f"rho {way} {one} {other}"] = rho
    return pd.DataFrame(columns)


def correlations(table: pd.DataFrame, way: str = "all") -> pd.DataFrame:
    """The rank correlations of a survey, one row a structure and pair of scores.

    Args:
        table: of `survey`.
        way: "all" nodes, or "given" for host atoms at equal distance.

    Returns:
        uid, first, second, rho.
    """
    tables = []
    for column in table.columns[table.columns.str.startswith(f"rho {way} ")]:
        one, other = column.split()[2:]
        tables.append(pd.DataFrame({"first": one, "second": other, "rho": table[column]}))
    if not tables:
        return pd.DataFrame(columns=["uid", "first", "second", "rho"])
    return pd.concat(tables).rename_axis("uid").reset_index()


def near(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The shares of a survey by score: defect, first_shell and what they would be if uniform.

    Args:
        table: of `survey`.
    """
    uniform = table[["uniform_defect", "uniform_first_shell"]]
    found = {}
    for score in SURVEYED:
        if table.get(f"defect {score}", pd.Series(dtype=float)).notna().any():
            own = table[[f"defect {score}", f"first_shell {score}"]]
            own.columns = ["defect", "first_shell"]
            found[score] = own.join(uniform).assign(
                near=own.sum(axis=1, skipna=False),
                uniform_near=uniform.sum(axis=1),
            )
            found[score]["gain"] = found[score].near / found[score].uniform_near
    return found


def expectations(table: pd.DataFrame, lengths: pd.DataFrame) -> pd.DataFrame:
    """What attention was expected to show, and what came of it.

    Args:
        table: of `defectkit bench attention`: surveys of the models "trained", "untrained" and
            "without PART", with columns uid, model, predicted and label (eV).
        lengths: of `decay_lengths`, a row a type of defect.

    Returns:
        A row an expectation: measured, lo and hi (interval over structures, 95 %), `above`, what
        lo has to exceed, and `holds`. Errors are compared structure by structure (eV).
    """
    models = {name: rows.set_index("uid") for name, rows in table.groupby("model")}
    trained, untrained = models["trained"], models["untrained"]
    close, before = near(trained)["attention"], near(untrained)["attention"].near
    error = {name: (rows.predicted - rows.label).abs() for name, rows in models.items()}
    asked = [
        ("the defect and its first shell hold most of the weight", close.near, 0.5),
        ("they hold more than if it were uniform", close.near - close.uniform_near, 0.0),
        ("they hold more than before training", close.near - before, 0.0),
        *(
            (f"attention ranks {whom} as {name}", trained[f"rho {way} attention {score}"], 0.0)
            for way, whom in (("all", "nodes"), ("given", "host atoms at equal distance"))
            for score, name in (
                ("occlusion", "occlusion does"),
                ("gradient", "the gradient does"),
                ("relaxation", "they moved in the relaxation"),
            )
        ),
        *(
            (f"without {name} the error grows (eV)", error[f"without {part}"] - error["trained"], 0)
            for part, name in (("phi", "φ"), ("psi", "ψ"), ("content", "query times key"))
        ),
    ]
    rows = []
    for name, values, above in asked:
        values = values.dropna()
        low, high = interval(values.to_numpy())
        rows.append((name, values.mean(), low, high, above, low > above))
    settled = lengths.settled.sum()
    name = "types of defects with a settled decay length, all of them wanted"
    rows.append((name, settled, settled, settled, len(lengths) - 1, settled == len(lengths)))
    columns = ["expected", "measured", "lo", "hi", "above", "holds"]
    return pd.DataFrame(rows, columns=columns).set_index("expected")
