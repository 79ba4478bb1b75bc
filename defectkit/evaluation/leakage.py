"""Data leakage: two ways to a small error that no new defect confirms, each beside the honest way.

A model that has seen a structure knows its energy. Copies of one structure must therefore lie on
one side of a split: the noisy ones that augmentation makes as well as those that data sets hold,
because relaxations from several starts ended in one minimum. In a trap copies are drawn one by
one; the honest protocol draws whole structures. Both test every row once, in five folds, so that
their errors can be compared row by row.

The model is LightGBM on the descriptors of `defectkit.models.tabular` with few trees: it trains in
seconds, and like any model flexible enough for this task it can learn rows by heart. How large
the false gain is depends on the model and on the number of rows.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.data.splits import FOLDS, structure_groups
from defectkit.evaluation.metrics import compare, mean_interval
from defectkit.graphs.build import GraphConfig
from defectkit.graphs.dataset import load_graphs
from defectkit.models.tabular.features import tabulate
from defectkit.models.tabular.models import TabularModel
from defectkit.structures import transforms

FEWEST = 2 * FOLDS  # structures
MODEL = {"name": "lightgbm", "n_estimators": 100, "learning_rate": 0.1}
GRAPHS = GraphConfig(angle_cutoff=None, all_pairs=False)  # all that a table of features needs
NOISE = transforms.Compose(
    (transforms.OrUnchanged(transforms.CoordinateNoise()), transforms.AffineStrain())
)

Folds = Iterator[tuple[pd.Index, pd.Index]]  # training and test uids


def augmentation_before_split(
    dataset: Dataset, n: int = 250, copies: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Augment, then split; against split, then augment the training rows alone.

    A copy has the label of its row, and Gaussian noise and a small strain of its own (`NOISE`),
    as in training. The honest protocol tests the rows as they are.

    Args:
        dataset: cleaned rows.
        n: rows that are drawn from it.
        copies: noisy copies of each.
        seed: of everything drawn at random.

    Returns:
        A row a protocol, the trap first: `protocol`, n_train and n_test rows (of one fold, and of
        all), eform_mae with its interval `lo` to `hi`, and `gain`, by how much it is smaller
        than the honest error, with `gain_lo` to `gain_hi`; all errors in eV. Intervals are
        bootstraps (95 %) by structures, the gain's is paired.

    Raises DefectkitError for fewer than two copies, or too few or too many rows.
    """
    labelled = dataset.frame.index[dataset.frame.eform.notna()]
    if copies < 2:
        raise DefectkitError(f"copies is {copies}; a leak needs at least two copies of a row.")
    if not FEWEST <= n <= len(labelled):
        raise DefectkitError(f"n is {n}; choose from {FEWEST} to {len(labelled)} rows.")
    rng = np.random.default_rng(seed)
    chosen = dataset.subset(rng.choice(labelled.to_numpy(), n, replace=False))
    noisy = [
        replace(NOISE(record, rng), uid=f"{record.uid}, copy {number}")
        for record in chosen.records
        for number in range(copies)
    ]
    graphs = load_graphs(chosen.records + noisy, dataset.hosts, GRAPHS)
    features = tabulate(graphs)
    rows = pd.Series(np.repeat(chosen.frame.index, copies), [copy.uid for copy in noisy])
    structures = structure_groups(chosen)
    return _compared(
        {
            "augment, then split": folds_by_row(rows.index, seed),
            "split, then augment": (
                (rows.index[rows.isin(train)], test)
                for train, test in folds_by_structure(structures, seed)
            ),
        },
        features,
        pd.concat([rows, pd.Series(structures.index, structures.index)]),
        chosen.frame.eform,
        structures,
        seed,
    )


def duplicates_in_split(
    dataset: Dataset, groups: pd.Series | None = None, seed: int = 0
) -> pd.DataFrame:
    """Split by rows against split by structures, on the rows that share their structure.

    These duplicates are the data's own: several starts that relaxed into one minimum. Rows
    without a twin are left out, so this is the gain in a set of twins; in a whole data set it is
    diluted by their share.

    Args:
        dataset: cleaned rows.
        groups: of `structure_groups`, to spare computing them again.
        seed: of everything drawn at random.

    Returns:
        As `augmentation_before_split`.

    Raises DefectkitError where fewer than `FEWEST` structures occur more than once.
    """
    groups = structure_groups(dataset) if groups is None else groups
    groups = groups.loc[dataset.frame.eform.dropna().index]
    twins = groups[groups.duplicated(keep=False)]
    if twins.nunique() < FEWEST:
        raise DefectkitError(
            f"{dataset.name} has {twins.nunique()} structures that occur more than once; at least "
            f"{FEWEST} are needed."
        )
    chosen = dataset.subset(twins.index)
    return _compared(
        {
            "split by rows": folds_by_row(twins.index, seed),
            "split by structures": folds_by_structure(twins, seed),
        },
        tabulate(load_graphs(chosen.records, dataset.hosts, GRAPHS)),
        pd.Series(twins.index, twins.index),
        chosen.frame.eform,
        twins,
        seed,
    )


def folds_by_row(uids: pd.Index, seed: int = 0) -> Folds:
    """Training and test uids of every fold, drawn one by one: the trap where rows have copies."""
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(uids):
        yield uids[train], uids[test]


def folds_by_structure(structures: pd.Series, seed: int = 0) -> Folds:
    """Training and test uids of every fold, no structure on both sides.

    Args:
        structures: id of the structure by uid.
        seed: of the draw.
    """
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(structures, groups=structures):
        yield structures.index[train], structures.index[test]


def _compared(
    protocols: dict[str, Folds],
    features: pd.DataFrame,
    rows: pd.Series,
    eform: pd.Series,
    structures: pd.Series,
    seed: int,
) -> pd.DataFrame:
    """The table of two protocols, the honest one last; `rows` is the row of each copy, by uid."""
    labels = rows.map(eform)
    unknown = labels * np.nan  # without labels for the moment only the energy is learned
    n_train, judged = {}, {}
    for name, folds in protocols.items():
        parts = []
        for train, test in folds:
            model = TabularModel(**MODEL, seed=seed).fit(features.loc[train], labels, unknown)
            parts.append(model.predict(features.loc[test]).eform)
        n_train[name], predicted = len(train), pd.concat(parts)
        table = pd.DataFrame({"eform": labels, "eform_pred": predicted}).loc[predicted.index]
        judged[name] = table.set_index(rows[table.index].to_numpy())
    honest = judged[name]
    found = []
    for name, table in judged.items():
        errors = (table.eform_pred - table.eform).abs()
        low, high = mean_interval(errors, structures, seed)
        gain = compare(honest, table, structures, seed)
        found.append(
            {
                "protocol": name,
                "n_train": n_train[name],
                "n_test": len(table),
                "eform_mae": errors.mean(),
                "lo": low,
                "hi": high,
                "gain": gain["difference"],
                "gain_lo": gain["lo"],
                "gain_hi": gain["hi"],
            }
        )
    return pd.DataFrame(found)
