"""An ASE calculator on the networks of a predictor: energies, forces and in-plane stress.

What it computes is the formation energy that the networks learned at minima, and its derivatives.
It is no force field: nobody showed the networks a structure on its way to a minimum. What every
atom is (dopant, host, which site is vacant) is found once, in the first structure, and kept: a
reading of the defect that changed on the way would be another energy surface.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from defectkit import DefectkitError
from defectkit.graphs.build import build_graph, read_defect
from defectkit.graphs.geometry import strained
from defectkit.predict.predictor import Predictor
from defectkit.structures.recognise import Recognition


class DefectCalculator(Calculator):
    """Formation energy (eV), forces (eV/Å) and in-plane stress (eV/Å³), means of the members.

    Results have `energies`, those of the members, as well: where they disagree, nobody knows.

    Args:
        predictor: of networks that read all atoms.
        host: the pristine host of the structures, as a cell in the xy plane.

    Raises DefectkitError for a predictor of a defect's sites alone, whose structures cannot move.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's interface)

    def __init__(self, predictor: Predictor, host: Atoms):
        super().__init__()
        if predictor.card.graph.nodes != "atoms":
            raise DefectkitError(
                "The predictor reads the sites of a defect alone, in structures that are not "
                "relaxed; take one whose networks read all atoms, such as hybrid."
            )
        self.predictor, self.host = predictor, host
        self.found: Recognition | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """ASE's hook; DefectkitError for a structure that cannot be read."""
        super().calculate(atoms, properties, system_changes)
        # Networks of unrelaxed positions read these from records; here they are the atoms' own.
        config = replace(self.predictor.card.graph, positions="relaxed")
        if self.found is None or {"numbers", "pbc"} & set(system_changes):
            self.found = read_defect(self.atoms, self.host, config)
            self.first_cell = self.atoms.cell.array.copy()
        graph = build_graph(self.atoms, config, recognition=self._carried())
        graph.pos.requires_grad_()
        strain = torch.zeros(1, 3, 3, requires_grad=True)
        bent = copy(graph)
        bent.ideal_pos, _ = strained(graph.ideal_pos, graph.cell, strain)
        bent.pos, bent.cell = strained(graph.pos, graph.cell, strain)
        energies = torch.cat([model(bent).eform for model in self.predictor.networks])
        forces, virial = torch.autograd.grad(energies.mean(), (graph.pos, strain))
        stress = virial[0].numpy()
        stress = (stress + stress.T) / 2 / self.atoms.get_volume()
        stress[2], stress[:, 2] = 0.0, 0.0  # a layer has none across it
        self.results = {
            "energy": energies.mean().item(),
            "energies": energies.detach().numpy(),
            "forces": -forces[: len(self.atoms)].numpy(),
            "stress": full_3x3_to_voigt_6_stress(stress),
        }

    def _carried(self) -> Recognition:
        """The defect that was found first, its sites moved along with the cell."""
        into = np.linalg.solve(self.first_cell, self.atoms.cell.array)
        return replace(
            self.found,
            ideal_positions=self.found.ideal_positions @ into,
            vacancy_positions=self.found.vacancy_positions @ into,
        )


def pulled(
    atoms: Atoms,
    atom: int,
    direction: Sequence[float],
    lengths: Sequence[float],
    calculators: Mapping[str, Calculator],
) -> pd.DataFrame:
    """Energies while one atom is pulled along a line, the others held.

    Args:
        atoms: where it starts; they stay as they are.
        atom: its number.
        direction: (3,) of the line, of any length.
        lengths: Å, how far it is pulled.
        calculators: by name.

    Returns:
        A row a length, eV above the start: a column a calculator, and before that of a
        `DefectCalculator` called "networks" those of its members, "network 0" and so on.

    Raises DefectkitError for a direction of no length.
    """
    line = np.asarray(direction, dtype=float)
    if not np.linalg.norm(line) > 0:
        raise DefectkitError("The direction of the pull is zero; give a vector with a length.")
    line /= np.linalg.norm(line)
    columns = {}
    for name, calculator in calculators.items():
        rows = []
        for length in (0.0, *lengths):
            moved = atoms.copy()
            moved.positions[atom] += length * line
            moved.calc = calculator
            energy = moved.get_potential_energy()
            rows.append([*calculator.results.get("energies", ()), energy])
        values = np.array(rows[1:]) - rows[0]
        names = [f"{name.removesuffix('s')} {k}" for k in range(values.shape[1] - 1)]
        columns |= dict(zip([*names, name], values.T))
    return pd.DataFrame(columns, index=pd.Index(lengths, name="displacement"))
