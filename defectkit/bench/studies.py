"""Comparisons at equal budget: `configs/studies/NAME.yaml`, judged on validation rows.

Every run is kept under `build/studies/NAME/`, so that a study that was interrupted goes on.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from tqdm.auto import tqdm

from defectkit.config import RunConfig, StudyConfig, load_config, with_values

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "configs" / "studies"
FOLDER = ROOT / "build" / "studies"


def rows(name: str, workers: int) -> list[dict]:
    """Train every variant with every seed, one thread each, and score it on validation rows.

    Args:
        name: of the study's file.
        workers: processes.
    """
    study = load_config(STUDIES / f"{name}.yaml", StudyConfig)
    jobs = [
        (FOLDER / name / f"{variant}-{seed}", with_values(study.run, values), seed)
        for seed in study.seeds  # a study that is cut short has every variant once
        for variant, values in study.variants.items()
    ]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_scored, *job): job for job in jobs}
        for _ in tqdm(as_completed(running), total=len(jobs), desc=name, unit="run"):
            pass
    return [_row(job, running_job.result()) for running_job, job in running.items()]


def _row(job: tuple[Path, RunConfig, int], result: dict) -> dict:
    folder, config, seed = job
    return {
        "variant": folder.name.removesuffix(f"-{seed}"),
        "seed": seed,
        "input": config.graph.positions,
        **result,
    }


def _scored(folder: Path, config: RunConfig, seed: int) -> dict:
    import torch

    from defectkit.evaluate import scores
    from defectkit.training.runs import load_data, train

    torch.set_num_threads(1)
    dataset, split = load_data(config)
    run = train(config, dataset, replace(split, test=()), folder, seed, progress=False)
    found = scores(run.part("valid"))
    return {
        "n_train": run.summary["rows"]["train"],
        "epochs": run.summary["epochs"],
        **{
            key: round(found[key], 4)
            for key in ("eform_mae", "eform_mae_lo", "eform_mae_hi", "eform_rmse", "spin_mae")
        },
        "n_params": run.summary["parameters"],
        "train_s_per_epoch": round(run.summary["train_s_per_epoch"], 2),
    }
