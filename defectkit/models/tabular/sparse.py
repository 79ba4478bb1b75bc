"""Defects as rows of a table, read from their sites alone (`GraphConfig(nodes="defects")`).

`site_features` describes sites and pairs by what an element is and where it stands, for tree
models; `kind_counts` and `pair_counts` count kinds of sites and of pairs host by host, for linear
models. A pair is seen through its nearest image.

A kind of site is written S>Se, sulfur replaced by selenium, or S>, sulfur missing.

Axes: N sites, P pairs, B graphs, C classes.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import Ridge

from defectkit.graphs import CrystalGraph, GraphDataset
from defectkit.graphs.elements import ELEMENTAL, feature_table
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.models.tabular.features import COMPOSITION

SITES = "sites"  # the column that holds their number
SHARES = f"{COMPOSITION}share of "  # how the names of columns about one kind of site begin
COUNTS = "counts: "  # likewise of counts in one host
# Classes of sites: what happened, and whether to the more electropositive element.
CLASSES = ("missing cation", "missing other", "replaced cation", "replaced other", "added")
SAME = 0.1  # of electronegativities
CENTRES, WIDTH = (2.5, 4.0, 6.0, 9.0, 13.0), 1.2  # Å, of Gaussians of distances
DECAYS = (1.0, 2.0, 4.0, 10.0)  # Å, of exponentials
FAR = 20.0  # Å, stands for the distance of a pair that is not there
SHELL = 0.1  # Å, what distances of a lattice are rounded to
# Scales of columns of the linear pair model: a ridge holds small what is measured in large units.
SHARE_SCALE, GROWTH_SCALE = 10.0, 0.03
FADE_LENGTH, FADE_POWER = 3.0, 3  # Å
LEAST_ROWS = 10
ROUNDS = 4  # of reweighting
LEAST_ERROR, TINY = 0.3, 1e-6  # of the mean error, below which rows weigh alike


class Pairs(NamedTuple):
    """Every two sites of a graph once, through their nearest image within the graph's reach."""

    first: np.ndarray  # (P,) number of a site in the batch, below `second`
    second: np.ndarray  # (P,)
    distance: np.ndarray  # (P,) Å


def nearest_pairs(graph: CrystalGraph) -> Pairs:
    """The pairs of a batch with `pair_index`."""
    index, shift = graph.pair_index, graph.pair_shift
    once = index[0] < index[1]
    index, shift = index[:, once], shift[once]
    vectors = edge_vectors(graph.pos, graph.cell, index, shift, graph.batch)
    first, second = index.numpy()
    table = pd.DataFrame({"first": first, "second": second, "distance": lengths(vectors).numpy()})
    nearest = table.groupby(["first", "second"], sort=False, as_index=False).distance.min()
    return Pairs(*(nearest[name].to_numpy() for name in Pairs._fields))


def site_features(graphs: GraphDataset) -> pd.DataFrame:
    """Numbers about sites and pairs that carry over to other hosts: (B, columns), by uid.

    A column's name begins with what it is about:

    - composition: shares of the kinds of sites; means over sites of `ELEMENTAL` properties of
      what stands there now, stood there before and is bound there in the pristine host.
    - mix: products of the shares of classes (`_classes`).
    - pairs: mean and least distance (Å), sums over pairs of every two classes by distance, in
      Gaussians and in exponentials, by site.
    - host: Å and Å² of bonds and cell; sites by area.

    Args:
        graphs: of `GraphConfig(nodes="defects")` with pairs.
    """
    graph = graphs.batch(range(len(graphs)))
    counts = _counts(graph.batch.numpy(), _kind_names(graph), len(graphs))
    kinds = counts.div(graphs.n_nodes, axis=0).add_prefix(SHARES)
    parts = [kinds, _elements(graph), _pair_sums(graph), _host(graph)]
    return pd.concat(parts, axis=1).set_axis(pd.Index(graphs.uids, name="uid"))


def kind_counts(graphs: GraphDataset, hosts: pd.Series) -> pd.DataFrame:
    """How many sites of each kind a defect has, host by host: (B, columns), by uid.

    Columns are called "counts: HOST | KIND", and zero in other hosts.

    Args:
        graphs: of `GraphConfig(nodes="defects")`.
        hosts: name of the host by uid.
    """
    graph = graphs.batch(range(len(graphs)))
    owner, kinds = graph.batch.numpy(), _kind_names(graph)
    hosts = hosts.loc[graphs.uids].to_numpy(str)[owner]
    names = np.char.add(np.char.add(hosts, " | "), kinds)
    counts = _counts(owner, names, len(graphs)).add_prefix(COUNTS)
    return counts.set_axis(pd.Index(graphs.uids, name="uid"))


def pair_counts(graphs: GraphDataset, hosts: pd.Series) -> pd.DataFrame:
    """`kind_counts`, and how many pairs of each two kinds at each distance there are.

    The further columns are called "counts: HOST | KIND KIND | DISTANCE", in Å.
    """
    graph = graphs.batch(range(len(graphs)))
    batch, names = graph.batch.numpy(), hosts.loc[graphs.uids].to_numpy()
    pairs = nearest_pairs(graph)
    kinds, codes = np.unique(_kind_names(graph), return_inverse=True)
    ends = np.sort(codes[np.stack([pairs.first, pairs.second])], axis=0)
    shell = np.round(pairs.distance / SHELL).astype(int)
    owner = batch[pairs.first]
    known = pd.DataFrame({"host": names[owner], "low": ends[0], "high": ends[1], "shell": shell})
    columns = known.groupby(list(known))
    texts = [
        f"{COUNTS}{host} | {kinds[low]} {kinds[high]} | {SHELL * shell:.1f}"
        for host, low, high, shell in columns.groups
    ]
    counts = np.zeros((len(graphs), len(texts)), np.int16)
    np.add.at(counts, (owner, columns.ngroup().to_numpy()), 1)
    sites = kind_counts(graphs, hosts)
    return pd.concat([sites, pd.DataFrame(counts, sites.index, texts)], axis=1)


class ByHost(RegressorMixin, BaseEstimator):
    """A regressor for every host of a table of counts.

    A host with fewer than `LEAST_ROWS` training rows has the mean of all rows.

    Args:
        regressor: of one host, cloned; reads the host's columns as a `DataFrame`, called as those
            of `pair_counts` are after "HOST | ".

    Attributes:
        regressors: fitted, by host.
        columns: what each reads, by host: what its training rows have.
        mean: of all values.
    """

    def __init__(self, regressor: RegressorMixin):
        self.regressor = regressor

    def fit(self, table: pd.DataFrame, values: np.ndarray) -> "ByHost":
        """Learn from a table of counts (rows, columns) and values (rows,)."""
        self.mean = float(np.mean(values))
        self.regressors, self.columns = {}, {}
        for host, rows, counts in _hosts(table):
            if len(rows) >= LEAST_ROWS:
                counts = counts.loc[:, counts.to_numpy().any(axis=0)]
                self.columns[host] = list(counts)
                self.regressors[host] = clone(self.regressor).fit(counts, values[rows])
        return self

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """(rows,); what no training row of the host has counts for nothing."""
        values = np.full(len(table), self.mean)
        for host, rows, counts in _hosts(table):
            if host in self.regressors:
                counts = counts.reindex(columns=self.columns[host], fill_value=0)
                values[rows] = self.regressors[host].predict(counts)
        return values


class RobustRidge(Ridge):
    """Ridge regression without an intercept whose loss tends towards absolute errors.

    Rows are weighted by the inverse of their last error (iteratively reweighted least squares;
    Holland and Welsch, Commun. Stat. A 6, 813, 1977).
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__(alpha=alpha, fit_intercept=False)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "RobustRidge":
        """Learn from (rows, columns) and (rows,)."""
        weight = np.ones(len(y))
        for _ in range(ROUNDS):
            super().fit(x, y, sample_weight=weight)
            error = np.abs(y - self.predict(x))
            weight = 1 / np.maximum(error, LEAST_ERROR * error.mean() + TINY)
            weight /= weight.mean()
        return self


def shares(counts: pd.DataFrame) -> np.ndarray:
    """Shares of the kinds among the sites of one host: counts (rows, columns) -> (rows, K)."""
    kinds = counts.loc[:, [name for name in counts if " | " not in name]].to_numpy(float)
    # A row whose kinds are all unknown has none.
    return kinds / np.maximum(kinds.sum(axis=1, keepdims=True), 1)


def pair_design(counts: pd.DataFrame, reach: float) -> np.ndarray:
    """Columns of the linear pair model of one host: counts (rows, columns) -> (rows, K).

    A constant, shares of kinds, their products, these times the number of sites, and counts of
    pairs by site, which fade out as (1 + (d/3 Å)³)^(-1/2): the ridge holds a far pair smaller.

    Args:
        counts: of one host.
        reach: Å, pairs beyond it count for nothing.
    """
    share, kinds = shares(counts), [name for name in counts if " | " not in name]
    n = np.maximum(counts[kinds].to_numpy(float).sum(axis=1, keepdims=True), 1)
    first, second = np.triu_indices(len(kinds))
    products = share[:, first] * share[:, second]
    pairs = counts.drop(columns=kinds)
    distance = np.array([float(name.rpartition(" | ")[2]) for name in pairs])
    fade = (distance < reach) / np.sqrt(1 + (distance / FADE_LENGTH) ** FADE_POWER)
    return np.concatenate(
        [
            np.full_like(n, SHARE_SCALE),
            SHARE_SCALE * share,
            products,
            GROWTH_SCALE * n * products,
            pairs.to_numpy(float) / n * fade,
        ],
        axis=1,
    )


def _hosts(table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, pd.DataFrame]]:
    """Name, numbers of the rows and their columns of each host of a table of counts."""
    names = [name.removeprefix(COUNTS).partition(" | ") for name in table]
    hosts = np.array([host for host, _, _ in names], object)
    inner = pd.Index([name for _, _, name in names])
    values = table.to_numpy()
    for host in dict.fromkeys(hosts):
        own = hosts == host
        rows = np.flatnonzero(values[:, own].any(axis=1))
        if len(rows):
            yield host, rows, pd.DataFrame(values[np.ix_(rows, own)], columns=inner[own])


def _kind_names(graph: CrystalGraph) -> np.ndarray:
    """(N,) the kind of each site, as S>Se."""
    symbols = np.array(["", *chemical_symbols[1:]])
    before, now = symbols[graph.original_z.numpy()], symbols[graph.z.numpy()]
    return np.char.add(np.char.add(before, ">"), now)


def _counts(owner: np.ndarray, names: np.ndarray, n: int) -> pd.DataFrame:
    """How often each name stands in each of n graphs: (n, names)."""
    columns, codes = np.unique(names, return_inverse=True)
    counts = np.zeros((n, len(columns)), np.int16)
    np.add.at(counts, (owner, codes), 1)
    return pd.DataFrame(counts, columns=columns)


def _elements(graph: CrystalGraph) -> pd.DataFrame:
    """Mean properties of what stands at the sites, stood there and is bound there, (B, columns)."""
    batch = graph.batch.numpy()
    table = feature_table(["elemental"])
    properties = pd.DataFrame(table.values, columns=list(table.names))[list(ELEMENTAL)]
    now, before = graph.z.numpy(), graph.original_z.numpy()
    bonds = graph.host_bonds_z.numpy()
    ends = properties.to_numpy()[bonds] * (bonds > 0)[:, :, None]
    around = ends.sum(axis=1) / np.maximum((bonds > 0).sum(axis=1), 1)[:, None]
    new, old = properties.iloc[now], properties.iloc[before]
    changed = (new.to_numpy() - old.to_numpy()) * ((now > 0) & (before > 0))[:, None]
    parts = {
        "now": new.to_numpy(),
        "before": old.to_numpy(),
        "around": around,
        "change of": changed,
    }
    columns = {
        f"{COMPOSITION}{part} {name}": values[:, k]
        for part, values in parts.items()
        for k, name in enumerate(ELEMENTAL)
    }
    return pd.DataFrame(columns).groupby(batch).mean()


def _classes(graph: CrystalGraph) -> np.ndarray:
    """(N,) number of the class of a site among `CLASSES`.

    A site is missing, replaced or added, and of the more electropositive element of its bonds in
    the pristine host (a cation) or not.
    """
    table = feature_table(["elemental"])
    chi = table.values[:, table.names.index("electronegativity")]
    bonds, before = graph.host_bonds_z.numpy(), graph.original_z.numpy()
    around = (chi[bonds] * (bonds > 0)).sum(axis=1) / np.maximum((bonds > 0).sum(axis=1), 1)
    place = np.where(chi[before] < around - SAME, 0, 1)
    number = 2 * (graph.z.numpy() > 0) + place
    return np.where(before == 0, CLASSES.index("added"), number)


def _pair_sums(graph: CrystalGraph) -> pd.DataFrame:
    """What pairs there are, by class and distance, by site: (B, columns)."""
    batch, n_graphs = graph.batch.numpy(), len(graph.cell)
    n = np.bincount(batch, minlength=n_graphs)
    pairs, classes = nearest_pairs(graph), _classes(graph)
    owner, d = batch[pairs.first], pairs.distance
    share = np.zeros((n_graphs, len(CLASSES)))
    np.add.at(share, (batch, classes), 1 / n[batch])
    ends = np.sort(classes[np.stack([pairs.first, pairs.second])], axis=0)
    by_graph = pd.Series(d).groupby(owner)
    columns = {
        "pairs: mean distance": by_graph.mean().reindex(range(n_graphs)),
        "pairs: least distance": by_graph.min().reindex(range(n_graphs)),
    }
    for low, high in combinations_with_replacement(range(len(CLASSES)), 2):
        name = f"{CLASSES[low]} and {CLASSES[high]}"
        columns[f"mix: {name}"] = share[:, low] * share[:, high]
        chosen = (ends[0] == low) & (ends[1] == high)
        where, length = owner[chosen], d[chosen]
        least = pd.Series(length).groupby(where).min()
        columns[f"pairs: {name}, least distance"] = least.reindex(range(n_graphs))
        functions = {f"near {c:g} Å": np.exp(-(((length - c) / WIDTH) ** 2)) for c in CENTRES}
        functions |= {f"decay {a:g} Å": np.exp(-length / a) for a in DECAYS}
        for what, weight in functions.items():
            columns[f"pairs: {name}, {what}"] = np.bincount(where, weight, n_graphs) / n
    return pd.DataFrame(columns).fillna(FAR)


def _host(graph: CrystalGraph) -> pd.DataFrame:
    """Bonds of the pristine host and the cell, (B, columns)."""
    batch, cell = graph.batch.numpy(), graph.cell.double().numpy()
    length = lengths(graph.host_bonds).numpy()
    bonds = graph.host_bonds_z.numpy() > 0
    count = bonds.sum(axis=1)
    mean = (length * bonds).sum(axis=1) / np.maximum(count, 1)
    area = np.linalg.norm(np.cross(cell[:, 0], cell[:, 1]), axis=1)
    columns = {"host: bonds": count, "host: length of bonds": mean}
    table = pd.DataFrame(columns).groupby(batch).mean()
    table["host: area"] = area
    table["host: sites by area"] = np.bincount(batch, minlength=len(area)) / area
    return table
