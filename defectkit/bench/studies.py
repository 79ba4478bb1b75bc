"""Comparisons at equal budget: `configs/studies/NAME.yaml`, judged on validation rows.

Every run is kept in `build/studies/NAME/`, so that a study that was interrupted goes on. A run is
not shown the test rows: they are taken out of its split.
"""

from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from defectkit.data.processes import process_pool
from defectkit.training.config import RunConfig, StudyConfig, load_config, with_values
from defectkit.training.pretrained import CONFIGS, ROOT

if TYPE_CHECKING:
    from defectkit.bench.report import Judged

STUDIES = CONFIGS / "studies"
FOLDER = ROOT / "build" / "studies"
KEPT = ("eform_mae", "eform_mae_lo", "eform_mae_hi", "eform_rmse", "spin_mae")


def rows(name: str, seed: int, path: Path | None = None) -> list[dict]:
    """Train every variant with every seed, one thread each, and score all on validation rows.

    Those of one split on the same ones: rows that all its variants predict.

    Args:
        name: of the study's file.
        seed: of the bootstrap.
        path: where the data set lies, if elsewhere.
    """
    from defectkit.bench.report import judge
    from defectkit.training.run import Run

    study = load_config(STUDIES / f"{name}.yaml", StudyConfig)
    if path is not None:
        study = with_values(study, {"run.data.path": str(path)})
    jobs = jobs_of(study, FOLDER / name)
    with process_pool() as pool:
        running = [pool.submit(_train, folder, config, n) for _, _, n, config, folder in jobs]
        for done in tqdm(as_completed(running), total=len(jobs), desc=name, unit="run"):
            done.result()
    judged = judge([Run(folder) for *_, folder in jobs], "valid")
    return [
        {
            "group": group,
            "variant": variant,
            "seed": run_seed,
            "input": config.graph.positions,
            **_scored(one, seed),
        }
        for (group, variant, run_seed, config, _), one in zip(jobs, judged)
    ]


def jobs_of(study: StudyConfig, folder: Path) -> list[tuple[str, str, int, RunConfig, Path]]:
    """Group, variant, seed, configuration and folder of every run; all variants of a seed first."""
    jobs = []
    for seed in study.seeds:  # a study that is cut short has every variant once
        split = {"data.split.seed": seed} if study.splits else {}
        for group, variants in study.variants.items():
            for variant, values in variants.items():
                config = with_values(study.run, values | split)
                place = folder / f"{group}-{variant}-{seed}".replace(" ", "-")
                jobs.append((group, variant, seed, config, place))
    return jobs


def trained(folder: Path, config: RunConfig, seed: int):
    """The run of a study in `folder`, trained with one thread where it is not finished."""
    import torch

    from defectkit.training.prepared import prepare
    from defectkit.training.train import train

    torch.set_num_threads(1)
    prepared = prepare(config)
    blind = replace(prepared, split=replace(prepared.split, test=()))
    return train(blind, folder, seed, progress=False, other_labels=True)


def _train(folder: Path, config: RunConfig, seed: int) -> None:
    trained(folder, config, seed)


def _scored(one: "Judged", seed: int) -> dict:
    from defectkit.evaluation.metrics import scores

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
