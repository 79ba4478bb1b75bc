"""Errors of all models on 2DMD, subset by subset, for formation energy and gap.

models_2dmd      every model of `configs/2dmd/*.yaml`: one split, seeds 0 to 2.
intervals_2dmd   the shipped predictors: whether their intervals hold, kind by kind.

Runs are kept in `build/runs/2dmd` and made where they are missing, or resumed where they stopped.
A configuration whose `data.path` names a subset learns the energies of this subset alone, and is
judged on its test rows, which are the same as in the split of all subsets.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from defectkit import DefectkitError
from defectkit.bench.measure import OpenRun, shortest_ms
from defectkit.bench.models import timed
from defectkit.data.dataset import Dataset
from defectkit.data.sources import fetch
from defectkit.evaluation.metrics import common_rows, interval, resampled
from defectkit.models import MODELS
from defectkit.models.outline import all_settings
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.intervals import Conformal
from defectkit.training.config import DataConfig, ModelConfig, RunConfig, load_config, with_values
from defectkit.training.prepared import prepare
from defectkit.training.pretrained import CONFIGS, ROOT
from defectkit.training.run import Run
from defectkit.training.train import train

SEEDS = (0, 1, 2)
SLOW = ("alignn",)  # half an hour a network: the first seed alone
TARGETS = ("eform", "gap")
FOLDER = ROOT / "build" / "runs" / "2dmd"
COLUMNS = ["eform", "eform_pred"]
SHIPPED = {"eform": "sites", "gap": "sites-gap"}  # predictors by target
CONFIDENCE = 0.9
SAMPLE = 256  # structures that are timed together


@dataclass(frozen=True)
class Tested:
    """One model, or the mean of several, on test rows.

    Attributes:
        model: name of the configuration, and " x3" for a mean of three.
        target: "eform" or "gap".
        seed: of the training; None for a mean.
        n_train: rows that it learned from.
        rows: columns eform and eform_pred (eV; of the gap where this is the target), by uid.
        valid: those of the validation rows, which calibrate intervals.
        cost: train_s, infer_ms and n_params, of all members.
    """

    model: str
    target: str
    seed: int | None
    n_train: int
    rows: pd.DataFrame
    valid: pd.DataFrame
    cost: dict[str, float]


def model_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """Train what is missing and judge all: a row a target, subset, model and seed.

    A row "mean of 8" is over the subsets (fewer where the data have fewer), for models that were
    tested on all of them. Errors of formation energies are by site. Networks of several seeds have
    rows of the mean of their predictions, "sites x3". `coverage` is the share of labels in their
    90 % intervals, calibrated on the validation rows of all subsets.

    Args:
        seed: of the bootstrap.
        path: the folder of all subsets; where `defectkit data fetch` put it by default.
    """
    folder = place(path)
    dataset = whole(folder)
    table = []
    for target in TARGETS:
        tested = list(_tested(folder, target))
        table += _judged(tested + _means(tested), dataset, seed)
    frame = pd.DataFrame(table).assign(data_fingerprint=dataset.fingerprint)
    return frame.astype({"seed": "Int64"})


def interval_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """A row a target and subset: whether 90 % intervals of the shipped predictors hold test rows.

    `together` is their share where all validation rows calibrate one interval, `by_kind` as they
    are shipped (`intervals.ByKind`); `together_width` and `by_kind_width` are median widths (eV of
    the cell). Nothing is drawn: the seed is not used.
    """
    folder = place(path)
    table = []
    for target, name in SHIPPED.items():
        prepared = prepare(configured(CONFIGS / "2dmd" / "sites.yaml", folder, target))
        dataset, uids = prepared.dataset, prepared.uids("test")
        label, subset = prepared.labels(uids).eform, dataset.frame.subset.loc[uids]
        shipped = shipped_predictor(name)
        columns = {}
        for key, one in (("together", replace(shipped, hosts=None)), ("by_kind", shipped)):
            found = one([dataset[uid] for uid in uids], dataset.hosts, CONFIDENCE)
            low, high = found[f"{target}_lo"], found[f"{target}_hi"]
            columns[key] = label.between(low, high).groupby(subset).mean()
            columns[f"{key}_width"] = (high - low).groupby(subset).median()
        counts = {"target": target, "n_test": subset.value_counts()}
        table.append(pd.DataFrame(counts | columns).rename_axis("subset").reset_index())
    return pd.concat(table, ignore_index=True).round(4)


def place(path: Path | None) -> Path:
    """The folder of 2DMD: `path`, or where `defectkit data fetch` put it."""
    return Path(path) if path else fetch("2dmd")


def whole(folder: Path) -> Dataset:
    """All cleaned rows of 2DMD at a folder."""
    return prepare(RunConfig(ModelConfig("mean"), DataConfig("2dmd", str(folder)))).dataset


def _files() -> list[Path]:
    """The configurations; DefectkitError where the kit was installed without them."""
    files = sorted(CONFIGS.glob("2dmd/*.yaml"))
    if not files:
        raise DefectkitError(f"There are no configurations in {CONFIGS / '2dmd'}; run a checkout.")
    return files


def configured(file: Path, folder: Path, target: str) -> RunConfig:
    """A configuration on the data in a folder, for one target.

    A network with a setting `extensive` is told that a gap does not grow with the defect.
    """
    config = load_config(file)
    place = folder / config.data.path if config.data.path else folder
    changes = {"data.path": str(place), "data.target": target}
    network = MODELS.get(config.model.name)
    if target == "gap" and network and "extensive" in all_settings(network, {}):
        changes["model.settings.extensive"] = False
    return with_values(config, changes)


def _tested(folder: Path, target: str) -> Iterator[Tested]:
    """Every configuration and seed, trained where it is missing."""
    for file in _files():
        config = configured(file, folder, target)
        if load_config(file).data.path and target != TARGETS[0]:
            continue
        infer_ms = None
        for seed in SEEDS[:1] if file.stem in SLOW else SEEDS:
            run = train(prepare(config), FOLDER / f"{file.stem}-{target}-{seed}", seed)
            summary = run.summary
            if infer_ms is None:  # seeds do not change it
                infer_ms = _infer_ms(run)
            cost = {
                "train_s": summary["train_s_per_epoch"] * summary.get("epochs", 1),
                "infer_ms": infer_ms,
                "n_params": summary["parameters"],
            }
            test, valid = (run.part(name)[COLUMNS].dropna() for name in ("test", "valid"))
            yield Tested(file.stem, target, seed, summary["rows"]["train"], test, valid, cost)


def _infer_ms(run: Run) -> float:
    """Milliseconds a structure of the model alone, `SAMPLE` at a time, with one thread."""
    from threadpoolctl import threadpool_limits

    opened = OpenRun(run)
    uids = run.part("test").sample(frac=1.0, random_state=0).index[:SAMPLE]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), torch.no_grad():
            build, infer = timed(opened)
            together = build([opened.dataset[uid] for uid in uids])
            return shortest_ms(lambda: infer(together), len(uids))
    finally:
        torch.set_num_threads(threads)


def _means(tested: list[Tested]) -> list[Tested]:
    """For each network the mean of its seeds' predictions."""
    means = []
    for name in dict.fromkeys(one.model for one in tested if one.cost["n_params"]):
        members = [one for one in tested if one.model == name]
        if len(members) < 2:
            continue
        test, valid = (
            tables[0].assign(eform_pred=sum(table.eform_pred for table in tables) / len(tables))
            for tables in zip(*((one.rows, one.valid) for one in members))
        )
        cost = {key: sum(one.cost[key] for one in members) for key in members[0].cost}
        first = members[0]
        means.append(
            Tested(f"{name} x{len(members)}", first.target, None, first.n_train, test, valid, cost)
        )
    return means


def _judged(tested: list[Tested], dataset: Dataset, seed: int) -> list[dict]:
    """Rows of the table: in every subset, all models on the rows that each of them predicts."""
    subsets = dataset.frame.subset
    errors: dict[int, dict[str, pd.Series]] = {number: {} for number in range(len(tested))}
    inside = [_inside(one) for one in tested]
    for subset in sorted(set(subsets)):
        tables = {
            number: one.rows[subsets[one.rows.index].to_numpy() == subset]
            for number, one in enumerate(tested)
        }
        for number, rows in common_rows({k: t for k, t in tables.items() if len(t)}).items():
            error = (rows.eform_pred - rows.eform).abs()
            if tested[number].target == "eform":
                error /= n_sites(dataset.frame.loc[rows.index])
            errors[number][subset] = error
    return [
        {
            "task": "2dmd",
            "target": one.target,
            "subset": subset,
            "model": one.model,
            "seed": one.seed,
            "n_train": one.n_train,
            **{key: round(value, 5) for key, value in found.items()},
            "coverage": round(_share(held, by_subset, subset), 4),
            **{key: round(value, 4) for key, value in one.cost.items()},
        }
        for one, by_subset, held in zip(tested, errors.values(), inside)
        for subset, found in _errors(by_subset, subsets.nunique(), seed).items()
    ]


def _inside(one: Tested) -> pd.Series:
    """Whether the interval of each test row, calibrated on validation rows, holds its label."""
    half = Conformal.fit(one.valid).half_width(one.rows, CONFIDENCE)
    return (one.rows.eform_pred - one.rows.eform).abs() <= half


def _share(inside: pd.Series, by_subset: dict[str, pd.Series], subset: str) -> float:
    """Of the rows of a subset, or the mean of all subsets."""
    shares = {name: inside[rows.index].mean() for name, rows in by_subset.items()}
    return shares.get(subset, np.mean(list(shares.values())))


def _errors(
    by_subset: dict[str, pd.Series], n_subsets: int, seed: int
) -> dict[str, dict[str, float]]:
    """n_test, mae, mae_lo and mae_hi (eV) by subset, and of their mean where all are there."""
    values = {subset: error.to_numpy(float) for subset, error in by_subset.items()}
    found = {
        subset: _scores(len(error), error.mean(), interval(error, seed=seed))
        for subset, error in values.items()
    }
    if len(values) == n_subsets > 1:
        samples = tuple(values.values())
        bounds = resampled(samples, _mean_of_means, seed, paired=False)
        mean = _mean_of_means(*samples)
        found[f"mean of {n_subsets}"] = _scores(sum(map(len, samples)), mean, bounds)
    return found


def _mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean over samples of the mean of each."""
    return sum(sample.mean(axis=axis) for sample in samples) / len(samples)


def _scores(n: int, mae: float, bounds: tuple[float, float]) -> dict[str, float]:
    return {"n_test": n, "mae": float(mae), "mae_lo": bounds[0], "mae_hi": bounds[1]}


def n_sites(frame: pd.DataFrame) -> pd.Series:
    """How many sites of the host each defect takes: `removed` names the atom of each."""
    return frame.removed.str.count(",") + 1
