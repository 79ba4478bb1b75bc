"""Runs a benchmark and writes its table; clocks, memory and the finished runs that are measured.

Every CSV file names the machine and the command beside its numbers. A benchmark is a function that
takes a seed and returns rows (`BENCHES`). Those in `ON_DATA` take any data set, and their file
carries its name; the others know one data set, for a study that of its configuration.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectkit import DefectkitError
from defectkit.structures.writing import atomic, make_folder, process_pool

if TYPE_CHECKING:  # they would count in the memory of what is measured
    from torch.nn import Module

    from defectkit.data.dataset import Dataset
    from defectkit.data.splits import Split
    from defectkit.graphs.build import CrystalGraph
    from defectkit.graphs.dataset import GraphDataset
    from defectkit.structures.record import DefectRecord
    from defectkit.training.inference import ModelCard
    from defectkit.training.prepared import Prepared
    from defectkit.training.run import Run

OUTPUT = Path("data/benchmarks")
# Name of a benchmark: the module of this folder and the function that measures it.
BENCHES = {
    "graphs": ("speed", "graph_rows"),
    "models": ("models", "model_rows"),
    "models_2dmd": ("real", "model_rows"),
    "intervals_2dmd": ("real", "interval_rows"),
    "tuning": ("models", "tuning_rows"),
    "throughput": ("speed", "throughput_rows"),
    "predict": ("speed", "predict_rows"),
    "scaling": ("speed", "scaling_rows"),
    "positions": ("models", "position_rows"),
    "starts": ("starts", "start_rows"),
    "chain": ("starts", "chain_rows"),
    "readouts": ("studies", "readout_rows"),
    "precision": ("speed", "precision_rows"),
    "screen": ("screen", "screen_rows"),
    "choice": ("screen", "choice_rows"),
    "choice_2dmd": ("screen", "choice_2dmd_rows"),
    "scale": ("screen", "scale_rows"),
    "attention": ("studies", "attention_rows"),
    "ladder": ("studies", "ladder_rows"),
    "leakage": ("studies", "leakage_rows"),
    "reach_2dmd": ("reach", "reach_rows"),
    "pairs_2dmd": ("reach", "pair_rows"),
    "attention_2dmd": ("reach", "attention_rows"),
    "ladder_2dmd": ("climb", "ladder_rows"),
    "corpora": ("vectors", "corpus_rows"),
    "vectors": ("vectors", "knowledge_rows"),
    "janus": ("vectors", "janus_rows"),
    "vectors_dopant": ("vectors", "dopant_rows"),
    "vectors_hybrid": ("vectors", "hybrid_rows"),
    "vectors_2dmd": ("vectors", "host_rows"),
    **dict.fromkeys(
        ("optim", "ablation", "unrelaxed", "whole", "transfer", "learning"),
        ("studies", "study_rows"),
    ),
}
STUDIES = tuple(name for name, (_, rows) in BENCHES.items() if rows == "study_rows")
ON_DATA = ("models",)
REAL = tuple(name for name in BENCHES if name.endswith("_2dmd"))  # at a path
REPEATS = 3


def run(
    name: str,
    seed: int = 0,
    output: Path = OUTPUT,
    data: str | None = None,
    path: Path | None = None,
    changes: Sequence[str] = (),
) -> Path:
    """Run one benchmark and write its table.

    Args:
        name: of `BENCHES`.
        seed: of what is drawn at random.
        output: folder of the table.
        data: name of the data set, or a folder; the one that the benchmark knows by default.
        path: where the data lie, if elsewhere, for benchmarks in `ON_DATA` and `REAL` and studies.
        changes: for benchmarks in `ON_DATA`, values of all configurations to change, such as
            "epochs=5".

    Raises DefectkitError for an unknown name, for data, a path or changes that the benchmark has
    no use for, and where the table of other data or of another benchmark would be overwritten.
    """
    if name not in BENCHES:
        raise DefectkitError(f"No benchmark is called '{name}'; choose from {', '.join(BENCHES)}.")
    import pandas as pd  # not above: it would count in the memory of what is measured

    from defectkit.data.sources import SOURCES

    own = _own_data(name)
    _check_use(name, own, data, path, changes)
    data = data or own
    command = ["defectkit", "bench", name, "--seed", str(seed)]
    given: dict[str, Any] = {"seed": seed}
    if name in ON_DATA:
        given |= {"data": data, "path": path, "changes": changes}
        command += ["--data", data, *changes]
    if name in STUDIES:
        given |= {"name": name, "path": path}
    if name in REAL:
        given["path"] = path
    stem = f"{name}_{Path(data).name}" if name in ON_DATA else name
    file = Path(output) / f"{stem}.csv"
    if stem != name and stem in BENCHES and Path(output) == OUTPUT:
        raise DefectkitError(
            f"{file} is the table of another benchmark, `defectkit bench {stem}`; run that one, or "
            "choose another folder with --output."
        )
    if file.exists() and (path is not None or data not in SOURCES):
        _check_same_data(file, _fingerprint(data, path))
    module, function = BENCHES[name]
    rows = getattr(import_module(f"defectkit.bench.{module}"), function)
    make_folder(output)
    with atomic(file) as part:
        table = pd.DataFrame(rows(**given))
        table["machine"] = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
        table["command"] = shlex.join(command)
        if "seed" not in table:
            table["seed"] = seed
        table.to_csv(part, index=False)
    return file


def _own_data(name: str) -> str:
    """The data set that a benchmark measures where no other is named."""
    if name in REAL:
        return "2dmd"
    if name not in STUDIES:
        return "demo"
    from defectkit.training.config import StudyConfig, load_config
    from defectkit.training.pretrained import CONFIGS

    return load_config(CONFIGS / "studies" / f"{name}.yaml", StudyConfig).run.data.name


def _check_use(
    name: str, own: str, data: str | None, path: Path | None, changes: Sequence[str]
) -> None:
    """DefectkitError for an option that would be ignored."""
    if name in ON_DATA:
        return
    useless = {
        f"--data {data}": data not in (None, own),
        f"--path {path}": path is not None and name not in (*STUDIES, *REAL),
        " ".join(changes): bool(changes),
    }
    for option, given in useless.items():
        if given:
            raise DefectkitError(
                f"`bench {name}` measures {own} and has no use for {option}; "
                f"{' and '.join(ON_DATA)} takes other data."
            )


def _fingerprint(data: str, path: Path | None) -> str:
    from defectkit.training.config import DataConfig, ModelConfig, RunConfig
    from defectkit.training.prepared import prepare

    place = str(path) if path else None
    return prepare(RunConfig(ModelConfig("mean"), DataConfig(data, place))).dataset.fingerprint


def _check_same_data(file: Path, fingerprint: str) -> None:
    """DefectkitError where a table is of other data than these."""
    import pandas as pd

    if set(pd.read_csv(file).get("data_fingerprint", ())) != {fingerprint}:
        raise DefectkitError(
            f"{file} is a table of other data; choose another folder with --output, or move it "
            "away first."
        )


@dataclass(frozen=True)
class OpenRun:
    """A finished run with its model and its data, each loaded once, when it is first used.

    Attributes:
        run: the finished run.
    """

    run: "Run"

    @cached_property
    def _loaded(self) -> "tuple[Module, ModelCard]":
        from defectkit.training.inference import load_model

        return load_model(self.run.folder)

    @cached_property
    def prepared(self) -> "Prepared":
        """The configuration of the run with its data."""
        from defectkit.training.prepared import prepare

        return prepare(self.run.config)

    @property
    def model(self) -> "Module":
        """The trained network."""
        return self._loaded[0]

    @property
    def card(self) -> "ModelCard":
        """The card of the network."""
        return self._loaded[1]

    @property
    def dataset(self) -> "Dataset":
        """The cleaned data that the run was trained on."""
        return self.prepared.dataset

    @property
    def split(self) -> "Split":
        """The split of the data."""
        return self.prepared.split

    def graph(self, record: "DefectRecord") -> "CrystalGraph":
        """The graph of one record of the data, as the network reads it."""
        from defectkit.graphs.build import build_graph

        return build_graph(record, self.card.graph, self.dataset.hosts[record.host])

    def graphs(self, **changes: object) -> "GraphDataset":
        """The graphs of all records, with `changes` to the network's `GraphConfig`."""
        from defectkit.training.prepared import graphs_of

        return graphs_of(self.dataset, replace(self.card.graph, **changes))


def shipped(name: str, seed: int = 0) -> OpenRun:
    """The shipped run of the configuration `name` with a training seed.

    Raises DefectkitError where it is not there.
    """
    from defectkit.training.pretrained import shipped_run

    return OpenRun(shipped_run(name, seed))


def in_own_process(work: Callable, *arguments: object) -> Any:
    """What `work` returns for the arguments in a new process, whose memory is its own alone.

    Spawned, so that it does not start with what another has loaded.
    """
    with process_pool(1) as pool:
        return pool.submit(work, *arguments).result()


def shortest_ms(
    work: Callable[[], object], n: int, repeats: int = REPEATS, seconds: float = 0.0
) -> float:
    """Milliseconds of `work` by each of its n items: the shortest of the repeats.

    Other work on the machine disturbs the shortest least. `work` runs at least `repeats` times
    and `seconds` long.
    """
    work()  # it pays for first allocations
    times: list[float] = []
    while len(times) < repeats or sum(times) < seconds:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return round(1e3 * min(times) / n, 3)


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had when it started this process
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
