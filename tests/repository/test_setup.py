"""Set-up says in one sentence why it cannot go on, and does nothing the second time."""

import importlib.util
import io
import os
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "setup.py"


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The script as a module that works in `tmp_path`, on a path without any Python."""
    spec = importlib.util.spec_from_file_location("set_up_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    places = {"ROOT": tmp_path, "VENV": venv, "PYTHON": venv / "bin/python"}
    places |= {"STAMP": venv / "setup.sha256", "LOG": venv / "setup.log"}
    places["KERNEL"] = venv / "share/jupyter/kernels/python3/kernel.json"
    for name, place in places.items():
        monkeypatch.setattr(module, name, place)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(module.CHOICE, raising=False)
    monkeypatch.setattr(module, "CPU_INDEX", "http://127.0.0.1:9")  # nobody answers
    return module


def fake_python(setup, name: str, version: str, modules: str = "ensurepip") -> None:
    """An interpreter that knows its version and some modules, and fails at all else."""
    path = setup.ROOT / "bin" / name
    path.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"*version_info*) echo {version};;\n"
        f'"import {modules}") exit 0;;\n'
        "*) exit 1;;\n"
        "esac\n"
    )
    path.chmod(0o755)


def sentence(setup, capsys) -> str:
    assert setup.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("Set-up stopped: ")
    assert error.count("\n") == 1
    assert error.endswith(".\n")
    return error


def test_no_python(setup, capsys):
    assert "Python 3.11, 3.12 or 3.13 is needed, found none" in sentence(setup, capsys)


def test_wrong_python(setup, capsys):
    fake_python(setup, "python3", "3 9")
    assert "found 3.9" in sentence(setup, capsys)


def test_an_idle_shim_is_passed_over(setup):
    shim = setup.ROOT / "bin/python3.11"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    fake_python(setup, "python3", "3 12")
    assert setup.find_python().endswith("bin/python3")


def test_no_venv_module(setup, capsys):
    fake_python(setup, "python3", "3 11", modules="nothing")
    assert "sudo apt install python3.11-venv" in sentence(setup, capsys)


def test_a_python_that_can_make_environments_is_preferred(setup):
    fake_python(setup, "python3.11", "3 11", modules="nothing")
    fake_python(setup, "python3.13", "3 13")
    assert setup.find_python().endswith("python3.13")


def test_the_python_that_comes_first_on_the_path_is_taken(setup):
    fake_python(setup, "python3.11", "3 11")
    fake_python(setup, "python3", "3 12")
    assert setup.find_python().endswith("bin/python3")


def test_disk_full_before(setup, capsys, monkeypatch):
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: usage(1e9))
    assert "the disk is full" in sentence(setup, capsys)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying ... NewConnectionError ...\nERROR: No matching", "no network"),
        ("WARNING: Retrying ... NameResolutionError(...)\nERROR: No matching", "no network"),
        ("hm\nERROR: No matching distribution found for x==9", "found for x==9"),
    ],
)
def test_what_pip_said_becomes_one_sentence(setup, capsys, monkeypatch, said, expected):
    def install():
        script = f"import sys; print({said!r}); sys.exit(1)"
        setup.step("installing", [sys.executable, "-c", script])

    monkeypatch.setattr(setup, "set_up", install)
    assert expected in sentence(setup, capsys)


def test_second_call_does_nothing_until_the_pins_change(setup, monkeypatch, capsys):
    setup.PYTHON.parent.mkdir(parents=True)
    setup.PYTHON.symlink_to(sys.executable)
    setup.STAMP.write_text(setup.fingerprint())
    monkeypatch.setattr(setup, "step", lambda *args: pytest.fail("something was installed"))
    assert setup.main() == 0
    assert capsys.readouterr().out == ""

    steps = []
    setup.KERNEL.parent.mkdir(parents=True)
    setup.KERNEL.touch()
    monkeypatch.setattr(setup, "step", lambda what, command: steps.append(command[-1]))
    monkeypatch.setattr(setup, "works", lambda python: True)
    (setup.ROOT / "constraints.txt").write_text("torch==0\n")
    assert setup.main() == 0
    assert steps == ["torch", ".[test]"]
    assert setup.STAMP.read_text() == setup.fingerprint()


def test_old_pythons_can_read_the_script():
    check = f"import ast; ast.parse(open({str(SCRIPT)!r}).read(), feature_version=(3, 7))"
    subprocess.run([sys.executable, "-c", check], check=True)


class Index(ThreadingHTTPServer):
    """Two package indices: /pip offers torch 1.0 as pip's own does, /cpu offers 1.0+cpu."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Pages)
        self.delay = 0.0

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(self.server.delay)
        index, *rest = self.path.strip("/").split("/")
        version = {"pip": "1.0", "cpu": "1.0+cpu"}.get(index)
        if version is None or rest[:1] != ["torch"]:
            self.send_error(404)
            return
        body = (
            b"<a href='torch-%s-py3-none-any.whl'>torch-</a>" % version.replace("+", "%2B").encode()
        )
        if len(rest) > 1:
            body = wheel(version)
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if len(rest) == 1 else "application/zip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def wheel(version: str) -> bytes:
    """A package named torch that holds nothing."""
    info = f"torch-{version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
        "RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in files.items():
            file.writestr(f"{info}/{name}", text)
    return content.getvalue()


@pytest.fixture
def index(setup, monkeypatch):
    server = Index()
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(setup, "CPU_INDEX", server.address("cpu"))
    monkeypatch.setattr(setup, "has_gpu", lambda: False)
    yield server
    server.shutdown()
    server.server_close()


def test_cpu_build_where_there_is_no_gpu_and_the_index_answers(setup, index):
    assert setup.torch_index() == index.address("cpu")


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_pip_alone_where_its_build_is_the_right_one(setup, index, monkeypatch, platform):
    monkeypatch.setattr(setup.sys, "platform", platform)
    assert bool(setup.torch_index()) == (platform != "darwin")
    monkeypatch.setattr(setup, "has_gpu", lambda: True)
    assert setup.torch_index() == ""


def test_an_index_that_answers_late_is_not_waited_for(setup, index, monkeypatch):
    index.delay = 3.0
    monkeypatch.setattr(setup, "PATIENCE", 0.3)
    start = time.monotonic()
    assert setup.torch_index() == ""
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("place", ["nowhere", ":9", "no address"])
def test_an_index_that_does_not_offer_it_is_passed_over(setup, index, monkeypatch, place):
    address = {"nowhere": index.address("nowhere"), ":9": "http://127.0.0.1:9"}.get(place, place)
    monkeypatch.setattr(setup, "CPU_INDEX", address)
    assert setup.torch_index() == ""


def test_a_variable_overrides_the_choice(setup, index, monkeypatch):
    monkeypatch.setenv(setup.CHOICE, "pip")
    assert setup.torch_index() == ""
    monkeypatch.setattr(setup, "has_gpu", lambda: True)
    monkeypatch.setenv(setup.CHOICE, "http://mirror.example/cuda")
    assert setup.torch_index() == "http://mirror.example/cuda"
    readme = (SCRIPT.parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"`{setup.CHOICE}=pip`" in readme


def test_a_gpu_is_found_by_its_driver(setup):
    assert not setup.has_gpu() or Path("/proc/driver/nvidia/gpus").is_dir()
    smi = setup.ROOT / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    smi.chmod(0o755)
    assert setup.has_gpu()
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert not setup.has_gpu() or Path("/proc/driver/nvidia/gpus").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(("answering", "expected"), [(True, "1.0+cpu"), (False, "1.0")])
def test_pip_takes_the_build_that_was_chosen(setup, index, monkeypatch, answering, expected):
    """Set-up's own command for PyTorch, with a real pip."""
    if not answering:
        monkeypatch.setattr(setup, "CPU_INDEX", index.address("nowhere"))
    commands = []
    setup.KERNEL.parent.mkdir(parents=True)
    setup.KERNEL.touch()
    monkeypatch.setattr(setup, "works", lambda python: True)
    monkeypatch.setattr(setup, "step", lambda what, command: commands.append(command))
    (setup.ROOT / "constraints.txt").write_text("torch==1.0\n")
    assert setup.main() == 0
    command = [sys.executable, *commands[0][1:], "--target", str(setup.ROOT / "packages")]
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.address("pip")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run(command, env=kept | pip, check=True, capture_output=True)
    (installed,) = (setup.ROOT / "packages").glob("torch-*.dist-info")
    assert installed.name == f"torch-{expected}.dist-info"
