"""A run: from a configuration and data to a folder with everything that came out.

config.yaml         the `RunConfig`
run.json            what it was made of: seed and fingerprints
model.safetensors   weights, and `model.yaml`, what they mean (networks only)
metrics.csv         losses and errors, a row an epoch (networks only)
predictions.csv     uid, part, eform and spin, labels and predictions, of all rows not trained on
summary.yaml        seed, fingerprints, versions, sizes, seconds; written last: the run is finished

Every file is there whole or not at all, and a folder belongs to one process at a time.
"""

import csv
import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import nn
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.data.sources import data_folder
from defectkit.data.splits import Split, make_split, structure_groups
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset, host_of, load_graphs
from defectkit.graphs.elements import Standardizer, feature_table
from defectkit.models import build_model
from defectkit.models.outline import said
from defectkit.models.tabular.models import TABULAR, TabularModel, table_for
from defectkit.structures.names import one_line
from defectkit.structures.writing import atomic, own_text, write_text
from defectkit.training import engine
from defectkit.training.augmented import REASON, REFUSED, Augmented
from defectkit.training.checkpoint import CARD, WEIGHTS, ModelCard, load_model, save_model
from defectkit.training.checks import TABLE_FAULTS, check_config, check_data, check_rows
from defectkit.training.config import RunConfig, load_config
from defectkit.training.folder import LAST, SETTINGS, SUMMARY, claim, clear, held, same
from defectkit.training.inference import check_labels, predict
from defectkit.training.yaml_text import parse, text_of

PREDICTIONS = "predictions.csv"
PARTS = ("valid", "test")
LABELS, PREDICTED = ["eform", "spin"], ["eform_pred", "spin_pred"]
STATE = (LAST, engine.BEST)
ANEW = "remove the folder and train again, or fetch it anew"
FILES = (SUMMARY, *STATE, PREDICTIONS, WEIGHTS, CARD, engine.METRICS, engine.TENSORBOARD, SETTINGS)


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it."""

    folder: Path

    @cached_property
    def config(self) -> RunConfig:
        """What was asked for."""
        return load_config(self.folder / "config.yaml")

    @cached_property
    def summary(self) -> dict:
        """Seed, fingerprints, versions, sizes, seconds; DefectkitError for one that is missing."""
        path = self.folder / SUMMARY
        values = parse(_text(path), str(path))
        if not isinstance(values, dict):
            raise DefectkitError(f"{path} is empty or cut; {ANEW}.")
        try:
            _Told.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = one_line(".".join(map(str, first["loc"])))
            raise DefectkitError(f"{path}: {name}: {one_line(first['msg'])}; {ANEW}.") from error
        return _Summary(path, values)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Columns part, eform, spin, eform_pred, spin_pred (eV, μB), indexed by uid."""
        return _read_predictions(self.folder / PREDICTIONS)

    def part(self, name: str) -> pd.DataFrame:
        """Predictions of one part, "valid" or "test"."""
        if name not in set(self.predictions.part):
            raise DefectkitError(f"{self.folder} has no predictions for '{name}' rows.")
        return self.predictions[self.predictions.part == name]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.folder / SUMMARY).is_file()

    def check_finished(self) -> None:
        """DefectkitError unless it did."""
        if not self.finished:
            raise DefectkitError(f"{self.folder} is no finished run; train it to its end.")


class _Rows(BaseModel, strict=True):
    """How many rows each part has."""

    train: int
    valid: int
    test: int


class _Told(BaseModel, strict=True):
    """Kinds of the values of a summary that are read again; it tells more, and may lack any."""

    seed: int = 0
    data_fingerprint: str = ""
    split_fingerprint: str = ""
    data: str = ""
    label_source: str = ""
    rows: _Rows | None = None
    left_out: dict[str, str] = Field(default_factory=dict)
    parameters: int = 0
    train_s_per_epoch: float = Field(default=0.0, allow_inf_nan=False)
    epochs: int = 0


class _Summary(dict):
    """Values of a file, which names itself where one is asked for that it lacks."""

    def __init__(self, path: Path, values: dict):
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str):
        raise DefectkitError(f"{self.path} has no '{key}', it may be cut; {ANEW}.")


def load_data(config: RunConfig) -> tuple[Dataset, Split]:
    """The cleaned data of a configuration, kept for the next run on them, and its split.

    A configuration that no data could be trained with is refused before they are read.
    """
    check_config(config)
    data = config.data
    dataset, groups = _cleaned(data.name, data.path, data.rules)
    return dataset, make_split(dataset, **asdict(data.split), groups=groups)


@lru_cache(maxsize=2)
def _cleaned(name: str, path: str | None, rules: str) -> tuple[Dataset, pd.Series]:
    """The data and their structure groups."""
    whole = load(name, Path(path) if path else None)
    whole.need_labels("training")
    dataset = clean(whole, rules).dataset
    return dataset, structure_groups(dataset, data_folder() / "groups")


def train(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    folder: Path,
    seed: int = 0,
    progress: bool = True,
    other_labels: bool = False,
    callbacks: tuple = (),
) -> Run:
    """Train what `config` says on the training rows of `split` and write the run folder.

    A folder that holds a finished run is returned as it is; an interrupted one is resumed. Either
    must have been made with the same configuration, data and seed.

    Args:
        config: what to do.
        dataset: cleaned rows.
        split: of these rows.
        folder: the run folder, made where it is missing.
        seed: of everything drawn at random.
        progress: whether a bar is shown.
        other_labels: whether a starting model may have been trained on another label source.
        callbacks: further ones of Lightning.

    Raises DefectkitError, before a graph is built, for settings that do not fit each other, the
    data or the model to start from, a split of other data, or a folder that holds another run or
    is in use; later for a training that diverges, which leaves no folder behind.
    """
    folder = Path(folder)
    identity = identity_of(dataset, split, seed)
    if split.fingerprint != dataset.fingerprint:
        raise DefectkitError("The split was made for other data; make one for these.")
    dataset.need_labels("training")
    run = Run(folder)
    if run.finished and same(folder, config, identity):
        _tidy(folder)
        return run
    check_config(config, seed)
    check_data(config, dataset, other_labels)
    check_rows(*(_rows(dataset, getattr(split, name)) for name in ("train", "valid")))
    with held(folder), _claimed(folder, config, identity):
        if not run.finished:
            job = _Job(config, dataset, split, identity, folder)
            if config.model.name in TABULAR:
                predicted, outcome = job.train_table()
            else:
                shown = (engine.EpochBar(), *callbacks) if progress else callbacks
                predicted, outcome = job.train_network(shown, other_labels)
            job.finish(predicted, outcome)
        _tidy(folder)
    return run


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs; a finished one may lie where nobody can write."""
    for name in STATE:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _claimed(folder: Path, config: RunConfig, identity: dict) -> Iterator[None]:
    """Mark the folder as this run's while it is trained.

    A training that diverged, or that failed before its first epoch was kept, leaves nothing that
    would be in the way of the next one.
    """
    claim(folder, config, identity, FILES)
    try:
        yield
    except BaseException as error:
        kept = any((folder / name).exists() for name in (SUMMARY, LAST))
        if isinstance(error, engine.Diverged) or not kept:
            clear(folder, FILES)
        raise


def _rows(dataset: Dataset, uids: Sequence[str]) -> pd.DataFrame:
    return dataset.frame.loc[list(uids), LABELS]


@lru_cache(maxsize=2)
def graphs_of(dataset: Dataset, config: GraphConfig) -> GraphDataset:
    """The graphs of all rows, kept in the user's cache folder, and for the next run in memory.

    Structures of which no graph can be made are left out, with a line that says so (`left_out`):
    placed by a recipe, some dopants are too large for their site.
    """
    return load_graphs(
        dataset.records,
        dataset.hosts,
        config,
        cache=data_folder() / "graphs",
        skip=True,
    )


def left_out(dataset: Dataset, graphs: GraphDataset, config: GraphConfig) -> dict[str, str]:
    """Why rows of the data have no graph, a sentence by uid."""
    found = {}
    for uid in sorted(set(dataset.frame.index) - set(graphs.uids)):
        record = dataset[uid]
        try:
            build_graph(record, config, host_of(record, dataset.hosts))
        except DefectkitError as error:
            found[uid] = str(error)
    return found


def training_rows(config: RunConfig, split: Split, refused: Collection[str]) -> list[str]:
    """Uids of the rows that a run learns from.

    Args:
        config: of the run; `data.train_rows` of the training rows are drawn.
        split: of its data.
        refused: uids without a graph (`left_out`).
    """
    uids = [uid for uid in split.train if uid not in refused]
    return _some(uids, config.data.train_rows, split.seed) if config.data.train_rows else uids


def learned_from(run: Run) -> tuple[Dataset, list[str]]:
    """The data of a finished run, and the uids of the rows that it was trained on.

    Raises DefectkitError where the data or the split at hand are not those of the run.
    """
    dataset, split = load_data(run.config)
    whole_or_blind = [split_fingerprint(one) for one in (split, replace(split, test=()))]
    if (
        run.summary["data_fingerprint"] != dataset.fingerprint
        or run.summary["split_fingerprint"] not in whole_or_blind  # a study is not shown the test
    ):
        raise DefectkitError(
            f"{run.folder} was trained on other rows than {dataset.name} with {len(dataset)} rows "
            "holds now; use the data that it was trained on, or train it again."
        )
    uids = training_rows(run.config, split, run.summary["left_out"])
    if len(uids) != run.summary["rows"]["train"]:
        raise DefectkitError(
            f"{run.folder / 'summary.yaml'} tells of {run.summary['rows']['train']} training rows, "
            f"its configuration of {len(uids)}; fetch the folder anew or train it again."
        )
    return dataset, uids


def identity_of(dataset: Dataset, split: Split, seed: int) -> dict[str, int | str]:
    """What a run or a search was made of, beside its configuration."""
    return {
        "seed": seed,
        "data_fingerprint": dataset.fingerprint,
        "split_fingerprint": split_fingerprint(split),
    }


def split_fingerprint(split: Split) -> str:
    """SHA-256 over the ids of every part."""
    parts = [split.train, split.valid, split.test, split.calibration]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _some(uids: list[str], n: int, seed: int) -> list[str]:
    """`n` of them, drawn at random; a larger n contains the rows of a smaller one."""
    if n > len(uids):
        raise DefectkitError(f"train_rows is {n}; there are {len(uids)} training rows.")
    order = np.random.default_rng(seed).permutation(len(uids))[:n]
    return [uids[k] for k in order]


class _Job:
    """What is left to do once a folder is held: graphs, training, predictions, summary."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, split: Split, identity: dict, folder: Path
    ):
        self.config, self.dataset, self.identity, self.folder = config, dataset, identity, folder
        self.seed = identity["seed"]
        self.graphs = graphs_of(dataset, config.graph)
        self.refused = left_out(dataset, self.graphs, config.graph)
        chosen = {"train": training_rows(config, split, self.refused)}
        chosen |= {name: getattr(split, name) for name in PARTS}
        self.parts = {name: self.graphs.select(uids) for name, uids in chosen.items()}
        # Once more: structures of which there is no graph are left out.
        check_rows(*(_rows(dataset, self.uids(name)) for name in ("train", "valid")))

    def uids(self, *names: str) -> list[str]:
        """Ids of the rows of these parts."""
        return [self.graphs.uids[k] for name in names for k in self.parts[name]]

    def train_network(self, callbacks: tuple, other_labels: bool) -> tuple[pd.DataFrame, dict]:
        """Predictions for all rows not trained on, and what the summary shall tell."""
        config, dataset, parts = self.config, self.dataset, self.parts
        engine.pl.seed_everything(self.seed, verbose=False)
        training = _training_graphs(config, dataset, self.graphs, parts["train"])
        eform, spin = _range(training.tensors["y_eform"]), _range(training.tensors["y_spin"].abs())
        model = new_model(config, training, dataset.label_source, other_labels)
        collate = training.batch
        if config.augment:
            collate = Augmented(config, dataset, training, len(parts["train"]), self.seed)
            callbacks = (collate, *callbacks)
        valid = engine.Part(
            len(parts["valid"]),
            lambda numbers: self.graphs.batch([parts["valid"][k] for k in numbers]),
        )
        train = engine.Part(len(training), collate)
        outcome = engine.fit(
            model, config, (train, valid), eform, self.seed, self.folder, callbacks
        )
        if config.augment:
            outcome["augment"] = collate.tally
            _tell(collate.tally)
        card = ModelCard(
            config.model,
            config.graph,
            config.features,
            dataset.name,
            dataset.label_source,
            self.identity["data_fingerprint"],
            self.identity["split_fingerprint"],
            eform,
            spin,
        )
        save_model(self.folder, model, card)
        outcome["parameters"] = sum(p.numel() for p in model.parameters())
        outcome["structures"] = len(training)
        return predict(model, self.graphs, parts["valid"] + parts["test"]), outcome

    def train_table(self) -> tuple[pd.DataFrame, dict]:
        """Likewise, for a model of `tabular.models.TABULAR`."""
        table = _table(self.config.model.name, self.dataset, self.graphs)
        begin = time.perf_counter()
        try:
            model = fit_table(self.config, self.dataset, self.graphs, self.uids("train"), self.seed)
        except TABLE_FAULTS as error:
            name = self.config.model.name
            raise DefectkitError(f"{name} cannot learn: {said(error)}.") from error
        seconds = time.perf_counter() - begin
        predicted = model.predict(table.loc[self.uids(*PARTS)])
        return predicted, {"train_s_per_epoch": seconds, "parameters": 0}

    def finish(self, predicted: pd.DataFrame, outcome: dict) -> None:
        """Write the predictions, and last the summary."""
        with atomic(self.folder / PREDICTIONS) as part:
            self._predictions(predicted).to_csv(part, float_format="%.5f")
        summary = {
            **self.identity,
            "data": self.dataset.name,
            "label_source": self.dataset.label_source,
            "rows": {name: len(numbers) for name, numbers in self.parts.items()},
            "left_out": self.refused,
            **outcome,
            "versions": {name: version(name) for name in ("torch", "torch-geometric", "lightning")},
            "threads": torch.get_num_threads(),
        }
        write_text(self.folder / SUMMARY, text_of(summary))

    def _predictions(self, predicted: pd.DataFrame) -> pd.DataFrame:
        """Labels beside predictions, with the part that each row belongs to."""
        part = {uid: name for name in PARTS for uid in self.uids(name)}
        table = self.dataset.frame.loc[predicted.index, LABELS].assign(
            spin=lambda frame: frame.spin.abs(),
            eform_pred=predicted.eform,
            spin_pred=predicted.spin,
        )
        table.insert(0, "part", [part[uid] for uid in table.index])
        return table


def _tell(tally: dict[str, dict]) -> None:
    """Say what augmentation left as it was."""
    for name, found in tally.items():
        if found[REFUSED]:
            tqdm.write(
                f"augment: '{name}' passed over {found[REFUSED]:,} structures drawn. "
                f"{found[REASON]}"
            )


def _range(values: torch.Tensor) -> tuple[float, float]:
    """Lowest and highest of the labels that are known."""
    known = values[~values.isnan()]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _training_graphs(config, dataset, graphs, numbers) -> GraphDataset:
    """The training rows alone, in both positions where the configuration says so."""
    chosen = [graphs[k] for k in numbers]
    if config.also_unrelaxed:
        other = graphs_of(dataset, replace(config.graph, positions="unrelaxed"))
        chosen += [other[k] for k in other.select([graphs.uids[k] for k in numbers])]
    return GraphDataset.from_graphs(chosen)


def new_model(
    config: RunConfig, training: GraphDataset, label_source: str, other_labels: bool = False
) -> nn.Module:
    """A model with the normalisation of the training rows, or the one to start from.

    Args:
        config: of the run.
        training: graphs of the training rows.
        label_source: of their labels.
        other_labels: whether the model to start from may have learned from other labels.
    """
    if config.start:
        model, card = load_model(config.start)
        if not other_labels:
            check_labels(card, label_source)
        return model
    table = feature_table(config.features)
    table = Standardizer.fit(table, training.tensors["z"].numpy())(table)
    features = torch.tensor(table.values, dtype=torch.float32)
    model = build_model(config.model.name, features, config.graph, **config.model.settings)
    model.heads.fit(training.tensors["y_eform"], training.tensors["y_spin"].abs())
    return model


def fit_table(
    config: RunConfig, dataset: Dataset, graphs: GraphDataset, uids: Sequence[str], seed: int
) -> TabularModel:
    """A model of `tabular.models.TABULAR`, fitted to the rows `uids`."""
    rows = [graphs.uids[k] for k in graphs.select(uids)]
    labels = dataset.frame.loc[rows]
    model = TabularModel(config.model.name, seed=seed, **config.model.settings)
    table = _table(config.model.name, dataset, graphs).loc[rows]
    return model.fit(table, labels.eform, labels.spin.abs())


@lru_cache(maxsize=2)
def _table(name: str, dataset: Dataset, graphs: GraphDataset) -> pd.DataFrame:
    """The table of all graphs, for the next run as well."""
    return table_for(name, graphs, dataset.frame)


def _read_predictions(path: Path) -> pd.DataFrame:
    """The table of a run; DefectkitError that names the file and what is wrong with it."""
    text = _text(path)
    try:
        # Not with pandas, which takes the first cells of a row with too many for an index.
        heading, *rows = filter(None, csv.reader(StringIO(text), strict=True))
        if len(set(heading)) < len(heading):
            raise ValueError("a column stands twice")
        table = pd.DataFrame(rows, columns=heading, dtype=object)
    except (ValueError, csv.Error) as error:
        reason = one_line(error) if text.strip() else "it is empty"
        raise DefectkitError(f"{path} is no table ({reason}); {ANEW}.") from error
    missing = [name for name in ("uid", "part", *LABELS, *PREDICTED) if name not in table]
    if missing or not text.endswith("\n"):
        fault = f"has no column {', '.join(missing)}" if missing else "is cut in its last line"
        raise DefectkitError(f"{path} {fault}; {ANEW}.")
    for name in LABELS + PREDICTED:
        numbers = pd.to_numeric(table[name], errors="coerce")
        unknown = table[name].isna() | table[name].str.strip().str.lower().isin(["", "nan"])
        # A label may be unknown; a prediction may where a target had no label to learn from.
        may_lack = name in LABELS or (name == "spin_pred" and unknown.all())
        wrong = ~np.isfinite(numbers) & ~(unknown & may_lack)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DefectkitError(
                f"{path}, line {row + 2}: {name} is '{one_line(table[name][row])}' and no "
                f"number; {ANEW}."
            )
        table[name] = numbers.astype(float)
    strange = sorted(set(table.part) - set(PARTS))
    twice = table.uid[table.uid.duplicated()]
    if strange or len(twice):
        fault = (
            f"part is '{one_line(strange[0])}'"
            if strange
            else f"{one_line(twice.iloc[0])} stands twice"
        )
        raise DefectkitError(f"{path}: {one_line(fault)}; {ANEW}.")
    return table.set_index("uid")


def _text(path: Path) -> str:
    return own_text(path, f"is missing; {path.parent} is no finished run", ANEW)
