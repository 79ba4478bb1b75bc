"""Attention weights of a trained model, with a stated definition, mapped back to atoms.

`node_table` says where every node lies, seen from the defect.

alpha^(l,h)_ij is the weight that node i gives to node j in head h of global layer l; a row sums to
one. From these, one matrix:

- "mean": the mean over all heads of all layers, or of one layer, or one head of one layer;
- "rollout": the product over layers, the last one on the left, of (I + mean over heads) / 2, in
  which I stands for the residual connection (Abnar and Zuidema, ACL 2020).

From a matrix follows one number for each node j: the mean of column j over the nodes that ask
(the queries), which are the nodes of the defect, or all nodes, or chosen ones. The numbers of one
structure sum to one; times the number of nodes they are `relative`, one where attention is uniform.

Before the first global layer, local layers have already carried information between neighbours:
a weight on node j is a weight on what j has gathered, not on atom j alone.

Axes: L global layers, H heads, n nodes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from defectkit import DefectkitError
from defectkit.graphs import periodic
from defectkit.graphs.build import CrystalGraph
from defectkit.models import build_model
from defectkit.models.attention import Pairs
from defectkit.structures.record import SiteKind
from defectkit.training.inference import ModelCard

HOW = ("mean", "rollout")
PARTS = ("content", "phi", "psi")
FIRST_SHELL = 1.25  # in units of the shortest distance from a defect's node to a host atom
READOUTS = ("pooling", "readout")  # names of the read-out in the models


@torch.no_grad()
def attention_maps(model: nn.Module, graph: CrystalGraph) -> np.ndarray:
    """(L, H, n, n) weights of one graph; a node that does not attend gives all to itself.

    DefectkitError for a model that has no attention.
    """
    maps = model.attention(graph) if hasattr(model, "attention") else []
    if not maps:
        raise DefectkitError("This model has no attention; take a hybrid with global layers.")
    found = np.stack([layer.double().numpy() for layer in maps])
    if found.shape[2] == graph.num_nodes:
        return found
    whole = np.tile(np.eye(graph.num_nodes), (*found.shape[:2], 1, 1))
    whole[:, :, graph.is_defect.numpy()] = found
    return whole


def combine(
    maps: np.ndarray, how: str = "mean", layer: int | None = None, head: int | None = None
) -> np.ndarray:
    """One matrix (n, n) from the maps of all layers and heads; its rows sum to one.

    Args:
        maps: (L, H, n, n).
        how: "mean" or "rollout", see above.
        layer: for the mean of one layer.
        head: for the mean of one head.

    Raises DefectkitError for another `how`, for a layer or head that does not exist, and for a
    rollout of one layer or one head.
    """
    if how not in HOW:
        raise DefectkitError(f"Attention is not combined by '{how}'; use one of {HOW}.")
    if how == "rollout":
        if layer is not None or head is not None:
            raise DefectkitError("Rollout takes all layers and heads; leave layer and head out.")
        identity = np.eye(maps.shape[-1])
        total = identity
        for alpha in maps.mean(axis=1):
            total = (identity + alpha) / 2 @ total
        return total
    for name, number, size in (("layer", layer, len(maps)), ("head", head, maps.shape[1])):
        if number is not None and not 0 <= number < size:
            raise DefectkitError(f"There is no {name} {number}; they count from 0 to {size - 1}.")
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    heads = slice(None) if head is None else slice(head, head + 1)
    return maps[layers, heads].mean(axis=(0, 1))


def seen_by(matrix: np.ndarray, query: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """(n,) the mean of the rows of the nodes that ask, all of them where `query` is not given."""
    return matrix.mean(axis=0) if query is None else matrix[np.asarray(query)].mean(axis=0)


def attention_table(
    model: nn.Module,
    graphs: Iterable[CrystalGraph],
    how: str = "mean",
    layer: int | None = None,
    head: int | None = None,
    query: str = "defect",
) -> pd.DataFrame:
    """Attention of every node of many structures.

    Args:
        model: in evaluation mode.
        graphs: single graphs with a defect.
        how: "mean" or "rollout", see above.
        layer: for the mean of one layer.
        head: for the mean of one head.
        query: who asks, "defect" or "all".

    Returns:
        The columns of `node_table`, `weight` (without unit, sums to one over a structure) and
        `relative` (weight times number of nodes).
    """
    if query not in ("defect", "all"):
        raise DefectkitError(f"query is '{query}'; use 'defect' or 'all'.")
    tables = []
    for graph in graphs:
        table = node_table(graph)
        matrix = combine(attention_maps(model, graph), how, layer, head)
        asking = np.flatnonzero(table.defect) if query == "defect" else None
        table["weight"] = seen_by(matrix, asking)
        table["relative"] = table.weight * len(table)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def untrained(model: nn.Module, card: ModelCard, seed: int = 0) -> nn.Module:
    """The same architecture with first weights: what attention looks like before any learning.

    Element features and the normalisation of the labels are those of `model`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = build_model(
            card.model.name, model.inputs.features, card.graph, **card.model.settings
        )
    known = dict(model.named_buffers())
    for name, buffer in fresh.named_buffers():
        buffer.copy_(known[name])
    return fresh.eval()


def without(model: nn.Module, *parts: str) -> nn.Module:
    """A copy of a hybrid model whose attention scores lack some of their parts, not retrained.

    Args:
        model: stays as it is.
        parts: "content" (query times key), "phi" (distance), "psi" (kinds of sites). Without all
            three, attention is uniform.

    Raises DefectkitError for another part.
    """
    if unknown := set(parts) - set(PARTS):
        raise DefectkitError(f"Scores have no part {sorted(unknown)}; choose from {PARTS}.")
    copy = deepcopy(model)
    for block in copy.global_blocks:
        attention = block.attention
        if "content" in parts:
            with torch.no_grad():  # rows of queries and keys, those of values stay
                attention.project.weight[: 2 * attention.project.in_features] = 0.0
        if "phi" in parts:
            attention.bias.phi = None
        if "psi" in parts:
            attention.bias.psi = None
    return copy


def node_table(graph: CrystalGraph, centre: Sequence[int] | None = None) -> pd.DataFrame:
    """One row a node of one graph, in the graph's order.

    Args:
        graph: a single graph.
        centre: nodes to measure from; the nodes of the defect where it is not given.

    Returns:
        a table with the columns

        * uid, node (its number), symbol ("V_S" where an S is missing), kind (of `SiteKind`, in
          small letters), defect (whether it is of the defect);
        * shell: 0 for the defect, 1 for host atoms no further from one of its nodes than
          `FIRST_SHELL` times that node's nearest host atom, 2 for all others;
        * distance: Å, to the nearest image of the nearest centre;
        * dx, dy, dz: Å, from that centre to the node;
        * direction: radians from the x axis, in the plane; NaN for a centre;
        * inside: whether the distance is below half the shortest translation in the plane. Further
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


@torch.no_grad()
def part_shapes(model: nn.Module, graph: CrystalGraph) -> pd.DataFrame:
    """The parts of a model in the order in which they answer, the blocks of a list one by one.

    Args:
        model: of `models.MODELS`.
        graph: one graph or a batch.

    Returns:
        Columns kind (name of the class), output (shapes, in words where it is no tensor) and
        weights (how many), indexed by the part's name.
    """
    rows: list[tuple] = []

    def note(name: str) -> Callable:
        def hook(part: nn.Module, inputs: tuple, output: object) -> None:
            weights = sum(p.numel() for p in part.parameters())
            rows.append((name, type(part).__name__, _describe(output), weights))

        return hook

    hooks = [part.register_forward_hook(note(name)) for name, part in _parts(model)]
    try:
        model(graph)
    finally:
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows, columns=["part", "kind", "output", "weights"]).set_index("part")


@torch.no_grad()
def node_vectors(model: nn.Module, graph: CrystalGraph) -> Tensor:
    """(N, D) the vectors of the nodes that reach the read-out of a model."""
    found: list[Tensor] = []
    readout = next(getattr(model, name) for name in READOUTS if hasattr(model, name))
    hook = readout.register_forward_pre_hook(lambda part, inputs: found.append(inputs[0]))
    try:
        model(graph)
    finally:
        hook.remove()
    return found[0]


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{number}", block) for number, block in enumerate(part))
        else:
            yield name, part


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return str(tuple(output.shape)).replace(",)", ")")
    if isinstance(output, tuple):
        return " and ".join(_describe(one) for one in output if one is not None)
    if isinstance(output, Pairs):
        return f"{len(output.sender):,} pairs"
    return type(output).__name__.lower()
