"""Rows of a second file, to learn from beside the training rows of a split, and leak nothing.

They may come from `demo build --starts-of` or `label`, or be a folder of one's own.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.data.splits import structure_groups

VALID_SHARE = 0.2  # of the further rows, to judge predictions on


@dataclass(frozen=True, eq=False)
class Further:
    """Rows beside those of a split.

    Attributes:
        dataset: of these rows, cleaned.
        train, valid: their uids. What shares a relaxed structure with a row that is held out
            elsewhere is in neither.
    """

    dataset: Dataset
    train: tuple[str, ...]
    valid: tuple[str, ...]

    @classmethod
    def of(
        cls,
        files: Sequence[Dataset],
        dataset: Dataset,
        training: Collection[str],
        seed: int,
        tests: Dataset | None = None,
        cache: Path | None = None,
    ) -> "Further":
        """Divide rows into those to learn from and those to validate with.

        Args:
            files: the further rows.
            dataset: the rows of the split.
            training: uids of those that are learned from; the others are held out.
            seed: of the draw.
            tests: rows of a third file that are held out as well.
            cache: a folder for `structure_groups`.

        Rows that `dataset` holds already, by their id, count once; a line says so. Raises
        DefectkitError where the rows are not of the same source, or one stands twice in the files.
        """
        for one in files:
            _check(one, dataset)
        every, known = [record for one in files for record in one.records], set(dataset.frame.index)
        records = [record for record in every if record.uid not in known]
        if again := len(every) - len(records):
            tqdm.write(f"data.more: {again} rows are in {dataset.name} already and count once.")
        hosts = {name: unit for one in files for name, unit in one.hosts.items()}
        more = replace(dataset, name="data.more", records=records, hosts=hosts | dataset.hosts)
        groups, own, *apart = groups_together(
            dataset, more, *([tests] if tests else []), cache=cache
        )
        learned = groups.index.isin(list(training))
        held = {*groups[~learned], *(group for one in apart for group in one)}
        own = own[~own.isin(held)]
        free = np.array(sorted(set(own) - set(groups[learned])))
        few = np.random.default_rng(seed).permutation(len(free))[: int(VALID_SHARE * len(free))]
        valid = own.isin(set(free[few]))
        return cls(more, tuple(own.index[~valid]), tuple(own.index[valid]))


def groups_together(
    dataset: Dataset, *others: Dataset, cache: Path | None = None
) -> list[pd.Series]:
    """`structure_groups` of several data sets, compared with each other: one by uid for each.

    Rows of different sets may have one uid.
    """
    records, hosts = list(dataset.records), dict(dataset.hosts)
    for number, other in enumerate(others):
        records += [replace(record, uid=f"{number} {record.uid}") for record in other.records]
        hosts = other.hosts | hosts
    groups = structure_groups(replace(dataset, records=records, hosts=hosts), cache)
    return [groups[dataset.frame.index]] + [
        groups[[f"{number} {uid}" for uid in other.frame.index]].set_axis(other.frame.index)
        for number, other in enumerate(others)
    ]


def _check(more: Dataset, dataset: Dataset) -> None:
    """DefectkitError where rows of both may not be learned from together."""
    if more.label_source != dataset.label_source:
        raise DefectkitError(
            f"data.more: it carries labels of {more.label_source} and {dataset.name} those of "
            f"{dataset.label_source}, whose zero and accuracy differ; give rows of one source."
        )
    for name in more.hosts.keys() & dataset.hosts.keys():
        first, second = more.hosts[name], dataset.hosts[name]
        if len(first) != len(second) or not np.allclose(first.cell, second.cell, atol=1e-3):
            raise DefectkitError(
                f"data.more has another {name} than {dataset.name}: the energies of their defects "
                "do not compare; compute both with one cell."
            )
