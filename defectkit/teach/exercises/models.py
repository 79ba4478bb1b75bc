"""Judges of the exercises on models: notebooks 03 and 04."""

import math

import numpy as np
import torch

from defectkit.data.dataset import Dataset
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.hosts import shortest_translation
from defectkit.teach.checks import (
    check_row,
    exercise,
    pair_of,
    result_of,
    same_number,
    same_tensor,
    same_text,
)
from defectkit.training.pretrained import benchmark, data_of, shipped_run


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
def ordered_bond_pairs(data: Dataset, answer: object) -> str | None:
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


@exercise("04-1")
def careless_distance(data: Dataset, answer: object) -> str | None:
    """The weight of D with the distance inside the cell."""
    hint = "Exponentials of row A: 1, 2, 1, 4, times 1, 1/2, 1/4 and, for 4 Å, 1/16; D's over all."
    return same_number(answer, 0.1, hint)


@exercise("04-2")
def attention(data: Dataset, answer: object) -> str | None:
    """Attention with a bias."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 5, 4, generator=generator)
    bias = torch.randn(5, 5, generator=generator)
    expected = (query @ key.T / 2 + bias).softmax(dim=1) @ value
    names, shapes = "(query, key, value, bias)", "query, key and value are (n, d), bias (n, n)."
    found = result_of(answer, names, shapes, query, key, value, bias)
    hint = "Scores over the root of d, plus the bias; softmax along each row (dim=1); times value."
    return same_tensor(found, expected, hint)


@exercise("04-3")
def chain_of_images(data: Dataset, answer: object) -> str | None:
    """The sum of halvings over all images of an atom on a line."""
    hint = "One for the atom itself, and 1/8 + 1/64 + ... = (1/8) / (1 - 1/8) on either side."
    return same_number(answer, 9 / 7, hint)


@exercise("04-4")
def layers_across_a_cell(data: Dataset, answer: object) -> str | None:
    """Layers of 5 Å from the defect to the farthest point of the largest cell."""
    images = [shortest_translation(record.atoms.cell.array) for record in data.records]
    hint = "Take the largest of images, over the root of 3, over 5 Å a layer, rounded up."
    return same_number(answer, math.ceil(max(images) / 3**0.5 / 5), hint, rel=0)


@exercise("04-5")
def right_angle(data: Dataset, answer: object) -> str | None:
    """P_0, P_1 and P_2 of two bonds of weights 1 and 2 at a right angle."""
    if not (isinstance(answer, tuple) and len(answer) == 3):
        return "answer with three numbers in round brackets: (l = 0, l = 1, l = 2)."
    for degree, (found, expected) in enumerate(zip(answer, (9, 5, 3))):
        hint = f"For l = {degree}: 1 * 1 + 2 * 2, where P(1) = 1, and 2 * (1 * 2) times P(0)."
        if fault := same_number(found, expected, hint):
            return fault
    return None


@exercise("04-6")
def size_of_attention(data: Dataset, answer: object) -> str | None:
    """Megabytes of the weights, and their growth."""
    words = "answer with a pair in round brackets: (megabytes, factor)."
    megabytes, factor = pair_of(answer, words)
    hint = "heads * nodes * nodes numbers of 4 bytes each, over 10^6."
    fault = same_number(megabytes, 16, hint)
    return fault or same_number(factor, 4, "A matrix has as many rows as columns.")


@exercise("04-7")
def most_missed(data: Dataset, answer: object) -> str | None:
    """The worst variant of the ablation."""
    worst = benchmark("ablation").groupby("variant").eform_mae.mean().idxmax()
    return same_text(answer, worst, "Group by variant, take the mean of eform_mae, then idxmax().")


@exercise("04-8")
def factors(data: Dataset, answer: object) -> str | None:
    """How much smaller the hybrid's error is than two others'."""
    words = "answer with a pair in round brackets: (for ALIGNN, for LightGBM)."
    table = benchmark("models_demo")
    table = table[(table.input == "relaxed") & table.split.str.startswith("random")]
    error = table.groupby("model").eform_mae.mean()
    for found, name in zip(pair_of(answer, words), ("alignn", "lightgbm")):
        hint = f"Divide the mean error of {name} by that of hybrid."
        if fault := same_number(found, error[name] / error["hybrid"], hint):
            return fault
    return None


@exercise("04-9")
def like_vacancies(data: Dataset, answer: object) -> str | None:
    """What two like vacancies hear at 2 Å, without and with a gate on the values."""
    words = "answer with a pair in round brackets: (without the gate, with it)."
    plain, gated = pair_of(answer, words)
    hint = "Without the gate: the weights 4/5 and 1/5 sum to one, and both values are 6."
    fault = same_number(plain, 6, hint)
    hint = (
        "With the gate: the other's value, 6 with weight 1/5, counts by 1/4; its own counts whole."
    )
    return fault or same_number(gated, 5.1, hint)
