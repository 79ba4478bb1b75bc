"""A command of the kit in a process of its own, whose surroundings fail; for test_faults.py.

Forked from a process that has imported all that is heavy. What would take minutes, and what these
tests are not about, is replaced: relaxations, measurements, the notebooks and the address of a
data set. What the commands write, and how, is not.
"""

import ctypes
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightning.pytorch  # noqa: F401 - for all that are forked
import matplotlib.pyplot as plt  # noqa: F401
import nbconvert  # noqa: F401
import papermill  # noqa: F401
import pymatgen.io.cif  # noqa: F401
import sklearn.ensemble  # noqa: F401

from defectkit import cli
from defectkit.bench import speed
from defectkit.data import demo, potential
from defectkit.data.sources import SOURCES
from defectkit.predict.predictor import Predictor  # noqa: F401 - heavy too
from defectkit.structures.defects import make_defect
from defectkit.structures.hosts import HOSTS, supercell_size
from defectkit.teach import notebooks
from defectkit.training import train  # noqa: F401

LIMIT = 300  # bytes that a file may have where the disk is full
CAPABILITIES = 0x20080522  # version 3 of Linux's header


def run(arguments: list[str], folder: Path, fault: str, source: dict, said) -> None:
    """Run `defectkit ARGUMENTS` in `folder`; the exit status is the command's.

    Args:
        arguments: of the command line.
        folder: where it works; its folder `notebooks` stands in for the kit's.
        fault: "kill", "full", "read-only", or "".
        source: fields of the data set imp2d that are replaced.
        said: a pipe that gets all output.
    """
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.chdir(folder)
    _stand_ins(folder, source)
    {"kill": _kill, "full": _fill, "read-only": _obey, "": lambda: None}[fault]()
    sys.argv = ["defectkit", *arguments]
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    os._exit(status)


def _stand_ins(folder: Path, source: dict) -> None:
    def relaxed(candidate, host, mu):
        time.sleep(0.02)
        made = make_defect(
            host.strained(candidate.strain), host.repeat, candidate.site, candidate.dopant
        )
        pairs = {
            "name": candidate.name,
            "host": candidate.host,
            "dopant": candidate.dopant,
            "defecttype": candidate.site.kind,
            "site": candidate.site.name,
            "eform": 1.0,
            "spin": 0.0,
            "removed": ",".join(made.removed),
            "converged": True,
            "strain": candidate.strain,
            "max_force": 0.01,
            "conv1": 0.0,
            "conv2": 0.0,
            "label_source": potential.LABEL_SOURCE,
        }
        return made.atoms, pairs, {"unrelaxed_positions": made.atoms.positions}

    def host(name):
        unit = HOSTS[name].unit_cell()
        return demo.HostReference(unit, supercell_size(unit), -1.0, 1)

    @contextmanager
    def executor(workers, scheduler):
        with ThreadPoolExecutor(1) as threads:
            yield threads

    def measured(seed):
        time.sleep(0.3)
        return [{"builder": f"builder {k}", "n_atoms": k} for k in range(50)]

    demo.compute_row, demo.relax_host, demo._executor = relaxed, host, executor
    potential.chemical_potential = lambda symbol: ("bulk", -1.0)
    speed.graph_rows = measured
    notebooks.FOLDER = folder / "notebooks"
    SOURCES["imp2d"] = replace(SOURCES["imp2d"], **source)


def _kill() -> None:
    """Die by SIGKILL when the first file of the output is to get its name, or rows are stored."""
    rename, store, stored = os.replace, demo._store, []

    def replaced(part, target):
        if "cache" not in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(part, target)

    def stored_once(*arguments):
        if stored:
            os.kill(os.getpid(), signal.SIGKILL)
        stored.append(1)
        return store(*arguments)

    os.replace, demo._store = replaced, stored_once


def _fill() -> None:
    """No file may become larger than `LIMIT`, which fails as a full disk does."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def _obey() -> None:
    """Be bound by permissions, root as well."""
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
        none = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
