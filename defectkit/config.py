"""A run as plain, frozen values: read from YAML, checked, written back.

Every field of a YAML file is checked against these classes; an unknown key or a value of the
wrong kind is refused by name. `with_values` changes single ones, as in
`defectkit train configs/demo/cgcnn.yaml epochs=5 optimiser.lr=1e-3`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig

STRICT = ConfigDict(extra="forbid")
AugmentName = Literal["pad", "noise", "strain", "partly-relaxed", "elastic"]


@dataclass(frozen=True, config=STRICT)
class SplitConfig:
    """Arguments of `data.splits.make_split`."""

    kind: str = "random"
    seed: int = 0
    fold: int | None = None
    held_out: str | tuple[str, str] | None = None
    calibration: float = 0.0


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """What is learned from.

    Attributes:
        name: "demo", "imp2d", "2dmd", or a folder of structures.
        path: where it lies, if elsewhere.
        rules: cleaning rules, "strict" or "proposal".
        split: which rows are for training, validation and test.
        train_rows: how many of the training rows are used, drawn at random; all by default.
    """

    name: str = "demo"
    path: str | None = None
    rules: str = "strict"
    split: SplitConfig = SplitConfig()
    train_rows: int | None = Field(default=None, gt=0)


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """A model of `models.MODELS` or `tabular.TABULAR` and its settings."""

    name: str
    settings: dict[str, int | float | bool | str | None] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class OptimiserConfig:
    """How weights follow gradients; `weight_decay` is lambda2 of equation (12)."""

    name: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)


@dataclass(frozen=True, config=STRICT)
class ScheduleConfig:
    """How the learning rate changes.

    Attributes:
        name: "constant"; "piecewise": times `factor` at each of `milestones`; "cosine": down to
            zero; "plateau": times `factor` after `patience` epochs without a better validation
            error.
        warmup: share of all steps in which the rate rises from zero first.
        milestones: shares of all steps.
    """

    name: Literal["constant", "piecewise", "cosine", "plateau"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    milestones: tuple[float, ...] = (0.5, 0.8)
    factor: float = Field(default=0.3, gt=0, lt=1)
    patience: int = Field(default=5, gt=0)


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights of equation (12): `spin` is lambda1; `range` that of the penalty on energies
    outside the range of the training labels.
    """  # noqa: D205

    spin: float = Field(default=0.1, ge=0)
    range: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """One training run, all but its seed.

    Attributes:
        model, data, graph, optimiser, schedule, loss: see their classes.
        features: groups of element features, see `graphs.elements.feature_table`.
        augment: transforms of training structures, applied anew in every epoch in this order.
        also_unrelaxed: whether every training row is seen in both positions, relaxed and
            unrelaxed.
        start: a folder with a trained model whose weights are the starting point.
        epochs, batch_size: how long, and how many structures a step.
        accumulate: batches whose gradients are added up before a step.
        clip: largest norm of the gradient.
        ema: decay of the running mean of the weights a step, which is validated and kept; None
            for the weights themselves.
        patience: epochs without a better validation error before training stops; None: never.
        precision: Lightning's name of it, such as "32-true", "16-mixed" or "bf16-mixed".
        devices: how many processors of one kind; Lightning spreads the batches over them.
    """

    model: ModelConfig
    data: DataConfig = DataConfig()
    graph: GraphConfig = GraphConfig()
    features: tuple[str, ...] = ("elemental", "magpie")
    augment: tuple[AugmentName, ...] = ()
    also_unrelaxed: bool = False
    start: str | None = None
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=32, gt=0)
    accumulate: int = Field(default=1, gt=0)
    clip: float = Field(default=5.0, gt=0)
    ema: float | None = Field(default=0.99, gt=0, lt=1)
    patience: int | None = Field(default=None, gt=0)
    precision: str = "32-true"
    devices: int = Field(default=1, gt=0)


@dataclass(frozen=True, config=STRICT)
class Choice:
    """A value to search for: one of `choices`, or between `low` and `high`."""

    choices: tuple[int | float | bool | str | None, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True, config=STRICT)
class TuneConfig:
    """A search for settings, judged on validation rows.

    Attributes:
        run: what every trial has in common.
        search: what varies, by the dotted name of a value of `run`.
        trials: how many; a grid ends when it is exhausted.
        sampler: "bayes" (tree-structured Parzen estimator), or "grid" over the choices.
    """

    run: RunConfig
    search: dict[str, Choice]
    trials: int = Field(default=20, gt=0)
    sampler: Literal["bayes", "grid"] = "bayes"


@dataclass(frozen=True, config=STRICT)
class StudyConfig:
    """A comparison at equal budget, judged on validation rows.

    Attributes:
        run: what every variant starts from.
        variants: by group and name, the values of `run` that differ, by dotted name.
        seeds: each variant is trained with all of them.
        splits: whether every seed draws a split of its own as well.
    """

    run: RunConfig
    variants: dict[str, dict[str, dict[str, Any]]]
    seeds: tuple[int, ...] = (0, 1, 2)
    splits: bool = False


def load_config(path: str | Path, kind: type = RunConfig) -> Any:
    """Read a YAML file as a `RunConfig` (or another class of this module).

    Raises DefectkitError that names the file and the value that is wrong.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DefectkitError(f"{path} is not a readable YAML file: {error}.") from error
    return _checked(values, kind, str(path))


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration as YAML."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def to_dict(config: Any) -> dict:
    """Plain dictionaries, lists and numbers."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def with_values(config: Any, changes: dict[str, Any] | Sequence[str]) -> Any:
    """A configuration with some values changed.

    Args:
        config: a configuration of this module.
        changes: values by dotted name, or texts "name=value" whose values are read as YAML.
    """
    if not isinstance(changes, dict):
        changes = dict(map(_assignment, changes))
    values = to_dict(config)
    for name, value in changes.items():
        *path, last = name.split(".")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise DefectkitError(f"{name} names no value of the configuration.")
        inner[last] = value
    return _checked(values, type(config), "The configuration")


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise DefectkitError(f"'{text}' is not of the form name=value, as in optimiser.lr=0.001.")
    try:
        return name.strip(), _number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise DefectkitError(f"'{value}' is not a value that YAML can read: {error}.") from error


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a text; here it is a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _checked(values: Any, kind: type, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DefectkitError(f"{where}: {name}: {first['msg']}{more}.") from error
