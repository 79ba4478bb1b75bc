"""A 3D view of a defect structure."""

import numpy as np
from ase import Atoms

from defectkit.plots import DEFECT_COLOUR


def view_defect(atoms: Atoms, defect_indices, vacancies=(), size: str = "400px"):
    """An nglview widget of `atoms` with its defect marked by translucent red spheres.

    Args:
        atoms: structure, positions in Å.
        defect_indices: atoms that belong to the defect.
        vacancies: (k, 3) Å positions of vacant sites, drawn as ghost spheres.
        size: height of the widget, CSS.

    nglview reads the structure through PDB text, which turns the cell to its standard form; the
    same turn is applied here first, so that ghost spheres sit where their atoms would.
    """
    import nglview

    turned, vacancies = _standard_form(atoms, np.asarray(vacancies, dtype=float).reshape(-1, 3))
    view = nglview.show_ase(turned)
    view.clear_representations()
    view.add_representation("ball+stick", aspectRatio=3)
    view.add_unitcell()
    if len(defect_indices):
        view.add_representation(
            "spacefill", selection=[int(i) for i in defect_indices], color=DEFECT_COLOUR,
            opacity=0.5, radiusScale=0.7,
        )  # fmt: skip
    colour = [int(DEFECT_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    for point in vacancies:
        view.shape.add_sphere(point.tolist(), colour, 0.8, "vacancy")
    view.layout.height = size
    view.camera = "orthographic"
    return view


def _standard_form(atoms: Atoms, points: np.ndarray) -> tuple[Atoms, np.ndarray]:
    """Atoms and points turned together so that cell vector a lies along x, b in the xy plane."""
    _, rotation = atoms.cell.standard_form()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T, scale_atoms=False)
    turned.positions = atoms.positions @ rotation.T
    return turned, points @ rotation.T
