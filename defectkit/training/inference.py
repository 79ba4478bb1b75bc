"""A trained network: saved, loaded, and asked for predictions.

`model.safetensors` holds its numbers, `model.yaml` what they mean. Neither can run code when it is
read. The table of element features and the normalisation of the labels are tensors of the model,
so that reading one needs no other data.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from threading import get_ident

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.graphs.dataset import GraphDataset
from defectkit.models import build_model
from defectkit.models.hybrid import Hybrid
from defectkit.models.outline import shapes
from defectkit.structures.names import one_line
from defectkit.structures.writing import atomic
from defectkit.training.config import ModelConfig, Target, check_reach, load_config, save_config

MEMBERS_BATCH = 32  # structures that members of an ensemble read together: they fit the cache
MAX_PAIRS = 1_000_000  # of nodes in a batch, a structure at least: they fill the memory
WEIGHTS, CARD = "model.safetensors", "model.yaml"
SHOWN = 3  # tensors that do not fit
FEATURES = "inputs.features"  # the tensor of every model that holds the element features


@dataclass(frozen=True)
class ModelCard:
    """What inference must know beside the weights.

    Attributes:
        model: name and settings.
        graph: how structures become its graphs.
        features: names of the groups of element features.
        data: name of the data set it was trained on.
        label_source: what computed the labels that it predicts.
        data_fingerprint, split_fingerprint: of the cleaned data, and of the rows trained on.
        eform_range: lowest and highest training label of the target, eV.
        spin_range: likewise of its size, μB; None where no training row had a moment.
        target: what it learned to predict as eform (`DataConfig.target`).
    """

    model: ModelConfig
    graph: GraphConfig
    features: tuple[str, ...]
    data: str
    label_source: str
    data_fingerprint: str
    split_fingerprint: str
    eform_range: tuple[float, float]
    spin_range: tuple[float, float] | None
    target: Target = "eform"

    def __post_init__(self) -> None:
        check_reach(self.graph)
        for name in ("eform_range", "spin_range"):
            low, high = getattr(self, name) or (0.0, 0.0)
            if not (isfinite(low) and isfinite(high) and low <= high):
                raise DefectkitError(f"{name} is from {low} to {high}; these are no two labels.")


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write both files into a folder that exists, the card last; each is whole or not there."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic(folder / WEIGHTS) as part:
        part.write_bytes(save(tensors))
    save_config(card, folder / CARD)


def load_model(folder: str | Path) -> tuple[nn.Module, ModelCard]:
    """The model of a run folder, in evaluation mode, and its card.

    Raises DefectkitError where a file is missing or damaged, or the two do not belong together.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise DefectkitError(
            f"{folder} holds no trained network ({CARD} is missing); name the folder of a "
            "finished run."
        )
    card = load_config(folder / CARD, ModelCard)
    tensors = _read_weights(folder / WEIGHTS)
    features = tensors[FEATURES]
    try:
        wanted = shapes(card.model.name, tuple(features.shape), card.graph, card.model.settings)
    except DefectkitError as error:
        raise DefectkitError(f"{folder / CARD}: {one_line(error, 500)}") from error
    if misfits := _misfits(wanted, {key: tuple(t.shape) for key, t in tensors.items()}):
        more = f" and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else ""
        raise DefectkitError(
            f"{folder}: {CARD} and {WEIGHTS} do not belong together: "
            f"{', '.join(misfits[:SHOWN])}{more}; fetch both anew or train the model again."
        )
    model = build_model(card.model.name, features, card.graph, **card.model.settings)
    model.load_state_dict(tensors)
    return model.eval(), card


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file by its name."""
    try:
        tensors = load_file(path)
    except PermissionError as error:
        raise DefectkitError(f"{path} may not be read; change its permissions.") from error
    except (OSError, SafetensorError) as error:
        raise DefectkitError(
            f"{path} is missing or damaged ({one_line(error)}); train the model again or "
            "fetch the folder anew."
        ) from error
    if FEATURES not in tensors or tensors[FEATURES].ndim != 2:
        raise DefectkitError(f"{path} holds no model of this kit.")
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DefectkitError(
                f"{path}: {one_line(key)} holds numbers that are not finite; train the model again."
            )
    return tensors


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


@contextmanager
def latent_vectors(model: nn.Module) -> Iterator[list[Tensor]]:
    """While it is open, the vectors from which the network's heads read fill a list.

    A hook on `model.heads` takes them, so any model of the kit will do. Several threads may ask one
    model; each has the vectors of its own structures.

    Yields:
        the list, a (B, D) for every batch that the model has read.
    """
    vectors, own = [], get_ident()

    def keep(module: nn.Module, args: tuple) -> None:
        if get_ident() == own:  # another thread's graphs pass through this hook as well
            vectors.append(args[0])

    hook = model.heads.register_forward_pre_hook(keep)
    try:
        yield vectors
    finally:
        hook.remove()


@torch.no_grad()
def predict_together(
    models: Sequence[nn.Module], graphs: GraphDataset, batch_size: int = MEMBERS_BATCH
) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """What `predict` says for members of one ensemble, batch by batch; and latent vectors.

    Members read each batch one after the other. Those of `Hybrid` share its geometry, which none
    of them has learned.

    Args:
        models: of one configuration, in evaluation mode.
        graphs: of the configuration that they were trained with.
        batch_size: structures at a time, fewer where they are large (`MAX_PAIRS`).

    Returns:
        A table a member, and the vectors (B, D) from which the first one's heads read; all
        indexed by uid.
    """
    uids: list[str] = []
    tables: list[list[Tensor]] = [[] for _ in models]
    with latent_vectors(models[0]) as vectors:
        for chosen in batches(range(len(graphs)), graphs.n_nodes**2, batch_size):
            graph = graphs.batch(chosen)
            uids += graph.uid
            shared = [models[0].geometry(graph)] if isinstance(models[0], Hybrid) else []
            for model, table in zip(models, tables):
                output = model(graph, *shared)
                table.append(torch.stack([output.eform, output.spin], dim=1))
    index = pd.Index(uids, name="uid")
    members = [
        pd.DataFrame(torch.cat(table).double().numpy(), index, ["eform", "spin"])
        for table in tables
    ]
    return members, pd.DataFrame(torch.cat(vectors).numpy(), index)


def batches(
    items: Sequence, pairs: Sequence[int], size: int, limit: int = MAX_PAIRS
) -> Iterator[list]:
    """Items in order, at most `size` at a time and with at most `limit` pairs together.

    Args:
        items: what to batch.
        pairs: the number of each; one with more than the limit is alone.
        size: of a batch.
        limit: of the numbers in a batch together.
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


def _misfits(card: dict[str, tuple], weights: dict[str, tuple]) -> list[str]:
    """Tensor by tensor, where the shapes that a card asks for are not those that there are."""
    return [
        f"{one_line(key)} is {_shape(card.get(key))} by the card and "
        f"{_shape(weights.get(key))} in the file"
        for key in sorted(card.keys() | weights.keys())
        if card.get(key) != weights.get(key)
    ]


def _shape(shape: tuple | None) -> str:
    if shape is None:
        return "absent"
    return " x ".join(map(str, shape)) or "one number"
