"""Exercises of notebook 10: right answers, near misses, answers of another kind."""

from collections import Counter
from math import gcd
from types import SimpleNamespace

import numpy as np
import pytest

from defectkit import teach


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(teach.checks, "_dataset", SimpleNamespace(records=[]))
    monkeypatch.setattr(teach.checks, "_wrong", Counter())
    monkeypatch.delenv(teach.STRICT, raising=False)


def amounts(cation, anion):
    common = gcd(cation, anion)
    return anion // common, cation // common


def mask(tokens, chance, what, other):
    hidden = np.where(what < 0.8, "[MASK]", np.where(what < 0.9, other, tokens))
    return np.where(chance < 0.15, hidden, tokens)


def mask_all(tokens, chance, what, other):
    return np.where(chance < 0.15, "[MASK]", tokens)


def mask_in_place(tokens, chance, what, other):
    tokens[chance < 0.15] = "[MASK]"
    return tokens


def alike(first, second, group):
    return {group[x] for x in first} == {group[x] for x in second}


def nearest(vectors, row):
    cosine = vectors @ vectors[row] / np.linalg.norm(vectors, axis=1)
    cosine[row] = -np.inf
    return int(cosine.argmax())


def by_product(vectors, row):
    product = vectors @ vectors[row]
    product[row] = -np.inf
    return int(product.argmax())


def p_value(difference, signs):
    means = np.abs((signs * difference).mean(axis=1))
    return (means >= abs(difference.mean()) - 1e-12).mean()


def one_sided(difference, signs):
    return ((signs * difference).mean(axis=1) >= difference.mean() - 1e-12).mean()


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("10-1", amounts, lambda c, a: (c, a), "charges themselves"),
        ("10-1", amounts, lambda c, a: (a, c), "divisor"),
        ("10-1", amounts, lambda c, a: a, "pair"),
        ("10-2", mask, mask_all, "10 % become another"),
        ("10-2", mask, mask_in_place, "changes tokens itself"),
        ("10-2", mask, lambda t, c, w, o: mask(t, c, np.minimum(w, 0.89), o), "the element stays"),
        ("10-2", mask, lambda t, c, w, o: mask(t, c - 1e-9, w, o), "At 0.15 itself"),
        ("10-2", mask, lambda t, c, w, o: "Ca", "list of names"),
        ("10-3", alike, lambda f, s, g: set(f) == set(s), "groups 1 and 17"),
        ("10-3", alike, lambda f, s, g: [g[x] for x in f] == [g[x] for x in s], "order"),
        ("10-3", alike, lambda f, s, g: bool({g[x] for x in f} & {g[x] for x in s}), "not some"),
        ("10-3", alike, lambda f, s, g: 1, "True or False"),
        ("10-4", nearest, lambda v, r: r, "itself"),
        ("10-4", nearest, by_product, "lengths"),
        ("10-4", nearest, lambda v, r: 2, "every row"),
        ("10-5", p_value, one_sided, "without sign"),
        ("10-5", p_value, lambda d, s: p_value(d, s) / 2 + 0.01, "too low"),
        ("10-5", p_value, 0.05, "function"),
    ],
)
def test_right_answers_pass_and_others_get_a_hint(number, right, wrong, hint):
    assert teach.check(number, right).right
    verdict = teach.check(number, wrong)
    assert not verdict.right
    assert hint in verdict.message
