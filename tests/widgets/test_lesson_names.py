"""The names that every lesson begins with, and what is said of them."""

import ast
from collections import Counter

from defectkit.teach import notebooks
from defectkit.widgets import lesson


def test_every_name_is_there_once_and_in_order():
    assert len(set(lesson.__all__)) == len(lesson.__all__)
    assert all(hasattr(lesson, name) for name in lesson.__all__)
    assert set(lesson.WORDS) < set(lesson.__all__)


def test_contents_say_of_each_name_what_it_is(capsys):
    lesson.contents()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == lesson.__all__
    assert all(10 < len(line[16:].strip()) < 100 for line in lines)


def test_every_name_is_used_by_several_notebooks():
    used = Counter()
    for source in notebooks.sources():
        code = [c.source for c in notebooks.solved(source).cells if c.cell_type == "code"]
        trees = [ast.parse(notebooks.plain(cell)) for cell in code]
        names = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used.update(names & set(lesson.__all__))
    rare = [name for name in lesson.__all__ if used[name] < 3]
    assert rare == ["contents"]
