"""Models of defects: a crystal graph in, formation energy and magnetic moment out.

Every model is built as `Model(features, graph, **settings)` from a table of element features and
the `GraphConfig` of the graphs that it will read, and called with a graph or a batch of them.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.models.baselines import ALIGNN, CGCNN, Matformer
from defectkit.models.hybrid import Hybrid
from defectkit.models.sites import Sites

MODELS: dict[str, Callable[..., nn.Module]] = {
    "cgcnn": CGCNN,
    "alignn": ALIGNN,
    "matformer": Matformer,
    "hybrid": Hybrid,
    "sites": Sites,
}


def build_model(name: str, features: Tensor, graph: GraphConfig, **settings: Any) -> nn.Module:
    """The model called `name`, untrained.

    Args:
        name: a key of `MODELS`.
        features: (119, F) standardised element features.
        graph: the configuration of its graphs.
        settings: what the model's class takes beside these.

    Raises DefectkitError for an unknown name or setting.
    """
    if name not in MODELS:
        raise DefectkitError(f"No model is called '{name}'; choose from {', '.join(MODELS)}.")
    try:
        return MODELS[name](features, graph, **settings)
    except TypeError as error:
        raise DefectkitError(f"The settings of {name} do not fit: {error}.") from error
