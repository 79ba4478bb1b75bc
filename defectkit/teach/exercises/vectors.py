"""Judges of the exercises on learned vectors of the elements: notebook 10."""

import numpy as np

from defectkit.data.dataset import Dataset
from defectkit.teach.checks import exercise, pair_of, result_of, same_number

MASK = "[MASK]"


@exercise("10-1")
def balanced(data: Dataset, answer: object) -> str | None:
    """Smallest whole amounts of a cation and an anion whose charges add up to zero."""
    cases = (
        ((3, 2), (2, 3), "Al and O: two times +3 and three times -2."),
        ((4, 2), (1, 2), "Ti and O: two and four have a common divisor; math.gcd finds it."),
        ((1, 1), (1, 1), "Na and Cl: one of each."),
        ((6, 4), (2, 3), "Divide both by their greatest common divisor."),
    )
    for (cation, anion), expected, hint in cases:
        words = "cation and anion are charges without sign; the result is a pair of amounts."
        found = result_of(answer, "(cation, anion)", words, cation, anion)
        pair = pair_of(found, "your function must return a pair: (amount of cation, of anion).")
        if tuple(pair) != expected:
            return hint
    return None


@exercise("10-2")
def masked(data: Dataset, answer: object) -> str | None:
    """Hide elements of a sentence: 15 % asked for, of them 80 % masked, 10 % changed, 10 % kept."""
    tokens = np.array(["Ca", "Ti", "O", "Sr", "Zr", "S"], dtype=object)
    chance = np.array([0.05, 0.14, 0.10, 0.60, 0.15, 0.02])
    what = np.array([0.50, 0.85, 0.97, 0.10, 0.20, 0.80])
    other = np.array(["Li", "Fe", "Cl", "Au", "Na", "Br"], dtype=object)
    shapes = "all four are arrays (n,); the result is an array or a list of n texts."
    names = "(tokens, chance, what, other)"
    before = tokens.copy()
    found = result_of(answer, names, shapes, tokens, chance, what, other)
    if (tokens != before).any():
        return "your function changed the sentence that it was given; copy it first."
    if not isinstance(found, list | tuple | np.ndarray) or len(found) != len(tokens):
        return f"return one text for each of the {len(tokens)} tokens."
    expected = [MASK, "Fe", "O", "Sr", "Zr", "Br"]
    hints = (
        f"where chance < 0.15 and what < 0.8, an element becomes {MASK!r}.",
        "where chance < 0.15 and 0.8 <= what < 0.9, another element stands there.",
        "where what >= 0.9 the element stays, although it is asked for.",
        "where chance >= 0.15 nothing happens.",
        "chance < 0.15: at 0.15 itself nothing happens.",
        "0.8 itself belongs to the elements that are changed.",
    )
    return next((hint for x, y, hint in zip(found, expected, hints) if x != y), None)


@exercise("10-3")
def alike(data: Dataset, answer: object) -> str | None:
    """Whether two formulas hold elements of the same groups."""
    group = {"Na": 1, "K": 1, "Ca": 2, "Ti": 4, "Zr": 4, "O": 16, "S": 16, "Cl": 17, "Br": 17}
    shapes = "first and second are lists of symbols, group a dictionary; the result True or False."
    cases = (
        (["Na", "Cl"], ["K", "Br"], True, "NaCl and KBr: groups 1 and 17 in both."),
        (["Na", "Cl"], ["K", "S"], False, "chlorine is of group 17, sulfur of group 16."),
        (["Br", "K"], ["Na", "Cl"], True, "the order does not count: compare sets."),
        (["Na", "K", "Cl"], ["K", "Br"], True, "how often a group is there does not count."),
        (["Ca", "Ti", "O"], ["Zr", "S"], False, "all groups of both must agree, not some."),
    )
    for first, second, expected, hint in cases:
        found = result_of(answer, "(first, second, group)", shapes, first, second, group)
        if not isinstance(found, bool | np.bool_):
            return "answer with True or False."
        if bool(found) != expected:
            return hint
    return None


@exercise("10-4")
def most_alike(data: Dataset, answer: object) -> str | None:
    """Row of the vector that points most nearly in the direction of another."""
    vectors = np.array([[1.0, 0.0], [9.0, 9.0], [0.2, 0.02], [-1.0, 0.0], [0.9, 0.5]])
    shapes = "vectors is (n, D), row a number; the result is the number of another row."
    found = result_of(answer, "(vectors, row)", shapes, vectors, 0)
    if found == 0:
        return "an element is always most like itself: leave its own row out."
    if found == 1:
        return "that is the largest product: divide by the lengths of both vectors."
    if fault := same_number(found, 2, "argmax of the cosine over the other rows."):
        return fault
    again = result_of(answer, "(vectors, row)", shapes, vectors, 1)
    return same_number(again, 4, "the function must work for every row.")


@exercise("10-5")
def permutation(data: Dataset, answer: object) -> str | None:
    """P of a paired permutation test, from signs that are given."""
    difference = np.array([0.2, 0.1, -0.05, 0.15])
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * 4)).reshape(4, -1).T  # all sixteen
    shapes = "difference is (n,), signs (flips, n) of +1 and -1; the result is a share."
    found = result_of(answer, "(difference, signs)", shapes, difference, signs)
    means = (signs * difference).mean(axis=1)
    seen = abs(difference.mean())
    both = (np.abs(means) >= seen - 1e-12).mean()
    if isinstance(found, float | np.floating) and np.isclose(found, (means >= seen - 1e-12).mean()):
        return "either model may be the better one: count means that are as large without sign."
    if isinstance(found, float | np.floating) and np.isclose(
        found, (np.abs(means) > seen + 1e-12).mean()
    ):
        return "what was found is one of the possible exchanges: count >=, not >."
    hint = "Means of signs * difference along each row; the share whose size is that of the mean."
    return same_number(found, both, hint)
