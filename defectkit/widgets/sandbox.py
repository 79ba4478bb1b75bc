"""A structure to pull at: atoms are moved with sliders, energy and forces answer."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import ipywidgets
import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from defectkit import DefectkitError
from defectkit.plots.forces import MOVED, energy_steps, force_views
from defectkit.predict.calculator import DefectCalculator
from defectkit.predict.predictor import Predictor
from defectkit.structures.names import in_html
from defectkit.structures.record import SiteKind
from defectkit.widgets.picture import LINE, ROW, Pictured, Sheet

REACH = 1.5  # Å, of a slider to both sides
FMAX, STEPS = 0.05, 40  # eV/Å at which a relaxation ends, and its steps at most
NAMED = 5  # atoms that moved are named, those that moved farthest
SIZE, WIDTHS, EDGES = (12, 3.9), (1.15, 1.15, 1), (0.06, 0.99, 0.14, 0.91, 0.22)  # of the `Sheet`
NO_FORCE_FIELD = (
    "<b>This is no force field.</b> The networks learned formation energies of structures at their "
    "minima, labelled by {source}. Away from minima nothing taught them how the energy rises: take "
    "a relaxation here as a sketch, and mind how far the networks are apart."
)


class Sandbox(Pictured):
    """Choose an atom, move it, read energy and forces; relax all atoms, and compare with the start.

    Args:
        atoms: a structure with a defect, in the xy plane (Å); it stays as it is.
        host: its pristine host.
        predictor: of networks that read all atoms, such as the shipped `hybrid`.

    Attributes:
        atoms: as they stand now, with a `DefectCalculator`.
        start: (n, 3) Å, where they stood.
        atom: the dropdown of the atom to move; its `value` is the atom's number.
        sliders: three, displacements (Å) of that atom from its start along x, y and z.
        relax, reset: buttons; while a relaxation runs, the first one stops it.
        energies: (eV) means of the networks after every move, the first that of the start.
        reading: energy, forces and what moved, in words.
        picture: the atoms with arrows, and the energies.

    Raises DefectkitError for a structure that has no place in the networks.
    """

    def __init__(self, atoms: Atoms, host: Atoms, predictor: Predictor) -> None:
        super().__init__()
        self.atoms, self.start = atoms.copy(), atoms.positions.copy()
        self.atoms.calc = DefectCalculator(predictor, host)
        self.atoms.get_potential_energy()
        kinds = self.atoms.calc.found.site_kind
        middle = [*self.start[kinds != SiteKind.HOST], *self.atoms.calc.found.vacancy_positions][0]
        self._shifts = self._towards(middle)
        names = [
            f"{k} {symbol}" + (f", {SiteKind(kind).name.lower()}" if kind else "")
            for k, (symbol, kind) in enumerate(zip(atoms.symbols, kinds))
        ]
        away = np.linalg.norm(self.start + self._shifts - middle, axis=1)
        order = np.lexsort([away.round(2), kinds == SiteKind.HOST])  # the defect, what is near it
        options = [(names[k], int(k)) for k in order]
        self.atom = ipywidgets.Dropdown(options=options, description="atom")
        self.sliders = [_slider(axis) for axis in "xyz"]
        self.relax = ipywidgets.Button(description="Relax", icon="arrow-down")
        self.reset = ipywidgets.Button(description="Back to the start", icon="undo")
        self.reading = ipywidgets.HTML(layout=LINE)
        self.energies, self._spreads = [], []
        self._sheet = Sheet(SIZE, WIDTHS, edges=EDGES, barred=0)
        self._quiet = self._running = False
        self.atom.observe(lambda change: self._chosen(), names="value")
        for slider in self.sliders:
            slider.observe(lambda change: self._moved(), names="value")
        self.relax.on_click(lambda button: self._pressed())
        self.reset.on_click(lambda button: self._restart())
        self._restart()
        warning = NO_FORCE_FIELD.format(source=in_html(predictor.card.label_source))
        self.children = [
            ipywidgets.HTML(_paragraph(warning), layout=LINE),
            ipywidgets.HBox([self.atom, self.relax, self.reset], layout=ROW),
            ipywidgets.HBox(self.sliders, layout=ROW),
            self.reading,
            self.picture,
        ]

    def steps(self) -> Iterator[None]:
        """Relax all atoms, a step a turn, until the forces are small or `STEPS` are done."""
        optimiser = BFGS(self.atoms, logfile=None)
        with suppress(DefectkitError):  # of an arrangement that cannot be read, which is told
            for _ in optimiser.irun(fmax=FMAX, steps=STEPS):
                if optimiser.nsteps:  # before its first step nothing has moved
                    self._show()
                yield

    def _towards(self, middle: np.ndarray) -> np.ndarray:
        """(n, 3) Å, whole cell vectors that bring a place to the middle of the picture."""
        away = self.atoms.cell.scaled_positions(self.start - middle)
        away[:, 2] = 0.0
        return -np.rint(away) @ self.atoms.cell.array

    def _chosen(self) -> None:
        """Let the sliders stand where the atom does, which a relaxation may have moved far."""
        moved = (self.atoms.positions - self.start)[self.atom.value]
        self._quiet = True  # or every slider would move the atom
        for slider, length in zip(self.sliders, moved):
            slider.max = max(REACH, float(np.ceil(abs(length))))
            slider.min = -slider.max
            slider.value = float(length)
        self._quiet = False
        self._draw()

    def _moved(self) -> None:
        if self._quiet or self._running:
            return
        number = self.atom.value
        self.atoms.positions[number] = self.start[number] + [s.value for s in self.sliders]
        self._show()

    def _restart(self) -> None:
        self._running = False
        self.atoms.positions[:] = self.start
        self.energies.clear()
        self._spreads.clear()
        self._show()
        self._chosen()

    def _pressed(self) -> None:
        """Begin a relaxation, or end the one that runs."""
        if self._running:
            self._running = False
            return
        self._running = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: nothing else waits for its turn
            asyncio.run(self._relax())
        else:
            self._task = loop.create_task(self._relax())  # kept, or it may be swept away

    async def _relax(self) -> None:
        """Step by step, so that clicks are answered between two steps."""
        for control in (self.atom, *self.sliders):
            control.disabled = True
        self.relax.description, self.relax.icon = "Stop", "stop"
        try:
            for _ in self.steps():
                await asyncio.sleep(0.01)
                if not self._running:
                    break
        finally:
            self._running = False
            for control in (self.atom, *self.sliders):
                control.disabled = False
            self.relax.description, self.relax.icon = "Relax", "arrow-down"
            self._chosen()

    def _show(self) -> None:
        """Ask the networks, and draw."""
        with suppress(DefectkitError):  # `_draw` tells
            self.energies.append(self.atoms.get_potential_energy())
            self._spreads.append(float(np.std(self.atoms.calc.results["energies"])))
        self._draw()

    def _draw(self) -> None:
        """Picture and words; atoms that the networks cannot read have no arrows, but a reason."""
        try:
            forces = self.atoms.get_forces()
            self.reading.value = self._in_words(forces)
        except DefectkitError as error:
            forces, self.reading.value = None, in_html(error)
        *views, steps = self._sheet.wipe()[0]
        shown = self.atoms.copy()
        shown.positions += self._shifts
        vacant = self.atoms.calc.found.vacancy_positions
        force_views(shown, forces, self.start + self._shifts, self.atom.value, views, vacant)
        energy_steps(self.energies, self._spreads, steps)
        self.paint(self._sheet)

    def _in_words(self, forces: np.ndarray) -> str:
        number, symbols = self.atom.value, self.atoms.symbols
        sizes = np.linalg.norm(forces, axis=1)
        moved = np.linalg.norm(self.atoms.positions - self.start, axis=1)
        far = [k for k in np.argsort(-moved) if moved[k] > MOVED]
        names = [f"{k} {symbols[k]} by {moved[k]:.2f} Å" for k in far[:NAMED]]
        names += [f"and {len(far) - NAMED} more"] if len(far) > NAMED else []
        most = int(sizes.argmax())
        pull = ", ".join(f"{value:+.2f}" for value in forces[number])
        change = self.energies[-1] - self.energies[0]
        lines = [
            f"<b>Energy {self.energies[-1]:.2f} eV</b>, {change:+.2f} eV against the start; the "
            f"networks are {self._spreads[-1]:.2f} eV apart (standard deviation)",
            f"Force on {number} {symbols[number]}: ({pull}) eV/Å, {sizes[number]:.2f} in all; the "
            f"largest is {sizes[most]:.2f} eV/Å, on {most} {symbols[most]}",
            f"Moved: {', '.join(names)}" if names else f"No atom moved by more than {MOVED} Å",
        ]
        return _paragraph("<br>".join(lines))


def _paragraph(words: str) -> str:
    """HTML whose lines stand close together, which those of a widget do not."""
    return f'<p style="line-height: 1.4">{words}</p>'


def _slider(axis: str) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(
        min=-REACH,
        max=REACH,
        step=0.05,
        description=f"{axis} (Å)",
        readout_format="+.2f",
        style={"description_width": "3em"},
        layout={"width": "250px"},
    )
