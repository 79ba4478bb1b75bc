"""The 3D view: structure, marks and ghosts in one frame; pictures are tested in the browser.

The live curve: one picture, drawn anew after every epoch.
"""

import lightning.pytorch as pl
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ase import Atoms

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
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


class Slope(pl.LightningModule):
    """One weight that falls; logs what the engine logs."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(4.0))

    def training_step(self, batch, number):
        loss = self.weight.square()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch, number):
        self.log("valid_eform_mae", self.weight.abs(), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train_slope(curve: LiveCurve, folder) -> None:
    rows = torch.utils.data.DataLoader(torch.zeros(2, 1))
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[curve],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(Slope(), rows, rows)


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


def test_live_curve_draws_every_epoch_in_one_place(place, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "_in_notebook", lambda: True)
    curve = LiveCurve(baseline=3.5)
    train_slope(curve, tmp_path)
    assert len(place.shown) == 3
    assert curve.metrics.index.tolist() == [1, 2, 3]
    # Two steps an epoch, each of which takes a fifth of the weight away.
    weights = 4 * 0.8 ** np.arange(7)
    assert curve.metrics.valid_eform_mae.tolist() == pytest.approx(weights[2::2])
    losses = (weights**2)[:6].reshape(3, 2).mean(axis=1)
    assert curve.metrics.train_loss.tolist() == pytest.approx(losses)
    loss, error = place.shown[-1].axes
    assert loss.lines[0].get_ydata().tolist() == pytest.approx(losses)
    assert error.get_xlim()[1] == 3.5
    assert error.get_legend() is not None
    assert plt.get_fignums() == []  # else the notebook would show them again


def test_live_curve_shows_nothing_outside_of_a_notebook(place, tmp_path):
    curve = LiveCurve()
    train_slope(curve, tmp_path)
    assert place.shown == []
    assert len(curve.metrics) == 3
