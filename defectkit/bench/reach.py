"""What a cutoff cannot see, measured on DFT labels of 2DMD.

* `pairs_2dmd`: two vacancies of the chalcogen at all distances, held out: the energy of their
  interaction as DFT has it, and as networks with and without a cut have it.
* `reach_2dmd`: the errors of the same networks on ordinary rows.
* `attention_2dmd`: the attention between the two vacancies, beside that energy.

All train what is missing into `build/runs/2dmd/`, with one thread a run, and go on where they were
interrupted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from ase.data import atomic_numbers
from torch import nn

from defectkit import DefectkitError
from defectkit.bench.real import FOLDER, SEEDS, n_sites, place, whole
from defectkit.bench.studies import train_all
from defectkit.data.dataset import Dataset
from defectkit.data.splits import Split
from defectkit.evaluation.metrics import interval
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.training.config import RunConfig, load_config, with_values
from defectkit.training.inference import load_model, predict
from defectkit.training.prepared import Prepared, graphs_of, prepare
from defectkit.training.pretrained import CONFIGS
from defectkit.training.run import Run
from defectkit.training.train import train

CUTS = (5.0, 8.0, 12.0)  # Å
HOSTS = {"MoS2": "low_MoS2", "WSe2": "low_WSe2"}  # with pairs of vacancies at many distances
STUDIED = "MoS2"  # where there is time for all: every cut, distances held out, all atoms
PAIR_ROWS = 1500  # of a subset that are learned from: networks of all atoms take their time
PAIR_BATCH = 32
FOLDS = 5  # of the distances of pairs
SAME_DISTANCE = 0.05  # Å
SAME_HEIGHT = 0.5  # Å
PAIR_VALID = 300
ALL_PAIRS = "all pairs"
GLOBAL, LOCAL = "all atoms, global", "all atoms, local"
# Attention that does not begin at the defect, since nothing tells it which nodes are the defect's.
DILUTED = "all atoms, global without ψ"
ALL_ATOMS: dict[str, tuple[str, dict]] = {  # word in the names of folders, and what is changed
    GLOBAL: ("global", {}),
    DILUTED: ("diluted", {"model.settings.psi": False}),
    LOCAL: ("local", {"model.settings.global_layers": 0}),
}


class Job(NamedTuple):
    """A run: folder, configuration, seed, and what is held out.

    Attributes:
        held_out: "pair" for all pairs of vacancies, or the number of a fold of their distances.
    """

    folder: Path
    config: RunConfig
    seed: int
    held_out: str | int


def reach_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """A row a host, network and training seed of `pair_rows`: its error on ordinary rows.

    `mae` is that of formation energies on the validation rows, eV per site, with its bootstrap
    interval. These rows chose the epoch of each network, and nothing else.

    Args:
        seed: of the bootstrap.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    jobs = [one for one in _pair_jobs(path) if one[2].held_out == "pair"]
    _train_missing([job for *_, job in jobs])
    table = []
    for host, network, job in jobs:
        rows = Run(job.folder).part("valid")
        sites = n_sites(prepare(job.config).dataset.frame.loc[rows.index])
        errors = ((rows.eform_pred - rows.eform).abs() / sites).to_numpy()
        low, high = interval(errors, seed=seed)
        found = {"n_train": PAIR_ROWS, "n_valid": len(errors), "mae": errors.mean()}
        table.append(
            {"host": host, "network": network, "seed": job.seed, **found}
            | {"mae_lo": low, "mae_hi": high}
        )
    return _stamped(pd.DataFrame(table), path)


def pair_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """A row a pair of vacancies, network and training seed.

    `dft` and `predicted` are (E_pair - E_far) / 2, the energy in eV that each of two vacancies has
    from the other at `distance` Å, beyond that of the pair farthest apart. Against two single ones
    a network would be judged by what it knows of one row with one vacancy, which is always
    learned from. `side`: whether both are missing from the "same" side of the layer, or the second
    from the "other". `held_out` "pair": no row with two such vacancies alone is learned from;
    "shell": no row at all that has two such vacancies so far apart.

    Args:
        seed: not used, since nothing is drawn.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    jobs = list(_pair_jobs(path))
    _train_missing([job for *_, job in jobs])
    tables = []
    for host, network, job in jobs:
        table = _interactions(job, *_opened(job)).assign(
            host=host,
            held_out="pair" if job.held_out == "pair" else "shell",
            network=network,
            seed=job.seed,
        )
        tables.append(table)
    order = ["host", "held_out", "network", "seed", "side", "distance"]
    rows = pd.concat(tables).sort_values(order)
    return _stamped(rows[[*order, "dft", "predicted"]], path)


def _pair_jobs(path: Path | None) -> Iterator[tuple[str, str, Job]]:
    """Host, name of the network and run."""
    path = place(path)
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
        for name, (word, changes) in ALL_ATOMS.items():
            config = with_values(hybrid, changes)
            folder = FOLDER / f"pairs-{subset}-{word}-{k}"
            yield STUDIED, name, Job(folder, config, k, "pair")
    sites = _few_rows("sites", path / HOSTS[STUDIED])
    for fold in range(FOLDS):
        folder = FOLDER / f"shells-{HOSTS[STUDIED]}-{fold}-{SEEDS[0]}"
        yield STUDIED, ALL_PAIRS, Job(folder, sites, SEEDS[0], fold)


def attention_rows(seed: int, path: Path | None = None) -> pd.DataFrame:
    """A row a pair of sulphur vacancies and training seed of the network of all atoms.

    `weight` is the attention between the two vacancies, a mean over both directions and all heads
    of the last layer; `dft` is as in `pair_rows`.

    Args:
        seed: not used, since nothing is drawn.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    jobs = [job for _, network, job in _pair_jobs(path) if network == GLOBAL]
    _train_missing(jobs)
    table = []
    for job in jobs:
        prepared, model = _opened(job)
        for uid, row in _interactions(job, prepared, model).iterrows():
            graph = prepared.graphs.batch(prepared.graphs.select([uid]))
            with torch.no_grad():
                alpha = model.attention(graph)[-1][:, :, graph.is_defect]  # (H, 2, 2)
            weight = (alpha[:, 0, 1] + alpha[:, 1, 0]).mean().item() / 2
            found = {"distance": row.distance, "seed": job.seed, "dft": row.dft, "weight": weight}
            table.append({"host": STUDIED, **found})
    return _stamped(pd.DataFrame(table), path)


def _opened(job: Job) -> tuple[Prepared, nn.Module]:
    """The data of a finished run and its network."""
    return _prepared(job), load_model(job.folder)[0]


def _interactions(job: Job, prepared: Prepared, model: nn.Module) -> pd.DataFrame:
    """Columns distance (Å), side, dft, predicted (eV) of pairs that a run did not see, by uid."""
    vacancies = _vacancies(prepared.dataset)
    chosen = vacancies.pairs
    if job.held_out != "pair":
        chosen = chosen[vacancies.fold(chosen) == job.held_out]
    graphs = prepared.graphs
    predicted = predict(model, graphs, graphs.select(vacancies.pairs.index)).eform
    label = prepared.dataset.frame.eform[predicted.index]
    far = vacancies.pairs.idxmax()
    columns = {"dft": label, "predicted": predicted}
    table = pd.DataFrame({name: (e - e[far]) / 2 for name, e in columns.items()})
    table = table.loc[chosen.index.difference([far])]
    return table.assign(distance=vacancies.pairs, side=vacancies.side)


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


def _stamped(table: pd.DataFrame, path: Path | None) -> pd.DataFrame:
    """The table with the fingerprint of the data it was made of."""
    found = whole(place(path)).fingerprint
    return table.round(5).reset_index(drop=True).assign(data_fingerprint=found)


def _train_missing(jobs: Sequence[Job]) -> None:
    """Train what is not finished."""
    missing = [(job,) for job in jobs if not Run(job.folder).finished]
    if missing:
        train_all(_trained, missing, "pairs")


def _trained(job: Job) -> None:
    torch.set_num_threads(1)
    train(_prepared(job), job.folder, job.seed, progress=False, other_labels=True)


def _prepared(job: Job) -> Prepared:
    """The data of a run with its split."""
    prepared = prepare(job.config)
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


def _few_rows(name: str, path: Path) -> RunConfig:
    """A configuration of `configs/2dmd` for the subset at `path` and a split with `PAIR_ROWS`."""
    config = load_config(CONFIGS / "2dmd" / f"{name}.yaml")
    size = min(PAIR_BATCH, config.batch_size)
    changes = {"data.path": str(path), "data.train_rows": None, "batch_size": size}
    return with_values(config, changes)
