"""Errors and cost of all models on one data set, and the searches for their settings.

models      every model of `configs/*.yaml`: same split, same graphs, seeds 0 to 2.
positions   each shipped hybrid on relaxed and on unrelaxed test structures.
tuning      every trial of the searches in `configs/tune/*.yaml`.

A run or search that is not there is made first, or resumed where it stopped; the runs on the demo
data are shipped in `data/checkpoints/`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from defectkit import DefectkitError
from defectkit.bench.measure import OpenRun, in_own_process, peak_mb, shipped, shortest_ms
from defectkit.structures.record import DefectRecord, to_frame
from defectkit.training.config import RunConfig, TuneConfig, load_config, with_values
from defectkit.training.prepared import fit_table, learned_from, prepare
from defectkit.training.pretrained import CHECKPOINTS, CONFIGS, ROOT
from defectkit.training.run import Run
from defectkit.training.train import train

SEEDS = (0, 1, 2)
SAMPLE = 64  # structures that are timed
HYBRIDS = ("hybrid", "hybrid-unrelaxed")
SEARCHES = CONFIGS / "tune"
SEARCH_FOLDER = ROOT / "build" / "tune"


def model_rows(
    seed: int, data: str = "demo", path: Path | None = None, changes: Sequence[str] = ()
) -> list[dict]:
    """Train what is missing and measure all, on the test rows that every run predicts.

    Args:
        seed: of the bootstrap.
        data: name of the data set.
        path: where it lies, if elsewhere.
        changes: values of all configurations to change, such as "epochs=5".
    """
    from defectkit.bench.judge import judge
    from defectkit.evaluation.metrics import scores

    names, finished = zip(*runs(data, path, changes))
    judged = judge(finished)
    costs = {  # seeds do not change what a model costs
        name: in_own_process(measure, run.folder)
        for name, run in zip(names, finished)
        if run.summary["seed"] == SEEDS[0]
    }
    whole = set().union(*(run.part("test").index for run in finished))
    return [
        {
            "task": data,
            "input": one.run.config.graph.positions,
            "model": name,
            "seed": one.run.summary["seed"],
            "split": f"{one.run.config.data.split.kind} {one.run.config.data.split.seed}",
            "n_train": _learned(one.run),
            "n_test": len(one.rows),
            "left_out": "; ".join(sorted(whole - set(one.rows.index))),
            **{k: round(v, 4) for k, v in scores(one.rows, seed, one.groups).items()},
            "n_params": one.run.summary["parameters"],
            "train_s_per_epoch": round(one.run.summary["train_s_per_epoch"], 2),
            **costs[name],
            "data_fingerprint": one.run.summary["data_fingerprint"],
        }
        for name, one in zip(names, judged)
    ]


def runs(
    data: str = "demo", path: Path | None = None, changes: Sequence[str] = ()
) -> Iterator[tuple[str, Run]]:
    """Name and finished `Run` of every configuration and seed, trained where it is missing.

    Configurations that need positions before relaxation are left out where the data have none.
    """
    for file in config_files():
        config = with_values(on_data(load_config(file), data, path), changes)
        unrelaxed = config.graph.positions == "unrelaxed" or config.also_unrelaxed
        if unrelaxed and any(
            record.unrelaxed is None for record in prepare(config).dataset.records
        ):
            continue
        for seed in SEEDS:
            folder = run_folder(file, data, seed)
            yield file.stem, train(prepare(config), folder, seed)


def config_files() -> list[Path]:
    """The configurations of the kit; DefectkitError where it was installed without them."""
    files = sorted(CONFIGS.glob("*.yaml"))
    if not files:
        raise DefectkitError(f"There are no configurations in {CONFIGS}; run this in a checkout.")
    return files


def on_data(config: RunConfig, data: str, path: Path | None) -> RunConfig:
    """The same run on another data set."""
    more = config.data.more if data == config.data.name and path is None else ()
    place = str(path) if path else None
    return with_values(config, {"data.name": data, "data.path": place, "data.more": more})


def run_folder(config: Path, data: str, seed: int) -> Path:
    """Where the run of a configuration lies: shipped for the demo, else under `build/`."""
    parent = CHECKPOINTS if data == "demo" else ROOT / "build" / "runs" / Path(data).name
    return parent / f"{config.stem}-{seed}"


def measure(folder: Path) -> dict[str, float]:
    """Milliseconds a structure and peak memory (MB) of this process, with one thread.

    `infer_ms_b1` and `infer_ms_b64` are the model alone, on graphs (or feature tables) that are
    there already; `build_ms` is what makes these from atoms, the search for the defect included.
    """
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    run = Run(folder)
    opened = OpenRun(run)
    records = [opened.dataset[uid] for uid in run.part("test").index[:SAMPLE]]
    with threadpool_limits(1), torch.no_grad():
        build, infer = timed(opened)
        inputs, together = [build([record]) for record in records[:8]], build(records)
        return {
            "infer_ms_b1": shortest_ms(lambda: [infer(one) for one in inputs], len(inputs)),
            "infer_ms_b64": shortest_ms(lambda: infer(together), len(records)),
            "build_ms": shortest_ms(lambda: build(records), len(records)),
            "peak_mb": round(peak_mb()),
        }


Input = Any  # of a model: a batch of graphs, or a table of features
Timed = tuple[Callable[[Sequence[DefectRecord]], Input], Callable[[Input], object]]


def timed(opened: OpenRun) -> Timed:
    """What makes the input of a run's model from records, and the model."""
    from defectkit.models.tabular.models import TABULAR

    return (_table if opened.run.config.model.name in TABULAR else _network)(opened)


def _network(opened: OpenRun) -> Timed:
    """What makes a batch of records, and the network."""
    from torch_geometric.data import Batch

    def build(records: Sequence[DefectRecord]) -> Input:
        return Batch.from_data_list([opened.graph(record) for record in records])

    return build, opened.model


def _table(opened: OpenRun) -> Timed:
    """What makes a table of features of records, and the fitted model."""
    from defectkit.graphs.dataset import load_graphs
    from defectkit.models.tabular.models import table_for

    config, dataset = opened.run.config, opened.dataset
    _, training = learned_from(opened.run)
    model = fit_table(opened.prepared, training, 0)

    def build(records: Sequence[DefectRecord]) -> Input:
        graphs = load_graphs(records, dataset.hosts, config.graph)
        return table_for(config.model.name, graphs, to_frame(records))

    return build, model.predict


def _learned(run: Run) -> int:
    """How many rows a run learned from, further ones included."""
    beside = run.summary.get("further", {"rows": {"train": 0}})
    return run.summary["rows"]["train"] + beside["rows"]["train"]


def position_rows(seed: int) -> list[dict]:
    """A row a hybrid, training seed and input: relaxed or unrelaxed positions.

    The rows are those of the test part whose starting structure can be read.

    Args:
        seed: of the bootstrap.
    """
    from defectkit.evaluation.metrics import common_rows, scores

    tables = {
        (name, training_seed, place): rows
        for name in HYBRIDS
        for training_seed in SEEDS
        for place, rows in _predicted(name, training_seed)
    }
    return [
        {
            "model": name,
            "seed": training_seed,
            "input": place,
            "n_test": len(rows),
            **{key: round(value, 4) for key, value in scores(rows, seed).items()},
        }
        for (name, training_seed, place), rows in common_rows(tables).items()
    ]


def _predicted(name: str, training_seed: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Both inputs, each with labels and predictions of the test rows."""
    from defectkit.training.inference import predict

    hybrid = shipped(name, training_seed)
    for place in ("relaxed", "unrelaxed"):
        graphs = hybrid.graphs(positions=place)
        predicted = predict(hybrid.model, graphs, graphs.select(hybrid.split.test))
        labels = hybrid.dataset.frame.loc[predicted.index, ["eform", "spin"]]
        yield place, labels.join(predicted.add_suffix("_pred"))


def tuning_rows(seed: int) -> list[dict]:
    """A row a trial: settings tried, and the validation MAE of eform in eV."""
    from defectkit.training.tune import tune

    table = []
    for file in sorted(SEARCHES.glob("*.yaml")):
        config = load_config(file, TuneConfig)
        trials = tune(config, prepare(config.run), SEARCH_FOLDER / file.stem, seed)
        table += [
            {
                "model": file.stem,
                "trial": trial["number"],
                "settings": json.dumps({name: trial[name] for name in config.search}),
                "state": trial["state"].lower(),
                "valid_mae": round(trial["value"], 4),
                "seconds": trial["seconds"],
            }
            for trial in trials.to_dict("records")
        ]
    return table
