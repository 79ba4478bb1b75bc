"""Every model on one data set: same split, same graphs, errors, cost.

The runs are those of `configs/*.yaml`, each with seeds 0 to 2. One that is not there is trained
first, or resumed where it stopped; the demo's are shipped in `data/checkpoints/`. Timings are
taken in a process of their own with one thread.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from defectkit import DefectkitError
from defectkit.bench import in_own_process, peak_mb, shortest_ms
from defectkit.training.config import RunConfig, load_config, with_values
from defectkit.training.pretrained import CHECKPOINTS, CONFIGS, ROOT

SEEDS = (0, 1, 2)
SAMPLE = 64  # structures that are timed


def rows(
    seed: int, data: str = "demo", path: Path | None = None, changes: Sequence[str] = ()
) -> list[dict]:
    """Train what is missing and measure all, on the test rows that every run predicts.

    Args:
        seed: of the bootstrap.
        data: name of the data set.
        path: where it lies, if elsewhere.
        changes: values of all configurations to change, such as "epochs=5".
    """
    from defectkit.bench.report import judge
    from defectkit.evaluation.metrics import scores

    names, finished = zip(*runs(data, path, changes))
    judged = judge(finished)
    costs = {
        name: in_own_process(measure, run.folder)
        for name, run in zip(names, finished)
        if run.summary["seed"] == SEEDS[0]
    }  # fmt: skip - seeds do not change what it costs
    whole = set().union(*(run.part("test").index for run in finished))
    return [
        {
            "task": data,
            "input": one.run.config.graph.positions,
            "model": name,
            "seed": one.run.summary["seed"],
            "split": f"{one.run.config.data.split.kind} {one.run.config.data.split.seed}",
            "n_train": one.run.summary["rows"]["train"],
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
) -> Iterator[tuple]:
    """Name and finished `Run` of every configuration and seed, trained where it is missing.

    Configurations that need positions before relaxation are left out where the data have none.
    """
    from defectkit.training.prepared import prepare
    from defectkit.training.train import train

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
    return with_values(config, {"data.name": data, "data.path": str(path) if path else None})


def run_folder(config: Path, data: str, seed: int) -> Path:
    """Where the run of a configuration lies: shipped for the demo, else under `build/`."""
    parent = CHECKPOINTS if data == "demo" else ROOT / "build" / "runs" / Path(data).name
    return parent / f"{config.stem}-{seed}"


def measure(folder: Path) -> dict[str, float]:
    """Milliseconds a structure and peak memory of this process, with one thread.

    `infer_ms_b1` and `infer_ms_b64` are the model alone, on graphs (or feature tables) that are
    there already; `build_ms` is what makes these from atoms, the search for the defect included.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from defectkit.models.tabular.models import TABULAR
    from defectkit.training.prepared import prepare
    from defectkit.training.run import Run

    torch.set_num_threads(1)
    run = Run(folder)
    dataset = prepare(run.config).dataset
    records = [dataset[uid] for uid in run.part("test").index[:SAMPLE]]
    network = run.config.model.name not in TABULAR
    with threadpool_limits(1), torch.no_grad():
        prepare = _network if network else _table
        build, infer = prepare(run, dataset)
        inputs, together = [build([record]) for record in records[:8]], build(records)
        return {
            "infer_ms_b1": shortest_ms(lambda: [infer(one) for one in inputs], len(inputs)),
            "infer_ms_b64": shortest_ms(lambda: infer(together), len(records)),
            "build_ms": shortest_ms(lambda: build(records), len(records)),
            "peak_mb": round(peak_mb()),
        }


def _network(run, dataset) -> tuple[Callable, Callable]:
    from torch_geometric.data import Batch

    from defectkit.graphs.build import build_graph
    from defectkit.training.inference import load_model

    model, card = load_model(run.folder)

    def build(some):
        graphs = [build_graph(r, card.graph, dataset.hosts[r.host]) for r in some]
        return Batch.from_data_list(graphs)

    return build, model


def _table(run, dataset) -> tuple[Callable, Callable]:
    from defectkit.graphs.dataset import load_graphs
    from defectkit.models.tabular.models import table_for
    from defectkit.structures.record import to_frame
    from defectkit.training.prepared import fit_table, learned_from, prepare

    _, training = learned_from(run)
    model = fit_table(prepare(run.config), training, 0)

    def build(some):
        graphs = load_graphs(some, dataset.hosts, run.config.graph)
        return table_for(run.config.model.name, graphs, to_frame(some))

    return build, model.predict
