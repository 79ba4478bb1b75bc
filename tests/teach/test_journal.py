"""What is kept of a student: answers, guesses, how sure and how often right."""

import json
import threading
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from defectkit import DefectkitError, teach
from defectkit.teach import journal


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """As in a student's notebook: a shell with a kernel, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(teach.STRICT, raising=False)
    monkeypatch.setattr(journal, "get_ipython", lambda: SimpleNamespace(kernel=1))
    monkeypatch.setattr(journal, "_session", {"exercises": {}, "guesses": {}})
    return tmp_path


def test_a_guess_stands_and_is_answered(notebook, no_windows):
    assert "noted" in repr(teach.guess("02-b", (2, 4, 8), 2, sure=0.9))
    assert "noted" in repr(teach.guess("02-b", (2, 4, 8), 4, sure=0.9))
    ax = plt.subplots()[1]
    told = teach.reveal("02-b", 3.7, ax)
    assert told.right
    assert repr(told) == "Guess 02-b: you said “4”, 90% sure, and so it is (3.7)."
    assert [text.get_text() for text in ax.texts] == ["your guess: 4 ✓"]
    assert "first guess stands" in repr(teach.guess("02-b", (2, 4, 8), 8))
    assert teach.reveal("02-b", 3.7).right


def test_a_wrong_guess_hears_what_it_is(notebook):
    teach.guess("01-a", ("host", "dopant"), "host")
    assert "it is “dopant”" in repr(teach.reveal("01-a", "dopant"))


def test_whoever_makes_no_guess_is_told_all_the_same(notebook):
    told = teach.reveal("01-a", "dopant")
    assert told.right is None
    assert "the answer is “dopant”" in repr(told)


def test_a_guess_is_one_of_the_options(notebook):
    with pytest.raises(DefectkitError, match="host; dopant"):
        teach.guess("01-a", ("host", "dopant"), "site")


def test_buttons_keep_what_is_chosen(notebook):
    box = teach.guess("01-a", ("host", "dopant"))
    choose, sure, told = box.children
    assert choose.value is None
    choose.value, sure.value = "dopant", 0.99
    assert "dopant" in told.value
    assert journal._book()["guesses"]["01-a"]["sure"] == 0.99
    assert "host · dopant" in box._repr_mimebundle_()["text/html"]
    assert not (notebook / "progress.lock").exists()
    teach.reveal("01-a", "host")
    assert all(part.disabled for part in teach.guess("01-a", ("host", "dopant")).children[:2])


def test_progress_counts_and_calibrates(notebook):
    for number, right in (("00-1", False), ("00-1", True), ("00-1", False), ("01-2", False)):
        journal.note_answer(number, right)
    journal.note_answer("00-3", None)
    for k, truth in enumerate("xxxy"):
        teach.guess(f"02-{k}", "xy", "x", sure=0.7)
        teach.reveal(f"02-{k}", truth)
    teach.guess("03-a", "xy", "x", sure=0.99)
    found = teach.progress()
    assert found.exercises.loc["00"].tolist() == [1, 1, 4]
    assert found.exercises.loc["01"].tolist() == [0, 1, 8]
    assert found.calibration.loc[0.7].tolist() == [4, 0.75]
    assert len(found.calibration) == 1
    assert len(found.guesses) == 5
    assert "02-3" in repr(found)
    assert "<table" in found._repr_html_()
    teach.forget()
    assert not (notebook / "progress.json").exists()
    assert "none yet" in repr(teach.progress())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"exercises": 1, "guesses": {}}', '{"exercises": {}, "guesses": {"x": {}}}'],
)
def test_a_broken_file_is_set_aside(notebook, text):
    (notebook / "progress.json").write_text(text)
    journal.note_answer("00-1", True)
    assert json.loads((notebook / "progress.json").read_text())["exercises"]["00-1"]["right"]
    assert (notebook / "progress.broken.json").read_text() == text


def test_where_nothing_can_be_written_the_session_knows(notebook, capsys):
    (notebook / "progress.json").mkdir()
    teach.guess("01-a", ("host", "dopant"), "host")
    assert teach.reveal("01-a", "host").right


def test_two_notebooks_do_not_lose_each_others_answers(notebook):
    workers = [
        threading.Thread(target=journal.note_answer, args=(f"00-{k}", True)) for k in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(json.loads((notebook / "progress.json").read_text())["exercises"]) == 8


@pytest.mark.parametrize("strict", [True, False])
def test_solutions_and_programs_keep_nothing(notebook, monkeypatch, strict):
    if strict:
        monkeypatch.setenv(teach.STRICT, "1")
    else:
        monkeypatch.setattr(journal, "get_ipython", lambda: None)
    journal.note_answer("00-1", True)
    teach.guess("01-a", ("host", "dopant"), "host")
    assert list(notebook.iterdir()) == []


def test_a_broken_check_of_progress_never_stops_a_verdict(notebook, monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace())
    (notebook / "progress.json").mkdir()
    assert teach.check("02-3", 132).right
