"""Classical baselines: defects as rows of a table, and regressors that learn from them."""

from defectkit.models.tabular.features import (
    composition_features,
    name_features,
    surroundings_features,
    tabulate,
)
from defectkit.models.tabular.models import TABULAR, TabularModel, table_for

__all__ = [
    "TABULAR",
    "TabularModel",
    "composition_features",
    "name_features",
    "surroundings_features",
    "table_for",
    "tabulate",
]
