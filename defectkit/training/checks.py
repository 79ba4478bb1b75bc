"""What can be known to go wrong before a graph is built is refused then, in one sentence."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from lightgbm.basic import LightGBMError

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.graphs.build import GraphConfig
from defectkit.graphs.elements import feature_table
from defectkit.models import MODELS
from defectkit.models.outline import MISFIT, all_settings, check_settings, library_message, shapes
from defectkit.models.tabular.features import COMPOSITION
from defectkit.models.tabular.models import READS, TABULAR, TabularModel
from defectkit.structures.names import one_line
from defectkit.training.config import MAX_SEED, ModelConfig, RunConfig
from defectkit.training.inference import ModelCard, check_labels, load_model

TABLE_FAULTS = (*MISFIT, LightGBMError)
LEAST_ROWS = 2  # one has no spread to normalise with


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
    name, settings = config.model.name, config.model.settings
    check_settings(name, TABULAR[name], settings)
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
    wanted = _flat(config.model, config.graph) | {"features": config.features}
    graph = replace(card.graph, positions=config.graph.positions)
    trained = _flat(card.model, graph) | {"features": card.features}
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
