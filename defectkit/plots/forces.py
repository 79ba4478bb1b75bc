"""Figures of moved atoms: forces as arrows, the energy of every step, the energy along one pull.

Each takes atoms or a table and returns matplotlib axes. Places in Å, energies in eV.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase import Atoms
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from defectkit.plots import style
from defectkit.plots.style import BLUE, GREY, ORANGE

MOVED = 0.05  # Å, from which on an atom has left its place
ARROW = 1.5  # Å of an arrow an eV/Å
SHORTEST, LONGEST = 0.15, 4.0  # Å: shorter ones would be dots; the longest sets the scale
KEYS = (1, 2, 5, 10, 20, 50, 100)  # eV/Å, of which one is drawn as a scale
VACANT = 0.9  # Å, radius of the ring of a vacancy
ROOM = 1.5  # Å around what is drawn
VIEWS = ((0, 1, 2), (0, 2, 1))  # what points to the right, upwards, and to the reader


def force_views(
    atoms: Atoms,
    forces: np.ndarray | None,
    start: np.ndarray,
    chosen: int,
    axes: Sequence[Axes],
    vacancies: ArrayLike = (),
) -> None:
    """Atoms from above and from the side, forces as arrows, the places that atoms left pale.

    Args:
        atoms: as they stand.
        forces: (n, 3) eV/Å; no arrows where they are not known.
        start: (n, 3) Å, where the atoms stood.
        chosen: the atom with a red rim.
        axes: two, empty.
        vacancies: (k, 3) Å, vacant sites, drawn as dashed rings with a cross.
    """
    vacant = np.asarray(vacancies, dtype=float).reshape(-1, 3)
    moved = np.flatnonzero(np.linalg.norm(atoms.positions - start, axis=1) > MOVED)
    radii, faces = style.atom_radii(atoms.numbers), style.atom_faces(atoms.numbers)
    rims = np.where(np.arange(len(atoms)) == chosen, style.DEFECT, style.RIM)
    widths = np.where(np.arange(len(atoms)) == chosen, 2.2, 0.6)
    scale = ARROW
    if forces is not None:
        largest = float(np.linalg.norm(forces, axis=1).max())
        scale = min(ARROW, LONGEST / max(largest, 1e-9))
    corners = style.cell_corners(atoms.cell.array[:2, :2])
    corners += start[:, :2].mean(axis=0) - corners.mean(axis=0)  # it may begin anywhere
    both = np.concatenate(
        [start, atoms.positions, np.column_stack([corners, np.full(4, start[:, 2].mean())])]
    )
    low, high = both.min(axis=0) - ROOM, both.max(axis=0) + [ROOM, ROOM, 2 * ROOM]
    for ax, (right, up, depth) in zip(axes, VIEWS, strict=True):
        plane = [right, up]
        ghost = {"edgecolors": style.LIGHT_GREY, "linewidths": 1.2, "linestyles": "--"}
        style.discs(ax, start[moved][:, plane], radii[moved], style.BAND, **ghost)
        order = np.argsort(atoms.positions[:, depth] * (1 if depth == 2 else -1), kind="stable")
        look = {"edgecolors": rims[order], "linewidths": widths[order], "zorder": 2}
        style.discs(ax, atoms.positions[order][:, plane], radii[order], faces[order], **look)
        ring = {"edgecolors": style.DEFECT, "linewidths": 1.5, "linestyles": "--", "zorder": 3}
        style.discs(ax, vacant[:, plane], np.full(len(vacant), VACANT), "none", **ring)
        ax.plot(*vacant[:, plane].T, "x", ms=7, mew=1.8, color=style.DEFECT, zorder=3)
        ax.set(aspect="equal", xlabel="x (Å)", ylabel=f"{'xyz'[up]} (Å)")
        ax.set(xlim=(low[right], high[right]), ylim=(low[up], high[up]))
        if forces is not None:
            look = {"angles": "xy", "scale_units": "xy", "scale": 1 / scale, "zorder": 4}
            heads = {"width": 0.009, "color": style.BLACK}
            seen = np.linalg.norm(forces, axis=1) * scale > SHORTEST
            places, arrows = atoms.positions[seen][:, plane], forces[seen][:, plane]
            ax.quiver(*places.T, *arrows.T, **look, **heads)
    style.outline(axes[0], corners, ls=":")
    if forces is not None:
        key = max(value for value in KEYS if value <= max(1.0, largest))
        place = low[0] + 0.6, high[2] - 1.0
        axes[1].quiver(*place, key, 0.0, **look, **heads)
        axes[1].text(place[0] + key * scale + 0.4, place[1], f"{key} eV/Å", va="center", size=9)


def energy_steps(energies: ArrayLike, spreads: ArrayLike, ax: Axes) -> None:
    """The energy after every move, and how far the networks are apart.

    Args:
        energies: (k,) eV, means of the networks; the first is that of the start.
        spreads: (k,) eV, their standard deviations.
        ax: where to draw.
    """
    energies, spreads = np.asarray(energies), np.asarray(spreads)
    steps = np.arange(len(energies))
    ax.fill_between(steps, energies - spreads, energies + spreads, color=BLUE, alpha=0.2, lw=0)
    ax.plot(steps, energies, ".-", color=BLUE, label="mean and spread")
    ax.axhline(energies[0], color="black", ls=":", lw=1, label="start")
    ax.set(xlabel="moves and steps", ylabel="formation energy (eV)")
    ax.set_xlim(0, 10 * (len(steps) // 10 + 1))  # in jumps: a frame that stays is quickly drawn
    ax.relim()
    ax.autoscale_view(scalex=False)
    ax.legend(**style.ABOVE, ncols=2, fontsize=9)


def pull(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The energy along one displacement: networks, their mean, and a potential that knows forces.

    Args:
        table: of `calculator.pulled` for both: index Å; eV above the start, the columns `network 0`
            and so on of the members, `networks` of their mean, and one of the other potential.
        ax: where to draw; a new figure where it is not given.
    """
    ax = ax or plt.subplots(figsize=(6.5, 3.6), layout="constrained")[1]
    members = [name for name in table if name.startswith("network ")]
    ax.plot(table.index, table[members], color=GREY, lw=1)
    ax.plot([], [], color=GREY, lw=1, label="each of the networks")
    ax.plot(table.index, table.networks, "o-", ms=4, color=BLUE, label="their mean")
    for name in table.columns.drop([*members, "networks"]):
        ax.plot(table.index, table[name], "s--", ms=4, color=ORANGE, label=name)
    ax.axvline(0, color="black", ls=":", lw=1)
    ax.set(xlabel="displacement of the atom (Å)", ylabel="energy above the start (eV)")
    ax.legend(**style.BESIDE)
    return ax
