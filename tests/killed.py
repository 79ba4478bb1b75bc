"""Work of the kit in child processes that are killed at random moments until it is done.

    python killed.py JOB FOLDER

Reads a data set and its split from FOLDER/rows.pickle. Importing takes longer than the work, so
that children are forks of a process that has all. What is left undisturbed lies in FOLDER/whole,
what was killed again and again and then ended in FOLDER/killed. Prints how many were killed.
"""

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import optuna.storages  # noqa: F401 - heavy, for all that are forked
import torch
from run_cases import CGCNN

from defectkit.data import demo, potential
from defectkit.data.splits import Split
from defectkit.graphs.dataset import GraphDataset, load_graphs
from defectkit.structures.defects import make_defect
from defectkit.structures.hosts import HOSTS, supercell_size
from defectkit.structures.writing import keep
from defectkit.training.config import Choice, RunConfig, TuneConfig, with_values
from defectkit.training.prepared import Prepared, graphs_of
from defectkit.training.run import Run
from defectkit.training.train import train
from defectkit.training.tune import TRIALS, tune

RUN = with_values(
    replace(CGCNN, epochs=16, batch_size=4),
    {"augment": ["strain"], "optimiser.name": "muon", "data.train_rows": 12},
)
SEARCH = TuneConfig(
    RunConfig({"name": "ridge"}),
    {"model.settings.alpha": Choice(low=0.01, high=10, log=True)},
    trials=12,
)
DEMO, DEMO_ROWS = "demo.db", 60
GRAPHS, SPLIT = "graphs.safetensors", "split.json"
MOST = 20  # that are killed: some of the writing jobs never end of themselves
LONGEST = 0.15  # of the time that the whole work takes, until a child is killed: at least six are


@dataclass(frozen=True)
class Job:
    """What is done, again and again.

    Attributes:
        work: takes a folder and does all, or what is left to do, in it.
        done: whether it is; what can only be written anew is never done.
    """

    work: Callable[[Path], None]
    done: Callable[[Path], bool]


def write_again(write: Callable[[Path], None], check: Callable[[Path], None]) -> Job:
    """A job that does nothing but write a file; whoever finds one reads it first."""

    def work(folder: Path) -> None:
        for _ in range(200):
            if any(folder.glob("[!.]*")):
                check(folder)
            write(folder)

    return Job(work, lambda folder: False)


def jobs(folder: Path) -> dict[str, Job]:
    few, split = pickle.loads((folder / "rows.pickle").read_bytes())
    built = load_graphs(few.records, few.hosts, RUN.graph)

    return {
        "train": Job(
            lambda place: train(Prepared(RUN, few, split), place, progress=False),
            lambda place: Run(place).finished,
        ),
        "tune": Job(
            lambda place: tune(SEARCH, Prepared(SEARCH.run, few, split), place),
            lambda place: (place / TRIALS).is_file(),
        ),
        "demo build": Job(
            lambda place: demo.build(place / DEMO, DEMO_ROWS, workers=1),
            lambda place: demo_rows(place) == DEMO_ROWS,
        ),
        "graphs": write_again(
            lambda place: keep(place / GRAPHS, built.save),  # as for the cache
            lambda place: GraphDataset.load(place / GRAPHS),
        ),
        "split": write_again(
            lambda place: split.save(place / SPLIT), lambda place: Split.load(place / SPLIT, few)
        ),
    }


def demo_rows(place: Path) -> int:
    return len(demo.connect(place / DEMO)) if (place / DEMO).is_file() else 0


def quick_demo() -> None:
    """A pause in place of every relaxation."""

    def row(candidate, host, mu):
        time.sleep(0.02)
        defect = make_defect(host.unit, host.repeat, candidate.site, candidate.dopant)
        pairs = {"name": candidate.name, "host": candidate.host, "site": candidate.site.name}
        pairs |= {"dopant": candidate.dopant, "strain": candidate.strain, "eform": 1.0}
        return defect.atoms, pairs, {"defect_positions": defect.positions}

    def host(name):
        unit = HOSTS[name].unit_cell()
        return demo.HostReference(unit, supercell_size(unit), -1.0, 1)

    demo.compute_row, demo.relax_host = row, host
    demo._executor = lambda workers, scheduler: nullcontext(ThreadPoolExecutor(1))
    potential.chemical_potential = lambda symbol: ("bulk", -1.0)


def child(work: Callable[[Path], None], place: Path) -> int:
    """The id of a process that does the work; its status is 1 where that fails."""
    if pid := os.fork():
        return pid
    try:
        work(place)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    quick_demo()
    job = jobs(folder)[name]
    if name == "train":
        few, _ = pickle.loads((folder / "rows.pickle").read_bytes())
        graphs_of(few, RUN.graph)  # in memory, for every child
    whole, place = folder / "whole", folder / "killed"
    for made in (whole, place):
        made.mkdir()
    begin = time.monotonic()
    assert os.waitpid(child(job.work, whole), 0)[1] == 0
    longest = LONGEST * (time.monotonic() - begin)
    draw, killed = random.Random(0), 0
    while not job.done(place) and killed < MOST:
        pid = child(job.work, place)
        time.sleep(draw.uniform(0.01, longest))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        killed += status == signal.SIGKILL
        assert status in (0, signal.SIGKILL), status
    assert os.waitpid(child(job.work, place), 0)[1] == 0
    print(killed)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
