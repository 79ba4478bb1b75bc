"""A run as plain, frozen values: read from YAML, checked, written back.

Every field of a YAML file is checked against these classes: an unknown key, a key that stands
twice, a value of the wrong kind or out of range, and settings that do not fit each other are
refused by name. Whether a model takes its settings is checked when a run starts
(`training.prepared`). `with_values` changes single ones, as in
`defectkit train configs/cgcnn.yaml epochs=5 optimiser.lr=1e-3`.
"""

import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from defectkit import DefectkitError
from defectkit.graphs.build import GraphConfig
from defectkit.models.tabular.models import TABULAR
from defectkit.structures.names import one_line
from defectkit.structures.writing import own_text, write_text

STRICT = ConfigDict(extra="forbid")
AugmentName = Literal["pad", "noise", "strain", "partly-relaxed", "elastic"]
MOVES_ATOMS = ("noise", "partly-relaxed", "elastic")  # the relaxed positions alone
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Target = Literal["eform", "gap"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
MAX_SEED = 2**31 - 1  # what every library takes
MAX_EPOCHS = 1_000_000
MAX_BATCH = 100_000  # structures
MAX_REACH = 50.0  # Å: a thousand times the neighbours that 5 Å have
MAX_NEIGHBOURS = 1_000
MAX_GRID = 100_000  # points of a search
MAX_YAML_SIZE = 200_000  # characters: two seconds
MAX_YAML_DEPTH = 50  # groups in groups; PyYAML's time grows with the square


@dataclass(frozen=True, config=STRICT)
class SplitConfig:
    """Arguments of `data.splits.make_split`."""

    kind: str = "random"
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    fold: int | None = Field(default=None, ge=0)
    held_out: str | tuple[str, str] | None = None
    calibration: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """What is learned from.

    Attributes:
        name: "demo", "imp2d", "2dmd", or a folder of structures.
        path: where it lies, if elsewhere.
        rules: cleaning rules, "strict" or "proposal".
        split: which rows are for training, validation and test.
        train_rows: how many of the training rows are used, two or more, drawn at random; all by
            default.
        more: files or folders of further rows in the form of these data, at a path or beside the
            bundled ones, which are learned from as well (`data.further`).
        target: the energy that is learned: "eform", or "gap" where the data have it. Outputs,
            predictions and errors of a run that are called eform are those of its target.
    """

    name: str = "demo"
    path: str | None = None
    rules: str = "strict"
    split: SplitConfig = SplitConfig()
    train_rows: int | None = Field(default=None, ge=2)
    more: tuple[str, ...] = ()
    target: Target = "eform"

    def __post_init__(self) -> None:
        if self.more and self.split.kind not in ("random", "subset"):
            raise DefectkitError(
                f"data.more would bring back what the split by {self.split.kind} holds out; leave "
                "it, or split at random."
            )


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """A model of `models.MODELS` or `tabular.TABULAR` and its settings."""

    name: str
    settings: dict[str, int | float | bool | str | None] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class OptimiserConfig:
    """How weights follow gradients; `weight_decay` is lambda2 of equation (12)."""

    name: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class ScheduleConfig:
    """How the learning rate changes.

    Attributes:
        name: "constant"; "piecewise": times `factor` at each of `milestones`; "cosine": down to
            zero; "plateau": times `factor` after `patience` epochs without a better validation
            error.
        warmup: share of all steps in which the rate rises from zero first.
        milestones: shares of all steps, between 0 and 1.
    """

    name: Literal["constant", "piecewise", "cosine", "plateau"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, allow_inf_nan=False)
    milestones: tuple[Share, ...] = (0.5, 0.8)
    factor: float = Field(default=0.3, gt=0, lt=1, allow_inf_nan=False)
    patience: int = Field(default=5, gt=0, le=MAX_EPOCHS)


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights of equation (12): `spin` is lambda1; `range` that of the penalty on energies
    outside the range of the training labels.
    """  # noqa: D205

    spin: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    range: float = Field(default=0.0, ge=0, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """One training run, all but its seed.

    Attributes:
        model, data, graph, optimiser, schedule, loss: see their classes.
        features: groups of element features, see `graphs.elements.feature_table`.
        augment: transforms of training structures, applied anew in every epoch in this order.
            "noise", "partly-relaxed" and "elastic" move atoms away from where they relaxed, which
            unrelaxed positions do not show.
        also_unrelaxed: whether every training row is seen in both positions, relaxed and
            unrelaxed.
        start: a folder with a trained network whose weights are the starting point; `model`,
            `graph` (but for its positions) and `features` must be those it was trained with.
        epochs, batch_size: how long, and how many structures a step.
        accumulate: batches whose gradients are added up before a step.
        clip: largest norm of the gradient.
        ema: decay of the running mean of the weights a step, which is validated and kept; None
            for the weights themselves.
        patience: epochs without a better validation error before training stops; None: never.
        precision: Lightning's name of it; what is kept and predicted with has 32 bits.
        devices: 1; a run trains on one processor, and several runs may go on side by side.
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
    epochs: int = Field(default=50, gt=0, le=MAX_EPOCHS)
    batch_size: int = Field(default=32, gt=0, le=MAX_BATCH)
    accumulate: int = Field(default=1, gt=0, le=MAX_BATCH)
    clip: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    ema: float | None = Field(default=0.99, gt=0, lt=1, allow_inf_nan=False)
    patience: int | None = Field(default=None, gt=0, le=MAX_EPOCHS)
    precision: Precision = "32-true"
    devices: int = Field(default=1, gt=0)

    def __post_init__(self) -> None:
        check_reach(self.graph)
        if self.model.name in TABULAR:
            for setting in ("start", "augment", "also_unrelaxed"):
                if getattr(self, setting):
                    raise DefectkitError(
                        f"{setting} is for networks; {self.model.name} does not heed it: leave it."
                    )
        if self.devices > 1:
            raise DefectkitError(
                f"devices is {self.devices}; a run trains on one. Start several runs instead, such "
                "as one a seed."
            )
        unrelaxed = self.graph.positions == "unrelaxed"
        if self.also_unrelaxed and unrelaxed:
            raise DefectkitError(
                "also_unrelaxed adds unrelaxed positions and graph.positions is 'unrelaxed' "
                "already; set one of them back."
            )
        if self.augment and self.data.more:
            raise DefectkitError(
                "augment makes structures of the data's own rows anew; leave data.more or augment "
                "out."
            )
        blind = [name for name in self.augment if name in MOVES_ATOMS]
        if blind and (unrelaxed or self.also_unrelaxed):
            seen = "graph.positions is 'unrelaxed'" if unrelaxed else "also_unrelaxed is set"
            raise DefectkitError(
                f"augment: {', '.join(blind)} would leave every unrelaxed structure as it is, and "
                f"{seen}; leave it out of augment or learn from relaxed positions alone."
            )
        if self.augment and self.data.target != "eform":
            raise DefectkitError(
                f"augment keeps formation energies, and data.target is {self.data.target}; leave "
                "augment out."
            )
        for name in ("augment", "features"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise DefectkitError(f"{name} is {list(values)}; name each of them once.")


def check_reach(graph: GraphConfig) -> None:
    """DefectkitError for graphs that nobody could build."""
    for name in ("cutoff", "angle_cutoff", "image_radius"):
        value = getattr(graph, name)
        if value is not None and not value <= MAX_REACH:
            raise DefectkitError(f"graph.{name} is {value} Å; the limit is {MAX_REACH:.0f} Å.")
    if graph.neighbours is not None and graph.neighbours > MAX_NEIGHBOURS:
        raise DefectkitError(
            f"graph.neighbours is {graph.neighbours}; the limit is {MAX_NEIGHBOURS}."
        )


@dataclass(frozen=True, config=STRICT)
class Choice:
    """A value to search for: one of `choices`, or between `low` and `high`."""

    choices: tuple[int | float | bool | str | None, ...] = ()
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    log: bool = False

    def __post_init__(self) -> None:
        bounds = (self.low, self.high)
        if self.choices and (bounds != (None, None) or self.log):
            raise DefectkitError("give a search value choices, or low and high, not both.")
        if self.choices:
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise DefectkitError(f"the choices {list(self.choices)} hold one of them twice.")
            return
        if None in bounds:
            raise DefectkitError("a search value needs choices, or both low and high.")
        if not self.low < self.high:
            raise DefectkitError(f"low is {self.low} and high {self.high}; low must be below high.")
        if self.log and self.low <= 0:
            raise DefectkitError(f"low is {self.low}; a logarithmic range lies above zero.")


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
    trials: int = Field(default=20, gt=0, le=MAX_GRID)
    sampler: Literal["bayes", "grid"] = "bayes"

    def __post_init__(self) -> None:
        if not self.search:
            raise DefectkitError("search is empty; name at least one value to search for.")
        if self.sampler == "bayes":
            return
        ranges = [name for name, choice in self.search.items() if not choice.choices]
        if ranges:
            raise DefectkitError(
                f"a grid goes over choices, and {', '.join(ranges)} has a range; give choices, or "
                "set sampler to bayes."
            )
        points = prod(len(choice.choices) for choice in self.search.values())
        if points > MAX_GRID:
            raise DefectkitError(f"the grid has {points:,} points; the limit is {MAX_GRID:,}.")


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
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = (0, 1, 2)
    splits: bool = False


@dataclass(frozen=True, config=STRICT)
class VectorConfig:
    """Vectors of the elements learned from formulas, all but the seed.

    Attributes:
        corpus: "invented", "libraries" (what ships with them), or a CSV file of formulas.
        rows: how many of its formulas; all by default, of made-up ones 200,000.
        groups: weight of the second task, whether two formulas hold elements of the same groups.
        hidden: dimensions of a vector.
        layers, heads: blocks of the encoder, and heads of attention in each.
        optimiser, schedule, clip: see `RunConfig`.
        epochs: how often each formula comes first in a pair.
        batch_size: pairs a step.
    """

    corpus: str = "invented"
    rows: int | None = Field(default=None, ge=20)
    groups: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    hidden: int = Field(default=16, gt=0, le=1024)
    layers: int = Field(default=8, gt=0, le=64)
    heads: int = Field(default=8, gt=0, le=64)
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    epochs: int = Field(default=8, gt=0, le=MAX_EPOCHS)
    batch_size: int = Field(default=512, gt=0, le=MAX_BATCH)
    clip: float = Field(default=5.0, gt=0, allow_inf_nan=False)

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise DefectkitError(
                f"hidden is {self.hidden} and heads {self.heads}; heads must divide hidden."
            )
        if self.schedule.name == "plateau":
            raise DefectkitError(
                "schedule.name is plateau, which vectors do not heed; take cosine."
            )


def load_config(path: str | Path, kind: type = RunConfig) -> Any:
    """Read a YAML file as a `RunConfig` (or another class of this module).

    Raises DefectkitError that names the file and the value that is wrong.
    """
    values = parse(own_text(path, "does not exist", "save it as such"), str(path))
    if not isinstance(values, dict):
        raise DefectkitError(
            f"{path} holds {'nothing' if values is None else 'no names with values'}; it should "
            "hold lines such as 'name: value'."
        )
    return _checked(values, kind, str(path))


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration as YAML, whole or not at all."""
    write_text(path, text_of(to_dict(config)))


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
    parsed = parse(value, f"'{text}'")
    if isinstance(parsed, str) and value.strip()[0] not in "'\"":
        parsed = value.strip()  # a # in the name of a folder begins no comment
    return name.strip(), parsed


def _checked(values: Any, kind: type, where: str) -> Any:
    for path in _flags_for_numbers(values, kind):
        name = one_line(".".join(path))
        raise DefectkitError(f"{where}: {name} is yes or no; it should be a number.")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DefectkitError(f"{where}: {one_line(_sentence(first, kind), 500)}{more}.") from error
    except DefectkitError as error:
        raise DefectkitError(f"{where}: {one_line(error, 500)}") from error


def _sentence(fault: dict, kind: type) -> str:
    """What pydantic found, without its words for programmers."""
    *outer, last = map(str, fault["loc"] or ("",))
    path = [part for part in outer if part.isidentifier() or "." in part]
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _names(kind, path)
        near = get_close_matches(last, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        name = ".".join([*path, last or "''"])
        return f"{name} is no setting; {advice}".removesuffix(".")
    name = ".".join([*path, last] if last.isidentifier() or "." in last else path) or "the file"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{name} is missing"
    if fault["type"].startswith("dataclass"):
        return f"{name} should be a group of values, such as 'name: value'"
    return f"{name} is {reprlib.repr(fault['input'])}: {fault['msg']}"


def _names(kind: Any, path: Sequence[str]) -> list[str]:
    """Names of the values that a configuration has at a dotted place."""
    for part in path:
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return list(get_type_hints(kind)) if is_dataclass(kind) else []


def _flags_for_numbers(values: Any, kind: Any, path: tuple = ()) -> Iterator[tuple[str, ...]]:
    """Places of yes or no where a number belongs: Python would take them for 1 and 0."""
    if is_dataclass(kind) and isinstance(values, dict):
        hints = get_type_hints(kind)
        for name in set(values) & set(hints):
            yield from _flags_for_numbers(values[name], hints[name], (*path, str(name)))
    kinds = set(get_args(kind)) if isinstance(kind, UnionType) else {kind}
    if isinstance(values, bool) and kinds & {int, float} and bool not in kinds:
        yield path


class Loader(yaml.SafeLoader):
    """Safe: it makes numbers, texts, lists and dictionaries, and runs nothing.

    Unlike YAML 1.1 it takes 1e-3 for a number, and it refuses a key that stands twice.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A dictionary."""
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, token: type) -> None:
        """One more bracket is open."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        """One more group is begun by its indentation."""
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_YAML_DEPTH:
            problem = f"groups lie in each other more than {MAX_YAML_DEPTH} deep"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())


class Dumper(yaml.SafeDumper):
    """Quotes what the `Loader` would take for a number."""


for _kind in (Loader, Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def text_of(values: Any) -> str:
    """The YAML of plain values, from which `parse` makes the same."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, where: str) -> Any:
    """The values in a text; DefectkitError, beginning with `where`, if it is no such YAML."""
    if len(text) > MAX_YAML_SIZE:
        raise DefectkitError(
            f"{where} has {len(text):,} characters; the limit is {MAX_YAML_SIZE:,}."
        )
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = one_line(error.problem or error.context)
        raise DefectkitError(f"{where}{line} is no YAML that can be read: {problem}.") from error
    # What PyYAML lets through: dates and numbers that there are not, characters without a glyph.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        problem = one_line(error)
        raise DefectkitError(f"{where} is no YAML that can be read: {problem}.") from error
