"""Exercises of notebook 03, a baseline: ALIGNN."""

import numpy as np
import torch

from defectkit.data.dataset import Dataset
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.teach.checks import (
    check_row,
    exercise,
    pair_of,
    result_of,
    same_number,
    same_tensor,
    same_text,
)
from defectkit.training.pretrained import data_of, shipped_run


def _random_graph(generator: torch.Generator) -> tuple[torch.Tensor, int, int]:
    """Edges (2, E) between n nodes, of which the last receives none, and n and E."""
    n, edges = 6, 15
    index = torch.randint(n - 1, (2, edges), generator=generator)
    return index, n, edges


@exercise("03-1")
def message_round(data: Dataset, answer: object) -> str | None:
    """A round of weighted messages."""
    generator = torch.Generator().manual_seed(0)
    index, n, edges = _random_graph(generator)
    h, weight = torch.randn(n, 3, generator=generator), torch.rand(edges, generator=generator)
    expected = h.clone()
    for (j, i), w in zip(index.T.tolist(), weight):
        expected[i] += w * h[j]
    before = h.clone()
    shapes = "h is (N, D), index (2, E), weight (E,)."
    found = result_of(answer, "(h, index, weight)", shapes, h, index, weight)
    if not torch.equal(h, before):
        return "your function changes h itself; messages of one round must all read the old h."
    return same_tensor(found, expected, "Add weight * h[sender] at the receiver, index[1], to h.")


@exercise("03-2")
def ordered_pairs(data: Dataset, answer: object) -> str | None:
    """Pairs of bonds at all atoms of a record."""
    uid, number = pair_of(answer, "answer with a pair in round brackets: (record.uid, number).")
    check_row(data, uid, "record.uid")
    record = data[uid]
    config = GraphConfig(cutoff=3.5, angle_cutoff=3.5, all_pairs=False)
    graph = build_graph(record, config, data.hosts.get(record.host))
    hint = "Build the graph with cutoff=3.5; count the receivers, edge_index[1]."
    return same_number(number, graph.angle_index.shape[1], hint, rel=0)


@exercise("03-3")
def gated_mean(data: Dataset, answer: object) -> str | None:
    """The gated mean of an edge-gated convolution."""
    generator = torch.Generator().manual_seed(0)
    index, n, edges = _random_graph(generator)
    value = torch.randn(n, 2, generator=generator)
    gate = torch.rand(edges, 2, generator=generator)
    total, weight = torch.zeros(n, 2), torch.zeros(n, 2)
    for number, (j, i) in enumerate(index.T.tolist()):
        total[i] += gate[number] * value[j]
        weight[i] += gate[number]
    shapes = "value is (N, D), gate (E, D), index (2, E)."
    found = result_of(answer, "(value, gate, index, n)", shapes, value, gate, index, n)
    hint = "Sum gate * value[sender] at the receivers, divide by the sum of gates there plus 1e-6."
    return same_tensor(found, total / (weight + 1e-6), hint)


@exercise("03-4")
def mean_of_equals(data: Dataset, answer: object) -> str | None:
    """A gated mean of three equal values."""
    return same_number(answer, 3.0, "Divide the sum of gate times value by the sum of the gates.")


@exercise("03-5")
def constant_predictions(data: Dataset, answer: object) -> str | None:
    """Errors of predicting the mean, and the median."""
    words = "answer with a pair in round brackets: (with the mean, with the median)."
    energy = data.frame.eform
    for found, name in zip(pair_of(answer, words), ("mean", "median")):
        expected = (energy - getattr(energy, name)()).abs().mean()
        hint = f"Take the mean of |eform - {name}|, for the {name} of all rows."
        if fault := same_number(found, expected, hint):
            return fault
    return None


@exercise("03-6")
def three_opinions(data: Dataset, answer: object) -> str | None:
    """Error of the mean of three runs."""
    parts = [shipped_run("alignn", seed).part("test") for seed in range(3)]
    predicted = np.mean([part.eform_pred for part in parts], axis=0)
    expected = np.abs(predicted - parts[0].eform).mean()
    hint = "Average the three predictions first, row by row; then take the absolute error."
    return same_number(answer, expected, hint)


@exercise("03-7")
def hardest_host(data: Dataset, answer: object) -> str | None:
    """The host with the largest median error."""
    run = shipped_run("alignn")
    rows = run.part("test")
    errors = (rows.eform_pred - rows.eform).abs()
    hosts = data_of(run, data).frame.host.loc[rows.index]
    hint = "Group the absolute errors by host, take the median, then idxmax()."
    return same_text(answer, errors.groupby(hosts).median().idxmax(), hint)


@exercise("03-8")
def layers_for_a_reach(data: Dataset, answer: object) -> str | None:
    """Layers that carry news over 30 Å in steps of 4 Å."""
    return same_number(answer, 8, "Each layer reaches one cutoff further; round up.", rel=0)
