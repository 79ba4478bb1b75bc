"""The upload: what a file is answered with, that its texts stay texts, and that none is kept."""

import builtins
import gzip
import os
import tempfile
from datetime import UTC, datetime
from io import StringIO

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from ase.io import write

from defectkit.structures.hosts import HOSTS
from defectkit.widgets import UploadView, upload

HOST = HOSTS["MoS2"].unit_cell()
HOSTILE = '<img src=x onerror="alert(1)">.xyz'


@pytest.fixture(scope="module")
def vacancy() -> Atoms:
    atoms = HOST.repeat((4, 4, 1))
    del atoms[[int(np.flatnonzero(atoms.symbols == "S")[0])]]
    return atoms


@pytest.fixture
def view() -> UploadView:
    return UploadView()


def as_bytes(atoms: Atoms) -> bytes:
    text = StringIO()
    write(text, atoms, format="extxyz")
    return text.getvalue().encode()


def drop(view: UploadView, name: str, raw: bytes) -> str:
    """Let a file arrive as the browser sends it; what is answered."""
    file = {"name": name, "type": "", "size": len(raw), "content": memoryview(raw)}
    view.file.value = ({**file, "last_modified": datetime.now(UTC)},)
    return view.answer.value


def test_a_file_is_answered_with_all_that_belongs_to_it(view, vacancy):
    told = drop(view, "mine.xyz", as_bytes(vacancy))
    for words in (
        "<b>mine.xyz</b>: S vacancy in MoS2, unrelaxed",
        "Assumed: host: MoS2",
        "90% interval",
        "<b>CHGNet-0.3.0</b>",
        "<b>DFT-PBE (2DMD)</b>",
        "<b>inside</b>: The models agree",
    ):
        assert words in told
    assert len(view.crystal.values) == len(vacancy) + 1
    assert view.place.children == (view.crystal, view.picture, view.pull)
    assert bytes(view.picture.value).startswith(b"\x89PNG")
    assert "change without the atom (eV)" in view.alt  # one node has none to attend to


def test_host_and_positions_can_be_said_afterwards(view, vacancy):
    drop(view, "mine.xyz", as_bytes(vacancy))
    view.positions.value = "relaxed"
    assert "S vacancy in MoS2, relaxed" in view.answer.value
    assert "DFT-PBE" not in view.answer.value
    view.host.value = "MoS2"
    assert "Assumed" not in view.answer.value
    view.host.value = "WSe2"
    assert view.answer.value == "Mo16S31 has no atom of the host WSe2; check the host."
    assert view.place.children == ()
    assert view.picture.value == b""


@pytest.mark.parametrize(
    "name", [HOSTILE, "$x^2$.xyz", "</span><script>alert(1)</script>.xyz", "\x1b[31m" + "x" * 3000]
)
def test_names_are_text(view, vacancy, name):
    for raw in (as_bytes(vacancy), b"no structure"):
        told = drop(view, name, raw)
        assert "<img" not in told
        assert "<script" not in told
        assert "\x1b" not in told
        assert "$" not in told or "mathjax_ignore" in told
    assert view.answer.layout.overflow == "auto hidden"


def test_what_stands_in_a_file_is_text(view):
    told = drop(view, "a.vasp", b"x\n1\n3 0 0\n0 3 0\n0 0 20\n<img src=x onerror=alert(1)>\n1\n")
    assert "&lt;img" in told
    assert "<img" not in told


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("a.xyz", b"x" * 5_000_001, "a.xyz is longer than 5 MB"),
        ("a.xyz.gz", gzip.compress(b"x" * 5_000_001), "longer than 5 MB"),
        ("a.png", b"x", "a.png: the name does not say the format"),
        ("a.cif", b"x", "a.cif is not a readable cif file"),
        ("a.xyz", as_bytes(HOST.repeat((27, 27, 1))), "a.xyz has 2,187 atoms; at most 2,000"),
        ("a.xyz", as_bytes(HOST.repeat((4, 4, 1))), "a.xyz is the pristine host MoS2"),
    ],
)
def test_a_file_that_cannot_be_predicted_gets_one_sentence(view, vacancy, name, raw, words):
    drop(view, "before.xyz", as_bytes(vacancy))
    told = drop(view, name, raw)
    assert told.startswith(words) or words in told
    assert "before" not in told
    assert view.place.children == ()


def test_an_unknown_host_is_said(view):
    sheet = graphene(a=2.46, vacuum=8).repeat((6, 6, 1))
    del sheet[20]
    told = drop(view, "sheet.xyz", as_bytes(sheet))
    assert "C (from its own lattice)" in told
    assert "<b>inside</b>" not in told


def test_nothing_is_written(view, vacancy, monkeypatch):
    def refuse(*names, **settings):
        pytest.fail(f"a file is made: {names}")

    opened = builtins.open

    def read_only(file, mode="r", *rest, **settings):
        return refuse(file) if set(mode) & set("wax+") else opened(file, mode, *rest, **settings)

    raw = as_bytes(vacancy)
    monkeypatch.setattr(builtins, "open", read_only)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    assert "S vacancy" in drop(view, "mine.xyz", raw)


def test_its_atoms_can_be_pulled_at(view, vacancy):
    drop(view, "mine.xyz", as_bytes(vacancy))
    view.pull.click()
    box = view.place.children[-1]
    box.sliders[2].value = 0.3
    assert len(box.energies) == 2
    drop(view, "other.txt", b"")
    assert view.place.children == ()


def test_the_script_knows_the_limit_and_the_place():
    assert str(upload.MOST_BYTES) in upload.FIELD
    assert upload.PLACE in UploadView()._dom_classes
