"""Where every node of a graph lies, seen from the defect.

Axes: n nodes, c centres.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from defectkit import DefectkitError
from defectkit.graphs import periodic
from defectkit.graphs.build import CrystalGraph
from defectkit.structures.record import SiteKind

FIRST_SHELL = 1.25  # in units of the shortest distance from a defect's node to a host atom


def node_table(graph: CrystalGraph, centre: Sequence[int] | None = None) -> pd.DataFrame:
    """One row a node of one graph, in the graph's order.

    Args:
        graph: a single graph.
        centre: nodes to measure from; the nodes of the defect where it is not given.

    Returns:
        uid, node (its number), symbol ("V_S" where an S is missing), kind (of `SiteKind`, in
        small letters), defect (whether it is of the defect);
        shell: 0 for the defect, 1 for host atoms no further from one of its nodes than
            `FIRST_SHELL` times that node's nearest host atom, 2 for all others;
        distance: Å, to the nearest image of the nearest centre;
        dx, dy, dz: Å, from that centre to the node;
        direction: radians from the x axis, in the plane; NaN for a centre;
        inside: whether the distance is below half the shortest translation in the plane. Further
            out a node has several nearest images, and its direction is a matter of choice.

    Raises DefectkitError for a batch, and for a graph without a defect where no centre is given.
    """
    if len(graph.cell) != 1:
        raise DefectkitError(f"{len(graph.cell)} graphs came in one batch; give them one by one.")
    pos, cell = graph.pos.detach().double().numpy(), graph.cell[0].detach().double().numpy()
    steps = graph.lattice_shift.numpy()
    shift, distance = periodic.minimum_image(pos, cell, (steps != 0).any(axis=0))
    defect = graph.is_defect.numpy()
    middle = np.flatnonzero(defect) if centre is None else np.asarray(centre, dtype=int)
    if not len(middle):
        raise DefectkitError(f"{graph.uid or 'The structure'} has no defect; name a centre.")
    nodes = np.arange(len(pos))
    nearest = middle[distance[middle].argmin(axis=0)]  # (n,)
    vector = pos + shift[nearest, nodes] @ cell - pos[nearest]
    flat = np.hypot(vector[:, 0], vector[:, 1]) > 1e-6
    half = np.linalg.norm(steps @ cell, axis=1).min() / 2
    z, original = graph.z.numpy(), graph.original_z.numpy()
    return pd.DataFrame(
        {
            "uid": graph.uid,
            "node": nodes,
            "symbol": [
                chemical_symbols[a] if a else f"V_{chemical_symbols[b]}"
                for a, b in zip(z, original)
            ],
            "kind": [SiteKind(kind).name.lower() for kind in graph.site_kind.tolist()],
            "defect": defect,
            "shell": _shells(distance, defect),
            "distance": distance[nearest, nodes],
            "dx": vector[:, 0],
            "dy": vector[:, 1],
            "dz": vector[:, 2],
            "direction": np.where(flat, np.arctan2(vector[:, 1], vector[:, 0]), np.nan),
            "inside": distance[nearest, nodes] < half,
        }
    )


def _shells(distance: np.ndarray, defect: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for every node, from (n, n) distances and which nodes are the defect's."""
    shell = np.where(defect, 0, 2)
    host = np.flatnonzero(~defect)
    for node in np.flatnonzero(defect) if len(host) else ():
        away = distance[node, host]
        shell[host[away <= FIRST_SHELL * away.min()]] = 1
    return shell
