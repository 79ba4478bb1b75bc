"""Defects as rows of a table: names, the composition, numbers about the surroundings.

The descriptors are of the kind with which tree models learn Imp2d: what the dopant, the atoms
that it replaces and the host are made of, and the geometry at the defect. All is read from
graphs without their labels, so relaxed or unrelaxed positions are a matter of the `GraphConfig`.
Nothing depends on the order of the atoms, on the origin or on the orientation of the layer.

matminer describes compositions here, not sites: its site fingerprints need an atom, and a vacancy
has none; those that a layer with its vacuum does not break (GaussianSymmFunc, AGNIFingerprints)
are sums over neighbour distances, which the trees are given as they are.

Axes: N nodes, B graphs.
"""

from functools import cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from ase.data import chemical_symbols, covalent_radii

from defectkit.graphs import CrystalGraph, GraphDataset
from defectkit.graphs.elements import ELEMENTAL, feature_table
from defectkit.graphs.geometry import asymmetry, edge_vectors, lengths, local_strain
from defectkit.graphs.periodic import neighbour_edges
from defectkit.structures.record import SiteKind

if TYPE_CHECKING:
    from matminer.featurizers.composition import ElementProperty

COMPOSITION = "composition: "  # how the names of columns about the composition begin
NAMES = "name: "  # likewise of columns about what a defect is called
NEAREST = 8  # neighbours whose distances are listed
REACH = 5.0  # Å, where neighbours end; stands for the distance of one that is not there
COORDINATION = 1.3  # neighbours within this times the sum of covalent radii are counted
SHELL_WIDTH = 0.4  # Å, how fast neighbours beyond the nearest lose weight
BATCH = 500  # graphs described at once


def tabulate(graphs: GraphDataset) -> pd.DataFrame:
    """Both `composition_features` and `surroundings_features`, (B, columns), indexed by uid."""
    return pd.concat([composition_features(graphs), surroundings_features(graphs)], axis=1)


def defect_names(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Texts of what a defect is called, by row: host and site, dopant, host and what is removed.

    Args:
        frame: columns host, site, dopant and removed of `Dataset.frame`.
    """
    return {
        "site": frame.host + " " + frame.site,
        "dopant": frame.dopant,
        "removed": frame.host + " without " + frame.removed,
    }


def name_features(frame: pd.DataFrame) -> pd.DataFrame:
    """What a defect is called, as zeros and ones: (rows, columns), indexed by uid.

    A column for every site of every host, for every dopant, and for every host with what is
    removed from it. Sites are numbered host by host: "sub0" of one host has nothing to do with that
    of another, so that a host that was never trained on is left with its dopant alone.

    Args:
        frame: columns host, site, dopant and removed of `Dataset.frame`.
    """
    tables = [
        texts.str.get_dummies(",").add_prefix(f"{NAMES}{about} ")
        if about == "dopant"
        else pd.get_dummies(texts, prefix=f"{NAMES}{about}", prefix_sep=" ")
        for about, texts in defect_names(frame).items()
    ]
    return pd.concat(tables, axis=1).astype(float)


def composition_features(graphs: GraphDataset) -> pd.DataFrame:
    """Statistics of 22 elemental properties over all atoms, (B, 132), indexed by uid.

    Minimum, maximum, range, mean, mean deviation and mode (Ward et al., npj Comput. Mater. 2,
    16028, 2016), from matminer. A vacancy is no atom.
    """
    ends = graphs.tensors["ptr z"].numpy()[1:-1]
    rows = [_composition(z[z > 0]) for z in np.split(graphs.tensors["z"].numpy(), ends)]
    columns = [COMPOSITION + label for label in _magpie().feature_labels()]
    return pd.DataFrame(rows, pd.Index(graphs.uids, name="uid"), columns)


def surroundings_features(graphs: GraphDataset) -> pd.DataFrame:
    """Numbers about the defect and what is around it, (B, columns), indexed by uid.

    A column's name begins with what it is about:

    - dopant, replaced, vacant, host: elemental and Magpie properties of the added atoms, of the
      atoms they stand for, of the missing atoms and of the host's atoms, each a mean; `spread`
      is the standard deviation over the host's atoms.
    - misfit: properties of the added atoms minus those of the atoms that they replace.
    - kind: how many nodes of each `SiteKind`.
    - at dopant, at vacancy: distances (Å), neighbours, height and strain of those nodes, see
      `_shells`; a mean where there are several.
    - layer: area per host site (Å²), thickness and displacements from the ideal sites (Å).

    What a defect does not have, such as the surroundings of a vacancy, is zero.

    Args:
        graphs: with the edges of any configuration; neighbours within `REACH` are found anew.
    """
    numbers = torch.arange(len(graphs)).split(BATCH)
    table = pd.concat([_surroundings(_within_reach(graphs, some.tolist())) for some in numbers])
    return table.set_axis(pd.Index(graphs.uids, name="uid"))


def _within_reach(graphs: GraphDataset, numbers: list[int]) -> CrystalGraph:
    """These graphs as one, their local edges those within `REACH`."""
    graph = graphs.batch(numbers)
    n, batch = len(numbers), graph.batch.numpy()
    pos, cell = _numbers(graph.pos), _numbers(graph.cell)
    repeats = np.zeros((n, 3), bool)  # the edges that carry a lattice tell along which vectors
    owner, steps = batch[graph.lattice_index[0].numpy()], graph.lattice_shift.numpy() != 0
    np.logical_or.at(repeats, owner, steps)
    index, shift = [], []
    for number in range(n):
        nodes = np.flatnonzero(batch == number)
        edges, images = neighbour_edges(pos[nodes], cell[number], repeats[number], REACH)
        index.append(nodes[edges])
        shift.append(images)
    graph.edge_index = torch.from_numpy(np.concatenate(index, axis=1))
    graph.edge_shift = torch.from_numpy(np.concatenate(shift))
    return graph


@cache
def _magpie() -> "ElementProperty":
    from matminer.featurizers.composition import ElementProperty

    return ElementProperty.from_preset("magpie", impute_nan=True)


def _composition(z: np.ndarray) -> np.ndarray:
    kinds, counts = np.unique(z, return_counts=True)
    counts = counts // gcd(*counts.tolist())
    return _statistics(tuple(zip(kinds.tolist(), counts.tolist())))


@cache  # matminer takes milliseconds, and many rows share a composition
def _statistics(composition: tuple[tuple[int, int], ...]) -> np.ndarray:
    from pymatgen.core import Composition

    amounts = {chemical_symbols[z]: count for z, count in composition}
    return np.array(_magpie().featurize(Composition(amounts)))


def _surroundings(graph: CrystalGraph) -> pd.DataFrame:
    parts = _elements(graph) | _sites(graph) | {"layer": _layer(graph)}
    table = pd.concat(parts, axis=1)
    return table.set_axis([f"{part}: {name}" for part, name in table.columns], axis=1)


def _elements(graph: CrystalGraph) -> dict[str, pd.DataFrame]:
    """Which elements there are, each (B, columns), by what they are about."""
    z, original, batch = (t.numpy() for t in (graph.z, graph.original_z, graph.batch))
    n = len(graph.uid)
    dopant, vacant, host = graph.is_defect.numpy() & (z > 0), z == 0, original > 0
    replaced = dopant & host
    properties, few = _properties(), list(ELEMENTAL)
    host_atoms = properties[few].iloc[original[host]].groupby(batch[host])
    misfit = properties[few].iloc[z[replaced]] - properties[few].iloc[original[replaced]].to_numpy()
    kinds = {k.name.lower(): graph.site_kind.numpy() == k for k in SiteKind if k != SiteKind.HOST}
    return {
        "dopant": _mean(properties.iloc[z[dopant]], batch[dopant], n),
        "replaced": _mean(properties.iloc[original[replaced]], batch[replaced], n),
        "vacant": _mean(properties.iloc[original[vacant]], batch[vacant], n),
        "host": _mean(properties.iloc[original[host]], batch[host], n),
        "spread": host_atoms.std(ddof=0).reindex(range(n), fill_value=0.0),
        "misfit": _mean(misfit, batch[replaced], n),
        "kind": pd.DataFrame({k: np.bincount(batch[of], minlength=n) for k, of in kinds.items()}),
    }


def _sites(graph: CrystalGraph) -> dict[str, pd.DataFrame]:
    """The geometry at added atoms and at vacancies, each (B, columns)."""
    shells = _shells(graph)
    batch, vacant = graph.batch.numpy()[shells.index], graph.is_vacancy.numpy()[shells.index]
    kinds = {"at dopant": ~vacant, "at vacancy": vacant}
    return {kind: _mean(shells[of], batch[of], len(graph.uid)) for kind, of in kinds.items()}


def _shells(graph: CrystalGraph) -> pd.DataFrame:
    """What every node of a defect sees, (defect nodes, columns), by number of the node.

    Distances are in Å, relative ones over the sum of covalent radii, where a vacancy has the
    radius (and the other properties) of the atom that is missing. `near ...` are means over the
    neighbours, see `_near`; `step ...` are the node's own properties minus those means.
    """
    is_defect, batch = graph.is_defect.numpy(), graph.batch.numpy()
    nodes = np.flatnonzero(is_defect)
    z, original = graph.z.numpy(), graph.original_z.numpy()
    own = np.where(z > 0, z, original)
    moved = _displacements(graph)
    properties = _properties()[list(ELEMENTAL)]
    chi = torch.from_numpy(properties["electronegativity"].to_numpy())

    edges = _edges(graph)
    others = edges[is_defect[edges.sender] & (edges.sender != edges.receiver)]
    edges = edges[z[edges.sender] > 0]
    radii = covalent_radii[own[edges.receiver]] + covalent_radii[z[edges.sender]]
    relative = edges.distance / radii
    nearest = _nearest(edges.distance, edges.receiver, nodes)
    seen = properties.iloc[z[edges.sender]].assign(
        displacement=moved[edges.sender], tilt=edges.tilt.array, tilt2=edges.tilt.array**2
    )
    near = _near(seen, edges, nodes)
    near["tilt"] = near["tilt"].abs()  # a layer has no upper side
    step = properties.iloc[own[nodes]].set_axis(nodes) - near[properties.columns]
    height, half = _heights(graph)
    strain, imbalance = local_strain(graph)
    columns = {
        "mean distance": nearest.mean(axis=1),
        "deviation of distances": nearest.std(axis=1),
        "coordination": np.bincount(edges.receiver[relative < COORDINATION], minlength=len(z))[
            nodes
        ],
        "distance of other part": _nearest(others.distance, others.receiver, nodes, 1)[1],
        "displacement": moved[nodes],
        "height": height[nodes],
        "height over surface": (height - half[batch])[nodes],
        "strain": _numbers(strain)[nodes],
        "imbalance of strain": _numbers(lengths(imbalance))[nodes],
        "asymmetry": _numbers(lengths(asymmetry(graph, chi)))[nodes],
    }
    return pd.concat(
        [
            nearest.add_prefix("distance "),
            _nearest(relative, edges.receiver, nodes).add_prefix("relative distance "),
            near.add_prefix("near "),
            step.add_prefix("step "),
            pd.DataFrame(columns, nodes),
        ],
        axis=1,
    )


def _edges(graph: CrystalGraph) -> pd.DataFrame:
    """Edges within `REACH` (Å) to nodes of a defect; `tilt` is their sine to the layer."""
    vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift, graph.batch)
    chosen = graph.is_defect[graph.edge_index[1]] & (lengths(vectors) < REACH)
    sender, receiver = graph.edge_index[:, chosen].numpy()
    vectors = _numbers(vectors[chosen])
    distance = np.linalg.norm(vectors, axis=1)
    rise = (vectors * _normals(graph)[graph.batch.numpy()[receiver]]).sum(axis=1)
    return pd.DataFrame(
        {"sender": sender, "receiver": receiver, "distance": distance, "tilt": rise / distance}
    )


def _nearest(
    distance: pd.Series, receiver: pd.Series, nodes: np.ndarray, count: int = NEAREST
) -> pd.DataFrame:
    """The least distances at each node, sorted, (nodes, count); `REACH` for those not there."""
    table = pd.DataFrame({"node": receiver, "distance": distance}).sort_values("distance")
    table["rank"] = table.groupby("node").cumcount() + 1
    table = table[table["rank"] <= count].pivot(index="node", columns="rank", values="distance")
    return table.reindex(index=nodes, columns=range(1, count + 1)).fillna(REACH)


def _near(values: pd.DataFrame, edges: pd.DataFrame, nodes: np.ndarray) -> pd.DataFrame:
    """Weighted means over neighbours of `values`, a row an edge: (nodes, columns).

    The weights exp(-((d - d_1) / w)²), with the distance d_1 of the nearest neighbour and
    w = `SHELL_WIDTH`, favour the first shell without a sharp edge.
    """
    excess = edges.distance - edges.groupby("receiver").distance.transform("min")
    weight = np.exp(-((excess / SHELL_WIDTH) ** 2))
    sums = values.set_axis(edges.index).mul(weight, axis=0).groupby(edges.receiver).sum()
    total = weight.groupby(edges.receiver).sum()
    return sums.div(total, axis=0).reindex(nodes, fill_value=0.0)


def _heights(graph: CrystalGraph) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) in Å from the middle of the pristine layer, and half its thickness (B,)."""
    batch, host = graph.batch.numpy(), graph.original_z.numpy() > 0
    normal = _normals(graph)[batch]
    height, ideal = ((_numbers(pos) * normal).sum(axis=1) for pos in (graph.pos, graph.ideal_pos))
    layer = pd.Series(ideal[host]).groupby(batch[host]).agg(["min", "max"])
    low, high = layer.reindex(range(len(graph.uid)), fill_value=0.0).to_numpy().T
    return np.abs(height - (low + high)[batch] / 2), (high - low) / 2


def _layer(graph: CrystalGraph) -> pd.DataFrame:
    """The host as a whole, (B, columns)."""
    batch, n = graph.batch.numpy(), len(graph.uid)
    host = graph.original_z.numpy() > 0
    sites = np.bincount(batch[host], minlength=n)
    cell = _numbers(graph.cell)
    area = np.linalg.norm(np.cross(cell[:, 0], cell[:, 1]), axis=1)
    moved = pd.Series(_displacements(graph)[host]).groupby(batch[host])
    columns = {
        "sites": sites,
        "area per site": area / np.maximum(sites, 1),
        "thickness": 2 * _heights(graph)[1],
        "mean displacement": moved.mean(),
        "largest displacement": moved.max(),
    }
    return pd.DataFrame(columns, range(n)).fillna(0.0)


def _normals(graph: CrystalGraph) -> np.ndarray:
    """Unit vectors normal to the layers, (B, 3)."""
    cell = _numbers(graph.cell)
    normal = np.cross(cell[:, 0], cell[:, 1])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _displacements(graph: CrystalGraph) -> np.ndarray:
    """Distance of every node from its ideal site, (N,) Å."""
    return _numbers(lengths(graph.pos - graph.ideal_pos))


def _mean(frame: pd.DataFrame, batch: np.ndarray, n: int) -> pd.DataFrame:
    """The mean of the rows of each graph, (B, columns), zeros for a graph without a row."""
    return frame.groupby(batch).mean().reindex(range(n), fill_value=0.0)


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


@cache
def _properties() -> pd.DataFrame:
    """Elemental and Magpie properties by atomic number, (119, columns), row 0 all zeros."""
    table = feature_table(["elemental", "magpie"])
    frame = pd.DataFrame(table.values, columns=list(table.names))
    return frame.loc[:, ~table.is_flag]
