"""Set-up: makes `.venv` beside the Makefile and installs the pinned packages into it.

Run it with any Python 3; it looks for one of the versions the kit supports. Only the standard
library is used. A second call does nothing unless the pins, or the place of the folder, changed.
"""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
KERNEL = VENV / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
STAMP = VENV / "setup.sha256"
LOG = VENV / "setup.log"

SUPPORTED = ((3, 11), (3, 12), (3, 13))
NEEDED_GB = 3
DISK_FULL = (
    f"the disk is full: {VENV} needs {NEEDED_GB} GB (more with a CUDA build of PyTorch); "
    "free some space and run the command again."
)
NO_NETWORK = (
    "no network: pip cannot reach its package index; connect, or set pip's proxy or mirror, "
    "and run the command again."
)
NETWORK_SIGNS = re.compile(
    "NewConnectionError|NameResolutionError|ConnectTimeoutError|ProxyError|ReadTimeoutError"
    "|Network is unreachable|connection broken|Failed to establish a new connection",
    re.IGNORECASE,
)
# PyTorch's own index of builds without CUDA, which are several GB smaller.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 2.0  # s, for that index to answer
CHOICE = "DEFECTKIT_TORCH"  # "pip" for what pip offers, or the address of an index to take


class SetupError(Exception):
    """Why set-up cannot go on, in one sentence that says what to do."""


def set_up() -> None:
    """Make the environment, unless it is there already for these very pins."""
    key = fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == key:
        return
    print(f"Set-up: the environment of defectkit goes to {VENV}", flush=True)
    start = time.monotonic()
    if not works(PYTHON):
        if shutil.disk_usage(ROOT).free < NEEDED_GB * 1e9:
            raise SetupError(DISK_FULL)
        python = find_python()
        step(f"making .venv with {python}", [python, "-m", "venv", "--clear", str(VENV)])
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["-c", str(ROOT / "constraints.txt")]
    index = torch_index()
    # PyTorch first and alone; of two builds of one version pip takes that with a label, "+cpu".
    where = ["--extra-index-url", index] if index else []
    step(f"installing PyTorch{f' from {index}' if index else ''}", [*pip, *where, "torch"])
    step("installing everything else", [*pip, "-e", ".[test]"])
    if not KERNEL.exists():
        raise SetupError(f"the Jupyter kernel is missing; remove {VENV} and run the command again.")
    STAMP.write_text(key)
    print(f"Set-up done in {time.monotonic() - start:.0f} s, with Jupyter kernel python3.")


def torch_index() -> str:
    """Address of the index that PyTorch comes from; empty for what pip offers.

    Where pip would bring CUDA (Linux and Windows) and no NVIDIA GPU is found, that of the CPU
    builds if it answers in time.
    """
    chosen = os.environ.get(CHOICE, "")
    if chosen:
        return "" if chosen == "pip" else chosen
    with_cuda = sys.platform.startswith(("linux", "win"))
    return CPU_INDEX if with_cuda and not has_gpu() and answers(CPU_INDEX) else ""


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is at work here."""
    devices = Path("/proc/driver/nvidia/gpus")
    if devices.is_dir() and any(devices.iterdir()):
        return True
    command = shutil.which("nvidia-smi")
    try:
        return (
            bool(command)
            and b"GPU 0"
            in subprocess.run(
                [command, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20
            ).stdout
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def answers(index: str) -> bool:
    """Whether an index offers PyTorch, and says so within `PATIENCE`."""
    found = []

    def ask():
        try:
            with urllib.request.urlopen(f"{index}/torch/", timeout=PATIENCE) as page:
                found.append(b"torch-" in page.read(1 << 16))
        except (OSError, ValueError):
            found.append(False)

    # A thread, because a name that does not resolve may take longer than any timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found == [True]


def fingerprint() -> str:
    """Changes with the pins and with the place of the folder, which an environment remembers."""
    pins = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\n".join([*pins, str(ROOT).encode()])).hexdigest()


def find_python() -> str:
    """A supported Python on the path that can make virtual environments, `python3` if it is one."""
    versions, without_venv = set(), None
    for name in ["python3", *(f"python{major}.{minor}" for major, minor in SUPPORTED)]:
        path = shutil.which(name)
        version = path and version_of(path)
        if not version:
            continue
        versions.add(version)
        if version in SUPPORTED and works(path, "ensurepip"):
            return path
        if version in SUPPORTED:
            without_venv = version
    if without_venv:
        name = "python{}.{}".format(*without_venv)
        raise SetupError(
            f"{name} cannot make virtual environments; install its venv package "
            f"(Debian, Ubuntu: sudo apt install {name}-venv) and run the command again."
        )
    found = ", ".join("{}.{}".format(*version) for version in sorted(versions)) or "none"
    raise SetupError(
        f"Python 3.11, 3.12 or 3.13 is needed, found {found}; install one of them "
        "and run the command again."
    )


def version_of(python: str) -> "tuple[int, int] | None":
    """(major, minor) of an interpreter; None for one that does not start, such as an idle shim."""
    answer = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        return None
    major, minor = map(int, answer.stdout.split())
    return major, minor


def works(python: "str | Path", module: str = "pip") -> bool:
    """Whether this is a supported Python that has `module`."""
    if not Path(python).exists() or version_of(str(python)) not in SUPPORTED:
        return False
    command = [str(python), "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def step(what: str, command: "list[str]") -> None:
    """Run one command, saying what it does and how long it took; its output goes to the log."""
    start = time.monotonic()
    live = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    print(f"  {what} ...", end="" if live else "\n", flush=True)
    lines = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            lines.append(line)
            if live:
                print(f"\r\033[K  {what}: {line.strip()}"[: width + 4], end="", flush=True)
    if VENV.exists():
        with LOG.open("a") as log:
            log.writelines([f"$ {' '.join(command)}\n", *lines])
    if process.returncode:
        print()
        raise SetupError(diagnosis(what, "".join(lines)))
    print(f"{chr(13) + chr(27) + '[K' if live else ''}  {what}: {time.monotonic() - start:.0f} s")


def diagnosis(what: str, output: str) -> str:
    """One sentence for what pip or venv said when it failed."""
    if "No space left on device" in output:
        return DISK_FULL
    if NETWORK_SIGNS.search(output):
        return NO_NETWORK
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    last = (errors or output.splitlines() or ["no message"])[-1]
    return f"{what} failed: {last} (everything it said is in {LOG})."


def main() -> int:
    """Set up; every failure is one sentence."""
    try:
        set_up()
    except SetupError as error:
        print(f"Set-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = DISK_FULL if error.errno == errno.ENOSPC else f"{error}."
        print(f"Set-up stopped: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up stopped; the same command goes on with it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
