"""A trained model in two files: `model.safetensors` holds numbers, `model.yaml` what they mean.

Neither can run code when it is read. The table of element features and the normalisation of the
labels are tensors of the model, so that reading one needs no other data.
"""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from defectkit import DefectkitError
from defectkit.config import ModelConfig, load_config, save_config
from defectkit.graphs.build import GraphConfig
from defectkit.models import build_model

WEIGHTS, CARD = "model.safetensors", "model.yaml"
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


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write both files into a folder that exists."""
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS
    )
    save_config(card, folder / CARD)


def load_model(folder: str | Path) -> tuple[nn.Module, ModelCard]:
    """The model of a run folder, in evaluation mode, and its card.

    Raises DefectkitError where a file is missing or damaged, or the two do not belong together.
    """
    folder = Path(folder)
    card = load_config(folder / CARD, ModelCard)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DefectkitError(
            f"{folder / WEIGHTS} is missing or damaged ({error}); train the model again or fetch "
            "the folder anew."
        ) from error
    if FEATURES not in tensors:
        raise DefectkitError(f"{folder / WEIGHTS} holds no model of this kit.")
    model = build_model(card.model.name, tensors[FEATURES], card.graph, **card.model.settings)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise DefectkitError(
            f"{folder}: {CARD} and {WEIGHTS} do not belong together ({first}); fetch both anew."
        ) from error
    return model.eval(), card
