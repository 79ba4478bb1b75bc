"""Notebooks from their sources: each is written once, in `notebooks/source/NN_name.py`.

A source is in jupytext's percent format, with solutions in cells tagged `solution`. From it come
the student's notebook, which has dots in place of the answers, and the solved one.
"""

import ast
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import jupytext
import nbformat
from nbformat import NotebookNode

from defectkit import DefectkitError
from defectkit.structures.writing import make_folder, write_text

if TYPE_CHECKING:  # IPython is needed in a notebook only
    from IPython.display import Markdown

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def sources(names: list[str] | None = None, folder: Path | None = None) -> list[Path]:
    """The sources in order, or those whose names begin with one of `names`, such as "01"."""
    found = sorted(((folder or FOLDER) / "source").glob("[0-9][0-9]_*.py"))
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
    return notebook


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
    """Dots for each name that the solution assigns and that a later cell uses."""
    used = {
        node.id
        for cell in later_cells
        if cell.cell_type == "code" and not has_tag(cell, "solution")
        for node in ast.walk(_parse(cell.source))
        if isinstance(node, ast.Name)
    }
    assigned = [
        name
        for statement in _parse(solution).body
        for name in _names_assigned(statement)
        if name in used
    ]
    return "\n".join(["# Your answer", *(f"{name} = ..." for name in dict.fromkeys(assigned))])


def _parse(code: str) -> ast.Module:
    """The syntax tree of a cell without IPython's own commands."""
    return ast.parse(re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE))


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
