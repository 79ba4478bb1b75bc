"""A trained model and graphs in, a table of predictions out."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from defectkit import DefectkitError
from defectkit.checkpoint import ModelCard
from defectkit.graphs.dataset import GraphDataset


@torch.no_grad()
def predict(
    model: nn.Module,
    graphs: GraphDataset,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Predictions for graphs: columns `eform` (eV) and `spin` (μB), indexed by uid.

    Args:
        model: of `models.MODELS`.
        graphs: of the configuration that the model was trained with.
        numbers: which of them; all by default.
        batch_size: structures at a time.
    """
    numbers = range(len(graphs)) if numbers is None else numbers
    training = model.training
    model.eval()
    rows = []
    try:
        for start in range(0, len(numbers), batch_size):
            graph = graphs.batch(numbers[start : start + batch_size])
            output = model(graph)
            rows += zip(graph.uid, output.eform.tolist(), output.spin.tolist())
    finally:
        model.train(training)
    return pd.DataFrame(rows, columns=["uid", "eform", "spin"]).set_index("uid")


def check_labels(card: ModelCard, label_source: str) -> None:
    """DefectkitError where a model's labels and those it is to be compared with differ."""
    if card.label_source != label_source:
        raise DefectkitError(
            f"The model was trained on {card.label_source} labels and these data carry "
            f"{label_source} labels, whose zero and accuracy differ; say --other-labels (in "
            "Python other_labels=True) to compare them all the same."
        )
