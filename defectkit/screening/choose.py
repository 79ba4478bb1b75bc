"""Which candidates to compute next, so that the networks learn most from them.

Five strategies, and a replay that judges them on labels that are known already: a Gaussian process
stands for the networks there, as it learns in milliseconds.

Axes: n rows, D columns of their descriptors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, t
from sklearn.decomposition import PCA
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from sklearn.preprocessing import StandardScaler

from defectkit import DefectkitError
from defectkit.screening.funnel import farthest_first
from defectkit.screening.store import Screening
from defectkit.structures.writing import atomic

NEXT = "next.csv"
WIDER = 10  # times the rows asked for: among as many of the most uncertain, unlike ones are chosen
# Of those that choose, the strategy whose worst data set in `against_random` is the best.
BEST = "unlike"
COMPONENTS = 20  # of the descriptors
NOISE = 0.05  # of the variance of the labels, that no descriptor explains
FEWEST = 5  # labelled rows, of which a replay's model learns
LOWEST = 0.01  # of the rows of a pool: the lowest energies, which a search wants to find
CONFIDENCE = 0.95  # of the intervals of means over seeds


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows without a label, and what a model says of them.

    Attributes:
        mean: (n,) eV.
        sigma: (n,) eV.
        vectors: (n, D) descriptors.
        known: (m, D) of rows that have a label.
        best: eV, the lowest label so far.
    """

    mean: np.ndarray
    sigma: np.ndarray
    vectors: np.ndarray
    known: np.ndarray
    best: float

    def __len__(self) -> int:
        return len(self.mean)


def at_random(pool: Pool, n: int, rng: np.random.Generator) -> np.ndarray:
    """Any rows: what every strategy must beat."""
    return rng.choice(len(pool), n, replace=False)


def most_uncertain(pool: Pool, n: int, rng: np.random.Generator) -> np.ndarray:
    """Where the models disagree most."""
    return (-pool.sigma).argsort(kind="stable")[:n]


def most_unlike(pool: Pool, n: int, rng: np.random.Generator) -> np.ndarray:
    """Far from all that is known, and from each other."""
    both = np.concatenate([pool.known, pool.vectors])
    chosen, _ = farthest_first(both, n, range(len(pool.known)))
    return np.array(chosen) - len(pool.known)


def uncertain_and_unlike(pool: Pool, n: int, rng: np.random.Generator) -> np.ndarray:
    """Of the most uncertain rows those that are unlike each other: no question is asked twice."""
    first = most_uncertain(pool, min(WIDER * n, len(pool)), rng)
    chosen, _ = farthest_first(pool.vectors[first], n)
    return first[chosen]


def most_improving(pool: Pool, n: int, rng: np.random.Generator) -> np.ndarray:
    """By expected improvement: E[max(best - y, 0)] with y normal about the mean."""
    sigma = np.maximum(pool.sigma, 1e-6)
    gain = pool.best - pool.mean
    expected = gain * norm.cdf(gain / sigma) + sigma * norm.pdf(gain / sigma)
    return (-expected).argsort(kind="stable")[:n]


Strategy = Callable[[Pool, int, np.random.Generator], np.ndarray]
STRATEGIES: dict[str, Strategy] = {
    "random": at_random,
    "uncertain": most_uncertain,
    "unlike": most_unlike,
    "uncertain and unlike": uncertain_and_unlike,
    "improving": most_improving,
}


def next_ones(
    screening: Screening, n: int, known: np.ndarray, strategy: str = BEST
) -> pd.DataFrame:
    """The n candidates of a screening to compute next, rows of its table.

    Args:
        screening: finished.
        n: how many.
        known: (m, D) latent vectors of the training rows, `Predictor.training`.
        strategy: of `STRATEGIES`.

    Raises DefectkitError for an unknown strategy, and more rows than can be computed.
    """
    if strategy not in STRATEGIES:
        raise DefectkitError(
            f"No strategy is called '{strategy}'; choose from {', '.join(STRATEGIES)}."
        )
    table = screening.table()
    sound = table[(table.fault == "") & (table.impossible == "")]
    if not 1 <= n <= len(sound):
        raise DefectkitError(
            f"{n} candidates were asked for, and {len(sound):,} can be computed; ask for between 1 "
            "and these."
        )
    pool = Pool(
        sound.eform.to_numpy(),
        sound.eform_sigma.to_numpy(),
        screening.vectors(sound.index),
        known.astype(np.float32),
        float(sound.eform.min()),
    )
    chosen = STRATEGIES[strategy](pool, n, np.random.default_rng(0))
    return sound.iloc[chosen]


def write_next(screening: Screening, n: int, known: np.ndarray) -> Path:
    """Write what `next_ones` chooses beside the table of a screening; the file."""
    path = screening.folder / NEXT
    chosen = next_ones(screening, n, known).reset_index()
    columns = ["key", "name", "host", "dopant", "site", "strain", "eform", "eform_sigma", "spin"]
    with atomic(path) as part:
        chosen[columns].assign(strategy=BEST).to_csv(part, index=False)
    return path


def chosen_keys(screening: Screening) -> list[str]:
    """What `write_next` chose, else the short list."""
    path = screening.folder / NEXT
    if not path.is_file():
        return list(screening.table("chosen").index)
    try:
        return list(pd.read_csv(path).key)
    except (ValueError, AttributeError, OSError) as error:
        raise DefectkitError(
            f"{path} is no table with a column key; write it anew with `defectkit screen --next`."
        ) from error


def replay(
    features: pd.DataFrame, labels: pd.Series, batch: int, rounds: int, seeds: Sequence[int]
) -> pd.DataFrame:
    """Learning curves of all strategies on labels that are known, hidden until they are asked for.

    Args:
        features: (n, D) descriptors of rows; a fifth of them judges, drawn by the seed.
        labels: (n,) eV.
        batch: rows that are labelled in a round, and before the first one.
        rounds: how many.
        seeds: of what is drawn.

    Returns:
        A row a strategy, seed and round: `strategy`, `seed`, `labelled` rows, `mae` on those that
        judge (eV), `regret` of the lowest label found against the lowest there is (eV), and
        `found`, which share of the lowest hundredth is found.

    Raises DefectkitError for too few rows.
    """
    n = len(features)
    if batch < FEWEST or batch * (rounds + 1) > 0.8 * n:
        raise DefectkitError(
            f"{rounds} rounds of {batch} rows do not fit {n:,} rows; ask for fewer of at least "
            f"{FEWEST}."
        )
    x, y, rows = components(features), labels.to_numpy(float), []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(n)
        judges, pool = order[: n // 5], order[n // 5 :]
        for name, strategy in STRATEGIES.items():
            rng = np.random.default_rng(seed)
            for labelled, scores in _curve(x, y, (judges, pool), (strategy, batch, rounds), rng):
                rows.append({"strategy": name, "seed": seed, "labelled": labelled, **scores})
    return pd.DataFrame(rows)


def against_random(curves: pd.DataFrame) -> pd.DataFrame:
    """What strategies are worth: their error in units of that of rows drawn at random.

    Args:
        curves: of `replay`, with the name of the data in column data.

    Returns:
        A row a data set and strategy: `ratio` of the mean errors of all rounds but the first, a
        mean over seeds, and `half` the width of its interval.
    """
    learned = curves[curves.labelled > curves.labelled.min()]
    mae = learned.pivot_table(index="seed", columns=["data", "strategy"], values="mae")
    tables = {}
    for data, own in mae.T.groupby(level="data"):
        own = own.droplevel("data").T
        ratio, half = over_seeds(own.div(own["random"], axis=0))
        tables[data] = pd.DataFrame({"ratio": ratio, "half": half})
    return pd.concat(tables, names=["data"])


def over_seeds(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The mean of each column over its rows, a row a seed, and half of its 95 % interval (t)."""
    n = table.notna().sum()
    return table.mean(), t.ppf((1 + CONFIDENCE) / 2, n - 1) * table.sem()


def components(features: pd.DataFrame) -> np.ndarray:
    """(n, `COMPONENTS` or fewer) principal components of descriptors that are on one scale."""
    scaled = StandardScaler().fit_transform(features.to_numpy(float))
    return PCA(min(COMPONENTS, *scaled.shape), random_state=0).fit_transform(scaled)


def _curve(
    x: np.ndarray,
    y: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
    plan: tuple[Strategy, int, int],
    rng: np.random.Generator,
) -> list[tuple[int, dict[str, float]]]:
    """The scores of a strategy by the number of labelled rows."""
    (judges, pool), (strategy, batch, rounds) = parts, plan
    lowest = pool[y[pool].argsort(kind="stable")[: max(1, int(LOWEST * len(pool)))]]
    known, rest, curve = pool[:batch], pool[batch:], []
    for number in range(rounds + 1):
        model = surrogate(x[known], y[known])
        scores = {
            "mae": float(np.abs(model.predict(x[judges]) - y[judges]).mean()),
            "regret": float(y[known].min() - y[lowest].min()),
            "found": float(np.isin(lowest, known).mean()),
        }
        curve.append((len(known), scores))
        if number < rounds:
            mean, sigma = model.predict(x[rest], return_std=True)
            asked = Pool(mean, sigma, x[rest], x[known], float(y[known].min()))
            chosen = strategy(asked, batch, rng)
            known = np.concatenate([known, rest[chosen]])
            rest = np.delete(rest, chosen)
    return curve


def surrogate(x: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
    """A Gaussian process whose length is the median distance of its rows; nothing is searched.

    Args:
        x: (n, D) of rows with a label.
        y: (n,) labels.
    """
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    length = max(float(np.median(apart[apart > 0])), 1e-3) if (apart > 0).any() else 1.0
    kernel = Matern(length, nu=2.5) + WhiteKernel(NOISE)
    return GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(x, y)
