"""Runs the notebooks from top to bottom, solutions included, and makes pages of them."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from nbformat import NotebookNode
from traitlets.config import Config

from defectkit.structures.writing import atomic, make_folder
from defectkit.teach import notebooks, pages
from defectkit.teach.checks import STRICT

if TYPE_CHECKING:  # papermill takes a second to import
    from papermill.exceptions import PapermillExecutionError

CELL_SECONDS = {"quick": 600, "full": 3600}  # longest time of one cell
SAMPLE_SECONDS = 0.1
KERNEL_CONFIG = Config(KernelManager={"transport_encryption": "auto"})  # else ipykernel warns

OnCell = Callable[[str, int, int, str], None]


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
    others: Sequence[Path] = (),
    dataset: str = "demo",
) -> Visit:
    """Execute the solved form of one notebook into `output`, as .ipynb and as .html.

    `on_cell(name, number, total, heading)` is called as each code cell begins. The page links to
    the pages of the `others`, sources of the same tour, and to those that lie there already.
    `dataset` is what the notebook reads: a name, or the path of a folder.

    Raises DefectkitError where nothing can be written to `output`.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    _avoid_hanging_on_output_widgets()
    path = make_folder(output) / f"{source.stem}.ipynb"
    notebook = notebooks.solved(source)
    error = ""
    start = time.perf_counter()
    with atomic(path) as part, PeakMemory() as memory, _strict_checks():
        part.write_text(notebooks.as_text(notebook), encoding="utf-8")
        try:
            papermill.execute_notebook(
                part,
                part,
                parameters={"dataset": dataset, "quick": not full, "seed": 0},
                kernel_name=notebooks.METADATA["kernelspec"]["name"],
                cwd=notebooks.FOLDER,
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
    pages.write(path, _pages(output, {source, *others}))
    return Visit(source.stem, notebooks.title(source), seconds, memory.peak_mb, error)


def write_index(visits: list[Visit], output: Path) -> Path:
    """Write `index.html`, a table of the pages in `output`."""
    rows = [(pages.Page(v.name, v.title), v.seconds, v.peak_mb, bool(v.error)) for v in visits]
    return pages.write_index(rows, output)


def _pages(output: Path, wanted: set[Path]) -> list[pages.Page]:
    """The pages of the notebooks wanted and of those that have one already, in their order."""
    return [
        pages.Page(one.stem, notebooks.title(one))
        for one in notebooks.sources()
        if one in wanted or (output / f"{one.stem}.html").exists()
    ]


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
