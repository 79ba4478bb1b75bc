"""A trained model in two files: `model.safetensors` holds numbers, `model.yaml` what they mean.

Neither can run code when it is read. The table of element features and the normalisation of the
labels are tensors of the model, so that reading one needs no other data.
"""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.models import build_model
from defectkit.models.outline import shapes
from defectkit.structures.names import one_line
from defectkit.structures.writing import atomic
from defectkit.training.config import ModelConfig, check_reach, load_config, save_config

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
        eform_range: lowest and highest training label, eV.
        spin_range: likewise of its size, μB.
    """

    model: ModelConfig
    graph: GraphConfig
    features: tuple[str, ...]
    data: str
    label_source: str
    data_fingerprint: str
    split_fingerprint: str
    eform_range: tuple[float, float]
    spin_range: tuple[float, float]

    def __post_init__(self) -> None:
        check_reach(self.graph)
        for name in ("eform_range", "spin_range"):
            low, high = getattr(self, name)
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
