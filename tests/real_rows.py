"""A few rows of the complete 2DMD data, in its own layout."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


def some_rows(
    real_data: Path, parent: Path, counts: Mapping[str, int], always: Collection[str] = ()
) -> Path:
    """`parent` with so many rows of each subset, drawn at random, and those described as `always`.

    Skips where there are no data.
    """
    if not (real_data / "2dmd").is_dir():
        pytest.skip("the complete 2DMD data are not there")
    rng = np.random.default_rng(0)
    for subset, count in counts.items():
        source, folder = real_data / "2dmd" / subset, parent / subset
        folder.mkdir()
        tables = [pd.read_csv(source / f"{n}.csv.gz", dtype=str) for n in ("data", "targets")]
        drawn = rng.choice(len(tables[0]), count, replace=False)
        words = pd.read_csv(source / "descriptors.csv", index_col="_id").description
        wanted = tables[1].descriptor_id.map(words).isin(always).to_numpy()
        rows = np.union1d(drawn, np.flatnonzero(wanted))
        for name, table in zip(("data", "targets"), tables):
            table.iloc[rows].to_csv(folder / f"{name}.csv.gz", index=False)
        for file in (source / "descriptors.csv", *source.glob("*.cif")):
            shutil.copyfile(file, folder / file.name)
    for name in ("elements.csv", "initial_structures.csv"):
        shutil.copyfile(real_data / "2dmd" / name, parent / name)
    return parent
