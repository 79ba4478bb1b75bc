"""The look of all figures: colours, atoms as discs, cells, error bars; saved, and put in words.

Every colour of a figure or of a 3D view has its name here. Places and radii are in Å.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from numpy.typing import ArrayLike

from defectkit.structures.writing import atomic, make_folder

# Colours that all eyes tell apart, by Okabe and Ito (Color Universal Design, 2008), and a grey.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
LIGHT_GREY = "#999999"
PINK, AMBER, SKY, BLACK = "#cc79a7", "#e69f00", "#56b4e9", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK, GREY)  # of lines and groups, in this order

# Seaborn's "deep" palette: types of defects, counts of rows, angles.
DEEP_BLUE, DEEP_ORANGE, DEEP_GREEN = "#4c72b0", "#dd8452", "#55a868"
DEEP_RED, DEEP_PURPLE = "#c44e52", "#8172b3"
TYPES = {
    "adsorbate": DEEP_BLUE,
    "interstitial": DEEP_ORANGE,
    "substitution": DEEP_GREEN,
    "vacancy": DEEP_PURPLE,
    "complex": DEEP_RED,
}
BOUND = DEEP_RED  # bounds of cleaning rules

# Structures.
RED = "#d62728"
DEFECT = RED
VACANCY = DEEP_PURPLE
RIM = "#333333"  # of an atom
CELL = "#555555"  # outlines of cells, and bonds
NEAREST, ROUNDED = "#1f77b4", "#ff7f0e"  # images: the nearest one, that of rounded coordinates
BEFORE, STICK = "#cccccc", "#bbbbbb"

# Fillings: bars and atoms of a sketch, bonds of a sketch, bands behind points.
LIGHT_BLUE, LIGHT_ORANGE, RUST = "#9ecae1", "#fdd0a2", "#a04000"
BAND, SEED_BAND, MOVED_BAND = "#eeeeee", "#e5e5e5", "#fde8d7"
NO_VALUE, NO_VALUE_TEXT, SLOPE = "#f0f0f0", "#b0b0b0", "#aaaaaa"

# Scales of colours: values from low to high, values on both sides of zero, shares of one.
SEQUENTIAL, SIGNED, SHARES = "viridis", "coolwarm", "Blues"

# Places of legends: over the axes, and to the right of them.
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
BESIDE_TOP = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}

DISC = 0.55  # of the covalent radius, or the higher atoms would hide the lower ones
PRINT_DPI = 300
LONGEST = 500  # characters of a description; a legend of fifty hosts helps nobody
FIGURE = "matplotlib.figure.Figure"

Limits = tuple[float, float] | plt.Normalize  # ends of a scale of colours, or a scale


def colour_scale(values: np.ndarray, limits: Limits | None = None) -> tuple[plt.Normalize, str]:
    """Norm and name of the colour map for values; symmetric about zero where some are negative."""
    if isinstance(limits, plt.Normalize):
        return limits, SEQUENTIAL
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    if low < 0:
        end = max(-low, high)
        return plt.Normalize(-end, end), SIGNED
    return plt.Normalize(low, high), SEQUENTIAL


def atom_faces(z: ArrayLike) -> np.ndarray:
    """(n, 3) colours of elements as in Jmol; a vacancy, atomic number 0, is white."""
    z = np.asarray(z)
    faces = jmol_colors[z].copy()
    faces[z == 0] = 1.0
    return faces


def atom_radii(z: ArrayLike, scale: float = DISC, vacancy: float = 0.0) -> np.ndarray:
    """(n,) Å, covalent radii times `scale`, and the radius `vacancy` for atomic number 0."""
    z = np.asarray(z)
    return np.where(z > 0, scale * covalent_radii[z], vacancy)


def discs(
    ax: Axes, places: np.ndarray, radii: np.ndarray, faces: ArrayLike, **look: Any
) -> EllipseCollection:
    """Discs in the units of the axes, the last one on top; the limits of the axes see them whole.

    Args:
        ax: where to draw.
        places: (n, 2) Å, centres.
        radii: (n,) Å.
        faces: one colour, or a colour a disc.
        look: of a matplotlib collection: edgecolors, linewidths, linestyles, alpha, zorder.
    """
    look = {"edgecolors": RIM, "linewidths": 0.6} | look
    drawn = EllipseCollection(
        2 * radii,
        2 * radii,
        np.zeros(len(radii)),
        units="xy",
        offsets=places,
        offset_transform=ax.transData,
        facecolors=faces,
        urls=(None, None),  # with one, matplotlib draws a single disc as a marker, on whole pixels
        **look,
    )
    ax.add_collection(drawn, autolim=False)
    if len(places):  # a collection reports its centres alone
        reach = np.asarray(radii)[:, None]
        ax.update_datalim(np.concatenate([places - reach, places + reach]))
    return drawn


def labelled_disc(
    ax: Axes,
    place: Sequence[float],
    radius: float,
    text: str,
    size: float | None = None,
    **look: Any,
) -> None:
    """One disc with a text in its middle.

    Args:
        ax: where to draw.
        place: (2,) Å.
        radius: Å.
        text: what stands on the disc.
        size: of the text, points; matplotlib's where it is not given.
        look: of a matplotlib patch; the text takes its alpha, and lies on it.
    """
    disc = ax.add_patch(Circle(place, radius, **({"ec": RIM, "zorder": 2} | look)))
    middle = {"ha": "center", "va": "center"}
    ax.text(*place, text, size=size, alpha=disc.get_alpha(), zorder=disc.zorder + 1, **middle)


def cell_corners(cell: np.ndarray, origin: ArrayLike = (0.0, 0.0)) -> np.ndarray:
    """(4, 2) Å, corners of the cell of two vectors, (2, 2) Å, that begins at `origin`."""
    return np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ cell + np.asarray(origin)


def outline(ax: Axes, corners: np.ndarray, **look: Any) -> None:
    """The parallelogram of `cell_corners`; `look` is that of a matplotlib patch."""
    ax.add_patch(Polygon(corners, **({"fill": False, "ec": CELL, "lw": 1} | look)))


def row_of_axes(n: int, width: float, height: float, **shared: Any) -> np.ndarray:
    """(n,) axes side by side in a new figure, each `width` inches wide, with sharex or sharey."""
    size, layout = (width * n, height), "constrained"
    return plt.subplots(1, n, figsize=size, layout=layout, squeeze=False, **shared)[1][0]


def whiskers(
    table: pd.DataFrame, mean: str = "mean", low: str = "lo", high: str = "hi"
) -> np.ndarray:
    """(2, n) how far intervals reach below and above the means, as matplotlib's error bars ask."""
    return np.abs(table[[low, high]].to_numpy().T - table[mean].to_numpy())


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure for print: `path` with .png (300 dots an inch) and .svg (text stays text).

    The folder is made where it is missing. Returns both paths.
    """
    path = Path(path)
    make_folder(path.parent)
    files = [path.with_name(f"{path.name}{ending}") for ending in (".png", ".svg")]
    with plt.rc_context({"svg.fonttype": "none"}):
        for file in files:
            with atomic(file) as part:
                figure.savefig(part, dpi=PRINT_DPI, bbox_inches="tight")
    return files


def describe(figure: Figure) -> str:
    """What a figure shows, for readers who hear a page instead of seeing it; never empty.

    The words are those of the figure: titles, axes and legends.
    """
    parts = [_one_line(figure.get_suptitle())]
    parts += [words for ax in figure.axes if ax.get_visible() and (words := _describe_axes(ax))]
    if not any(parts):
        drawn = [_one_line(text.get_text()) for ax in figure.axes for text in ax.texts]
        parts = [f"A drawing with the words {'; '.join(filter(None, drawn))}"] if any(drawn) else []
    words = ". ".join(filter(None, parts)) or f"A figure of {len(figure.axes)} parts without labels"
    return words if len(words) <= LONGEST else f"{words[:LONGEST].rsplit(' ', 1)[0]} …"


def _describe_axes(ax: Axes) -> str:
    """The title of one part of a figure, what is drawn over what, and what its legend names."""
    title = "; ".join(filter(None, (_one_line(ax.get_title(loc)) for loc in ("left", "center"))))
    x, y = _one_line(ax.get_xlabel()), _one_line(ax.get_ylabel())
    frame = f"{y} over {x}" if x and y else x or y
    legend = ax.get_legend()
    names = [_one_line(text.get_text()) for text in legend.get_texts()] if legend else []
    return ": ".join(filter(None, (title, _joined((frame, _joined(names, ", ")), "; with "))))


def _joined(parts: Iterable[str], between: str) -> str:
    return between.join(filter(None, parts))


def _one_line(label: str) -> str:
    r"""A label on one line, formulas as near to plain text as can be: "MoS$_2$" is "MoS2"."""
    plain = re.sub(
        r"(?<!\\)\$(.+?)(?<!\\)\$", lambda m: re.sub(r"\\math\w+|[{}_^]", "", m[1]), label
    )
    return " ".join(plain.replace(r"\$", "$").split())


def attach_descriptions() -> None:
    """Give every figure of the running notebook its description as the `alt` text of its picture.

    Pages made of the notebook keep it. Nothing happens outside of a notebook.
    """
    from IPython import get_ipython

    if (shell := get_ipython()) is not None:
        # Not of the PNG formatter itself, which the inline backend sets anew at its first figure.
        bundle = shell.display_formatter.mimebundle_formatter
        bundle.for_type(FIGURE, lambda figure: ({}, {"image/png": {"alt": describe(figure)}}))
