"""What vectors of elements know: probes, neighbours, clusters, principal components; Janus gaps.

Vectors come as a table with a row an element (its symbol) and a column a dimension. They are judged
in units of their spread over the elements, so that no dimension counts for its scale.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from ase.formula import Formula
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator
from sklearn.cluster import AgglomerativeClustering
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import adjusted_mutual_info_score, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    cross_val_predict,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from defectkit import DefectkitError
from defectkit.graphs.elements import ELEMENTAL, feature_table

RANDOM_DIMENSIONS = 16
FOLDS, REPEATS = 5, 5
CLASSES = ("group", "period")
NUMBERS = ("electronegativity", "covalent_radius")  # Pauling's scale; Å
ALPHAS = np.logspace(-2, 4, 13)
TREES = 100
FLIPS = 10_000
INNER = 3  # folds of formulas that settings are chosen on
WIDTHS = [0.001, 0.01, 0.03, 0.1]
GRIDS: dict[str, tuple[BaseEstimator, dict[str, list]]] = {
    "kernel ridge": (KernelRidge(kernel="rbf"), {"alpha": [0.03, 0.3, 1.0], "gamma": WIDTHS}),
    "support vectors": (SVR(epsilon=0.05), {"C": [0.3, 1.0, 10.0], "gamma": WIDTHS}),
}
MODELS = ("random forest", *GRIDS)


def known_vectors(name: str, seed: int = 0) -> pd.DataFrame:
    """A table of vectors by name, all elements of it.

    Args:
        name: a group of `graphs.elements.feature_table`, such as "magpie" or "atom_dl"; "random";
            or "megnet", 16 dimensions of a network that learned formation energies (Chen et al.,
            Chem. Mater. 31, 3564, 2019, from matminer).
        seed: of random ones.
    """
    symbols = pd.Index(chemical_symbols[1:], name="element")
    if name == "random":
        drawn = np.random.default_rng(seed).normal(size=(len(symbols), RANDOM_DIMENSIONS))
        return pd.DataFrame(drawn, symbols)
    if name == "megnet":
        from matminer.utils.data import MEGNetElementData

        table = MEGNetElementData(impute_nan=False).all_element_data
        return pd.DataFrame(table).T.rename_axis("element").drop(index="Dummy")
    features = feature_table([name])
    kept = [k for k, column in enumerate(features.names) if not column.startswith("missing: ")]
    kept.remove(features.names.index("vacancy"))
    return pd.DataFrame(features.values[1:, kept], symbols, [features.names[k] for k in kept])


def scaled(vectors: pd.DataFrame) -> pd.DataFrame:
    """The same with mean zero and standard deviation one in every dimension that varies."""
    spread = vectors.std(ddof=0)
    return ((vectors - vectors.mean()) / spread.where(spread > 1e-9, 1.0)).astype(float)


def facts(elements: Sequence[str]) -> pd.DataFrame:
    """Columns of `graphs.elements.ELEMENTAL` and `main_group`, by symbol."""
    features = feature_table(["elemental"])
    z = [chemical_symbols.index(symbol) for symbol in elements]
    columns = [features.names.index(name) for name in ELEMENTAL]
    table = pd.DataFrame(features[np.array(z)][:, columns], list(elements), list(ELEMENTAL))
    main = table.group.isin([1, 2, *range(13, 19)]) & (table.Z > 1)
    return table.assign(main_group=main)


def probe(vectors: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What a linear model reads from vectors of elements that it has not learned from.

    Five folds of elements, drawn five times. Group and period are classes (logistic regression;
    the share of elements put right), the others numbers (ridge regression, its strength chosen
    inside; R², which is zero for the mean and negative below).

    Returns:
        a row a property: score, std over the drawings, and `baseline`, the largest class or zero.
    """
    known = facts(vectors.index)
    rows = []
    for name in (*CLASSES, *NUMBERS):
        target = known[name].to_numpy()
        drawn = [_probed(vectors, target, name in CLASSES, seed + k) for k in range(REPEATS)]
        largest = np.unique(target, return_counts=True)[1].max() / len(target)
        baseline = largest if name in CLASSES else 0.0
        rows.append((name, np.mean(drawn), np.std(drawn), baseline))
    return pd.DataFrame(rows, columns=["property", "score", "std", "baseline"])


def _probed(vectors: pd.DataFrame, target: np.ndarray, classes: bool, seed: int) -> float:
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=2000) if classes else RidgeCV(ALPHAS)
    pipeline = make_pipeline(StandardScaler(), model)
    wanted = target.astype(int) if classes else target
    predicted = cross_val_predict(pipeline, vectors.to_numpy(float), wanted, cv=folds)
    return float((predicted == wanted).mean() if classes else r2_score(wanted, predicted))


def similarity(vectors: pd.DataFrame) -> pd.DataFrame:
    """Cosine similarity of all elements, (n, n) by symbol, of `scaled` vectors."""
    x = scaled(vectors).to_numpy()
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return pd.DataFrame(x @ x.T, vectors.index, vectors.index)


def nearest(vectors: pd.DataFrame, element: str, k: int = 5) -> pd.Series:
    """The `k` elements most alike by cosine similarity, the nearest first.

    Raises DefectkitError for an element that has no vector.
    """
    if element not in vectors.index:
        raise DefectkitError(f"There is no vector of {element} here; choose another element.")
    return similarity(vectors)[element].drop(element).nlargest(k)


def components(vectors: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """First two principal components of `scaled` vectors, columns pc1 and pc2, and their shares."""
    analysis = PCA(2, random_state=0)
    table = pd.DataFrame(
        analysis.fit_transform(scaled(vectors)), vectors.index, columns=["pc1", "pc2"]
    )
    return table, analysis.explained_variance_ratio_


def clusters(vectors: pd.DataFrame, number: int = 8) -> pd.Series:
    """Number of the cluster of each element: average linkage of cosine distances."""
    distance = (1 - similarity(vectors)).clip(lower=0.0).to_numpy()
    model = AgglomerativeClustering(number, metric="precomputed", linkage="average")
    return pd.Series(model.fit_predict(distance), vectors.index)


def order(vectors: pd.DataFrame) -> dict[str, float]:
    """How the arrangement of main-group elements follows the periodic table.

    Returns:
        neighbour: share of elements whose nearest neighbour is of their group; clusters: adjusted
        mutual information of eight clusters with the groups, zero for chance, one where they are
        the same; pc1: rank correlation, without sign, of the first principal component with the
        number of valence electrons.
    """
    known = facts(vectors.index)
    main = vectors[known.main_group.to_numpy()]
    known = known.loc[main.index]
    alike = similarity(main).to_numpy()
    np.fill_diagonal(alike, -np.inf)
    same = known.group.to_numpy()[alike.argmax(axis=1)] == known.group.to_numpy()
    first = components(main)[0].pc1
    return {
        "neighbour": float(same.mean()),
        "clusters": float(adjusted_mutual_info_score(known.group, clusters(main))),
        "pc1": float(abs(spearmanr(first, known.valence_electrons).statistic)),
    }


def formula_features(formulas: Sequence[str], vectors: pd.DataFrame) -> np.ndarray:
    """(n, 2 D) mean and range of every dimension over the atoms of each formula.

    Raises DefectkitError for an element without a vector.
    """
    rows = []
    for formula in formulas:
        atoms = [x for x, n in Formula(formula).count().items() for _ in range(n)]
        if missing := set(atoms) - set(vectors.index):
            raise DefectkitError(f"{formula}: there is no vector of {', '.join(sorted(missing))}.")
        x = vectors.loc[atoms].to_numpy(float)
        rows.append(np.concatenate([x.mean(axis=0), np.ptp(x, axis=0)]))
    return np.array(rows)


def left_out(
    formulas: Sequence[str], target: np.ndarray, vectors: pd.DataFrame, model: str, seed: int = 0
) -> np.ndarray:
    """(n,) predictions, each by a model that has not seen the formula.

    All rows of a formula are left out together: two phases of one have the same features. Kernel
    ridge and support vectors choose their settings on folds of the remaining formulas alone.

    Args:
        formulas: (n,) with repeats.
        target: (n,).
        vectors: of the elements.
        model: one of `MODELS`, or "mean", the mean of the rows that are left.
        seed: of the forest.
    """
    groups, x = np.array(formulas), formula_features(formulas, scaled(vectors))
    predicted = np.empty(len(target))
    for train, test in LeaveOneGroupOut().split(x, target, groups):
        if model == "mean":
            predicted[test] = target[train].mean()
            continue
        fitted = _regressor(model, groups[train], seed).fit(x[train], target[train])
        predicted[test] = fitted.predict(x[test])
    return predicted


def _regressor(model: str, groups: np.ndarray, seed: int) -> BaseEstimator:
    """A model that chooses its settings itself; `groups` are the formulas that it will learn."""
    if model == "random forest":
        return RandomForestRegressor(TREES, random_state=seed, n_jobs=1)
    estimator, grid = GRIDS[model]
    pipeline = make_pipeline(StandardScaler(), estimator)
    scaled_target = TransformedTargetRegressor(pipeline, transformer=StandardScaler())
    name = f"regressor__{pipeline.steps[-1][0]}__"
    settings = {f"{name}{key}": values for key, values in grid.items()}
    inner = list(GroupKFold(INNER).split(groups, groups=groups))
    return GridSearchCV(scaled_target, settings, scoring="neg_mean_absolute_error", cv=inner)


def flipped(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """Probability of a difference this large if two models had changed names at random.

    Args:
        first: (n,) absolute errors of a model.
        second: (n,) those of another, of the same rows.
        seed: of the flips.

    Returns:
        p of a paired permutation test: the share of `FLIPS` exchanges, row by row, whose means
        differ by at least as much.
    """
    difference = np.asarray(first) - np.asarray(second)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(FLIPS, len(difference)))
    found = np.abs((signs * difference).mean(axis=1)) >= abs(difference.mean()) - 1e-12
    return float((found.sum() + 1) / (FLIPS + 1))
