"""Benchmarks: `defectkit bench NAME` measures and writes `data/benchmarks/NAME.csv`.

Every CSV file names the machine and the command beside its numbers. A benchmark is a module with
a function `rows`, which takes a seed and returns rows; those that are made for one data set take
its name and place as well, and their file carries the name. The studies share one module.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from defectkit import DefectkitError
from defectkit.processes import process_pool

OUTPUT = Path("data/benchmarks")
STUDIES = ("optim", "ablation", "transfer", "learning")
MEASURES = (
    "graphs",
    "models",
    "tuning",
    "throughput",
    "scaling",
    "positions",
    "readouts",
    "precision",
    "attention",
    "ladder",
)
BENCHES = (*MEASURES, *STUDIES)
ON_DATA = ("models",)
REPEATS = 3


def run(
    name: str,
    seed: int = 0,
    output: Path = OUTPUT,
    data: str = "demo",
    path: Path | None = None,
    changes: Sequence[str] = (),
) -> Path:
    """Run one benchmark and write its table; DefectkitError for an unknown name.

    Args:
        name: of `BENCHES`.
        seed: of what is drawn at random.
        output: folder of the table.
        data: name of the data set, for benchmarks in `ON_DATA`.
        path: where the data lie, if elsewhere.
        changes: for the same; values of all configurations to change, such as "epochs=5".
    """
    if name not in BENCHES:
        raise DefectkitError(f"No benchmark is called '{name}'; choose from {', '.join(BENCHES)}.")
    import pandas as pd  # not above: it would count in the memory of what is measured

    command = ["defectkit", "bench", name, "--seed", str(seed)]
    given = {"seed": seed}
    if name in ON_DATA:
        given |= {"data": data, "path": path, "changes": changes}
        command += ["--data", data, *changes]
    if name in STUDIES:
        given |= {"name": name, "path": path}
    module = import_module(f"defectkit.bench.{'studies' if name in STUDIES else name}")
    table = pd.DataFrame(module.rows(**given))
    table["machine"] = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    table["command"] = shlex.join(command)
    if "seed" not in table:
        table["seed"] = seed
    file = Path(output) / (f"{name}_{data}.csv" if name in ON_DATA else f"{name}.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False)
    return file


def in_own_process(work: Callable, *arguments) -> Any:
    """What `work` returns for the arguments in a new process, whose memory is its own alone.

    Spawned, so that it does not start with what another has loaded.
    """
    with process_pool(1) as pool:
        return pool.submit(work, *arguments).result()


def shortest_ms(work: Callable, n: int) -> float:
    """Milliseconds of `work` by each of its n items: the shortest of some repeats.

    Other work on the machine disturbs the shortest least.
    """
    times = []
    for _ in range(REPEATS + 1):  # the first one pays for first allocations
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
