"""Screening against the potential that made its labels, and the choice of what to label next.

screen   candidates a second, and how well their order agrees with relaxed energies.
scale    one large screening: rate, memory, bytes; where the time of a candidate goes.
choice   learning curves of the strategies of `screening.choose`, on labels of the demo data.
choice_2dmd   the same on labels of DFT.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from defectkit import DefectkitError
from defectkit.bench.measure import in_own_process, peak_mb

if TYPE_CHECKING:  # they would count in the memory of what is measured
    from pathlib import Path

    from defectkit.data.demo import Candidate, HostReference
    from defectkit.screening.candidates import Chunk, Space

COUNT = 2000  # candidates that nobody has computed
RELAXED = 200  # of them, drawn at random: half an hour of one core
TOP = 20
STRAINS = (0.0, -0.02, 0.02, -0.01, 0.01, -0.015, 0.015, -0.005, 0.005)
SCALED = 100_000  # candidates of the large screening
KILLS = (0.2, 0.6)  # shares of them after which it is killed, to go on in another process
SAMPLED = 4  # chunks, of which parts are timed one by one
ROWS = 2000  # of a data set, for replays
DENSE = "high_"  # how subsets of 2DMD begin whose cells have many defects of all kinds
BATCH, ROUNDS, SEEDS = 20, 10, 20


def screen_rows(seed: int, count: int = COUNT, relaxed: int = RELAXED) -> list[dict]:
    """A row a method, on the same candidates of the hosts of the demo data, none of its rows.

    Each method has a process of its own and one thread. What loads networks and hosts is not
    counted. The last three columns but memory are of a sample that CHGNet relaxed: correlation of
    ranks, mean absolute error (eV), and which share of the `TOP` lowest relaxed energies is among
    the `TOP` lowest of the method.

    Args:
        seed: of the draw.
        count: candidates.
        relaxed: how many of them are relaxed.
    """
    chunks = drawn(seed, count)
    ours, *measured = in_own_process(measure_ours, chunks)
    sample = ours.dropna().sample(min(relaxed, ours.notna().sum()), random_state=seed).index
    single, *of_single = in_own_process(measure_chgnet, chunks, None)
    truth, *of_truth = in_own_process(measure_chgnet, chunks, list(sample))
    return [
        _row("CHGNet relaxation", truth, truth, of_truth),
        _row("CHGNet single point", single, truth, of_single),
        _row("three networks", ours, truth, measured),
    ]


def _row(method: str, energies: pd.Series, truth: pd.Series, measured: list[float]) -> dict:
    both = pd.DataFrame({"ours": energies, "truth": truth}).dropna()
    top = min(TOP, len(both))
    lowest, found = (set(both[name].nsmallest(top).index) for name in ("truth", "ours"))
    per_s, peak = measured
    return {
        "method": method,
        "n_candidates": len(energies),
        "candidates_per_s": round(per_s, 3),
        "spearman_vs_relaxed": round(both.corr("spearman").iloc[0, 1], 3),
        "mae_vs_relaxed": round((both.ours - both.truth).abs().mean(), 3),
        "top20_recall": round(len(lowest & found) / top, 3),
        "peak_mb": round(peak),
        "n_relaxed": len(both),
    }


def drawn(seed: int, count: int) -> "list[Chunk]":
    """So many candidates without strain that are no rows of the demo data, in chunks by host."""
    from ase.db import connect

    from defectkit.data import demo
    from defectkit.data.sources import fetch
    from defectkit.screening.candidates import Chunk, Space
    from defectkit.structures.defects import named_sites

    path = fetch("demo")
    database = connect(path, type="db", use_lock_file=False)
    names, places = demo.inventory(database, path)
    hosts = demo.read_hosts(database.metadata)
    free = []
    for host, reference in hosts.items():
        # The data number some sites in another way than `find_sites` does now.
        called = named_sites(reference.unit, places.get(host, {}))
        families = Space({host: reference.unit}).families()
        for family, site in zip(families, called, strict=True):
            for dopant in family.dopants:
                if demo.Candidate(host, site, dopant, 0.0).name not in names:
                    free.append((family, dopant))
    chosen = np.random.default_rng(seed).choice(len(free), min(count, len(free)), replace=False)
    by_family: dict = {}
    for number in np.sort(chosen):
        family, dopant = free[number]
        by_family.setdefault(family, []).append(dopant)
    by_host: dict[str, list] = {}
    for family, dopants in by_family.items():
        by_host.setdefault(family.host, []).append(replace(family, dopants=tuple(dopants)))
    return [Chunk(tuple(families)) for families in by_host.values()]


def measure_ours(chunks: "Sequence[Chunk]") -> tuple[pd.Series, float, float]:
    """Formation energies (eV) by key, candidates a second, and peak memory (MB), in one thread."""
    from defectkit.screening.store import work_on

    work_on(chunks[0], None, 0.9)  # it loads the networks
    begin = time.perf_counter()
    tables = [work_on(chunk, None, 0.9)[1] for chunk in chunks]
    seconds = time.perf_counter() - begin
    energies = pd.concat(tables).eform
    return energies, len(energies) / seconds, peak_mb()


def measure_chgnet(
    chunks: "Sequence[Chunk]", keys: list[str] | None
) -> tuple[pd.Series, float, float]:
    """The same of CHGNet: of chosen candidates relaxed, or of all as they are."""
    from ase.db import connect

    from defectkit.data import demo
    from defectkit.data.sources import fetch

    demo.single_thread()
    metadata = connect(fetch("demo"), type="db", use_lock_file=False).metadata
    hosts = demo.read_hosts(metadata)
    mu = demo.read_potentials(metadata)
    given = {
        key: candidate
        for chunk in chunks
        for family in chunk.families
        for key, candidate in zip(family.keys, family.candidates)
        if keys is None or key in keys
    }
    first = next(iter(given.values()))
    _single_point(first, hosts[first.host], mu)  # it loads the potential
    begin, energies = time.perf_counter(), {}
    for key, candidate in given.items():
        if keys is None:
            energies[key] = _single_point(candidate, hosts[candidate.host], mu)
        else:
            _, row, _ = demo.try_row(candidate, hosts[candidate.host], mu)
            energies[key] = np.nan if row is None else row[1]["eform"]
    seconds = time.perf_counter() - begin
    return pd.Series(energies), len(energies) / seconds, peak_mb()


def _single_point(candidate: "Candidate", host: "HostReference", mu: dict[str, float]) -> float:
    """The formation energy (eV) of a structure as a recipe makes it; NaN where it has none."""
    from defectkit.data.demo import calculator
    from defectkit.structures.defects import make_defect

    defect = make_defect(host.unit, host.repeat, candidate.site, candidate.dopant)
    defect.atoms.calc = calculator()
    energy = np.nan
    with suppress(ValueError, RuntimeError):  # CHGNet's own, of atoms that lie in each other
        energy = defect.atoms.get_potential_energy()
    pristine = host.energy * int(np.prod(host.repeat))
    added, removed = mu.get(candidate.dopant, 0.0), sum(mu[s] for s in defect.removed)
    return energy - pristine - added + removed


def scale_rows(seed: int, count: int = SCALED) -> list[dict]:
    """Constants of one screening with all cores, a row a number: `what`, `value`, `unit`.

    Args:
        seed: not used, as nothing is drawn.
        count: so many candidates or more: hosts are added until there are as many, then strains.
    """
    measured = in_own_process(measure_screening, count) | in_own_process(measure_parts)
    return [{"what": name, "value": round(value, 4)} for name, value in measured.items()]


def measure_screening(count: int) -> dict[str, float]:
    """Of a screening of hosts of the demo data, killed on the way, in a folder thrown away."""
    import os
    import tempfile
    from multiprocessing import get_context
    from pathlib import Path

    import psutil

    from defectkit.predict.own import host_cells
    from defectkit.screening.candidates import CHUNK, Space
    from defectkit.screening.store import TABLE, Engine, screen

    hosts = host_cells(["all"])
    sizes = [len(Space({name: unit})) for name, unit in hosts.items()]
    few = 1 + int(np.searchsorted(np.cumsum(sizes), count))  # hosts that are enough
    strains = STRAINS[: -(-count // sum(sizes))]
    space = Space(dict(list(hosts.items())[:few]), strains=strains)
    largest = [0.0]

    def watch(done: int, total: int) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                largest.append(child.memory_info().rss / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        for share in KILLS:
            killed = get_context("spawn").Process(
                target=_screen_and_die, args=(space, folder, share)
            )
            killed.start()
            killed.join()
        screening = screen(space, folder, engine=Engine(workers=os.cpu_count()), progress=watch)
        seconds = time.perf_counter() - begin
        rows = len(screening.table())
        begin = time.perf_counter()
        screen(space, folder, engine=Engine(workers=os.cpu_count()))
        again = time.perf_counter() - begin
        size = Path(folder, TABLE).stat().st_size
        vector = screening.vectors(screening.table("chosen").index).shape[1] * 2
    return {
        "candidates": len(space),
        "rows": rows,
        "killed": len(KILLS),
        "workers": os.cpu_count(),
        "chunk": CHUNK,
        "seconds": seconds,
        "candidates_per_s": len(space) / seconds,
        "worker_peak_mb": max(largest),
        "parent_peak_mb": peak_mb(),
        "bytes_per_row": size / len(space),
        "vector_bytes": vector,
        "sieve_s": again,  # all that a screening does when no candidate is missing
        "task_bytes": len(ForkingPickler.dumps(next(space.chunks()))),
    }


def _screen_and_die(space: "Space", folder: str, share: float) -> None:
    """Screen a share of the candidates, then end as a power cut would end it."""
    import os
    import signal

    from defectkit.screening.store import Engine, screen

    def watch(done: int, total: int) -> None:
        if done >= share * total:
            os.kill(os.getpid(), signal.SIGKILL)

    screen(space, folder, engine=Engine(workers=os.cpu_count()), progress=watch)


def measure_parts() -> dict[str, float]:
    """Processor time of the parts of a candidate, ms, in one thread."""
    import sqlite3

    import torch

    from defectkit.graphs.dataset import GraphDataset
    from defectkit.predict.own import host_cells
    from defectkit.screening import store
    from defectkit.screening.building import build
    from defectkit.screening.candidates import Space
    from defectkit.training.inference import predict_together

    torch.set_num_threads(1)
    every = list(Space(host_cells(["all"])).chunks())
    chunks = every[:: len(every) // SAMPLED]
    predictor = store.Engine().load()
    spent = dict.fromkeys(("build", "networks", "all", "store"), 0.0)
    database = sqlite3.connect(":memory:")
    for name, columns in store.TABLES.items():
        database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")

    def clock(part: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        spent[part] += time.process_time() - begin
        return result

    store.work_on(chunks[0], None, 0.9)  # it loads the networks
    for chunk in chunks:
        made = clock("build", lambda c=chunk: list(build(c, predictor.card.graph)))
        graphs = GraphDataset.from_graphs([one.graph for one in made if one.graph is not None])
        clock("networks", lambda g=graphs: predict_together(predictor.networks, g))
        name, table = clock("all", lambda c=chunk: store.work_on(c, None, 0.9))
        clock("store", lambda n=name, t=table: store.keep(database, n, t))
    n = sum(map(len, chunks))
    rest = spent["all"] - spent["build"] - spent["networks"]
    parts = {"build": spent["build"], "networks": spent["networks"], "judge": rest}
    parts["store"] = spent["store"]
    return {f"{part}_ms": 1e3 * seconds / n for part, seconds in parts.items()} | {
        "sampled": n,
        "result_bytes": len(ForkingPickler.dumps((name, table))),
    }


def choice_rows(seed: int) -> pd.DataFrame:
    """Learning curves on rows of the demo data: a row a strategy, seed and number of labels.

    Args:
        seed: of the first of `SEEDS` draws.
    """
    from defectkit.graphs.dataset import load_graphs
    from defectkit.models.tabular.features import tabulate
    from defectkit.training.config import load_config
    from defectkit.training.prepared import prepare
    from defectkit.training.pretrained import CONFIGS

    config = load_config(CONFIGS / "hybrid-unrelaxed.yaml")
    dataset = prepare(config).dataset
    uids = dataset.frame.sample(ROWS, random_state=seed).index
    graphs = load_graphs([dataset[uid] for uid in uids], dataset.hosts, config.graph, skip=True)
    return _replayed("demo", tabulate(graphs), dataset.frame.eform, seed)


def choice_2dmd_rows(seed: int, path: "Path | None" = None) -> pd.DataFrame:
    """The same on rows of 2DMD with a high density of defects, labels DFT, eV per site.

    Args:
        seed: of the first of `SEEDS` draws.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    from defectkit.bench.real import place, whole
    from defectkit.graphs.dataset import load_graphs
    from defectkit.models.tabular.sparse import site_features
    from defectkit.training.config import load_config
    from defectkit.training.pretrained import CONFIGS

    graph = load_config(CONFIGS / "2dmd" / "lightgbm.yaml").graph
    dataset = whole(place(path))
    dense = dataset.frame[dataset.frame.subset.str.startswith(DENSE)]
    uids = dense.sample(min(ROWS, len(dense)), random_state=seed).index
    graphs = load_graphs([dataset[uid] for uid in uids], dataset.hosts, graph)
    rows = _replayed("2dmd", site_features(graphs), dataset.frame.eform_per_site, seed)
    return rows.assign(data_fingerprint=dataset.fingerprint)


def _replayed(data: str, features: pd.DataFrame, labels: pd.Series, seed: int) -> pd.DataFrame:
    """`choose.replay` of all columns that every row has, with the name of the data."""
    from defectkit.screening.choose import replay

    features, labels = features.loc[:, features.notna().all()], labels[features.index]
    if labels.isna().any():
        raise DefectkitError(f"A row of {data} has no label; fetch it anew.")
    curves = replay(features, labels, BATCH, ROUNDS, range(seed, seed + SEEDS))
    curves.insert(0, "data", data)
    return curves.round(4)
