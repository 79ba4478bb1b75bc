"""Commands under kill -9, two at once, a full disk, an output or a home that is not writable.

Each ends well or in one sentence; what was there before is there whole, and the same command,
given again, ends well. With `-s` the table of all is printed.
"""

import hashlib
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from defectkit.predict.predictor import Predictor
from defectkit.structures.files import as_layer, write_structure
from defectkit.structures.hosts import HOSTS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork")
    or (os.name == "posix" and sys.platform != "linux" and not os.geteuid()),
    reason="processes that fork, and permissions that bind",
)
DOPANTS = "B C N O F Al Si P Cl Ti V Cr Mn Fe Co Ni Cu Zn Se Br Nb Te I W".split()
CONTENT = bytes(range(256)) * 40
NOTEBOOK = """# %% [markdown]
# # 00 · tiny
# %% tags=["parameters"]
dataset, quick, seed = "demo", True, 0
# %%
print("ran", dataset)
"""
CONFIG = """model: {name: cgcnn, settings: {hidden: 8, layers: 1, radial: 8, readout: 8}}
data: {name: rows}
graph: {cutoff: 3.5, angle_cutoff: null, all_pairs: false}
features: [elemental]
epochs: 2
batch_size: 8
"""
# Command line, and the files that stand for its output; "out" is a folder of its own.
COMMANDS = {
    "train": ("train tiny.yaml --output out/run", ["run/summary.yaml"]),
    "demo build": ("demo build --rows 25 --workers 1 --output out/demo.db", ["demo.db"]),
    "data fetch": ("data fetch imp2d", ["imp2d.db"]),
    "tour": ("tour 00 --output out", ["00_tiny.ipynb", "00_tiny.html", "index.html"]),
    "bench": ("bench graphs --output out", ["graphs.csv"]),
    "join": ("join out/cgcnn-0 out/cgcnn-1", ["cgcnn.safetensors"]),
    "solutions": ("solutions --output out", ["00_tiny.ipynb"]),
    "demo card": ("demo card --database demo.db --output out/card.md", ["card.md"]),
}
FAULTS = ("kill -9", "two at once", "full disk", "unwritable output", "unwritable home")
GROWS = ("train", "demo build")  # these go on with what is there; others write anew
TABLE: dict[tuple[str, str], str] = {}
each_command = pytest.mark.parametrize("command", COMMANDS)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


class Place:
    """A folder with inputs for all commands, and how to run them there."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.out = folder, folder / "out"
        self.source = {
            "url": f"http://127.0.0.1:{port}/",
            "n_bytes": len(CONTENT),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
        }
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["fault_child"])

    def start(self, line: str, fault: str = "", home: bool = True):
        """A process that begins with a command line, and the pipe with what it says."""
        data = "out" if line.startswith("data fetch") else "cache"
        environment = {"DEFECTKIT_DATA": str(self.folder / data)} if home else {}
        environment |= {"HOME": str(self.folder / ("home" if home else "locked/home"))}
        said, pipe = self.context.Pipe(duplex=False)
        arguments = (environment, line.split(), self.folder, fault, self.source, pipe)
        process = self.context.Process(target=_begin, args=arguments)
        process.start()
        pipe.close()
        return process, said

    def end(self, process, said) -> tuple[int, str]:
        """Exit status and all that was said."""
        with said, open(said.fileno(), "rb", closefd=False) as file:
            text = file.read().decode(errors="replace")
        process.join(60)
        return process.exitcode, text

    def run(self, line: str, fault: str = "", home: bool = True) -> tuple[int, str]:
        return self.end(*self.start(line, fault, home))

    def files(self) -> dict[str, bytes]:
        """What lies in the output, by name."""
        paths = sorted(path for path in self.out.rglob("*") if path.is_file())
        return {str(path.relative_to(self.out)): path.read_bytes() for path in paths}


def _begin(environment, *arguments):
    """In the new process."""
    import fault_child

    os.environ.pop("DEFECTKIT_DATA", None)
    os.environ.pop("XDG_CACHE_HOME", None)
    os.environ.update(environment, NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1")
    fault_child.run(*arguments)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:  # the fork server looks for its imports there
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        yield server.server_port
    server.shutdown()
    server.server_close()
    _print_table()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, server) -> Path:
    """Two finished runs and their predictor, a demo database, and the inputs of every command."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("rows/hosts", "notebooks/source", "out", "home", "locked"):
        (folder / name).mkdir(parents=True)
    unit = as_layer(HOSTS["MoS2"].unit_cell())
    write_structure(unit, folder / "rows/hosts/MoS2.vasp")
    lines = ["file,host,eform,spin"]
    for number, dopant in enumerate(DOPANTS):
        atoms = unit.repeat((3, 3, 1))
        atoms.symbols[int(np.flatnonzero(atoms.symbols == "S")[number % 5])] = dopant
        write_structure(atoms, folder / f"rows/{dopant}.vasp")
        lines.append(f"{dopant}.vasp,MoS2,{1 + number / 7},0.0")
    (folder / "rows/targets.csv").write_text("\n".join(lines))
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "notebooks/source/00_tiny.py").write_text(NOTEBOOK)
    place = Place(folder, server)
    begun = [
        place.start(line)
        for line in (
            "train tiny.yaml --seed 0 --output out/cgcnn-0",
            "train tiny.yaml --seed 1 --output out/cgcnn-1",
            "demo build --rows 12 --workers 1 --output demo.db",
        )
    ]
    for status, said in [*(place.end(*one) for one in begun), place.run(COMMANDS["join"][0])]:
        assert status == 0, said
    return folder


@pytest.fixture
def place(prepared, server, tmp_path) -> Iterator[Place]:
    """A copy of all that, with older files where a command shall write anew."""
    shutil.copytree(prepared, tmp_path / "place")
    place = Place(tmp_path / "place", server)
    yield place
    place.out.chmod(0o755)


def older(place: Place, command: str) -> dict[str, bytes]:
    """Lay older files where the command writes anew; all that lies in the output then."""
    for name in () if command in GROWS else COMMANDS[command][1]:
        if not (place.out / name).exists():  # a predictor is, which no other file may be
            (place.out / name).write_text("old\n")
    return place.files()


def check(place: Place, command: str) -> None:
    """The output is whole."""
    for path in (place.out / name for name in COMMANDS[command][1]):
        text = path.read_bytes()
        if path.suffix == ".yaml":
            assert yaml.safe_load(text)["epochs"] == 2
            metrics = pd.read_csv(path.with_name("metrics.csv"))
            assert metrics.epoch.tolist() == [0, 1]
        elif path.name == "demo.db":
            with closing(sqlite3.connect(path)) as database:
                names = database.execute("SELECT value FROM text_key_values WHERE key = 'name'")
                names = [name for (name,) in names]
            assert len(names) == len(set(names)) == 25
        elif path.name == "imp2d.db":
            assert text == CONTENT
        elif path.suffix == ".csv":
            assert len(pd.read_csv(path)) == 50
        elif path.suffix == ".safetensors":
            assert len(Predictor.load(path).members) == 2
        elif path.suffix == ".ipynb":
            nbformat.validate(nbformat.reads(text.decode(), as_version=4))
        elif path.suffix == ".html":
            assert text.strip().endswith(b"</html>")
        else:
            assert text.startswith(b"#")
            assert text.endswith(b"\n")


def sentence(place: Place, status: int, said: str) -> str:
    """What a command said that was refused: one sentence that names a file, and no traceback."""
    assert status == 1, said
    assert "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("defectkit: ")]
    assert line.endswith("."), line
    return line.removeprefix("defectkit: ").replace(f"{place.folder}/", "")


def note(command: str, fault: str, text: str) -> None:
    TABLE[command, fault] = text


def _print_table() -> None:
    for fault in FAULTS:
        print(f"\n{fault}")
        for command in COMMANDS:
            print(f"  {command:10}  {TABLE.get((command, fault), '-')}")


@each_command
def test_a_killed_command_leaves_what_was_there_and_ends_well_when_given_again(place, command):
    line = COMMANDS[command][0]
    before = older(place, command)
    status, said = place.run(line, "kill")
    assert status == -signal.SIGKILL, said
    after = place.files()
    assert {name: after[name] for name in before} == before
    status, said = place.run(line)
    assert status == 0, said
    check(place, command)
    note(command, "kill -9", "older files whole; given again, it ends well")


@each_command
def test_two_at_once_do_not_harm_each_other(place, command):
    older(place, command)
    begun = [place.start(COMMANDS[command][0]) for _ in range(2)]
    ended = sorted(place.end(*one) for one in begun)
    assert ended[0][0] == 0, ended
    second = "both end well"
    if ended[1][0]:
        second = f"one ends well; the other: {sentence(place, *ended[1])}"
    check(place, command)
    assert not [name for name in place.files() if ".part" in name]
    note(command, "two at once", second)


@each_command
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(place, command):
    before = older(place, command)
    said = sentence(place, *place.run(COMMANDS[command][0], "full"))
    assert "out/" in said
    after = place.files()
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if ".part" in name]
    note(command, "full disk", said)
    assert place.run(COMMANDS[command][0])[0] == 0
    check(place, command)


@each_command
def test_an_output_that_cannot_be_written_is_one_sentence(place, command):
    before = older(place, command)
    place.out.chmod(0o555)
    said = sentence(place, *place.run(COMMANDS[command][0], "read-only"))
    assert "out" in said
    assert place.files() == before
    note(command, "unwritable output", said)


@each_command
def test_a_home_that_cannot_be_written_is_done_without(place, command):
    older(place, command)
    (place.folder / "locked").chmod(0o555)
    status, said = place.run(COMMANDS[command][0], "read-only", home=False)
    if command == "data fetch":  # its place is there
        note(command, "unwritable home", sentence(place, status, said))
        return
    assert status == 0, said
    assert said.count("Nothing is kept for the next time") <= 1
    check(place, command)
    told = [line for line in said.splitlines() if "Nothing is kept" in line]
    told = " ".join(told).replace(f"{place.folder}/", "")
    note(command, "unwritable home", f"ends well. {told}".strip())
