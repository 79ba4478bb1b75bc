"""Exercises of notebook 04, the hybrid: attention that knows its crystal."""

import math

import torch

from defectkit.data.dataset import Dataset
from defectkit.structures.hosts import shortest_translation
from defectkit.teach.checks import (
    exercise,
    pair_of,
    result_of,
    same_number,
    same_tensor,
    same_text,
)
from defectkit.training.pretrained import benchmark


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
