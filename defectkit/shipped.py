"""What comes with the kit beside its data: trained runs and the tables of benchmarks."""

import pandas as pd

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.data.fetch import CHECKOUT_DATA
from defectkit.training.runs import Run, load_data

ROOT = CHECKOUT_DATA.parent
CONFIGS = ROOT / "configs"
CHECKPOINTS = CHECKOUT_DATA / "checkpoints"
BENCHMARKS = CHECKOUT_DATA / "benchmarks"


def shipped_run(name: str, seed: int = 0) -> Run:
    """The run of the configuration `name` on the demo data, trained with `seed`.

    Raises DefectkitError where it is not there.
    """
    run = Run(CHECKPOINTS / f"{name}-{seed}")
    if not run.finished:
        raise DefectkitError(
            f"There is no trained run '{name}' with seed {seed} in {CHECKPOINTS}; "
            "`defectkit bench models` trains what is missing."
        )
    return run


def data_of(run: Run, dataset: Dataset) -> Dataset:
    """`dataset` if the run was trained on it, else the data that it was trained on, loaded."""
    if dataset.fingerprint == run.summary["data_fingerprint"]:
        return dataset
    return load_data(run.config)[0]


def benchmark(name: str) -> pd.DataFrame:
    """A table of `defectkit bench`, such as "models_demo"; DefectkitError where it is missing."""
    path = BENCHMARKS / f"{name}.csv"
    if not path.is_file():
        raise DefectkitError(f"{path} is missing; `defectkit bench` writes it.")
    return pd.read_csv(path)
