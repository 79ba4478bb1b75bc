"""Is it physics? Shares, decay, direction and agreement of scores, with intervals over structures.

Functions take a tidy table with the columns of `node_table` and one column a score. `survey` keeps
what they find, one row a structure: a table small enough to ship, and enough for intervals.
"""

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import rankdata

from defectkit import DefectkitError
from defectkit.evaluation.metrics import CONFIDENCE, interval

LENGTHS = 0.05, 1000.0  # Å, between which a decay length is sought
RING = 0.5  # Å, width of the rings inside which directions are compared
SECTOR = np.radians(15)  # half the opening of a lattice direction
SURVEYED = ("attention", "asked_by_all", "occlusion", "gradient", "relaxation")
WAYS = {"all": ("all", False), "given": ("host", True)}  # part, given_distance


def shares(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Share of a score on the defect and its first shell, one row a structure, indexed by uid.

    Returns:
        defect, first_shell, near (their sum): shares of the score's sum over the structure;
        uniform_defect, uniform_first_shell, uniform_near: the same if all nodes had the same score;
        gain: near / uniform_near, one for a score that does not know where the defect is.
    """
    rows = []
    for uid, group in table.groupby("uid", sort=False):
        score, shell = group[column].fillna(0.0).to_numpy(), group["shell"].to_numpy()
        total = score.sum()
        row = {"uid": uid}
        for number, name in enumerate(("defect", "first_shell")):
            inside = shell == number
            row[name] = score[inside].sum() / total if total > 0 else np.nan
            row[f"uniform_{name}"] = inside.mean()
        row["near"] = row["defect"] + row["first_shell"]
        row["uniform_near"] = row["uniform_defect"] + row["uniform_first_shell"]
        row["gain"] = row["near"] / row["uniform_near"]
        rows.append(row)
    return pd.DataFrame(rows).set_index("uid")


def decay_length(
    table: pd.DataFrame, column: str = "relative", resamples: int = 200, seed: int = 0
) -> dict[str, float]:
    """The length over which a score falls with the distance from the defect.

    Least squares of a exp(-d / length) + floor, a and floor not negative, over all nodes that
    are not the defect's. The interval (95 %) is a bootstrap over structures, not over atoms:
    atoms of one structure are not independent.

    Args:
        table: columns uid, distance (Å), defect and the score.
        column: the score.
        resamples: of the bootstrap; 0 for none.
        seed: of the bootstrap.

    Returns:
        length, lo, hi (Å), amplitude, floor, r2, points, structures, NaN where no curve can be
        fitted; near and far, the curve at the shortest and at the longest distance, which say
        how much it falls at all: a tiny fall can have a sharp length. `settled` says whether the
        interval ends within the distances that there are: if not, the data hold no length.
    """
    away = table[~table.defect].dropna(subset=[column])
    distance, score = away.distance.to_numpy(float), away[column].to_numpy(float)
    groups = list(away.groupby("uid").indices.values())
    amplitude, length, floor = _fit(distance, score)
    rng = np.random.default_rng(seed)
    lengths = []
    for _ in range(resamples if len(groups) > 1 and np.isfinite(length) else 0):
        drawn = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
        lengths.append(_fit(distance[drawn], score[drawn], (amplitude, length, floor))[1])
    lengths = np.array(lengths)
    lengths = lengths[np.isfinite(lengths)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(lengths, [tail, 1 - tail]) if len(lengths) else (np.nan, np.nan)
    curve = amplitude * np.exp(-distance / length) + floor
    left = score - curve
    spread = ((score - score.mean()) ** 2).sum() if len(score) else 0.0
    return {
        "length": length,
        "lo": float(low),
        "hi": float(high),
        "settled": bool(len(distance) and high < distance.max()),
        "amplitude": amplitude,
        "floor": floor,
        "near": float(curve[distance.argmin()]) if len(curve) else np.nan,
        "far": float(curve[distance.argmax()]) if len(curve) else np.nan,
        "r2": float(1 - (left**2).sum() / spread) if spread > 0 else np.nan,
        "points": len(away),
        "structures": len(groups),
    }


def decay_lengths(
    table: pd.DataFrame, by: str, column: str = "relative", resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """`decay_length` for every value of the column `by`, such as "defecttype"."""
    rows = {name: decay_length(group, column, resamples, seed) for name, group in table.groupby(by)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)


def _fit(
    distance: np.ndarray, score: np.ndarray, start: tuple[float, float, float] | None = None
) -> tuple[float, float, float]:
    """a, length, floor of a exp(-d / length) + floor by least squares; NaN where the fit fails.

    Args:
        distance: (k,) Å.
        score: (k,).
        start: a, length and floor to begin from; a guess from the data where it is not given.
    """
    nothing = (np.nan, np.nan, np.nan)
    if len(np.unique(distance)) < 3 or not np.ptp(score) > 0:
        return nothing
    # Fitted is the amplitude at the nearest atom: at d = 0, far from all points, it would hardly
    # be determined.
    nearest, scale = distance.min(), np.abs(score).max()

    def curve(d: np.ndarray, a: float, length: float, floor: float) -> np.ndarray:
        return a * np.exp(-(d - nearest) / length) + floor

    if start is None:
        guess = [np.ptp(score) / scale, np.ptp(distance) / 3, max(score.min() / scale, 0.0)]
    else:
        a, length, floor = start
        guess = [a * np.exp(-nearest / length) / scale, length, floor / scale]
    low, high = [0.0, LENGTHS[0], 0.0], [np.inf, LENGTHS[1], np.inf]
    guess = np.clip(guess, np.array(low) + 1e-12, high)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # no covariance: it is not used
            values, _ = curve_fit(curve, distance, score / scale, guess, bounds=(low, high))
    except (RuntimeError, ValueError):
        return nothing
    a, length, floor = values
    return float(a * scale * np.exp(nearest / length)), float(length), float(floor * scale)


def rank_correlations(
    table: pd.DataFrame,
    first: Sequence[str],
    second: Sequence[str],
    part: str = "all",
    given_distance: bool = False,
) -> pd.DataFrame:
    """Spearman's rank correlation between scores within every structure.

    Args:
        table: one row a node.
        first: columns.
        second: columns; each of `first` is compared with each of these.
        part: "all" nodes, or "host" for those that are not the defect's.
        given_distance: partial correlation at equal rank of distance: two scores that both fall
            with the distance agree by that alone.

    Returns:
        uid, first, second, rho, nodes: one row a structure and pair of scores. rho is NaN with
        fewer than five nodes, or where a score is the same everywhere.
    """
    if part not in ("all", "host"):
        raise DefectkitError(f"part is '{part}'; use 'all' or 'host'.")
    if part == "host":
        table = table[~table.defect]
    rows = []
    for uid, group in table.groupby("uid", sort=False):
        for one in first:
            for other in second:
                known = group[[one, other, "distance"]].to_numpy(float)
                known = known[np.isfinite(known).all(axis=1)]
                rho = _rank_correlation(known, given_distance)
                rows.append((uid, one, other, rho, len(known)))
    return pd.DataFrame(rows, columns=["uid", "first", "second", "rho", "nodes"])


def _rank_correlation(values: np.ndarray, given_third: bool) -> float:
    """Spearman's rank correlation of the first two columns of (n, 3) values.

    With `given_third` the partial one, (r01 - r02 r12) / sqrt((1 - r02²) (1 - r12²)).
    """
    if len(values) < 5 or (np.ptp(values[:, :2], axis=0) == 0).any():
        return np.nan
    ranks = rankdata(values, axis=0)
    if not given_third or np.ptp(values[:, 2]) == 0:
        return float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1])
    r = np.corrcoef(ranks.T)
    left = (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(left)) if left > 1e-12 else np.nan


def group_shares(table: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """How much of a score's variance within a structure lies between groups of atoms, by uid.

    Host atoms that are not the defect's are compared. `share` (η² of an analysis of variance) is
    one where all atoms of a group have the same score. `chance` is its mean for a shuffled score:
    (groups - 1) / (atoms - 1). Both are NaN where there is one group only or one value.

    Args:
        table: one row a node.
        column: the score.
        by: columns; atoms that agree in all of them are a group, such as ["symbol", "shell"].
    """
    rows = []
    for uid, atoms in table[~table.defect].groupby("uid", sort=False):
        score, groups = atoms[column].to_numpy(float), atoms.groupby(list(by))
        spread = ((score - score.mean()) ** 2).sum()
        means = groups[column].transform("mean").to_numpy(float)
        varies = groups.ngroups > 1 and spread > 0
        share = ((means - score.mean()) ** 2).sum() / spread if varies else np.nan
        chance = (groups.ngroups - 1) / (len(atoms) - 1) if varies else np.nan
        rows.append((uid, share, chance))
    return pd.DataFrame(rows, columns=["uid", "share", "chance"]).set_index("uid")


def element_shares(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """`group_shares` of the elements: `element` and `chance`, by uid."""
    return group_shares(table, column, ["symbol"]).rename(columns={"share": "element"})


def anisotropy(
    table: pd.DataFrame, cells: dict[str, np.ndarray], column: str = "relative"
) -> pd.DataFrame:
    """Whether a score prefers a lattice direction, one row a structure and direction.

    Atoms within 15° of a lattice direction, seen from the defect, are compared with all atoms of
    the same rings, `RING` Å wide: a score that falls with the distance alone has the ratio one.
    Only atoms `inside` take part, whose direction is certain.

    Args:
        table: one row a node.
        cells: (3, 3) Å by uid.
        column: the score.

    Returns:
        uid, direction ("a", "b", or "diagonal", the shorter of a + b and a - b), ratio, nodes
        (those in the direction). The ratio is NaN where there are none, or no score.
    """
    rows = []
    use = table[~table.defect & table.inside & table.direction.notna()]
    for uid, group in use.groupby("uid", sort=False):
        a, b = np.asarray(cells[uid])[:2, :2]
        diagonals = sorted((a + b, a - b), key=np.linalg.norm)
        ring = np.rint(group.distance.to_numpy() / RING)
        score = group[column].to_numpy(float)
        usual = pd.Series(score).groupby(ring).transform("mean").to_numpy()
        for name, vector in (("a", a), ("b", b), ("diagonal", diagonals[0])):
            turn = group.direction.to_numpy() - np.arctan2(vector[1], vector[0])
            along = np.abs((turn + np.pi / 2) % np.pi - np.pi / 2) <= SECTOR
            expected = usual[along].sum()
            ratio = score[along].sum() / expected if expected > 0 else np.nan
            rows.append((uid, name, ratio, int(along.sum())))
    return pd.DataFrame(rows, columns=["uid", "direction", "ratio", "nodes"])


def summary(table: pd.DataFrame, value: str, by: str | Sequence[str]) -> pd.DataFrame:
    """Mean of a value over structures, with its bootstrap interval (95 %).

    Args:
        table: one row a structure (and whatever `by` names); NaN does not count.
        value: the column.
        by: columns that say what belongs together.

    Returns:
        The columns of `by`, mean, lo, hi, structures.
    """
    by = [by] if isinstance(by, str) else list(by)
    rows = []
    for key, group in table.dropna(subset=[value]).groupby(by, sort=False, observed=True):
        values = group[value].to_numpy(float)
        rows.append((*key, values.mean(), *interval(values), len(values)))
    return pd.DataFrame(rows, columns=[*by, "mean", "lo", "hi", "structures"])


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
    """What attention was expected to show, beside what was measured.

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
    expected = [
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
    for name, values, above in expected:
        values = values.dropna()
        low, high = interval(values.to_numpy())
        rows.append((name, values.mean(), low, high, above, low > above))
    settled = lengths.settled.sum()
    name = "types of defects with a settled decay length, all of them wanted"
    rows.append((name, settled, settled, settled, len(lengths) - 1, settled == len(lengths)))
    columns = ["expected", "measured", "lo", "hi", "above", "holds"]
    return pd.DataFrame(rows, columns=columns).set_index("expected")
