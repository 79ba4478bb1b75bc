"""Notebooks from their sources: each is written once, in `notebooks/source/NN_name.py`.

A second notebook of one subject is `NNb_name.py`, and their exercises are counted through.

A source is in jupytext's percent format, with solutions in cells tagged `solution`. From it come
the student's notebook, which has dots in place of the answers, and the solved one. The tour runs
them all; `teach.site` makes pages of them.
"""

import ast
import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import jupytext
import nbformat
import psutil
from nbformat import NotebookNode
from traitlets.config import Config

from defectkit import DefectkitError
from defectkit.structures.writing import atomic, make_folder, process_pool, write_text
from defectkit.teach.checks import STRICT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
# What students find of a function; the solution's examples stand below it.
STUB = """def {name}({arguments}):
    return ...  # write it here


{name} = ...  # then delete this line
if {name} is not ...:  # an example"""
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
CELL_SECONDS = {"quick": 600, "full": 3600}  # longest time of one cell
NOTEBOOK_BYTES = 1.5e9  # of memory, at most
SAMPLE_SECONDS = 0.05  # a kernel can fill its memory and end within a few tenths
KERNEL_CONFIG = Config(KernelManager={"transport_encryption": "auto"})  # else ipykernel warns
CHECK = re.compile(r'^check\("([\d-]+)"', re.MULTILINE)
PRELUDE = "from defectkit.widgets.lesson import *"  # how every notebook begins
OPTIONAL = "(optional)"  # at the end of a section's heading: a short lesson can do without
OnCell = Callable[[str, int, int, str], None]


if TYPE_CHECKING:  # IPython is needed in a notebook only
    from IPython.display import Markdown


def sources(names: list[str] | None = None, folder: Path | None = None) -> list[Path]:
    """The sources in order, or those whose names begin with one of `names`, such as "01"."""
    found = sorted(((folder or FOLDER) / "source").glob("[0-9][0-9]*_*.py"))
    if not found:
        raise DefectkitError(
            f"No notebook sources in {(folder or FOLDER) / 'source'}: "
            "run defectkit from a clone of its repository, installed with `pip install -e .`."
        )
    for name in names or []:
        if not any(source.stem.startswith(name) for source in found):
            raise DefectkitError(
                f"There is no notebook {name!r}; there are {', '.join(s.stem for s in found)}."
            )
    return [s for s in found if not names or any(s.stem.startswith(name) for name in names)]


def solved(source: Path) -> NotebookNode:
    """The notebook with its solutions, without outputs; the same source gives the same bytes."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = Counter()
    for cell in notebook.cells:
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's own, for the way back
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = f"{digest}-{seen[digest]}"  # changes with its own cell only: small diffs
    _mark_exercises(notebook.cells, source.stem.partition("_")[0])
    _mark_slides(notebook.cells)
    return notebook


def _mark_exercises(cells: list[NotebookNode], notebook: str) -> None:
    """What nbgrader wants to know of answers and of the checks below them."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    for place, (cell, below) in enumerate(pairwise(code)):
        if not has_tag(cell, "solution"):
            continue
        asked = CHECK.match(below.source)
        number = asked[1] if asked else f"{notebook}-{place}"
        cell.metadata.nbgrader = _nbgrader(f"answer-{number}", solution=True)
        if asked:
            below.metadata.nbgrader = _nbgrader(
                f"check-{number}", points=1, grade=True, locked=True
            )


def _nbgrader(grade_id: str, **settings: bool | int) -> dict:
    """Metadata of a cell, version 3 of nbgrader's schema."""
    plain = {"grade": False, "solution": False, "locked": False, "task": False}
    return {"schema_version": 3, "grade_id": grade_id, **plain, **settings}


def _mark_slides(cells: list[NotebookNode]) -> None:
    """A deck for `jupyter nbconvert --to slides`: a slide a section, what is not for a lecture out.

    Below the slide of a heading stand its further texts, and every figure after the first.
    """
    shown = 0  # code cells since the last text
    for place, cell in enumerate(cells):
        below = cells[place - 1] if place else None
        asked = below is not None and has_tag(below, "solution")
        if cell.cell_type == "markdown":
            heads = re.match(r"#{1,2} ", cell.source)
            kind = "skip" if has_tag(cell, "solution") else "slide" if heads else "subslide"
            shown = 0
        elif has_tag(cell, "solution") or has_tag(cell, "parameters") or asked:
            kind = "skip"
        else:
            kind = "skip" if _sets_up(cell.source) else "subslide" if shown else "-"
            shown += kind != "skip"
        cell.metadata.slideshow = {"slide_type": kind}


def _sets_up(code: str) -> bool:
    """Whether a cell only imports things and reads the data: nothing to show."""
    return code.startswith("check(") or PRELUDE in code or "teach.use(" in code


def student(source: Path) -> NotebookNode:
    """The notebook with an empty answer in place of each solution."""
    notebook = solved(source)
    for place, cell in enumerate(notebook.cells):
        if not has_tag(cell, "solution"):
            continue
        cell.metadata.tags = ["answer"]
        if cell.cell_type == "code":
            cell.source = _empty_answer(cell.source, notebook.cells[place + 1 :])
        else:
            cell.source = "*Your answer*"
    return notebook


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def _empty_answer(solution: str, later_cells: list[NotebookNode]) -> str:
    """Dots for each name that the solution assigns and that a later cell uses.

    Of a function its first line stays, and the examples that the solution asserts.
    """
    used = {
        node.id
        for cell in later_cells
        if cell.cell_type == "code" and not has_tag(cell, "solution")
        for node in ast.walk(_parse(cell.source))
        if isinstance(node, ast.Name)
    }
    lines, known = ["# Your answer"], set()
    for statement in _parse(solution).body:
        names = [n for n in _names_assigned(statement) if n in used and n not in known]
        known.update(names)
        if names and isinstance(statement, ast.FunctionDef):
            lines += [STUB.format(name=statement.name, arguments=ast.unparse(statement.args))]
        elif isinstance(statement, ast.Assert):
            example = ast.get_source_segment(plain(solution), statement)
            lines += [f"    {line}" for line in example.splitlines()]
        else:
            lines += [f"{name} = ..." for name in names]
    return "\n".join(lines)


def _parse(code: str) -> ast.Module:
    """The syntax tree of a cell without IPython's own commands."""
    return ast.parse(plain(code))


def plain(code: str) -> str:
    """A cell without IPython's own commands."""
    return re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)


def _names_assigned(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = (node for target in targets for node in ast.walk(target))
    return [n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def as_text(notebook: NotebookNode) -> str:
    """The text of an .ipynb file."""
    return nbformat.writes(notebook) + "\n"


def write_students(folder: Path | None = None) -> list[Path]:
    """Write the student's notebook of every source, and return their paths."""
    folder = folder or FOLDER
    return [
        _write(student(source), folder / f"{source.stem}.ipynb")
        for source in sources(folder=folder)
    ]


def write_solutions(output: Path, folder: Path | None = None) -> list[Path]:
    """Write the solved notebook of every source, and return their paths."""
    return [
        _write(solved(source), output / f"{source.stem}.ipynb") for source in sources(folder=folder)
    ]


def _write(notebook: NotebookNode, path: Path) -> Path:
    make_folder(path.parent)
    write_text(path, as_text(notebook))
    return path


def outdated(folder: Path | None = None) -> list[str]:
    """Names of student notebooks that differ from what their sources give, or have no source."""
    folder = folder or FOLDER
    wanted = {f"{s.stem}.ipynb": as_text(student(s)) for s in sources(folder=folder)}
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.ipynb")}
    names = sorted(wanted.keys() | found.keys())
    return [name for name in names if wanted.get(name) != found.get(name)]


def title(source: Path) -> str:
    """The notebook's first heading."""
    return _opening(source, r"^# +([^\n]+)$", source.stem)


def asked(source: Path) -> list[str]:
    """Numbers of the exercises that a notebook checks, in its order."""
    return CHECK.findall(source.read_text(encoding="utf-8"))


def minutes(source: Path) -> tuple[int, int]:
    """How long a notebook takes, its core and all of it, counted from what there is to do.

    130 words of text are read in a minute, an exercise takes seven, and what a cell shows half of
    one, in steps of five minutes. Nobody was watched with a clock: these are assumptions, the same
    for all notebooks. All is core but sections whose headings end with `OPTIONAL`.
    """
    taken, optional = {False: 0.0, True: 0.0}, False
    for cell in jupytext.read(source, fmt="py:percent").cells:
        if cell.cell_type != "markdown":
            taken[optional] += 0.5
            continue
        for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            if part.startswith("## "):
                optional = part.partition("\n")[0].endswith(OPTIONAL)
            taken[optional] += len(part.split()) / 130 + 7 * part.count("**Exercise ")
    return 5 * round(taken[False] / 5), 5 * round(sum(taken.values()) / 5)


def time_line(source: Path) -> str:
    """What a notebook has to say of its minutes."""
    core, every = minutes(source)
    return f"**Time.** {core} minutes for the core, {every} for all."


def contents(folder: Path | None = None) -> "Markdown":
    """A table of the notebooks, with links, goals and times, to show in a notebook."""
    from IPython.display import Markdown

    rows = ["| notebook | goals | time |", "|:--|:--|--:|"]
    for source in sources(folder=folder):
        goals = _opening(source, r"\*\*Goals\.?\*\*\s*(.+?)(?:\n\n|\Z)")
        minutes = _opening(source, r"\*\*Time\.?\*\*\s*(.+?)(?:\n\n|\Z)").rstrip(".")
        rows.append(f"| [{title(source)}]({source.stem}.ipynb) | {goals} | {minutes} |")
    return Markdown("\n".join(rows))


def _opening(source: Path, pattern: str, default: str = "") -> str:
    """What `pattern` finds in the first text cell of a notebook, on one line."""
    cells = jupytext.read(source, fmt="py:percent").cells
    first = next((cell.source for cell in cells if cell.cell_type == "markdown"), "")
    found = re.search(pattern, first, flags=re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else default


if TYPE_CHECKING:  # papermill takes a second to import
    from papermill.exceptions import PapermillExecutionError


@dataclass(frozen=True)
class Visit:
    """One notebook as executed.

    Attributes:
        name: of the notebook, such as "01_explore_imp2d".
        title: its first heading.
        seconds: from starting the kernel to ending it.
        peak_mb: largest resident memory of the kernel and what it started, MB.
        error: the failing cell and what it said; empty where all went well.
    """

    name: str
    title: str
    seconds: float
    peak_mb: float
    error: str


def run(
    source: Path,
    output: Path,
    full: bool = False,
    on_cell: OnCell = lambda name, number, total, heading: None,
    dataset: str = "demo",
) -> Visit:
    """Execute the solved form of one notebook into `output`.

    `on_cell(name, number, total, heading)` is called as each code cell begins. `dataset` is what
    the notebook reads: a name, or the path of a folder.

    Raises DefectkitError where nothing can be written to `output`.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    _avoid_hanging_on_output_widgets()
    path = make_folder(output) / f"{source.stem}.ipynb"
    notebook = solved(source)
    error = ""
    start = time.perf_counter()
    with atomic(path) as part, PeakMemory() as memory, _strict_checks():
        part.write_text(as_text(notebook), encoding="utf-8")
        try:
            papermill.execute_notebook(
                part,
                part,
                parameters={"dataset": dataset, "quick": not full, "seed": 0},
                kernel_name=METADATA["kernelspec"]["name"],
                cwd=FOLDER,
                progress_bar=False,
                start_timeout=180,
                execution_timeout=CELL_SECONDS["full" if full else "quick"],
                config=KERNEL_CONFIG,
                on_cell_start=_cell_counter(source.stem, notebook, on_cell),
            )
        except PapermillExecutionError as failure:
            error = _describe(failure)
        except (CellTimeoutError, DeadKernelError) as failure:
            error = str(failure)
    seconds = time.perf_counter() - start
    return Visit(source.stem, title(source), seconds, memory.peak_mb, error)


def run_all(
    sources: Sequence[Path], output: Path, full: bool, on_cell: OnCell, dataset: str
) -> Iterator[Visit]:
    """What `run` says of each notebook, in their order.

    They run side by side, as many as there are cores and free memory for: most of a notebook has
    one thread. `on_cell` is called in their processes.
    """
    work = partial(run, output=output, full=full, on_cell=on_cell, dataset=dataset)
    room = int(psutil.virtual_memory().available / NOTEBOOK_BYTES)
    workers = min(len(sources), os.cpu_count() or 1, room)
    if workers < 2:
        yield from map(work, sources)
        return
    with process_pool(workers) as pool:
        yield from pool.map(work, sources)


class PeakMemory:
    """Watches the resident memory of the processes started inside the `with` block.

    Attributes:
        peak_mb: the largest sum seen, MB.
    """

    peak_mb = 0.0

    def __enter__(self) -> "PeakMemory":
        self._others = {child.pid for child in psutil.Process().children()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            started = [c for c in psutil.Process().children() if c.pid not in self._others]
            self.peak_mb = max(self.peak_mb, sum(_resident_bytes(c) for c in started) / 1e6)


def _resident_bytes(process: psutil.Process) -> int:
    """Memory of a process and its children; 0 for one that has just ended."""
    try:
        children = process.children()
        return process.memory_info().rss + sum(_resident_bytes(child) for child in children)
    except psutil.Error:
        return 0


@contextmanager
def _strict_checks() -> Iterator[None]:
    """A wrong solution stops the notebook, instead of only saying so."""
    before = os.environ.get(STRICT)
    os.environ[STRICT] = "1"
    try:
        yield
    finally:
        os.environ.pop(STRICT)
        if before is not None:
            os.environ[STRICT] = before


def _avoid_hanging_on_output_widgets() -> None:
    """Cells with `Output` widgets can wait for ever on nbclient's imitation of a front end."""
    from nbclient.output_widget import OutputWidget

    OutputWidget._publish_msg = lambda self, *args, **kwargs: None


def _cell_counter(name: str, notebook: NotebookNode, on_cell: OnCell) -> Callable[..., None]:
    """Papermill's hook: it is called for text cells too, which hold the headings."""
    total = sum(cell.cell_type == "code" for cell in notebook.cells) + 1  # papermill adds one
    state = {"number": 0, "heading": ""}

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            state["number"] += 1
            on_cell(name, state["number"], total, state["heading"])
        elif found := re.findall(r"^#+ +(.+)$", cell.source, flags=re.MULTILINE):
            state["heading"] = found[-1]

    return on_cell_start


def _describe(failure: "PapermillExecutionError") -> str:
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failure.traceback))
    return f"The cell\n\n{failure.source.strip()}\n\nfailed with\n\n{trace}"
