"""What a configuration is trained on: the cleaned rows, their split, their graphs, augmentation.

What is certain to go wrong is refused before a graph is built, in one sentence.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightgbm.basic import LightGBMError
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.data.further import Further
from defectkit.data.sources import CHECKOUT_DATA, SOURCES, data_folder
from defectkit.data.splits import Split, make_split, structure_groups
from defectkit.data.starts import STARTS
from defectkit.graphs.build import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.dataset import GraphDataset, host_of, load_graphs
from defectkit.graphs.elements import feature_table
from defectkit.models import MODELS
from defectkit.models.outline import MISFIT, all_settings, check_settings, library_message, shapes
from defectkit.models.tabular.features import COMPOSITION
from defectkit.models.tabular.models import READS, TABULAR, TabularModel, table_for
from defectkit.models.tabular.sparse import COUNTS
from defectkit.structures import transforms
from defectkit.structures.names import one_line
from defectkit.structures.record import DefectRecord
from defectkit.training.config import MAX_SEED, ModelConfig, RunConfig
from defectkit.training.inference import ModelCard, check_labels, load_model
from defectkit.training.run import LABELS, PARTS, Run

CHANGED, REFUSED, REASON = "changed", "refused", "first_reason"
TABLE_FAULTS = (*MISFIT, LightGBMError)
LEAST_ROWS = 2  # one has no spread to normalise with


@dataclass(frozen=True, eq=False)
class Prepared:
    """A configuration with its data: rows, split, and the graphs of both.

    Graphs are built, or read from the user's cache folder, when they are first used.

    Attributes:
        config: of the run.
        dataset: cleaned rows.
        split: of these rows.
    """

    config: RunConfig
    dataset: Dataset
    split: Split

    @cached_property
    def graphs(self) -> GraphDataset:
        """The graphs of all rows of which there is one, with the labels of the target."""
        return self._labelled(graphs_of(self.dataset, self.config.graph), self.dataset)

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Why rows have no graph, a sentence by uid."""
        found = {}
        for uid in sorted(set(self.dataset.frame.index) - set(self.graphs.uids)):
            record = self.dataset[uid]
            try:
                build_graph(record, self.config.graph, host_of(record, self.dataset.hosts))
            except DefectkitError as error:
                found[uid] = str(error)
        return found

    @cached_property
    def parts(self) -> dict[str, list[int]]:
        """Numbers of the graphs of "train", "valid" and "test"."""
        chosen = {"train": training_rows(self.config, self.split, self.left_out)}
        chosen |= {name: getattr(self.split, name) for name in PARTS}
        return {name: self.graphs.select(uids) for name, uids in chosen.items()}

    def uids(self, *names: str) -> list[str]:
        """Ids of the rows of these parts that have a graph."""
        return [self.graphs.uids[k] for name in names for k in self.parts[name]]

    def labels(self, uids: Sequence[str], dataset: Dataset | None = None) -> pd.DataFrame:
        """Columns eform (eV), of the target that is learned, and spin (μB) of these rows.

        They are of `dataset` where it is given.
        """
        columns = [self.config.data.target, "spin"]
        frame = (dataset or self.dataset).frame
        return frame.loc[list(uids), columns].set_axis(LABELS, axis=1)

    @cached_property
    def further(self) -> Further | None:
        """The rows that `data.more` adds; None where it names none."""
        data = self.config.data
        if not data.more:
            return None
        return _further(self.dataset, self.split, data.name, data.more, data.rules)

    def training_graphs(self) -> GraphDataset:
        """The graphs to train on: of further rows, and in other positions, where there are any."""
        rows = [(self.dataset, self.uids("train"))]
        if (further := self.further) is not None:
            rows.append((further.dataset, further.train))
        configs = [self.config.graph]
        if self.config.also_unrelaxed:
            configs.append(replace(self.config.graph, positions="unrelaxed"))
        chosen = []
        for dataset, uids in rows:
            for config in configs:
                graphs = self._labelled(graphs_of(dataset, config), dataset)
                chosen += [graphs[k] for k in graphs.select(uids)]
        return GraphDataset.from_graphs(chosen)

    def _labelled(self, graphs: GraphDataset, dataset: Dataset) -> GraphDataset:
        if self.config.data.target == "eform":
            return graphs
        labels = self.labels(graphs.uids, dataset).eform.to_numpy(np.float32)
        return GraphDataset(graphs.uids, graphs.tensors | {"y_eform": torch.tensor(labels)})

    def table(self) -> pd.DataFrame:
        """The features of all rows for a model of `tabular.models.TABULAR`."""
        return _table(self.config.model.name, self.dataset, self.graphs)

    def identity(self, seed: int) -> dict[str, int | str]:
        """What a run or a search with this seed is made of, beside its configuration."""
        return {
            "seed": seed,
            "data_fingerprint": self.dataset.fingerprint,
            "split_fingerprint": split_fingerprint(self.split),
        }


def prepare(config: RunConfig) -> Prepared:
    """The cleaned data of a configuration, kept in memory for the next run on them, and its split.

    Raises DefectkitError, before data are read, for a configuration that none could train.
    """
    check_config(config)
    data = config.data
    dataset, groups = _cleaned(data.name, data.path, data.rules)
    return Prepared(config, dataset, make_split(dataset, **asdict(data.split), groups=groups))


@lru_cache(maxsize=2)
def _cleaned(name: str, path: str | None, rules: str) -> tuple[Dataset, pd.Series]:
    """The data and their structure groups."""
    whole = load(name, Path(path) if path else None)
    whole.need_labels("training")
    dataset = clean(whole, rules).dataset
    return dataset, structure_groups(dataset, data_folder() / "groups")


@lru_cache(maxsize=2)
def _further(
    dataset: Dataset, split: Split, name: str, files: tuple[str, ...], rules: str
) -> Further | None:
    """Rows of files beside the bundled data, or at a path, in the form of the data `name`.

    None where all of them are held out, or in the data already.
    """
    rows = []
    for file in files:
        place = Path(file) if Path(file).exists() else CHECKOUT_DATA / file
        try:
            further = load(name, place) if name in SOURCES else load(place)
        except DefectkitError as error:
            raise DefectkitError(
                f"data.more: {error} Set data.more=[] to learn from {name} alone."
            ) from error
        rows.append(clean(further, rules).dataset)
    tests = load(name, STARTS) if name == "demo" and STARTS.exists() else None
    cache = data_folder() / "groups"
    found = Further.of(rows, dataset, split.train, split.seed, tests, cache)
    return found if found.train or found.valid else None


@lru_cache(maxsize=4)
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


def training_rows(config: RunConfig, split: Split, refused: Collection[str]) -> list[str]:
    """Uids of the rows that a run learns from.

    Args:
        config: of the run; `data.train_rows` of the training rows are drawn.
        split: of its data.
        refused: uids without a graph (`Prepared.left_out`).
    """
    uids = [uid for uid in split.train if uid not in refused]
    return _drawn(uids, config.data.train_rows, split.seed) if config.data.train_rows else uids


def _drawn(uids: list[str], n: int, seed: int) -> list[str]:
    """`n` of the uids, drawn at random; a larger n contains the rows of a smaller one."""
    if n > len(uids):
        raise DefectkitError(f"train_rows is {n}; there are {len(uids)} training rows.")
    order = np.random.default_rng(seed).permutation(len(uids))[:n]
    return [uids[k] for k in order]


def learned_from(run: Run) -> tuple[Dataset, list[str]]:
    """The data of a finished run, and the uids of the rows that it was trained on.

    Raises DefectkitError where the data or the split at hand are not those of the run.
    """
    prepared = prepare(run.config)
    dataset, split = prepared.dataset, prepared.split
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


def fit_table(prepared: Prepared, uids: Sequence[str], seed: int) -> TabularModel:
    """A model of `tabular.models.TABULAR`, fitted to those rows of `uids` that have a graph.

    And to further rows, where the configuration names some.
    """
    config, graphs, further = prepared.config.model, prepared.graphs, prepared.further
    rows = [graphs.uids[k] for k in graphs.select(uids)]
    table, labels = prepared.table().loc[rows], prepared.labels(rows)
    if further is not None:
        graphs = graphs_of(further.dataset, prepared.config.graph)
        rows = [graphs.uids[k] for k in graphs.select(further.train)]
        table = pd.concat([table, _table(config.name, further.dataset, graphs).loc[rows]])
        labels = pd.concat([labels, prepared.labels(rows, further.dataset)])
    # An energy grows with the number of sites, a gap does not.
    by_site = prepared.config.graph.nodes == "defects" and prepared.config.data.target == "eform"
    model = TabularModel(config.name, seed=seed, by_site=by_site, **config.settings)
    return model.fit(table, labels.eform, labels.spin.abs())


@lru_cache(maxsize=2)
def _table(name: str, dataset: Dataset, graphs: GraphDataset) -> pd.DataFrame:
    """The table of all graphs, kept in memory for the next run."""
    return table_for(name, graphs, dataset.frame)


class Augmented(Callback):
    """Numbers of training structures -> a batch of newly transformed ones.

    A transform that refuses a structure, because its label would not be kept or because the
    record lacks what the transform needs, passes it on as it was. What a structure is drawn to
    be depends on the seed, the epoch and its number alone.

    Args:
        config: of the run.
        dataset: where the records are.
        training: their graphs, relaxed ones first where `config.also_unrelaxed`.
        relaxed: how many of these have the positions that `config.graph` names.
        seed: of the draws.

    Attributes:
        tally: by transform, how many draws changed a structure, how many were refused, and why
            the first one was; "graph" counts transformed structures of which no graph could be
            built.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        training: GraphDataset,
        relaxed: int,
        seed: int,
    ):
        every = {
            "pad": transforms.PadSupercell(dataset.hosts),
            "noise": transforms.CoordinateNoise(),
            "strain": transforms.AffineStrain(),
            "partly-relaxed": transforms.PartlyRelaxed(),
            "elastic": transforms.ElasticField(),
        }
        self.transforms = {name: every[name] for name in config.augment}
        self.config, self.dataset, self.training = config.graph, dataset, training
        self.relaxed, self.seed = relaxed, seed
        self.tally = {
            name: {CHANGED: 0, REFUSED: 0, REASON: ""} for name in [*config.augment, "graph"]
        }

    def __call__(self, numbers: list[int]) -> Batch:
        """The batch of these numbers."""
        return Batch.from_data_list([self._transformed(number) for number in numbers])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the trainer, which knows the epoch."""
        self.trainer = trainer

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A transform that changes nothing at all is a wrong setting."""
        for name, found in self.tally.items():
            enough = found[REFUSED] >= len(self.training)
            if name in self.transforms and enough and not found[CHANGED]:
                raise DefectkitError(
                    f"augment '{name}' left every training structure as it was. {found[REASON]} "
                    f"Leave '{name}' out of augment."
                )

    def state_dict(self) -> dict:
        """The tally so far."""
        return {"tally": self.tally}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take the tally of the run that is resumed."""
        self.tally = state_dict["tally"]

    def _transformed(self, number: int) -> CrystalGraph:
        record = self.dataset[self.training.uids[number]]
        rng = np.random.default_rng([self.seed, self.trainer.current_epoch, number])
        for name, transform in self.transforms.items():
            try:
                changed = transform(record, rng)
            except DefectkitError as error:
                self._refuse(name, error)
            else:
                self.tally[name][CHANGED] += _differ(record, changed)
                record = changed
        config = self.config
        if number >= self.relaxed:
            config = replace(config, positions="unrelaxed")
        try:
            graph = build_graph(record, config, self.dataset.hosts[record.host])
        except DefectkitError as error:
            self._refuse("graph", error)
            return self.training[number]
        self.tally["graph"][CHANGED] += 1
        return graph

    def _refuse(self, name: str, error: DefectkitError) -> None:
        found = self.tally[name]
        found[REFUSED] += 1
        found[REASON] = found[REASON] or str(error)


def _differ(before: DefectRecord, after: DefectRecord) -> bool:
    """Whether a transform did anything."""
    if len(before.atoms) != len(after.atoms):
        return True
    return not (
        np.array_equal(before.atoms.positions, after.atoms.positions)
        and np.array_equal(before.atoms.cell.array, after.atoms.cell.array)
    )


def check_config(config: RunConfig, seed: int = 0) -> None:
    """Refuse a configuration that no data could be trained with.

    Raises DefectkitError, naming the setting, for an unknown model, setting or group of features,
    settings that do not fit each other, or a seed that is none.
    """
    if not 0 <= seed <= MAX_SEED:
        raise DefectkitError(f"The seed is {seed}; it should lie from 0 to {MAX_SEED:,}.")
    name = config.model.name
    if name in TABULAR:
        _check_table_model(config)
    elif name in MODELS:
        width = feature_table(config.features).values.shape
        shapes(name, width, config.graph, config.model.settings)
    else:
        raise DefectkitError(
            f"No model is called '{one_line(name)}'; choose from {', '.join([*MODELS, *TABULAR])}."
        )


def check_data(config: RunConfig, dataset: Dataset, other_labels: bool) -> None:
    """Refuse what these data, or the model to start from, cannot give.

    Args:
        config: of the run.
        dataset: the rows to train on.
        other_labels: whether a model to start from may have learned from other labels.
    """
    if config.start:
        card = load_model(config.start)[1]
        _check_start(config, card)
        if not other_labels:
            check_labels(card, dataset.label_source)
    target = config.data.target
    if dataset.frame[target].isna().all():
        raise DefectkitError(
            f"data.target is {target}, and no row of {dataset.name} has one; learn eform instead."
        )
    needs = {
        "graph.positions 'unrelaxed'": config.graph.positions == "unrelaxed",
        "also_unrelaxed": config.also_unrelaxed,
        "augment 'partly-relaxed'": "partly-relaxed" in config.augment,
    }
    for setting in (name for name, needed in needs.items() if needed):
        if all(record.unrelaxed is None for record in dataset.records):
            raise DefectkitError(
                f"{setting} needs the positions before relaxation, and no structure of "
                f"{dataset.name} has them; leave it out or add them to the data."
            )
    if "elastic" in config.augment and not any(
        record.defect_positions is not None and len(record.defect_positions)
        for record in dataset.records
    ):
        raise DefectkitError(
            f"augment 'elastic' needs to know where the defects are, and no structure of "
            f"{dataset.name} says so; leave it out."
        )


def check_rows(training: pd.DataFrame, valid: pd.DataFrame) -> None:
    """Refuse training or validation rows of which too few have a formation energy.

    Args:
        training: columns eform (eV) and spin (μB), indexed by uid.
        valid: likewise.
    """
    labels = pd.concat([training, valid])[["eform", "spin"]]
    endless = labels[np.isinf(labels).any(axis=1)]
    if len(endless):
        raise DefectkitError(
            f"{endless.index[0]}: its labels are {endless.iloc[0].to_dict()}; leave this row out."
        )
    known = int(training.eform.notna().sum())
    if known < LEAST_ROWS:
        raise DefectkitError(
            f"There are {known} training rows with a formation energy, too few to learn from "
            f"(at least {LEAST_ROWS}); add rows or make the other parts of the split smaller."
        )
    if not valid.eform.notna().any():
        raise DefectkitError(
            "There is no validation row with a formation energy, and the best epoch is chosen by "
            "them; add rows or choose another split."
        )


def _check_table_model(config: RunConfig) -> None:
    name, settings, graph = config.model.name, config.model.settings, config.graph
    check_settings(name, TABULAR[name], settings)
    of_sites, has_pairs = (
        graph.nodes == "defects",
        graph.all_pairs or graph.image_radius is not None,
    )
    if (READS.get(name) == COUNTS and not of_sites) or (of_sites and not has_pairs):
        raise DefectkitError(
            f"{name} {'reads pairs of' if of_sites else 'counts'} the sites of a defect; set "
            "GraphConfig(nodes='defects', all_pairs=True)."
        )
    if READS.get(name) == COUNTS:
        return  # it has no settings
    few = {"n_estimators": 1} if "n_estimators" in settings else {}
    rows = np.random.default_rng(0).normal(size=(20, 3))
    prefix = READS.get(name, COMPOSITION)
    table = pd.DataFrame(rows, columns=[f"{prefix}a", f"{prefix}b", "c"])
    try:
        TabularModel(name, **{**settings, **few}).fit(table, table.c, table.c)
    except TABLE_FAULTS as error:
        raise DefectkitError(
            f"The settings of {name} do not fit: {library_message(error)}."
        ) from error


def _check_start(config: RunConfig, card: ModelCard) -> None:
    """DefectkitError where the weights to start from belong to other settings.

    Positions may differ: a model of relaxed structures may go on with unrelaxed ones.
    """
    wanted = _flat(config.model, config.graph)
    wanted |= {"features": config.features, "data.target": config.data.target}
    graph = replace(card.graph, positions=config.graph.positions)
    trained = _flat(card.model, graph) | {"features": card.features, "data.target": card.target}
    differ = [name for name in trained | wanted if trained.get(name) != wanted.get(name)]
    if differ:
        each = ", ".join(
            f"{name} {_word(trained, name)} (here {_word(wanted, name)})" for name in differ
        )
        raise DefectkitError(
            f"start: {config.start} was trained with {each}; take over its settings or start "
            "elsewhere."
        )


def _flat(model: ModelConfig, graph: GraphConfig) -> dict[str, object]:
    """Values by dotted name."""
    return {
        "model.name": model.name,
        **{
            f"model.settings.{name}": value
            for name, value in all_settings(MODELS[model.name], model.settings).items()
        },
        **{f"graph.{name}": value for name, value in asdict(graph).items()},
    }


def _word(values: dict[str, object], name: str) -> str:
    value = values.get(name, "without it")
    return ", ".join(value) if isinstance(value, tuple) else str(value)
