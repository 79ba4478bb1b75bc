"""A class's notebooks in, a table of the checks that they pass out.

Each notebook runs in a process of its own, behind as many walls as the system grants: no network,
no file of anybody else within reach, no process of anybody else to be seen. The grader reads the
answers out of it as data, calls its functions from outside, and judges both itself: what a notebook
prints, and what it does to its own copy of the checks, counts for nothing. It cannot tell an answer
that was found from one that was looked up.
"""

import ast
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode

from defectkit import DefectkitError
from defectkit.data.sources import data_folder
from defectkit.structures.writing import atomic
from defectkit.teach import checks, notebooks
from defectkit.teach.answers import Fault
from defectkit.teach.worker import MAX_BYTES, decode, encode

COLUMNS = ["file", "notebook", "passed", "exercises", "right", "wrong", "open", "seconds", "note"]
CELL_SECONDS = 120.0  # longest time of one cell
GRACE = 15.0  # s after which a process that was told to stop is ended
START_SECONDS = 180.0
CHECK = re.compile(r"""check\(\s*["'](\d\d-\d+)["']""")
# What a notebook's process may see of the environment.
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")
# A shell's script: its own folder may be written to, every other mount may not.
READ_ONLY = """mount --bind "$HOME" "$HOME"
cut -d" " -f5 /proc/self/mountinfo | while read -r at; do
  [ "$at" = "$HOME" ] || mount -o remount,bind,ro "$at" 2>/dev/null
done
cd "$HOME" && exec "$@" """
WALLS = {
    "network": ["--net"],
    "files": ["--mount"],
    "processes": ["--pid", "--fork", "--kill-child"],
}


@dataclass(frozen=True)
class Walls:
    """What keeps a notebook in: the command that its process begins with, and what was tried.

    Attributes:
        command: to put before the process; empty where the system grants none.
        hold: which of "network", "files" and "processes" were found out of reach.
    """

    command: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()

    def __str__(self) -> str:
        missing = [name for name in WALLS if name not in self.hold]
        if not missing:
            return "Each notebook runs without a network, and reaches no file or process of yours."
        return (
            f"This system does not keep a notebook away from {' and '.join(missing)}: it runs with "
            "your rights. Grade in a container, or under an account that owns nothing."
        )


def find_walls() -> Walls:
    """The walls that this system grants, each tried: does a process reach what it should not?"""
    granted = [flag for flags in WALLS.values() if _granted(flags) for flag in flags]
    command = ("unshare", "--user", "--map-root-user", *granted) if granted else ()
    if "--mount" in granted:
        command = (*command, "sh", "-c", READ_ONLY, "sh")
    return Walls(command, tuple(name for name in WALLS if not _reached(name, command)))


def _granted(flags: list[str]) -> bool:
    try:
        tried = ["unshare", "--user", "--map-root-user", *flags, "true"]
        return subprocess.run(tried, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _reached(what: str, command: tuple[str, ...]) -> bool:
    """Whether a process behind these walls reaches a port, a file or a process of ours."""
    with contextlib.ExitStack() as stack:
        folder, ours = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in "ab")
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        code = {
            "network": f"import socket; socket.create_connection({server.getsockname()!r}, 2)",
            "files": f"open({str(Path(ours, 'x'))!r}, 'w')",
            "processes": f"import os; os.kill({os.getpid()}, 0)",
        }[what]
        run = [*command, sys.executable, "-c", code]
        return not subprocess.run(run, capture_output=True, env=_environment(folder)).returncode


def _environment(folder: str | Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    own = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "IPYTHONDIR"), str(folder))
    fixed = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "DEFECTKIT_DATA": str(data_folder())}
    paths = [str(notebooks.ROOT), kept.get("PYTHONPATH", "")]  # the kit that grades is used
    return {**kept, **own, **fixed, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Ended(Exception):  # noqa: N818 - it is what happened to a notebook
    """The process of a notebook is no more: it died, or it was ended because of its time."""


class Room:
    """The process that runs a notebook; see `defectkit.teach.worker`.

    Args:
        walls: what keeps it in.
        folder: the only one that it may write to.
        deadline: `time.monotonic()` at which it is ended.
    """

    def __init__(self, walls: Walls, folder: Path, deadline: float) -> None:
        self.deadline = deadline
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        worker = [sys.executable, "-m", "defectkit.teach.worker", str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            [*walls.command, *worker],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._heard = b""

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def ask(self, patience: float, **request: object) -> dict:
        """What the process says to a request; it has `patience` seconds, then `Ended`."""
        name = secrets.token_hex(8)  # what was said to another request is not heard
        until = min(self.deadline, time.monotonic() + patience)
        self._send(json.dumps({"id": name, **request}).encode() + b"\n", until)
        while True:
            try:
                answer = json.loads(self._line(until))
                if answer["id"] == name:
                    return dict(answer["said"])
            except (ValueError, LookupError, TypeError):
                continue

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(until - time.monotonic(), 0)):
                raise Ended("took too long and was ended")

    def _send(self, data: bytes, until: float) -> None:
        while data:
            self._wait(self._out, selectors.EVENT_WRITE, until)
            try:
                data = data[os.write(self._out, data) :]
            except BrokenPipeError as error:
                raise Ended("ended by itself") from error

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._heard:
            self._wait(self._in, selectors.EVENT_READ, until)
            more = os.read(self._in, 1 << 20)
            if not more:
                raise Ended("ended by itself")
            self._heard += more
            if len(self._heard) > 2 * MAX_BYTES:
                raise Ended("said too much and was ended")
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def answer(self, expression: str) -> object:
        """The value of an expression; `...` where there is none."""
        said = self.ask(CELL_SECONDS, value=expression)
        if "function" in said.get("value", {}):
            return functools.partial(self._call, expression)
        try:
            return decode(said["value"]) if "value" in said else ...
        except (ValueError, LookupError, TypeError, AttributeError):
            return None  # which no exercise asks for

    def _call(self, expression: str, *arguments: object) -> object:
        """What a function in the process returns."""
        said = self.ask(
            checks.SECONDS + GRACE,
            value=expression,
            arguments=[encode(one) for one in arguments],
            names=[f"argument {k}" for k in range(1, len(arguments) + 1)],
            takes="see the exercise.",
        )
        if "value" not in said:
            raise Fault(str(said.get("fault", "your function stopped."))[:500])
        return decode(said["value"])


@dataclass
class Grade:
    """What one notebook reached.

    Attributes:
        file: its path below the folder.
        notebook: number of the kit's notebook, or "".
        verdicts: by exercise: True, False, or None where there is no answer.
        seconds: that it took.
        note: what went wrong, or "".
        digest: of the file's bytes.
    """

    file: str
    notebook: str = ""
    verdicts: dict[str, bool | None] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    digest: str = ""

    def row(self) -> dict:
        """As a row of the table, whose columns are `COLUMNS` and the digest."""
        titles = {True: "right", False: "wrong", None: "open"}
        by = {title: [] for title in titles.values()}
        for number, right in self.verdicts.items():
            by[titles[right]].append(number)
        file = f"'{self.file}" if self.file[:1] in "=+-@" else self.file  # no formula of a sheet
        return {
            "file": file,
            "notebook": self.notebook,
            "passed": len(by["right"]),
            "exercises": len(self.verdicts),
            **{title: " ".join(numbers) for title, numbers in by.items()},
            "seconds": round(self.seconds, 1),
            "note": self.note,
            "digest": self.digest,
        }


def grade(
    folder: Path,
    output: Path,
    walls: Walls,
    minutes: float = 10.0,
    dataset: str = "demo",
    on_grade: Callable[[int, int, Grade], None] = lambda number, total, one: None,
) -> pd.DataFrame:
    """Grade every notebook below a folder and write the table, anew after each of them.

    Notebooks that the table has already, unchanged, are not run again.

    Args:
        folder: with the class's notebooks, by any name, in folders of their own or not.
        output: the table, CSV.
        walls: of `find_walls`.
        minutes: longest time of one notebook.
        dataset: what the notebooks read; data have to be those that the answers were found on.
        on_grade: called after each, with its number, how many there are, and the grade.

    Raises DefectkitError where there is no notebook, or the table cannot be written.
    """
    if os.name != "posix":
        raise DefectkitError("Grading needs Linux or macOS, where a notebook can be kept in.")
    paths = [p for p in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
    if not paths:
        raise DefectkitError(f"There is no notebook (.ipynb) in {folder}.")
    # All are read before any of them runs, which might change the others.
    texts = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    done = _graded(output)
    prepared: dict[str, dict[str, str]] = {}
    rows = []
    for number, (file, text) in enumerate(texts.items(), 1):
        digest = hashlib.sha256(text + dataset.encode()).hexdigest()[:16]
        if (known := done.get((file, digest))) is not None:
            rows.append(known)
            continue
        found = _grade_one(file, text, walls, 60 * minutes, dataset, prepared)
        found.digest = digest
        rows.append(found.row())
        with atomic(output) as part:
            pd.DataFrame(rows, columns=[*COLUMNS, "digest"]).to_csv(part, index=False)
        on_grade(number, len(texts), found)
    return pd.DataFrame(rows, columns=[*COLUMNS, "digest"])[COLUMNS]


def _graded(output: Path) -> dict[tuple[str, str], dict]:
    """Rows of the table, by file and digest; none where it is missing or not ours."""
    try:
        table = pd.read_csv(output, dtype=str, keep_default_na=False)
        rows = table[[*COLUMNS, "digest"]].astype({"passed": int, "exercises": int})
    except (OSError, ValueError, KeyError):
        return {}
    return {(row["file"].lstrip("'"), row["digest"]): row for row in rows.to_dict("records")}


def _grade_one(
    file: str, text: bytes, walls: Walls, seconds: float, dataset: str, prepared: dict
) -> Grade:
    """Grade one notebook; whatever it does is said in its note."""
    start = time.monotonic()
    found = Grade(file)
    try:
        notebook = nbformat.reads(text.decode("utf-8"), as_version=4)
        cells = [(c, str(c.source)) for c in notebook.cells if c.cell_type == "code"]
    except Exception:  # nbformat raises whatever its parsers do
        found.note = "this file is no notebook"
        return found
    asked = [number for _, source in cells for number in CHECK.findall(source)]
    known = {number: s for s in notebooks.sources() for number in notebooks.asked(s)}
    first = re.sub(r"\D", "", Path(file).stem)[:2] + "-1"  # where no check is left in it
    own = next((known[number] for number in [*asked, first] if number in known), None)
    if own is None:
        found.note = "no exercise of the kit is in it"
        return found
    numbers = notebooks.asked(own)
    found.notebook = own.stem.partition("_")[0]
    found.verdicts = dict.fromkeys(numbers)
    answers = _prepare(own, dataset, prepared)
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            room = stack.enter_context(Room(walls, Path(folder), start + seconds))
            _run(room, cells, answers, found, dataset)
    except Ended as end:
        found.note = f"its process {end}"
    if missing := [number for number in numbers if number not in asked]:
        found.note = "; ".join([*filter(None, [found.note]), f"no check of {', '.join(missing)}"])
    found.seconds = time.monotonic() - start
    return found


def _run(
    room: Room,
    cells: list[tuple[NotebookNode, str]],
    answers: dict[str, str],
    found: Grade,
    dataset: str,
) -> None:
    """Run the cells in their order, and judge each answer behind its check."""
    parameters = f"dataset, quick, seed = {dataset!r}, True, 0"
    tagged = [k for k, (cell, _) in enumerate(cells) if notebooks.has_tag(cell, "parameters")]
    place = tagged[0] if tagged else 0
    room.ask(START_SECONDS, run="", seconds=START_SECONDS)
    stopped = 0
    for number, (_, source) in enumerate(cells):
        said = room.ask(CELL_SECONDS + GRACE, run=source, seconds=CELL_SECONDS)
        stopped += "failed" in said
        if number == place:
            room.ask(CELL_SECONDS, run=parameters, seconds=CELL_SECONDS)
        for exercise in CHECK.findall(source):
            if exercise in found.verdicts:
                verdict = checks.judge(exercise, room.answer(answers[exercise]))
                found.verdicts[exercise] = verdict.right
    if stopped:
        found.note = f"{stopped} of {len(cells)} cells stopped with an error"


def _prepare(source: Path, dataset: str, prepared: dict) -> dict[str, str]:
    """Use the data of a notebook for the checks; by exercise, the expression of its answer.

    Both are read from the kit's own source of the notebook.
    """
    cells = jupytext.read(source, fmt="py:percent").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    if prepared.get("source") != source:
        prepared.clear()
        prepared |= {"source": source, "answers": {}}
        for cell in code:
            for number, expression in _expressions(cell):
                prepared["answers"][number] = expression
        shell = InteractiveShell.instance()
        with contextlib.redirect_stdout(io.StringIO()):
            for cell in code:
                shell.run_cell(cell, store_history=False).raise_error()
                if cell is code[0]:  # the parameters
                    shell.push({"dataset": dataset})
                if "teach.use(" in cell:
                    break
        prepared["data"] = checks.in_use()
    checks.use(prepared["data"])
    return prepared["answers"]


def _expressions(cell: str) -> Iterator[tuple[str, str]]:
    """Numbers and answers of the checks in a cell of ours."""
    for node in ast.walk(ast.parse(notebooks.plain(cell))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
            yield ast.literal_eval(node.args[0]), ast.unparse(node.args[1])
