"""Figures of moved atoms: arrows, ghosts and scales are those of the numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.quiver import Quiver

from defectkit import plots
from defectkit.plots.forces import energy_steps, force_views, pull
from defectkit.structures.hosts import HOSTS

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def atoms():
    return HOSTS["MoS2"].unit_cell().repeat((2, 2, 1))


def drawn(ax, kind) -> list:
    return [artist for artist in ax.collections if isinstance(artist, kind)]


@pytest.mark.parametrize(("largest", "key"), [(0.5, 1), (1.5, 1), (7.0, 5), (60.0, 50)])
def test_arrows_are_the_forces_with_their_scale(atoms, largest, key):
    forces = np.zeros((len(atoms), 3))
    forces[4] = largest, 0.0, 0.0
    axes = plt.subplots(1, 2)[1]
    force_views(atoms, forces, atoms.positions, 4, axes)
    for ax, plane in zip(axes, ([0, 1], [0, 2])):
        arrows = drawn(ax, Quiver)[0]
        assert np.allclose(arrows.get_offsets(), atoms.positions[4, plane])
        assert arrows.U.tolist() == [largest]
        assert largest / arrows.scale <= 4.0 + 1e-9
    assert [text.get_text() for text in axes[1].texts] == [f"{key} eV/Å"]
    assert drawn(axes[1], Quiver)[1].U.tolist() == [key]


def test_places_that_atoms_left_are_pale(atoms):
    start = atoms.positions.copy()
    atoms.positions[3] += [0.5, 0.0, 0.0]
    ax = plt.subplots(1, 2)[1]
    force_views(atoms, None, start, 0, ax, [[1.0, 2.0, 10.0]])
    ghosts, discs, rings = drawn(ax[0], EllipseCollection)
    assert np.allclose(ghosts.get_offsets(), start[[3], :2])
    assert len(discs.get_offsets()) == len(atoms)
    assert rings.get_offsets().tolist() == [[1.0, 2.0]]
    assert not drawn(ax[0], Quiver)


def test_the_frame_stays_for_ten_steps():
    ax = plt.subplots()[1]
    frames = []
    for n in (1, 5, 9, 10):
        energy_steps(np.linspace(1, 0, n), np.full(n, 0.1), ax)
        frames.append(ax.get_xlim())
    assert frames == [(0, 10)] * 3 + [(0, 20)]
    assert ax.get_ylabel() == "formation energy (eV)"


def test_a_pull_shows_members_mean_and_the_other():
    table = pd.DataFrame(
        {"network 0": [0, 1.0], "network 1": [0, 3.0], "networks": [0, 2.0], "CHGNet": [0, 4.0]},
        index=[0.0, 0.5],
    )
    ax = pull(table)
    shown = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert shown["their mean"] == [0, 2]
    assert shown["CHGNet"] == [0, 4]
    assert "(Å)" in ax.get_xlabel()
    assert plots.forces.pull is pull
