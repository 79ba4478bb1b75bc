"""Runs that are trained for a comparison at equal budget, and judged.

* `studies`: `configs/studies/NAME.yaml`, judged on validation rows. A run is not shown the test
  rows: they are taken out of its split. All are kept in `build/studies/NAME/`.
* `readouts`: the ablation's hybrids with every read-out, on structures in larger cells.
* `leakage`: a trap that needs no run at all: copies of a row on both sides of a split.
* `ladder`: the ladder of generalisation: the same models, on test rows that are ever less like
  training. Configuration, predictions and summary of every run are shipped in `data/ladder/`.

A run that is not there is trained with one thread, and an interrupted one goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from defectkit.bench.judge import Judged, errors_by_split, judge
from defectkit.bench.measure import shipped
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.evaluation.breakdown import size_slope
from defectkit.evaluation.leakage import augmentation_before_split
from defectkit.evaluation.metrics import scores
from defectkit.graphs.dataset import GraphDataset, load_graphs
from defectkit.structures.transforms import LabelNotKept, PadSupercell
from defectkit.structures.writing import process_pool
from defectkit.training.config import RunConfig, StudyConfig, load_config, with_values
from defectkit.training.inference import CARD, WEIGHTS, load_model, predict
from defectkit.training.prepared import prepare
from defectkit.training.pretrained import CONFIGS, LADDER, ROOT
from defectkit.training.run import Run
from defectkit.training.train import train

STUDIES = CONFIGS / "studies"
FOLDER = ROOT / "build" / "studies"
KEPT = ("eform_mae", "eform_mae_lo", "eform_mae_hi", "eform_rmse", "spin_mae")
# Name of a variant of the study `ablation`: its read-out.
READOUTS = {"sum": "sum", "mean": "mean", "defect": "defect", "full": "gated"}
EXTRA = 2  # host cells that are added in both directions of the plane
LADDER_MODELS = ("hybrid", "alignn", "lightgbm", "names")
REFERENCE = "hybrid"
COMPACT = {"data.train_rows": 2000, "epochs": 15}
FOLDS = [{"data.split.fold": fold} for fold in range(5)]
# Name of the split, and those that hold out each of its units once (one fold of the pairs).
STEPS: dict[str, list[dict]] = {
    "random": [{}],
    "pair": FOLDS[:1],
    "host": FOLDS,
    "dopant": FOLDS,
    "block": [{"data.split.held_out": ["MoS2 (2H)", "3d"]}],
}
ENSEMBLE = {"host": (0, 1, 2)}  # seeds of the hybrid, for its spread
MODEL = "hybrid"
STRUCTURES = 204
PARTS = ("phi", "psi", "content")
LEAK_ROWS, LEAK_COPIES, LEAKS = (100, 200, 400), (2, 3, 4, 6), 3  # rows, copies of each, seeds


class Job(NamedTuple):
    """A run of a study: its place in the table, its configuration and its folder."""

    group: str
    variant: str
    seed: int
    config: RunConfig
    folder: Path


def study_rows(name: str, seed: int, path: Path | None = None) -> list[dict]:
    """Train every variant with every seed and score all on validation rows.

    Runs of one split are scored on the rows that all its variants predict.

    Args:
        name: of the study's file.
        seed: of the bootstrap.
        path: where the data set lies, if elsewhere.
    """
    study = load_config(STUDIES / f"{name}.yaml", StudyConfig)
    if path is not None:
        study = with_values(study, {"run.data.path": str(path)})
    jobs = jobs_of(study, FOLDER / name)
    train_all(trained, [(job.folder, job.config, job.seed) for job in jobs], name)
    judged = judge([Run(job.folder) for job in jobs], "valid")
    return [
        {
            "group": job.group,
            "variant": job.variant,
            "seed": job.seed,
            "input": job.config.graph.positions,
            **_scored(one, seed),
        }
        for job, one in zip(jobs, judged)
    ]


def jobs_of(study: StudyConfig, folder: Path) -> list[Job]:
    """Every run of a study; all variants of a seed before the next seed."""
    jobs = []
    for seed in study.seeds:  # a study that is cut short has every variant once
        split = {"data.split.seed": seed} if study.splits else {}
        for group, variants in study.variants.items():
            for variant, values in variants.items():
                config = with_values(study.run, values | split)
                place = folder / f"{group}-{variant}-{seed}".replace(" ", "-")
                jobs.append(Job(group, variant, seed, config, place))
    return jobs


def train_all(train: Callable[..., object], jobs: Sequence[tuple], name: str) -> None:
    """Train runs side by side, one process a core; `jobs` are the arguments of `train`."""
    with process_pool() as pool:
        running = [pool.submit(train, *job) for job in jobs]
        for done in tqdm(as_completed(running), total=len(jobs), desc=name, unit="run"):
            done.result()


def trained(folder: Path, config: RunConfig, seed: int) -> Run:
    """The run of a study in `folder`, trained with one thread where it is not finished."""
    torch.set_num_threads(1)
    prepared = prepare(config)
    blind = replace(prepared, split=replace(prepared.split, test=()))
    return train(blind, folder, seed, progress=False, other_labels=True)


def _scored(one: Judged, seed: int) -> dict:
    summary, found = one.run.summary, scores(one.rows, seed, one.groups)
    return {
        "n_train": summary["rows"]["train"],
        "n_valid": len(one.rows),
        "epochs": summary.get("epochs", 0),
        **{key: round(found[key], 4) for key in KEPT},
        "n_params": summary["parameters"],
        "train_s_per_epoch": round(summary["train_s_per_epoch"], 2),
        "data_fingerprint": summary["data_fingerprint"],
    }


def readout_rows(seed: int) -> list[dict]:
    """A row a read-out and training seed: is a formation energy extensive?

    Validation rows of the study `ablation` are set into larger cells of pristine host
    (`structures.transforms.PadSupercell`), which keeps their energy: what a prediction then
    changes by belongs to the read-out, not to the defect.

    Columns: `n` structures, mean number of atoms and mean absolute error (eV) in the cells of the
    demo and in the larger ones, mean change of the prediction (eV), and the `slope` of the signed
    error against the number of atoms with its interval over hosts (eV per atom).

    Args:
        seed: of the bootstrap.
    """
    study = load_config(STUDIES / "ablation.yaml", StudyConfig)
    prepared = prepare(study.run)
    dataset, split = prepared.dataset, prepared.split
    cells = [
        load_graphs(records, dataset.hosts, study.run.graph)
        for records in _in_both_cells(dataset, split.valid)
    ]
    table = []
    for job in jobs_of(study, FOLDER / "ablation"):
        if job.variant in READOUTS:
            run = trained(job.folder, job.config, job.seed)
            found = _errors_in_both_cells(run, dataset, cells, seed)
            rounded = {key: round(value, 4) for key, value in found.items()}
            table.append({"readout": READOUTS[job.variant], "seed": job.seed, **rounded})
    return table


def _in_both_cells(dataset: Dataset, uids: Sequence[str]) -> tuple[tuple, ...]:
    """Records as they are, and the same in larger cells, where that keeps their energy."""
    pad, pairs = PadSupercell(dataset.hosts, (EXTRA, EXTRA)), []
    for uid in uids:
        try:
            pairs.append((dataset[uid], pad(dataset[uid], np.random.default_rng(0))))
        except LabelNotKept:
            continue
    return tuple(zip(*pairs))


def _errors_in_both_cells(
    run: Run, dataset: Dataset, cells: Sequence[GraphDataset], seed: int
) -> dict[str, float]:
    """Errors of a run in the cells of the demo and in larger ones; see `readout_rows`."""
    model, _ = load_model(run.folder)
    small, large = (predict(model, graphs).assign(natoms=_real_atoms(graphs)) for graphs in cells)
    labels = dataset.frame.loc[small.index]
    both = pd.concat([small, large])
    error = both.eform - pd.concat([labels.eform] * 2)
    fit = size_slope(error, both.natoms, pd.concat([labels.host] * 2), seed)
    return {
        "n": len(small),
        "natoms": small.natoms.mean(),
        "natoms_larger": large.natoms.mean(),
        "eform_mae": (small.eform - labels.eform).abs().mean(),
        "eform_mae_larger": (large.eform - labels.eform).abs().mean(),
        "change": (large.eform - small.eform).mean(),
        **{key: fit[key] for key in ("slope", "lo", "hi")},
    }


def _real_atoms(graphs: GraphDataset) -> list[int]:
    return [int((graph.z > 0).sum()) for graph in graphs]


def ladder_rows(seed: int) -> list[dict]:
    """Train what is missing of the ladder; a row a step and model, over all folds together.

    The steps: rows drawn at random, pairs of host and dopant never seen, hosts and dopants never
    seen, and the 3d dopants of a host family never seen. All models learn from equally many rows
    and the networks for equally many epochs, fewer than the shipped models do: what counts is how
    the errors grow from step to step.

    Columns of `judge.errors_by_split`, and the paired difference from the hybrid.

    Args:
        seed: of the bootstrap.
    """
    jobs = list(ladder_jobs())
    missing = [job for job in jobs if not Run(job[0]).finished]
    train_all(train_without_weights, missing, "ladder")
    judged = judge([Run(folder) for folder, _, _ in jobs])
    return errors_by_split(judged, reference=REFERENCE, seed=seed).round(4).to_dict("records")


def ladder_jobs() -> Iterator[tuple[Path, RunConfig, int]]:
    """Folder, configuration and seed of every run of the ladder."""
    for step, splits in STEPS.items():
        for number, split in enumerate(splits):
            for model in LADDER_MODELS:
                values = {"data.split.kind": step, **split, **COMPACT}
                config = with_values(load_config(CONFIGS / f"{model}.yaml"), values)
                seeds = ENSEMBLE.get(step, (0,)) if model == REFERENCE else (0,)
                for seed in seeds:
                    yield LADDER / f"{step}-{number}-{model}-{seed}", config, seed


def train_without_weights(folder: Path, config: RunConfig, seed: int) -> None:
    """Train one run, or finish it; its weights are not kept."""
    torch.set_num_threads(1)
    train(prepare(config), folder, seed, progress=False)
    for name in (WEIGHTS, CARD):
        (folder / name).unlink(missing_ok=True)


def attention_rows(seed: int) -> list[dict]:
    """A row a model and structure; see `explain.survey`.

    Args:
        seed: of the draw of structures, of the untrained weights, and of the run that is taken.
    """
    import pandas as pd
    import torch

    from defectkit import explain

    torch.set_num_threads(1)  # single small graphs gain nothing from a second thread
    hybrid = shipped(MODEL, seed)
    model = hybrid.model
    drawn = np.random.default_rng(seed).permutation(sorted(hybrid.split.test))[:STRUCTURES]
    records = {uid: hybrid.dataset[uid] for uid in drawn}
    graphs = [hybrid.graph(record) for record in records.values()]
    models = {"trained": model, "untrained": explain.untrained(model, hybrid.card, seed)}
    models |= {f"without {part}": explain.without(model, part) for part in PARTS}
    tables = []
    for name, version in models.items():
        if name in ("trained", "untrained"):
            scored = explain.score_table(version, graphs, records)
        else:
            scored = explain.attention_table(version, graphs)
            scored = scored.rename(columns={"weight": "attention"})
        with torch.no_grad():
            predicted = [version(graph).eform.item() for graph in graphs]
        table = explain.survey(scored)
        table.insert(0, "model", name)
        table.insert(1, "predicted", predicted)
        tables.append(table)
    labels = pd.DataFrame(
        {
            "uid": drawn,
            "defecttype": [record.defecttype for record in records.values()],
            "label": [record.eform for record in records.values()],
        }
    ).set_index("uid")
    joined = labels.join(pd.concat(tables)).reset_index()
    return joined.sort_values(["model", "uid"]).round(3).to_dict("records")


def leakage_rows(seed: int) -> list[dict]:
    """The trap of augmenting before the split, for few and many rows and copies of each.

    Columns of `evaluation.leakage.augmentation_before_split`, n, copies and seed.

    Args:
        seed: the first of `LEAKS` draws of the rows, and of everything else drawn at random.
    """
    dataset = clean(load("demo"), "strict").dataset
    tables = [
        augmentation_before_split(dataset, n, copies, number).assign(
            n=n, copies=copies, seed=number, label_source=dataset.label_source
        )
        for number in range(seed, seed + LEAKS)
        for n in LEAK_ROWS
        for copies in LEAK_COPIES
    ]
    return [row for table in tables for row in table.round(4).to_dict("records")]
