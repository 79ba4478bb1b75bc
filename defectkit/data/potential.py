"""CHGNet as the source of the demo labels: calculator, two-stage relaxation, reference phases.

CHGNet: Deng et al., Nat. Mach. Intell. 5, 1031 (2023). Its weights come inside the `chgnet`
package, so nothing is downloaded.
"""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, graphene
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from ase.spacegroup import crystal
from pymatgen.core import Lattice, Structure

LABEL_SOURCE = "CHGNet-0.3.0"

COARSE_FMAX, COARSE_STEPS = 0.1, 60  # eV/Å; first stage
FINE_FMAX, FINE_STEPS = 0.05, 100  # eV/Å; second stage
CELL_FMAX = 0.01  # eV/Å; positions and cell together
FIRST_STEP_STIFFNESS = 40.0  # eV/Å²: close to CHGNet's bonds, so that BFGS starts well


class ChgnetCalculator(Calculator):
    """Energy (eV), forces (eV/Å) and unsigned site moments (μB) of one structure.

    CHGNet's own calculator always differentiates for stress and keeps the graph of the
    gradient, as training needs; leaving both out makes a relaxation step twice as fast.
    """

    implemented_properties = ["energy", "forces", "magmoms"]  # noqa: RUF012 (ASE's interface)

    def __init__(self) -> None:
        super().__init__()
        self.model = load_chgnet()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill `self.results` for `atoms`."""
        super().calculate(atoms, properties, system_changes)
        lattice = atoms.cell.array
        structure = Structure(Lattice(lattice), atoms.numbers, atoms.get_scaled_positions())
        graph = self.model.graph_converter(structure)
        output = self.model([graph], task="em")
        energy = output["e"].sum() * len(atoms)
        (slope,) = torch.autograd.grad(energy, graph.atom_frac_coord)  # dE/d(fractional)
        self.results = {
            "energy": float(energy),
            "forces": -slope.double().numpy() @ np.linalg.inv(lattice).T,
            "magmoms": output["m"][0].detach().numpy(),
        }


def load_chgnet() -> torch.nn.Module:
    """CHGNet 0.3.0 on the CPU, quiet, ready to predict."""
    from chgnet.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("ignore")
    return model.eval()


@dataclass(frozen=True)
class Relaxation:
    """The result of a two-stage relaxation at fixed cell.

    Attributes:
        atoms: the relaxed structure, without a calculator.
        en1, en2: energies after the coarse and the fine stage, eV.
        conv1, conv2: energy change over the last step of each stage, eV.
        max_force: largest force on an atom at the end, eV/Å.
        magmoms: unsigned site moments, (N,) μB.
    """

    atoms: Atoms
    en1: float
    en2: float
    conv1: float
    conv2: float
    max_force: float
    magmoms: np.ndarray


def relax(atoms: Atoms, calculator: Calculator) -> Relaxation:
    """Relax all atoms at fixed cell: coarse to `COARSE_FMAX`, then fine to `FINE_FMAX`."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energies = [atoms.get_potential_energy()]

    optimizer = BFGS(atoms, logfile=None, alpha=FIRST_STEP_STIFFNESS)
    optimizer.attach(lambda: energies.append(atoms.get_potential_energy()))

    def stage(fmax: float, steps: int) -> tuple[float, float]:
        optimizer.run(fmax=fmax, steps=steps)
        return energies[-1], energies[-1] - energies[-2]

    en1, conv1 = stage(COARSE_FMAX, COARSE_STEPS)
    en2, conv2 = stage(FINE_FMAX, FINE_STEPS)
    max_force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    magmoms = atoms.get_magnetic_moments()
    atoms.calc = None
    return Relaxation(atoms, en1, en2, conv1, conv2, max_force, magmoms)


def relax_cell(atoms: Atoms, in_plane: bool = True) -> Atoms:
    """Relax positions and cell (only the in-plane part of it where `in_plane`)."""
    from chgnet.model import CHGNetCalculator

    atoms = atoms.copy()
    with contextlib.redirect_stdout(io.StringIO()):
        atoms.calc = CHGNetCalculator(load_chgnet(), use_device="cpu", on_isolated_atoms="ignore")
    mask = [1, 1, 0, 0, 0, 1] if in_plane else None
    FIRE(FrechetCellFilter(atoms, mask=mask), logfile=None).run(fmax=CELL_FMAX, steps=500)
    energy = atoms.get_potential_energy()
    atoms.calc = None
    atoms.info["energy"] = float(energy)
    return atoms


_GASES = {"H": 0.74, "N": 1.10, "O": 1.21, "F": 1.41, "Cl": 1.99, "Br": 2.28, "I": 2.67}


def reference_phase(symbol: str) -> tuple[str, Atoms]:
    """The elemental phase whose energy per atom is the chemical potential: (name, structure).

    Diatomic molecules for the gases and halogens, an S8 ring, graphene, black phosphorus,
    trigonal Se and Te, alpha boron; else ASE's reference structure of the element.
    """
    if symbol in _GASES:
        return f"{symbol}2 molecule", _boxed(
            Atoms(f"{symbol}2", [[0, 0, 0], [0, 0, _GASES[symbol]]])
        )
    if symbol == "S":
        angle = np.arange(8) * np.pi / 4
        ring = np.column_stack(
            [2.35 * np.cos(angle), 2.35 * np.sin(angle), 0.5 * (-1.0) ** np.arange(8)]
        )
        return "S8 molecule", _boxed(Atoms("S8", ring))
    if symbol == "C":
        return "graphene", graphene("C2", a=2.46, vacuum=10.0)
    if symbol in ("Se", "Te"):
        a, c, x = {"Se": (4.37, 4.95, 0.225), "Te": (4.46, 5.93, 0.264)}[symbol]
        return "trigonal chains", crystal(
            symbol, [(x, 0, 1 / 3)], spacegroup=152, cellpar=[a, a, c, 90, 90, 120]
        )
    if symbol == "P":
        return "black phosphorus", crystal(
            "P", [(0, 0.0806, 0.1017)], spacegroup=64, cellpar=[3.31, 10.48, 4.38, 90, 90, 90]
        )
    if symbol == "B":
        return "alpha boron", crystal(
            ["B", "B"],
            [(0.119, -0.119, 0.892), (0.197, -0.197, 0.025)],
            spacegroup=166,
            cellpar=[4.91, 4.91, 12.57, 90, 90, 120],
        )
    if symbol == "Ga":
        return "alpha gallium", crystal(
            "Ga", [(0, 0.1549, 0.081)], spacegroup=64, cellpar=[4.52, 7.66, 4.53, 90, 90, 90]
        )
    if symbol == "Mn":
        return "fcc (gamma) manganese", bulk("Mn", "fcc", a=3.6)
    return "ASE reference structure", bulk(symbol)


def _boxed(molecule: Atoms) -> Atoms:
    molecule.center(vacuum=8.0)
    molecule.pbc = True
    return molecule


def chemical_potential(symbol: str) -> tuple[str, float]:
    """Name of the reference phase and its CHGNet energy per atom (eV)."""
    name, atoms = reference_phase(symbol)
    if "molecule" in name:
        energy = relax(atoms, ChgnetCalculator()).en2
    else:
        energy = relax_cell(atoms, in_plane=name == "graphene").info["energy"]
    return name, energy / len(atoms)
