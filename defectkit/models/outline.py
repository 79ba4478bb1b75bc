"""A model seen from outside: whether its settings fit, and the shapes of its tensors.

Settings are judged without allocating anything, so that absurd ones are refused before they fill
the memory.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite, prod
from types import UnionType
from typing import Any, get_args

import torch

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.models import MODELS
from defectkit.structures.names import one_line

MAX_LAYERS = 100
MAX_SIZE = 10_000  # of any other whole number, such as a width
MAX_WEIGHTS = 100_000_000
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
NOT_PASSED = ("features", "graph", "seed")  # not settings of a person
BASES = ("radial", "angular")  # numbers of functions whose spacing is their width
LENGTHS = ("angular_cutoff", "reach")
MISFIT = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)


def shapes(
    name: str, features: tuple[int, ...], graph: GraphConfig, settings: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a model's state by its name, without building the model.

    Args:
        name: a key of `MODELS`.
        features: shape of the table of element features, (119, F).
        graph: the configuration of its graphs.
        settings: what the model's class takes beside these.

    Raises DefectkitError for an unknown name or setting, one of the wrong kind or out of range,
    settings that do not fit each other or the graph, or more than `MAX_WEIGHTS` numbers.
    """
    if name not in MODELS:
        raise DefectkitError(
            f"No model is called '{one_line(name)}'; choose from {', '.join(MODELS)}."
        )
    check_settings(name, MODELS[name], settings)
    try:
        with torch.device("meta"):
            model = MODELS[name](torch.empty(features), graph, **settings)
    except MISFIT as error:
        raise DefectkitError(
            f"The settings of {name} do not fit: {library_message(error)}."
        ) from error
    found = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    weights = sum(map(prod, found.values()))
    if weights > MAX_WEIGHTS:
        raise DefectkitError(
            f"{name} with these settings has {weights:,} weights; the limit is {MAX_WEIGHTS:,}: "
            "make it narrower."
        )
    return found


def all_settings(make: Callable, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model that `make` makes, with the values of those not mentioned."""
    return {key: p.default for key, p in _parameters(make).items()} | dict(settings)


def check_settings(name: str, make: Callable, settings: Mapping[str, Any]) -> None:
    """DefectkitError where `make`, which makes the model `name`, would not take the settings."""
    known = _parameters(make)
    for key, value in settings.items():
        where = f"model.settings.{one_line(key)}"
        if key not in known:
            near = get_close_matches(key, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
            raise DefectkitError(f"{where} is no setting of {name}; {advice}")
        kind = known[key].annotation
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        fits = type(value) in kinds or (type(value) is int and float in kinds)
        if not fits:
            wanted = " or ".join("none" if k is type(None) else WORDS[k] for k in kinds)
            raise DefectkitError(f"{where} is {one_line(repr(value))}; it should be {wanted}.")
        if float in kinds and not (isfinite(value) and value >= 0):
            raise DefectkitError(f"{where} is {value}; it should be finite and not below zero.")
        if float in kinds and key in LENGTHS and not value:
            raise DefectkitError(f"{where} is {value} Å; it should be above zero.")
        if int in kinds and type(value) is int:
            low = 0 if key.endswith("layers") else 2 if key in BASES else 1
            high = MAX_LAYERS if key.endswith("layers") else MAX_SIZE
            if not low <= value <= high:
                raise DefectkitError(f"{where} is {value}; it should lie from {low} to {high:,}.")


def _parameters(make: Callable) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(getattr(make, "Settings", make)).parameters
    return {key: p for key, p in parameters.items() if key not in NOT_PASSED}


def library_message(error: Exception) -> str:
    """The message of another library on one line, without its full stop."""
    return " ".join(str(error).split()).removesuffix(".")
