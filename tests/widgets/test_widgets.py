"""The 3D view: atoms, bonds, marks and ghosts as drawn from above; pictures in the browser's tests.

The live curve: one picture, drawn anew after every epoch.
"""

from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.data import chemical_symbols
from lightning.pytorch.callbacks import Callback
from run_cases import CGCNN

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.training.prepared import Prepared
from defectkit.training.train import train
from defectkit.widgets import LiveCurve, picture, view_defect
from defectkit.widgets.structure import TURN, bonds


@pytest.fixture
def vacancy():
    unit = HOSTS["SnS2"].unit_cell()
    unit.rotate(30, "z", rotate_cell=True)
    site = next(s for s in find_sites(unit) if s.name == "cpx0")
    return make_defect(unit, (3, 3, 1), site, "Fe")


def sent(view, method: str) -> list[dict]:
    """The calls of one method that the 3D view was sent, in their order."""
    return [m for m in view.view._ngl_msg_archive if m["methodName"] == method]


def drawn_atoms(view) -> tuple[list[str], np.ndarray, int]:
    """Symbols, positions (Å) and the number of bonds of the crystal that was sent."""
    (call,) = sent(view, "loadFile")
    lines = call["args"][0]["data"].splitlines()
    start, end = lines.index("@<TRIPOS>ATOM") + 1, lines.index("@<TRIPOS>BOND")
    rows = [line.split() for line in lines[start:end]]
    return [r[5] for r in rows], np.array([r[2:5] for r in rows], float), len(lines) - end - 1


def test_atoms_stand_where_they_are_turned_to_the_viewer(vacancy):
    view = view_defect(vacancy.atoms, [3], vacancy.positions[1:])
    symbols, positions, _ = drawn_atoms(view)
    n = len(vacancy.atoms)
    assert symbols[:n] == list(vacancy.atoms.symbols)
    assert symbols[n:] == [chemical_symbols[0]] * (len(vacancy.positions) - 1)
    wanted = np.concatenate([vacancy.atoms.positions, vacancy.positions[1:]])
    # The camera looks along z with x to the left and y up.
    assert np.allclose(positions * [-1, 1, -1], wanted, atol=1e-4)
    assert np.prod(TURN) == 1, "a mirror image"


def test_view_marks_atoms_and_ghosts_and_leaves_its_input_alone(vacancy):
    before = vacancy.atoms.copy()
    view = view_defect(vacancy.atoms, [3], vacancy.positions[1:])
    assert before == vacancy.atoms
    rims = [m["kwargs"] for m in sent(view, "addRepresentation") if "side" in m["kwargs"]]
    assert [rim["sele"] for rim in rims] == ["@3", f"@{len(vacancy.atoms)}"]
    (cell,) = sent(view, "addShape")
    assert len(cell["args"][1]) == 4  # sides of a parallelogram


def test_view_works_without_any_mark():
    atoms = Atoms(
        "MoS2", positions=[[0, 0, 5], [1.6, 0.9, 6.5], [1.6, 0.9, 3.5]], cell=[3.2, 3.2, 10]
    )
    view = view_defect(atoms, [])
    assert drawn_atoms(view)[2] == 2
    assert not [m for m in sent(view, "addRepresentation") if "side" in m["kwargs"]]
    assert bytes(view.picture.value).startswith(b"\x89PNG")


def pairs_of(atoms: Atoms) -> set[str]:
    return {"".join(sorted(atoms.symbols[pair])) for pair in bonds(atoms)}


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("MoS2", {"MoS"}), ("SnS2", {"SSn"}), ("CrI3", {"CrI"}), ("As2", {"AsAs"}), ("P4", {"PP"})],
)
def test_neighbours_are_bonded_and_no_others(host, wanted):
    assert pairs_of(HOSTS[host].unit_cell().repeat((3, 3, 1))) == wanted


def test_a_short_bond_takes_none_of_the_others_away_and_a_far_atom_has_none():
    sheet = HOSTS["MoS2"].unit_cell().repeat((4, 4, 1))
    before = len(bonds(sheet))
    top = sheet[[atom.index for atom in sheet if atom.symbol == "S"]].positions
    place = top[top[:, 2].argmax()]
    assert len(bonds(sheet + Atoms("H", positions=[place + [0, 0, 1.35]]))) == before + 1
    assert len(bonds(sheet + Atoms("Li", positions=[place + [0, 0, 7.0]]))) == before


CONFIG = replace(CGCNN, epochs=3, batch_size=16)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path / "data"))


class Place:
    """A cell's output: the pictures shown there, one after another."""

    def __init__(self):
        self.shown = []

    def display(self, figure, display_id):
        assert display_id
        assert not self.shown, "a second picture instead of an update"
        self.shown.append(figure)
        return self

    def update(self, figure):
        self.shown.append(figure)


@pytest.fixture
def place(monkeypatch):
    mpl.use("Agg")
    place = Place()
    monkeypatch.setattr(picture, "display", place.display)
    yield place
    plt.close("all")


@pytest.mark.usefixtures("cache")
def test_live_curve_draws_every_epoch_in_one_place(place, monkeypatch, rows, split, tmp_path):
    monkeypatch.setattr(picture, "_in_notebook", lambda: True)
    curve = LiveCurve(baseline=3.5)
    run = train(Prepared(CONFIG, rows, split), tmp_path / "run", progress=False, callbacks=(curve,))
    kept = pd.read_csv(run.folder / "metrics.csv")
    assert len(place.shown) == 3
    assert curve.metrics.index.tolist() == [1, 2, 3]
    assert curve.metrics.train_loss.tolist() == pytest.approx(kept.train_loss.tolist())
    assert curve.metrics.valid_eform_mae.tolist() == pytest.approx(kept.valid_eform_mae.tolist())
    for epoch, figure in enumerate(place.shown, start=1):  # no picture is an epoch late
        loss, error = (axes.lines[0] for axes in figure.axes)
        assert loss.get_ydata().tolist() == pytest.approx(kept.train_loss[:epoch].tolist())
        assert error.get_ydata().tolist() == pytest.approx(kept.valid_eform_mae[:epoch].tolist())
    assert place.shown[-1].axes[1].get_xlim()[1] == 3.5
    assert place.shown[-1].axes[1].get_legend() is not None
    assert plt.get_fignums() == []  # else the notebook would show them again


class Stop(Callback):
    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 2:
            raise InterruptedError


@pytest.mark.usefixtures("cache")
def test_live_curve_of_a_resumed_run_shows_it_from_its_start(place, rows, split, tmp_path):
    with pytest.raises(InterruptedError):
        train(Prepared(CONFIG, rows, split), tmp_path / "run", progress=False, callbacks=(Stop(),))
    curve = LiveCurve()
    train(Prepared(CONFIG, rows, split), tmp_path / "run", progress=False, callbacks=(curve,))
    assert place.shown == []  # outside of a notebook
    assert curve.metrics.index.tolist() == [1, 2, 3]
    assert curve.metrics.notna().all(axis=None)
