"""What a prediction depends on, by occlusion and gradients, and how far atoms really moved.

Axes: N nodes of a batch, n of one graph, W width of a node's input.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.explain.attention import attention_maps, combine, node_table, seen_by
from defectkit.graphs.build import CrystalGraph
from defectkit.structures.record import DefectRecord

BATCH = 16  # copies of a structure at a time
Change = Callable[[Tensor], Tensor]  # of the nodes' inputs, (N, W)
SCORES = {
    "attention": "attention of the defect",
    "asked_by_all": "attention of all nodes",
    "rollout": "rollout",
    "occlusion": "occlusion: silenced",
    "replaced": "occlusion: replaced",
    "gradient": "gradient by position",
    "input_gradient": "input times gradient",
    "relaxation": "true relaxation",
}


@torch.no_grad()
def occlusion(model: nn.Module, graph: CrystalGraph, how: str = "mask") -> np.ndarray:
    """(n,) eV, how much the predicted energy changes when one node is occluded.

    Args:
        model: in evaluation mode.
        graph: a single graph.
        how: "mask": no other node receives anything from the node, neither by a local message nor
            an angle nor by attention. The node still receives, and takes part in the read-out.
            "mean": its input is the mean input of the host's atoms, as if its element were
            unknown; its position stays. What a model reads apart from its nodes' inputs, such
            as the elements in `parts.Ingredients` or the radii in bonds, stays as it is.
    """
    if how not in ("mask", "mean"):
        raise DefectkitError(f"Occlusion '{how}' is unknown; use 'mask' or 'mean'.")
    n = len(graph.z)
    base = model(graph).eform.item()
    changes = []
    for start in range(0, n, BATCH):
        nodes = range(start, min(start + BATCH, n))
        if how == "mask":
            batch = Batch.from_data_list([silenced(graph, node) for node in nodes])
            changes.append(model(batch).eform - base)
            continue
        batch = Batch.from_data_list([graph] * len(nodes))
        with _changed_inputs(model, _mean_rows(graph, nodes)):
            changes.append(model(batch).eform - base)
    return torch.cat(changes).double().numpy()


def silenced(graph: CrystalGraph, node: int) -> CrystalGraph:
    """The graph without the edges, angles and pairs by which other nodes receive from `node`."""
    silent = graph.clone()
    kept = graph.edge_index[0] != node
    silent.edge_index, silent.edge_shift = graph.edge_index[:, kept], graph.edge_shift[kept]
    if "angle_index" in graph:
        number = kept.long().cumsum(0) - 1  # of an edge among those that are kept
        left = kept[graph.angle_index].all(dim=0)
        silent.angle_index = number[graph.angle_index[:, left]]
    if "pair_index" in graph:
        sender, receiver = graph.pair_index
        kept = (sender != node) | (receiver == node)
        silent.pair_index, silent.pair_shift = graph.pair_index[:, kept], graph.pair_shift[kept]
    return silent


def _mean_rows(graph: CrystalGraph, nodes: range) -> Change:
    """A change of the inputs (N, W) of copies of `graph`: node k of copy k becomes the mean."""
    n = len(graph.z)
    host = (~graph.is_defect).nonzero()[:, 0]
    places = torch.tensor([copy * n + node for copy, node in enumerate(nodes)])

    def change(inputs: Tensor) -> Tensor:
        return inputs.index_copy(0, places, inputs[host].mean(dim=0).expand(len(places), -1))

    return change


def gradients(model: nn.Module, graph: CrystalGraph) -> pd.DataFrame:
    """First-order sensitivities of the predicted energy, one row a node.

    Returns:
        gradient: |dE / dr_i|, eV/Å;
        input_gradient: |sum over W of x_iw dE / dx_iw| with the node's input x_i, eV.
    """
    graph = graph.clone()
    graph.pos = graph.pos.detach().requires_grad_()
    kept = []

    def keep(inputs: Tensor) -> Tensor:
        kept.append(inputs.detach().requires_grad_())
        return kept[0]

    with _changed_inputs(model, keep), torch.enable_grad():
        energy = model(graph).eform.sum()
    by_position, by_input = torch.autograd.grad(energy, [graph.pos, kept[0]], allow_unused=True)
    if by_position is None:  # a model that does not look at positions
        by_position = torch.zeros_like(graph.pos)
    if by_input is None:
        by_input = torch.zeros_like(kept[0])
    product = (kept[0].detach() * by_input).sum(dim=1).abs()
    return pd.DataFrame(
        {
            "gradient": by_position.norm(dim=1).double().numpy(),
            "input_gradient": product.double().numpy(),
        }
    )


@contextmanager
def _changed_inputs(model: nn.Module, change: Change) -> Iterator[None]:
    """While the context lasts, `change` is applied to the output of `model.inputs`, (N, W)."""
    if not isinstance(getattr(model, "inputs", None), nn.Module):
        raise DefectkitError("This model has no module `inputs`; only models of this kit have one.")
    handle = model.inputs.register_forward_hook(lambda module, given, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def relaxation(record: DefectRecord) -> np.ndarray:
    """(n,) Å, how far every atom moved in the relaxation that made the label.

    |relaxed - unrelaxed| by the nearest image; DefectkitError where the source does not keep the
    unrelaxed positions.
    """
    return np.linalg.norm(record.displacements(), axis=1)


def score_table(
    model: nn.Module,
    graphs: Iterable[CrystalGraph],
    records: Mapping[str, DefectRecord] | None = None,
) -> pd.DataFrame:
    """Every score of how much a node matters, side by side, for many structures.

    Args:
        model: with attention, in evaluation mode.
        graphs: single graphs with a defect.
        records: by uid, for the true relaxation; NaN where there is none, and for vacancies.

    Returns:
        The columns of `node_table` and those of `SCORES`, all without a sign: attention by the
        nodes of the defect and by all nodes, rollout seen by the defect, both occlusions (eV),
        the gradient (eV/Å), input times gradient (eV), relaxation (Å). Also `defecttype`.
    """
    records = records or {}
    tables = []
    for graph in graphs:
        table = node_table(graph)
        maps = attention_maps(model, graph)
        asking = np.flatnonzero(table.defect)
        mean = combine(maps)
        table["attention"] = seen_by(mean, asking)
        table["asked_by_all"] = seen_by(mean)
        table["rollout"] = seen_by(combine(maps, "rollout"), asking)
        table["occlusion"] = np.abs(occlusion(model, graph))
        table["replaced"] = np.abs(occlusion(model, graph, "mean"))
        table = table.join(gradients(model, graph))
        table["relaxation"] = np.nan
        table["defecttype"] = ""
        if record := records.get(graph.uid):
            table["defecttype"] = record.defecttype
            if record.unrelaxed is not None:
                table.loc[: record.natoms - 1, "relaxation"] = relaxation(record)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
