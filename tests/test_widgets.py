"""The 3D view: structure, marks and ghosts in one frame; pictures are tested in the browser.

The live curve: one picture, drawn anew after every epoch.
"""

from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from lightning.pytorch.callbacks import Callback
from run_cases import CGCNN

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.training.runs import train
from defectkit.widgets import LiveCurve, training, view_defect
from defectkit.widgets.structure import _standard_form


@pytest.fixture
def vacancy():
    unit = HOSTS["SnS2"].unit_cell()
    unit.rotate(30, "z", rotate_cell=True)  # not the orientation that PDB text can hold
    site = next(s for s in find_sites(unit) if s.name == "cpx0")
    return make_defect(unit, (3, 3, 1), site, "Fe")


def test_ghosts_turn_with_the_atoms(vacancy):
    turned, points = _standard_form(vacancy.atoms, vacancy.positions)
    before = np.linalg.norm(vacancy.atoms.positions[:, None] - vacancy.positions, axis=-1)
    after = np.linalg.norm(turned.positions[:, None] - points, axis=-1)
    assert np.allclose(before, after)
    assert np.allclose(turned.cell[0, 1:], 0)
    assert np.allclose(turned.cell.cellpar(), vacancy.atoms.cell.cellpar())


def test_view_marks_atoms_and_ghosts_and_leaves_its_input_alone(vacancy):
    before = vacancy.atoms.copy()
    view = view_defect(vacancy.atoms, [3], vacancy.positions[1:])
    assert before == vacancy.atoms
    sent = {m["methodName"]: (m["args"], m["kwargs"]) for m in view._ngl_msg_archive}
    assert sent["addRepresentation"][1]["sele"] == "@3"  # the last one added
    (kind, centre, *_), *more = sent["addShape"][0][1]
    assert (kind, more) == ("sphere", [])
    assert np.allclose(centre, _standard_form(vacancy.atoms, vacancy.positions[1:])[1])


def test_view_works_without_any_mark():
    atoms = Atoms(
        "MoS2", positions=[[0, 0, 5], [1.6, 0.9, 6.5], [1.6, 0.9, 3.5]], cell=[3.2, 3.2, 10]
    )
    assert len(view_defect(atoms, [])._ngl_component_ids) == 1


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
    monkeypatch.setattr(training, "display", place.display)
    yield place
    plt.close("all")


@pytest.mark.usefixtures("cache")
def test_live_curve_draws_every_epoch_in_one_place(place, monkeypatch, rows, split, tmp_path):
    monkeypatch.setattr(training, "_in_notebook", lambda: True)
    curve = LiveCurve(baseline=3.5)
    run = train(CONFIG, rows, split, tmp_path / "run", progress=False, callbacks=(curve,))
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
        train(CONFIG, rows, split, tmp_path / "run", progress=False, callbacks=(Stop(),))
    curve = LiveCurve()
    train(CONFIG, rows, split, tmp_path / "run", progress=False, callbacks=(curve,))
    assert place.shown == []  # outside of a notebook
    assert curve.metrics.index.tolist() == [1, 2, 3]
    assert curve.metrics.notna().all(axis=None)
