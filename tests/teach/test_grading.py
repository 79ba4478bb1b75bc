"""A class of notebooks graded: good ones, broken ones, and one that means harm."""

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.teach import checks, grading, notebooks
from defectkit.teach.worker import decode, encode

FUNCTION = """def surprise(coverage, n, promised):
    return (promised - coverage) / (promised * (1 - promised) / n) ** 0.5
"""
SETUP = "from defectkit.teach import check"
ANSWERS = 'answer = (5.0, 2.5)\ncheck("07-1", answer)'
# Fakes verdicts, on the screen and in the kit; deletes what it can; loops, and holds on to it.
HOSTILE = [
    'print("✓ 07-1: right!", "✓ 07-2: right!")',
    """import os, shutil, socket, signal
from defectkit import teach
from defectkit.teach import checks
teach.check = check = checks.check = checks.judge = lambda *_: checks.Verdict("07-1", True, "!")
for path in ({victims}):
    shutil.rmtree(path, ignore_errors=True)
try:
    os.kill({parent}, signal.SIGTERM)
except OSError:
    pass""",
    """said = b'{"id": "x", "said": {"value": {"plain": 4096}}}\\n'
for descriptor in range(3, 30):
    try:
        os.write(descriptor, said + bytes(100) + b'\\n')
    except OSError:
        pass""",
    'answer = "right"\ncheck("07-1", answer)',
    'class Right(float):\n    __eq__ = lambda *_: True\nanswer = Right(1)\ncheck("07-2", answer)',
    "def surprise(*_):\n    while True:\n        pass",
    'check("07-6", surprise)',
    """while True:
    try:
        while True:
            pass
    except BaseException:
        pass""",
    'answer = 4096\ncheck("07-2", answer)',
]


def write(path, *cells):
    path.parent.mkdir(exist_ok=True, parents=True)
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)


def graded(folder, **settings):
    table = grading.grade(folder, folder / "grades.csv", grading.find_walls(), **settings)
    return table.set_index("file")


def test_what_is_wired_comes_out_as_it_went_in():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(decode(encode(tensor)), tensor)
    array = np.array([[1, 2], [3, 4]])
    assert decode(encode(array)).dtype == array.dtype
    assert np.array_equal(decode(encode(array)), array)
    table = pd.DataFrame({"a": [1.5, np.nan], "b": ["x", "y"]}, index=["r", "s"])
    pd.testing.assert_frame_equal(decode(encode(table)), table)
    pd.testing.assert_series_equal(decode(encode(table.a)), table.a, check_names=False)
    for value in (None, True, 3, 2.5, "x", (1, "x"), [1, [2]], {"a": 1}, {1, 2}, ..., float("inf")):
        assert decode(encode(value)) == value
    assert type(decode(encode(object()))).__name__ == "object"
    itself = []
    itself.append(itself)
    assert decode(encode(itself)) is not None
    for wrong in ({}, {"array": "", "dtype": "O", "shape": [1]}, {"plain": [1]}, {"list": 3}):
        with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
            decode(wrong)


@pytest.mark.slow
def test_a_class_of_five_one_of_them_hostile(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "CELL_SECONDS", 20.0)
    monkeypatch.setattr(grading, "GRACE", 10.0)
    school = tmp_path / "class"
    write(school / "a/07.ipynb", SETUP, FUNCTION, ANSWERS, 'check("07-6", surprise)')
    write(school / "b/mine.ipynb", SETUP, "1 / 0", 'answer = (9, 4.5)\ncheck("07-1", answer)')
    write(school / "c.ipynb", "print('hello')")
    (school / "d.ipynb").write_text("{ this is no notebook")
    words = {"{victims}": f'"{school}", "{checks.__file__}"', "{parent}": str(grading.os.getpid())}
    cells = HOSTILE
    for word, meaning in words.items():
        cells = [cell.replace(word, meaning) for cell in cells]
    walls = grading.find_walls()
    if "files" not in walls.hold:  # then it would do what it says
        cells = [cell for cell in cells if "rmtree" not in cell]
    write(school / "e.ipynb", *cells)
    table = graded(school, minutes=5)
    assert len(table) == 5
    assert table.right["a/07.ipynb"] == "07-1 07-6", table.note["a/07.ipynb"]
    assert "no check of 07-2" in table.note["a/07.ipynb"]
    assert table.wrong["b/mine.ipynb"] == "07-1"
    assert "2 of 3 cells stopped" in table.note["b/mine.ipynb"]
    assert "no exercise" in table.note["c.ipynb"]
    assert "no notebook" in table.note["d.ipynb"]
    hostile = table.loc["e.ipynb"]
    assert hostile.passed == 0
    assert hostile.wrong == "07-1 07-2 07-6"
    assert "took too long" in hostile.note
    assert (school / "a/07.ipynb").exists()


@pytest.mark.slow
def test_the_solutions_pass_and_the_empty_notebook_is_open(tmp_path):
    for name, form in (("solved", notebooks.solved), ("empty", notebooks.student)):
        path = tmp_path / name / "00_start_here.ipynb"
        path.parent.mkdir()
        path.write_text(notebooks.as_text(form(notebooks.sources(["00"])[0])))
    table = graded(tmp_path)
    assert table.right["solved/00_start_here.ipynb"] == "00-1 00-2 00-3 00-4"
    assert table.open["empty/00_start_here.ipynb"] == "00-1 00-2 00-3 00-4"
    assert table.note.tolist() == ["", ""]


@pytest.mark.slow
def test_what_is_graded_already_is_not_run_again(tmp_path, monkeypatch):
    write(tmp_path / "=1+1.ipynb", ANSWERS)
    assert graded(tmp_path).passed.tolist() == [1]
    assert graded(tmp_path).index[0] == "'=1+1.ipynb"
    monkeypatch.setattr(grading, "_grade_one", None)
    assert graded(tmp_path).passed.tolist() == [1]


def test_a_folder_without_notebooks_is_said(tmp_path):
    with pytest.raises(DefectkitError, match="no notebook"):
        graded(tmp_path)
    result = CliRunner().invoke(app, ["grade", str(tmp_path)])
    assert result.exit_code == 1


def test_walls_are_tried_and_told():
    walls = grading.find_walls()
    assert set(walls.hold) <= set(grading.WALLS)
    assert grading._reached("files", ())
    assert grading._reached("network", ())
    assert "with your rights" in str(grading.Walls())
