"""The ladder of generalisation: the same models, on test rows that are ever less like training.

Rows drawn at random, pairs of host and dopant never seen, hosts and dopants never seen, and the
3d dopants of a host family never seen. All models learn from equally many rows and the networks
for equally many epochs, fewer than the shipped models do: what counts is the way from step to
step. Configuration, predictions and summary of every run are shipped in `data/ladder/`; one that
is not there is trained, and an interrupted one goes on.
"""

from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path

from tqdm.auto import tqdm

from defectkit.data.processes import process_pool
from defectkit.training.config import RunConfig, load_config, with_values
from defectkit.training.pretrained import CONFIGS, LADDER

# Name: values of the configuration to change. Networks of the ladder learn with AdamW; Muon, with
# which hybrid and ALIGNN are shipped, came later.
MODELS: dict[str, dict] = {
    "hybrid": {"optimiser.name": "adamw"},
    "alignn": {"optimiser.name": "adamw", "optimiser.lr": 0.001},
    "lightgbm": {},
    "names": {},
}
REFERENCE = "hybrid"
COMPACT = {"data.train_rows": 1500, "epochs": 15}
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


def rows(seed: int) -> list[dict]:
    """Train what is missing, one thread each; a row a step and model, over all folds together.

    Columns of `report.ladder_table`, and the paired difference from the hybrid.

    Args:
        seed: of the bootstrap.
    """
    from defectkit.bench.report import judge, ladder_table
    from defectkit.training.run import Run

    todo = list(jobs())
    with process_pool() as pool:
        running = [pool.submit(train_one, *job) for job in todo if not Run(job[0]).finished]
        for job in tqdm(as_completed(running), total=len(running), desc="ladder", unit="run"):
            job.result()
    judged = judge([Run(folder) for folder, _, _ in todo])
    return ladder_table(judged, reference=REFERENCE, seed=seed).round(4).to_dict("records")


def jobs() -> Iterator[tuple[Path, RunConfig, int]]:
    """Folder, configuration and seed of every run."""
    for step, splits in STEPS.items():
        for number, split in enumerate(splits):
            for model, changes in MODELS.items():
                values = {"data.split.kind": step, **split, **COMPACT, **changes}
                config = with_values(load_config(CONFIGS / f"{model}.yaml"), values)
                seeds = ENSEMBLE.get(step, (0,)) if model == REFERENCE else (0,)
                for seed in seeds:
                    yield LADDER / f"{step}-{number}-{model}-{seed}", config, seed


def train_one(folder: Path, config: RunConfig, seed: int) -> None:
    """Train one run, or finish it; its weights are not kept."""
    import torch

    from defectkit.training.inference import CARD, WEIGHTS
    from defectkit.training.prepared import prepare
    from defectkit.training.train import train

    torch.set_num_threads(1)
    train(prepare(config), folder, seed, progress=False)
    for name in (WEIGHTS, CARD):
        (folder / name).unlink(missing_ok=True)
