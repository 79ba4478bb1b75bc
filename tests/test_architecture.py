"""The rules of the house: who imports whom, what stays light, what no file may name."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "defectkit"

# A part of the package imports parts of the rows above its own, and itself.
LAYERS = [
    {"alt", "names", "records", "processes", "writing"},
    {"structures", "yaml_text"},
    {"data", "graphs"},
    {"models"},
    {"config", "tabular"},
    {"checkpoint"},
    {"predict", "anatomy"},
    {"training"},
    {"evaluate", "shipped"},
    {"explain", "errors", "reasons", "decisions", "uncertainty", "domain", "sanity", "traps"},
    {"predictor"},
    {"plots", "graph_plots", "result_plots"},
    {"attention_plots", "study_plots", "evaluation_plots", "explain_plots"},
    {"report"},
    {"lesson"},
    {"widgets", "teach", "exercises"},
    {"notebooks", "doctor", "pages"},
    {"tour", "bench", "gallery", "present"},
    {"cli"},
]
ALLOWED_SIDEWAYS = {("exercises", "teach")}  # judges register themselves
FORBIDDEN = {"widgets", "cli"}  # nothing imports these
INSIDE_FUNCTIONS_ONLY = {"nglview", "chgnet", "dask", "optuna"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The first name below `defectkit`, such as "data"; empty for the package itself."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(tree: ast.AST) -> list[str]:
    """Dotted names that a tree imports, `from defectkit import x` as "defectkit.x"."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imports_when_loaded(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return imports(tree)


def own_imports(path: Path) -> set[str]:
    """Parts of the package that a module imports, anywhere in it."""
    parts = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir()}
    names = (name.split(".") for name in imports(ast.parse(path.read_text(encoding="utf-8"))))
    return {name[1] for name in names if name[0] == "defectkit" and name[1] in parts}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_part_has_its_layer():
    assert {part(path) for path in MODULES} - {""} == set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_parts_import_only_from_the_layers_above_them(path):
    own = part(path)
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for other in own_imports(path) - {own}:
        assert other not in FORBIDDEN, f"{own} imports {other}"
        allowed = level[other] < level.get(own, 0) or (own, other) in ALLOWED_SIDEWAYS
        assert allowed, f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_are_imported_inside_functions(path):
    names = {name.split(".")[0] for name in imports_when_loaded(path)}
    assert not names & INSIDE_FUNCTIONS_ONLY


def test_models_are_torch_alone():
    for path in PACKAGE.glob("models/*.py"):
        names = {name.split(".")[0] for name in imports(ast.parse(path.read_text("utf-8")))}
        assert not names & {"pymatgen", "pandas", "lightning", "pytorch_lightning"}, path


def test_importing_defectkit_is_light():
    code = (
        "import sys, defectkit; print(*{'torch', 'pandas', 'pymatgen', 'ase'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in project["dependencies"] + optional["dask"]
    }
    in_tests = {canonicalize_name(Requirement(text).name) for text in optional["test"]}
    distributions = metadata.packages_distributions()

    def undeclared(paths, known) -> set[str]:
        trees = (
            ast.parse(re.sub(r"^\s*%.*$", "", p.read_text("utf-8"), flags=re.M)) for p in paths
        )
        names = {name.split(".")[0] for tree in trees for name in imports(tree)}
        local = {"defectkit", *(path.stem for path in ROOT.glob("tests/*.py"))}
        foreign = names - set(sys.stdlib_module_names) - local
        packages = {name: distributions.get(name, [name]) for name in foreign}
        return {
            n for n, found in packages.items() if not known & set(map(canonicalize_name, found))
        }

    assert undeclared([*MODULES, *ROOT.glob("notebooks/source/*.py")], declared) == set()
    tests = undeclared(ROOT.glob("tests/*.py"), declared | in_tests)
    assert tests <= {"packaging", "yaml"}, tests  # pytest's and jupytext's own dependencies


def tracked_files() -> list[Path]:
    """What git holds, or would once added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in result.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(
    "pattern",
    [
        r"/(work|root|Users)/\w",  # paths of one machine
        r"/home/(?!jovyan)\w",
        r"py[p]i\.org|python[h]osted|download\.py[t]orch|conda\.ana[c]onda",  # registries
        r"registry\.np[m]js|deb\.de[b]ian|npm\.py[p]i",
        r"ind[e]x-url|find-l[i]nks",
    ],
)
def test_no_file_names_a_machine_or_a_registry(pattern):
    found = re.compile(pattern.encode())
    texts = [path for path in tracked_files() if path.suffix not in (".db", ".png", ".gz")]
    assert len(texts) > 20
    set_up = ROOT / "tools" / "setup.py"  # it may name PyTorch's own index, and hand it to pip
    allowed = re.compile(rb'^CPU_INDEX = .*$|"--extra-ind[e]x-url"', re.MULTILINE)
    named = []
    for path in texts:
        text = path.read_bytes()
        if found.search(allowed.sub(b"", text) if path == set_up else text):
            named.append(str(path))
    assert named == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_is_content(command):
    ruff = [sys.executable, "-m", "ruff", *command, "--output-format", "concise"]
    result = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
