"""Finished runs side by side: the rows that they are judged on, their errors, and comparisons.

The runs may be of several models, seeds and splits on data with one label source. The first run
is the one that the others are compared with.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.evaluation.breakdown import described
from defectkit.evaluation.metrics import common_rows, compare, mean_interval, scores
from defectkit.training.config import to_dict
from defectkit.training.prepared import learned_from
from defectkit.training.run import Run

# Kind of split: what the test rows of a held-out group share. The bootstrap draws whole groups. A
# block is made of the pairs of its hosts and dopants; a split that holds out one host has one
# group and no interval.
UNITS = {
    "host": "host",
    "dopant": "dopant",
    "pair": "pair",
    "leave-one-host-out": "host",
    "leave-one-formula-out": "host",
    "leave-one-dopant-out": "dopant",
    "block": "pair",
}


@dataclass(frozen=True)
class Judged:
    """A run with its data.

    Attributes:
        run: finished.
        part: "test" or "valid".
        shared: uids that are judged; all rows of the part where it is not given.
    """

    run: Run
    part: str
    shared: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.folder.name

    @property
    def model(self) -> str:
        """Name of the folder without the seed."""
        return self.name.removesuffix(f"-{self.run.summary['seed']}")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Labels and predictions of the rows that are judged, by uid."""
        rows = self.run.part(self.part)
        return rows if self.shared is None else rows[rows.index.isin(self.shared)]

    @property
    def left_out(self) -> int:
        """How many rows of the part are not judged."""
        return len(self.run.part(self.part)) - len(self.rows)

    @cached_property
    def data(self) -> tuple[Dataset, list[str]]:
        """The cleaned data, and the uids that were learned from."""
        return learned_from(self.run)

    @property
    def dataset(self) -> Dataset:
        """The cleaned data."""
        return self.data[0]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Predictions with what is known about each row (`breakdown.described`)."""
        return described(self.rows, self.dataset.frame)

    @property
    def split(self) -> str:
        """The split in words."""
        split = self.run.config.data.split
        words = [split.kind, split.held_out, None if split.fold is None else f"fold {split.fold}"]
        return " ".join(str(word) for word in words if word is not None)

    @property
    def groups(self) -> pd.Series | None:
        """The held-out group of each row, by uid; None where single rows were held out."""
        unit = UNITS.get(self.run.config.data.split.kind)
        return self.table[unit] if unit else None

    def unit_groups(self, table: pd.DataFrame) -> pd.Series | None:
        """The held-out group of each unit of `metrics.choices`; None where it has no group."""
        unit = UNITS.get(self.run.config.data.split.kind)
        if unit not in table.index.names:
            return None
        return pd.Series(table.index.get_level_values(unit), table.index)


def judge(runs: Sequence[Run], part: str = "test") -> list[Judged]:
    """Finished runs side by side: those of one split on the rows that all of them predict.

    Not every model can read every structure, and an error without the hardest rows cannot be
    compared with one that includes them.

    Args:
        runs: finished ones.
        part: "test" or "valid".

    Raises DefectkitError where a run is not finished or labels are of different sources.
    """
    _check(runs)
    alike: dict[tuple, dict[str, pd.DataFrame]] = {}
    for run in runs:
        split = run.summary["data_fingerprint"], run.summary["split_fingerprint"]
        alike.setdefault(split, {})[str(run.folder)] = run.part(part)
    shared = {
        folder: frozenset(rows.index)
        for tables in alike.values()
        for folder, rows in common_rows(tables).items()
    }
    return [Judged(run, part, shared[str(run.folder)]) for run in runs]


def left_out_note(judged: Sequence[Judged]) -> str:
    """A sentence about rows that not all runs of a split predict; empty where there are none."""
    counts = {one.name: one.left_out for one in judged if one.left_out}
    if not counts:
        return ""
    words = ", ".join(f"{n} of {name}" for name, n in counts.items())
    return f"Left out are rows that not all runs of the split predict: {words}."


def metrics(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row a run: its errors, and its paired bootstrap against the first run.

    Intervals are drawn by held-out groups; `groups` is their number, empty where single rows were
    held out. The columns `difference`, `difference_lo` and `difference_hi` (eV) are empty where
    the rows are not those of the first run.
    """
    first, table = judged[0], []
    for one in judged:
        groups = one.groups
        row = {
            "run": one.name,
            "model": one.model,
            "seed": one.run.summary["seed"],
            "split": one.split,
            "rows": int(one.rows.eform.notna().sum()),
            "groups": None if groups is None else groups.nunique(),
            **scores(one.rows, groups=groups),
        }
        if one is not first and set(one.rows.index) == set(first.rows.index):
            row |= _difference(one.rows, first.rows, groups)
        table.append(row)
    return pd.DataFrame(table).astype({"groups": "Int64"})


def _check(runs: Sequence[Run]) -> None:
    for run in runs:
        run.check_finished()
    sources = {run.summary["label_source"] for run in runs}
    if len(sources) > 1:
        raise DefectkitError(
            f"The labels of these runs come from {' and '.join(sorted(sources))}, which cannot be "
            "compared; make a report for each."
        )


def by_model(judged: Iterable[Judged]) -> list[list[Judged]]:
    """Runs that differ by their seed alone; a run and its copy are no ensemble."""
    models: list[list[Judged]] = []
    for one in judged:
        for seeds in models:
            alike = seeds[0].run.config == one.run.config and seeds[0].model == one.model
            if alike and all(s.run.summary["seed"] != one.run.summary["seed"] for s in seeds):
                seeds.append(one)
                break
        else:
            models.append([one])
    return models


def errors_by_split(judged: Sequence[Judged], reference: str = "", seed: int = 0) -> pd.DataFrame:
    """A row a kind of split and model: the error over the rows of all its folds.

    The error of a row is its mean over seeds; the interval is drawn by what was held out. All
    models of a kind of split are judged on the rows that each of them predicts. For
    `plots.evaluation.ladder`. A model is what its settings say, wherever its folders lie; models
    of one kind with different settings go by the names of their folders.

    Args:
        judged: finished runs.
        reference: the model that the others are compared with on each split, if any; the columns
            `difference` (of the mean absolute errors, eV), `difference_lo` and `difference_hi`
            are of the paired bootstrap.
        seed: of the bootstrap.
    """
    alike: dict[tuple, list[Judged]] = {}
    for one in judged:
        settings = {**to_dict(one.run.config), "data": None}
        alike.setdefault((one.run.config.data.split.kind, json.dumps(settings)), []).append(one)
    names = {settings: runs[0].run.config.model.name for (_, settings), runs in alike.items()}
    shared = [name for name, n in Counter(names.values()).items() if n > 1]
    tables = {
        (kind, runs[0].model if names[settings] in shared else names[settings]): pd.concat(
            [one.table for one in runs]
        )
        for (kind, settings), runs in alike.items()
    }
    for kind in dict.fromkeys(kind for kind, _ in tables):
        tables |= common_rows({key: rows for key, rows in tables.items() if key[0] == kind})
    table = []
    for (kind, model), rows in tables.items():
        errors = rows.error.abs().groupby(level=0).mean()
        unit = UNITS.get(kind)
        groups = rows.loc[~rows.index.duplicated(), unit] if unit else None
        low, high = mean_interval(errors, groups, seed)
        row = {"split": kind, "model": model, "rows": len(errors)}
        row |= {"groups": None if groups is None else groups.nunique()}
        row |= {"eform_mae": errors.mean(), "eform_mae_lo": low, "eform_mae_hi": high}
        if reference and model != reference and (kind, reference) in tables:
            row |= _difference(rows, tables[kind, reference], groups, seed)
        table.append(row)
    return pd.DataFrame(table).astype({"groups": "Int64"})


def _difference(
    rows: pd.DataFrame, others: pd.DataFrame, groups: pd.Series | None, seed: int = 0
) -> dict[str, float]:
    """Paired bootstrap of the mean absolute errors (eV) of the same rows, as columns."""
    found = compare(rows, others, groups, seed)
    return {
        "difference": found["difference"],
        "difference_lo": found["lo"],
        "difference_hi": found["hi"],
    }
