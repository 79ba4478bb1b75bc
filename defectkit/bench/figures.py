"""Figures of README: from the demo data, the shipped hybrid, 2DMD's table, the package itself."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from defectkit import explain
from defectkit.bench.measure import shipped
from defectkit.data.sources import SOURCES
from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors
from defectkit.plots.explain import RELATIVE, lattice_map, scale_of, weight_by_distance
from defectkit.plots.real import oscillation
from defectkit.plots.results import parity
from defectkit.plots.style import BLUE, GREY, LIGHT_GREY, ORANGE
from defectkit.structures.writing import atomic, make_folder
from defectkit.training.pretrained import ROOT, benchmark
from defectkit.training.run import Run

FOLDER = ROOT / "docs" / "figures"
NAMES = ("oscillation", "route", "parity", "attention_on_a_vacancy", "decay", "folders")
# The import rule of the package, and what leaves each step of the route.
RULE = (
    "structures < data, graphs < models < training < predict < screening, evaluation < explain"
    " < plots, teach < widgets, bench < cli"
)
LEAVES = {
    "structures": "DefectRecord",
    "data": "Dataset, Split",
    "graphs": "CrystalGraph",
    "models": "Output",
    "training": "Run",
    "predict": "table, verdicts",
    "screening": "short list",
    "evaluation": "scores",
    "explain": "weights",
    "plots": "Figure",
    "teach": "Verdict, page",
    "widgets": "view",
    "bench": "CSV, README",
    "cli": "command",
}
MODEL = "hybrid"
DPI = 100


def write(folder: Path = FOLDER) -> list[Path]:
    """Write all figures as PNG into a folder, and return their paths, in the order of `NAMES`."""
    make_folder(folder)
    hybrid = shipped(MODEL)
    model, source = hybrid.model, hybrid.card.label_source
    drawn = benchmark("attention").query("model == 'trained'").set_index("uid")
    graphs = {uid: hybrid.graph(hybrid.dataset[uid]) for uid in drawn.index}
    vacancy = next(
        graphs[uid]
        for uid in drawn.index[drawn.defecttype == "vacancy"]
        if graphs[uid].is_vacancy.sum() == 1
    )
    seen = explain.attention_table(model, graphs.values())
    weights = seen[seen.uid == vacancy.uid].relative.to_numpy()
    figures = (
        oscillation(benchmark("pairs_2dmd"), SOURCES["2dmd"].label_source)[0].figure,
        _route(vacancy, weights, model, drawn.label[vacancy.uid], source),
        _parity(hybrid.run, source),
        _attention(vacancy, weights, seen[seen.uid == vacancy.uid], source),
        _decay(seen, source),
        _folders(),
    )
    paths = [folder / f"{name}.png" for name in NAMES]
    for figure, path in zip(figures, paths):
        with atomic(path) as part:
            figure.savefig(part, dpi=DPI, metadata={"Software": None})  # its version is no news
        plt.close(figure)
    return paths


def _route(
    graph: CrystalGraph, weights: np.ndarray, model: torch.nn.Module, label: float, source: str
) -> Figure:
    """One structure on its way from a row of the database to an energy."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), width_ratios=[1, 1, 1, 0.6])
    figure.subplots_adjust(left=0.01, right=0.985, bottom=0.03, top=0.86, wspace=0.2)
    titles = (
        "1 · a row of the database",
        "2 · its graph, bonds within the cutoff",
        "3 · attention of the vacancy",
        "4 · formation energy (eV)",
    )
    for ax, values in zip(axes, (None, None, weights)):
        limits = None if values is None else scale_of(values, RELATIVE)
        lattice_map(graph, values, "", limits, copies=0, ax=ax)
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    receivers = graph.pos[graph.edge_index[1]].numpy()[:, :2]
    bonds = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift).numpy()[:, :2]
    lines = np.stack([receivers, receivers + bonds], axis=1)
    axes[1].add_collection(LineCollection(lines, colors=GREY, lw=0.6, zorder=2.5))
    with torch.no_grad():
        predicted = model(graph).eform.item()
    axes[3].bar([0, 1], [label, predicted], color=[GREY, BLUE], width=0.6)
    axes[3].set_xticks([0, 1], [f"label,\n{source}", "prediction"])
    axes[3].axhline(0, color="black", lw=0.8)
    axes[3].spines[["top", "right"]].set_visible(False)
    for ax, title in zip(axes, titles):
        ax.set_title(title, size=11)
    axes[3].set_position(axes[3].get_position().shrunk(0.95, 0.82).translated(0.012, 0.12))
    for left, right in pairwise(axes):
        # The bars have their numbers on the left, the arrow stands before them.
        end, begin = left.get_position().x1, right.get_position().x0
        middle = min((end + begin) / 2, end + 0.016)
        figure.text(middle, 0.45, "→", size=20, ha="center", va="center")
    return figure


def _parity(run: Run, source: str) -> Figure:
    """Predictions over labels, test rows."""
    return parity(run.part("test"), source, title="the hybrid on test rows").figure


def _attention(
    graph: CrystalGraph, weights: np.ndarray, table: pd.DataFrame, source: str
) -> Figure:
    """Attention on a vacancy, from above and by distance."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1.2, 1], layout="constrained")
    lattice_map(graph, weights, ax=axes[0])
    weight_by_distance(table, ax=axes[1])
    figure.suptitle(f"{graph.uid}, a test row; the hybrid, trained on labels of {source}", size=11)
    return figure


def _decay(seen: pd.DataFrame, source: str) -> Figure:
    """Weight against distance for many structures."""
    ax = weight_by_distance(seen, fit=explain.decay_length(seen, resamples=100))
    title = f"{seen.uid.nunique()} test rows; the hybrid, trained on labels of {source}"
    ax.set_title(title, size=11)
    return ax.figure


def _folders() -> Figure:
    """The folders of the package in the order of `RULE`, with the imports between them."""
    place = {
        name.strip(): (column, 1.3 * (0.5 * (len(names) - 1) - row))
        for column, text in enumerate(RULE.split("<"))
        for names in [text.split(",")]
        for row, name in enumerate(names)
    }
    figure, ax = plt.subplots(figsize=(14, 4.6), layout="constrained")
    for (user, used), count in _imports().items():
        (x, y), (to_x, to_y) = place[user], place[used]
        look = {"color": LIGHT_GREY, "alpha": 0.55, "lw": 0.3 + 0.12 * count, "zorder": 1}
        bend = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={-0.12 - 0.02 * (x - to_x)}"}
        ax.annotate("", (to_x, to_y - 0.2), (x, y - 0.2), arrowprops=bend | look)
    for name, (x, y) in place.items():
        modules = len(list((ROOT / "defectkit").glob(f"{name}/**/[!_]*.py"))) or 1
        text = f"{name}\n{modules} module{'s' * (modules > 1)}"
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": BLUE}
        ax.text(x, y, text, ha="center", va="center", size=10, bbox=box, zorder=3)
        ax.text(x, y + 0.3, f"{LEAVES[name]} →", ha="center", size=9, color=ORANGE)
    ax.set(xlim=(-0.55, 9.55), ylim=(-2.3, 1.25))
    ax.axis("off")
    ax.set_title("the route, left to right, with what leaves each folder; grey lines: imports")
    return figure


def _imports() -> Counter[tuple[str, str]]:
    """How many modules of a folder import from another folder, by (user, used)."""
    found: Counter[tuple[str, str]] = Counter()
    for path in (ROOT / "defectkit").rglob("*.py"):
        user = path.relative_to(ROOT / "defectkit").parts[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8")
        lines = "\n".join(re.findall(r"(?m)^ *from (defectkit[. ].*)", text))
        used = {n for n in LEAVES if re.search(rf"defectkit(\.| import .*\b){n}\b", lines)}
        found.update((user, name) for name in used - {user} if user in LEAVES)
    return found
