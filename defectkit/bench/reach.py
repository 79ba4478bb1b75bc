"""What a cutoff cannot see, measured on DFT labels of 2DMD.

reach         the network of the defect's sites, `configs/2dmd/sites.yaml`, with images of sites up
              to ever larger distances: errors on test rows.
pairs_2dmd    two vacancies of the chalcogen at all distances, held out: the energy of their
              interaction as DFT has it, and as networks with and without a cut have it.
attention_2dmd  what the attention between these two vacancies follows.
ladder_2dmd   test rows that are ever less like training.

All train what is missing into `build/runs/2dmd/`, with one thread a run, and go on where they were
interrupted.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.data.splits import Split
from defectkit.evaluation.metrics import interval
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.predict.intervals import Conformal
from defectkit.structures.writing import process_pool
from defectkit.training.config import RunConfig, load_config, with_values
from defectkit.training.inference import load_model, predict
from defectkit.training.prepared import Prepared, prepare
from defectkit.training.pretrained import CONFIGS, ROOT
from defectkit.training.run import Run
from defectkit.training.train import train

SEEDS = (0, 1, 2)
FOLDER = ROOT / "build" / "runs" / "2dmd"
CUTS = (5.0, 8.0, 12.0)  # Å
HOSTS = {"MoS2": "low_MoS2", "WSe2": "low_WSe2"}  # with pairs of vacancies at many distances
STUDIED = "MoS2"  # where there is time for all: every cut, distances held out, all atoms
PAIR_ROWS = 1500  # of a subset that are learned from: networks of all atoms take their time
PAIR_BATCH = 32
FOLDS = 5  # of the distances of pairs
SAME_DISTANCE = 0.05  # Å
SAME_HEIGHT = 0.5  # Å
PAIR_VALID = 300
FORMULAS = ("BN", "GaSe", "InSe", "MoS2", "P", "WSe2")
SPLITS = {  # kind of the split, by step of the ladder
    "random": "subset",
    "combination": "combination",
    "density": "leave-one-density-out",
    "host": "leave-one-formula-out",
}
LADDER_MODELS = ("sites", "lightgbm")
FEW_SHOT = {"GaSe": "high_GaSe", "BN": "high_BN"}
SHOTS = (10, 50, 200)  # rows of a new host
SHOT_STEPS = 600
CONFIDENCE = 0.9
ALL_PAIRS = "all pairs"
GLOBAL, LOCAL = "all atoms, global", "all atoms, local"


class Job(NamedTuple):
    """A run: folder, configuration, seed; and what is held out where its split is none of the kit.

    Attributes:
        held_out: None for the split of the configuration; "pair" for all pairs of vacancies, or
            the number of a fold of their distances.
    """

    folder: Path
    config: RunConfig
    seed: int
    held_out: str | int | None = None


def reach_rows(seed: int, path: Path) -> list[dict]:
    """A row a reach, training seed and subset: `mae`, eV per site, with its bootstrap interval.

    Args:
        seed: of the bootstrap.
        path: the folder of 2DMD.
    """
    config = _config("sites", path)
    jobs = {}
    for k in SEEDS:
        for reach in (*CUTS, config.graph.image_radius):
            cut = with_values(config, {"graph.image_radius": reach})
            whole = reach == config.graph.image_radius
            name = f"sites-eform-{k}" if whole else f"sites-{reach:g}A-{k}"
            jobs[reach, k] = Job(FOLDER / name, cut, k)
    train_all(list(jobs.values()), "reach")
    table = []
    for (reach, k), job in jobs.items():
        for subset, errors in _errors_by_subset(job).items():
            table.append({"reach": reach, "seed": k, "subset": subset, **_mean(errors, seed)})
    return table


def pair_rows(seed: int, path: Path) -> list[dict]:
    """A row a pair of vacancies, network and training seed.

    `dft` and `predicted` are (E_pair - 2 E_single) / 2, the energy in eV that each of the two
    vacancies has from the other, at `distance` Å; E_single is the row with one vacancy, which is
    learned from. `side`: whether both are missing from the "same" side of the layer, or the second
    from the "other". `held_out` "pair": no row with two such vacancies alone is learned from;
    "shell": no row at all that has two such vacancies so far apart.

    Args:
        seed: not used, since nothing is drawn.
        path: the folder of 2DMD.
    """
    jobs = list(_pair_jobs(path))
    train_all([job for *_, job in jobs], "pairs")
    tables = []
    for host, network, job in jobs:
        table = _interactions(job).assign(
            host=host,
            held_out="pair" if job.held_out == "pair" else "shell",
            network=network,
            seed=job.seed,
        )
        tables.append(table)
    order = ["host", "held_out", "network", "seed", "side", "distance"]
    rows = pd.concat(tables).sort_values(order)
    return rows[[*order, "dft", "predicted"]].round(5).to_dict("records")


def _pair_jobs(path: Path) -> Iterator[tuple[str, str, Job]]:
    """Host, name of the network and run."""
    for k in SEEDS:
        for host, subset in HOSTS.items():
            sites = _few_rows("sites", path / subset)
            radii = {ALL_PAIRS: sites.graph.image_radius}
            cuts = CUTS if host == STUDIED else CUTS[:1]
            radii |= {f"cut at {cut:g} Å": cut for cut in cuts}
            for name, radius in radii.items():
                config = with_values(sites, {"graph.image_radius": radius})
                folder = FOLDER / f"pairs-{subset}-{radius:g}A-{k}"
                yield host, name, Job(folder, config, k, "pair")
        subset = HOSTS[STUDIED]
        hybrid = _few_rows("hybrid", path / subset)
        for name, changes in ((GLOBAL, {}), (LOCAL, {"model.settings.global_layers": 0})):
            config = with_values(hybrid, changes)
            word = name.split()[-1]
            folder = FOLDER / f"pairs-{subset}-{word}-{k}"
            yield STUDIED, name, Job(folder, config, k, "pair")
    sites = _few_rows("sites", path / HOSTS[STUDIED])
    for fold in range(FOLDS):
        folder = FOLDER / f"shells-{HOSTS[STUDIED]}-{fold}-{SEEDS[0]}"
        yield STUDIED, ALL_PAIRS, Job(folder, sites, SEEDS[0], fold)


def attention_rows(seed: int, path: Path) -> list[dict]:
    """A row a pair of sulphur vacancies and training seed of the network of all atoms.

    `weight` is the attention between the two vacancies, a mean over both directions and all heads
    of the last layer; `dft` is as in `pair_rows`.

    Args:
        seed: not used, since nothing is drawn.
        path: the folder of 2DMD.
    """
    jobs = [job for _, network, job in _pair_jobs(path) if network == GLOBAL]
    train_all(jobs, "pairs")
    table = []
    for job in jobs:
        rows = _interactions(job)
        prepared = _prepared(job)
        model, _ = load_model(job.folder)
        for uid, row in rows.iterrows():
            graph = prepared.graphs.batch(prepared.graphs.select([uid]))
            with torch.no_grad():
                alpha = model.attention(graph)[-1][0]  # (H, 2, 2)
            weight = (alpha[:, 0, 1] + alpha[:, 1, 0]).mean().item() / 2
            found = {"distance": row.distance, "seed": job.seed, "dft": row.dft, "weight": weight}
            table.append({"host": STUDIED, **found})
    return pd.DataFrame(table).round(5).to_dict("records")


def _interactions(job: Job) -> pd.DataFrame:
    """Columns distance (Å), side, dft, predicted (eV) of pairs that a run did not see, by uid."""
    prepared = _prepared(job)
    vacancies = _vacancies(prepared.dataset)
    chosen = vacancies.pairs
    if job.held_out != "pair":
        chosen = chosen[vacancies.fold(chosen) == job.held_out]
    model, _ = load_model(job.folder)
    graphs = prepared.graphs
    predicted = predict(model, graphs, graphs.select([vacancies.single, *chosen.index])).eform
    label = prepared.dataset.frame.eform[predicted.index]
    alone = vacancies.single
    columns = {"dft": label, "predicted": predicted}
    table = pd.DataFrame({name: (e - 2 * e[alone]) / 2 for name, e in columns.items()})
    return table.drop(alone).assign(distance=chosen, side=vacancies.side)


class _Vacancies(NamedTuple):
    """The vacancies of the chalcogen in a subset.

    Attributes:
        single: uid of the row that has one and nothing else.
        pairs: distance (Å) between the two, by uid, of rows that have two and nothing else.
        side: "same" or "other", by uid of these rows.
        distances: those of all two such vacancies in a row, images included, by uid; an entry each.
    """

    single: str
    pairs: pd.Series
    side: pd.Series
    distances: pd.Series

    def fold(self, distance: pd.Series) -> pd.Series:
        """The fold of each distance: shells in order, each to the next fold."""
        shells = np.sort(self.pairs.to_numpy())
        shells = shells[np.diff(shells, prepend=-np.inf) > SAME_DISTANCE]
        near = np.abs(distance.to_numpy()[:, None] - shells)
        fold = np.where(near.min(axis=1) < SAME_DISTANCE, near.argmin(axis=1) % FOLDS, -1)
        return pd.Series(fold, distance.index)


@lru_cache(maxsize=2)
def _vacancies(dataset: Dataset) -> _Vacancies:
    """Find them; DefectkitError where no row has one alone."""
    frame = dataset.frame
    symbol = dataset.hosts[frame.host.iloc[0]].symbols.species() - {"Mo", "W"}
    (symbol,) = symbol
    bare = frame.dopant == ""
    singles = frame.index[bare & (frame.removed == symbol)]
    if singles.empty:
        raise DefectkitError(f"{dataset.name} has no row with one {symbol} vacancy alone.")
    pairs = frame.index[bare & (frame.removed == f"{symbol},{symbol}")]
    vectors = _between_vacancies(dataset, symbol)
    distances = vectors.distance
    nearest = vectors.sort_values("distance").groupby(level=0).first().loc[pairs]
    side = nearest.height.gt(SAME_HEIGHT).map({True: "other", False: "same"})
    return _Vacancies(singles[0], nearest.distance, side, distances)


def _between_vacancies(dataset: Dataset, symbol: str) -> pd.DataFrame:
    """Distance and height (Å) between all two vacancies of an element in a row, by uid."""
    from ase.data import atomic_numbers

    from defectkit.training.prepared import graphs_of

    graphs = graphs_of(dataset, load_config(CONFIGS / "2dmd" / "sites.yaml").graph)
    found = []
    for numbers in torch.arange(len(graphs)).split(500):
        graph = graphs.batch(numbers.tolist())
        vectors = edge_vectors(
            graph.pos, graph.cell, graph.pair_index, graph.pair_shift, graph.batch
        )
        empty = graph.is_vacancy & (graph.original_z == atomic_numbers[symbol])
        both = empty[graph.pair_index].all(dim=0) & (graph.pair_index[0] != graph.pair_index[1])
        uids = np.array(graph.uid)[graph.batch[graph.pair_index[1][both]].numpy()]
        vectors = vectors[both]
        columns = {"distance": lengths(vectors).numpy(), "height": vectors[:, 2].abs().numpy()}
        found.append(pd.DataFrame(columns, uids))
    return pd.concat(found)


def ladder_rows(seed: int, path: Path) -> list[dict]:
    """A row a step, what is held out, model and training seed: test rows ever less like training.

    Columns `mae` (eV per site) with its bootstrap interval over test rows, and `coverage` of the
    90 % intervals that validation rows calibrate. Few-shot steps learn from some rows of a host:
    from scratch, or from a network that has not seen the host (`start`). The same rows judge all.

    Args:
        seed: of the bootstrap.
        path: the folder of 2DMD.
    """
    steps = [*_ladder_jobs(path)]
    train_all([job for *_, job in steps], "ladder")
    few = [*_few_shot_jobs(path)]
    train_all([job for *_, job in few], "few-shot")
    table = []
    for step, held_out, model, job in [*steps, *few]:
        run = Run(job.folder)
        rows, valid = run.part("test"), run.part("valid")
        half = Conformal.fit(valid).half_width(rows, CONFIDENCE)
        errors = _site_errors(job)
        found = {
            "step": step,
            "held_out": held_out,
            "model": model,
            "seed": job.seed,
            "n_train": run.summary["rows"]["train"],
            **_mean(errors.to_numpy(), seed),
            "coverage": ((rows.eform_pred - rows.eform).abs() <= half).mean(),
        }
        table.append(found)
    return pd.DataFrame(table).round(5).to_dict("records")


def _ladder_jobs(path: Path) -> Iterator[tuple[str, str, str, Job]]:
    """Step, what is held out, model and run."""
    splits = [("random", "", {})]
    splits += [("combination", "fold 0", {"data.split.fold": 0})]
    splits += [("density", "high", {"data.split.held_out": "high"})]
    splits += [("host", host, {"data.split.held_out": host}) for host in FORMULAS]
    for step, held_out, values in splits:
        for model in LADDER_MODELS:
            seeds = SEEDS if (model, step) == ("sites", "random") else SEEDS[:1]
            for k in seeds:
                config = with_values(
                    _config(model, path), {"data.split.kind": SPLITS[step], **values}
                )
                name = f"{model}-eform-{k}"
                if step != "random":
                    name = "-".join(["ladder", step, *held_out.split(), name])
                yield step, held_out, model, Job(FOLDER / name, config, k)


def _few_shot_jobs(path: Path) -> Iterator[tuple[str, str, str, Job]]:
    for host, subset in FEW_SHOT.items():
        start = FOLDER / f"ladder-host-{host}-sites-eform-{SEEDS[0]}"
        for n in SHOTS:
            for how, values in (("scratch", {}), ("fine-tuned", {"start": str(start)})):
                for k in SEEDS:
                    changes = {
                        "data.path": str(path / subset),
                        "data.split.seed": k,
                        "data.train_rows": n,
                        "batch_size": 10,
                        "epochs": SHOT_STEPS * 10 // n,
                        **values,
                    }
                    config = with_values(_config("sites", path), changes)
                    folder = FOLDER / f"few-{subset}-{n}-{how}-{k}"
                    yield f"few-shot {n} {how}", host, "sites", Job(folder, config, k)


def train_all(jobs: Sequence[Job], name: str) -> None:
    """Train what is missing side by side, one process a core."""
    missing = [job for job in jobs if not Run(job.folder).finished]
    if not missing:
        return
    with process_pool() as pool:
        running = [pool.submit(_trained, job) for job in missing]
        for done in tqdm(as_completed(running), total=len(missing), desc=name, unit="run"):
            done.result()


def _trained(job: Job) -> None:
    torch.set_num_threads(1)
    train(_prepared(job), job.folder, job.seed, progress=False, other_labels=True)


def _prepared(job: Job) -> Prepared:
    """The data of a run with its split."""
    prepared = prepare(job.config)
    if job.held_out is None:
        return prepared
    dataset = prepared.dataset
    vacancies = _vacancies(dataset)
    if job.held_out == "pair":
        test, hidden = set(vacancies.pairs.index), set()
    else:
        fold = vacancies.fold(vacancies.pairs)
        test = set(fold.index[fold == job.held_out])
        everywhere = vacancies.fold(vacancies.distances)
        hidden = set(everywhere.index[everywhere == job.held_out]) - test
    rest = sorted(set(dataset.frame.index) - test - hidden - {vacancies.single})
    order = np.random.default_rng(job.config.data.split.seed).permutation(len(rest))
    drawn = [rest[k] for k in order]
    learned, valid = drawn[: PAIR_ROWS - 1], drawn[PAIR_ROWS - 1 : PAIR_ROWS + PAIR_VALID]
    unused = [*drawn[PAIR_ROWS + PAIR_VALID :], *sorted(hidden)]
    parts = ([vacancies.single, *learned], valid, sorted(test), unused)
    split = Split("random", 0, None, None, dataset.fingerprint, *map(tuple, parts))
    return replace(prepared, split=split)


def _config(name: str, path: Path) -> RunConfig:
    """A configuration of `configs/2dmd` on the data at `path`."""
    return with_values(load_config(CONFIGS / "2dmd" / f"{name}.yaml"), {"data.path": str(path)})


def _few_rows(name: str, path: Path) -> RunConfig:
    """`_config` for a run on `PAIR_ROWS`, which its split has."""
    config = _config(name, path)
    changes = {"data.train_rows": None, "batch_size": min(PAIR_BATCH, config.batch_size)}
    return with_values(config, changes)


def _errors_by_subset(job: Job) -> dict[str, np.ndarray]:
    """`_site_errors` by subset."""
    subset = prepare(job.config).dataset.frame.subset
    errors = _site_errors(job)
    return {name: some.to_numpy() for name, some in errors.groupby(subset[errors.index])}


def _site_errors(job: Job) -> pd.Series:
    """Absolute errors per site on test rows, eV, by uid."""
    frame, rows = prepare(job.config).dataset.frame, Run(job.folder).part("test")
    sites = (frame.eform / frame.eform_per_site).round()[rows.index]
    return (rows.eform_pred - rows.eform).abs() / sites


def _mean(errors: np.ndarray, seed: int) -> dict[str, float]:
    low, high = interval(errors, seed=seed)
    return {"n_test": len(errors), "mae": errors.mean(), "mae_lo": low, "mae_hi": high}
