"""What comes with the kit beside its data: trained runs and the tables of benchmarks."""

import pandas as pd

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.training.prepared import prepare
from defectkit.training.run import Run

ROOT = CHECKOUT_DATA.parent
CONFIGS = ROOT / "configs"
CHECKPOINTS = CHECKOUT_DATA / "checkpoints"
LADDER = CHECKOUT_DATA / "ladder"
BENCHMARKS = CHECKOUT_DATA / "benchmarks"
PUBLISHED = CHECKOUT_DATA / "published"
VECTORS = CHECKOUT_DATA / "vectors"


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


def ladder_runs(split: str, model: str) -> list[list[Run]]:
    """The runs of one step of the ladder of generalisation: by fold, all seeds of `model`.

    Args:
        split: kind of the split, such as "host".
        model: such as "hybrid".

    Raises DefectkitError where there are none.
    """
    folds: dict[str, list[Run]] = {}
    for folder in sorted(LADDER.glob(f"{split}-*-{model}-*")):
        run = Run(folder)
        if run.finished:
            folds.setdefault(folder.name.split("-")[1], []).append(run)
    if not folds:
        raise DefectkitError(
            f"There is no run of '{model}' on the {split} split in {LADDER}; "
            "`defectkit bench ladder` trains what is missing."
        )
    return list(folds.values())


def published_ladder() -> pd.DataFrame:
    """Public results on Imp2d: columns model, split, eform_mae (eV), and of ensembles more.

    Of the repository chimeraHHH/2d-defect-dast on GitHub, protocol v2: out of fold on 10,224 rows,
    labels DFT. `members` says how many networks were averaged where that is told,
    `eform_mae_single` the error of one of them. Other data, other labels and other training than
    the kit's own ladder, and in that no rivals of it.
    """
    return pd.read_csv(PUBLISHED / "imp2d_ladder.csv")


def published_2dmd() -> pd.DataFrame:
    """Published errors on 2DMD: columns target, subset, model, mae (eV by site), split, source.

    Kazeev et al., npj Comput. Mater. 9, 113 (2023). The rows of their test parts are not known, so
    `split` is "another split".
    """
    return pd.read_csv(PUBLISHED / "2dmd_mae.csv")


def published_janus() -> pd.DataFrame:
    """Gaps of Janus MXY monolayers, eV: columns formula, printed, gap (DFT), nine predictions.

    Sun and Yuan, Acta Phys. Sin. 72, 028901 (2023), table 4; the columns `rf`, `krr` and `svr` with
    `_magpie`, `_atom2vec` and `_atom_dl` are theirs. Three formulas are printed there with a letter
    twice (`printed`), and one row stands twice and once here. Two rows each of ZrSSe and ISSb are
    different phases.
    """
    return pd.read_csv(PUBLISHED / "janus_gaps.csv")


def read_vectors(name: str, seed: int = 0) -> pd.DataFrame:
    """Shipped vectors of the elements: a row a symbol, a column a dimension.

    Args:
        name: of a configuration in `configs/vectors`, such as "invented".
        seed: of the training.

    Raises DefectkitError where they are not there.
    """
    path = VECTORS / f"{name}-{seed}" / "vectors.csv"
    if not path.is_file():
        raise DefectkitError(f"{path} is missing; `defectkit bench corpora` learns it anew.")
    return pd.read_csv(path, index_col="element", keep_default_na=False)


def data_of(run: Run, dataset: Dataset) -> Dataset:
    """`dataset` if the run was trained on it, else the data that it was trained on, loaded."""
    if dataset.fingerprint == run.summary["data_fingerprint"]:
        return dataset
    return prepare(run.config).dataset


def about(run: Run, dataset: Dataset) -> str:
    """A sentence on whose rows and labels a shipped run knows: those of `dataset`, or others."""
    if dataset.fingerprint == run.summary["data_fingerprint"]:
        return f"The shipped models learned from these rows, labels {dataset.label_source}."
    name, source = run.summary["data"], run.summary["label_source"]
    return (
        f"No model of '{dataset.name}' is shipped: what follows of trained models is about the "
        f"rows of '{name}', labels {source}, and tells nothing about {dataset.label_source}."
    )


def benchmark(name: str) -> pd.DataFrame:
    """A table of `defectkit bench`, such as "models_demo"; DefectkitError where it is missing."""
    path = BENCHMARKS / f"{name}.csv"
    if not path.is_file():
        raise DefectkitError(f"{path} is missing; `defectkit bench` writes it.")
    return pd.read_csv(path)
