"""One concept each: controls, a picture whose axes stay, and a sentence on what is seen.

Made for lectures (`widgets.lecture`) and as good in a notebook. All are computed from what the
library has; rows and errors are those of the demo data, with its label source beside them.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase import Atoms
from matplotlib.axes import Axes
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from scipy.special import softmax

from defectkit.evaluation.leakage import folds_by_row, folds_by_structure
from defectkit.evaluation.metrics import interval
from defectkit.explain import node_table
from defectkit.graphs import periodic
from defectkit.graphs.build import CrystalGraph, GraphConfig, build_graph
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.plots import style
from defectkit.plots.attention import chain
from defectkit.plots.explain import set_bar
from defectkit.plots.graphs import MARGIN, image_choice, local_edges, receptive_field
from defectkit.predict.intervals import Conformal
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.names import in_html
from defectkit.training.pretrained import benchmark, shipped_run
from defectkit.widgets.picture import LINE, ROW, Pictured, Sheet

SIZE = (12.4, 5.6)  # inches; as wide as a screen of 1280 pixels, its text has 20 of them
LOOK = {"font.size": 14.5, "lines.linewidth": 2, "lines.markersize": 10, "axes.titlesize": "medium"}
SHARP = 150  # dots an inch: sharp on a screen of 1920 pixels as well
WIDE = {"style": {"description_width": "initial"}, "layout": {"width": "19.5em"}}
PLANE = np.array([True, True, False])


class Concept(Pictured):
    """Controls, a picture, a sentence. A subclass draws on the same axes again and again.

    Attributes:
        controls: by the names that links give them.
        sentence: what is seen, drawn anew with the picture.
        picture: a PNG image widget.
    """

    def __init__(
        self, controls: dict[str, ipywidgets.Widget], widths: tuple[float, ...], **sheet: object
    ) -> None:
        super().__init__()
        self.controls = controls
        self.sentence = ipywidgets.HTML(layout=LINE)
        with plt.rc_context(LOOK):
            self._sheet = Sheet(SIZE, widths, dpi=SHARP, **({"barred": 0} | sheet))
        for control in controls.values():
            control.observe(lambda change: self._show(), names="value")
        self._show()
        self.children = [
            ipywidgets.HBox(list(controls.values()), layout=ROW),
            self.sentence,
            self.picture,
        ]

    def _show(self) -> None:
        with plt.rc_context(LOOK):
            self.sentence.value = self._draw(*self._sheet.wipe().flat)
            self.paint(self._sheet)

    def _draw(self, *axes: Axes) -> str:
        """Draw, and say what is seen, as HTML."""
        raise NotImplementedError


def slider(
    words: str, value: float, low: float, high: float, step: float
) -> ipywidgets.FloatSlider | ipywidgets.IntSlider:
    """A slider of numbers; of whole ones where all that is given is whole."""
    settings = {"value": value, "min": low, "max": high, "step": step, "description": words}
    if all(isinstance(number, int) for number in (value, low, high, step)):
        return ipywidgets.IntSlider(**settings, **WIDE)
    digits = len(f"{step:g}".partition(".")[2])
    return ipywidgets.FloatSlider(**settings, **WIDE, readout_format=f".{digits}f")


def choices(words: str, options: Sequence[int], value: int) -> ipywidgets.SelectionSlider:
    """A slider of a few numbers."""
    return ipywidgets.SelectionSlider(options=options, value=value, description=words, **WIDE)


class MinimumImage(Concept):
    """Rounding fractional coordinates is not the nearest image, unless the cell is rectangular."""

    SIDE, REACH = 3.2, 5.4  # Å, of the cell, and half the width of the frame
    SPAN = 0.0, 1.0  # where j may be, in cells
    ANGLES = np.arange(60, 121, 2.5)
    POINTS = 200  # at random; all their pairs are tried in every cell

    def __init__(self) -> None:
        controls = {
            "angle": slider("angle of the cell (°)", 120, 60, 120, 2.5),
            "a": slider("j along a", 0.45, *self.SPAN, 0.05),
            "b": slider("j along b", 0.55, *self.SPAN, 0.05),
        }
        super().__init__(controls, (1.25, 1), edges=(0.07, 0.985, 0.14, 0.84, 0.24))

    @cached_property
    def shares(self) -> np.ndarray:
        """Of the pairs, those that rounding gets wrong, by angle."""
        points = np.random.default_rng(0).random((self.POINTS, 2))
        return np.array([_wrong_share(self.cell(angle), points) for angle in self.ANGLES])

    @classmethod
    def cell(cls, angle: float) -> np.ndarray:
        """(2, 2) Å, two vectors of the same length with this angle (degrees) between them."""
        turned = np.radians(angle)
        return cls.SIDE * np.array([[1.0, 0.0], [np.cos(turned), np.sin(turned)]])

    @property
    def found(self) -> tuple[float, float]:
        """Å from i to the image of j that rounding takes, and to the nearest one."""
        cell = self.cell(self.controls["angle"].value)
        gap = np.array([self.controls[name].value for name in "ab"]) @ cell
        rounded, nearest = _two_distances(np.array([np.zeros(2), gap]), cell)
        return float(rounded[0]), float(nearest[0])

    def _draw(self, left: Axes, right: Axes) -> str:
        angle = self.controls["angle"].value
        cell = self.cell(angle)
        end = np.array([self.controls[name].value for name in "ab"]) @ cell
        image_choice(cell, np.zeros(2), end, left, self.REACH).legend(**style.ABOVE, ncols=2)
        here = 100 * self.shares[np.abs(self.ANGLES - angle).argmin()]
        right.plot(self.ANGLES, 100 * self.shares, color=style.GREY)
        right.plot(angle, here, "o", ms=12, color=style.ROUNDED)
        right.set(xlim=(58, 122), ylim=(0, 20), xticks=(60, 75, 90, 105, 120))
        right.set(xlabel="angle of the cell (°)", ylabel="pairs where rounding errs (%)")
        rounded, nearest = self.found
        said = f"both find the image at <b>{nearest:.2f} Å</b>"
        if rounded > nearest + periodic.TIE:
            said = (
                f"rounding takes an image of j at <b>{rounded:.2f} Å</b>, but the nearest is at "
                f"<b>{nearest:.2f} Å</b>"
            )
        return (
            f"Here {said}. Over all places of i and j, rounding errs in <b>{here:.0f} %</b> of the "
            "pairs: never in a rectangular cell, most in a hexagonal one."
        )


def _two_distances(points: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Å between all pairs of points (n, 2), by rounded fractional coordinates, and the nearest."""
    i, j = np.triu_indices(len(points), 1)
    gap = points[j] - points[i]
    rounded = np.linalg.norm(gap - np.rint(gap @ np.linalg.inv(cell)) @ cell, axis=1)
    flat = np.column_stack([points, np.zeros(len(points))])
    box = np.diag([0.0, 0.0, 20.0])
    box[:2, :2] = cell
    return rounded, periodic.minimum_image(flat, box, PLANE)[1][i, j]


def _wrong_share(cell: np.ndarray, fractions: np.ndarray) -> float:
    rounded, nearest = _two_distances(fractions @ cell, cell)
    return float(np.mean(rounded > nearest + periodic.TIE))


class ReceptiveField(Concept):
    """News travels one edge a layer: cutoff times layers is as far as a node can hear."""

    LONGEST, LAYERS = 6.0, 5  # Å, and how many at most

    def __init__(self) -> None:
        self.graph = _vacancy(self.LONGEST)
        self.node = int(self.graph.is_defect.int().argmax())
        self.around = node_table(self.graph, [self.node])
        controls = {
            "cutoff": slider("cutoff (Å)", 3.0, 2.0, self.LONGEST, 0.1),
            "layers": slider("layers", 2, 1, self.LAYERS, 1),
        }
        super().__init__(controls, (1, 1.15), edges=(0.06, 0.95, 0.13, 0.93, 0.2), barred=None)

    @property
    def hops(self) -> np.ndarray:
        """(n,) the layer that brings news of a node to the vacancy; infinite where none does."""
        return hops(self.graph, self.node, self.controls["cutoff"].value)

    def _draw(self, left: Axes, right: Axes) -> str:
        cutoff, layers = (self.controls[name].value for name in ("cutoff", "layers"))
        local_edges(self.graph, self.node, cutoff, left, reach=self.LONGEST + MARGIN)
        left.set_title("one layer: the edges of one node")
        far = self.hops
        heard = far <= layers
        values = np.where(heard, far, np.nan)
        places = self.around[["dx", "dy", "dz"]].to_numpy()
        receptive_field(self.graph, places, values, self.LAYERS, right)
        set_bar(self._sheet.bar, values, "layer that brings the news", (0, self.LAYERS))
        right.set_title("all layers: whom the vacancy hears")
        distance = self.around.distance[heard].max()
        return (
            f"After {layers} {'layer' if layers == 1 else 'layers'} with edges up to {cutoff:.1f} "
            f"Å the vacancy has heard of <b>{heard.sum()} of {len(heard)} nodes</b>, the farthest "
            f"<b>{distance:.1f} Å</b> away ({layers} × {cutoff:.1f} = {layers * cutoff:.1f} Å at "
            "most). White ones it cannot know of; attention asks all of them in one layer."
        )


def hops(graph: CrystalGraph, node: int, cutoff: float) -> np.ndarray:
    """(n,) how many edges up to `cutoff` (Å) lead from every node to one; inf where none do."""
    geometry = graph.pos, graph.cell, graph.edge_index, graph.edge_shift
    near = (lengths(edge_vectors(*geometry)) <= cutoff).numpy()
    sender, receiver = graph.edge_index.numpy()[:, near]
    n = graph.num_nodes
    edges = csr_array((np.ones(len(sender)), (receiver, sender)), shape=(n, n))
    return shortest_path(edges, unweighted=True, indices=node)


def _vacancy(cutoff: float) -> CrystalGraph:
    """A sulfur vacancy in 8 x 8 cells of MoS2, unrelaxed."""
    unit = HOSTS["MoS2"].unit_cell()
    site = next(site for site in find_sites(unit) if site.name == "vac1")
    atoms: Atoms = make_defect(unit, (8, 8, 1), site, "").atoms
    return build_graph(atoms, GraphConfig(cutoff=cutoff, angle_cutoff=None, all_pairs=False), unit)


class AttentionChain(Concept):
    """Attention on a chain of four: content, distance to the nearest image, and kind, in turn.

    Weights are powers of two, so that they can be checked by hand: the score of a key is
    (content - phi d + psi) ln 2 before the softmax.
    """

    NAMES, PLACES, LENGTH = list("ABCD"), (0.0, 1.0, 2.0), 6.0  # Å; D moves
    CONTENT = np.array([0.0, 1.0, 0.0, 2.0])  # query of A times keys, in units of ln 2
    STEPS: ClassVar[dict[str, str]] = {
        "content": style.LIGHT_GREY,
        "and distance": style.SKY,
        "and kind": style.BLUE,
    }

    def __init__(self) -> None:
        controls = {
            "place": slider("place of D (Å)", 4.0, 2.8, 5.2, 0.1),
            "distance": slider("φ: halvings per Å", 1, 0, 2, 0.25),
            "kind": slider("ψ: doublings for D", 1, 0, 3, 0.5),
        }
        super().__init__(controls, (1,), rows=2, edges=(0.08, 0.985, 0.08, 0.99, 0, 0.42))

    @property
    def x(self) -> np.ndarray:
        """(4,) Å."""
        return np.array([*self.PLACES, self.controls["place"].value])

    @property
    def distances(self) -> np.ndarray:
        """(4, 4) Å from each to the nearest image of each."""
        points = np.zeros((4, 3))
        points[:, 0] = self.x
        along = np.array([True, False, False])
        return periodic.minimum_image(points, np.diag([self.LENGTH, 20.0, 20.0]), along)[1]

    @property
    def apart(self) -> np.ndarray:
        """(4,) Å from A to the nearest image of each."""
        return self.distances[0]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """(4,) how A divides its attention, one part of the score after the other."""
        phi = -self.controls["distance"].value * self.apart
        psi = np.array([0.0, 0.0, 0.0, self.controls["kind"].value])
        scores = (self.CONTENT, self.CONTENT + phi, self.CONTENT + phi + psi)
        return {name: softmax(np.log(2) * score) for name, score in zip(self.STEPS, scores)}

    def _draw(self, above: Axes, below: Axes) -> str:
        chain(self.x, self.LENGTH, self.NAMES, [3], above)
        for number, (name, weights) in enumerate(self.weights.items()):
            places = np.arange(4) + 0.28 * (number - 1)
            below.bar(places, weights, 0.26, color=self.STEPS[name], label=name)
            for place, weight in zip(places, weights):
                below.text(place, weight, f"{weight:.2f}", ha="center", va="bottom")
        below.set(xlim=(-0.6, 3.6), ylim=(0, 1.12), yticks=(0, 0.5, 1))
        below.set_xticks(range(4), [f"to {name}" for name in self.NAMES])
        below.set_ylabel("weight of A's query")
        below.legend(loc="upper center", ncols=3, frameon=False)
        away, kind = self.apart[3], self.controls["kind"].value
        fall = self.controls["distance"].value
        return (
            f"A hears the vacancy D over <b>{away:.1f} Å</b>, the way to its nearest image, with "
            f"weight <b>{self.weights['and kind'][3]:.2f}</b>. Before the softmax divides by the "
            f"sum, D counts 2<sup>2</sup> for content, 2<sup>−{fall:g} · {away:.1f}</sup> for "
            f"distance and 2<sup>{kind:g}</sup> for its kind."
        )


class Intervals(Concept):
    """More rows narrow the interval of a mean error, but not that of a single prediction."""

    ROWS = (10, 20, 50, 100, 200, 400)
    START: ClassVar[dict[str, int]] = {"rows": 50, "draw": 0}  # of the controls
    SHOWN = 80  # rows of the picture to the right
    HIGHEST = 1.0, 2.0  # eV, of the frames

    def __init__(self, model: str = "hybrid") -> None:
        run = shipped_run(model)
        self.rows, self.source = run.part("test"), run.summary["label_source"]
        self.model = model
        controls = {
            "rows": choices("rows that are known", self.ROWS, self.START["rows"]),
            "confidence": slider("confidence (%)", 90, 50, 95, 5),
            "draw": slider("another draw", self.START["draw"], 0, 20, 1),
        }
        super().__init__(controls, (1, 1.5), edges=(0.075, 0.985, 0.14, 0.92, 0.24))

    @property
    def order(self) -> np.ndarray:
        """Of the rows, drawn at random: those that come first are known first."""
        return np.random.default_rng(self.controls["draw"].value).permutation(len(self.rows))

    @property
    def means(self) -> pd.DataFrame:
        """Mean absolute error (eV) of the first rows with its bootstrap interval, by how many."""
        errors = (self.rows.eform_pred - self.rows.eform).abs().to_numpy()[self.order]
        found = [(errors[:n].mean(), *interval(errors[:n])) for n in self.ROWS]
        return pd.DataFrame(found, index=self.ROWS, columns=["mean", "low", "high"])

    @property
    def drawn(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows whose labels are known, and all others."""
        order, n = self.order, self.controls["rows"].value
        return self.rows.iloc[order[:n]], self.rows.iloc[order[n:]]

    def _draw(self, left: Axes, right: Axes) -> str:
        known, others = self.drawn
        confidence = self.controls["confidence"].value / 100
        means = self.means
        mean, low, high = means.loc[len(known)]
        self._mean(left, means, len(known))
        half = Conformal.fit(known).factor(confidence)
        missed = others.eform - others.eform_pred
        inside = missed.abs() <= half
        self._single(right, missed[: self.SHOWN], half)
        if np.isinf(half):
            least = int(np.ceil(confidence / (1 - confidence) - 1e-9))
            single = f"for a <b>single</b> row, {confidence:.0%} takes {least} known rows at least"
        else:
            single = (
                f"a <b>single</b> prediction is promised to lie within <b>± {half:.2f} eV</b>, and "
                f"{inside.mean():.0%} of the other {len(others)} rows do"
            )
        return (
            f"{len(known)} rows: the <b>mean</b> error is {mean:.2f} eV, bootstrap interval (95 %) "
            f"<b>{low:.2f} to {high:.2f} eV</b>; {single}. More rows narrow the first, not the "
            f"second. ({in_html(self.model)}, labels {in_html(self.source)})"
        )

    def _mean(self, ax: Axes, means: pd.DataFrame, known: int) -> None:
        every = (self.rows.eform_pred - self.rows.eform).abs().mean()
        ax.axhline(every, color="black", ls=":", label=f"all {len(self.rows)} rows")
        for n, mean, low, high in means.itertuples():
            look = {"color": style.BLUE if n == known else style.BEFORE, "ms": 10, "capsize": 8}
            ax.errorbar([n], [mean], yerr=[[mean - low], [high - mean]], fmt="o", lw=3, **look)
        ax.set(xscale="log", xlim=(7, 600), ylim=(0, self.HIGHEST[0]))
        ax.set_xticks(self.ROWS, [str(rows) for rows in self.ROWS])
        ax.minorticks_off()
        ax.set(xlabel="rows that are known", ylabel="mean absolute error (eV)")
        ax.set_title("bootstrap: the mean")
        ax.legend(loc="upper right", frameon=False)

    def _single(self, ax: Axes, missed: pd.Series, half: float) -> None:
        top = self.HIGHEST[1]
        ax.axhspan(max(-half, -top), min(half, top), color=style.LIGHT_BLUE, alpha=0.5, lw=0)
        ax.axhline(0, color="black", ls=":", lw=1)
        places, inside = np.arange(len(missed)), (missed.abs() <= half).to_numpy()
        shown = missed.clip(-0.97 * top, 0.97 * top).to_numpy()
        for chosen, colour, words in (
            (inside, style.BLUE, "inside"),
            (~inside, style.ORANGE, "outside"),
        ):
            ax.plot(places[chosen], shown[chosen], "o", ms=7, color=colour, label=words)
        ax.set(xlim=(-1, self.SHOWN), ylim=(-top, top), xticks=[])
        ax.set(xlabel=f"{self.SHOWN} other rows", ylabel="label − prediction (eV)")
        ax.set_title("conformal: one row")
        ax.legend(loc="upper right", ncols=2, frameon=True, framealpha=0.85, edgecolor="none")


class LeakageTrap(Concept):
    """Copies of a row on both sides of a split: an error that no new structure confirms."""

    STRUCTURES = 10  # of the sketch

    def __init__(self) -> None:
        self.table = benchmark("leakage")
        copies, rows = (self.table[name].unique().tolist() for name in ("copies", "n"))
        self.most = max(copies)
        controls = {
            "copies": choices("copies of each row", copies, copies[1]),
            "rows": choices("rows", rows, rows[1]),
        }
        super().__init__(controls, (1.35, 1), edges=(0.02, 0.985, 0.15, 0.9, 0.2))

    @property
    def chosen(self) -> pd.DataFrame:
        """The measured rows of these copies and rows: a row a protocol and seed."""
        table = self.table
        copies, rows = (self.controls[name].value for name in ("copies", "rows"))
        return table[(table.copies == copies) & (table.n == rows)]

    def _draw(self, left: Axes, right: Axes) -> str:
        copies = self.controls["copies"].value
        shared, tested = self._sketch(left, copies)
        table = self.chosen
        errors = table.groupby("protocol", sort=False).eform_mae
        right.bar(range(2), errors.mean(), 0.6, color=[style.ORANGE, style.BLUE], alpha=0.6)
        for place, (_, seeds) in enumerate(errors):
            right.plot([place] * len(seeds), seeds, "o", color="black", ms=7)
            right.text(place, seeds.max() + 0.03, f"{seeds.mean():.2f} eV", ha="center")
        right.set_xticks(range(2), [name.replace(", ", ",\n") for name in errors.mean().index])
        right.set(xlim=(-0.6, 1.6), ylim=(0, 1.15 * self.table.eform_mae.max()))
        right.set_ylabel("mean absolute error (eV)")
        trap, honest = errors.mean()
        return (
            f"<b>{shared} of {tested}</b> test copies have a sister among the training rows: the "
            f"model knows their answer. It reports <b>{trap:.2f} eV</b> and has learned nothing "
            f"better; on new structures its error is <b>{honest:.2f} eV</b>, {honest / trap:.1f} "
            f"times as large. (LightGBM, {table.seed.nunique()} seeds, labels "
            f"{in_html(table.label_source.iloc[0])})"
        )

    def _sketch(self, ax: Axes, copies: int) -> tuple[int, int]:
        """One fold of either protocol on a few structures; how many test copies leak, of how many.

        The honest protocol copies training rows only, so its test rows stand alone.
        """
        names = np.repeat(np.arange(self.STRUCTURES), copies)
        levels = np.tile(np.arange(copies), self.STRUCTURES)
        uids = pd.Index(range(len(names)))
        _, test = next(folds_by_row(uids))
        _, apart = next(folds_by_structure(pd.Series(np.arange(self.STRUCTURES))))
        trap, honest = uids.isin(test), np.isin(names, apart)
        kept = ~honest | (levels == 0)
        room = self.most + 1.5  # of a protocol and its name
        for top, words, tested, shown in (
            (2 * room, "augment, then split", trap, trap | ~trap),
            (room, "split, then augment", honest, kept),
        ):
            ax.text(-0.4, top - 0.7, words, va="center")
            for chosen, colour, side in (
                (~tested & shown, style.BLUE, "training"),
                (tested & shown, style.ORANGE, "test"),
            ):
                look = {"s": 300, "marker": "s", "color": colour, "edgecolor": "white"}
                label = side if top > room else None
                ax.scatter(names[chosen], top - 1.7 - levels[chosen], label=label, **look)
        ax.set(xlim=(-0.7, 9.7), ylim=(-0.4, 2 * room), yticks=[], xticks=[])
        ax.set_xlabel(f"{self.STRUCTURES} structures, a square a copy; one of five folds")
        ax.legend(**style.ABOVE, ncols=2)
        leaks = [name in set(names[~trap]) for name in names[trap]]
        return sum(leaks), len(leaks)
