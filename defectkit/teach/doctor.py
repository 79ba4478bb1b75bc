"""Says whether everything works here: versions, memory, cores, data sets, widgets."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from defectkit import __version__

SHOWN = ("torch", "numpy", "ase", "pymatgen", "nglview", "ipywidgets", "jupyterlab")
COMFORTABLE_GB = 1.5  # free memory that one kernel with every library loaded is at ease with


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: its name.
        value: how it is.
        ok: True, False, or None where either is fine.
        advice: what to do about it.
    """

    what: str
    value: str
    ok: bool | None = True
    advice: str = ""

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "–"}[self.ok]
        advice = f"\n    → {self.advice}" if self.advice else ""
        return f"{mark} {self.what}: {self.value}{advice}"


@dataclass(frozen=True, repr=False)
class Report:
    """All findings; shows itself as text, one line each."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding is bad."""
        return all(finding.ok is not False for finding in self.findings)

    def __repr__(self) -> str:
        return "\n".join(map(str, self.findings))


def report() -> Report:
    """Look at everything."""
    return Report((*_versions(), *_machine(), *_data_sets(), *_widgets()))


def _versions() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if supported else "Use Python 3.11, 3.12 or 3.13."
    python = Finding("Python", version, supported, advice)
    different = _different_versions(metadata.requires("defectkit") or [])
    shown = ", ".join(f"{name} {_installed(name)}" for name in SHOWN)
    advice = f"Install again with `make tour` or environment.yml: {'; '.join(different)}."
    return [
        Finding("defectkit", __version__),
        python,
        Finding("packages", shown, not different, advice if different else ""),
        _torch_build(),
    ]


def _torch_build() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("PyTorch build", f"cannot be loaded ({error})", False, "Install it again.")
    cuda = torch.version.cuda
    return Finding("PyTorch build", f"CUDA {cuda}" if cuda else "CPU")


def _different_versions(requirements: list[str]) -> list[str]:
    """Which of the requirements "name==version" differ from what is installed."""
    different = []
    for requirement in requirements:
        if found := re.fullmatch(r"([\w.-]+)==([\w.]+)", requirement):
            name, wanted = found.groups()
            installed = _installed(name)
            if installed.split("+")[0] != wanted:  # torch adds "+cpu" and the like
                different.append(f"{name} is {installed}, tested with {wanted}")
    return different


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _machine() -> list[Finding]:
    total, free = memory_gb()
    enough = free >= COMFORTABLE_GB
    advice = "" if enough else "Shut down other kernels; one at a time is enough."
    return [
        Finding("memory", f"{free:.1f} GB free of {total:.1f} GB", enough or None, advice),
        Finding("cores", str(_cores())),
    ]


def memory_gb(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> tuple[float, float]:
    """Total and free memory in GB, less where a container such as Binder's grants less."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = limit_file.read_text().strip() if limit_file.exists() else "max"
    if limit != "max":
        used = int(limit_file.with_name("memory.current").read_text())
        total, free = min(total, int(limit)), min(free, int(limit) - used)
    return total / 1e9, free / 1e9


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _data_sets() -> list[Finding]:
    from defectkit.data.sources import CHECKOUT_DATA, SOURCES, data_folder

    findings = []
    for source in SOURCES.values():
        places = [folder / source.file for folder in (data_folder(), CHECKOUT_DATA)]
        found = next((place for place in places if place.exists()), None)
        if found:
            findings.append(Finding(f"data set {source.name}", str(found)))
        elif source.url:
            advice = (
                f"Optional: `defectkit data fetch {source.name}` ({source.n_bytes / 1e6:.0f} MB)."
            )
            findings.append(Finding(f"data set {source.name}", "not here", None, advice))
        elif source.page:
            advice = f"Optional: see {source.page}; save it as {places[0]}."
            findings.append(Finding(f"data set {source.name}", "not here", None, advice))
        else:
            advice = f"It comes with the repository: clone it again, or put it at {places[1]}."
            findings.append(Finding(f"data set {source.name}", "not here", False, advice))
    return findings


def _widgets() -> list[Finding]:
    manager = _front_end("@jupyter-widgets/jupyterlab-manager")
    reinstall = "Install ipywidgets and nglview again, at the versions of constraints.txt."
    sliders = Finding(
        "widgets", f"front end {manager or 'missing'}", bool(manager), "" if manager else reinstall
    )
    shipped = _front_end("nglview-js-widgets")
    try:
        from nglview._frontend import __frontend_version__ as wanted
    except ImportError:
        wanted = None
    match = wanted is not None and shipped == wanted
    # Python and JavaScript that differ give an empty widget without any error.
    views = Finding(
        "3D views",
        f"Python asks for front end {wanted or '(no nglview)'}, JupyterLab has {shipped or 'none'}",
        match,
        "" if match else reinstall,
    )
    browser = shutil.which("chromium")
    tested = Finding("chromium", browser or "none, only some tests want it", bool(browser) or None)
    # Only the browser knows; Python cannot ask it before a widget is there.
    webgl = Finding(
        "WebGL", "known to your browser alone; where it is missing, pictures stay", None
    )
    return [sliders, views, webgl, tested]


def _front_end(name: str) -> str | None:
    """Version of an extension of JupyterLab as its files say, or None."""
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("labextensions"):
        package = Path(folder) / name / "package.json"
        if package.exists():
            return json.loads(package.read_text(encoding="utf-8"))["version"]
    return None
