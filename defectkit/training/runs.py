"""A run: from a configuration and data to a folder with everything that came out.

config.yaml         the `RunConfig`
model.safetensors   weights, and `model.yaml`, what they mean (networks only)
metrics.csv         losses and errors by epoch (networks only)
predictions.csv     uid, part, eform and spin, labels and predictions, of all rows not trained on
summary.yaml        seed, fingerprints, versions, sizes, seconds
"""

import hashlib
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from torch import nn
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.checkpoint import ModelCard, load_model, save_model
from defectkit.config import RunConfig, load_config, save_config
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.data.fetch import data_folder
from defectkit.data.splits import Split, make_split, structure_groups
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset, load_graphs
from defectkit.graphs.elements import Standardizer, feature_table
from defectkit.models import build_model
from defectkit.predict import check_labels, predict
from defectkit.structures import augment
from defectkit.tabular.models import TABULAR, TabularModel, table_for
from defectkit.training import engine


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
        """Seed, fingerprints, versions, sizes, seconds."""
        return yaml.safe_load(_text(self.folder / "summary.yaml"))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Columns part, eform, spin, eform_pred, spin_pred (eV, μB), indexed by uid."""
        return pd.read_csv(StringIO(_text(self.folder / "predictions.csv")), index_col="uid")

    def part(self, name: str) -> pd.DataFrame:
        """Predictions of one part, "valid" or "test"."""
        if name not in set(self.predictions.part):
            raise DefectkitError(f"{self.folder} has no predictions for '{name}' rows.")
        return self.predictions[self.predictions.part == name]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.folder / "summary.yaml").is_file()


def load_data(config: RunConfig) -> tuple[Dataset, Split]:
    """The cleaned data of a configuration, kept for the next run on them, and its split."""
    data = config.data
    dataset, groups = _cleaned(data.name, data.path, data.rules)
    return dataset, make_split(dataset, **asdict(data.split), groups=groups)


@lru_cache(maxsize=2)
def _cleaned(name: str, path: str | None, rules: str) -> tuple[Dataset, pd.Series]:
    """The data and their structure groups."""
    dataset = clean(load(name, Path(path) if path else None), rules).dataset
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

    Raises DefectkitError for a split of other data, an unknown model or setting, or a folder of
    another run.
    """
    folder = Path(folder)
    identity = {
        "seed": seed,
        "data_fingerprint": dataset.fingerprint,
        "split_fingerprint": split_fingerprint(split),
    }
    if split.fingerprint != dataset.fingerprint:
        raise DefectkitError("The split was made for other data; make one for these.")
    _claim(folder, config, identity)
    run = Run(folder)
    if run.finished:
        return run
    graphs = graphs_of(dataset, config.graph)
    refused = left_out(dataset, graphs, config.graph)
    parts = {name: graphs.select(getattr(split, name)) for name in ("valid", "test")}
    parts["train"] = graphs.select(training_rows(config, split, refused))
    if config.model.name in TABULAR:
        predicted, outcome = _train_table(config, dataset, graphs, parts, seed)
    else:
        predicted, outcome = _train_network(
            config,
            dataset,
            graphs,
            parts,
            identity,
            folder,
            seed,
            progress,
            other_labels,
            callbacks,
        )
    _predictions(dataset, graphs, parts, predicted).to_csv(
        folder / "predictions.csv", float_format="%.5f"
    )
    summary = {
        **identity,
        "data": dataset.name,
        "label_source": dataset.label_source,
        "rows": {name: len(parts[name]) for name in ("train", "valid", "test")},
        "left_out": refused,
        **outcome,
        "versions": {name: version(name) for name in ("torch", "torch-geometric", "lightning")},
        "threads": torch.get_num_threads(),
    }
    (folder / "summary.yaml").write_text(yaml.safe_dump(summary, sort_keys=False))
    for name in (engine.LAST, engine.BEST):
        (folder / name).unlink(missing_ok=True)
    return run


@lru_cache(maxsize=2)
def graphs_of(dataset: Dataset, config: GraphConfig) -> GraphDataset:
    """The graphs of all rows, kept in the user's cache folder, and for the next run in memory.

    Starting structures in which atoms lie in each other are left out: placed by a recipe, some
    dopants are too large for their site.
    """
    return load_graphs(
        dataset.records,
        dataset.hosts,
        config,
        cache=data_folder() / "graphs",
        skip=config.positions == "unrelaxed",
    )


def left_out(dataset: Dataset, graphs: GraphDataset, config: GraphConfig) -> dict[str, str]:
    """Why rows of the data have no graph, a sentence by uid."""
    found = {}
    for uid in sorted(set(dataset.frame.index) - set(graphs.uids)):
        record = dataset[uid]
        try:
            build_graph(record, config, dataset.hosts[record.host])
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


def split_fingerprint(split: Split) -> str:
    """SHA-256 over the ids of every part."""
    parts = [split.train, split.valid, split.test, split.calibration]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _claim(folder: Path, config: RunConfig, identity: dict) -> None:
    """Mark the folder as this run's; DefectkitError where it is another one's."""
    mark, settings = folder / "run.json", folder / "config.yaml"
    if mark.is_file():
        if json.loads(mark.read_text()) != identity or load_config(settings) != config:
            raise DefectkitError(
                f"{folder} holds another run (other settings, data or seed); name another folder "
                "or remove this one."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, settings)
    mark.write_text(json.dumps(identity, indent=1))


def _some(uids: list[str], n: int, seed: int) -> list[str]:
    """`n` of them at random; a larger n contains the rows of a smaller one."""
    if n > len(uids):
        raise DefectkitError(f"train_rows is {n}; there are {len(uids)} training rows.")
    order = np.random.default_rng(seed).permutation(len(uids))[:n]
    return [uids[k] for k in order]


def _train_network(
    config, dataset, graphs, parts, identity, folder, seed, progress, other_labels, callbacks
):
    engine.pl.seed_everything(seed, verbose=False)
    training = _training_graphs(config, dataset, graphs, parts["train"])
    eform, spin = _range(training.tensors["y_eform"]), _range(training.tensors["y_spin"].abs())
    model = new_model(config, training, dataset.label_source, other_labels)
    collate = _Augmented(config, dataset, training) if config.augment else training.batch
    valid = parts["valid"]
    outcome = engine.fit(
        model,
        config,
        (len(training), collate),
        (len(valid), lambda numbers: graphs.batch([valid[k] for k in numbers])),
        eform,
        seed,
        folder,
        progress,
        callbacks,
    )
    card = ModelCard(
        config.model,
        config.graph,
        config.features,
        dataset.name,
        dataset.label_source,
        identity["data_fingerprint"],
        identity["split_fingerprint"],
        eform,
        spin,
    )
    save_model(folder, model, card)
    outcome["parameters"] = sum(p.numel() for p in model.parameters())
    return predict(model, graphs, parts["valid"] + parts["test"]), outcome


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
        if card.model != config.model or card.features != config.features:
            raise DefectkitError(
                f"{config.start} holds {card.model}, not the {config.model} of this "
                "configuration; take over its settings."
            )
        return model
    table = feature_table(config.features)
    table = Standardizer.fit(table, training.tensors["z"].numpy())(table)
    features = torch.tensor(table.values, dtype=torch.float32)
    model = build_model(config.model.name, features, config.graph, **config.model.settings)
    model.heads.fit(training.tensors["y_eform"], training.tensors["y_spin"].abs())
    return model


class _Augmented:
    """Numbers of training rows -> a batch of newly transformed structures.

    A transform that leaves no valid structure leaves the row as it was. The random numbers come
    from torch's generator, which the engine seeds at the start of every epoch.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, training: GraphDataset):
        transforms = {
            "pad": augment.OrUnchanged(augment.PadSupercell(dataset.hosts)),
            "noise": augment.OrUnchanged(augment.CoordinateNoise()),
            "strain": augment.OrUnchanged(augment.AffineStrain()),
            "partly-relaxed": augment.OrUnchanged(augment.PartlyRelaxed()),
            "elastic": augment.OrUnchanged(augment.ElasticField()),
        }
        self.transform = augment.Compose(tuple(transforms[name] for name in config.augment))
        self.config, self.dataset, self.training = config.graph, dataset, training

    def __call__(self, numbers: list[int]) -> Batch:
        return Batch.from_data_list([self._one(number) for number in numbers])

    def _one(self, number: int):
        record = self.dataset[self.training.uids[number]]
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        try:
            changed = self.transform(record, rng)
            return build_graph(changed, self.config, self.dataset.hosts[record.host])
        except DefectkitError:
            return self.training[number]


def fit_table(
    config: RunConfig, dataset: Dataset, graphs: GraphDataset, uids: Sequence[str], seed: int
) -> TabularModel:
    """A model of `tabular.models.TABULAR`, fitted to the rows `uids`."""
    rows = [graphs.uids[k] for k in graphs.select(uids)]
    labels = dataset.frame.loc[rows]
    model = TabularModel(config.model.name, seed=seed, **config.model.settings)
    table = _table(config.model.name, dataset, graphs).loc[rows]
    return model.fit(table, labels.eform, labels.spin.abs())


def _train_table(config, dataset, graphs, parts, seed):
    table = _table(config.model.name, dataset, graphs)
    begin = time.perf_counter()
    model = fit_table(config, dataset, graphs, [graphs.uids[k] for k in parts["train"]], seed)
    seconds = time.perf_counter() - begin
    rest = [graphs.uids[k] for k in parts["valid"] + parts["test"]]
    return model.predict(table.loc[rest]), {"train_s_per_epoch": seconds, "parameters": 0}


@lru_cache(maxsize=2)
def _table(name: str, dataset: Dataset, graphs: GraphDataset) -> pd.DataFrame:
    """The table of all graphs, for the next run as well."""
    return table_for(name, graphs, dataset.frame)


def _predictions(dataset, graphs, parts, predicted: pd.DataFrame) -> pd.DataFrame:
    """Labels beside predictions, with the part that each row belongs to."""
    part = {graphs.uids[k]: name for name in ("valid", "test") for k in parts[name]}
    table = dataset.frame.loc[predicted.index, ["eform", "spin"]].assign(
        spin=lambda frame: frame.spin.abs(),
        eform_pred=predicted.eform,
        spin_pred=predicted.spin,
    )
    table.insert(0, "part", [part[uid] for uid in table.index])
    return table


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefectkitError(f"{path} is missing; {path.parent} is no finished run.") from error
