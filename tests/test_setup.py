"""Set-up says in one sentence why it cannot go on, and does nothing the second time."""

import importlib.util
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "setup.py"


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
