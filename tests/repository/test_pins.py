"""pyproject.toml, constraints.txt, environment.yml and binder/ name the same versions."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "pytorch-cpu": "torch"}  # conda-forge's name: PyPI's
CONDA_FILES = ("environment.yml", "binder/environment.yml")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def conda(file: str) -> list:
    return yaml.safe_load((ROOT / file).read_text())["dependencies"]


def pip_part(file: str) -> list[str]:
    return [line for entry in conda(file) if isinstance(entry, dict) for line in entry["pip"]]


def test_constraints_name_each_package_once():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(constraints()) == sum(not line.startswith("#") for line in lines)


def test_direct_dependencies_stand_at_the_versions_of_the_constraints():
    pins = constraints()
    extras = PROJECT["optional-dependencies"].values()
    for text in chain(PROJECT["dependencies"], *extras):
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:  # an extra that includes another one
            continue
        wanted = f"=={pins[canonicalize_name(requirement.name)]}"
        assert str(requirement.specifier) == wanted, text


@pytest.mark.parametrize("file", CONDA_FILES)
def test_conda_packages_stand_at_the_versions_of_the_constraints(file):
    packages = dict(
        entry.split("=") for entry in conda(file) if isinstance(entry, str) and "=" in entry
    )
    python = packages.pop("python")
    assert python in PROJECT["requires-python"]
    assert {"numpy", "torch"} == {CONDA_NAMES.get(name, name) for name in packages}
    for name, version in packages.items():
        assert constraints()[CONDA_NAMES.get(name, name)] == version, name


def test_binder_takes_pytorch_without_cuda():
    assert any(str(entry).startswith("pytorch-cpu=") for entry in conda("binder/environment.yml"))


def test_conda_and_binder_install_the_rest_against_the_constraints():
    assert pip_part("environment.yml") == ["-c constraints.txt", "-e ."]
    post_build = (ROOT / "binder/postBuild").read_text()
    assert re.search(r"pip install .*-c constraints\.txt -e \.$", post_build, re.MULTILINE)


@pytest.mark.parametrize("file", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_are_executable(file):
    assert (ROOT / file).stat().st_mode & 0o111
    assert (ROOT / file).read_bytes().startswith(b"#!/")


def test_binder_starts_the_command_it_is_given():
    assert (ROOT / "binder/start").read_text().rstrip().endswith('exec "$@"')
