"""The rules of the house: who imports whom, what stays light, what no file may name."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import defectkit
from defectkit.bench import figures

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "defectkit"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# The route: a folder imports from folders before it, and from itself.
RULE = (
    "structures < data, graphs < models < training < predict < screening, evaluation < explain"
    " < plots, teach < widgets, bench < cli"
)
LEVEL = {
    name.strip(): level for level, names in enumerate(RULE.split("<")) for name in names.split(",")
}
MAX_FOLDERS, MAX_MODULES = 14, 131
MAX_ARROWS, MAX_BETWEEN = 284, 73
MAX_LINES, MAX_ARGUMENTS, ANNOTATED = 80, 7, 0.95
INSIDE_FUNCTIONS_ONLY = {"nglview", "chgnet", "dask", "optuna"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def folder_of(path: Path) -> str:
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
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if function or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            node.body = []
    return imports(tree)


def module_of(path: Path) -> str:
    """Dotted name, such as "defectkit.data.splits"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def arrows() -> dict[str, set[str]]:
    """Modules of the package that each of them imports, anywhere in it."""
    names = {module_of(path) for path in MODULES}

    def module(name: str) -> str:
        return name if name in names else name.rpartition(".")[0]

    found = {}
    for path in MODULES:
        imported = imports(ast.parse(path.read_text(encoding="utf-8")))
        own = {module(name) for name in imported if name.split(".")[0] == "defectkit"}
        found[module_of(path)] = own - {module_of(path)}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_page_and_picture_tell_the_same_rule():
    assert f"\n{RULE}\n" in ARCHITECTURE
    assert figures.RULE == RULE
    assert set(figures.LEAVES) == set(LEVEL)


def test_every_room_and_module_of_the_page_is_there():
    rows = re.findall(r"(?m)^\| [^|]+\? \| `(\w+)(?:\.py)?` \| (.*) \|$", ARCHITECTURE)
    assert {folder for folder, _ in rows} == set(LEVEL)
    for folder, modules in rows:
        for name in re.findall(r"`(\w+)`", modules):
            assert any((PACKAGE / folder / f"{name}{end}").exists() for end in ("", ".py"))
    for path in re.findall(r"`(\w+/\w+\.py)`", ARCHITECTURE):
        assert (PACKAGE / path).exists(), path


def test_the_walk_of_a_row_runs(no_windows):
    exec("".join(re.findall(r"(?s)```python\n(.*?)```", ARCHITECTURE)), {})


def test_every_folder_has_its_place_on_the_route():
    assert {folder_of(path) for path in MODULES} - {""} == set(LEVEL)


def test_folders_import_from_folders_before_them_only():
    for module, others in arrows().items():
        for own, other in ((room(module), room(o)) for o in others):
            if own and other and own != other:
                assert LEVEL[other] < LEVEL[own], f"{module} imports from {other}"


def test_modules_do_not_import_in_a_circle():
    # A package's own list of names, such as plots, may be imported from within: it is no module.
    packages = {module_of(path) for path in MODULES if path.name == "__init__.py"}
    graph = {module: others - packages for module, others in arrows().items()}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


def test_folders_modules_and_arrows_are_few(capsys):
    modules = [path for path in MODULES if path.name != "__init__.py"]
    pairs = [(m, o) for m, others in arrows().items() for o in others if room(o) and room(m)]
    outward = {(m, room(o)) for m, o in pairs if room(m) != room(o)}
    between = {(room(m), other) for m, other in outward}
    folders = {folder_of(path) for path in modules if path.parent != PACKAGE}
    with capsys.disabled():
        print(
            f"\n{len(modules)} modules in {len(folders)} folders; {len(outward)} arrows"
            f" from a module to another folder, {len(between)} between folders"
        )
    assert len(folders) <= MAX_FOLDERS
    assert len(modules) <= MAX_MODULES
    assert len(outward) <= MAX_ARROWS
    assert len(between) <= MAX_BETWEEN


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> list[tuple[str, Function, bool]]:
    """Every function of the package: where it is, its tree, whether it is a method."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, Function):
                    where = f"{name_of(path)}:{child.lineno} {child.name}"
                    found.append((where, child, isinstance(node, ast.ClassDef)))
    return found


def arguments(function: Function, method: bool) -> list[ast.arg]:
    """Arguments that a caller gives."""
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
    return every[1:] if method and not static else every


def test_functions_are_short_and_have_few_arguments():
    for where, function, method in functions():
        command = any(ast.unparse(d).endswith("command()") for d in function.decorator_list)
        assert function.end_lineno - function.lineno < MAX_LINES, where
        assert command or len(arguments(function, method)) <= MAX_ARGUMENTS, where


def test_functions_are_annotated():
    bare = []
    for where, function, method in functions():
        given = [*arguments(function, method), function.args.vararg, function.args.kwarg]
        returns = function.returns or function.name == "__init__"
        if not returns or any(a is not None and a.annotation is None for a in given):
            bare.append(where)
    assert 1 - len(bare) / len(functions()) >= ANNOTATED, bare


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


def test_the_first_names_of_a_user_are_at_hand():
    for name in defectkit.__all__:
        assert getattr(defectkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        defectkit.lode  # noqa: B018


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
        local = {"defectkit", *(path.stem for path in ROOT.glob("tests/**/*.py"))}
        foreign = names - set(sys.stdlib_module_names) - local
        packages = {name: distributions.get(name, [name]) for name in foreign}
        return {
            n for n, found in packages.items() if not known & set(map(canonicalize_name, found))
        }

    assert undeclared([*MODULES, *ROOT.glob("notebooks/source/*.py")], declared) == set()
    tests = undeclared(ROOT.glob("tests/**/*.py"), declared | in_tests)
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
