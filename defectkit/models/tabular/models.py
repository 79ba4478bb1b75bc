"""Regressors on tables of `models.tabular`: formation energy and magnetic moment.

They train in seconds to a minute, so a run keeps its configuration and seed and trains again:
nothing is pickled.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from defectkit import DefectkitError
from defectkit.graphs import GraphDataset
from defectkit.models.tabular.features import COMPOSITION, NAMES, name_features, tabulate
from defectkit.models.tabular.sparse import (
    COUNTS,
    SHARES,
    SITES,
    ByHost,
    RobustRidge,
    kind_counts,
    pair_counts,
    pair_design,
    shares,
    site_features,
)

STRENGTHS = [1e-3, 3e-3, 1e-2, 3e-2]  # of the ridge of the linear pair model
REACHES = [6.0, 14.0]  # Å
FOLDS = 5


def mean(seed: int) -> RegressorMixin:
    """The mean of the training labels, whatever the row."""
    return DummyRegressor(strategy="mean")


def ridge(seed: int, alpha: float = 0.01) -> RegressorMixin:
    """Linear, with the squares of the coefficients held small, on standardised columns."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


def names(seed: int, alpha: float = 1.0) -> RegressorMixin:
    """Linear in what a defect is called: a value for each host's site, each dopant and so on."""
    return Ridge(alpha=alpha)


def composition(seed: int) -> RegressorMixin:
    """Linear in the shares of the kinds of sites, host by host."""
    return ByHost(make_pipeline(FunctionTransformer(shares), Ridge(alpha=0.01)))


def pairs(seed: int) -> RegressorMixin:
    """Linear in kinds of sites, their products and kinds of pairs by distance, host by host.

    How small coefficients are held and how far pairs reach is chosen by cross-validation on the
    training rows of the host.
    """
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(pair_design), RobustRidge()),
        {
            "functiontransformer__kw_args": [{"reach": reach} for reach in REACHES],
            "robustridge__alpha": STRENGTHS,
        },
        scoring="neg_mean_absolute_error",
        cv=KFold(FOLDS, shuffle=True, random_state=seed),
    )
    return ByHost(search)


def forest(
    seed: int,
    n_estimators: int = 100,
    max_features: float = 0.1,
    min_samples_leaf: int = 1,
) -> RegressorMixin:
    """The mean of trees, each on a bootstrap sample (Breiman, Mach. Learn. 45, 5, 2001)."""
    return RandomForestRegressor(
        n_estimators=n_estimators,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        random_state=seed,
        n_jobs=1,
    )


def lightgbm(
    seed: int,
    n_estimators: int = 1000,
    learning_rate: float = 0.05,
    num_leaves: int = 31,
    min_child_samples: int = 5,
    colsample_bytree: float = 0.5,
    reg_lambda: float = 1.0,
) -> RegressorMixin:
    """Boosted trees (Ke et al., NIPS 2017), each split at random thresholds.

    The thresholds are those of extremely randomised trees (Geurts et al., Mach. Learn. 63, 3,
    2006): with a few thousand rows they keep boosting from learning single rows by heart.
    """
    return LGBMRegressor(
        n_estimators=n_estimators,
        learning_rate=learning_rate,
        num_leaves=num_leaves,
        min_child_samples=min_child_samples,
        colsample_bytree=colsample_bytree,
        reg_lambda=reg_lambda,
        extra_trees=True,
        max_bin=63,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )


TABULAR: dict[str, Callable[..., RegressorMixin]] = {
    "mean": mean,
    "ridge": ridge,
    "names": names,
    "composition": composition,
    "pairs": pairs,
    "forest": forest,
    "lightgbm": lightgbm,
}
# How the columns begin that a model reads; the others read all of them.
READS = {
    "mean": COMPOSITION,
    "ridge": COMPOSITION,
    "names": NAMES,
    "composition": COUNTS,
    "pairs": COUNTS,
}
OPEN = (NAMES, COUNTS, SHARES)  # columns that are there for what the rows have


def table_for(name: str, graphs: GraphDataset, frame: pd.DataFrame) -> pd.DataFrame:
    """The table that the model `name` learns from and predicts on, indexed by uid.

    Args:
        name: a key of `TABULAR`.
        graphs: of the rows; where their nodes are the defect's sites, the table has a column
            `SITES` with the number of these.
        frame: of `Dataset.frame`, these rows at least.
    """
    of_sites = "host_bonds" in graphs.tensors
    if READS.get(name) == NAMES:
        table = name_features(frame.loc[graphs.uids])
    elif READS.get(name) == COUNTS:
        table = (pair_counts if name == "pairs" else kind_counts)(graphs, frame.host)
    else:
        table = site_features(graphs) if of_sites else tabulate(graphs)
    return table.assign(**{SITES: graphs.n_nodes}) if of_sites else table


class TabularModel:
    """Two regressors of one kind, for formation energy (eV) and magnetic moment (μB).

    Args:
        name: a key of `TABULAR`.
        seed: of what the model draws at random; equal seeds give equal models.
        by_site: whether the energy grows with the number of sites, a column `SITES` of the table:
            what is learned is then the energy of one.
        settings: what the function in `TABULAR` takes beside these.

    Attributes:
        columns: names of the columns that it reads, once fitted: those that `READS` says, else
            all.
        estimators: scikit-learn's fitted estimator by target, "eform" or "spin"; a target
            without any label has none.

    Raises DefectkitError for an unknown name or setting.
    """

    def __init__(self, name: str, seed: int = 0, by_site: bool = False, **settings: float):
        if name not in TABULAR:
            raise DefectkitError(f"No model is called '{name}'; choose from {', '.join(TABULAR)}.")
        try:
            self._make = lambda: TABULAR[name](seed, **settings)
            self._make()
        except TypeError as error:
            raise DefectkitError(f"The settings of {name} do not fit: {error}.") from error
        self._prefix = READS.get(name, "")
        self._by_site = by_site
        self.columns: list[str] = []
        self.estimators: dict[str, RegressorMixin] = {}

    def fit(self, table: pd.DataFrame, eform: pd.Series, spin: pd.Series) -> "TabularModel":
        """Learn from the rows of `table`; a row without a label is left out for that target.

        Args:
            table: of `table_for`, indexed by uid.
            eform: eV, by uid, of those rows at least.
            spin: μB, likewise.
        """
        self.columns = [name for name in table.columns if name.startswith(self._prefix)]
        self.estimators = {}
        if self._by_site:
            eform = eform.loc[table.index] / table[SITES]
        for target, labels in {"eform": eform, "spin": spin}.items():
            known = labels.loc[table.index].dropna()
            if len(known):
                rows = self._read(table.loc[known.index])
                self.estimators[target] = self._make().fit(rows, known.to_numpy())
        return self

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Columns eform (eV) and spin (μB, never below zero), by the index of `table`.

        NaN for a target without any label. DefectkitError for a table without the columns; a name
        or kind that no row of the table has is no column of it, and stands for zeros.
        """
        missing = set(self.columns) - set(table.columns)
        absent = [name for name in self.columns if name in missing and name.startswith(OPEN)]
        if absent:
            table = table.reindex(columns=[*table.columns, *absent], fill_value=0)
            missing -= set(absent)
        if missing or not self.columns:
            lacking = f"lacks {len(missing)} columns" if missing else "came before `fit`"
            raise DefectkitError(f"The table {lacking}; train on one and predict on its like.")
        rows = self._read(table)
        values = {target: model.predict(rows) for target, model in self.estimators.items()}
        frame = pd.DataFrame(values, table.index, ["eform", "spin"])
        if self._by_site:
            frame["eform"] *= table[SITES]
        return frame.assign(spin=frame.spin.clip(lower=0.0))

    def _read(self, table: pd.DataFrame) -> pd.DataFrame | np.ndarray:
        """The columns of the model; a model of counts by host is told their names."""
        rows = table[self.columns]
        return rows if self._prefix == COUNTS else rows.to_numpy()
