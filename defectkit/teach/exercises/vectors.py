"""The exercises on learned vectors of the elements: notebook 10."""

from math import gcd

import numpy as np

from defectkit.teach.checks import exercise

MASK = "[MASK]"
GROUP = {"Na": 1, "K": 1, "Ca": 2, "Ti": 4, "Zr": 4, "O": 16, "S": 16, "Cl": 17, "Br": 17}


@exercise(
    "10-1",
    cases=[(3, 2), (4, 2), (1, 1), (6, 4)],
    takes="cation and anion are charges without sign; the result is (amount of cation, of anion).",
    hint="Swap the two charges, then divide both by their greatest common divisor.",
    way="common = math.gcd(cation, anion), or np.gcd; (anion // common, cation // common)",
    meaning="Al2O3, but TiO2 and not Ti2O4: a formula has the smallest whole amounts.",
    mistakes={
        "The amounts are swapped: two times +3 and three times -2 make Al2O3.": (
            lambda cation, anion: (cation // gcd(cation, anion), anion // gcd(cation, anion))
        ),
        "Divide both by their greatest common divisor: TiO2, not Ti2O4.": (
            lambda cation, anion: (anion, cation)
        ),
        "Those are the charges themselves; their amounts are wanted.": (
            lambda cation, anion: (cation, anion)
        ),
        "Halves are no amounts: whole numbers, the smallest.": lambda cation, anion: (
            1,
            cation / anion,
        ),
        "It depends on the charges: not always one of each.": (lambda cation, anion: (1, 1)),
    },
)
def balanced(cation: int, anion: int) -> tuple[int, int]:
    """Smallest whole amounts of a cation and an anion whose charges add up to zero."""
    common = gcd(cation, anion)
    return anion // common, cation // common


def _hide(asked: np.ndarray, what: np.ndarray, masked: float, changed: float) -> np.ndarray:
    """For each token 0 where it stays, 1 where it is masked, 2 where it is changed."""
    return np.where(asked, np.where(what < masked, 1, np.where(what < changed, 2, 0)), 0)


def _written(tokens: np.ndarray, other: np.ndarray, done: np.ndarray) -> list[str]:
    return [(token, MASK, new)[how] for token, new, how in zip(tokens, other, done)]


@exercise(
    "10-2",
    cases=[
        (
            np.array(["Ca", "Ti", "O", "Sr", "Zr", "S"], dtype=object),
            np.array([0.05, 0.14, 0.10, 0.60, 0.15, 0.02]),
            np.array([0.50, 0.85, 0.97, 0.10, 0.20, 0.80]),
            np.array(["Li", "Fe", "Cl", "Au", "Na", "Br"], dtype=object),
        )
    ],
    takes="all four are arrays (n,); the result is an array or a list of n texts.",
    hint='Two np.where in each other for "[MASK]", other or tokens, and one more for chance.',
    way='hidden = np.where(what < 0.8, "[MASK]", np.where(what < 0.9, other, tokens)); '
    "np.where(chance < 0.15, hidden, tokens)",
    meaning="What it reads may be masked, wrong or right: so it has to look at all of it.",
    mistakes={
        "Of those asked for only 80 % are masked: 10 % become another element, 10 % stay.": (
            lambda tokens, chance, what, other: _written(
                tokens, other, _hide(chance < 0.15, what, 1.0, 1.0)
            )
        ),
        "Where what is 0.9 or above the element stays, although it is asked for.": (
            lambda tokens, chance, what, other: _written(
                tokens, other, _hide(chance < 0.15, what, 0.8, 1.0)
            )
        ),
        "Between 0.8 and 0.9 another element stands there: the one of other.": (
            lambda tokens, chance, what, other: _written(
                tokens, other, _hide(chance < 0.15, what, 0.8, 0.8)
            )
        ),
        "Where chance is not below 0.15 nothing happens.": lambda tokens, chance, what, other: (
            _written(tokens, other, _hide(chance >= 0.0, what, 0.8, 0.9))
        ),
        "That is the wrong way round: below 0.15 an element is asked for.": (
            lambda tokens, chance, what, other: _written(
                tokens, other, _hide(chance >= 0.15, what, 0.8, 0.9)
            )
        ),
        "At 0.15 itself nothing happens: < and not <=.": lambda tokens, chance, what, other: (
            _written(tokens, other, _hide(chance <= 0.15, what, 0.8, 0.9))
        ),
        "0.8 itself belongs to the elements that are changed: < and not <=.": (
            lambda tokens, chance, what, other: _written(
                tokens, other, _hide(chance < 0.15, what, 0.8 + 1e-9, 0.9)
            )
        ),
    },
)
def masked(tokens: np.ndarray, chance: np.ndarray, what: np.ndarray, other: np.ndarray) -> list:
    """Hide elements of a sentence: 15 % asked for, of them 80 % masked, 10 % changed, 10 % kept."""
    return _written(tokens, other, _hide(chance < 0.15, what, 0.8, 0.9))


def _groups(symbols: list[str], group: dict[str, int]) -> list[int]:
    return [group[symbol] for symbol in symbols]


@exercise(
    "10-3",
    cases=[
        (first.split(), second.split(), GROUP)
        for first, second in (
            ("Na Cl", "K Br"),
            ("Na Cl", "K S"),
            ("Br K", "Na Cl"),
            ("Na K Cl", "K Br"),
            ("Ca Ti O", "Zr S"),
            ("K Br", "Ca K Cl"),
            ("Ca O", "O Ca"),
            ("Na Cl", "Ca O"),
        )
    ],
    takes="first and second are lists of symbols, group a dictionary; the result True or False.",
    hint="A set forgets order and number: compare the sets of the groups.",
    way="{group[x] for x in first} == {group[x] for x in second}",
    meaning="Whoever answers this has learned what a group is, because we asked.",
    mistakes={
        "Elements need not be equal: NaCl and KBr hold groups 1 and 17 both.": (
            lambda first, second, group: set(first) == set(second)
        ),
        "The order does not count: compare sets.": lambda first, second, group: (
            _groups(first, group) == _groups(second, group)
        ),
        "How often a group is there does not count: compare sets.": lambda first, second, group: (
            sorted(_groups(first, group)) == sorted(_groups(second, group))
        ),
        "All groups of both must agree, not some: NaCl and KS share group 1 only.": (
            lambda first, second, group: bool({*_groups(first, group)} & {*_groups(second, group)})
        ),
        "The second formula may have no further group either: ==, not <=.": (
            lambda first, second, group: {*_groups(first, group)} <= {*_groups(second, group)}
        ),
        "The first formula may have no further group either: ==, not >=.": (
            lambda first, second, group: {*_groups(first, group)} >= {*_groups(second, group)}
        ),
        "That is whether they differ.": lambda first, second, group: (
            {*_groups(first, group)} != {*_groups(second, group)}
        ),
        "It depends on the formulas: not always True.": lambda first, second, group: True,
        "It depends on the formulas: not always False.": lambda first, second, group: False,
    },
)
def alike(first: list[str], second: list[str], group: dict[str, int]) -> bool:
    """Whether two formulas hold elements of the same groups."""
    return {*_groups(first, group)} == {*_groups(second, group)}


_VECTORS = np.array([[1.0, 0.0], [9.0, 9.0], [0.2, 0.02], [-1.0, 0.0], [0.9, 0.5]])


def _most(score: np.ndarray, row: int) -> int:
    """The row of the largest score but `row` itself."""
    return int(np.where(np.arange(len(score)) == row, -np.inf, score).argmax())


def _cosine(vectors: np.ndarray, row: int) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1)
    return vectors @ vectors[row] / length / length[row]


@exercise(
    "10-4",
    cases=[(_VECTORS, row) for row in range(5)],
    takes="vectors is (n, D), row a number; the result is the number of another row.",
    hint="Products over lengths, minus infinity in the row's own place, then argmax.",
    way="cosine = vectors @ vectors[row] / np.linalg.norm(vectors, axis=1); "
    "cosine[row] = -np.inf; int(cosine.argmax())",
    meaning="A direction is what counts: a long vector is no more alike than a short one.",
    mistakes={
        "An element is always most like itself: leave its own row out.": (lambda vectors, row: row),
        "That is the largest product: divide by the lengths of both vectors.": (
            lambda vectors, row: _most(vectors @ vectors[row], row)
        ),
        "That is the nearest point; the nearest direction is wanted.": lambda vectors, row: _most(
            -np.linalg.norm(vectors - vectors[row], axis=1), row
        ),
        "That one points away the most: argmax, not argmin.": lambda vectors, row: int(
            _cosine(vectors, row).argmin()
        ),
        "An opposite direction is not alike: no absolute value.": lambda vectors, row: _most(
            abs(_cosine(vectors, row)), row
        ),
        "The function must work for every row.": lambda vectors, row: 2,
        "That is the cosine itself; the number of its row is wanted, argmax.": (
            lambda vectors, row: np.delete(_cosine(vectors, row), row).max()
        ),
    },
)
def most_alike(vectors: np.ndarray, row: int) -> int:
    """Row of the vector that points most nearly in the direction of another."""
    return _most(_cosine(vectors, row), row)


def _flips(n: int) -> np.ndarray:
    """All (2^n, n) ways to give n differences a sign."""
    return np.array(np.meshgrid(*[[1.0, -1.0]] * n)).reshape(n, -1).T


def _means(difference: np.ndarray, signs: np.ndarray) -> np.ndarray:
    return (signs * difference).mean(axis=1)


@exercise(
    "10-5",
    cases=[
        (np.array(difference), _flips(len(difference)))
        for difference in ([0.2, 0.1, -0.05, 0.15], [-0.1, -0.3, 0.05], [0.1, 0.1, 0.1, 0.2, -0.3])
    ],
    takes="difference is (n,), signs (flips, n) of +1 and -1; the result is a share.",
    hint="Means of signs * difference along each row; the share whose size is that of the mean.",
    way="means = np.abs((signs * difference).mean(axis=1)); "
    "(means >= abs(difference.mean()) - 1e-12).mean()",
    meaning="How often chance alone does as well. Small says: hardly ever; it does not say: large.",
    mistakes={
        "Either model may be the better one: count means that are as large without sign.": (
            lambda difference, signs: (
                _means(difference, signs) >= difference.mean() - 1e-12
            ).mean()
        ),
        "What was found is one of the possible flips: count >=, not >.": (
            lambda difference, signs: (
                abs(_means(difference, signs)) > abs(difference.mean()) + 1e-12
            ).mean()
        ),
        "That is the share of those that are smaller.": lambda difference, signs: (
            abs(_means(difference, signs)) < abs(difference.mean()) - 1e-12
        ).mean(),
        "That is their number; the share is wanted, the mean of True and False.": (
            lambda difference, signs: int(
                (abs(_means(difference, signs)) >= abs(difference.mean()) - 1e-12).sum()
            )
        ),
        "Flip first, then take the absolute value of the mean: not of each difference.": (
            lambda difference, signs: (
                abs(signs * difference).mean(axis=1) >= abs(difference.mean()) - 1e-12
            ).mean()
        ),
        "What was found counts with its size too: abs(difference.mean()).": (
            lambda difference, signs: (
                abs(_means(difference, signs)) >= difference.mean() - 1e-12
            ).mean()
        ),
    },
)
def permutation(difference: np.ndarray, signs: np.ndarray) -> float:
    """P of a paired permutation test, from signs that are given."""
    return (abs(_means(difference, signs)) >= abs(difference.mean()) - 1e-12).mean()
