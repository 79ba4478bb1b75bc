"""What docs/promises.md says is held: its tests exist, its limits are those of the code."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", PAGE)
LIMITS = re.findall(r"\| ([\d,.]+) \| `([\w.]+)\.([A-Z_]+)` \|", PAGE)


@pytest.mark.parametrize(("file", "test"), TESTS, ids="::".join)
def test_every_test_that_is_named_exists(file, test):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("value", "module", "name"), LIMITS)
def test_every_limit_is_that_of_the_code(value, module, name):
    assert float(value.replace(",", "")) == getattr(import_module(f"defectkit.{module}"), name)


def test_every_line_has_its_test_and_every_row_its_limit():
    lines = [line for line in re.split(r"\n(?=\* )", PAGE) if line.startswith("* ")]
    assert len(lines) > 20
    assert [line for line in lines if "::" not in line] == []
    rows = re.findall(r"(?m)^\| (?!What).*\|$", PAGE)
    assert len(rows) == len(LIMITS)


def test_nothing_is_unpickled():
    """Neither pickle nor what calls it, but for torch's reader of plain tensors."""
    words = ["import (?:pickle|dill|joblib|shelve|marshal)", "read_pickle", "allow_pickle=True"]
    words += [r"yaml\.(?:unsafe_|full_)?load\((?!text, Loader\))", r"(?<![.\w])(?:eval|exec)\("]
    for path in (ROOT / "defectkit").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"torch\.load\(.*", text):
            assert "weights_only=True" in found, path
        assert re.findall("|".join(words), text) == [], path
