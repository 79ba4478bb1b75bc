"""The ladder of generalisation on DFT labels: rows of 2DMD that are ever less like training.

ladder_2dmd   rows at random; combinations of changes, a density and a host never seen; and some
              rows of such a host, learned from scratch or from a network of the other hosts.

Trains what is missing into `build/runs/2dmd/`, with one thread a run, and goes on where it was
interrupted.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from defectkit.bench.real import CONFIDENCE, FOLDER, SEEDS, configured, n_sites, place, whole
from defectkit.bench.studies import train_all
from defectkit.evaluation.metrics import common_rows, group_interval, resampled
from defectkit.predict.intervals import Conformal
from defectkit.structures.hosts import hosts_2dmd
from defectkit.training.config import RunConfig, with_values
from defectkit.training.prepared import prepare
from defectkit.training.pretrained import CONFIGS
from defectkit.training.run import Run
from defectkit.training.train import train

NETWORK = "sites"
MODELS = {NETWORK: SEEDS, "pairs": SEEDS[:1], "lightgbm": SEEDS}  # pairs: a fit without chance
FORMULAS = tuple(sorted(hosts_2dmd()))
# By step the kind of the split, what is held out, one after the other, and the seeds: hosts differ
# by far more than seeds do.
STEPS: dict[str, tuple[str, list[dict], tuple[int, ...]]] = {
    "random": ("subset", [{}], SEEDS),
    "combination": ("combination", [{"fold": 0}], SEEDS),
    "density": ("leave-one-density-out", [{"held_out": "high"}], SEEDS),
    "host": ("leave-one-formula-out", [{"held_out": formula} for formula in FORMULAS], SEEDS[:1]),
}
FEW_SHOT = {"GaSe": "high_GaSe", "BN": "high_BN"}  # an easy host, and a hard one
SHOTS = (10, 50, 200)  # rows of a host
SHOT_BATCH, SHOT_STEPS = 10, 600
SCRATCH, TUNED = "from scratch", "fine-tuned"


class Job(NamedTuple):
    """A run: the step it is of, its model's name in the table, folder, configuration and seed."""

    step: str
    model: str
    folder: Path
    config: RunConfig
    seed: int


def ladder_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """Train what is missing and judge all: a row a step, model, training seed and subset.

    `mae` of formation energies, eV a site. Intervals are drawn by what was held out: by
    combination, by host (in the row "mean of 8" alone, since a subset has one), else by row. Step
    "density" tests hosts that it learned from at the other density. `coverage` is the share of
    labels in their 90 % intervals, calibrated on the validation rows of each run. Steps "few-shot
    10" to "few-shot 200" learn from so many rows of one subset; models are then "sites, from
    scratch" and "sites, fine-tuned", which starts from the network of step "host" that has not
    seen the host.

    Args:
        seed: of the bootstrap.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    folder = place(path)
    steps, few_shots = list(_steps(folder)), list(_few_shots(folder))
    for some in (steps, few_shots):  # the latter start from the former
        missing = [(job,) for job in some if not Run(job.folder).finished]
        if missing:
            train_all(_trained, missing, "ladder")
    jobs = steps + few_shots
    dataset = whole(folder)
    frame = dataset.frame.assign(sites=n_sites(dataset.frame))
    runs: dict[tuple, list[Job]] = {}
    for job in jobs:
        runs.setdefault((job.step, job.model, job.seed), []).append(job)
    judged = {key: pd.concat([_judged(job, frame) for job in some]) for key, some in runs.items()}
    table = []
    for step in dict.fromkeys(job.step for job in jobs):
        for k in SEEDS:  # few-shot splits are drawn with the seed
            same = {model: rows for (at, model, s), rows in judged.items() if (at, s) == (step, k)}
            for model, rows in common_rows(same).items() if same else ():
                for found in _scores(rows, step, seed):
                    table.append({"step": step, "model": model, "seed": k, **found})
    return pd.DataFrame(table).round(5).assign(data_fingerprint=dataset.fingerprint)


def _steps(folder: Path) -> Iterator[Job]:
    """Every run of the steps; all of a seed before the next seed."""
    every = product(SEEDS, STEPS.items(), MODELS.items())
    for k, (step, (kind, splits, seeds)), (model, its_seeds) in every:
        for split in splits if k in seeds and k in its_seeds else ():
            values = {f"data.split.{name}": value for name, value in split.items()}
            values["data.split.kind"] = kind
            config = configured(CONFIGS / "2dmd" / f"{model}.yaml", folder, "eform")
            parts = [] if step == "random" else ["ladder", step, *map(str, split.values())]
            name = "-".join([*parts, model, "eform", str(k)])
            yield Job(step, model, FOLDER / name, with_values(config, values), k)


def _few_shots(folder: Path) -> Iterator[Job]:
    """Every run that learns from some rows of a host."""
    for k in SEEDS:
        for formula, subset in FEW_SHOT.items():
            other_hosts = FOLDER / f"ladder-host-{formula}-{NETWORK}-eform-{SEEDS[0]}"
            for n in SHOTS:
                for how, start in ((SCRATCH, None), (TUNED, str(other_hosts))):
                    config = configured(CONFIGS / "2dmd" / f"{NETWORK}.yaml", folder, "eform")
                    values = {
                        "data.path": str(folder / subset),
                        "data.split.seed": k,
                        "data.train_rows": n,
                        "batch_size": SHOT_BATCH,
                        "epochs": SHOT_STEPS * SHOT_BATCH // n,
                        "start": start,
                    }
                    name = f"few-{subset}-{n}-{how.split()[-1]}-{k}"
                    model = f"{NETWORK}, {how}"
                    run = with_values(config, values)
                    yield Job(f"few-shot {n}", model, FOLDER / name, run, k)


def _trained(job: Job) -> None:
    torch.set_num_threads(1)
    train(prepare(job.config), job.folder, job.seed, progress=False)


def _judged(job: Job, frame: pd.DataFrame) -> pd.DataFrame:
    """Test rows of a run: labels, predictions, error (eV a site), inside, subset, unit, n_train."""
    run = Run(job.folder)
    rows, valid = run.part("test"), run.part("valid")
    if job.step == "density":  # and not of hosts that were never seen either
        learned = set(frame.formula[valid.index])
        rows = rows[frame.formula[rows.index].isin(learned).to_numpy()]
    data = frame.loc[rows.index]
    error = (rows.eform_pred - rows.eform).abs()
    half = Conformal.fit(valid).half_width(rows, CONFIDENCE)
    unit = data.formula + data.removed + data.dopant if job.step == "combination" else rows.index
    return rows.assign(
        error=error / data.sites,
        inside=error <= half,
        subset=data.subset,
        formula=data.formula,
        unit=unit,
        n_train=run.summary["rows"]["train"],
    )


def _scores(rows: pd.DataFrame, step: str, seed: int) -> Iterator[dict]:
    """subset, n_train, n_test, mae, mae_lo, mae_hi, coverage: of each subset and of their mean.

    A subset of which one combination alone was held out tells nothing of others, and is left out.
    """
    of_subset = {name: some for name, some in rows.groupby("subset") if some.unit.nunique() > 1}
    for name, some in of_subset.items():
        yield _score(some, name, _drawn([some], seed))
    if len(of_subset) > 1 and not step.startswith("few-shot"):
        if step == "host":
            each = rows.groupby("subset").agg({"error": "mean", "formula": "first"})
            bounds = group_interval(each.error.to_numpy(), each.formula.to_numpy(), seed)
        else:
            bounds = _drawn(list(of_subset.values()), seed)
        yield _score(pd.concat(of_subset.values()), f"mean of {len(of_subset)}", bounds)


def _score(rows: pd.DataFrame, name: str, bounds: tuple[float, float]) -> dict:
    """A row of the table: means over the subsets of `rows`."""
    means = rows.groupby("subset")[["n_train", "error", "inside"]].mean().mean()
    return {
        "subset": name,
        "n_train": round(means.n_train),
        "n_test": len(rows),
        "mae": means.error,
        "mae_lo": bounds[0],
        "mae_hi": bounds[1],
        "coverage": means.inside,
    }


def _drawn(subsets: list[pd.DataFrame], seed: int) -> tuple[float, float]:
    """Interval of the mean over subsets of the mean error, drawn by unit within each."""
    grouped = [rows.groupby("unit").error.agg(["sum", "count"]).to_numpy() for rows in subsets]

    def mean(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        sums = [units[which].sum(axis=axis % which.ndim) for units, which in zip(grouped, drawn)]
        return sum(total[..., 0] / total[..., 1] for total in sums) / len(sums)

    return resampled(tuple(np.arange(len(units)) for units in grouped), mean, seed, paired=False)
