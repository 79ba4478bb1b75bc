"""A trained model and graphs in, a table of predictions out."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import nn

from defectkit import DefectkitError
from defectkit.graphs.dataset import GraphDataset
from defectkit.training.checkpoint import ModelCard

MAX_PAIRS = 1_000_000  # of nodes in a batch, a structure at least: they fill the memory


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
        batch_size: structures at a time, fewer where they are large (`MAX_PAIRS`).
    """
    numbers = range(len(graphs)) if numbers is None else numbers
    training = model.training
    model.eval()
    rows = []
    try:
        for chosen in batches(numbers, graphs.n_nodes[list(numbers)] ** 2, batch_size):
            graph = graphs.batch(chosen)
            output = model(graph)
            rows += zip(graph.uid, output.eform.tolist(), output.spin.tolist())
    finally:
        model.train(training)
    return pd.DataFrame(rows, columns=["uid", "eform", "spin"]).set_index("uid")


def batches(
    items: Sequence, pairs: Sequence[int], size: int, limit: int = MAX_PAIRS
) -> Iterator[list]:
    """Items in order, at most `size` at a time and with at most `limit` pairs together.

    Args:
        items: what to batch.
        pairs: the number of each; one with more than the limit is alone.
        size: of a batch.
        limit: as said.
    """
    batch, total = [], 0
    for item, count in zip(items, pairs, strict=True):
        if batch and (len(batch) == size or total + count > limit):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += int(count)
    if batch:
        yield batch


def check_labels(card: ModelCard, label_source: str) -> None:
    """DefectkitError where a model's labels and those it is to be compared with differ."""
    if card.label_source != label_source:
        raise DefectkitError(
            f"The model was trained on {card.label_source} labels and these data carry "
            f"{label_source} labels, whose zero and accuracy differ; say --other-labels (in "
            "Python other_labels=True) to compare them all the same."
        )
