"""Classical baselines: defects as rows of a table, and regressors that learn from them."""

from defectkit.tabular.features import composition_features, surroundings_features, tabulate
from defectkit.tabular.models import TABULAR, TabularModel

__all__ = [
    "TABULAR",
    "TabularModel",
    "composition_features",
    "surroundings_features",
    "tabulate",
]
