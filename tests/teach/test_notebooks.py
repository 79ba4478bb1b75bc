"""Student notebooks are what their sources give, and every notebook runs through."""

import ast
import itertools
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from imp2d_fixture import write_trap_database
from notebook_data import (
    bare,
    first_only,
    hostless,
    without_energies,
    write_folder,
    write_some_of_2dmd,
)
from page_rules import assert_page_stands_alone

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.data.folder import read_folder
from defectkit.data.readers import read_imp2d
from defectkit.teach import STRICT, notebooks, site
from defectkit.teach.checks import find
from defectkit.widgets import lesson

SOURCES = notebooks.sources()
TEACHING = (notebooks.ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")

EXAMPLE = """# %% [markdown]
# # 07 · An example
#
# **Goals.** Count
# atoms.
#
# **Time.** 5 minutes.

# %% tags=["parameters"]
dataset = "demo"

# %% tags=["solution"]
helper, answer = 1, 2
def double(x):
    return 2 * x

assert double(2) == 4

# %%
# %matplotlib inline
print(answer, double(3))

# %% [markdown] tags=["solution"]
# Because.
"""


# The configuration of docs/teaching.md.
NBGRADER = re.search(r"```python\n(c = .*?)```", TEACHING, re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "07_example.py").write_text(EXAMPLE)
    return tmp_path


def test_students_get_dots_where_a_later_cell_asks(folder):
    answers = [
        cell.source
        for cell in notebooks.student(folder / "source/07_example.py").cells
        if notebooks.has_tag(cell, "answer")
    ]
    stub = notebooks.STUB.format(name="double", arguments="x")
    first = f"# Your answer\nanswer = ...\n{stub}\n    assert double(2) == 4"
    assert answers == [first, "*Your answer*"]
    ast.parse(first)


def test_a_function_that_is_asked_for_has_a_first_line_and_an_example():
    for source in SOURCES:
        cells = notebooks.student(source).cells
        answers = [c.source for c in cells if notebooks.has_tag(c, "answer")]
        named = {m[1]: a for a in answers for m in re.finditer(r"^def (\w+)\(", a, re.MULTILINE)}
        text = source.read_text(encoding="utf-8")
        for number, name in re.findall(r'^check\("([\d-]+)", (\w+)\)', text, re.MULTILINE):
            assert (name in named) == (find(number).cases is not None), number
            if name in named:
                assert re.search(rf"^    assert .*\b{name}\(", named[name], re.MULTILINE), number


UNUSUAL = re.compile(
    r"\b(index_add|scatter\w*|einsum|repeat_interleave|bincount|lstsq|cumsum|searchsorted"
    r"|np\.select|torch\.stack)\(|\.(expand|chunk)\("
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_unusual_calls_are_explained_beside_them(source):
    for cell in notebooks.solved(source).cells:
        lines = ["", *cell.source.splitlines()] if cell.cell_type == "code" else []
        for above, line in itertools.pairwise(lines):
            told = "#" in line or above.lstrip().startswith("#")
            assert told or not UNUSUAL.search(line), line


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_line_of_code_is_longer_than_a_screen_is_wide(source):
    code = [c.source for c in notebooks.solved(source).cells if c.cell_type == "code"]
    assert [line for cell in code for line in cell.splitlines() if len(line) > 100] == []


def test_solved_notebooks_keep_the_solutions(folder):
    (path,) = notebooks.write_solutions(folder / "solutions", folder)
    assert "return 2 * x" in path.read_text()


def test_same_source_same_bytes_and_valid(folder):
    (path,) = notebooks.write_students(folder)
    first = path.read_bytes()
    notebooks.write_students(folder)
    assert path.read_bytes() == first
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.language == "python"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
@pytest.mark.parametrize("form", [notebooks.solved, notebooks.student])
def test_nbgrader_knows_every_exercise(source, form):
    known = [c.metadata.nbgrader for c in form(source).cells if "nbgrader" in c.metadata]
    names = [one["grade_id"] for one in known]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_\-]+", name) for name in names)
    checks = {one["grade_id"].removeprefix("check-") for one in known if one["grade"]}
    assert checks == set(notebooks.asked(source))
    assert {f"answer-{number}" for number in checks} <= set(names)
    for one in known:
        assert one["schema_version"] == 3
        assert one["grade"] == (one.get("points") == 1) == one["locked"] != one["solution"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_slides_begin_with_headings_and_hide_solutions(source):
    for cell in notebooks.solved(source).cells:
        kind = cell.metadata.slideshow.slide_type
        assert kind in ("slide", "subslide", "skip", "-")
        if notebooks.has_tag(cell, "solution") or cell.source.startswith("check("):
            assert kind == "skip"
        elif cell.cell_type == "markdown":
            assert (kind == "slide") == cell.source.startswith(("# ", "## "))


@pytest.mark.slow
def test_a_notebook_becomes_a_deck(tmp_path):
    path = tmp_path / "00.ipynb"
    notebook = notebooks.student(SOURCES[0])
    path.write_text(notebooks.as_text(notebook))
    command = [sys.executable, "-m", "nbconvert", "--to", "slides", "--no-input", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    deck = (tmp_path / "00.slides.html").read_text()
    slides = sum(cell.metadata.slideshow.slide_type == "slide" for cell in notebook.cells)
    assert slides > 5
    assert deck.count("<section") >= 2 * slides
    assert "doctor.report()" not in deck


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("nbgrader"), reason="nbgrader is not installed")
def test_nbgrader_grades_a_solved_and_an_empty_notebook(tmp_path, monkeypatch):
    source = SOURCES[0]
    for place, form in (
        ("submitted/solved", notebooks.solved),
        ("submitted/empty", notebooks.student),
        ("source", notebooks.student),
    ):
        path = tmp_path / place / "week1" / f"{source.stem}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(notebooks.as_text(form(source)))
    (tmp_path / "nbgrader_config.py").write_text(NBGRADER)
    monkeypatch.setenv(STRICT, "1")
    monkeypatch.setenv("PYTHONPATH", str(notebooks.ROOT))
    for words in ("generate_assignment week1", "autograde week1", "export"):
        command = [sys.executable, "-m", "nbgrader", *words.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    grades = pd.read_csv(tmp_path / "grades.csv").set_index("student_id").score
    assert grades.to_dict() == {"solved": 4.0, "empty": 0.0}


def test_a_changed_cell_changes_its_own_id_only(folder):
    source = folder / "source/07_example.py"
    before = [cell.id for cell in notebooks.solved(source).cells]
    source.write_text(EXAMPLE.replace("double(3)", "double(4)"))
    after = [cell.id for cell in notebooks.solved(source).cells]
    assert [a == b for a, b in zip(before, after)] == [True, True, True, False, True]


def test_outdated_sees_changes_missing_and_orphaned_notebooks(folder):
    assert notebooks.outdated(folder) == ["07_example.ipynb"]
    (path,) = notebooks.write_students(folder)
    assert notebooks.outdated(folder) == []
    path.write_text(path.read_text().replace("minutes", "hours"))
    (folder / "08_gone.ipynb").write_text("{}")
    assert notebooks.outdated(folder) == ["07_example.ipynb", "08_gone.ipynb"]


def test_contents_tell_title_goals_and_time(folder):
    table = notebooks.contents(folder).data
    assert "| [07 · An example](07_example.ipynb) | Count atoms. | 5 minutes |" in table


def test_an_unknown_notebook_is_named(folder):
    with pytest.raises(DefectkitError, match="no notebook '09'; there are 07_example"):
        notebooks.sources(["09"], folder)


def test_student_notebooks_are_up_to_date():
    assert notebooks.outdated() == [], "run `make notebooks`"


@pytest.mark.parametrize("path", sorted(notebooks.FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_student_notebooks_hold_no_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory) -> Path:
    """A folder of structures as a reader may have one, with made-up labels."""
    return write_folder(tmp_path_factory.mktemp("own") / "made_up_labels")


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_notebook_runs_through_with_its_solutions_right(source, tmp_path):
    visit = notebooks.run(source, tmp_path)
    assert not visit.error, visit.error
    faults = site.build([visit], tmp_path, root=tmp_path, reference=False)
    assert all("cross-reference" in fault for fault in faults), faults  # of other notebooks
    assert_page_stands_alone(tmp_path / f"{source.stem}.html")
    print(f"{visit.seconds:.0f} s, {visit.peak_mb:.0f} MB")


@pytest.fixture
def dataset(request, monkeypatch, tmp_path) -> str:
    """What the notebooks' first cell asks for: the sources that it offers beside the kit's own."""
    if request.param == "folder":
        return str(request.getfixturevalue("own_folder"))
    pilot = request.getfixturevalue("real_data") / "2dmd_pilot"
    write_some_of_2dmd(pilot, tmp_path / "2dmd", every=8)
    # Not by DEFECTKIT_DATA: graphs of the demo data would be made anew in every home.
    places = {"2dmd": tmp_path / "2dmd"}
    monkeypatch.setattr(
        lesson, "load", lambda name, path=None: load(name, path or places.get(name))
    )
    return request.param


@pytest.mark.slow
@pytest.mark.usefixtures("no_windows")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dataset", ["folder", "2dmd"], indirect=True)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_notebook_runs_through_on_other_data(source, dataset, monkeypatch):
    monkeypatch.setenv(STRICT, "1")
    run_here(source, dataset=dataset)


ODD = {
    "no energies": lambda path: read_folder(without_energies(write_folder(path))),
    "one structure": lambda path: read_folder(first_only(write_folder(path))),
    "no pristine hosts": lambda path: read_folder(hostless(write_folder(path))),
    "files and energies only": lambda path: read_folder(bare(write_folder(path))),
    "everyday host": lambda path: read_folder(write_folder(path, {"MoS2": "1T"})),
    "Imp2d rows": lambda path: read_imp2d(write_trap_database(path)),
}


@pytest.mark.usefixtures("no_windows")
@pytest.mark.filterwarnings("ignore")  # a notebook only prints them
@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("source", SOURCES[:3], ids=lambda source: source.stem)
def test_the_first_notebooks_run_on_data_that_lack_something(source, make, tmp_path, monkeypatch):
    odd = make(tmp_path / "made_up_labels")
    monkeypatch.setattr(lesson, "load", lambda name: odd)
    monkeypatch.setenv(STRICT, "1")
    run_here(source)


@pytest.mark.usefixtures("no_windows")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", SOURCES[:3], ids=lambda source: source.stem)
def test_the_first_notebooks_run_without_an_answer(source, own_folder, monkeypatch):
    monkeypatch.setattr(lesson, "load", lambda name: read_folder(own_folder))
    run_here(source, notebooks.student)


def run_here(source: Path, form=notebooks.solved, dataset: str = "demo") -> None:
    """Runs the cells of a notebook in this process."""
    names = {}
    for cell in form(source).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, source.name, "exec"), names)
        if notebooks.has_tag(cell, "parameters"):
            names["dataset"] = dataset
