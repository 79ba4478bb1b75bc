"""Training: from prepared data to a run folder with everything that comes out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.graphs.dataset import GraphDataset
from defectkit.graphs.elements import Standardizer, feature_table
from defectkit.models import build_model
from defectkit.models.outline import library_message
from defectkit.models.tabular.models import TABULAR
from defectkit.structures.writing import atomic, write_text
from defectkit.training import engine
from defectkit.training.config import RunConfig, text_of
from defectkit.training.inference import (
    CARD,
    WEIGHTS,
    ModelCard,
    check_labels,
    load_model,
    predict,
    save_model,
)
from defectkit.training.prepared import (
    REASON,
    REFUSED,
    TABLE_FAULTS,
    Augmented,
    Prepared,
    check_config,
    check_data,
    check_rows,
    fit_table,
)
from defectkit.training.run import (
    LAST,
    PARTS,
    PREDICTIONS,
    SETTINGS,
    SUMMARY,
    Run,
    claim,
    clear,
    held,
    same,
)

STATE = (LAST, engine.BEST)
FILES = (SUMMARY, *STATE, PREDICTIONS, WEIGHTS, CARD, engine.METRICS, engine.TENSORBOARD, SETTINGS)


def train(
    prepared: Prepared,
    folder: Path,
    seed: int = 0,
    progress: bool = True,
    other_labels: bool = False,
    callbacks: tuple[engine.Callback, ...] = (),
) -> Run:
    """Train on the training rows of `prepared` and write the run folder.

    A folder that holds a finished run is returned as it is; an interrupted one is resumed. Either
    must have been made with the same configuration, data and seed.

    Args:
        prepared: the configuration with its data.
        folder: the run folder, made where it is missing.
        seed: of everything drawn at random.
        progress: whether a bar is shown.
        other_labels: whether a starting model may have been trained on another label source.
        callbacks: further ones of Lightning.

    Raises DefectkitError, before a graph is built, for settings that do not fit each other, the
    data or the model to start from, a split of other data, or a folder that holds another run or
    is in use; later for a training that diverges, which leaves no folder behind.
    """
    config, dataset, split = prepared.config, prepared.dataset, prepared.split
    folder = Path(folder)
    identity = prepared.identity(seed)
    if split.fingerprint != dataset.fingerprint:
        raise DefectkitError("The split was made for other data; make one for these.")
    dataset.need_labels("training")
    run = Run(folder)
    if run.finished and same(folder, config, identity):
        _remove_state(folder)
        return run
    check_config(config, seed)
    check_data(config, dataset, other_labels)
    check_rows(prepared.labels(split.train), prepared.labels(split.valid))
    with held(folder), _claimed(folder, config, identity):
        if not run.finished:
            _fill(folder, prepared, seed, other_labels, _bars(progress, callbacks))
        _remove_state(folder)
    return run


def _bars(progress: bool, callbacks: tuple[engine.Callback, ...]) -> tuple[engine.Callback, ...]:
    return (engine.EpochBar(), *callbacks) if progress else callbacks


def _fill(
    folder: Path,
    prepared: Prepared,
    seed: int,
    other_labels: bool,
    callbacks: tuple[engine.Callback, ...],
) -> None:
    """Train, and write everything into the folder."""
    # Rows without a graph drop out, and too few may be left.
    check_rows(*(prepared.labels(prepared.uids(name)) for name in ("train", "valid")))
    if prepared.config.model.name in TABULAR:
        predicted, outcome = _train_table(prepared, seed)
    else:
        predicted, outcome = _train_network(folder, prepared, seed, other_labels, callbacks)
    with atomic(folder / PREDICTIONS) as part:
        _beside_labels(prepared, predicted).to_csv(part, float_format="%.5f")
    summary = {
        **prepared.identity(seed),
        "data": prepared.dataset.name,
        "label_source": prepared.dataset.label_source,
        "rows": {name: len(numbers) for name, numbers in prepared.parts.items()},
        **_further_rows(prepared),
        "left_out": prepared.left_out,
        **outcome,
        "versions": {name: version(name) for name in ("torch", "torch-geometric", "lightning")},
        "threads": torch.get_num_threads(),
    }
    write_text(folder / SUMMARY, text_of(summary))


def _further_rows(prepared: Prepared) -> dict:
    """What the summary tells of rows beside those of the split."""
    if (further := prepared.further) is None:
        return {}
    rows = {"train": len(further.train), "valid": len(further.valid)}
    return {"further": {"data_fingerprint": further.dataset.fingerprint, "rows": rows}}


def _train_network(
    folder: Path,
    prepared: Prepared,
    seed: int,
    other_labels: bool,
    callbacks: tuple[engine.Callback, ...],
) -> tuple[pd.DataFrame, dict]:
    """Predictions for all rows not trained on, and what the summary reports of the training."""
    config, dataset, parts = prepared.config, prepared.dataset, prepared.parts
    engine.pl.seed_everything(seed, verbose=False)
    training = prepared.training_graphs()
    eform, spin = _range(training.tensors["y_eform"]), _range(training.tensors["y_spin"].abs())
    model = new_model(config, training, dataset.label_source, other_labels)
    collate = training.batch
    if config.augment:
        collate = Augmented(config, dataset, training, len(parts["train"]), seed)
        callbacks = (collate, *callbacks)
    valid = engine.Part(
        len(parts["valid"]),
        lambda numbers: prepared.graphs.batch([parts["valid"][k] for k in numbers]),
    )
    train = engine.Part(len(training), collate)
    outcome = engine.fit(model, config, (train, valid), eform, seed, folder, callbacks)
    if config.augment:
        outcome["augment"] = collate.tally
        _report_augmentation(collate.tally)
    identity = prepared.identity(seed)
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
        config.data.target,
    )
    save_model(folder, model, card)
    outcome["parameters"] = sum(p.numel() for p in model.parameters())
    outcome["structures"] = len(training)
    predicted = predict(model, prepared.graphs, parts["valid"] + parts["test"])
    return predicted if spin else predicted.assign(spin=np.nan), outcome


def _train_table(prepared: Prepared, seed: int) -> tuple[pd.DataFrame, dict]:
    """The same for a model of `tabular.models.TABULAR`."""
    table = prepared.table()
    begin = time.perf_counter()
    try:
        model = fit_table(prepared, prepared.uids("train"), seed)
    except TABLE_FAULTS as error:
        name = prepared.config.model.name
        raise DefectkitError(f"{name} cannot learn: {library_message(error)}.") from error
    seconds = time.perf_counter() - begin
    predicted = model.predict(table.loc[prepared.uids(*PARTS)])
    return predicted, {"train_s_per_epoch": seconds, "parameters": 0}


def _beside_labels(prepared: Prepared, predicted: pd.DataFrame) -> pd.DataFrame:
    """Labels beside predictions, with the part that each row belongs to."""
    part = {uid: name for name in PARTS for uid in prepared.uids(name)}
    table = prepared.labels(predicted.index).assign(
        spin=lambda frame: frame.spin.abs(),
        eform_pred=predicted.eform,
        spin_pred=predicted.spin,
    )
    table.insert(0, "part", [part[uid] for uid in table.index])
    return table


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
    seen = training.tensors["z"]
    if config.graph.nodes == "defects":  # where the host's elements stand at its missing atoms only
        seen = torch.cat([seen, training.tensors["original_z"]])
    table = Standardizer.fit(table, seen.numpy())(table)
    features = torch.tensor(table.values, dtype=torch.float32)
    model = build_model(config.model.name, features, config.graph, **config.model.settings)
    if hasattr(model, "fit"):
        model.fit(training.batch(range(len(training))))
    else:
        model.heads.fit(training.tensors["y_eform"], training.tensors["y_spin"].abs())
    return model


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


def _remove_state(folder: Path) -> None:
    """Remove what only an unfinished run needs; a finished one may lie where nobody can write."""
    for name in STATE:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _report_augmentation(tally: dict[str, dict]) -> None:
    """Say what augmentation left as it was."""
    for name, found in tally.items():
        if found[REFUSED]:
            tqdm.write(
                f"augment: '{name}' passed over {found[REFUSED]:,} structures drawn. "
                f"{found[REASON]}"
            )


def _range(values: Tensor) -> tuple[float, float] | None:
    """Lowest and highest of the labels that are known; None where none is."""
    known = values[~values.isnan()]
    return (float(known.min()), float(known.max())) if len(known) else None
